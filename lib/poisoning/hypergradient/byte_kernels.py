"""Products of rows of bytes with vectors, in integers, by the instructions of AVX-512 VNNI.

One instruction multiplies 64 unsigned by 64 signed bytes and adds the products up by fours. A
vector is therefore split into three signed bytes per number, v ≈ unit · (2¹⁶ a + 2⁸ b + c).
Relative to the vector's largest number that is as exact as float32. Pixels are used as they are:
they are not converted, and a pixel takes one byte of memory instead of a float's four. Three such
instructions do 64 multiplications, a fused multiply-add 16.

Rows are packed as (n / 4, c / 64, 4, 64), 64 columns of four rows after one another, filled up with
zeros. For products with a vector, four columns of a row lie side by side, as the instruction wants
them; for sums over rows, the four rows of a column are brought together in registers. Both take a
block of rows at a time: products load it into the second-level cache, where the sums find it.
Vectors come in tuples of one or two, and code is compiled for each length: two vectors share what
is loaded of the rows.

Assumed, and not checked: rows are bytes as :func:`packed` lays them out; vectors are float32 and as
long as the rows, their limbs filled up with zeros.
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy import ndarray

from poisoning.compiled import njit

QUAD = 4
TILE = 64
LIMBS = 3
LARGEST = np.float32(127 << 16)  # a vector's largest number in its unit: fits three signed bytes
TINIEST = np.float32(1e-30)  # vectors no larger than that are taken for zero
BLOCK = 64  # quads of rows at a time: in the second-level cache, sums of 4 · 64 · 255 · 128 fit
TILES = 24  # at a time: limbs in the first-level cache, sums of 4 · 24 · 255 · 128 fit
AHEAD = 2  # quads: what has to come from memory is asked for that early

_LANES = 16
_INDEX = ir.IntType(64)
_INTEGER, _REAL = ir.IntType(32), ir.FloatType()
_INTEGERS, _REALS = ir.VectorType(_INTEGER, _LANES), ir.VectorType(_REAL, _LANES)


@cache
def available() -> bool:
    """Whether the processor that Numba compiles for has the instruction."""
    *_, features = cpu_target.target_context.codegen().magic_tuple()
    return "+avx512vnni" in features.split(",")


def packed(X: ndarray) -> ndarray:
    """Rows of bytes (…, n, d) as (…, n / 4, c / 64, 4, 64)."""
    *lead, n, d = X.shape
    whole = np.zeros((*lead, n + -n % QUAD, d + -d % TILE), np.uint8)
    whole[..., :n, :d] = X
    *_, n, c = whole.shape
    return _aligned(whole.reshape(*lead, n // QUAD, QUAD, c // TILE, TILE).swapaxes(-3, -2))


def _aligned(X: ndarray) -> ndarray:
    """A contiguous copy that begins with a cache line."""
    memory = np.empty(X.size + TILE, np.uint8)
    first = -memory.ctypes.data % TILE
    found = memory[first : first + X.size].reshape(X.shape)
    found[...] = X
    return found


def _index(value):
    """A constant to count with."""
    return ir.Constant(_INDEX, value)


def _array(context, builder, kind, value):
    """The array behind an argument."""
    return context.make_array(kind)(context, builder, value)


def _row(builder, array, *numbers):
    """Pointer to a line along the last axis of a contiguous array."""
    place = _index(0)
    for axis, number in enumerate(numbers):
        size = builder.extract_value(array.shape, axis)
        place = builder.add(builder.mul(place, size), number)
    size = builder.extract_value(array.shape, len(numbers))
    return builder.gep(array.data, [builder.mul(place, size)])


def _at(builder, pointer, column, vector):
    """Pointer to a vector that begins there."""
    return builder.bitcast(builder.gep(pointer, [column]), vector.as_pointer())


def _load(builder, pointer):
    return builder.load(pointer, align=1)


def _prefetch(builder, pointer):
    """Ask for an address to be loaded into the second-level cache.

    It is a hint: an address outside the array does no harm.
    """
    anything = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [anything, _INTEGER, _INTEGER, _INTEGER])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    read, second_level, data = (ir.Constant(_INTEGER, value) for value in (0, 2, 1))
    builder.call(function, [pointer, read, second_level, data])


def _lanes(builder, a, b, *lanes):
    mask = ir.Constant(ir.VectorType(_INTEGER, len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)


def _everywhere(builder, number):
    """A vector that holds the number in every lane."""
    nothing = ir.Constant(ir.VectorType(number.type, _LANES), ir.Undefined)
    alone = builder.insert_element(nothing, number, ir.Constant(_INTEGER, 0))
    return _lanes(builder, alone, nothing, *([0] * _LANES))


def _lines(context, builder, kind, value):
    """Pointers to the limbs of every vector in a tuple."""
    arrays = [
        _array(context, builder, kind.dtype, one) for one in cgutils.unpack_tuple(builder, value)
    ]
    return [[_row(builder, array, _index(limb)) for limb in range(LIMBS)] for array in arrays]


def _sums(builder, count):
    """Zeros, for every vector, limb, and row or part of a tile."""
    zero = ir.Constant(_INTEGERS, None)
    return [[[cgutils.alloca_once_value(builder, zero) for _ in range(QUAD)]
             for _ in range(LIMBS)] for _ in range(count)]  # fmt: skip


def _add_products(builder, totals, pixels, factor):
    """To every total, the products of its pixels with a factor, added up by fours."""
    kind = ir.FunctionType(_INTEGERS, [_INTEGERS] * 3)
    name = "llvm.x86.avx512.vpdpbusd.512"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    for total, x in zip(totals, pixels, strict=True):
        builder.store(builder.call(function, [builder.load(total), x, factor]), total)


def _joined(builder, limbs):
    """2¹⁶ a + 2⁸ b + c."""
    step = ir.Constant(_REALS, [256.0] * _LANES)
    total = ir.Constant(_REALS, [0.0] * _LANES)
    for limb in limbs:
        real = builder.sitofp(builder.load(limb), _REALS)
        total = builder.fadd(
            builder.fmul(total, step, flags=["contract"]), real, flags=["contract"]
        )
    return total


def _sums_of_lanes(builder, a, b, c, d):
    """The sum of every vector's 16 lanes, as a vector of four."""

    def folded(first, second, width):
        """Groups of 2·width lanes become groups of width, ``second``'s behind ``first``'s."""
        starts = range(0, 2 * _LANES, 2 * width)
        low = [start + lane for start in starts for lane in range(width)]
        left = _lanes(builder, first, second, *low)
        right = _lanes(builder, first, second, *(lane + width for lane in low))
        return builder.fadd(left, right)

    four = folded(folded(a, b, 8), folded(c, d, 8), 4)
    two = folded(four, four, 2)
    one = folded(two, two, 1)
    return _lanes(builder, one, one, *range(QUAD))


