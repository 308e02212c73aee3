"""Compiled passes over the rows of logistic regressions.

Training and the way back through it both need, of every row x̃ = (x, 1), a product with a vector
and then a multiple of the row: r_i = f(x̃_i·v), g = Σ r_i x̃_i. Four rows at a time are used for both
while they are in the first-level cache, so that memory is read once per pass; bytes are converted
only there. Clean rows are common to all problems, and a pass serves two problems at a time; poison
is each problem's own. (Larger groups would convert fewer bytes, but their poison would not fit into
the cache.)

Clean rows are raw numbers X with x = scale·X + offset. ``scale`` and ``offset`` are applied to the
vector and to the sum instead of the rows. Finished poison may be raw too: F (K, f, d) of bytes
comes before P (K, m − f, d) of the problem's type, and is a quarter as much to read. The first axis
of arrays is that of the problems, K or a group of them.

Raw rows of bytes may be packed (:func:`poisoning.hypergradient.byte_kernels.packed`): products are
then taken in integers, a block of rows at a time.

Assumed, and not checked: arrays are C-contiguous, of one precision but for bytes, and of the shapes
that docstrings give; ``columns`` holds the features that the columns of X stand for.
"""

import numpy as np
from numba.extending import overload

from poisoning.compiled import njit
from poisoning.hypergradient.byte_kernels import BLOCK, QUAD, TILE, products_with
from poisoning.hypergradient.simd_kernels import ROWS, add_to, scores_with

GROUP = 2
"""Problems that share a pass over the clean rows, and a stretch of training."""


