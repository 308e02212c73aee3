"""Compiled parts of PATOM: of its sequential update, and of its gradients.

:mod:`poisoning.attacks.patom` and :mod:`poisoning.attacks.patom_gradient` have the mathematics.

Assumed, and not checked: finite float64 arrays, C-contiguous and writable, of the shapes that the
docstrings give; of m tasks ``X`` (m, n, d), ``y`` and ``weight`` (m, n), ``W`` and ``u`` (m, d).
"""

import numpy as np

from poisoning.compiled import njit

_SUMS = {"reassoc", "contract"}  # sums may be reordered, so that they are vectorised


@njit(cache=True, fastmath=_SUMS)
def walk(start, gram, lengths, squared, radius):
    """A block of ``_walk``'s steps on the points of one problem.

    ``start`` (r, q) are the inner products of points and directions, ``gram`` (q, q) those among
    directions, ``lengths`` (r, q) the steps and ``squared`` (r) the points' squared norms. Returns
    γ (r, q) and σ (r): a point becomes σ (x + Σ γ_q direction_q).
    """
    gamma, sigma = np.empty_like(lengths), np.empty_like(squared)
    least = radius * radius
    for r in range(sigma.size):
        scale, square = 1.0, squared[r]
        for q in range(gram.shape[0]):
            along = start[r, q]
            for p in range(q):
                along += gamma[r, p] * gram[q, p]
            length = lengths[r, q]
            square += length * (2.0 * scale * along + length * gram[q, q])
            gamma[r, q] = length / scale
            if square > least:
                scale *= radius / np.sqrt(square)
                square = least
        sigma[r] = scale
    return gamma, sigma


@njit(cache=True, fastmath=_SUMS)
def pull_back(X, y, weight, first, W, u, hinge, bent):
    """−c [ℓ'(w_i·x̂, ŷ) u_i + ℓ''(w_i·x̂, ŷ) (u_i·x̂) w_i] for every row from number ``first`` on.

    c is a row's weight. The bias is left out, and the second term unless ``bent``. The result's
    shape is (m, n − first, d − 1).
    """
    m, n, d = X.shape
    out = np.zeros((m, n - first, d - 1))
    for i in range(m):
        for j in range(first, n):
            if weight[i, j] == 0.0:
                continue
            score = along = 0.0
            for a in range(d):
                score += X[i, j, a] * W[i, a]
                along += X[i, j, a] * u[i, a]
            short, side = (1.0 - y[i, j] * score, y[i, j]) if hinge else (y[i, j] - score, 1.0)
            if hinge and short <= 0.0:
                continue
            pull = 2.0 * weight[i, j] * short * side
            bend = 2.0 * weight[i, j] * along if bent else 0.0
            for a in range(d - 1):
                out[i, j - first, a] = pull * u[i, a] - bend * W[i, a]
    return out


@njit(cache=True, fastmath=_SUMS)
def system(A, left, a, b, stiffness, swap, coupling):
    """The matrix of A + R for the unknowns C_ab, whose places ``a`` and ``b`` (u) are.

    The losses' part for C_ab and C_ce is Σ_i L_ia L_ic (Rᵀ A_i R)_be: ``A`` (m, d, d) are the
    Rᵀ A_i R, ``left`` (m, m) is L. ``stiffness`` (m, d), ``swap`` (k, k) and ``coupling`` are R's.
    """
    u, d = len(a), A.shape[1]
    H, columns = np.zeros((u, u)), np.empty((d, u))
    for i in range(len(A)):
        for e in range(d):
            for q in range(u):
                columns[e, q] = left[i, a[q]] * A[i, e, b[q]]
        for p in range(u):
            part, e = left[i, a[p]], b[p]
            for q in range(p + 1):
                H[p, q] += part * columns[e, q]
    for p in range(u):
        H[p, p] += stiffness[a[p], b[p]]
        for q in range(p + 1):
            if a[p] == b[q] and b[p] == a[q]:
                H[p, q] -= swap[a[p], b[p]]
            if a[p] == b[p] and a[q] == b[q]:
                H[p, q] += coupling
            H[q, p] = H[p, q]
    return H


