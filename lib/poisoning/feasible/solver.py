"""Three convex problems over the feasible set, by one specialised solver.

With x = (x_k) one point per class, each in its :class:`~poisoning.feasible.sets.ClassSet` F_k,

    min  ½‖g − Σ_k s_k x_k‖² + Σ_k c_k·x_k   over  x_k ∈ F_k.                            (P)

* s = 0 minimises a linear function: the inner problem of the min-max attack;
* one class, s = 1, g = p projects p: the influence attack's step;
* s = (ε_+, −ε_-) is the KKT attack's problem (17).

Apart from the coordinate-wise domain, F_k has a handful of constraints: one ball and R rows. Two
ideas reduce a problem with 10⁵ coordinates to one with six unknowns.

1. *Proximal point.* Each outer step adds σ/2‖x − x⁰‖² and moves x⁰ to the answer; σ shrinks. The
   dual function of a step, over multipliers y of the ball (≥ 0) and rows (of either sign: a row is
   a range), is concave and C¹, and costs one pass over the coordinates (``solver_kernels``).
2. *Semismooth Newton* on y, the quadratic model maximised under the signs that y has, with an
   Armijo line search.

*Certificate.* At an inner minimiser x, e = σ(x − x⁰) is minus a subgradient of the Lagrangian
Φ of (P) (with the domain): −e ∈ ∂Φ(x). Every feasible x' lies in the ball (f(x) ≥ x²), so

    (P) ≥ Φ(x') ≥ Φ(x) − Σ_k max e_k·(x'_k − x_k) ≥ Φ(x) − Σ_k [e_k·(μ_k − x_k) + τ_k‖e_k‖],

for any multipliers. The objective less this bound is the reported gap. The same ball bounds the
objective from above; a dual value beyond that bound proves F_k empty.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.errors import SolverError
from poisoning.feasible.sets import ClassSet, FeasibleSet
from poisoning.feasible.solver_kernels import maximise

_FIRST_SIGMA = 0.003
_SHRINK = 0.2
_LAST_SIGMA = 1e-9
_OUTER_STEPS = 40
_PASSES = 500  # over the coordinates in one proximal step; at most 143 were observed
_FEASIBILITY = 1e-9  # allowed excess over a constraint, relative as in Solution.violation
_RIDGES = (1e-8, 1e-4)  # of the largest objective, inverted
_FLOOR = 1e-5  # of the objective's natural size; the gap is relative to no less than this


class EmptySetError(SolverError):
    """No point satisfies the constraints; the dual proves it."""


@dataclass(frozen=True)
class Solution:
    """Minimisers with their certificate.

    ``points`` holds one x (d,) per class asked for. No feasible point does better than
    ``objective − gap``. ``violation`` is the largest relative excess over a constraint
    (:func:`poisoning.feasible.reference.violation`). ``steps`` counts proximal steps,
    ``evaluations`` passes over the coordinates. ``multipliers`` (K, 1 + R) warm-start a similar
    problem.
    """

    points: tuple[Float[ndarray, "d"], ...]
    objective: float
    gap: float
    violation: float
    steps: int
    evaluations: int
    multipliers: Float[ndarray, "K m"]


class LinearProblem:
    """min c·x over one class's set, for one c after another."""

    def __init__(self, feasible: ClassSet) -> None:
        self.feasible = checks.instance(feasible, "feasible", ClassSet)
        self._constraints = _Constraints.of([feasible])

    def minimise(
        self,
        c: Float[ndarray, "d"],
        *,
        tol: float = 1e-6,
        start: Float[ndarray, "K m"] | None = None,
    ) -> Solution:
        """The least c·x; ``start`` are the ``multipliers`` of a similar problem.

        The gap falls below ``tol``·max(|objective|, 1e-5·‖c‖τ). Raises ``ValueError`` for arguments
        that do not fit, ``EmptySetError`` if the set is empty, ``SolverError`` if the gap stays
        above.
        """
        c, tol, start = _checked(c, "c", tol, start, [self.feasible])
        dual = _Dual.of("linear", np.zeros_like(c), np.zeros(1), c[None, :], self._constraints)
        return _proximal_point(dual, tol, start)


