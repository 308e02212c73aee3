"""Compiled loops of MTRL; :mod:`poisoning.models.mtrl` has the mathematics.

Assumed, and not checked: float64, C-contiguous, writable, finite; of m tasks ``X`` (m, n, d),
``y``, ``weight`` and ``share`` (m, n), ``W``, ``c`` and ``start`` (m, d), ``H`` (m, d, d). Loops
are written out: at these sizes a call of LAPACK or BLAS costs more than what it computes.
"""

import numpy as np

from poisoning.compiled import njit

TINY = 1e-18  # least singular value in a quotient: what it is the quotient of is then zero
_SUMS = {"reassoc", "contract"}  # sums may be reordered, so that they are vectorised
_ROUNDING = 1e-16  # of the trace: what is off the diagonal by less is not rotated away
_SWEEPS = 30  # of Jacobi's rotations; a cold start needs about six
_FRESH = 100  # proximal steps between two cold starts, which end the drift of the rotations


@njit(cache=True, fastmath=_SUMS)
def losses(X, y, weight, W, hinge):
    """Σ_ij weight_ij ℓ(w_i·x_ij, y_ij), its gradient (m, d), and the weights of the curved rows.

    Curved rows (m, n) are those where ℓ'' is not 0: for the ``hinge``, those within the margin.
    """
    m, n, d = X.shape
    value, gradient, curved = 0.0, np.zeros((m, d)), np.zeros((m, n))
    for i in range(m):
        for j in range(n):
            if weight[i, j] == 0.0:
                continue
            score = 0.0
            for a in range(d):
                score += X[i, j, a] * W[i, a]
            short, side = (1.0 - y[i, j] * score, y[i, j]) if hinge else (y[i, j] - score, 1.0)
            if hinge and short <= 0.0:
                continue
            curved[i, j] = weight[i, j]
            value += weight[i, j] * short * short
            slope = -2.0 * weight[i, j] * short * side
            for a in range(d):
                gradient[i, a] += slope * X[i, j, a]
    return value, gradient, curved


@njit(cache=True, fastmath=_SUMS)
def add_rows(H, c, X, y, share):
    """H_i += 2 Σ_j share_ij x_ij x_ijᵀ and c_i += 2 Σ_j share_ij y_ij x_ij, in place.

    H_i is symmetric: what is below its diagonal is summed up, and copied.
    """
    m, n, d = X.shape
    for i in range(m):
        changed = False
        for j in range(n):
            if share[i, j] == 0.0:
                continue
            changed = True
            for a in range(d):
                part = 2.0 * share[i, j] * X[i, j, a]
                c[i, a] += part * y[i, j]
                for b in range(a + 1):
                    H[i, a, b] += part * X[i, j, b]
        if changed:
            for a in range(d):
                for b in range(a):
                    H[i, b, a] = H[i, a, b]


@njit(cache=True, fastmath=_SUMS)
def distance_from_gradient(H, c, W, gradient):
    """‖``gradient`` − (HW − c)‖_F, the latter being that of ½⟨W, HW⟩ − ⟨c, W⟩."""
    m, d = W.shape
    square = 0.0
    for i in range(m):
        for a in range(d):
            slope = -c[i, a]
            for b in range(d):
                slope += H[i, a, b] * W[i, b]
            square += (gradient[i, a] - slope) ** 2
    return np.sqrt(square)


@njit(cache=True, fastmath=_SUMS)
def curvature_bound(H):
    """A bound on the eigenvalues of H_i = [[A, b], [bᵀ, h]] of all tasks.

    They are at most the larger one of [[‖A‖_F, ‖b‖], [‖b‖, h]]. The bias is split off because it
    makes for the one large eigenvalue, h = 2.
    """
    m, d = H.shape[:2]
    largest = 0.0
    for i in range(m):
        A = b = 0.0
        for j in range(d - 1):
            b += H[i, d - 1, j] ** 2
            for k in range(d - 1):
                A += H[i, j, k] ** 2
        size, h = np.sqrt(A), H[i, d - 1, d - 1]
        largest = max(largest, (size + h + np.sqrt((size - h) ** 2 + 4.0 * b)) / 2.0)
    return largest


