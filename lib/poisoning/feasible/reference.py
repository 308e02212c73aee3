"""The problems of :mod:`poisoning.feasible.solver` as cvxpy models, for tests and benchmarks.

They are written as a user of a general-purpose solver would: the envelope f of Eq. (7) becomes its
linear pieces (2k + 1)x − k(k + 1), k = 0 … M_i − 1, as Section 3.3 suggests; x² stays a quadratic
constraint. ``options`` go to the solver, for example tolerances. :func:`violation` says how far a
point is from feasible, whichever solver found it.
"""

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray

from poisoning.errors import SolverError
from poisoning.feasible.rounding import expected_square
from poisoning.feasible.sets import ClassSet, FeasibleSet

Points = tuple[Float[ndarray, "d"], ...]


def square(x: Float[ndarray, "d"], part: ClassSet) -> float:
    """E‖x̂ − centre‖², Eq. (5)."""
    f = expected_square(x) if part.domain.integer else x * x
    return float(f.sum() - 2.0 * part.centre @ x + part.centre @ part.centre)


def violation(x: Float[ndarray, "d"], part: ClassSet) -> float:
    """The largest excess over a constraint, 0 if x is feasible.

    Each is relative: to radius² for the ball, to ‖row‖·radius for a row, absolute for bounds.
    """
    products = part.rows @ x
    scale = np.linalg.norm(part.rows, axis=1) * part.radius + np.finfo(float).tiny
    excess = np.concatenate(
        [
            [square(x, part) / part.radius**2 - 1.0],
            (part.lower - products) / scale,
            (products - part.upper) / scale,
            part.domain.lower - x,
            x - part.domain.upper,
        ]
    )
    return float(max(excess.max(), 0.0))


def minimise_linear(
    c: Float[ndarray, "d"], feasible: ClassSet, *, solver: str = cp.CLARABEL, **options: float
) -> tuple[float, Points]:
    """min c·x over one class's set: optimal value and minimiser."""
    x = cp.Variable(c.size)
    return _solve(cp.Minimize(c @ x), constraints(x, feasible), [x], solver, options)


def project(
    p: Float[ndarray, "d"], feasible: ClassSet, *, solver: str = cp.CLARABEL, **options: float
) -> tuple[float, Points]:
    """min ½‖x − p‖² over one class's set: optimal value and minimiser."""
    x = cp.Variable(p.size)
    return _solve(
        cp.Minimize(0.5 * cp.sum_squares(x - p)), constraints(x, feasible), [x], solver, options
    )


def match_gradient(
    g: Float[ndarray, "d"],
    epsilon_plus: float,
    epsilon_minus: float,
    feasible: FeasibleSet,
    *,
    solver: str = cp.CLARABEL,
    **options: float,
) -> tuple[float, Points]:
    """min ½‖g − ε_+x_+ + ε_-x_-‖², Eq. (17): optimal value and (x_+, x_-).

    A class of weight 0 stays out of the model, and its point is 0. The residual is measured in
    units of ‖g‖ > 0: without this scaling Clarabel stops at a relative error of up to 1e-4 on small
    objectives.
    """
    unit = float(np.linalg.norm(g))
    points, limits, residual = [], [], g / unit
    weighted = ((epsilon_plus, feasible.positive), (-epsilon_minus, feasible.negative))
    for weight, part in weighted:
        if weight == 0.0:
            points.append(cp.Constant(np.zeros_like(g)))
            continue
        x = cp.Variable(g.size)
        points.append(x)
        limits += constraints(x, part)
        residual = residual - (weight / unit) * x
    objective = cp.Minimize(0.5 * cp.sum_squares(residual))
    optimum, found = _solve(objective, limits, points, solver, options)
    return unit**2 * optimum, found


def constraints(x: cp.Variable, feasible: ClassSet) -> list[cp.Constraint]:
    """x ∈ F_y."""
    domain, centre = feasible.domain, feasible.centre
    limits = []
    low, high = np.flatnonzero(np.isfinite(domain.lower)), np.flatnonzero(np.isfinite(domain.upper))
    if low.size:
        limits.append(x[low] >= domain.lower[low])
    if high.size:
        limits.append(x[high] <= domain.upper[high])
    if domain.integer:
        square = cp.Variable(x.size)
        pieces = domain.upper.astype(np.int64)
        owner = np.repeat(np.arange(x.size), pieces)
        k = np.arange(owner.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        shape = (owner.size, x.size)
        rows = np.arange(owner.size)
        select = sp.csr_array((np.ones(owner.size), (rows, owner)), shape=shape)
        slopes = sp.csr_array((2.0 * k + 1.0, (rows, owner)), shape=shape)
        limits += [
            select @ square >= slopes @ x - k * (k + 1.0),
            cp.sum(square) - 2.0 * centre @ x + centre @ centre <= feasible.radius**2,
        ]
        absent = np.flatnonzero(pieces == 0)
        if absent.size:
            limits.append(square[absent] == 0.0)
    else:
        limits.append(cp.sum_squares(x - centre) <= feasible.radius**2)
    below, above = np.isfinite(feasible.lower), np.isfinite(feasible.upper)
    if below.any():
        limits.append(feasible.rows[below] @ x >= feasible.lower[below])
    if above.any():
        limits.append(feasible.rows[above] @ x <= feasible.upper[above])
    return limits


def _solve(
    objective: cp.Minimize,
    limits: list[cp.Constraint],
    points: list[cp.Expression],
    solver: str,
    options: dict[str, float],
) -> tuple[float, Points]:
    problem = cp.Problem(objective, limits)
    try:
        problem.solve(solver=solver, **options)
    except cp.SolverError as error:
        raise SolverError(f"{solver} failed on the reference problem: {error}") from error
    if problem.status != cp.OPTIMAL:
        raise SolverError(f"{solver} ends with status {problem.status!r} on the reference problem")
    return float(problem.value), tuple(np.asarray(x.value, dtype=np.float64) for x in points)
