"""Multi-task relationship learning (MTRL): the lower level of Zhao et al. 2018, Eq. (1).

m linear models w_i, one per task, learned together with the covariance Ω of the tasks:

    min_{W, Ω} Σ_ij weight_ij ℓ(w_i·x_ij, y_ij) + λ1/2 ‖W‖_F² + λ2/2 tr(Wᵀ Ω⁻¹ W),
    Ω ⪰ 0, tr Ω = 1,

with w_i in row i of W (m, d), the transpose of the paper's. For fixed W the best Ω is
(WWᵀ)^{1/2}/tr (WWᵀ)^{1/2}, at which the last term is λ2/2 ‖W‖_*²: without Ω the problem is

    min_W F(W) = Σ_ij weight_ij ℓ(w_i·x_ij, y_ij) + λ1/2 ‖W‖_F² + λ2/2 ‖W‖_*²,

λ1-strongly convex, with one solution.

Everything here takes NumPy arrays or torch tensors with any leading batch dimensions, one problem
or many at once, and works on the device and in the precision of the arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning.errors import SolverError
from poisoning.models.mtrl_kernels import minimise

Array: TypeAlias = Any
"""``numpy.ndarray`` or ``torch.Tensor``: not named, for torch takes seconds to import."""

Loss = Literal["square", "hinge"]
"""(y − w·x)², or the squared hinge max(0, 1 − y w·x)² with y = ±1."""

_NEWTON_STEPS = 100
_FIRST_GOAL = 1e-2  # residual of the first quadratic of a hinge: its rows may be the wrong ones
_CROSSING = 0.1  # residual of the next, relative to the gradient of the rows that crossed
_ROUNDING = 1e-13  # of F: not counted as a rise
_TINY = 1e-18  # least singular value in a quotient: what it is the quotient of is then zero


@dataclass(frozen=True)
class TaskData:
    """m tasks, padded to n rows each.

    ``X`` (*b, m, n, d) are the features, the last of them the constant 1: the bias, regularised
    like every weight, as in Eq. (1). ``y`` (*b, m, n) are the labels; ``weight`` (*b, m, n) is
    1/n_i on the n_i rows of task i and 0 on padding.
    """

    X: Float[Array, "*b m n d"]
    y: Float[Array, "*b m n"]
    weight: Float[Array, "*b m n"]

    @classmethod
    def from_tasks(
        cls, X: Sequence[Float[ndarray, "_ d"]], y: Sequence[Float[ndarray, "_"]]
    ) -> "TaskData":
        """Tasks of different sizes, an array each, padded with zeros to the largest."""
        sizes = [len(labels) for labels in y]
        features = np.zeros((len(sizes), max(sizes), X[0].shape[1]))
        labels, weight = np.zeros((2, *features.shape[:2]))
        for i, n in enumerate(sizes):
            features[i, :n], labels[i, :n], weight[i, :n] = X[i], y[i], 1.0 / n
        return cls(features, labels, weight)


@dataclass(frozen=True)
class MTRLSolution:
    """The minimiser ``W``, ``objective`` F(W), the certified ``residual``, and ``iterations``."""

    W: Float[Array, "*b m d"]
    objective: Float[Array, "*b"]
    residual: Float[Array, "*b"]
    iterations: Int[Array, "*b"]


def solve_mtrl(
    data: TaskData,
    loss: Loss,
    lambda1: float,
    lambda2: float,
    *,
    tol: float = 1e-6,
    start: Float[Array, "*b m d"] | None = None,
    max_iterations: int = 10_000,
) -> MTRLSolution:
    """min_W F(W), the module's objective, for λ1 > 0 and λ2 ≥ 0; ``start`` is a W to begin from.

    For the square loss F is a quadratic plus λ2/2 ‖W‖_*². For the hinge it is one as long as no
    margin y w·x crosses 1: Newton's method solves such problems one after the other, each with the
    rows whose margin is below 1 at the W before, until they are the right rows; a step that raises
    F is halved. Each quadratic goes by accelerated proximal gradient in the d × d Gram matrices of
    the tasks, so that a step costs the same whatever the number of rows: step size 1/L, the
    constant momentum of a λ1-strongly convex function, a restart where it points uphill. Every
    problem of a batch has its own L, restarts and end: it is solved as if it were alone.

    What ends it is ``residual`` ≤ ``tol``, a bound on the distance of 0 from the subdifferential
    ∂F(W), relative to the length of the loss's gradient at W = 0: L‖Y − W‖_F, Y being the point
    whose proximal step is W, plus the gradient of the rows whose margin crossed 1. With
    r = residual · ‖∇loss(0)‖_F,

        dist(0, ∂F(W)) ≤ r,    ‖W − W*‖_F ≤ r/λ1,    F(W) − F(W*) ≤ r²/(2 λ1).

    Raises:
        ValueError: λ1 is not positive, or λ2 is negative.
        SolverError: a residual stays above ``tol``, after ``max_iterations`` proximal steps on one
            quadratic or after 100 Newton steps.
    """
    if lambda1 <= 0.0 or lambda2 < 0.0:
        raise ValueError(f"lambda1 = {lambda1:g} must be positive, lambda2 = {lambda2:g} not less.")
    xp = array_namespace(data.X)
    batch = data.X.shape[:-3]
    data = TaskData(
        *(xp.reshape(a, (-1, *a.shape[len(batch) :])) for a in (data.X, data.y, data.weight))
    )
    scale = 2.0 * _norm(combine(data.weight * data.y, data.X))  # ‖∇loss(0)‖, of either loss
    scale = xp.where(scale > 0.0, scale, 1.0)
    W = xp.zeros_like(data.X[..., 0, :])
    W = W if start is None else xp.reshape(start, W.shape)
    if loss == "square":
        quadratic = _Quadratic.of(data, data.weight, lambda1)
        W, nuclear, gap, steps = _minimise(quadratic, lambda2, W, tol * scale, max_iterations)
    else:
        W, nuclear, gap, steps = _newton(data, lambda1, lambda2, W, tol, scale, max_iterations)
    value = _value(data, loss, lambda1, lambda2, W, task_scores(data.X, W), nuclear)
    return MTRLSolution(
        xp.reshape(W, (*batch, *W.shape[1:])),
        *(xp.reshape(a, batch) for a in (value, gap / scale, steps)),
    )


def objective(
    data: TaskData, loss: Loss, lambda1: float, lambda2: float, W: Float[Array, "*b m d"]
) -> Float[Array, "*b"]:
    """F(W), the module's objective."""
    xp = array_namespace(W)
    nuclear = xp.sum(xp.linalg.svdvals(W), axis=-1)
    return _value(data, loss, lambda1, lambda2, W, task_scores(data.X, W), nuclear)


