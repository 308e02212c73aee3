"""The compiled proximal loop of MTRL; :mod:`poisoning.models.mtrl` has the mathematics.

Assumed, and not checked: float64, C-contiguous, writable; ``toward`` (m, d, d), ``offset`` and
``start`` (m, d), all finite.
"""

import numpy as np

from poisoning.compiled import njit

TINY = 1e-18  # least singular value in a quotient: what it is the quotient of is then zero


@njit(cache=True)
def minimise(toward, offset, momentum, L, c, start, goal, max_iterations):
    """The loop of ``_minimise`` in ``poisoning.models.mtrl``; ``c`` is λ2/L.

    Returns W, ‖W‖_*, L‖Y − W‖_F and the number of steps, at most ``max_iterations``. The caller
    has to check that ``goal`` was reached.
    """
    m = offset.shape[0]
    Y, W, Z = start.copy(), start.copy(), np.empty_like(offset)
    nuclear = distance = 0.0
    for step in range(1, max_iterations + 1):
        for i in range(m):
            np.dot(Y[i], toward[i], Z[i])
        Z += offset
        new, nuclear = shrink(Z, c)
        square = slope = 0.0
        for i in range(m):
            for j in range(offset.shape[1]):
                back = Y[i, j] - new[i, j]
                square += back * back
                slope += back * (new[i, j] - W[i, j])
        distance = L * np.sqrt(square)
        if distance <= goal:
            return new, nuclear, distance, step
        Y = new + momentum * (new - W) if slope <= 0.0 else new
        W = new
    return W, nuclear, distance, max_iterations


@njit(cache=True)
def shrink(Z, c):
    """argmin ½‖W − Z‖_F² + c/2 ‖W‖_*², and its ‖W‖_*: ``prox`` of ``poisoning.models.mtrl``."""
    wide = Z.shape[0] <= Z.shape[1]
    squares, V = np.linalg.eigh(Z @ Z.T if wide else Z.T @ Z)
    a = np.sqrt(np.maximum(squares, TINY * TINY))
    total = threshold = 0.0
    for count in range(1, a.size + 1):
        total += a[-count]
        threshold = max(threshold, c * total / (1.0 + c * count))
    kept = np.maximum(a - threshold, 0.0)
    alive = np.flatnonzero(kept)
    first = alive[0] if alive.size else a.size
    U = np.ascontiguousarray(V[:, first:])
    scaled = U * (kept[first:] / a[first:])
    return (scaled @ (U.T @ Z) if wide else (Z @ scaled) @ U.T), kept.sum()
