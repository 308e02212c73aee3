"""L2-regularised logistic regression, to a certified accuracy.

With x̃ = (x, 1), the intercept regularised like every other weight,

    min  λ/2 ‖θ̃‖² + (1/Σw) Σ wᵢ log(1 + exp(−yᵢ θ̃·x̃ᵢ)).

The objective is λ-strongly convex, so ‖θ̃ − θ̃*‖ ≤ ‖∇‖/λ: the gradient norm is the certificate.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit

from poisoning.arrays import Matrix
from poisoning.errors import SolverError
from poisoning.models.linear import LinearModel

_ROUNDING = 2  # scipy's status of a trust region that no step improves
_LAST_STEPS = 10
_CG_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LogisticSolution:
    """A trained model, its objective value, the gradient norm there, and Newton iterations."""

    model: LinearModel
    objective: float
    gradient_norm: float
    iterations: int


def train_logistic(
    X: Matrix,
    y: Float[ndarray, "n"],
    lam: float,
    *,
    weights: Float[ndarray, "n"] | None = None,
    tol: float = 1e-8,
    max_iterations: int = 500,
) -> LogisticSolution:
    """min λ/2 (‖θ‖² + b²) + (1/Σw) Σ wᵢ log(1 + exp(−yᵢ(θ·xᵢ + b))).

    ``X`` (n, d) dense or sparse, ``y`` (n,) of ±1, ``weights`` (n,) ≥ 0, by default all 1.
    Trust-region Newton with conjugate gradients, until ‖∇‖₂ ≤ ``tol``; where two values differ by
    rounding alone, which stops a trust region, plain Newton steps finish. Raises ``ValueError`` for
    labels other than ±1, λ ≤ 0, or weights that are negative or sum to 0; ``SolverError`` if the
    tolerance is not reached.
    """
    weights = np.ones(len(y)) if weights is None else weights
    if not np.all(np.abs(y) == 1.0):
        raise ValueError("logistic regression labels must be -1 or +1")
    if not lam > 0.0:
        raise ValueError(f"logistic regression needs lambda > 0, got {lam:g}")
    if np.any(weights < 0.0) or not weights.sum() > 0.0:
        raise ValueError("logistic regression weights must be >= 0 and not all 0")
    share = weights / weights.sum()

    def scores(w: Float[ndarray, "d1"]) -> Float[ndarray, "n"]:
        return X @ w[:-1] + w[-1]

    def combine(v: Float[ndarray, "n"]) -> Float[ndarray, "d1"]:
        return np.append(X.T @ v, v.sum())

    def value_and_gradient(w: Float[ndarray, "d1"]) -> tuple[float, Float[ndarray, "d1"]]:
        margins = y * scores(w)
        value = 0.5 * lam * (w @ w) + share @ np.logaddexp(0.0, -margins)
        return float(value), lam * w - combine(share * y * expit(-margins))

    def hessian_product(w: Float[ndarray, "d1"], v: Float[ndarray, "d1"]) -> Float[ndarray, "d1"]:
        p = expit(scores(w))
        return lam * v + combine(share * p * (1.0 - p) * scores(v))

    result = minimize(
        value_and_gradient,
        np.zeros(X.shape[1] + 1),
        method="trust-ncg",
        jac=True,
        hessp=hessian_product,
        options={"gtol": tol, "maxiter": max_iterations},
    )
    w, value, gradient = result.x, result.fun, result.jac
    residual = float(np.linalg.norm(gradient))
    if result.status == _ROUNDING:
        for _ in range(_LAST_STEPS):
            if residual <= tol:
                break
            hessian = LinearOperator(
                (w.size, w.size), matvec=partial(hessian_product, w), dtype=w.dtype
            )
            w = w - cg(hessian, gradient, rtol=_CG_TOLERANCE)[0]
            value, gradient = value_and_gradient(w)
            residual = float(np.linalg.norm(gradient))
    if not residual <= tol:
        raise SolverError(
            f"logistic regression ({len(y)} examples, lambda {lam:g}): gradient norm "
            f"{residual:.1e} after {result.nit} iterations, tolerance {tol:.1e}; raise "
            f"max_iterations, tol or lambda"
        )
    model = LinearModel(w[:-1].copy(), float(w[-1]))
    return LogisticSolution(model, float(value), residual, int(result.nit))