def prox(
    Z: Float[Array, "*b m d"], c: Float[Array, "*b"]
) -> tuple[Float[Array, "*b m d"], Float[Array, "*b"]]:
    """W = argmin ½‖W − Z‖_F² + c/2 ‖W‖_*², and ‖W‖_*.

    Singular values a_1 ≥ a_2 ≥ … become max(a_k − τ, 0), where τ is the largest of
    τ_K = c Σ_{k≤K} a_k/(1 + cK): these rise as long as a_K > τ_K. The a_k are those of the Gram
    matrix of the shorter side, and one that survives is off by no more than about 1e-16 a_1/c.
    """
    W, kept = _shrink(Z, _thresholds(c, min(Z.shape[-2:])))
    return W, array_namespace(Z).sum(kept, axis=-1)


def task_scores(X: Float[Array, "*b m n d"], W: Float[Array, "*b m d"]) -> Float[Array, "*b m n"]:
    """w_i·x_ij."""
    return (X @ W[..., None])[..., 0]


def combine(
    coefficients: Float[Array, "*b m n"], X: Float[Array, "*b m n d"]
) -> Float[Array, "*b m d"]:
    """Σ_j coefficient_ij x_ij: for every task, a row times its matrix."""
    return (coefficients[..., None, :] @ X)[..., 0, :]


def loss_values(
    scores: Float[Array, "*s"], y: Float[Array, "*s"], loss: Loss
) -> Float[Array, "*s"]:
    """ℓ for every score."""
    if loss == "square":
        return (y - scores) ** 2
    return array_namespace(scores).maximum(1.0 - y * scores, 0.0) ** 2


def loss_slopes(
    scores: Float[Array, "*s"], y: Float[Array, "*s"], loss: Loss
) -> Float[Array, "*s"]:
    """dℓ/d score for every score."""
    if loss == "square":
        return 2.0 * (scores - y)
    return -2.0 * y * array_namespace(scores).maximum(1.0 - y * scores, 0.0)


