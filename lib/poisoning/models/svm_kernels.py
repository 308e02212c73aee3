"""Compiled inner loops of the support vector machine: dual coordinate descent with shrinking.

Both kernels minimise ½‖Σ αᵢyᵢ(xᵢ, 1)‖² − Σ αᵢ over 0 ≤ αᵢ ≤ upperᵢ (Hsieh et al. 2008, Alg. 3),
one coordinate at a time, exactly, in an order shuffled at every epoch. They change ``alpha``
and ``w`` (d + 1 entries, the last one the intercept) in place. ``active`` holds the indices to
work on; a coordinate that sits at a bound and whose gradient pushes it firmly outwards leaves
the list for the rest of the call, which is why the caller has to check optimality over all
points.

Assumed, and not checked: arrays are float64, C-contiguous and writable; a CSR matrix is valid;
``y``, ``upper``, ``diagonal`` and ``alpha`` have an entry per row; ``active`` holds different rows.
"""

import numpy as np

from poisoning.compiled import njit

_MULTIPLIER = np.uint64(6364136223846793005)
_INCREMENT = np.uint64(1442695040888963407)
_SHIFT = np.uint64(33)


@njit(cache=True)
def shuffle(active, size, state):
    """Fisher-Yates on the first ``size`` entries, by Knuth's MMIX generator, ``state[0]``."""
    for last in range(size - 1, 0, -1):
        state[0] = state[0] * _MULTIPLIER + _INCREMENT
        other = np.int64(state[0] >> _SHIFT) % (last + 1)
        active[last], active[other] = active[other], active[last]


@njit(cache=True, inline="always")
def project(gradient, alpha, upper, highest, lowest):
    """The projected gradient of one coordinate; NaN if the coordinate is to leave the list."""
    if alpha == 0.0:
        return np.nan if gradient > max(highest, 0.0) else min(gradient, 0.0)
    if alpha == upper:
        return np.nan if gradient < min(lowest, 0.0) else max(gradient, 0.0)
    return gradient


@njit(cache=True, inline="always")
def bounds(highest, lowest):
    """What the next epoch calls firmly outwards: the extreme projected gradients of this one."""
    return highest if highest > 0.0 else np.inf, lowest if lowest < 0.0 else -np.inf


@njit(cache=True)
def descend_csr(
    data, indices, indptr, y, upper, diagonal, alpha, w, active, state, tolerance, max_epochs
):
    """Epochs over CSR rows until the projected gradients span ≤ ``tolerance``; epochs done."""
    bias = w.size - 1
    size = active.size
    highest, lowest = np.inf, -np.inf
    for epoch in range(max_epochs):
        shuffle(active, size, state)
        new_highest, new_lowest = -np.inf, np.inf
        position = 0
        while position < size:
            i = active[position]
            score = w[bias]
            for entry in range(indptr[i], indptr[i + 1]):
                score += w[indices[entry]] * data[entry]
            gradient = y[i] * score - 1.0
            old = alpha[i]
            projected = project(gradient, old, upper[i], highest, lowest)
            if np.isnan(projected):
                size -= 1
                active[position], active[size] = active[size], active[position]
                continue
            new_highest = max(new_highest, projected)
            new_lowest = min(new_lowest, projected)
            if projected != 0.0:
                new = min(max(old - gradient / diagonal[i], 0.0), upper[i])
                step = (new - old) * y[i]
                if step != 0.0:
                    alpha[i] = new
                    for entry in range(indptr[i], indptr[i + 1]):
                        w[indices[entry]] += step * data[entry]
                    w[bias] += step
            position += 1
        if size == 0 or new_highest - new_lowest <= tolerance:
            return epoch + 1
        highest, lowest = bounds(new_highest, new_lowest)
    return max_epochs


@njit(cache=True)
def descend_dense(X, y, upper, diagonal, alpha, w, active, state, tolerance, max_epochs):
    """The same over the rows of a C-contiguous array."""
    bias = w.size - 1
    theta = w[:bias]
    size = active.size
    highest, lowest = np.inf, -np.inf
    for epoch in range(max_epochs):
        shuffle(active, size, state)
        new_highest, new_lowest = -np.inf, np.inf
        position = 0
        while position < size:
            i = active[position]
            gradient = y[i] * (np.dot(X[i], theta) + w[bias]) - 1.0
            old = alpha[i]
            projected = project(gradient, old, upper[i], highest, lowest)
            if np.isnan(projected):
                size -= 1
                active[position], active[size] = active[size], active[position]
                continue
            new_highest = max(new_highest, projected)
            new_lowest = min(new_lowest, projected)
            if projected != 0.0:
                new = min(max(old - gradient / diagonal[i], 0.0), upper[i])
                step = (new - old) * y[i]
                if step != 0.0:
                    alpha[i] = new
                    for j in range(bias):
                        theta[j] += step * X[i, j]
                    w[bias] += step
            position += 1
        if size == 0 or new_highest - new_lowest <= tolerance:
            return epoch + 1
        highest, lowest = bounds(new_highest, new_lowest)
    return max_epochs