@njit(cache=True, inline="always")
def left_over(size, itemsize):
    """The first column that fills no vector."""
    return size - size % (64 // itemsize)


@njit(cache=True)
def last_rows(X, i, buffer):
    """The last, fewer than four, rows of X from row i on, filled up with rows of zeros."""
    for k in range(ROWS):  # assigning slices takes seconds to compile
        for c in range(X.shape[1]):
            buffer[k, c] = X[i + k, c] if i + k < len(X) else 0
    return buffer


def rows_at_a_time(vectors):
    """The two halves of a pass for ``vectors`` problems, rows i … i + 3.

    ``scores(X, i, v, buffer, z)``: their products with v (vectors, c) into z (vectors, 4), and, if
    they are of another type, themselves into the buffer. ``add(X, i, buffer, r, g)``: g_q +=
    Σ r_qk × row i + k.
    """
    whole_scores, whole_add = scores_with(vectors), add_to(vectors)

    @njit(cache=True, forceinline=True, name=f"scores_of_{vectors}")
    def scores(X, i, v, buffer, z):
        whole_scores(X, i, v, buffer, z)
        for c in range(left_over(v.shape[1], v.itemsize), v.shape[1]):
            for k in range(ROWS):
                for q in range(vectors):
                    z[q, k] += X[i + k, c] * v[q, c]

    @njit(cache=True, forceinline=True, name=f"add_of_{vectors}")
    def add(X, i, buffer, r, g):
        whole_add(X, i, buffer, r, g)
        for c in range(left_over(g.shape[1], g.itemsize), g.shape[1]):
            for q in range(vectors):
                for k in range(ROWS):
                    g[q, c] += r[q, k] * X[i + k, c]

    return scores, add


@njit(cache=True, forceinline=True)
def pulls(z, bias, given, pull, i, rows):
    """From products z of rows i and on to their pulls and curvatures; z becomes the pulls.

    ``given``: labels y (0/1) and shares, and where s σ(1 − σ) goes.
    """
    y, share, curvature = given
    one = z.dtype.type(1)
    for q in range(share.shape[0]):
        for k in range(rows):
            s = one / (one + np.exp(-(z[q, k] + bias[q])))
            z[q, k] = share[q, i + k] * (s - y[q, i + k])
            pull[q, i + k] = z[q, k]
            curvature[q, i + k] = share[q, i + k] * s * (one - s)


@njit(cache=True, forceinline=True)
def bend(z, bias, curvature, pull, i, rows):
    """The same for a product with the Hessian, given its ``curvature``."""
    for q in range(curvature.shape[0]):
        for k in range(rows):
            z[q, k] = curvature[q, i + k] * (z[q, k] + bias[q])
            pull[q, i + k] = z[q, k]


def pass_with(vectors, respond):
    """A pass for ``vectors`` problems: ``v`` and ``g`` have as many rows.

    ``run(X, given, v, bias, g, pull)``: pull_i = what ``respond`` makes, with what is ``given``, of
    X_i·v + bias; g += Σ pull_i X_i.
    """
    scores, add = rows_at_a_time(vectors)

    @njit(cache=True, name=f"pass_of_{vectors}_{respond.__name__}")
    def run(X, given, v, bias, g, pull):
        z, buffer = np.zeros((vectors, ROWS), v.dtype), np.empty((ROWS, v.shape[1]), v.dtype)
        whole = len(X) - len(X) % ROWS
        for i in range(0, whole, ROWS):
            scores(X, i, v, buffer, z)
            respond(z, bias, given, pull, i, ROWS)
            add(X, i, buffer, z, g)
        if whole < len(X):
            rest = last_rows(X, whole, buffer)
            scores(rest, 0, v, buffer, z)
            respond(z, bias, given, pull, whole, len(X) - whole)
            add(rest, 0, buffer, z, g)

    return run


def packed_pass_with(vectors, respond):
    """The same over packed bytes, in float32."""
    limbs_of, scores, add = products_with(vectors)

    @njit(cache=True, name=f"packed_pass_of_{vectors}_{respond.__name__}")
    def run(X, given, v, bias, g, pull):
        limbs, units = limbs_of(v, TILE * X.shape[1])
        z = np.empty((vectors, QUAD * BLOCK), v.dtype)
        sums = np.zeros((vectors, TILE * X.shape[1]), v.dtype)
        rows = pull.shape[1]
        for first in range(0, len(X), BLOCK):
            block = X[first : first + BLOCK]
            scores(block, limbs, units, z)
            i = QUAD * first
            respond(z, bias, given, pull, i, min(QUAD * len(block), rows - i))
            add(block, z, sums)
        g += sums[:, : g.shape[1]]

    return run


def either_pass(of_rows, of_packed):
    """Over packed bytes where the rows have an array's four axes, over a matrix elsewhere."""

    def run(X, given, v, bias, g, pull):
        return (of_packed if X.ndim == 4 else of_rows)(X, given, v, bias, g, pull)

    @overload(run)
    def in_compiled_code(X, given, v, bias, g, pull):
        chosen = of_packed if X.ndim == 4 else of_rows

        def over(X, given, v, bias, g, pull):
            chosen(X, given, v, bias, g, pull)

        over.__qualname__ = f"over_{chosen.__qualname__}"  # see poisoning.compiled
        return over

    return run


one_row_gradient, one_row_product = pass_with(1, pulls), pass_with(1, bend)
one_gradient = either_pass(one_row_gradient, packed_pass_with(1, pulls))
one_product = either_pass(one_row_product, packed_pass_with(1, bend))
group_gradient = either_pass(pass_with(GROUP, pulls), packed_pass_with(GROUP, pulls))
group_product = either_pass(pass_with(GROUP, bend), packed_pass_with(GROUP, bend))


@njit(cache=True)
def raw_vector(v, columns, scale, offset, raw):
    """(v, bias) for rows X + 1 turned into the same for raw rows; the bias returned."""
    total = v.dtype.type(0)
    for j in range(v.size - 1):
        total += v[j]
    for c in range(raw.size):
        raw[c] = scale * v[columns[c]]
    return v[v.size - 1] + offset * total


@njit(cache=True)
def collect(raw, total, columns, scale, offset, out):
    """out = (scale·raw + offset·total, total), the sum over rows (x, 1)."""
    d = out.size - 1
    for j in range(d):
        out[j] = offset * total
    for c in range(raw.size):
        out[columns[c]] += scale * raw[c]
    out[d] = total


@njit(cache=True, fastmath={"reassoc"})
def sum_of(values):
    """The sum of an array; NumPy's sum in compiled code is several times slower."""
    total = values.dtype.type(0)
    for i in range(values.size):
        total += values[i]
    return total


@njit(cache=True)
def raw_group(v, columns, scale, offset):
    """Up to GROUP vectors (count, d + 1) made raw, and their biases, filled up with zeros."""
    raw, bias = np.zeros((GROUP, columns.size), v.dtype), np.zeros(GROUP, v.dtype)
    for q in range(len(v)):
        bias[q] = raw_vector(v[q], columns, scale, offset, raw[q])
    return raw, bias


@njit(cache=True)
def collect_group(raw, pull, columns, scale, offset, out):
    """The group's sums over raw rows, and of its pulls, into ``out`` (count, d + 1)."""
    for q in range(len(out)):
        collect(raw[q], sum_of(pull[q]), columns, scale, offset, out[q])


@njit(cache=True)
def raw_gradients(X, y, share, columns, scale, offset, w, out, curvature, pull):
    """Gradients of n raw rows, clean ones or one problem's, at w (K, d + 1) into ``out``.

    ``pull`` holds n values for each of the problems that share a pass.
    """
    for first in range(0, len(w), GROUP):
        now = slice(first, first + GROUP)
        raw, bias = raw_group(w[now], columns, scale, offset)
        sums = np.zeros_like(raw)
        if len(w[now]) == 1:
            one_gradient(X, (y[now], share[now], curvature[now]), raw[:1], bias, sums[:1], pull)
        else:
            group_gradient(X, (y[now], share[now], curvature[now]), raw, bias, sums, pull)
        collect_group(sums, pull, columns, scale, offset, out[now])


@njit(cache=True)
def raw_products(X, curvature, columns, scale, offset, v, out, pull):
    """Hessians of n raw rows, with ``curvature`` (K, n), times v (K, d + 1) into ``out``."""
    for first in range(0, len(v), GROUP):
        now = slice(first, first + GROUP)
        raw, bias = raw_group(v[now], columns, scale, offset)
        sums = np.zeros_like(raw)
        if len(v[now]) == 1:
            one_product(X, curvature[now], raw[:1], bias, sums[:1], pull)
        else:
            group_product(X, curvature[now], raw, bias, sums, pull)
        collect_group(sums, pull, columns, scale, offset, out[now])


@njit(cache=True)
def poison_gradients(F, P, scale, offset, y, share, w, out, curvature, pull):
    """Every problem's poison, F and P, at its w (K, d + 1), their sums added to ``out``.

    ``y``, ``share``, ``curvature`` and ``pull`` are (K, m), first F's and then P's.
    """
    K, free, d = P.shape
    f, columns, total = y.shape[1] - free, np.arange(d), np.empty((1, d + 1), w.dtype)
    for k in range(K):
        own = slice(k, k + 1)
        if f:
            given = y[own, :f], share[own, :f], curvature[own, :f]
            raw, bias = raw_group(w[own], columns, scale, offset)
            sums = np.zeros_like(raw)
            one_gradient(F[k], given, raw[:1], bias, sums[:1], pull[own, :f])
            collect_group(sums, pull[own, :f], columns, scale, offset, total)
            for j in range(d + 1):
                out[k, j] += total[0, j]
        given = y[own, f:], share[own, f:], curvature[own, f:]
        one_row_gradient(P[k], given, w[own, :d], w[own, d], out[own, :d], pull[own, f:])
        out[k, d] += sum_of(pull[k, f:])


@njit(cache=True)
def poison_products(F, P, scale, offset, curvature, v, out, pull):
    """The same with ``curvature`` (K, m) and vectors v (K, d + 1)."""
    K, free, d = P.shape
    f, columns, total = curvature.shape[1] - free, np.arange(d), np.empty((1, d + 1), v.dtype)
    for k in range(K):
        own = slice(k, k + 1)
        if f:
            raw, bias = raw_group(v[own], columns, scale, offset)
            sums = np.zeros_like(raw)
            one_product(F[k], curvature[own, :f], raw[:1], bias, sums[:1], pull[own, :f])
            collect_group(sums, pull[own, :f], columns, scale, offset, total)
            for j in range(d + 1):
                out[k, j] += total[0, j]
        one_row_product(
            P[k], curvature[own, f:], v[own, :d], v[own, d], out[own, :d], pull[own, f:]
        )  # fmt: skip
        out[k, d] += sum_of(pull[k, f:])


@njit(cache=True)
def descend(
    X, y, share, columns, scale, offset, F, P, poison_y, poison_share, eta, decay, shrinkage,
    w, curvature, poison_curvature, pull,
):  # fmt: skip
    """Steps of Eq. (6) from w[:, 0]: fills w[:, 1:] (K, T + 1, d + 1) and, step by step, the rest.

    ``curvature`` (K, T, n) of the clean rows, ``poison_curvature`` and ``pull`` (K, T, m) of
    poison. Of at most GROUP problems poison stays in the cache.
    """
    K, steps, p = w.shape
    g, scratch = np.empty((K, p), w.dtype), np.empty((GROUP, share.shape[1]), w.dtype)
    zero = w.dtype.type(0)
    for t in range(steps - 1):
        at = w[:, t]
        raw_gradients(X, y, share, columns, scale, offset, at, g, curvature[:, t], scratch)
        poison_gradients(
            F, P, scale, offset, poison_y, poison_share, at, g, poison_curvature[:, t], pull[:, t]
        )
        for k in range(K):
            for j in range(p):
                u = w[k, t, j] - eta[k] * (g[k, j] + decay[k, j] * w[k, t, j])
                threshold = eta[k] * shrinkage[k, j]
                w[k, t + 1, j] = max(u - threshold, zero) + min(u + threshold, zero)


@njit(cache=True)
def ascend(
    X, columns, scale, offset, F, P, eta, decay, shrinkage, w, curvature, poison_curvature,
    p, way, pull, d_lam,
):  # fmt: skip
    """Lines 7–13 of Alg. 1: changes the adjoints p (K, d + 1) from w[:, -1]'s to w[:, 0]'s.

    ``way[:, t]`` (K, d + 1) and ``pull[:, t]`` (K, m) keep the adjoints after step t, past their
    threshold, and their products with poison, from which the caller forms the poison's sums in
    one go. ``d_lam`` collects λ's, parameter by parameter.
    """
    g, scratch = np.empty_like(p), np.empty((GROUP, curvature.shape[2]), p.dtype)
    for t in range(w.shape[1] - 2, -1, -1):
        for k in range(len(p)):
            for j in range(p.shape[1]):
                after = w[k, t + 1, j]
                if shrinkage[k, j] > 0.0:
                    if after == 0.0:
                        p[k, j] = 0.0
                    d_lam[k, j] -= eta[k] * shrinkage[k, j] * np.sign(after) * p[k, j]
                d_lam[k, j] -= eta[k] * decay[k, j] * w[k, t, j] * p[k, j]
                way[k, t, j] = p[k, j]
        raw_products(X, curvature[:, t], columns, scale, offset, p, g, scratch)
        poison_products(F, P, scale, offset, poison_curvature[:, t], p, g, pull[:, t])
        for k in range(len(p)):
            for j in range(p.shape[1]):
                p[k, j] -= eta[k] * (g[k, j] + decay[k, j] * p[k, j])
