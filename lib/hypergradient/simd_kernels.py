"""Two inner loops over four rows, with the width of the vector registers written out.

LLVM's own vectoriser keeps to 256 bits on processors that have 512, because frequencies used to
drop. These loops are limited by arithmetic on bytes just converted, and run about 1.4 times as fast
with 512. On a narrower processor LLVM splits a vector in two. Both loops cover whole vectors only
(64 bytes of ``v``'s type): the caller adds what is left over. All arrays must be contiguous.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_INDEX = ir.IntType(64)
_BYTES = 64
_ROWS = range(4)


def _index(value):
    return ir.Constant(_INDEX, value)


def _array(context, builder, kind, value):
    return context.make_array(kind)(context, builder, value)


def _row(builder, array, number):
    """Pointer to a row of a two-dimensional array."""
    return builder.gep(array.data, [builder.mul(number, builder.extract_value(array.shape, 1))])


def _at(builder, pointer, column, vector):
    return builder.bitcast(builder.gep(pointer, [column]), vector.as_pointer())


def _multiply_add(builder, a, b, c):
    return builder.fadd(builder.fmul(a, b, flags=["contract"]), c, flags=["contract"])


def _vectors(context, builder, kind, array):
    """The vector type, its lanes, and the number of entries in whole vectors of ``array``."""
    element = context.get_value_type(kind.dtype)
    lanes = _BYTES * 8 // kind.dtype.bitwidth
    size = builder.extract_value(array.shape, 0)
    return ir.VectorType(element, lanes), lanes, builder.and_(size, _index(-lanes))


@intrinsic
def vector_scores(typing, X, i, v, buffer):  # pragma: no cover (runs in the compiler)
    """Rows i … i + 3 of X into ``buffer``, converted to v's type; their four products with v."""
    signature = types.UniTuple(v.dtype, len(_ROWS))(X, types.intp, v, buffer)

    def generate(context, builder, signature, values):
        x_kind, _, v_kind, buffer_kind = signature.args
        rows = _array(context, builder, x_kind, values[0])
        vector_of = _array(context, builder, v_kind, values[2])
        store = _array(context, builder, buffer_kind, values[3])
        vector, lanes, whole = _vectors(context, builder, v_kind, vector_of)
        raw = ir.VectorType(context.get_value_type(x_kind.dtype), lanes)
        size, raw_size = v_kind.dtype.bitwidth // 8, x_kind.dtype.bitwidth // 8
        sources = [_row(builder, rows, builder.add(values[1], _index(k))) for k in _ROWS]
        targets = [_row(builder, store, _index(k)) for k in _ROWS]
        zero = ir.Constant(vector, None)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in _ROWS]
        loop = cgutils.for_range_slice(builder, _index(0), whole, _index(lanes), _INDEX)
        with loop as (column, _):
            w = builder.load(_at(builder, vector_of.data, column, vector), align=size)
            for source, target, total in zip(sources, targets, sums, strict=True):
                x = builder.load(_at(builder, source, column, raw), align=raw_size)
                if isinstance(x_kind.dtype, types.Integer):
                    x = builder.uitofp(x, vector)
                elif raw_size < size:
                    x = builder.fpext(x, vector)
                builder.store(x, _at(builder, target, column, vector), align=size)
                builder.store(_multiply_add(builder, x, w, builder.load(total)), total)
        add_up = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector.element, [vector.element, vector]),
            f"llvm.vector.reduce.fadd.v{lanes}f{v_kind.dtype.bitwidth}",
        )
        start = ir.Constant(vector.element, -0.0)
        found = [
            builder.call(add_up, [start, builder.load(total)], fastmath=["reassoc"])
            for total in sums
        ]
        return context.make_tuple(builder, signature.return_type, found)

    return signature, generate


@intrinsic
def vector_add(typing, buffer, r, g):  # pragma: no cover (runs in the compiler)
    """g += Σ r_k × row k of ``buffer``."""
    signature = types.void(buffer, r, g)

    def generate(context, builder, signature, values):
        buffer_kind, _, g_kind = signature.args
        store = _array(context, builder, buffer_kind, values[0])
        sums = _array(context, builder, g_kind, values[2])
        vector, lanes, whole = _vectors(context, builder, g_kind, sums)
        size = g_kind.dtype.bitwidth // 8
        nothing = ir.Constant(vector, ir.Undefined)
        first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
        factors = []
        for k in _ROWS:
            one = builder.insert_element(
                nothing, builder.extract_value(values[1], k), ir.Constant(ir.IntType(32), 0)
            )
            factors.append(builder.shuffle_vector(one, nothing, first))
        sources = [_row(builder, store, _index(k)) for k in _ROWS]
        loop = cgutils.for_range_slice(builder, _index(0), whole, _index(lanes), _INDEX)
        with loop as (column, _):
            total = builder.load(_at(builder, sums.data, column, vector), align=size)
            for factor, source in zip(factors, sources, strict=True):
                x = builder.load(_at(builder, source, column, vector), align=size)
                total = _multiply_add(builder, factor, x, total)
            builder.store(total, _at(builder, sums.data, column, vector), align=size)
        return context.get_dummy_value()

    return signature, generate
