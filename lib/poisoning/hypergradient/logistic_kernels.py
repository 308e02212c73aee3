"""Compiled passes over the rows of logistic regressions.

Training and the way back through it both need, of every row x̃ = (x, 1), a product with a vector
and then a multiple of the row: r_i = f(x̃_i·v), g = Σ r_i x̃_i. A few rows at a time are used for
both, and for all problems of a call, while they are in the cache, so that memory is read once per
pass. Clean rows are common to all problems, poison is each problem's own.

Rows are raw numbers X with x = scale·X + offset. ``scale`` and ``offset`` are applied to the vector
and to the sum instead of the rows. Finished poison may be raw too: F (K, f, d) of bytes comes
before P (K, m − f, d) of the problem's type, and is a quarter as much to read. Raw rows of bytes
may be packed (:func:`poisoning.hypergradient.byte_kernels.packed`): products are then taken in
integers.

Arguments that go together are tuples:

- ``rows``: X, the features that its columns stand for, scale, offset, F and P;
- ``clean``: labels y (0/1) and shares (K, n); ``poison``: the same (K, m), first F's and then P's;
- ``step``: η (K,), and e^λ of every parameter (K, d + 1) under L2 and under L1.

Assumed, and not checked: arrays are C-contiguous, of one precision but for bytes, and of the shapes
that docstrings give.
"""

import numpy as np
from numba.extending import overload

from poisoning.compiled import njit
from poisoning.hypergradient.byte_kernels import (
    BLOCK,
    LIMBS,
    QUAD,
    TILE,
    block_products,
    block_sums,
    split,
)  # fmt: skip

GROUP = 2
"""Problems in a call: the poison of these few stays in the cache from step to step."""

ROWS = 4
"""Rows at a time, of which a vector's numbers are loaded once for all."""

_FAST = {"reassoc", "contract"}  # sums in any order: what vector registers need
# Kernels for a few rows are inlined: a call would cost as much as a tenth of their work.


@njit(cache=True, forceinline=True)
def four_rows(X, i):
    """Rows i … i + 3 of X, the last one in place of those that are missing."""
    last = len(X) - 1
    return X[i], X[min(i + 1, last)], X[min(i + 2, last)], X[min(i + 3, last)]


@njit(cache=True, fastmath=_FAST, forceinline=True)
def row_products(X, i, v, z):
    """z (4,) = the products of four rows with v."""
    a, b, c, d = four_rows(X, i)
    real, zero = v.dtype.type, v.dtype.type(0)
    p, q, r, s = zero, zero, zero, zero
    for j in range(X.shape[1]):
        p += real(a[j]) * v[j]
        q += real(b[j]) * v[j]
        r += real(c[j]) * v[j]
        s += real(d[j]) * v[j]
    z[0], z[1], z[2], z[3] = p, q, r, s


@njit(cache=True, fastmath=_FAST, forceinline=True)
def add_rows(X, i, z, g):
    """g += Σ z_k × row i + k of four."""
    a, b, c, d = four_rows(X, i)
    real, p, q, r, s = g.dtype.type, z[0], z[1], z[2], z[3]
    for j in range(X.shape[1]):
        g[j] += p * real(a[j]) + q * real(b[j]) + r * real(c[j]) + s * real(d[j])


@njit(cache=True, fastmath=_FAST, forceinline=True)
def row_products_of_two(X, i, v, z):
    """z (2, 4) = the products of four rows with two vectors; rows are converted once for both."""
    a, b, c, d = four_rows(X, i)
    real, zero, u, w = v.dtype.type, v.dtype.type(0), v[0], v[1]
    s0, s1, s2, s3, t0, t1, t2, t3 = zero, zero, zero, zero, zero, zero, zero, zero
    for j in range(X.shape[1]):
        x0, x1, x2, x3 = real(a[j]), real(b[j]), real(c[j]), real(d[j])
        s0 += x0 * u[j]
        s1 += x1 * u[j]
        s2 += x2 * u[j]
        s3 += x3 * u[j]
        t0 += x0 * w[j]
        t1 += x1 * w[j]
        t2 += x2 * w[j]
        t3 += x3 * w[j]
    z[0, 0], z[0, 1], z[0, 2], z[0, 3] = s0, s1, s2, s3
    z[1, 0], z[1, 1], z[1, 2], z[1, 3] = t0, t1, t2, t3


@njit(cache=True, fastmath=_FAST, forceinline=True)
def add_rows_of_two(X, i, z, g):
    """g (2, c) += Σ z_k × row i + k of four, for two."""
    a, b, c, d = four_rows(X, i)
    real, first, second = g.dtype.type, g[0], g[1]
    s0, s1, s2, s3 = z[0, 0], z[0, 1], z[0, 2], z[0, 3]
    t0, t1, t2, t3 = z[1, 0], z[1, 1], z[1, 2], z[1, 3]
    for j in range(X.shape[1]):
        x0, x1, x2, x3 = real(a[j]), real(b[j]), real(c[j]), real(d[j])
        first[j] += s0 * x0 + s1 * x1 + s2 * x2 + s3 * x3
        second[j] += t0 * x0 + t1 * x1 + t2 * x2 + t3 * x3


