"""Multi-task relationship learning (MTRL): the lower level of Zhao et al. 2018, Eq. (1).

m linear models w_i, one per task, are learned together with the covariance Ω of the tasks:

    min_{W, Ω} Σ_ij weight_ij ℓ(w_i·x_ij, y_ij) + λ1/2 ‖W‖_F² + λ2/2 tr(Wᵀ Ω⁻¹ W),
    Ω ⪰ 0, tr Ω = 1,

where w_i is row i of W (m, d), the transpose of the paper's W. For fixed W the best Ω is
(WWᵀ)^{1/2}/tr (WWᵀ)^{1/2}, and with it the last term is λ2/2 ‖W‖_*². So the problem without Ω is

    min_W F(W) = Σ_ij weight_ij ℓ(w_i·x_ij, y_ij) + λ1/2 ‖W‖_F² + λ2/2 ‖W‖_*².

F is λ1-strongly convex and has one minimiser.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.errors import SolverError
from poisoning.models.mtrl_kernels import add_rows, distance_from_gradient, losses, minimise

Loss = Literal["square", "hinge"]
"""(y − w·x)², or the squared hinge max(0, 1 − y w·x)² with y = ±1."""

_NEWTON_STEPS = 100
_FIRST_GOAL = 1e-2  # residual of a hinge's first quadratic, whose rows may be the wrong ones
_CROSSING = 0.1  # residual of the next, relative to the gradient of the rows that crossed
_ROUNDING = 1e-13  # of F: not counted as a rise


@dataclass(frozen=True)
class TaskData:
    """m tasks, padded to n rows each.

    ``X`` (m, n, d) are the features, the last of them the constant 1: its weight is the bias, which
    is regularised like every weight, as in Eq. (1). ``y`` (m, n) are the labels; ``weight`` (m, n)
    is 1/n_i on the n_i rows of task i and 0 on padding.

    Raises ``ValueError`` or ``TypeError`` for arrays that do not fit together, are not finite, or
    weights below 0.
    """

    X: Float[ndarray, "m n d"]
    y: Float[ndarray, "m n"]
    weight: Float[ndarray, "m n"]

    def __post_init__(self) -> None:
        X = checks.array(self.X, "X", (None, None, None))
        if not X.size:
            raise ValueError(f"X must have tasks, rows and columns, its shape is {X.shape}.")
        y = checks.array(self.y, "y", X.shape[:2])
        weight = checks.array(self.weight, "weight", X.shape[:2])
        if weight.min() < 0.0:
            raise ValueError(f"weight must be at least 0, it holds {weight.min():g}.")
        for name, values in (("X", X), ("y", y), ("weight", weight)):
            object.__setattr__(self, name, values)

    @classmethod
    def of_checked(
        cls,
        X: Float[ndarray, "m n d"],
        y: Float[ndarray, "m n"],
        weight: Float[ndarray, "m n"],
        moments: tuple[Float[ndarray, "m d d"], Float[ndarray, "m d"]] | None = None,
    ) -> "TaskData":
        """Arrays made from those of objects that were checked when they were made.

        ``moments``, where they are known, are the property's.
        """
        data = object.__new__(cls)
        for name, values in (("X", X), ("y", y), ("weight", weight)):
            object.__setattr__(data, name, values)
        if moments is not None:
            object.__setattr__(data, "moments", moments)
        return data

    @cached_property
    def moments(self) -> tuple[Float[ndarray, "m d d"], Float[ndarray, "m d"]]:
        """H_i = 2 Σ_j weight_ij x_ij x_ijᵀ and c_i = 2 Σ_j weight_ij y_ij x_ij.

        The square loss is ½⟨W, HW⟩ − ⟨c, W⟩ up to a constant, and so is the squared hinge where all
        rows are within their margin.
        """
        root = np.sqrt(2.0 * self.weight)
        rows = self.X * root[..., None]
        return rows.mT @ rows, combine(root * self.y, rows)

    @classmethod
    def from_tasks(
        cls, X: Sequence[Float[ndarray, "_ d"]], y: Sequence[Float[ndarray, "_"]]
    ) -> "TaskData":
        """Tasks of different sizes, an array each, padded with zeros to the largest."""
        if not len(X) or len(X) != len(y):
            raise ValueError(
                f"X and y must hold an array for every task, they hold {len(X)} and {len(y)}."
            )
        X = [checks.array(part, f"X[{i}]", (None, None)) for i, part in enumerate(X)]
        y = [checks.vector(part, f"y[{i}]", len(X[i])) for i, part in enumerate(y)]
        for i, part in enumerate(X):
            if not part.size or part.shape[1] != X[0].shape[1]:
                raise ValueError(
                    f"X[{i}] must have rows and {X[0].shape[1]} columns, its shape is {part.shape}."
                )
        sizes = [len(labels) for labels in y]
        features = np.zeros((len(sizes), max(sizes), X[0].shape[1]))
        labels, weight = np.zeros((2, *features.shape[:2]))
        for i, n in enumerate(sizes):
            features[i, :n], labels[i, :n], weight[i, :n] = X[i], y[i], 1.0 / n
        return cls(features, labels, weight)

    @classmethod
    def of(cls, draw: MultiTaskDraw) -> "TaskData":
        """The training sets of a draw."""
        return cls(draw.X, draw.y, draw.weight)


@dataclass(frozen=True)
class MTRLSolution:
    """The minimiser ``W`` (m, d) and its certificate.

    ``objective`` is F(W), ``residual`` the bound that :func:`solve_mtrl` states, ``iterations`` the
    number of proximal steps.
    """

    W: Float[ndarray, "m d"]
    objective: float
    residual: float
    iterations: int


def solve_mtrl(
    data: TaskData,
    loss: Loss,
    lambda1: float,
    lambda2: float,
    *,
    tol: float = 1e-6,
    start: Float[ndarray, "m d"] | None = None,
    max_iterations: int = 10_000,
) -> MTRLSolution:
    """min_W F(W), the module's objective, for λ1 > 0 and λ2 ≥ 0; ``start`` is a W to begin from.

    For the square loss F is a quadratic plus λ2/2 ‖W‖_*². For the hinge F has this form as long as
    no margin y w·x crosses 1: Newton's method solves such problems one after the other, each with
    the rows whose margin is below 1 at the previous W, until these rows stay the same; a step that
    raises F is halved. Each quadratic is minimised by accelerated proximal gradient in the d × d
    Gram matrices of the tasks, so that a step costs the same whatever the number of rows: step size
    1/L, the constant momentum of a λ1-strongly convex function, a restart where the momentum points
    uphill.

    The iteration ends at ``residual`` ≤ ``tol``, a bound on the distance of 0 from the
    subdifferential ∂F(W), relative to the length of the loss's gradient at W = 0: L‖Y − W‖_F, Y
    being the point whose proximal step is W, plus the gradient of the rows whose margin crossed 1.
    With r = residual · ‖∇loss(0)‖_F,

        dist(0, ∂F(W)) ≤ r,    ‖W − W*‖_F ≤ r/λ1,    F(W) − F(W*) ≤ r²/(2 λ1).

    Raises:
        ValueError: λ1 is not positive, or λ2 is negative, or another argument is invalid.
        TypeError: ``data`` is no :class:`TaskData`, or ``start`` no array.
        SolverError: the residual stays above ``tol``, after ``max_iterations`` proximal steps on
            one quadratic or after 100 Newton steps.
    """
    m, _, d = checks.instance(data, "data", TaskData).X.shape
    loss = checks.one_of(loss, "loss", get_args(Loss))
    lambda1 = checks.positive(lambda1, "lambda1")
    lambda2 = checks.positive(lambda2, "lambda2", zero=True)
    tol = checks.positive(tol, "tol")
    max_iterations = checks.whole(max_iterations, "max_iterations")
    start = None if start is None else checks.array(start, "start", (m, d))
    if loss == "hinge":
        strange = data.y[(data.weight > 0.0) & (np.abs(data.y) != 1.0)]
        if strange.size:
            raise ValueError(f"y of data must be -1 and +1 for the hinge, it holds {strange[0]:g}.")
    H, c = data.moments
    scale = _norm(c)  # ‖∇loss(0)‖, of either loss
    scale = scale if scale > 0.0 else 1.0
    W = np.zeros_like(c) if start is None else start
    if loss == "square":
        W, nuclear, gap, steps = _minimise(H, c, lambda1, lambda2, W, tol * scale, max_iterations)
        value, _, _ = losses(data.X, data.y, data.weight, W, False)
        value = _value(value, lambda1, lambda2, W, nuclear)
    else:
        W, value, gap, steps = _newton(data, lambda1, lambda2, W, tol, scale, max_iterations)
    return MTRLSolution(W, value, float(gap / scale), steps)


def objective(
    data: TaskData, loss: Loss, lambda1: float, lambda2: float, W: Float[ndarray, "m d"]
) -> float:
    """F(W), the module's objective."""
    m, _, d = checks.instance(data, "data", TaskData).X.shape
    W = checks.array(W, "W", (m, d))
    checks.one_of(loss, "loss", get_args(Loss))
    nuclear = float(np.sum(np.linalg.svd(W, compute_uv=False)))
    value, _, _ = losses(data.X, data.y, data.weight, W, loss == "hinge")
    return _value(value, lambda1, lambda2, W, nuclear)


