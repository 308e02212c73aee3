"""Compiled training loop of the multi-class support vector machine.

Assumed, and not checked: float64, C-contiguous, writable; ``theta`` and ``accumulator`` (k, d),
``X`` (n, d); ``y`` (n,) int64 from 0 to k − 1; ``order`` holds numbers of rows; ``batch`` ≥ 1.
"""

import numpy as np

from poisoning.compiled import njit


@njit(cache=True)
def add_subgradient(theta, x, label, share, out):
    """out += share · ∂ℓ(θ; x, label), ℓ = max(0, 1 − θ_label·x + max_{j≠label} θ_j·x)."""
    own = np.dot(theta[label], x)
    rival, highest = -1, -np.inf
    for j in range(theta.shape[0]):
        if j != label:
            score = np.dot(theta[j], x)
            if score > highest:
                rival, highest = j, score
    if 1.0 - own + highest > 0.0:
        for c in range(x.size):
            step = share * x[c]
            out[label, c] -= step
            out[rival, c] += step


@njit(cache=True)
def adagrad_pass(theta, accumulator, X, y, order, batch, step):
    """One pass over the rows in ``order``: θ −= step · g / √(accumulator += g²), in place."""
    gradient = np.empty_like(theta)
    for first in range(0, order.size, batch):
        last = min(first + batch, order.size)
        gradient[:] = 0.0
        for position in range(first, last):
            i = order[position]
            add_subgradient(theta, X[i], y[i], 1.0 / (last - first), gradient)
        for j in range(theta.shape[0]):
            for c in range(theta.shape[1]):
                g = gradient[j, c]
                if g != 0.0:
                    accumulator[j, c] += g * g
                    theta[j, c] -= step * g / np.sqrt(accumulator[j, c])