@njit(cache=True, fastmath=_FAST, forceinline=True)
def respond(z, bias, bent, given, k, i, rows):
    """What becomes of the products z of problem k's rows i and on; returns the sum.

    ``given``: y, share, curvature and pull, each (K, rows). Products with the parameters become
    pulls s(σ − y), and the curvature s σ(1 − σ) is filled in; where ``bent``, those with another
    vector are multiplied by the curvature.
    """
    y, share, curvature, pull = given
    one, total = z.dtype.type(1), z.dtype.type(0)
    if bent:
        for r in range(rows):
            z[r] = curvature[k, i + r] * (z[r] + bias)
    else:
        for r in range(rows):
            s = one / (one + np.exp(-(z[r] + bias)))
            z[r] = share[k, i + r] * (s - y[k, i + r])
            curvature[k, i + r] = share[k, i + r] * s * (one - s)
    for r in range(rows):
        pull[k, i + r] = z[r]
        total += z[r]
    return total


@njit(cache=True)
def matrix_pass(X, bent, given, first, at, n, v, bias, sums, totals):
    """Add Σ r_i X_i to the sums (J, c) and Σ r_i to ``totals`` (J,) for J problems, at most two.

    Their vectors v (J, c) and ``bias`` (J,) are those of problems ``first`` and on. The
    n rows are columns ``at`` and on of ``given``.
    """
    two, z = len(v) == 2, np.empty((len(v), ROWS), v.dtype)
    for i in range(0, n, ROWS):
        count = min(ROWS, n - i)
        if two:
            row_products_of_two(X, i, v, z)
        else:
            row_products(X, i, v[0], z[0])
        for q in range(len(v)):
            totals[q] += respond(z[q], bias[q], bent, given, first + q, at + i, count)
            for k in range(count, ROWS):
                z[q, k] = 0
        if two:
            add_rows_of_two(X, i, z, sums)
        else:
            add_rows(X, i, z[0], sums[0])


@njit(cache=True)
def packed_pass(X, bent, given, first, at, n, v, bias, sums, totals):
    """The same over packed bytes, a block at a time, in float32."""
    J, size, part = len(v), TILE * X.shape[1], QUAD * BLOCK
    limbs, units = np.empty((J, LIMBS, size), np.int8), np.empty(J, np.float32)
    its_limbs, its_units = np.empty((J, LIMBS, part), np.int8), np.empty(J, np.float32)
    z, whole = np.empty((J, part), np.float32), np.zeros((J, size), np.float32)
    for q in range(J):
        units[q] = split(v[q], limbs[q])
    for begin in range(0, len(X), BLOCK):
        block, i = X[begin : begin + BLOCK], QUAD * begin
        if J == 2:
            block_products(block, (limbs[0], limbs[1]), units, z)
        else:
            block_products(block, (limbs[0],), units, z)
        count = min(QUAD * len(block), n - i)
        for q in range(J):
            totals[q] += respond(z[q], bias[q], bent, given, first + q, at + i, count)
        if J == 2:
            block_sums(block, z, (its_limbs[0], its_limbs[1]), its_units, whole)
        else:
            block_sums(block, z, (its_limbs[0],), its_units, whole)
    for q in range(J):
        for c in range(v.shape[1]):
            sums[q, c] += whole[q, c]


def over(X, bent, given, first, at, n, v, bias, sums, totals):
    """A pass over packed bytes where the rows have their four axes, over a matrix elsewhere."""
    chosen = packed_pass if X.ndim == 4 else matrix_pass
    chosen(X, bent, given, first, at, n, v, bias, sums, totals)


@overload(over)
def _over(X, bent, given, first, at, n, v, bias, sums, totals):
    return (packed_pass if X.ndim == 4 else matrix_pass).py_func


@njit(cache=True)
def raw_vectors(v, columns, scale, offset):
    """Vectors (J, d + 1) for rows (x, 1) turned into the same for raw rows, and their biases."""
    d = v.shape[1] - 1
    raw, bias = np.empty((len(v), columns.size), v.dtype), np.empty(len(v), v.dtype)
    for q in range(len(v)):
        total = v.dtype.type(0)
        for j in range(d):
            total += v[q, j]
        for c in range(columns.size):
            raw[q, c] = scale * v[q, columns[c]]
        bias[q] = v[q, d] + offset * total
    return raw, bias


@njit(cache=True)
def collect(raw, totals, columns, scale, offset, out):
    """out (J, d + 1) += (scale·raw + offset·total, total), the sums over rows (x, 1)."""
    d = out.shape[1] - 1
    for q in range(len(out)):
        for j in range(d):
            out[q, j] += offset * totals[q]
        for c in range(columns.size):
            out[q, columns[c]] += scale * raw[q, c]
        out[q, d] += totals[q]