def _merged(builder, a, b, size):
    """Elements of ``size`` bytes from ``a`` and ``b`` in turns, in 16 bytes of each at a time.

    The lower and the upper halves of these 16 bytes: one instruction each.
    """
    per = 16 // size
    kind = ir.VectorType(ir.IntType(8 * size), TILE // size)
    a, b = builder.bitcast(a, kind), builder.bitcast(b, kind)
    halves = []
    for half in (0, per // 2):
        ours = [start + half + j for start in range(0, TILE // size, per) for j in range(per // 2)]
        lanes = [lane for one in ours for lane in (one, one + TILE // size)]
        halves.append(builder.bitcast(_lanes(builder, a, b, *lanes), _INTEGERS))
    return halves


def _side_by_side(builder, rows):
    """Four rows' bytes of the same column beside each other: 16 columns in each of four vectors.

    Vector p has columns 4 p … 4 p + 3 of every 16.
    """
    a, b, c, d = rows
    low, high = zip(_merged(builder, a, b, 1), _merged(builder, c, d, 1), strict=True)
    return [*_merged(builder, *low, 2), *_merged(builder, *high, 2)]


def _in_order(builder, parts):
    """Sums from the columns of :func:`_side_by_side`, 16 columns after 16."""
    for k in range(QUAD):
        ours = range(QUAD * k, QUAD * (k + 1))
        pairs = [_lanes(builder, *pair, *ours, *(_LANES + lane for lane in ours))
                 for pair in (parts[:2], parts[2:])]  # fmt: skip
        yield _lanes(builder, *pairs, *range(_LANES))


@intrinsic
def add_products(typing, rows, i, first, last, limbs, z):  # pragma: no cover (in the compiler)
    """z[:, 4 i … 4 i + 3] += products of quad i of rows with vectors, in their units.

    ``rows`` as packed, of which tiles ``first`` … ``last`` − 1 are taken, at most ``TILES``;
    ``limbs`` a tuple of every vector's (3, c), signed bytes; ``z`` (vectors, 4 × quads) of float32.
    """
    signature = types.void(rows, types.intp, types.intp, types.intp, limbs, z)

    def generate(context, builder, signature, values):
        kinds, (_, i, first, last, *_) = signature.args, values
        X = _array(context, builder, kinds[0], values[0])
        out = _array(context, builder, kinds[5], values[5])
        vectors = _lines(context, builder, kinds[4], values[4])
        sums = _sums(builder, len(vectors))
        with cgutils.for_range_slice(builder, first, last, _index(1), _INDEX) as (t, _):
            column = builder.mul(t, _index(TILE))
            lines = [_row(builder, X, i, t, _index(k)) for k in range(QUAD)]
            pixels = [_load(builder, _at(builder, x, _index(0), _INTEGERS)) for x in lines]
            later = builder.add(i, _index(AHEAD))
            for k in range(QUAD):
                _prefetch(builder, _row(builder, X, later, t, _index(k)))
            for factors, own in zip(vectors, sums, strict=True):
                for limb, totals in zip(factors, own, strict=True):
                    factor = _load(builder, _at(builder, limb, column, _INTEGERS))
                    _add_products(builder, totals, pixels, factor)
        for q, own in enumerate(sums):
            rows_of = [_joined(builder, limbs) for limbs in zip(*own, strict=True)]
            found = _sums_of_lanes(builder, *rows_of)
            line = _row(builder, out, _index(q))
            place = _at(builder, line, builder.mul(i, _index(QUAD)), found.type)
            builder.store(builder.fadd(builder.load(place, align=4), found), place, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_tile(typing, rows, t, limbs, units, g):  # pragma: no cover (in the compiler)
    """g[:, 64 t … 64 t + 63] += units × Σ r_i × row i over at most ``BLOCK`` quads of rows.

    ``rows`` as packed; ``limbs`` a tuple of every r's (3, rows or more), signed bytes; ``units``
    (vectors,) and ``g`` (vectors, c) of float32.
    """
    signature = types.void(rows, types.intp, limbs, units, g)

    def generate(context, builder, signature, values):
        kinds, (_, t, *_) = signature.args, values
        X = _array(context, builder, kinds[0], values[0])
        scales = _array(context, builder, kinds[3], values[3])
        out = _array(context, builder, kinds[4], values[4])
        vectors = _lines(context, builder, kinds[2], values[2])
        sums = _sums(builder, len(vectors))
        quads = builder.extract_value(X.shape, 0)
        with cgutils.for_range_slice(builder, _index(0), quads, _index(1), _INDEX) as (i, _):
            lines = [_row(builder, X, i, t, _index(k)) for k in range(QUAD)]
            rows = [_load(builder, _at(builder, x, _index(0), _INTEGERS)) for x in lines]
            pixels = _side_by_side(builder, rows)
            quad = builder.mul(i, _index(QUAD))
            for factors, own in zip(vectors, sums, strict=True):
                for limb, totals in zip(factors, own, strict=True):
                    four = _load(builder, _at(builder, limb, quad, _INTEGER))
                    _add_products(builder, totals, pixels, _everywhere(builder, four))
        for q, own in enumerate(sums):
            scale = _everywhere(builder, builder.load(builder.gep(scales.data, [_index(q)])))
            line = builder.gep(_row(builder, out, _index(q)), [builder.mul(t, _index(TILE))])
            parts = [_joined(builder, limbs) for limbs in zip(*own, strict=True)]
            for k, found in enumerate(_in_order(builder, parts)):
                place = _at(builder, line, _index(_LANES * k), _REALS)
                total = builder.fadd(builder.load(place, align=4), builder.fmul(scale, found))
                builder.store(total, place, align=4)
        return context.get_dummy_value()

    return signature, generate


@njit(cache=True)
def split(v, limbs):
    """v (n,) as bytes ``limbs`` (3, n or more), the rest 0; their unit, NaN if v is not finite."""
    # Without its sign, a float's pattern grows with it, up to infinity and then NaN.
    patterns, largest = v.view(np.int32), np.zeros(1, np.int32)
    top = np.int32(0)
    for j in range(v.size):
        top = max(top, patterns[j] & np.int32(0x7FFFFFFF))
    largest[0] = top
    most = largest.view(np.float32)[0]
    known = v.size if TINIEST < most < np.inf else 0
    for limb in range(LIMBS):
        for j in range(known, limbs.shape[1]):
            limbs[limb, j] = 0
    if not known:
        return most * np.float32(0)
    per_unit = LARGEST / most
    for j in range(v.size):
        number = np.int32(np.rint(v[j] * per_unit))
        low = ((number + 128) & 255) - 128
        number = (number - low) >> 8
        middle = ((number + 128) & 255) - 128
        limbs[0, j] = (number - middle) >> 8
        limbs[1, j] = middle
        limbs[2, j] = low
    return most / LARGEST


@njit(cache=True)
def block_products(block, limbs, units, z):
    """z (vectors, rows) = the products of a block's rows with vectors.

    Given are a tuple of every vector's limbs (3, c), and their units (vectors,).
    """
    for q in range(len(limbs)):
        for i in range(z.shape[1]):
            z[q, i] = 0
    tiles = block.shape[1]
    for first in range(0, tiles, TILES):
        for i in range(len(block)):
            add_products(block, i, first, min(first + TILES, tiles), limbs, z)
    for q in range(len(limbs)):
        for i in range(z.shape[1]):
            z[q, i] *= units[q]


@njit(cache=True)
def block_sums(block, r, limbs, units, g):
    """g (vectors, c) += Σ r_i × row i of a block for vectors r (vectors, ≥ rows).

    ``limbs``, a tuple of every vector's (3, ≥ rows), and ``units`` (vectors,) are overwritten.
    """
    for q in range(len(limbs)):
        units[q] = split(r[q], limbs[q])
    for t in range(block.shape[1]):
        add_tile(block, t, limbs, units, g)
