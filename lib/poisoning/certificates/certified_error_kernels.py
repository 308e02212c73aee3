"""Compiled dual ascent for proofs that a model of small objective cannot err on a test point.

Both kernels work on the dual of

    min_w  a/2 ‖w − v‖² + Σᵢ uᵢ max(0, tᵢ − zᵢ·w),        w = v + (1/a) Σ αᵢ zᵢ,  0 ≤ αᵢ ≤ uᵢ,

one coordinate at a time, exactly. Any α within its bounds proves a lower bound on the minimum.

Assumed, and not checked: arrays are float64, C-contiguous and writable; the CSR matrices are valid
and have as many columns as ``w`` entries; ``t``, ``upper``, ``diagonal`` (the ‖zᵢ‖²) and ``alpha``
have an entry per row; ``w`` belongs to ``alpha``.
"""

import numpy as np

from poisoning.compiled import njit


@njit(cache=True, inline="always")
def ascend(data, indices, start, stop, a, t, upper, square, alpha, w):
    """One coordinate's new α, and how much the dual rises; changes ``w``."""
    gradient = -t
    for entry in range(start, stop):
        gradient += w[indices[entry]] * data[entry]
    new = min(max(alpha - a * gradient / square, 0.0), upper)
    step = new - alpha
    if step == 0.0:
        return alpha, 0.0
    for entry in range(start, stop):
        w[indices[entry]] += step / a * data[entry]
    return new, -step * (gradient + 0.5 * step * square / a)


@njit(cache=True)
def descend(data, indices, indptr, t, upper, diagonal, a, alpha, w, rows, epochs):
    """``epochs`` passes over the ``rows``, in place; how much the dual rises in the last."""
    rise = 0.0
    for _ in range(epochs):
        rise = 0.0
        for i in rows:
            alpha[i], more = ascend(
                data, indices, indptr[i], indptr[i + 1], a, t[i], upper[i], diagonal[i], alpha[i], w
            )
            rise += more
    return rise


@njit(cache=True)
def exclude(
    data, indices, indptr, t, upper, diagonal, a, alpha, w, near, value, level,
    test_data, test_indices, test_indptr, test_squares, tests, epochs,
):  # fmt: skip
    """For every test row z of ``tests``: the dual value reached with the constraint z·w ≥ 0 added.

    It starts from ``alpha`` and ``w``, of dual value ``value``, and stops once it exceeds
    ``level``, or when it rises too slowly to, or after ``epochs`` passes over the rows ``near``.
    ``alpha`` and ``w`` are left as they are. Returns the values, the constraint's multipliers, and
    the α of the last test row.
    """
    values = np.empty(tests.size)
    multipliers = np.zeros(tests.size)
    mine = alpha.copy()
    point = w.copy()
    for number in range(tests.size):
        row = tests[number]
        mine[:] = alpha
        point[:] = w
        reached = value
        beta = 0.0
        for _ in range(epochs):
            beta, rise = ascend(
                test_data, test_indices, test_indptr[row], test_indptr[row + 1], a, 0.0, np.inf,
                test_squares[row], beta, point,
            )  # fmt: skip
            if reached + rise > level:
                reached += rise
                break
            for i in near:
                mine[i], more = ascend(
                    data, indices, indptr[i], indptr[i + 1], a, t[i], upper[i], diagonal[i],
                    mine[i], point,
                )  # fmt: skip
                rise += more
            reached += rise
            if reached > level or rise < 0.05 * (level - reached):
                break
        values[number] = reached
        multipliers[number] = beta
    return values, multipliers, mine