def task_scores(X: Float[ndarray, "m n d"], W: Float[ndarray, "m d"]) -> Float[ndarray, "m n"]:
    """w_i·x_ij."""
    return (X @ W[..., None])[..., 0]


def combine(
    coefficients: Float[ndarray, "m n"], X: Float[ndarray, "m n d"]
) -> Float[ndarray, "m d"]:
    """Σ_j coefficient_ij x_ij: for every task, a row times its matrix."""
    return (coefficients[..., None, :] @ X)[..., 0, :]


def loss_values(
    scores: Float[ndarray, "*s"], y: Float[ndarray, "*s"], loss: Loss
) -> Float[ndarray, "*s"]:
    """ℓ for every score; raises ``ValueError`` for another loss."""
    checks.one_of(loss, "loss", get_args(Loss))
    if loss == "square":
        return (y - scores) ** 2
    return np.maximum(1.0 - y * scores, 0.0) ** 2


def loss_slopes(
    scores: Float[ndarray, "*s"], y: Float[ndarray, "*s"], loss: Loss
) -> Float[ndarray, "*s"]:
    """dℓ/d score for every score; raises ``ValueError`` for another loss."""
    checks.one_of(loss, "loss", get_args(Loss))
    if loss == "square":
        return 2.0 * (scores - y)
    return -2.0 * y * np.maximum(1.0 - y * scores, 0.0)