def minimise_linear(
    c: Float[ndarray, "d"],
    feasible: ClassSet,
    *,
    tol: float = 1e-6,
    start: Float[ndarray, "K m"] | None = None,
) -> Solution:
    """min c·x over one class's set; as :meth:`LinearProblem.minimise`, and raises the same."""
    return LinearProblem(feasible).minimise(c, tol=tol, start=start)


def project(p: Float[ndarray, "d"], feasible: ClassSet, *, tol: float = 1e-6) -> Solution:
    """min ½‖x − p‖² over one class's set: one proximal step with σ = 1 from x⁰ = p.

    For counts the set is that of the relaxation, so the answer is in general no integer. Raises
    what :func:`minimise_linear` does.
    """
    p, tol, _ = _checked(p, "p", tol, None, [feasible])
    linear, constraints = np.zeros((1, p.size)), _Constraints.of([feasible])
    dual = _Dual.of("projection", np.zeros_like(p), np.zeros(1), linear, constraints)
    y = np.zeros(constraints.above.shape)
    step = dual.maximise(y, 1.0, p[None, :], _RIDGES[0] / dual.largest)
    objective = 0.5 * float(np.sum((step.x[0] - p) ** 2))
    gap = max(objective - step.value, 0.0)
    allowed = tol * max(objective, _FLOOR * 0.5 * float(p @ p))
    if gap > allowed or step.violation > _FEASIBILITY:
        # Where the set is so thin that one step ends in rounding, more steps, σ falling, do not.
        dual = _Dual.of("projection", p, np.ones(1), linear, constraints)
        return _proximal_point(dual, tol, step.y)
    return Solution((step.x[0],), objective, gap, step.violation, 1, dual.evaluations[0], step.y)


def match_gradient(
    g: Float[ndarray, "d"],
    epsilon_plus: float,
    epsilon_minus: float,
    feasible: FeasibleSet,
    *,
    tol: float = 1e-6,
    start: Float[ndarray, "K m"] | None = None,
) -> Solution:
    """min ½‖g − ε_+x_+ + ε_-x_-‖² over x_± in their classes' sets; Eq. (17) of Koh et al. 2021.

    ``points`` are (x_+, x_-); for a class of weight 0 that is the zero vector, and its set does
    not matter. ``start`` are the ``multipliers`` of a similar problem with the same classes. The
    gap falls below ``tol``·max(objective, 1e-5·½‖g‖²): a decoy that can be reached exactly has
    objective 0. Raises what :func:`minimise_linear` does, and ``ValueError`` if both weights are 0.
    """
    weights = np.array(
        [
            checks.positive(epsilon_plus, "epsilon_plus", zero=True),
            -checks.positive(epsilon_minus, "epsilon_minus", zero=True),
        ]
    )
    used = np.flatnonzero(weights)
    if used.size == 0:
        raise ValueError("One of epsilon_plus and epsilon_minus must be positive.")
    checks.instance(feasible, "feasible", FeasibleSet)
    sets = [(feasible.positive, feasible.negative)[k] for k in used]
    g, tol, start = _checked(g, "g", tol, start, sets)
    linear = np.zeros((used.size, g.size))
    dual = _Dual.of("KKT", g, weights[used], linear, _Constraints.of(sets))
    solution = _proximal_point(dual, tol, start)
    points = [np.zeros_like(g), np.zeros_like(g)]
    for k, point in zip(used, solution.points, strict=True):
        points[k] = point
    return replace(solution, points=tuple(points))


def _checked(
    values: Float[ndarray, "d"],
    name: str,
    tol: float,
    start: Float[ndarray, "K m"] | None,
    sets: list[ClassSet],
) -> tuple[Float[ndarray, "d"], float, Float[ndarray, "K m"] | None]:
    for part in sets:
        checks.instance(part, "feasible", ClassSet)
    values = checks.vector(values, name, len(sets[0].centre), per="features")
    if start is not None:
        constraints = 1 + max(len(part.rows) for part in sets)
        start = checks.matrix(start, "start")
        if start.shape != (len(sets), constraints):
            raise ValueError(
                f"start must have a row for each of {len(sets)} classes and a column for each of "
                f"{constraints} constraints, its shape is {start.shape}."
            )
    return values, checks.positive(tol, "tol"), start


