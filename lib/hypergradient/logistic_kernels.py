"""Compiled passes over the rows of one logistic regression.

Training and its reversal both need, of every row x̃ = (x, 1), a product with a vector and then a
multiple of the row: r_i = f(x̃_i·v), g = Σ r_i x̃_i. Four rows at a time are converted into a buffer
that stays in the first-level cache, and used twice there, so that memory is read once per pass and
a pixel that is one byte travels as one byte.

Rows are raw: the caller's ``scale`` and ``offset`` make x = scale·X + offset, applied to the vector
and to the sum instead.
"""

import numpy as np
from numba import njit

from lib.hypergradient.simd_kernels import vector_add, vector_scores


@njit(cache=True, inline="always")
def left_over(size, itemsize):
    """The first column that fills no vector."""
    return size - size % (64 // itemsize)


@njit(cache=True, inline="always")
def scores_of_four(X, i, v, buffer):
    """Rows i … i + 3 into the buffer, their products with v returned."""
    z0, z1, z2, z3 = vector_scores(X, i, v, buffer)
    for c in range(left_over(v.size, v.itemsize), v.size):
        for k in range(4):
            buffer[k, c] = X[i + k, c]
        z0 += buffer[0, c] * v[c]
        z1 += buffer[1, c] * v[c]
        z2 += buffer[2, c] * v[c]
        z3 += buffer[3, c] * v[c]
    return z0, z1, z2, z3


@njit(cache=True, inline="always")
def add_four(buffer, r0, r1, r2, r3, g):
    """g += Σ r_k × row k of the buffer."""
    vector_add(buffer, (r0, r1, r2, r3), g)
    for c in range(left_over(g.size, g.itemsize), g.size):
        g[c] += r0 * buffer[0, c] + r1 * buffer[1, c] + r2 * buffer[2, c] + r3 * buffer[3, c]


@njit(cache=True)
def score(X, i, v):
    """The product of row i with v."""
    z = v.dtype.type(0)
    for c in range(v.size):
        z += v.dtype.type(X[i, c]) * v[c]
    return z


@njit(cache=True)
def add(X, i, r, g):
    """g += r × row i."""
    for c in range(g.size):
        g[c] += r * g.dtype.type(X[i, c])


@njit(cache=True)
def gradient_pass(X, y, share, v, bias, buffer, g, curvature, pull):
    """pull_i = share_i (σ(z_i) − y_i), curvature_i = share_i σ(1 − σ), g += Σ pull_i X_i; Σ pull.

    ``y`` is 0/1.
    """
    n = X.shape[0]
    one = v.dtype.type(1)
    whole = n - n % 4
    for i in range(0, whole, 4):
        z0, z1, z2, z3 = scores_of_four(X, i, v, buffer)
        pull[i], pull[i + 1], pull[i + 2], pull[i + 3] = z0, z1, z2, z3
        for k in range(i, i + 4):
            s = one / (one + np.exp(-(pull[k] + bias)))
            pull[k] = share[k] * (s - y[k])
            curvature[k] = share[k] * s * (one - s)
        add_four(buffer, pull[i], pull[i + 1], pull[i + 2], pull[i + 3], g)
    for i in range(whole, n):
        s = one / (one + np.exp(-(score(X, i, v) + bias)))
        pull[i] = share[i] * (s - y[i])
        curvature[i] = share[i] * s * (one - s)
        add(X, i, pull[i], g)
    total = v.dtype.type(0)
    for i in range(n):
        total += pull[i]
    return total


@njit(cache=True)
def product_pass(X, curvature, v, bias, buffer, g, pull):
    """pull_i = curvature_i (X_i·v + bias), g += Σ pull_i X_i; Σ pull."""
    n = X.shape[0]
    whole = n - n % 4
    for i in range(0, whole, 4):
        z0, z1, z2, z3 = scores_of_four(X, i, v, buffer)
        pull[i] = curvature[i] * (z0 + bias)
        pull[i + 1] = curvature[i + 1] * (z1 + bias)
        pull[i + 2] = curvature[i + 2] * (z2 + bias)
        pull[i + 3] = curvature[i + 3] * (z3 + bias)
        add_four(buffer, pull[i], pull[i + 1], pull[i + 2], pull[i + 3], g)
    for i in range(whole, n):
        pull[i] = curvature[i] * (score(X, i, v) + bias)
        add(X, i, pull[i], g)
    total = v.dtype.type(0)
    for i in range(n):
        total += pull[i]
    return total


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


@njit(cache=True)
def poison_gradients(P, y, share, w, out, curvature, pull):
    """Every problem's poison rows (K, m, d) at its w (K, d + 1), their sums added to ``out``."""
    K, _, d = P.shape
    buffer = np.empty((4, d), w.dtype)
    for k in range(K):
        out[k, d] += gradient_pass(
            P[k], y[k], share[k], w[k, :d], w[k, d], buffer, out[k, :d], curvature[k], pull[k]
        )  # fmt: skip


@njit(cache=True)
def poison_products(P, curvature, v, out, pull):
    """The same with vectors v (J, K, d + 1)."""
    K, _, d = P.shape
    buffer = np.empty((4, d), v.dtype)
    for k in range(K):
        for j in range(v.shape[0]):
            out[j, k, d] += product_pass(
                P[k], curvature[k], v[j, k, :d], v[j, k, d], buffer, out[j, k, :d], pull[j, k]
            )  # fmt: skip


@njit(cache=True)
def clean_gradient(X, y, share, columns, scale, offset, w, out, curvature, pull):
    """Gradient of one problem's clean rows, n raw ones, into ``out``."""
    raw, sums = np.empty(columns.size, w.dtype), np.zeros(columns.size, w.dtype)
    buffer = np.empty((4, columns.size), w.dtype)
    bias = raw_vector(w, columns, scale, offset, raw)
    total = gradient_pass(X, y, share, raw, bias, buffer, sums, curvature, pull)
    collect(sums, total, columns, scale, offset, out)


@njit(cache=True)
def clean_product(X, curvature, columns, scale, offset, v, out, pull):
    """Hessian of one problem's clean rows times v into ``out``."""
    raw, sums = np.empty(columns.size, v.dtype), np.zeros(columns.size, v.dtype)
    buffer = np.empty((4, columns.size), v.dtype)
    bias = raw_vector(v, columns, scale, offset, raw)
    total = product_pass(X, curvature, raw, bias, buffer, sums, pull)
    collect(sums, total, columns, scale, offset, out)


@njit(cache=True)
def descend(
    X, y, share, columns, scale, offset, P, poison_y, poison_share, eta, decay, shrinkage,
    w, curvature, poison_curvature, pull,
):  # fmt: skip
    """Steps of Eq. (6) for one problem from w[0]: fills w[1:] and, a line per step, the rest.

    ``curvature`` (T, n) of the clean rows, ``poison_curvature`` and ``pull`` (T, m) of P's.
    """
    d = P.shape[1]
    g = np.empty(d + 1, w.dtype)
    buffer = np.empty((4, d), w.dtype)
    scratch = np.empty(X.shape[0], w.dtype)
    zero = w.dtype.type(0)
    for t in range(w.shape[0] - 1):
        clean_gradient(X, y, share, columns, scale, offset, w[t], g, curvature[t], scratch)
        g[d] += gradient_pass(
            P, poison_y, poison_share, w[t, :d], w[t, d], buffer, g[:d],
            poison_curvature[t], pull[t],
        )  # fmt: skip
        for j in range(d + 1):
            u = w[t, j] - eta * (g[j] + decay[j] * w[t, j])
            threshold = eta * shrinkage[j]
            w[t + 1, j] = max(u - threshold, zero) + min(u + threshold, zero)


@njit(cache=True)
def ascend(
    X, columns, scale, offset, P, eta, decay, shrinkage, w, curvature, poison_curvature,
    p, way, pull, d_lam,
):  # fmt: skip
    """Lines 7–13 of Alg. 1: changes the adjoint p in place from w[-1]'s to w[0]'s.

    ``way[t]`` (d + 1) and ``pull[t]`` (m) keep the adjoint after step t, past its threshold, and
    its products with P's rows, from which the caller forms the poison's sums in one go. ``d_lam``
    collects λ's, parameter by parameter.
    """
    d = P.shape[1]
    g = np.empty(d + 1, p.dtype)
    buffer = np.empty((4, d), p.dtype)
    scratch = np.empty(X.shape[0], p.dtype)
    for t in range(w.shape[0] - 2, -1, -1):
        for j in range(d + 1):
            after = w[t + 1, j]
            if shrinkage[j] > 0.0:
                if after == 0.0:
                    p[j] = 0.0
                d_lam[j] -= eta * shrinkage[j] * np.sign(after) * p[j]
            d_lam[j] -= eta * decay[j] * w[t, j] * p[j]
            way[t, j] = p[j]
        clean_product(X, curvature[t], columns, scale, offset, p, g, scratch)
        g[d] += product_pass(P, poison_curvature[t], p[:d], p[d], buffer, g[:d], pull[t])
        for j in range(d + 1):
            p[j] -= eta * (g[j] + decay[j] * p[j])