def loss_curvatures(
    scores: Float[ndarray, "*s"], y: Float[ndarray, "*s"], loss: Loss
) -> Float[ndarray, "*s"]:
    """d²ℓ/d score² for every score; at the squared hinge's kink 0.

    Raises ``ValueError`` for another loss.
    """
    checks.one_of(loss, "loss", get_args(Loss))
    if loss == "square":
        return np.full_like(scores, 2.0)
    return 2.0 * (y * scores < 1.0)


def relationship(W: Float[ndarray, "m d"]) -> Float[ndarray, "m m"]:
    """Ω = (WWᵀ)^{1/2}/tr (WWᵀ)^{1/2}, which solves Eq. (1) for this W; I/m where W = 0."""
    W = checks.rectangle(W, "W")
    U, s, _ = np.linalg.svd(W, full_matrices=False)
    total = np.sum(s)
    if not total > 0.0:
        return np.eye(len(W)) / len(W)
    return (U * s) @ U.T / total


def correlations(Omega: Float[ndarray, "m m"]) -> Float[ndarray, "m m"]:
    """Ω_ij/√(Ω_ii Ω_jj), with 1 on the diagonal.

    A task whose variance is zero up to rounding (w_i = 0) has correlation 0 with all others: 0/0
    counts as 0.
    """
    Omega = checks.square(Omega, "Omega")
    variance = np.diagonal(Omega)
    negligible = variance <= np.finfo(Omega.dtype).eps * np.max(variance)
    scale = np.where(negligible, 0.0, np.where(negligible, 1.0, variance) ** -0.5)
    one = np.eye(len(Omega))
    return (1.0 - one) * np.clip(scale[:, None] * Omega * scale, -1.0, 1.0) + one