def _no_convergence(name: str, gap: float, allowed: float, violation: float) -> SolverError:
    return SolverError(
        f"{name} problem over the feasible set: duality gap {gap:.1e} (allowed {allowed:.1e}), "
        f"relative constraint violation {violation:.1e}; raise tol or rescale the features"
    )


def _proximal_point(dual: "_Dual", tol: float, start: Float[ndarray, "K m"] | None) -> Solution:
    """Proximal point steps until the certified gap is small.

    Raises ``SolverError`` if they do not get there with either of two ridges: where x stays put,
    Newton's step in the multipliers is as long as the ridge lets it be.
    """
    for ridge in _RIDGES:
        try:
            return _with_ridge(dual, tol, start, ridge / dual.largest)
        except EmptySetError:
            raise
        except SolverError as error:
            failure = error
    raise failure


def _with_ridge(
    dual: "_Dual", tol: float, start: Float[ndarray, "K m"] | None, ridge: float
) -> Solution:
    y = np.zeros(dual.constraints.above.shape) if start is None else start
    x0 = np.zeros(dual.c.shape)
    sigma, least = _FIRST_SIGMA * dual.curvature, _LAST_SIGMA * dual.curvature
    bound = -np.inf
    gap = allowed = np.inf
    for steps in range(1, _OUTER_STEPS + 1):
        passes = dual.evaluations[0]
        step = dual.maximise(y, sigma, x0, ridge)
        objective = dual.objective(step.x)
        bound = max(bound, dual.lower_bound(step, sigma, x0))
        gap = max(objective - bound, 0.0)
        allowed = tol * max(abs(objective), _FLOOR * dual.natural)
        if gap <= allowed and step.violation <= _FEASIBILITY:
            return Solution(
                tuple(step.x), objective, gap, step.violation, steps, dual.evaluations[0], step.y
            )
        y, x0 = step.y, step.x
        if step.violation <= _FEASIBILITY:
            sigma = max(_SHRINK * sigma, least)
            continue
        # A σ this small amplifies rounding errors in the multipliers: raise it, and keep it from
        # falling again. If the passes ran out instead, the cause was kinks, and the next x⁰ may
        # avoid them.
        sigma = sigma / _SHRINK**2
        if dual.evaluations[0] - passes <= _PASSES:
            least = sigma
    raise _no_convergence(dual.name, gap, allowed, step.violation)


def _padded(part: ClassSet, rows: int) -> ClassSet:
    """The same set with rows that constrain nothing, so that there are ``rows`` of them."""
    for _ in range(rows - len(part.rows)):
        part = part.with_row(np.zeros_like(part.centre), -np.inf, np.inf)
    return part


@dataclass(frozen=True)
class _Step:
    """The maximiser ``y`` of one proximal step's dual, its ``value`` and its primal ``x``."""

    x: Float[ndarray, "K d"]
    y: Float[ndarray, "K m"]
    value: float
    violation: float


@dataclass(frozen=True)
class _Constraints:
    """The constraints of K classes, m = 1 + R each, in the form that the kernel wants.

    ``G`` (d, K, m); a product may range over [``below``, ``above``] (K, m); ``scales`` (K, m) turn
    an excess into a relative one; no point is farther from 0 than ``reach`` (K,).
    """

    sets: list[ClassSet]
    G: Float[ndarray, "d K m"]
    below: Float[ndarray, "K m"]
    above: Float[ndarray, "K m"]
    scales: Float[ndarray, "K m"]
    reach: Float[ndarray, "K"]

    @classmethod
    def of(cls, sets: list[ClassSet]) -> "_Constraints":
        longest = max(len(part.rows) for part in sets)
        sets = [_padded(part, longest) for part in sets]
        constraints = [np.vstack([-2.0 * part.centre, part.rows]) for part in sets]
        G = np.ascontiguousarray(np.stack(constraints).transpose(2, 0, 1))
        below = np.stack([np.append(-np.inf, part.lower) for part in sets])
        above = np.stack(
            [np.append(part.radius**2 - part.centre @ part.centre, part.upper) for part in sets]
        )
        norms = np.stack([np.linalg.norm(part.rows, axis=1) for part in sets])
        radii = np.array([part.radius for part in sets])
        rows = norms * radii[:, None]
        scales = np.hstack([radii[:, None] ** 2, np.where(rows > 0.0, rows, 1.0)])
        reach = radii + [np.linalg.norm(part.centre) for part in sets]
        return cls(sets, G, below, above, scales, reach)


