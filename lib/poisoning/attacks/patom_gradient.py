"""How an attacker's utility changes with poisoned examples of several tasks: three gradients.

Zhao et al. 2018, "Gradients Computation". The learner's W(x̂) minimises F of
:mod:`poisoning.models.mtrl`, poisoned examples included; the attacker's utility is U(W), v = ∂U/∂W.
For a poisoned example x̂ of task i with label ŷ and weight c = 1/(n_i + n̂_i),

    ∂U/∂x̂ = −∂⟨u, ∇F(W; x̂)⟩/∂x̂ = −c [ℓ'(w_i·x̂, ŷ) u_i + ℓ''(w_i·x̂, ŷ) (u_i·x̂) w_i],   H u = v,

with H the Hessian of F: of its losses, A, and of its regulariser, R. Three choices of H:

- "paper", Eq. (15) and (16): Ω and the multipliers α = −c ℓ' are constants. This leaves out A, and
  the second term of the bracket: u = Φᵀv with Φ = Ω(λ1 Ω + λ2 I)⁻¹. It is the derivative of
  Eq. (13) for constant α. The learner's α depends on x̂, so this is not the derivative of what the
  learner does. The squared hinge is max(0, ·)² here; Eq. (16) leaves the maximum out.
- "fixed": Ω is a constant, α is not. The exact derivative for a learner who keeps Ω and minimises
  Eq. (8): R = λ1 I + λ2 Ω⁻¹ on the range of Ω, outside of which W is zero.
- "total": Ω follows W. The exact derivative for the learner of Eq. (1): R is the second derivative
  of λ1/2 ‖W‖_F² + λ2/2 ‖W‖_*² along the matrices of W's rank. It exists where no singular value
  of ∇loss equals the threshold (then a small change of x̂ keeps the rank) and, for the squared
  hinge, no margin is exactly 1.

In the basis of the SVD W = L diag(s) Rᵀ, the Hessian R is diagonal up to a coupling of C_ab with
C_ba and a term of rank one. By optimality −∇loss = L diag(g + λ1 s) Rᵀ, where g_a = τ := λ2 ‖W‖_*
if s_a > 0 and g_a ≤ τ if s_a = 0. R takes the tangent matrix C (C_ab = 0 where s_a = s_b = 0) to

    λ1 C_ab + (τ C_ab − min(g_a, g_b) C_ba)/(s_a + s_b) + λ2 δ_ab Σ_c C_cc.

Where W has rank r there are r(m + d − r) unknowns. Up to 300 unknowns, H is factorised. For more, H
is applied and never formed, in conjugate gradients with R plus the diagonal of A as preconditioner.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from poisoning import checks
from poisoning.errors import SolverError
from poisoning.models.mtrl import (
    Loss,
    TaskData,
    combine,
    loss_curvatures,
    loss_slopes,
    prox,
    task_scores,
)

_FEW = 300
"""Unknowns up to which the system is factorised. Up to here factorising costs at most twice as much
as conjugate gradients in their best case, large λ, and a tenth where λ is small."""

Method = Literal["paper", "fixed", "total"]


def attack_gradient(
    train: TaskData,
    poisoned: int,
    W: Float[ndarray, "m d"],
    v: Float[ndarray, "m d"],
    loss: Loss,
    lambda1: float,
    lambda2: float,
    method: Method = "total",
    *,
    tol: float = 1e-9,
    max_iterations: int = 10_000,
) -> Float[ndarray, "m k f"]:
    """∂U/∂x̂ for the last k = ``poisoned`` rows of every task, f = d − 1: the bias is no variable.

    ``train`` holds clean and poisoned rows together, ``W`` the weights learned from them, ``v`` is
    ∂U/∂W there. Rows of weight 0 have gradient 0. ``tol`` is the relative residual at which
    conjugate gradients, if used, stop; the error of ``W`` adds its own.

    Raises ``SolverError`` if they do not reach it in ``max_iterations``, ``ValueError`` or
    ``TypeError`` for an invalid argument.
    """
    m, n, d = checks.instance(train, "train", TaskData).X.shape
    poisoned = checks.whole(poisoned, "poisoned", 1, n)
    W, v = checks.array(W, "W", (m, d)), checks.array(v, "v", (m, d))
    checks.one_of(loss, "loss", get_args(Loss))
    checks.one_of(method, "method", get_args(Method))
    lambda1 = checks.positive(lambda1, "lambda1")
    lambda2 = checks.positive(lambda2, "lambda2", zero=True)
    tol = checks.positive(tol, "tol")
    max_iterations = checks.whole(max_iterations, "max_iterations")
    frame = _Frame.of(train, W, loss, lambda1, lambda2)
    target = frame.coordinates(v)
    if method == "total":
        regulariser = _Regulariser.following(frame, lambda1, lambda2)
    else:
        regulariser = _Regulariser.frozen(frame, lambda1)
    if method == "paper":
        C = regulariser.inverse(0.0)(regulariser.project(target))
    else:
        hessians = _loss_hessians(train, W, loss)
        if regulariser.unknowns() <= _FEW:
            C = _by_factorising(hessians, frame, regulariser, target)
        else:
            C = _by_conjugate_gradients(hessians, frame, regulariser, target, tol, max_iterations)
    u = frame.matrix(C)

    rows = slice(train.X.shape[1] - poisoned, None)
    X, y, weight = train.X[:, rows], train.y[:, rows], train.weight[:, rows]
    scores = task_scores(X, W)
    along = (weight * loss_slopes(scores, y, loss))[..., None] * u[:, None, :-1]
    if method != "paper":
        bend = weight * loss_curvatures(scores, y, loss) * task_scores(X, u)
        along = along + bend[..., None] * W[:, None, :-1]
    return -along


@dataclass(frozen=True)
class _Frame:
    """W = left diag(s) rightᵀ with square orthogonal factors, and g and τ of the module's head.

    Both are read off W − η∇(F's smooth part), whose proximal map is W. So s has exact zeros, and
    the part of the gradient normal to W is diagonal in this frame too.
    """

    left: Float[ndarray, "m m"]
    right: Float[ndarray, "d d"]
    s: Float[ndarray, "k"]
    g: Float[ndarray, "k"]
    tau: float

    @classmethod
    def of(
        cls, train: TaskData, W: Float[ndarray, "m d"], loss: Loss, lambda1: float, lambda2: float
    ) -> "_Frame":
        slopes = train.weight * loss_slopes(task_scores(train.X, W), train.y, loss)
        gradient = combine(slopes, train.X) + lambda1 * W
        # Any η > 0 will do; one over a bound on the curvature balances W and its gradient.
        norms = np.sum(train.weight * np.linalg.vecdot(train.X, train.X), axis=-1)
        eta = 1.0 / (2.0 * float(np.max(norms)) + lambda1)
        aim = W - eta * gradient
        left, values, right = np.linalg.svd(aim, full_matrices=True)
        tau = lambda2 * prox(aim, lambda2 * eta)[1]
        threshold = eta * tau
        s = np.maximum(values - threshold, 0.0)
        return cls(left, right.T, s, np.minimum(values, threshold) / eta, tau)

    def coordinates(self, matrix: Float[ndarray, "m d"]) -> Float[ndarray, "m d"]:
        """leftᵀ · matrix · right."""
        return self.left.T @ matrix @ self.right

    def matrix(self, C: Float[ndarray, "m d"]) -> Float[ndarray, "m d"]:
        """left · C · rightᵀ."""
        return self.left @ C @ self.right.T


@dataclass(frozen=True)
class _Regulariser:
    """R in W's frame: C ↦ stiffness∘C − swap∘Cᵀ + ⟨together, C⟩ together, on the entries ``free``.

    ``swap`` concerns the leading k × k block, k = min(m, d), and is symmetric, as is ``stiffness``
    there. All are 0 where an entry is not free.
    """

    free: Bool[ndarray, "m d"]
    stiffness: Float[ndarray, "m d"]
    swap: Float[ndarray, "k k"]
    together: Float[ndarray, "m d"]

    @classmethod
    def following(cls, frame: _Frame, lambda1: float, lambda2: float) -> "_Regulariser":
        """Ω follows W: the module's formula."""
        k, m, d = frame.s.size, len(frame.left), len(frame.right)
        total = _padded(frame.s, m)[:, None] + _padded(frame.s, d)
        free = total > 0.0
        share = free / np.where(free, total, 1.0)
        swap = share[:k, :k] * np.minimum(frame.g[:, None], frame.g)
        stiffness = frame.tau * share + lambda1 * free
        return cls(free, stiffness, swap, lambda2**0.5 * (np.eye(m, d) * free))

    @classmethod
    def frozen(cls, frame: _Frame, lambda1: float) -> "_Regulariser":
        """Ω = L diag(s) Lᵀ/Σs is constant: λ1 + λ2 Ω⁻¹ on its range, λ2/Ω_a = τ/s_a."""
        k, m, d = frame.s.size, len(frame.left), len(frame.right)
        s = np.repeat(_padded(frame.s, m)[:, None], d, axis=1)
        free = s > 0.0
        stiffness = np.where(free, lambda1 + frame.tau / np.where(free, s, 1.0), 0.0)
        return cls(free, stiffness, np.zeros((k, k)), np.zeros((m, d)))

    def rank(self) -> int:
        """W's rank: free entries are in as many leading rows and columns."""
        return int(np.sum(np.diagonal(self.free)))

    def unknowns(self) -> int:
        """How many entries are free, or could be at this rank."""
        return self.rank() * (sum(self.free.shape) - self.rank())

    def project(self, C: Float[ndarray, "m d"]) -> Float[ndarray, "m d"]:
        """C on the free entries, 0 on the others."""
        return C * self.free

    def apply(self, C: Float[ndarray, "m d"]) -> Float[ndarray, "m d"]:
        """R C."""
        k = len(self.swap)
        out = self.stiffness * C + np.sum(self.together * C) * self.together
        out[:k, :k] -= self.swap * C[:k, :k].T
        return out

    def inverse(
        self, shift: Float[ndarray, "m d"] | float
    ) -> Callable[[Float[ndarray, "m d"]], Float[ndarray, "m d"]]:
        """C ↦ (R + diag(shift))⁻¹ C: pairs by Cramer's rule, rank one by Sherman and Morrison's."""
        k = len(self.swap)
        alpha = np.where(self.free, self.stiffness + shift, 1.0)
        mirrored = alpha[:k, :k].T
        determinant = alpha[:k, :k] * mirrored - self.swap**2

        def pairs(C: ndarray) -> ndarray:
            out = C / alpha
            block = C[:k, :k]
            out[:k, :k] = (mirrored * block + self.swap * block.T) / determinant
            return out

        reach = pairs(self.together)
        scale = 1.0 + np.sum(self.together * reach)

        def solve(C: ndarray) -> ndarray:
            out = pairs(C)
            return out - np.sum(self.together * out) / scale * reach

        return solve


def _loss_hessians(
    train: TaskData, W: Float[ndarray, "m d"], loss: Loss
) -> Float[ndarray, "m d d"]:
    """A, task by task."""
    bend = train.weight * loss_curvatures(task_scores(train.X, W), train.y, loss)
    halves = train.X * np.sqrt(bend)[..., None]
    return halves.mT @ halves


def _by_factorising(
    hessians: Float[ndarray, "m d d"],
    frame: _Frame,
    regulariser: _Regulariser,
    target: Float[ndarray, "m d"],
) -> Float[ndarray, "m d"]:
    """(A + R)⁻¹ target on the free entries.

    A's entry for C_ab and C_ce is Σ_i L_ia L_ic (Rᵀ A_i R)_be. The rows of entries that are not
    free are the identity's.
    """
    (m, d), rank = target.shape, regulariser.rank()
    k = min(m, d)
    a, b = np.nonzero((np.arange(m)[:, None] < rank) | (np.arange(d) < rank))
    A = (frame.right.T @ hessians @ frame.right)[:, b[:, None], b]
    L = frame.left[:, a]
    H = np.sum(L[:, :, None] * L[:, None, :] * A, axis=0)
    free = regulariser.free[a, b]
    H = np.where(free[:, None] & free, H, 0.0)
    together = regulariser.together[a, b]
    H += together[:, None] * together
    places = np.arange(a.size)
    H[places, places] += np.where(free, regulariser.stiffness[a, b], 1.0)
    number = np.zeros((m, d), dtype=places.dtype)
    number[a, b] = places
    paired = (a < k) & (b < k)
    p, q = a[paired], b[paired]
    H[number[p, q], number[q, p]] -= regulariser.swap[p, q]
    C = np.zeros_like(target)
    C[a, b] = np.linalg.solve(H, regulariser.project(target)[a, b])
    return C


def _by_conjugate_gradients(
    hessians: Float[ndarray, "m d d"],
    frame: _Frame,
    regulariser: _Regulariser,
    target: Float[ndarray, "m d"],
    tol: float,
    max_iterations: int,
) -> Float[ndarray, "m d"]:
    """(A + R)⁻¹ target on the free entries, preconditioned by R and the diagonal of A."""
    # Σ_i L_ia² (Rᵀ A_i R)_bb
    diagonal = (frame.left**2).T @ np.sum((hessians @ frame.right) * frame.right, axis=-2)
    precondition = regulariser.inverse(diagonal)

    def apply(C: ndarray) -> ndarray:
        losses = (hessians @ frame.matrix(C)[..., None])[..., 0]
        return regulariser.project(frame.coordinates(losses)) + regulariser.apply(C)

    residual = regulariser.project(target)
    C = np.zeros_like(residual)
    goal = tol**2 * np.sum(residual * residual)
    direction = precondition(residual)
    rho = np.sum(residual * direction)
    for _ in range(max_iterations):
        if np.sum(residual * residual) <= goal:
            return C
        image = apply(direction)
        step = rho / np.sum(direction * image)
        C = C + step * direction
        residual = residual - step * image
        z = precondition(residual)
        rho, before = np.sum(residual * z), rho
        direction = z + rho / before * direction
    reached = tol * np.sqrt(np.sum(residual * residual) / goal)
    raise SolverError(
        f"Attack gradient of W {target.shape}: relative residual {reached:.1e}, tolerance "
        f"{tol:.1e} after {max_iterations} steps of conjugate gradients; raise lambda1, "
        "max_iterations or tol"
    )


def _padded(values: Float[ndarray, "k"], size: int) -> Float[ndarray, "size"]:
    """``values`` with zeros up to ``size``."""
    return np.append(values, np.zeros(size - values.size))
