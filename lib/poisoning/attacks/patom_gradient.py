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

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from poisoning import checks
from poisoning.attacks.patom_kernels import conjugate_gradients, pull_back, system
from poisoning.errors import SolverError
from poisoning.models.mtrl import Loss, TaskData
from poisoning.models.mtrl_kernels import add_rows, losses, threshold

_FEW = 300
"""Unknowns up to which the system is factorised, so that its solution is exact up to rounding. For
7 to 130 tasks that costs between 0.8 and 3 times as much as conjugate gradients to 1e-6."""

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
    hinge = loss == "hinge"
    _, slope, curved = losses(train.X, train.y, train.weight, W, hinge)
    # Any η > 0 will do; one over a bound on the curvature balances W and its gradient.
    eta = 1.0 / (float(np.max(np.trace(train.moments[0], axis1=1, axis2=2))) + lambda1)
    frame = _Frame.of(W, slope + lambda1 * W, eta, lambda2)
    target = frame.coordinates(v)
    if method == "total":
        regulariser = _Regulariser.following(frame, lambda1, lambda2)
    else:
        regulariser = _Regulariser.frozen(frame, lambda1)
    if method == "paper":
        C = np.where(regulariser.free, target / regulariser.stiffness, 0.0)
    else:
        hessians, c = (part.copy() for part in train.moments)
        add_rows(hessians, c, train.X, train.y, curved - train.weight)
        if regulariser.unknowns() <= _FEW:
            C = _by_factorising(hessians, frame, regulariser, target)
        else:
            C = _by_conjugate_gradients(hessians, frame, regulariser, target, tol, max_iterations)
    u = frame.matrix(C)
    return pull_back(train.X, train.y, train.weight, n - poisoned, W, u, hinge, method != "paper")


@dataclass(frozen=True)
class _Frame:
    """W = left diag(s) right with square orthogonal factors, and g and τ of the module's head.

    Both are read off W − η∇(F's smooth part), whose proximal map is W. So s has exact zeros, and
    the part of the gradient normal to W is diagonal in this frame too. ``right`` is the head's Rᵀ.
    """

    left: Float[ndarray, "m m"]
    right: Float[ndarray, "d d"]
    s: Float[ndarray, "k"]
    g: Float[ndarray, "k"]
    tau: float

    @classmethod
    def of(
        cls, W: Float[ndarray, "m d"], gradient: Float[ndarray, "m d"], eta: float, lambda2: float
    ) -> "_Frame":
        """For the ``gradient`` of F's smooth part at W, and any η."""
        left, values, right = np.linalg.svd(W - eta * gradient, full_matrices=True)
        least = threshold(values, lambda2 * eta)
        s = np.maximum(values - least, 0.0)
        return cls(left, right, s, np.minimum(values, least) / eta, least / eta)

    def coordinates(self, matrix: Float[ndarray, "m d"]) -> Float[ndarray, "m d"]:
        """leftᵀ · matrix · rightᵀ."""
        return self.left.T @ matrix @ self.right.T

    def matrix(self, C: Float[ndarray, "m d"]) -> Float[ndarray, "m d"]:
        """left · C · right."""
        return self.left @ C @ self.right


@dataclass(frozen=True)
class _Regulariser:
    """R in W's frame: C ↦ stiffness∘C − swap∘Cᵀ + coupling (Σ_c C_cc) I, on the entries ``free``.

    ``swap`` concerns the leading k × k block, k = min(m, d), and is symmetric, as is ``stiffness``
    there. Where an entry is not free, ``stiffness`` is 1 and nothing else counts.
    """

    free: Bool[ndarray, "m d"]
    stiffness: Float[ndarray, "m d"]
    swap: Float[ndarray, "k k"]
    coupling: float

    @classmethod
    def following(cls, frame: _Frame, lambda1: float, lambda2: float) -> "_Regulariser":
        """Ω follows W: the module's formula."""
        k, m, d = frame.s.size, len(frame.left), len(frame.right)
        total = _padded(frame.s, m)[:, None] + _padded(frame.s, d)
        free = total > 0.0
        share = free / np.where(free, total, 1.0)
        swap = share[:k, :k] * np.minimum(frame.g[:, None], frame.g)
        return cls(free, np.where(free, frame.tau * share + lambda1, 1.0), swap, lambda2)

    @classmethod
    def frozen(cls, frame: _Frame, lambda1: float) -> "_Regulariser":
        """Ω = L diag(s) Lᵀ/Σs is constant: λ1 + λ2 Ω⁻¹ on its range, λ2/Ω_a = τ/s_a."""
        k, m, d = frame.s.size, len(frame.left), len(frame.right)
        s = np.repeat(_padded(frame.s, m)[:, None], d, axis=1)
        free = s > 0.0
        stiffness = np.where(free, lambda1 + frame.tau / np.where(free, s, 1.0), 1.0)
        return cls(free, stiffness, np.zeros((k, k)), 0.0)

    def rank(self) -> int:
        """W's rank: free entries are in as many leading rows and columns."""
        return int(np.sum(np.diagonal(self.free)))

    def unknowns(self) -> int:
        """How many entries are free, or could be at this rank."""
        return self.rank() * (sum(self.free.shape) - self.rank())


def _by_factorising(
    hessians: Float[ndarray, "m d d"],
    frame: _Frame,
    regulariser: _Regulariser,
    target: Float[ndarray, "m d"],
) -> Float[ndarray, "m d"]:
    """(A + R)⁻¹ target on the free entries."""
    a, b = np.nonzero(regulariser.free)
    A = frame.right @ hessians @ frame.right.T
    H = system(A, frame.left, a, b, regulariser.stiffness, regulariser.swap, regulariser.coupling)
    C = np.zeros_like(target)
    C[a, b] = np.linalg.solve(H, target[a, b])
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
    rank, right, squares = regulariser.rank(), frame.right, frame.left.T**2
    # Σ_i L_ia² (Rᵀ A_i R)_bb, where an entry can be free: a or b is below the rank.
    stiffness = regulariser.stiffness.copy()
    stiffness[:rank] += np.linalg.vecdot(right @ np.tensordot(squares[:rank], hessians, 1), right)
    stiffness[rank:, :rank] += squares[rank:] @ np.linalg.vecdot(
        right[:rank] @ hessians, right[:rank]
    )
    C, reached = conjugate_gradients(
        hessians, np.ascontiguousarray(frame.left.T), right, np.sum(regulariser.free, axis=1),
        regulariser.stiffness, regulariser.swap, regulariser.coupling, stiffness, target, tol,
        max_iterations,
    )  # fmt: skip
    if not reached <= tol:
        raise SolverError(
            f"Attack gradient of W {target.shape}: relative residual {reached:.1e}, tolerance "
            f"{tol:.1e} after {max_iterations} steps of conjugate gradients; raise lambda1, "
            "max_iterations or tol"
        )
    return C


def _padded(values: Float[ndarray, "k"], size: int) -> Float[ndarray, "size"]:
    """``values`` with zeros up to ``size``."""
    return np.append(values, np.zeros(size - values.size))