def phi(Omega: Float[ndarray, "m m"], lambda1: float, lambda2: float) -> Float[ndarray, "m m"]:
    """Φ = Ω(λ1 Ω + λ2 I)⁻¹ of Eq. (12), for λ2 > 0; Ω may be singular."""
    Omega = checks.square(Omega, "Omega")
    lambda1 = checks.positive(lambda1, "lambda1", zero=True)
    lambda2 = checks.positive(lambda2, "lambda2")
    Phi = np.linalg.solve(lambda1 * Omega + lambda2 * np.eye(len(Omega)), Omega)
    return (Phi + Phi.T) / 2.0


def _newton(
    data: TaskData,
    lambda1: float,
    lambda2: float,
    W: ndarray,
    tol: float,
    scale: float,
    max_iterations: int,
) -> tuple[ndarray, float, float, int]:
    """The squared hinge, one quadratic after the other: W, F(W), the residual and the steps."""
    steps = 0
    F, goal = np.inf, max(tol / 2.0, _FIRST_GOAL) * scale
    _, _, curved = losses(data.X, data.y, data.weight, W, True)
    H, c = (part.copy() for part in data.moments)
    add_rows(H, c, data.X, data.y, curved - data.weight)
    for _ in range(_NEWTON_STEPS):
        new, nuclear, distance, taken = _minimise(H, c, lambda1, lambda2, W, goal, max_iterations)
        steps += taken
        value, gradient, below = losses(data.X, data.y, data.weight, new, True)
        # The quadratic's gradient has the rows below the margin at W, the loss's those at ``new``.
        crossing = distance_from_gradient(H, c, new, gradient)
        distance += crossing
        new_F = _value(value, lambda1, lambda2, new, nuclear)
        if distance <= tol * scale:
            return new, new_F, distance, steps
        while new_F > F + _ROUNDING * abs(F):
            new = (W + new) / 2.0
            new_F = objective(data, "hinge", lambda1, lambda2, new)
            _, _, below = losses(data.X, data.y, data.weight, new, True)
        W, F = new, new_F
        add_rows(H, c, data.X, data.y, below - curved)
        curved = below
        goal = max(_CROSSING * crossing, tol / 2.0 * scale)
    raise SolverError(
        f"MTRL (hinge, W {W.shape}, lambda1 {lambda1:g}, lambda2 {lambda2:g}): residual "
        f"{distance / scale:.1e}, tolerance {tol:.1e} after {_NEWTON_STEPS} Newton steps; raise "
        "lambda1 or tol"
    )


def _minimise(
    H: ndarray,
    c: ndarray,
    lambda1: float,
    lambda2: float,
    start: ndarray,
    goal: float,
    max_iterations: int,
) -> tuple[ndarray, float, float, int]:
    """min ½⟨W, HW⟩ − ⟨c, W⟩ + λ1/2 ‖W‖_F² + λ2/2 ‖W‖_*², to L‖Y − W‖_F ≤ ``goal``.

    Returns W (m, d), ‖W‖_*, L‖Y − W‖_F and the number of steps. With H + λ1 ≤ L that is no less
    than dist(0, ∂F(W)): L(Y − W) − ∇q(Y), for the smooth part q, is a subgradient of the rest at W,
    and ‖L(Y − W) − ∇q(Y) + ∇q(W)‖ = ‖(L − λ1 − H)(Y − W)‖.
    """
    W, nuclear, gap, steps = minimise(H, c, lambda1, lambda2, start, goal, max_iterations)
    if not gap <= goal:
        raise SolverError(
            f"MTRL (W {start.shape}, lambda2 {lambda2:g}): residual {gap / goal:.1e} times the "
            f"tolerance after {max_iterations} proximal steps; raise lambda1, max_iterations or tol"
        )
    return W, nuclear, gap, steps


def _value(loss: float, lambda1: float, lambda2: float, W: ndarray, nuclear: float) -> float:
    """F(W), for the loss and the ``nuclear`` norm of W."""
    size = _norm(W)
    return float(loss + lambda1 / 2.0 * (size * size) + lambda2 / 2.0 * (nuclear * nuclear))


def _norm(W: ndarray) -> float:
    """‖W‖_F."""
    return float(np.linalg.norm(W))