def loss_curvatures(
    scores: Float[Array, "*s"], y: Float[Array, "*s"], loss: Loss
) -> Float[Array, "*s"]:
    """d²ℓ/d score² for every score; at the squared hinge's kink 0."""
    xp = array_namespace(scores)
    if loss == "square":
        return xp.full_like(scores, 2.0)
    return 2.0 * xp.astype(y * scores < 1.0, scores.dtype)


def relationship(W: Float[Array, "*b m d"]) -> Float[Array, "*b m m"]:
    """Ω = (WWᵀ)^{1/2}/tr (WWᵀ)^{1/2}, which solves Eq. (1) for this W; I/m where W = 0."""
    xp = array_namespace(W)
    U, s, _ = xp.linalg.svd(W, full_matrices=False)
    total = xp.sum(s, axis=-1)[..., None, None]
    Omega = (U * s[..., None, :]) @ U.mT / xp.where(total > 0.0, total, 1.0)
    return xp.where(total > 0.0, Omega, _identity(Omega) / W.shape[-2])


def correlations(Omega: Float[Array, "*b m m"]) -> Float[Array, "*b m m"]:
    """Ω_ij/√(Ω_ii Ω_jj), with 1 on the diagonal.

    A task whose variance is zero up to rounding (w_i = 0) has correlation 0 with all others: what
    is 0/0 counts as unrelated.
    """
    xp = array_namespace(Omega)
    variance = xp.linalg.diagonal(Omega)
    negligible = variance <= xp.finfo(Omega.dtype).eps * xp.max(variance, axis=-1, keepdims=True)
    scale = xp.where(negligible, 0.0, xp.where(negligible, 1.0, variance) ** -0.5)
    one = _identity(Omega)
    return (1.0 - one) * xp.clip(scale[..., None] * Omega * scale[..., None, :], -1.0, 1.0) + one


def phi(Omega: Float[Array, "*b m m"], lambda1: float, lambda2: float) -> Float[Array, "*b m m"]:
    """Φ = Ω(λ1 Ω + λ2 I)⁻¹ of Eq. (12), for λ2 > 0; Ω may be singular."""
    xp = array_namespace(Omega)
    Phi = xp.linalg.solve(lambda1 * Omega + lambda2 * _identity(Omega), Omega)
    return (Phi + Phi.mT) / 2.0


def _newton(
    data: TaskData,
    lambda1: float,
    lambda2: float,
    W: Array,
    tol: float,
    scale: Array,
    max_iterations: int,
) -> tuple[Array, Array, Array, Array]:
    """The squared hinge, one quadratic after the other: what ``_minimise`` returns."""
    xp = array_namespace(W)
    places, steps = xp.arange(len(W), device=W.device), xp.zeros_like(scale, dtype=xp.int64)
    answer, nuclear, gap = 0.0 * W, 0.0 * scale, 0.0 * scale
    F, goal = xp.full_like(scale, xp.inf), max(tol / 2.0, _FIRST_GOAL) * scale
    curved, quadratic = None, None
    for _ in range(_NEWTON_STEPS):
        below = _below_margin(data, task_scores(data.X, W))
        if quadratic is None or xp.any(below != curved):
            curved, quadratic = below, _Quadratic.of(data, below, lambda1)
        new, sums, distance, taken = _minimise(quadratic, lambda2, W, goal, max_iterations)
        steps[places] += taken
        scores = task_scores(data.X, new)
        crossed = (_below_margin(data, scores) - curved) * (scores - data.y)
        crossing = 2.0 * _norm(combine(crossed, data.X))
        distance = distance + crossing
        solved = distance <= tol * scale
        if xp.any(solved):
            at = places[solved]
            answer[at], nuclear[at], gap[at] = new[solved], sums[solved], distance[solved]
            if xp.all(solved):
                return answer, nuclear, gap, steps
            left = ~solved
            data = TaskData(data.X[left], data.y[left], data.weight[left])
            quadratic = None
            places, scale, crossing = places[left], scale[left], crossing[left]
            W, F, new, sums, scores = W[left], F[left], new[left], sums[left], scores[left]
        new_F = _value(data, "hinge", lambda1, lambda2, new, scores, sums)
        while xp.any(worse := new_F > F + _ROUNDING * abs(F)):
            new = xp.where(worse[:, None, None], (W + new) / 2.0, new)
            new_F = objective(data, "hinge", lambda1, lambda2, new)
        W, F = new, new_F
        goal = xp.maximum(_CROSSING * crossing, tol / 2.0 * scale)
    raise SolverError(
        f"MTRL (hinge, W {tuple(answer.shape[1:])}, lambda1 {lambda1:g}, lambda2 {lambda2:g}): "
        f"residual {float(xp.max(distance[~solved] / scale)):.1e}, tolerance {tol:.1e} after "
        f"{_NEWTON_STEPS} Newton steps; raise lambda1 or tol"
    )


