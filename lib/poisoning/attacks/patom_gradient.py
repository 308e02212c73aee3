"""How an attacker's utility changes with poisoned examples of several tasks: three gradients.

Zhao et al. 2018, "Gradients Computation". The learner's W(x̂) minimises F of
:mod:`poisoning.models.mtrl`, poisoned examples included; the attacker's utility is U(W), v = ∂U/∂W.
A poisoned example x̂ of task i, label ŷ and weight c = 1/(n_i + n̂_i) moves it by

    ∂U/∂x̂ = −∂⟨u, ∇F(W; x̂)⟩/∂x̂ = −c [ℓ'(w_i·x̂, ŷ) u_i + ℓ''(w_i·x̂, ŷ) (u_i·x̂) w_i],   H u = v,

with H the Hessian of F: of its losses, A, and of its regulariser, R. Three choices of H:

- "paper", Eq. (15) and (16): Ω and the multipliers α = −c ℓ' are constants. This leaves out A, and
  the second term of the bracket: u = Φᵀv with Φ = Ω(λ1 Ω + λ2 I)⁻¹. No derivative of anything the
  learner does; it would be the derivative of Eq. (13) if x̂ moved and α did not. The squared
  hinge has its max(0, ·) here, which Eq. (16) leaves out.
- "fixed": Ω is a constant, α is not. The exact derivative for a learner who keeps Ω and minimises
  Eq. (8): R = λ1 I + λ2 Ω⁻¹ on the range of Ω, outside of which W is zero.
- "total": Ω follows W. The exact derivative for the learner of Eq. (1): R is the second derivative
  of λ1/2 ‖W‖_F² + λ2/2 ‖W‖_*² along the matrices of W's rank. It exists where no singular value
  of ∇loss sits on the threshold (a small change of x̂ does not change the rank) and, for the
  squared hinge, no margin is exactly 1.

R is diagonal but for pairs, and one term of rank one, in the frame of W = L diag(s) Rᵀ. There, with
the optimality condition −∇loss = L diag(g + λ1 s) Rᵀ, where g_a = τ := λ2 ‖W‖_* if s_a > 0 and
g_a ≤ τ if s_a = 0, it takes the tangent matrix C (C_ab = 0 where s_a = s_b = 0) to

    λ1 C_ab + (τ C_ab − min(g_a, g_b) C_ba)/(s_a + s_b) + λ2 δ_ab Σ_c C_cc.

Where W has rank r there are r(m + d − r) unknowns. A few hundred are solved by factorising H; for
more, H is applied and never formed, in conjugate gradients with R plus the diagonal of A as
preconditioner. Arrays are NumPy's or torch's, with any leading batch dimensions: ranks may differ
within a batch (they are masks, not shapes), and each problem stops on its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from array_api_compat import array_namespace, device
from jaxtyping import Bool, Float

from poisoning.errors import SolverError
from poisoning.models.mtrl import (
    Array,
    Loss,
    TaskData,
    combine,
    loss_curvatures,
    loss_slopes,
    prox,
    task_scores,
)

_FEW = 300
"""Unknowns up to which the system is factorised. That costs there at most twice what conjugate
gradients do in their best case, large λ, and a tenth of it where λ is small."""

Method = Literal["paper", "fixed", "total"]


def attack_gradient(
    train: TaskData,
    poisoned: int,
    W: Float[Array, "*b m d"],
    v: Float[Array, "*b m d"],
    loss: Loss,
    lambda1: float,
    lambda2: float,
    method: Method = "total",
    *,
    tol: float = 1e-9,
    max_iterations: int = 10_000,
) -> Float[Array, "*b m k f"]:
    """∂U/∂x̂ for the last k = ``poisoned`` rows of every task, f = d − 1: the bias is no variable.

    ``train`` holds clean and poisoned rows together, ``W`` the weights learned from them, ``v`` is
    ∂U/∂W there. Rows of weight 0 have gradient 0. ``tol`` is the relative residual at which
    conjugate gradients, if used, stop; what the result owes to the error of ``W`` comes on top.

    Raises ``SolverError`` if they do not reach it in ``max_iterations``.
    """
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

    rows = slice(train.X.shape[-2] - poisoned, None)
    X, y, weight = train.X[..., rows, :], train.y[..., rows], train.weight[..., rows]
    scores = task_scores(X, W)
    along = (weight * loss_slopes(scores, y, loss))[..., None] * u[..., None, :-1]
    if method != "paper":
        bend = weight * loss_curvatures(scores, y, loss) * task_scores(X, u)
        along = along + bend[..., None] * W[..., None, :-1]
    return -along


@dataclass(frozen=True)
class _Frame:
    """W = left diag(s) rightᵀ with square orthogonal factors, and g and τ of the module's head.

    Both are read off W − η∇(F's smooth part), whose proximal map is W: exact zeros in s, and a
    frame in which the part of the gradient normal to W is diagonal too.
    """

    left: Float[Array, "*b m m"]
    right: Float[Array, "*b d d"]
    s: Float[Array, "*b k"]
    g: Float[Array, "*b k"]
    tau: Float[Array, "*b"]

    @classmethod
    def of(
        cls, train: TaskData, W: Float[Array, "*b m d"], loss: Loss, lambda1: float, lambda2: float
    ) -> "_Frame":
        xp = array_namespace(W)
        slopes = train.weight * loss_slopes(task_scores(train.X, W), train.y, loss)
        gradient = combine(slopes, train.X) + lambda1 * W
        # Any η > 0 will do; one over a bound on the curvature balances W and its gradient.
        norms = xp.sum(train.weight * xp.linalg.vecdot(train.X, train.X), axis=-1)
        eta = 1.0 / (2.0 * xp.max(norms, axis=-1) + lambda1)
        aim = W - eta[..., None, None] * gradient
        left, values, right = xp.linalg.svd(aim, full_matrices=True)
        tau = lambda2 * prox(aim, lambda2 * eta)[1]
        threshold = (eta * tau)[..., None]
        s = xp.clip(values - threshold, min=0.0)
        g = xp.minimum(values, threshold) / eta[..., None]
        return cls(left, right.mT, s, g, tau)

    def coordinates(self, matrix: Float[Array, "*b m d"]) -> Float[Array, "*b m d"]:
        """leftᵀ · matrix · right."""
        return self.left.mT @ matrix @ self.right

    def matrix(self, C: Float[Array, "*b m d"]) -> Float[Array, "*b m d"]:
        """left · C · rightᵀ."""
        return self.left @ C @ self.right.mT


@dataclass(frozen=True)
class _Regulariser:
    """R in W's frame: C ↦ stiffness∘C − swap∘Cᵀ + ⟨together, C⟩ together, on the entries ``free``.

    ``swap`` concerns the leading k × k block, k = min(m, d), and is symmetric, as is ``stiffness``
    there. All are 0 where an entry is not free.
    """

    free: Bool[Array, "*b m d"]
    stiffness: Float[Array, "*b m d"]
    swap: Float[Array, "*b k k"]
    together: Float[Array, "*b m d"]

    @classmethod
    def following(cls, frame: _Frame, lambda1: float, lambda2: float) -> "_Regulariser":
        """Ω follows W: the module's formula."""
        xp = array_namespace(frame.s)
        k, m, d = frame.s.shape[-1], frame.left.shape[-1], frame.right.shape[-1]
        total = _padded(frame.s, m)[..., :, None] + _padded(frame.s, d)[..., None, :]
        free = total > 0.0
        present = xp.astype(free, total.dtype)
        share = present / xp.where(free, total, 1.0)
        swap = share[..., :k, :k] * xp.minimum(frame.g[..., :, None], frame.g[..., None, :])
        diagonal = xp.eye(m, d, dtype=total.dtype, device=device(total)) * present
        stiffness = frame.tau[..., None, None] * share + lambda1 * present
        return cls(free, stiffness, swap, lambda2**0.5 * diagonal)

    @classmethod
    def frozen(cls, frame: _Frame, lambda1: float) -> "_Regulariser":
        """Ω = L diag(s) Lᵀ/Σs is constant: λ1 + λ2 Ω⁻¹ on its range, λ2/Ω_a = τ/s_a."""
        xp = array_namespace(frame.s)
        k, m = frame.s.shape[-1], frame.left.shape[-1]
        s = _padded(frame.s, m)[..., :, None] + xp.zeros_like(frame.right[..., :1, :])
        free = s > 0.0
        stiffness = lambda1 + frame.tau[..., None, None] / xp.where(free, s, 1.0)
        stiffness = xp.where(free, stiffness, 0.0)
        none = xp.zeros_like(stiffness)
        return cls(free, stiffness, none[..., :k, :k], none)

    def rank(self) -> int:
        """The largest rank in the batch: free entries are in as many leading rows and columns."""
        xp = array_namespace(self.free)
        diagonal = xp.linalg.diagonal(self.free)
        return int(xp.max(xp.sum(xp.astype(diagonal, xp.int64), axis=-1)))

    def unknowns(self) -> int:
        """How many entries may be free in some problem of the batch."""
        rank = self.rank()
        return rank * (sum(self.free.shape[-2:]) - rank)

    def project(self, C: Float[Array, "*b m d"]) -> Float[Array, "*b m d"]:
        """C on the free entries, 0 on the others."""
        return C * self.free

    def apply(self, C: Float[Array, "*b m d"]) -> Float[Array, "*b m d"]:
        """R C."""
        k = self.swap.shape[-1]
        out = self.stiffness * C + _inner(self.together, C) * self.together
        out[..., :k, :k] -= self.swap * C[..., :k, :k].mT
        return out

    def inverse(
        self, shift: Float[Array, "*b m d"] | float
    ) -> Callable[[Float[Array, "*b m d"]], Float[Array, "*b m d"]]:
        """C ↦ (R + diag(shift))⁻¹ C: pairs of entries by Cramer's rule, rank one by Sherman's."""
        xp = array_namespace(self.stiffness)
        k = self.swap.shape[-1]
        alpha = xp.where(self.free, self.stiffness + shift, 1.0)
        mirrored = alpha[..., :k, :k].mT
        determinant = alpha[..., :k, :k] * mirrored - self.swap**2

        def pairs(C: Array) -> Array:
            out = C / alpha
            block = C[..., :k, :k]
            out[..., :k, :k] = (mirrored * block + self.swap * block.mT) / determinant
            return out

        reach = pairs(self.together)
        scale = 1.0 + _inner(self.together, reach)

        def solve(C: Array) -> Array:
            out = pairs(C)
            return out - _inner(self.together, out) / scale * reach

        return solve


def _loss_hessians(
    train: TaskData, W: Float[Array, "*b m d"], loss: Loss
) -> Float[Array, "*b m d d"]:
    """A, task by task."""
    bend = train.weight * loss_curvatures(task_scores(train.X, W), train.y, loss)
    halves = train.X * bend[..., None] ** 0.5
    return halves.mT @ halves


def _by_factorising(
    hessians: Float[Array, "*b m d d"],
    frame: _Frame,
    regulariser: _Regulariser,
    target: Float[Array, "*b m d"],
) -> Float[Array, "*b m d"]:
    """(A + R)⁻¹ target on the free entries: the matrix of those that are free in some problem.

    A's entry for C_ab and C_ce is Σ_i L_ia L_ic (Rᵀ A_i R)_be. In a problem of lower rank than
    others of its batch the rows of entries that are not free are the identity's.
    """
    xp = array_namespace(target)
    (m, d), rank, where = target.shape[-2:], regulariser.rank(), device(target)
    k = min(m, d)
    rows, columns = xp.arange(m, device=where)[:, None], xp.arange(d, device=where)[None, :]
    a, b = xp.nonzero((rows < rank) | (columns < rank))
    right = frame.right[..., None, :, :]
    A = (right.mT @ hessians @ right)[..., b[:, None], b[None, :]]
    L = frame.left[..., a]
    H = xp.sum(L[..., :, None] * L[..., None, :] * A, axis=-3)
    free = regulariser.free[..., a, b]
    H = xp.where(free[..., :, None] & free[..., None, :], H, 0.0)
    together = regulariser.together[..., a, b]
    H += together[..., :, None] * together[..., None, :]
    places = xp.arange(a.shape[0], device=where)
    H[..., places, places] += xp.where(free, regulariser.stiffness[..., a, b], 1.0)
    number = xp.zeros((m, d), dtype=places.dtype, device=where)
    number[a, b] = places
    paired = (a < k) & (b < k)
    p, q = a[paired], b[paired]
    H[..., number[p, q], number[q, p]] -= regulariser.swap[..., p, q]
    C = xp.zeros_like(target)
    aim = regulariser.project(target)[..., a, b]
    C[..., a, b] = xp.linalg.solve(H, aim[..., None])[..., 0]
    return C


def _by_conjugate_gradients(
    hessians: Float[Array, "*b m d d"],
    frame: _Frame,
    regulariser: _Regulariser,
    target: Float[Array, "*b m d"],
    tol: float,
    max_iterations: int,
) -> Float[Array, "*b m d"]:
    """(A + R)⁻¹ target on the free entries, preconditioned by R and the diagonal of A."""
    xp = array_namespace(target)
    # Σ_i L_ia² (Rᵀ A_i R)_bb
    right = frame.right[..., None, :, :]
    diagonal = (frame.left**2).mT @ xp.sum((hessians @ right) * right, axis=-2)
    precondition = regulariser.inverse(diagonal)

    def apply(C: Array) -> Array:
        losses = (hessians @ frame.matrix(C)[..., None])[..., 0]
        return regulariser.project(frame.coordinates(losses)) + regulariser.apply(C)

    residual = regulariser.project(target)
    C = xp.zeros_like(residual)
    goal = tol**2 * _inner(residual, residual)
    direction = precondition(residual)
    rho = _inner(residual, direction)
    for _ in range(max_iterations):
        running = ~(_inner(residual, residual) <= goal)
        if not bool(xp.any(running)):
            return C
        image = apply(direction)
        step = _ratio(rho, _inner(direction, image), running)
        C = C + step * direction
        residual = residual - step * image
        z = precondition(residual)
        fresh = _inner(residual, z)
        direction = z + _ratio(fresh, rho, running) * direction
        rho = fresh
    worst = float(xp.max(_ratio(_inner(residual, residual), goal, running)))
    raise SolverError(
        f"Attack gradient of W {tuple(target.shape)}: relative residual {tol * worst**0.5:.1e}, "
        f"tolerance {tol:.1e} after {max_iterations} steps of conjugate gradients; raise lambda1, "
        "max_iterations or tol"
    )


def _inner(A: Float[Array, "*b m d"], B: Float[Array, "*b m d"]) -> Float[Array, "*b 1 1"]:
    """⟨A, B⟩, kept broadcastable."""
    return array_namespace(A).sum(A * B, axis=(-2, -1), keepdims=True)


def _ratio(above: Array, below: Array, where: Array) -> Array:
    """above/below where asked, 0 elsewhere: what is done stands still."""
    xp = array_namespace(above)
    return xp.where(where, above, 0.0) / xp.where(where, below, 1.0)


def _padded(values: Float[Array, "*b k"], size: int) -> Float[Array, "*b size"]:
    """``values`` with zeros up to ``size``."""
    xp = array_namespace(values)
    rest = (*values.shape[:-1], size - values.shape[-1])
    zeros = xp.zeros(rest, dtype=values.dtype, device=device(values))
    return xp.concat([values, zeros], axis=-1)
