"""The alternating scheme for MTRL that Zhao et al. 2018 take from Zhang and Yeung (2010).

Eq. (1) is minimised over W with Ω fixed (Eq. 8), then over Ω with W fixed, in turn. The scheme is
the baseline of :mod:`poisoning.models.mtrl`, which eliminates Ω and solves the problem exactly.

The scheme can stop above the minimum. Let Ω = UΛUᵀ. Where Λ_k = 0 the W-step gives W no part along
u_k, and then the Ω-step gives Ω none. Where Λ_k is small, W's part along u_k is small in
proportion. So the large eigenvectors of Ω turn only as far as its small eigenvalues allow. Once
those have vanished, neither step moves, though a joint change of W and Ω would lower the objective.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse.linalg import LinearOperator, cg

from poisoning import checks
from poisoning.errors import SolverError
from poisoning.models.mtrl import (
    Loss,
    TaskData,
    combine,
    loss_curvatures,
    loss_slopes,
    loss_values,
    objective,
    task_scores,
)

_W_STEP = 1e-9  # of the gradient at W = 0: how exactly a W-step is solved
_NEWTON_STEPS = 100
_CG_STEPS = 10_000
_HALVINGS = 50


@dataclass(frozen=True)
class AlternatingSolution:
    """The last ``W`` (m, d) and ``Omega`` (m, m), and the course of the scheme.

    After each of t pairs of steps: ``objectives`` (t,), the value of Eq. (1), and ``spectra``
    (t, m), the eigenvalues of Ω in descending order.
    """

    W: Float[ndarray, "m d"]
    Omega: Float[ndarray, "m m"]
    objectives: Float[ndarray, "t"]
    spectra: Float[ndarray, "t m"]


def solve_alternating(
    data: TaskData,
    loss: Loss,
    lambda1: float,
    lambda2: float,
    *,
    tol: float = 1e-6,
    floor: float = 0.0,
    max_iterations: int = 10_000,
) -> AlternatingSolution:
    """Alternate from Ω = I/m until a pair of steps lowers the objective by ≤ ``tol`` times itself.

    λ1 and λ2 must be positive. ``floor`` keeps every eigenvalue of Ω at or above it,
    0 ≤ floor ≤ 1/m: both steps then solve Eq. (1) with the constraint Ω ⪰ floor·I instead.

    Raises:
        ValueError: ``floor`` is negative or above 1/m, or another argument is invalid.
        SolverError: a W-step fails, or the objective still falls after ``max_iterations``.
    """
    m = checks.instance(data, "data", TaskData).X.shape[-3]
    loss = checks.one_of(loss, "loss", get_args(Loss))
    lambda1 = checks.positive(lambda1, "lambda1")
    lambda2 = checks.positive(lambda2, "lambda2")
    tol = checks.positive(tol, "tol")
    floor = checks.between(floor, "floor", 0.0, 1.0 / m)
    max_iterations = checks.whole(max_iterations, "max_iterations")
    U, spectrum = np.eye(m), np.full(m, 1.0 / m)
    W = np.zeros_like(data.X[:, 0])
    value = objective(data, loss, lambda1, lambda2, W)
    objectives, spectra = [], []
    for _ in range(max_iterations):
        root = (U * np.sqrt(spectrum / (lambda1 * spectrum + lambda2))) @ U.T
        W = _fixed_relationship(data, loss, root, W)
        U, s, _ = np.linalg.svd(W)
        spectrum = _best_spectrum(np.append(s, np.zeros(m - len(s))), floor)
        before, value = value, _joint_value(data, loss, lambda1, lambda2, W, s, spectrum)
        objectives.append(value)
        spectra.append(spectrum)
        if before - value <= tol * before:
            break
    else:
        raise SolverError(
            f"alternating MTRL ({loss} loss, W {W.shape}): the objective {value:.6g} still falls "
            f"by {before - value:.1e} after {max_iterations} iterations, tolerance "
            f"{tol * before:.1e}; raise max_iterations or tol"
        )
    return AlternatingSolution(W, (U * spectrum) @ U.T, np.array(objectives), np.array(spectra))


def _best_spectrum(s: Float[ndarray, "m"], floor: float) -> Float[ndarray, "m"]:
    """argmin Σ_k s_k²/ω_k over Σ ω_k = 1, ω ≥ floor, for descending s.

    The K largest ω_k are in proportion to s_k, with the largest K for which they are no less than
    ``floor``; the others equal ``floor``.
    """
    m = len(s)
    if not s.any():
        return np.full(m, 1.0 / m)
    counts = np.arange(1, m + 1)
    ratios = (1.0 - (m - counts) * floor) / np.cumsum(s)
    K = int(np.max(counts[(ratios * s >= floor) | (counts == 1)]))
    return np.where(counts <= K, ratios[K - 1] * s, floor)


def _joint_value(
    data: TaskData,
    loss: Loss,
    lambda1: float,
    lambda2: float,
    W: Float[ndarray, "m d"],
    s: Float[ndarray, "_"],
    spectrum: Float[ndarray, "m"],
) -> float:
    """Eq. (1) for W with the singular values ``s`` along the eigenvectors of Ω; 0²/0 is 0."""
    losses = data.weight * loss_values(task_scores(data.X, W), data.y, loss)
    some = s > 0.0
    pull = np.sum(s[some] ** 2 / spectrum[: len(s)][some])
    return float(losses.sum() + lambda1 / 2 * np.sum(W * W) + lambda2 / 2 * pull)


def _fixed_relationship(
    data: TaskData, loss: Loss, root: Float[ndarray, "m m"], W: Float[ndarray, "m d"]
) -> Float[ndarray, "m d"]:
    """Eq. (8) for the Ω with Φ = root², Φ⁻¹ = λ1 I + λ2 Ω⁻¹, from a start in the range of Ω.

    With W = Φ^{1/2} Z it is min_Z Σ weight ℓ + ½‖Z‖², which is well conditioned for every Ω.
    Newton's method solves it, with conjugate gradients and halved steps; the square loss takes one
    step.
    """
    X, y, weight = data.X, data.y, data.weight

    def value_and_gradient(Z: ndarray) -> tuple[float, ndarray]:
        scores = task_scores(X, root @ Z)
        slopes = weight * loss_slopes(scores, y, loss)
        gradient = root @ combine(slopes, X) + Z
        return float(np.sum(weight * loss_values(scores, y, loss)) + np.sum(Z * Z) / 2), gradient

    Z = np.linalg.lstsq(root, W)[0]
    value, gradient = value_and_gradient(Z)
    allowed = _W_STEP * np.linalg.norm(value_and_gradient(np.zeros_like(Z))[1])
    for _ in range(_NEWTON_STEPS):
        if np.linalg.norm(gradient) <= allowed:
            return root @ Z
        bend = weight * loss_curvatures(task_scores(X, root @ Z), y, loss)
        step = _newton_step((X * bend[..., None]).mT @ X, root, gradient, allowed / 2)
        for halving in range(_HALVINGS):
            trial = Z + 0.5**halving * step
            trial_value, trial_gradient = value_and_gradient(trial)
            if trial_value <= value + 1e-15 * abs(value):
                break
        Z, value, gradient = trial, trial_value, trial_gradient
    raise SolverError(
        f"alternating MTRL, W-step ({loss} loss, W {W.shape}): gradient "
        f"{np.linalg.norm(gradient):.1e}, tolerance {allowed:.1e} after {_NEWTON_STEPS} Newton "
        "steps; raise lambda1 or lambda2"
    )


def _newton_step(
    H: Float[ndarray, "m d d"], root: Float[ndarray, "m m"], b: Float[ndarray, "m d"], tol: float
) -> Float[ndarray, "m d"]:
    """Z with ‖root H(root Z) + Z + b‖_F ≤ tol, H acting task by task."""

    def apply(z: ndarray) -> ndarray:
        Z = z.reshape(b.shape)
        return (root @ combine(root @ Z, H) + Z).ravel()

    system = LinearOperator((b.size, b.size), matvec=apply, dtype=b.dtype)
    return cg(system, -b.ravel(), rtol=0.0, atol=tol, maxiter=_CG_STEPS)[0].reshape(b.shape)