def _below_margin(data: TaskData, scores: Array) -> Array:
    """The weight of the rows whose margin is below 1, so that their loss is a square; else 0."""
    return data.weight * (data.y * scores < 1.0)


@dataclass(frozen=True)
class _Quadratic:
    """½⟨W, HW⟩ − ⟨c, W⟩, H acting task by task: b problems, and what solving them needs.

    ``toward`` (b, m, d, d) and ``offset`` (b, m, d) give the gradient step W − (HW − c)/L as
    W·toward + offset; ``momentum`` (b, 1) and ``L`` (b).
    """

    toward: Array
    offset: Array
    momentum: Array
    L: Array

    @classmethod
    def of(cls, data: TaskData, weight: Array, lambda1: float) -> "_Quadratic":
        """Σ_ij weight_ij (y_ij − w_i·x_ij)² + λ1/2 ‖W‖², up to a constant.

        Without λ1, a task has H = 2 Σ_j weight_j x_j x_jᵀ = [[A, b], [bᵀ, h]], whose eigenvalues
        are at most the larger one of [[‖A‖_F, ‖b‖], [‖b‖, h]]: L is the largest of these, and λ1.
        The bias is split off because it makes for the one large eigenvalue, h = 2.
        """
        xp = array_namespace(data.X)
        root = (2.0 * weight) ** 0.5
        rows = data.X * root[..., None]
        H = rows.mT @ rows
        A, b, h = H[..., :-1, :-1], H[..., -1, :-1], H[..., -1, -1]
        size = _norm(A)
        spread = ((size - h) ** 2 + 4.0 * xp.linalg.vecdot(b, b)) ** 0.5
        L = xp.max(size + h + spread, axis=-1)[:, None] / 2.0 + lambda1
        ratio = (lambda1 / L) ** 0.5
        return cls(
            (1.0 - lambda1 / L)[..., None, None] * _identity(H) - H / L[..., None, None],
            combine(root * data.y, rows) / L[..., None],
            (1.0 - ratio) / (1.0 + ratio),
            L[:, 0],
        )


def _minimise(
    model: _Quadratic, lambda2: float, start: Array, goal: Array, max_iterations: int
) -> tuple[Array, Array, Array, Array]:
    """min of the quadratic + λ2/2 ‖W‖_*², from ``start`` until L‖Y − W‖_F ≤ ``goal`` (b).

    Returns W (b, m, d), ‖W‖_* (b), L‖Y − W‖_F (b) and the number of steps (b). With λ1 ≤ H ≤ L
    that is no less than dist(0, ∂F(W)): L(Y − W) − ∇q(Y) is a subgradient of the penalty at W, and
    ‖L(Y − W) − ∇q(Y) + ∇q(W)‖ = ‖(L − H)(Y − W)‖.
    """
    xp = array_namespace(start)
    found = _one_by_one if isinstance(start, ndarray) else _side_by_side
    W, nuclear, gap, steps = found(model, lambda2, start, goal, max_iterations)
    excess = float(xp.max(gap / goal))
    if excess > 1.0:
        raise SolverError(
            f"MTRL (W {tuple(start.shape[1:])}, lambda2 {lambda2:g}): residual {excess:.1e} times "
            f"the tolerance after {max_iterations} proximal steps; raise lambda1, max_iterations "
            "or tol"
        )
    return W, nuclear, gap, steps


def _one_by_one(
    model: _Quadratic, lambda2: float, start: Array, goal: Array, max_iterations: int
) -> tuple[Array, Array, Array, Array]:
    """NumPy's ``_minimise``: compiled, for on arrays this small calls cost more than arithmetic."""
    W, nuclear, gap = np.empty_like(start), np.empty_like(goal), np.empty_like(goal)
    steps = np.empty(len(goal), dtype=np.int64)
    for i in range(len(goal)):
        W[i], nuclear[i], gap[i], steps[i] = minimise(
            np.ascontiguousarray(model.toward[i]), model.offset[i], model.momentum[i, 0],
            model.L[i], start.dtype.type(lambda2) / model.L[i], start.dtype.type(_TINY),
            np.ascontiguousarray(start[i]), goal[i], max_iterations,
        )  # fmt: skip
    return W, nuclear, gap, steps


