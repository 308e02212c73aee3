"""Compiled steps of blocked online SGD on two-layer ReLU nets.

Within a block only the nets' pre-activations are updated, not their weights: a step on example x_k
adds a multiple of x_k to w_s, hence the same multiple of ⟨x_k, x_t⟩ to the pre-activation at x_t.

Assumed, and not checked: arrays of one precision, float32 or float64, of the shapes that docstrings
give; rows of ``y``, and ``rates``, one for each of the runs, which divide the columns of ``Z``.
"""

import math

from poisoning.compiled import njit

TILE = 1024  # neurons: their pre-activations stay in the first-level cache over all earlier steps


# Sums over neurons may be reordered, else they are not vectorised; NaN and infinity stay what they
# are, and the same machine gives the same bits.
@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def output_of_tile(z, a, D, gram, first, start):
    """z += Σ_k gram[k] D[first + k, start:start + size], and Σ_s a_s relu(z_s) after that."""
    size = z.size
    steps = gram.size
    paired = steps - steps % 4
    for k in range(0, paired, 4):
        g0, g1, g2, g3 = gram[k], gram[k + 1], gram[k + 2], gram[k + 3]
        d0 = D[first + k, start : start + size]
        d1 = D[first + k + 1, start : start + size]
        d2 = D[first + k + 2, start : start + size]
        d3 = D[first + k + 3, start : start + size]
        for s in range(size):
            z[s] += (g0 * d0[s] + g1 * d1[s]) + (g2 * d2[s] + g3 * d3[s])
    for k in range(paired, steps):
        g0 = gram[k]
        d0 = D[first + k, start : start + size]
        for s in range(size):
            z[s] += g0 * d0[s]
    total = z.dtype.type(0)
    for s in range(size):
        total += a[s] * max(z[s], z.dtype.type(0))
    return total


@njit(cache=True)
def take_steps(Z, D, a, G, y, rates, scores, first, last):
    """Steps ``first`` … ``last`` − 1 of a block of K examples, for R runs of m neurons, in place.

    ``Z`` (K, R·m) pre-activations that lack the steps from ``first`` on; ``D`` (K, R·m) receives
    the multiples of x_t that step t adds to the weights; ``a`` (R·m,) output signs; ``G`` (K, K)
    Gram matrix of the examples; ``y`` (R, K) labels; ``rates`` (R,) the step sizes; ``scores``
    (R, K) receives the outputs before each step.
    """
    runs = y.shape[0]
    m = a.size // runs
    root = math.sqrt(m)
    for t in range(first, last):
        gram = G[t, first:t]
        for r in range(runs):
            total = 0.0
            for start in range(r * m, (r + 1) * m, TILE):
                stop = min(start + TILE, (r + 1) * m)
                total += output_of_tile(Z[t, start:stop], a[start:stop], D, gram, first, start)
            score = total / root
            scores[r, t] = score
            pull = rates[r] * y[r, t] / (root * (1.0 + math.exp(min(y[r, t] * score, 700.0))))
            step = D.dtype.type(pull)
            row, z = D[t], Z[t]
            for s in range(r * m, (r + 1) * m):
                row[s] = step * a[s] if z[s] > 0 else D.dtype.type(0)
