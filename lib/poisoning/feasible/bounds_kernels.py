"""Compiled Lagrangian of linear problems over the feasible set, coordinate by coordinate.

Assumed, and not checked: arrays are float64 and C-contiguous, of the shapes that are stated; the
multipliers of the ball are not negative; lower ≤ upper.
"""

import numpy as np

from poisoning.compiled import njit


@njit(cache=True, error_model="numpy")
def lagrangian(C, rows, centre, multipliers, lower, upper, integer):
    """min_x [c·x + ν(Σ f(x_i) − 2μ·x) + Σ_j v_j a_j·x] for every row c of ``C`` (m, d).

    ``rows`` (R, d) are the a_j, ``centre`` (d,) is μ, ``multipliers`` (m, 1 + R) are (ν, v). Values
    (m,), −∞ where there is no minimum.
    """
    values = np.empty(len(C))
    for k in range(len(C)):
        ball, value = multipliers[k, 0], 0.0
        for i in range(C.shape[1]):
            b = C[k, i] - 2.0 * ball * centre[i]
            for j in range(len(rows)):
                b += multipliers[k, 1 + j] * rows[j, i]
            if ball > 0.0:
                x = b / (-2.0 * ball)
                # f is linear between whole numbers, with its kinks there: the nearest one is best.
                x = np.rint(x) if integer else x
                x = min(max(x, lower[i]), upper[i])
            elif b == 0.0:
                x = min(max(0.0, lower[i]), upper[i])
            else:
                x = lower[i] if b > 0.0 else upper[i]
            if not np.isfinite(x):
                value = -np.inf
                break
            value += (ball * x + b) * x
        values[k] = value
    return values