def _side_by_side(
    model: _Quadratic, lambda2: float, start: Array, goal: Array, max_iterations: int
) -> tuple[Array, Array, Array, Array]:
    """Torch's ``_minimise``: all problems in every call, which is what a GPU wants."""
    xp = array_namespace(start)
    places, steps = xp.arange(len(start), device=start.device), xp.zeros_like(goal, dtype=xp.int64)
    answer, nuclear, gap = 0.0 * start, 0.0 * goal, 0.0 * goal
    toward, offset, momentum, L = model.toward, model.offset, model.momentum, model.L
    thresholds = _thresholds(lambda2 / L, min(start.shape[1:]))
    running = places >= 0
    Y, W = start, xp.reshape(start, (len(start), -1))  # W flat, and what is made of it
    for step in range(1, max_iterations + 1):
        new, kept = _shrink(combine(Y, toward) + offset, thresholds)
        flat = xp.reshape(new, W.shape)
        back, ahead = xp.reshape(Y, W.shape) - flat, flat - W
        distance = L * xp.linalg.vecdot(back, back) ** 0.5
        ready = ((distance <= goal) | (step == max_iterations)) & running
        if ready.any():
            at = places[ready]
            answer[at], nuclear[at] = new[ready], xp.sum(kept[ready], axis=-1)
            gap[at], steps[at] = distance[ready], step
            running = running & ~ready
            if not running.any():
                break
            if 2 * int(running.sum()) <= len(running):  # the others need not be carried along
                toward, offset, momentum, L = (a[running] for a in (toward, offset, momentum, L))
                thresholds, goal, places = (a[running] for a in (thresholds, goal, places))
                W, flat, back, ahead, running = (
                    a[running] for a in (W, flat, back, ahead, running)
                )
        onward = momentum * (xp.linalg.vecdot(back, ahead) <= 0.0)[:, None]
        Y, W = xp.reshape(flat + onward * ahead, offset.shape), flat
    return answer, nuclear, gap, steps


def _thresholds(c: Float[Array, "*b"], size: int) -> Float[Array, "*b k k"]:
    """The matrix that takes singular values in ascending order to (τ_1, τ_2, …) of ``prox``."""
    xp = array_namespace(c)
    counts = xp.arange(1, size + 1, device=c.device)
    largest = xp.astype(counts[:, None] > size - counts, c.dtype)
    return largest * (c[..., None] / (1.0 + c[..., None] * counts))[..., None, :]


def _shrink(Z: Array, thresholds: Array) -> tuple[Array, Array]:
    """The minimiser of ``prox``, prepared by ``_thresholds``, and its singular values."""
    xp = array_namespace(Z)
    wide = Z.shape[-2] <= Z.shape[-1]
    squares, V = xp.linalg.eigh(Z @ Z.mT if wide else Z.mT @ Z)
    a = xp.maximum(squares, _TINY**2) ** 0.5
    kept = xp.maximum(a - xp.max(a[..., None, :] @ thresholds, axis=-1), 0.0)
    P = (V * (kept / a)[..., None, :]) @ V.mT
    return (P @ Z if wide else Z @ P), kept


def _value(
    data: TaskData,
    loss: Loss,
    lambda1: float,
    lambda2: float,
    W: Array,
    scores: Array,
    nuclear: Array,
) -> Array:
    """F(W), for the ``scores`` and the ``nuclear`` norm of W."""
    xp = array_namespace(W)
    losses = xp.sum(data.weight * loss_values(scores, data.y, loss), axis=(-2, -1))
    return losses + lambda1 / 2.0 * _norm(W) ** 2 + lambda2 / 2.0 * nuclear**2


def _norm(W: Array) -> Array:
    """‖W‖_F, problem by problem."""
    return array_namespace(W).linalg.matrix_norm(W)


def _identity(like: Array) -> Array:
    """I, of the size, precision and device of a square matrix."""
    xp = array_namespace(like)
    return xp.eye(like.shape[-1], dtype=like.dtype, device=like.device)
