"""Cheap lower bounds on linear problems over the feasible set, from multipliers alone."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.feasible.bounds_kernels import lagrangian
from poisoning.feasible.sets import ClassSet


def linear_lower_bounds(
    C: Float[ndarray, "m d"], feasible: ClassSet, multipliers: Float[ndarray, "m k"]
) -> Float[ndarray, "m"]:
    """A lower bound on min c·x over the set, for every row c of ``C``.

    The Lagrangian dual: with ν ≥ 0 for the ball and v_j of either sign for the rows a_j,

        min_x [c·x + ν(Σ f(x_i) − 2μ·x) + Σ_j v_j a_j·x] − ν(τ² − ‖μ‖²) − Σ_j v_j e_j,

    x in the input domain, e_j the upper end of row j where v_j > 0 and the lower end where v_j < 0,
    f the envelope of Eq. (7) of Koh et al. 2021 for counts and x² otherwise. It holds for any
    multipliers (ν, v), one row of ``multipliers`` (m, 1 + R) for each of ``C``; those of a similar
    problem that was solved make it tight. −∞ where the bracket has no minimum or v_j picks an end
    that is infinite. Raises ``ValueError`` for a negative ν, or arrays that do not fit.
    """
    rows = checks.instance(feasible, "feasible", ClassSet).rows
    C = checks.array(C, "C", (None, rows.shape[1]))
    multipliers = checks.array(multipliers, "multipliers", (len(C), 1 + len(rows)))
    ball, slopes = multipliers[:, :1], multipliers[:, 1:]
    if np.any(ball < 0.0):
        raise ValueError("multipliers must not be negative for the ball.")
    domain = feasible.domain
    values = lagrangian(
        C, feasible.rows, feasible.centre, multipliers, domain.lower, domain.upper, domain.integer
    )
    ends = np.select([slopes > 0.0, slopes < 0.0], [feasible.upper, feasible.lower], 0.0)
    bounded = np.isfinite(ends).all(axis=1)
    room = feasible.radius**2 - feasible.centre @ feasible.centre
    products = np.einsum("ij,ij->i", slopes[bounded], ends[bounded])
    found = np.full(len(C), -np.inf)
    found[bounded] = values[bounded] - ball[bounded, 0] * room - products
    return found