@njit(cache=True)
def add_raw(X, columns, scale, offset, bent, given, first, n, v, out):
    """Σ r_i x̃_i over raw rows, the first ``n`` of ``given``, added to ``out`` (J, d + 1)."""
    raw, bias = raw_vectors(v, columns, scale, offset)
    sums, totals = np.zeros_like(raw), np.zeros_like(bias)
    over(X, bent, given, first, 0, n, raw, bias, sums, totals)
    collect(sums, totals, columns, scale, offset, out)


@njit(cache=True)
def data_term(rows, clean, poison, bent, states, v, out):
    """The data term's gradients at v (K, d + 1), or its Hessians' products with v, into ``out``.

    ``states``: curvatures of the clean rows (K, n) and of poison (K, m), and poison's pulls (K, m).
    Gradients fill in all three; products (``bent``) use the curvatures.
    """
    X, columns, scale, offset, F, P = rows
    curvature, poison_curvature, pull = states
    K, free, d = P.shape
    f, every, none = pull.shape[1] - free, np.arange(d), np.int64(0)
    bias, total = np.empty(1, v.dtype), np.empty(1, v.dtype)
    for k in range(K):
        for j in range(d + 1):
            out[k, j] = 0
    given = (*clean, curvature, np.empty_like(curvature))
    add_raw(X, columns, scale, offset, bent, given, none, clean[0].shape[1], v, out)
    given = (*poison, poison_curvature, pull)
    for k in range(K):
        own = slice(k, k + 1)
        if f:
            add_raw(F[k], every, scale, offset, bent, given, k, f, v[own], out[own])
        if free:
            bias[0], total[0] = v[k, d], 0
            over(P[k], bent, given, k, f, free, v[own], bias, out[own], total)
            out[k, d] += total[0]


@njit(cache=True)
def take(way, t, states):
    """The states of step t from those of all steps, (K, T, …)."""
    for every, here in zip(way, states):  # noqa: B905 (numba knows no strict)
        for k in range(here.shape[0]):
            for i in range(here.shape[1]):
                here[k, i] = every[k, t, i]


@njit(cache=True)
def put(way, t, states):
    """The states of step t to those of all steps, (K, T, …)."""
    for every, here in zip(way, states):  # noqa: B905
        for k in range(here.shape[0]):
            for i in range(here.shape[1]):
                every[k, t, i] = here[k, i]


@njit(cache=True)
def states_of(clean, poison):
    """Room for the states of one step."""
    return np.empty_like(clean[1]), np.empty_like(poison[1]), np.empty_like(poison[1])


@njit(cache=True)
def descend(rows, clean, poison, step, w, states):
    """Steps of Eq. (6) from w[:, 0]: fills w[:, 1:] (K, T + 1, d + 1), and the states (K, T, …)."""
    eta, decay, shrinkage = step
    here = states_of(clean, poison)
    v, g, zero = np.empty_like(decay), np.empty_like(decay), decay.dtype.type(0)
    for t in range(w.shape[1] - 1):
        take((w,), t, (v,))
        data_term(rows, clean, poison, np.bool_(False), here, v, g)
        put(states, t, here)
        for k in range(v.shape[0]):
            for j in range(v.shape[1]):
                u = v[k, j] - eta[k] * (g[k, j] + decay[k, j] * v[k, j])
                threshold = eta[k] * shrinkage[k, j]
                w[k, t + 1, j] = max(u - threshold, zero) + min(u + threshold, zero)


@njit(cache=True)
def ascend(rows, clean, poison, step, w, states, p, way, products, d_lam):
    """Lines 7–13 of Alg. 1: changes the adjoints p (K, d + 1) from w[:, -1]'s to w[:, 0]'s.

    ``way[:, t]`` (K, d + 1) and ``products[:, t]`` (K, m) keep the adjoints after step t, past
    their threshold, and their products with poison, from which the caller forms the poison's sums
    in one go. ``d_lam`` (K, d + 1) collects λ's, parameter by parameter.
    """
    eta, decay, shrinkage = step
    here, g = states_of(clean, poison), np.empty_like(p)
    for t in range(w.shape[1] - 2, -1, -1):
        for k in range(p.shape[0]):
            for j in range(p.shape[1]):
                after = w[k, t + 1, j]
                if shrinkage[k, j] > 0.0:
                    if after == 0.0:
                        p[k, j] = 0.0
                    d_lam[k, j] -= eta[k] * shrinkage[k, j] * np.sign(after) * p[k, j]
                d_lam[k, j] -= eta[k] * decay[k, j] * w[k, t, j] * p[k, j]
                way[k, t, j] = p[k, j]
        take(states, t, here)
        data_term(rows, clean, poison, np.bool_(True), here, p, g)
        put((products,), t, here[2:])
        for k in range(p.shape[0]):
            for j in range(p.shape[1]):
                p[k, j] -= eta[k] * (g[k, j] + decay[k, j] * p[k, j])
