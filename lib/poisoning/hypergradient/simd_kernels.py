"""Two inner loops over four rows and a few vectors, with the registers' width written out.

LLVM's own vectoriser keeps to registers of 256 bits on processors that have 512, since on some of
them wide registers lower the clock frequency. These loops run about 1.4 times as fast with 512. On
a processor with narrower registers LLVM splits one in two. Each number of a row is loaded, and
converted, once for all vectors. Both loops cover whole registers only (64 bytes of ``v``'s type);
the caller adds the columns that are left over.

Assumed, and not checked: the last axis of all arrays is contiguous, and rows of ``X``, ``buffer``,
``v``, ``z`` and ``g`` follow one another without gaps.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 4
INDEX = ir.IntType(64)
_BYTES = 64


def index(value):
    """A constant to count with."""
    return ir.Constant(INDEX, value)


def array_of(context, builder, kind, value):
    """The array behind an argument."""
    return context.make_array(kind)(context, builder, value)


def row_of(builder, array, *numbers):
    """Pointer to a line along the last axis of a contiguous array."""
    place = index(0)
    for axis, number in enumerate(numbers):
        size = builder.extract_value(array.shape, axis)
        place = builder.add(builder.mul(place, size), number)
    size = builder.extract_value(array.shape, len(numbers))
    return builder.gep(array.data, [builder.mul(place, size)])


def at(builder, pointer, column, vector):
    """Pointer to a vector that begins there."""
    return builder.bitcast(builder.gep(pointer, [column]), vector.as_pointer())


def _multiply_add(builder, a, b, c):
    return builder.fadd(builder.fmul(a, b, flags=["contract"]), c, flags=["contract"])


def _vectors(context, builder, kind, array):
    """The vector type, its lanes, and the number of columns in whole vectors of ``array``."""
    element = context.get_value_type(kind.dtype)
    lanes = _BYTES * 8 // kind.dtype.bitwidth
    size = builder.extract_value(array.shape, 1)
    return ir.VectorType(element, lanes), lanes, builder.and_(size, index(-lanes))


def scores_with(count):
    """z = products of rows i … i + 3 of X with v: ``v`` (count, columns), ``z`` (count, 4).

    Rows of another type than v's are left, converted, in ``buffer`` (4, columns).
    """

    @intrinsic
    def scores(typing, X, i, v, buffer, z):  # pragma: no cover (runs in the compiler)
        signature = types.void(X, types.intp, v, buffer, z)

        def generate(context, builder, signature, values):
            x_kind, _, v_kind, buffer_kind, z_kind = signature.args
            rows = array_of(context, builder, x_kind, values[0])
            vectors = array_of(context, builder, v_kind, values[2])
            store = array_of(context, builder, buffer_kind, values[3])
            out = array_of(context, builder, z_kind, values[4])
            vector, lanes, whole = _vectors(context, builder, v_kind, vectors)
            raw = ir.VectorType(context.get_value_type(x_kind.dtype), lanes)
            size, raw_size = v_kind.dtype.bitwidth // 8, x_kind.dtype.bitwidth // 8
            sources = [row_of(builder, rows, builder.add(values[1], index(k))) for k in range(ROWS)]
            targets = [row_of(builder, store, index(k)) for k in range(ROWS)]
            factors = [row_of(builder, vectors, index(q)) for q in range(count)]
            zero = ir.Constant(vector, None)
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in targets] for _ in factors]
            loop = cgutils.for_range_slice(builder, index(0), whole, index(lanes), INDEX)
            with loop as (column, _):
                found = []
                for source, target in zip(sources, targets, strict=True):
                    x = builder.load(at(builder, source, column, raw), align=raw_size)
                    if isinstance(x_kind.dtype, types.Integer):
                        x = builder.uitofp(x, vector)
                    elif raw_size < size:
                        x = builder.fpext(x, vector)
                    if x_kind.dtype != v_kind.dtype:
                        builder.store(x, at(builder, target, column, vector), align=size)
                    found.append(x)
                for factor, totals in zip(factors, sums, strict=True):
                    w = builder.load(at(builder, factor, column, vector), align=size)
                    for x, total in zip(found, totals, strict=True):
                        builder.store(_multiply_add(builder, x, w, builder.load(total)), total)
            add_up = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector.element, [vector.element, vector]),
                f"llvm.vector.reduce.fadd.v{lanes}f{v_kind.dtype.bitwidth}",
            )
            start = ir.Constant(vector.element, -0.0)
            for q, totals in enumerate(sums):
                place = row_of(builder, out, index(q))
                for k, total in enumerate(totals):
                    z = builder.call(add_up, [start, builder.load(total)], fastmath=["reassoc"])
                    builder.store(z, builder.gep(place, [index(k)]))
            return context.get_dummy_value()

        return signature, generate

    return scores


def add_to(count):
    """g_q += Σ r_qk × row i + k of X: ``r`` (count, 4), ``g`` (count, columns).

    Rows of another type than g's are read from ``buffer``.
    """

    @intrinsic
    def add(typing, X, i, buffer, r, g):  # pragma: no cover (runs in the compiler)
        signature = types.void(X, types.intp, buffer, r, g)

        def generate(context, builder, signature, values):
            x_kind, _, buffer_kind, r_kind, g_kind = signature.args
            if x_kind.dtype == g_kind.dtype:
                store, start = array_of(context, builder, x_kind, values[0]), values[1]
            else:
                store, start = array_of(context, builder, buffer_kind, values[2]), index(0)
            scalars = array_of(context, builder, r_kind, values[3])
            sums = array_of(context, builder, g_kind, values[4])
            vector, lanes, whole = _vectors(context, builder, g_kind, sums)
            size = g_kind.dtype.bitwidth // 8
            nothing = ir.Constant(vector, ir.Undefined)
            first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)

            def everywhere(q, k):
                scalar = builder.load(builder.gep(row_of(builder, scalars, index(q)), [index(k)]))
                one = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
                return builder.shuffle_vector(one, nothing, first)

            factors = [[everywhere(q, k) for k in range(ROWS)] for q in range(count)]
            sources = [row_of(builder, store, builder.add(start, index(k))) for k in range(ROWS)]
            targets = [row_of(builder, sums, index(q)) for q in range(count)]
            loop = cgutils.for_range_slice(builder, index(0), whole, index(lanes), INDEX)
            with loop as (column, _):
                rows = [
                    builder.load(at(builder, source, column, vector), align=size)
                    for source in sources
                ]
                for target, own in zip(targets, factors, strict=True):
                    place = at(builder, target, column, vector)
                    total = builder.load(place, align=size)
                    for factor, x in zip(own, rows, strict=True):
                        total = _multiply_add(builder, factor, x, total)
                    builder.store(total, place, align=size)
            return context.get_dummy_value()

        return signature, generate

    return add
