"""Compiled part of PATOM's sequential update; see :mod:`poisoning.attacks.patom`.

Assumed, and not checked: float64 arrays of the shapes that the docstring of ``walk`` gives.
"""

import numpy as np

from poisoning.compiled import njit


@njit(cache=True, fastmath={"reassoc", "contract"})
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
