"""Products of rows of bytes with vectors, in integers: what AVX-512 VNNI is for.

One instruction multiplies 64 unsigned by 64 signed bytes and adds the products up by fours. So a
vector is split into three signed bytes per number, v ≈ unit · (2¹⁶ a + 2⁸ b + c), as exact relative
to its largest number as float32 is, and a row of pixels needs neither conversion nor a float's four
bytes: three such instructions do 64 multiplications where a fused multiply-add does 16, and those
of the conversion are saved.

Rows come twice, in the orders in which the two products read them: ``rows`` (n / 4, c / 64, 4, 64),
64 columns of four rows after one another, and ``columns`` (c / 64, n / 4, 64, 4), where sums over
rows find four of them side by side. Both are filled up with zeros. Integer sums do not depend on
their order; only joining the three rounds.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy import ndarray

from lib.hypergradient.simd_kernels import INDEX, array_of, at, index, row_of

QUAD = 4
TILE = 64
LIMBS = 3
LARGEST = np.float32(
    127 << 16
)  # what a vector's largest number becomes, and still fits three bytes
TINIEST = np.float32(1e-30)  # vectors no larger than that are taken for zero
MOST_QUADS = 2**14  # whose sums fit 32 bits: 2¹⁴ · 4 · 255 · 128 < 2³¹

_LANES = 16
_INTEGER, _REAL = ir.IntType(32), ir.FloatType()
_INTEGERS, _REALS = ir.VectorType(_INTEGER, _LANES), ir.VectorType(_REAL, _LANES)


def available() -> bool:
    """Whether the processor that Numba compiles for has the instruction."""
    *_, features = cpu_target.target_context.codegen().magic_tuple()
    return "+avx512vnni" in features.split(",")


def packed(X: ndarray) -> tuple[ndarray, ndarray]:
    """Rows of bytes (…, n, d) as ``rows`` and ``columns``, each with the leading axes of X."""
    *lead, n, d = X.shape
    whole = np.zeros((*lead, n + -n % QUAD, d + -d % TILE), np.uint8)
    whole[..., :n, :d] = X
    *_, n, c = whole.shape
    split = whole.reshape(*lead, n // QUAD, QUAD, c // TILE, TILE)
    orders = (0, 2, 1, 3), (2, 0, 3, 1)
    return tuple(
        _aligned(split.transpose(*range(len(lead)), *(len(lead) + axis for axis in order)))
        for order in orders
    )


def _aligned(X: ndarray) -> ndarray:
    """A contiguous copy that begins with a cache line."""
    memory = np.empty(X.size + TILE, np.uint8)
    first = -memory.ctypes.data % TILE
    found = memory[first : first + X.size].reshape(X.shape)
    found[...] = X
    return found


def _load(builder, pointer):
    return builder.load(pointer, align=1)


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


def _lanes(builder, a, b, *lanes):
    mask = ir.Constant(ir.VectorType(_INTEGER, len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)


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


def dots_with(count):
    """z[:, 4 i … 4 i + 3] = the products of quad i of rows with ``count`` vectors, in their units.

    ``rows`` as packed; ``limbs`` (count, 3, c) of signed bytes; ``z`` (count, n) of float32.
    """

    @intrinsic
    def dots(typing, rows, i, limbs, z):  # pragma: no cover (runs in the compiler)
        signature = types.void(rows, types.intp, limbs, z)

        def generate(context, builder, signature, values):
            kinds = signature.args
            X = array_of(context, builder, kinds[0], values[0])
            L = array_of(context, builder, kinds[2], values[2])
            out = array_of(context, builder, kinds[3], values[3])
            factors = [[row_of(builder, L, index(q), index(limb)) for limb in range(LIMBS)]
                       for q in range(count)]  # fmt: skip
            sums = _sums(builder, count)
            whole = builder.extract_value(X.shape, 1)
            with cgutils.for_range_slice(builder, index(0), whole, index(1), INDEX) as (t, _):
                column = builder.mul(t, index(TILE))
                lines = [row_of(builder, X, values[1], t, index(k)) for k in range(QUAD)]
                pixels = [_load(builder, at(builder, x, index(0), _INTEGERS)) for x in lines]
                for own, of_limbs in zip(factors, sums, strict=True):
                    for limb, totals in zip(own, of_limbs, strict=True):
                        factor = _load(builder, at(builder, limb, column, _INTEGERS))
                        _add_products(builder, totals, pixels, factor)
            for q, of_limbs in enumerate(sums):
                rows_of = [_joined(builder, limbs) for limbs in zip(*of_limbs, strict=True)]
                found = _sums_of_lanes(builder, *rows_of)
                line = row_of(builder, out, index(q))
                place = at(builder, line, builder.mul(values[1], index(QUAD)), found.type)
                builder.store(found, place, align=4)
            return context.get_dummy_value()

        return signature, generate

    return dots


def add_tile(count):
    """g[:, 64 t … 64 t + 63] += Σ r_i × row i over some quads of rows, in r's units.

    ``first``, ``last``: the quads, at most ``MOST_QUADS``. ``columns`` as packed; ``limbs`` (count,
    3, n / 4), four signed bytes each; ``g`` (count, c) of float32.
    """

    @intrinsic
    def add(typing, columns, t, first, last, limbs, g):  # pragma: no cover (runs in the compiler)
        signature = types.void(columns, types.intp, types.intp, types.intp, limbs, g)

        def generate(context, builder, signature, values):
            kinds, (_, t, first, last, *_) = signature.args, values
            X = array_of(context, builder, kinds[0], values[0])
            L = array_of(context, builder, kinds[4], values[4])
            out = array_of(context, builder, kinds[5], values[5])
            factors = [[row_of(builder, L, index(q), index(limb)) for limb in range(LIMBS)]
                       for q in range(count)]  # fmt: skip
            sums = _sums(builder, count)
            with cgutils.for_range_slice(builder, first, last, index(1), INDEX) as (k, _):
                quad = row_of(builder, X, t, k, index(0))
                starts = [index(TILE * part) for part in range(QUAD)]
                pixels = [_load(builder, at(builder, quad, x, _INTEGERS)) for x in starts]
                for own, of_limbs in zip(factors, sums, strict=True):
                    for limb, totals in zip(own, of_limbs, strict=True):
                        four = builder.load(builder.gep(limb, [k]))
                        nothing = ir.Constant(_INTEGERS, ir.Undefined)
                        alone = builder.insert_element(nothing, four, ir.Constant(_INTEGER, 0))
                        everywhere = _lanes(builder, alone, nothing, *([0] * _LANES))
                        _add_products(builder, totals, pixels, everywhere)
            for q, of_limbs in enumerate(sums):
                line = builder.gep(row_of(builder, out, index(q)), [builder.mul(t, index(TILE))])
                for part, limbs in enumerate(zip(*of_limbs, strict=True)):
                    place = at(builder, line, index(_LANES * part), _REALS)
                    total = builder.fadd(builder.load(place, align=4), _joined(builder, limbs))
                    builder.store(total, place, align=4)
            return context.get_dummy_value()

        return signature, generate

    return add


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
    limbs[:, v.size :] = 0
    if not TINIEST < most < np.inf:
        limbs[:] = 0
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


def products_with(count):
    """Both products for ``count`` vectors.

    ``scores(rows, v, z)``: z (count, n) = products of all rows with v (count, ≤ c).
    ``add(columns, r, g)``: g (count, ≤ c) += Σ r_i × row i, r (count, ≤ n).
    """
    dots, add_to = dots_with(count), add_tile(count)

    @njit(cache=True)
    def scores(rows, v, z):
        limbs = np.empty((count, LIMBS, TILE * rows.shape[1]), np.int8)
        units = [split(v[q], limbs[q]) for q in range(count)]
        for quad in range(len(rows)):
            dots(rows, quad, limbs, z)
        for q in range(count):
            for i in range(z.shape[1]):
                z[q, i] *= units[q]

    @njit(cache=True)
    def add(columns, r, g):
        parts, quads, _, _ = columns.shape
        limbs = np.empty((count, LIMBS, QUAD * quads), np.int8)
        units = [split(r[q], limbs[q]) for q in range(count)]
        sums = np.zeros((count, TILE * parts), np.float32)
        fours = limbs.view(np.int32)
        for first in range(0, quads, MOST_QUADS):
            for t in range(parts):
                add_to(columns, t, first, min(first + MOST_QUADS, quads), fours, sums)
        for q in range(count):
            for c in range(g.shape[1]):
                g[q, c] += units[q] * sums[q, c]

    return scores, add