@njit(cache=True, fastmath=_SUMS)
def conjugate_gradients(
    A, left, right, widths, stiffness, swap, coupling, alpha, target, tol, max_iterations
):
    """C = (A + R)⁻¹ ``target``, and the relative residual; ``tol`` is enough.

    The preconditioner is R with ``alpha`` (m, d) in place of the stiffness. Free are the first
    ``widths`` (m) entries of every row of C (m, d). ``A`` (m, d, d) are the Hessians of the losses,
    ``left`` (m, m) is Lᵀ, ``right`` (d, d) is Rᵀ; the rest is R's.
    """
    m, d = target.shape
    # Sherman and Morrison: what the coupling's term of rank one changes is along ``reach``.
    residual, reach = np.zeros((m, d)), np.zeros((m, d))
    for a in range(len(swap)):
        residual[a, a] = 1.0 if a < widths[a] else 0.0
    trace = invert_pairs(residual, widths, alpha, swap, reach)
    share = coupling / (1.0 + coupling * trace)
    C, direction = np.zeros((m, d)), np.zeros((m, d))
    z, image = np.empty((m, d)), np.empty((m, d))
    first = 0.0
    for a in range(m):
        for b in range(widths[a]):
            residual[a, b] = target[a, b]
            first += target[a, b] * target[a, b]
    square, before = first, 0.0
    for step in range(max_iterations):
        if square <= tol * tol * first:
            break
        trace = invert_pairs(residual, widths, alpha, swap, z)
        rho = 0.0
        for a in range(m):
            for b in range(widths[a]):
                z[a, b] -= share * trace * reach[a, b]
                rho += residual[a, b] * z[a, b]
        turn = rho / before if step else 0.0
        for a in range(m):
            for b in range(widths[a]):
                direction[a, b] = z[a, b] + turn * direction[a, b]
        curvature = apply(A, left, right, widths, stiffness, swap, coupling, direction, image)
        square, before = 0.0, rho
        for a in range(m):
            for b in range(widths[a]):
                C[a, b] += rho / curvature * direction[a, b]
                residual[a, b] -= rho / curvature * image[a, b]
                square += residual[a, b] * residual[a, b]
    return C, np.sqrt(square / first) if first > 0.0 else 0.0


@njit(cache=True, fastmath=_SUMS)
def invert_pairs(right, widths, alpha, swap, out):
    """``out`` = the solution of alpha∘C − swap∘Cᵀ = ``right``, by Cramer's rule; returns Σ C_aa."""
    k, trace = len(swap), 0.0
    for a in range(len(widths)):
        for b in range(widths[a]):
            if a < k and b < k:
                determinant = alpha[a, b] * alpha[b, a] - swap[a, b] * swap[a, b]
                out[a, b] = alpha[b, a] * right[a, b] + swap[a, b] * right[b, a]
                out[a, b] /= determinant
                if a == b:
                    trace += out[a, b]
            else:
                out[a, b] = right[a, b] / alpha[a, b]
    return trace


@njit(cache=True, fastmath=_SUMS)
def apply(A, left, right, widths, stiffness, swap, coupling, C, image):
    """``image`` = (A + R) C; returns ⟨C, image⟩."""
    m, d = C.shape
    k = len(swap)
    # A task is a column of LC, of which W = L C Rᵀ is made row by row, and of the slopes times R.
    LC, pull = np.zeros((d, m)), np.empty((d, m))
    trace = 0.0
    for a in range(m):
        for b in range(widths[a]):
            entry = C[a, b]
            if a == b:
                trace += entry
            for i in range(m):
                LC[b, i] += entry * left[a, i]
    w, slope = np.empty(d), np.empty(d)
    for i in range(m):
        for e in range(d):
            w[e] = 0.0
        for b in range(d):
            entry = LC[b, i]
            for e in range(d):
                w[e] += entry * right[b, e]
        for e in range(d):
            total = 0.0
            for f in range(d):
                total += A[i, e, f] * w[f]
            slope[e] = total
        for b in range(d):
            total = 0.0
            for e in range(d):
                total += slope[e] * right[b, e]
            pull[b, i] = total
    curvature = 0.0
    for a in range(m):
        for b in range(widths[a]):
            total = stiffness[a, b] * C[a, b]
            if a < k and b < k:
                total -= swap[a, b] * C[b, a]
                if a == b:
                    total += coupling * trace
            for i in range(m):
                total += left[a, i] * pull[b, i]
            image[a, b] = total
            curvature += total * C[a, b]
    return curvature