@dataclass(frozen=True)
class _Dual:
    """The dual of (P) with a proximal term.

    ``natural`` is the typical size of the objective of (P), ``largest`` that far from x = 0,
    ``curvature`` that of its second derivative in x. Two fields change: ``residual`` (d,), the last
    w, and ``evaluations``, a counter.
    """

    name: str
    g: Float[ndarray, "d"]
    s: Float[ndarray, "K"]
    c: Float[ndarray, "K d"]
    constraints: _Constraints
    natural: float
    largest: float
    curvature: float
    residual: Float[ndarray, "d"]
    evaluations: list[int]

    @classmethod
    def of(
        cls,
        name: str,
        g: Float[ndarray, "d"],
        s: Float[ndarray, "K"],
        c: Float[ndarray, "K d"],
        constraints: _Constraints,
    ) -> "_Dual":
        radii = np.array([part.radius for part in constraints.sets])
        linear = float(np.linalg.norm(c, axis=1) @ radii)
        return cls(
            name, g, s, c, constraints,
            float(0.5 * g @ g + linear) or float(s**2 @ radii**2) or 1.0,
            float(0.5 * g @ g + linear + s**2 @ radii**2) or 1.0,
            float(np.max(s**2) + linear / np.max(radii) ** 2) or 1.0,
            g.copy(), [0],
        )  # fmt: skip

    def objective(self, x: Float[ndarray, "K d"]) -> float:
        """The objective of (P)."""
        w = self.g - self.s @ x
        return float(0.5 * w @ w + np.sum(self.c * x))

    def ceiling(self, sigma: float, x0: Float[ndarray, "K d"]) -> float:
        """An upper bound on a proximal step's objective over the balls."""
        reach = self.constraints.reach
        length = np.linalg.norm(self.g) + np.abs(self.s) @ reach
        linear = np.linalg.norm(self.c, axis=1) @ reach
        moves = np.linalg.norm(x0, axis=1) + reach
        return float(0.5 * length**2 + linear + 0.5 * sigma * moves @ moves)

    def lower_bound(self, step: _Step, sigma: float, x0: Float[ndarray, "K d"]) -> float:
        """The certificate of the module's docstring."""
        bound = step.value - 0.5 * sigma * float(np.sum((step.x - x0) ** 2))
        for part, x, previous in zip(self.constraints.sets, step.x, x0, strict=True):
            e = sigma * (x - previous)
            bound -= float(e @ (part.centre - x) + part.radius * np.linalg.norm(e))
        return bound

    def maximise(
        self, y: Float[ndarray, "K m"], sigma: float, x0: Float[ndarray, "K d"], ridge: float
    ) -> _Step:
        """Semismooth Newton from ``y``; ``ridge`` is added to the Hessian, in relative units."""
        ceiling, domain = self.ceiling(sigma, x0), self.constraints.sets[0].domain
        x = np.empty_like(self.c)
        multipliers, value, violation, evaluations = maximise(
            self.constraints.G, self.c, self.g, self.s, domain.lower, domain.upper, domain.integer,
            sigma, x0, (tuple(y[0].tolist()), tuple(y[-1].tolist())), self.constraints.below,
            self.constraints.above, self.constraints.scales, ridge, ceiling, _FEASIBILITY, _PASSES,
            x, self.residual,
        )  # fmt: skip
        self.evaluations[0] += evaluations
        if value > ceiling * (1.0 + 1e-9):
            raise EmptySetError(
                f"{self.name} problem: the feasible set is empty (its dual exceeds {ceiling:.1e}, "
                "the most the objective can be); widen the radius, slab or cap"
            )
        return _Step(x, np.array(multipliers)[: len(y)], value, violation)