@njit(cache=True, fastmath=_SUMS)
def minimise(H, c, lambda1, lambda2, start, goal, max_iterations):
    """The loop of ``_minimise`` in ``poisoning.models.mtrl``.

    Returns W, ‖W‖_*, L‖Y − W‖_F and the number of steps, at most ``max_iterations``. The caller
    has to check that ``goal`` was reached.
    """
    m, d = c.shape
    L = curvature_bound(H) + lambda1
    ratio = np.sqrt(lambda1 / L)
    momentum = (1.0 - ratio) / (1.0 + ratio)
    Y, W, Z, new = np.empty((m, d)), np.empty((m, d)), np.empty((m, d)), np.empty((m, d))
    for i in range(m):
        for a in range(d):
            Y[i, a] = W[i, a] = start[i, a]
    V = np.empty((min(m, d), min(m, d)))
    nuclear = distance = 0.0
    for step in range(max_iterations):
        if step % _FRESH == 0:
            for p in range(V.shape[0]):
                for q in range(V.shape[0]):
                    V[p, q] = 1.0 if p == q else 0.0
        for i in range(m):
            for a in range(d):
                slope = lambda1 * Y[i, a] - c[i, a]
                for b in range(d):
                    slope += H[i, a, b] * Y[i, b]
                Z[i, a] = Y[i, a] - slope / L
        nuclear = shrink(Z, lambda2 / L, V, new)
        square = uphill = 0.0
        for i in range(m):
            for a in range(d):
                back = Y[i, a] - new[i, a]
                square += back * back
                uphill += back * (new[i, a] - W[i, a])
        distance = L * np.sqrt(square)
        if distance <= goal:
            return new, nuclear, distance, step + 1
        push = momentum if uphill <= 0.0 else 0.0
        for i in range(m):
            for a in range(d):
                Y[i, a] = new[i, a] + push * (new[i, a] - W[i, a])
                W[i, a] = new[i, a]
    return W, nuclear, distance, max_iterations


@njit(cache=True, fastmath=_SUMS)
def shrink(Z, c, V, new):
    """``new`` = argmin ½‖W − Z‖_F² + c/2 ‖W‖_*², all (m, d); returns its ‖W‖_*.

    Singular values a become max(a − τ, 0), τ being their ``threshold``. They are those of the Gram
    matrix of the shorter side, of length k = min(m, d), and one that survives is off by no more
    than about 1e-16 a_1/c. The rows of ``V`` (k, k), orthonormal, become the singular vectors of Z;
    if they are nearly so before, that is soon done.
    """
    m, d = Z.shape
    wide, k, long = m <= d, min(m, d), max(m, d)
    S, B, G = np.empty((k, long)), np.zeros((k, long)), np.empty((k, k))
    for p in range(k):
        for j in range(long):
            S[p, j] = Z[p, j] if wide else Z[j, p]
    for p in range(k):
        for q in range(k):
            part = V[p, q]
            for j in range(long):
                B[p, j] += part * S[q, j]
        for q in range(p + 1):
            inner = 0.0
            for j in range(long):
                inner += B[p, j] * B[q, j]
            G[p, q] = G[q, p] = inner
    diagonalise(G, V)
    values = np.empty(k)
    for p in range(k):
        values[p] = np.sqrt(max(G[p, p], TINY * TINY))
    tau = threshold(values, c)
    nuclear = 0.0
    along, shrunk = np.empty(long), np.zeros((k, long))
    for p in range(k):
        kept = values[p] - tau
        if kept <= 0.0:
            continue
        nuclear += kept
        for j in range(long):
            along[j] = 0.0
        for q in range(k):
            part = V[p, q]
            for j in range(long):
                along[j] += part * S[q, j]
        for q in range(k):
            part = kept / values[p] * V[p, q]
            for j in range(long):
                shrunk[q, j] += part * along[j]
    for p in range(k):
        for j in range(long):
            if wide:
                new[p, j] = shrunk[p, j]
            else:
                new[j, p] = shrunk[p, j]
    return nuclear


@njit(cache=True)
def threshold(values, c):
    """τ, the largest of the τ_K = c Σ_{p≤K} a_p/(1 + cK), for ``values`` (k) a_1 ≥ a_2 ≥ … ≥ 0.

    Their order does not matter. From K = k on, what does not exceed τ_K leaves, and τ_K rises,
    until nothing leaves.
    """
    tau, above = 0.0, -1
    for _ in range(len(values) + 1):
        count, total = 0, 0.0
        for value in values:
            if value > tau:
                count += 1
                total += value
        if count == above:
            break
        tau, above = c * total / (1.0 + c * count), count
    return tau


@njit(cache=True)
def diagonalise(G, V):
    """Jacobi's rotations: ``G`` (k, k), symmetric, becomes diagonal, and VᵀGV stays what it is.

    G is positive semidefinite, the rows of ``V`` (k, k) are orthonormal. A few sweeps over all
    pairs do, one or two if G is nearly diagonal.
    """
    k = len(G)
    small = 0.0
    for p in range(k):
        small += _ROUNDING * G[p, p]
    for _ in range(_SWEEPS):
        turned = False
        for p in range(k):
            for q in range(p + 1, k):
                g = G[p, q]
                if abs(g) <= small:
                    continue
                turned = True
                cot = (G[q, q] - G[p, p]) / (2.0 * g)
                tan = 1.0 / (abs(cot) + np.sqrt(cot * cot + 1.0))
                tan = tan if cot >= 0.0 else -tan
                cos = 1.0 / np.sqrt(1.0 + tan * tan)
                sin = tan * cos
                G[p, p] -= tan * g
                G[q, q] += tan * g
                G[p, q] = G[q, p] = 0.0
                for r in range(k):
                    if r != p and r != q:
                        u, v = G[p, r], G[q, r]
                        G[p, r] = G[r, p] = cos * u - sin * v
                        G[q, r] = G[r, q] = sin * u + cos * v
                    u, v = V[p, r], V[q, r]
                    V[p, r] = cos * u - sin * v
                    V[q, r] = sin * u + cos * v
        if not turned:
            break
