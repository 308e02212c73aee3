"""L2-regularised logistic regression, to a certified accuracy.

With x̃ = (x, 1), the intercept regularised like every other weight,

    min  λ/2 ‖θ̃‖² + (1/Σw) Σ wᵢ log(1 + exp(−yᵢ θ̃·x̃ᵢ)).

The objective is λ-strongly convex, so ‖θ̃ − θ̃*‖ ≤ ‖∇‖/λ: the gradient norm is the certificate.

Newton's method. For few features a step solves the least-squares problem whose normal equations are
Newton's, (λI + X̃ᵀSX̃) d = −∇ with S = diag(sᵢ), by QR: no square is formed, so that features of any
scale keep their digits. For many it is found by conjugate gradients.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit

from poisoning import checks
from poisoning.arrays import Matrix, squared_norms
from poisoning.errors import SolverError
from poisoning.models.linear import LinearModel

_QR_FEATURES = 300
_CG_TOLERANCE = 1e-3
_HALVINGS = 60
_SUFFICIENT = 1e-4
_ROUNDING = 16 * np.finfo(np.float64).eps


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
    tol: float = 1e-10,
    max_iterations: int = 500,
) -> LogisticSolution:
    """min λ/2 (‖θ‖² + b²) + (1/Σw) Σ wᵢ log(1 + exp(−yᵢ(θ·xᵢ + b))).

    ``X`` (n, d) dense or sparse, ``y`` (n,) of ±1, ``lam`` > 0, ``weights`` (n,) ≥ 0, by default
    all 1. Newton steps until ‖∇‖₂ ≤ ``tol`` · ½Σwᵢ‖x̃ᵢ‖/Σw, the largest that the gradient of the
    loss can be at 0, or until rounding in ∇ itself is as large.

    Raises ``ValueError`` or ``TypeError`` for an argument that is not as described; ``SolverError``
    if the tolerance is not reached.
    """
    X = checks.matrix(X, "X")
    n = X.shape[0]
    y, lam = checks.signs(y, "y", n), checks.positive(lam, "lam")
    weights = np.ones(n) if weights is None else checks.weights(weights, "weights", n)
    tol = checks.positive(tol, "tol")
    max_iterations = checks.whole(max_iterations, "max_iterations")
    problem = _Problem(X, y, lam, weights / weights.sum(), np.sqrt(squared_norms(X) + 1.0))
    w = np.zeros(X.shape[1] + 1)
    scores = np.zeros(n)
    for iteration in range(max_iterations + 1):
        value, gradient = problem.value_and_gradient(w, scores)
        residual = float(np.linalg.norm(gradient))
        allowed = max(tol * problem.scale, problem.rounding(w, scores))
        if residual <= allowed:
            model = LinearModel(w[:-1].copy(), float(w[-1]))
            return LogisticSolution(model, value, residual, iteration)
        direction = problem.newton_direction(scores, gradient)
        along = problem.scores(direction)
        length = problem.line_search(w, scores, value, gradient, direction, along)
        if length == 0.0:
            break
        w = w + length * direction
        scores = problem.scores(w)
    raise SolverError(
        f"logistic regression ({n} examples, lambda {lam:g}): gradient norm {residual:.1e} after "
        f"{iteration} iterations, tolerance {allowed:.1e}; raise max_iterations, tol or lambda"
    )


@dataclass(frozen=True)
class _Problem:
    """``share`` (n,) sum to 1; ``lengths`` (n,) are the ‖x̃ᵢ‖."""

    X: Matrix
    y: Float[ndarray, "n"]
    lam: float
    share: Float[ndarray, "n"]
    lengths: Float[ndarray, "n"]

    @property
    def scale(self) -> float:
        """The largest that the norm of the loss's gradient can be at 0."""
        return 0.5 * float(self.share @ self.lengths)

    def rounding(self, w: Float[ndarray, "d1"], scores: Float[ndarray, "n"]) -> float:
        """What rounding alone may leave of the gradient's norm."""
        slopes = self.share * expit(-self.y * scores)
        # A score is off by eps ‖w‖‖x̃‖, which moves its slope by a quarter of that at most.
        moved = 0.25 * self.share * self.lengths * np.linalg.norm(w)
        return _ROUNDING * float(
            self.lam * np.linalg.norm(w) + slopes @ self.lengths + moved @ self.lengths
        )

    def scores(self, w: Float[ndarray, "d1"]) -> Float[ndarray, "n"]:
        """θ·xᵢ + b."""
        return self.X @ w[:-1] + w[-1]

    def combine(self, v: Float[ndarray, "n"]) -> Float[ndarray, "d1"]:
        """Σ vᵢx̃ᵢ."""
        return np.append(self.X.T @ v, v.sum())

    def value_and_gradient(
        self, w: Float[ndarray, "d1"], scores: Float[ndarray, "n"]
    ) -> tuple[float, Float[ndarray, "d1"]]:
        """The objective and its gradient."""
        margins = self.y * scores
        value = 0.5 * self.lam * (w @ w) + self.share @ np.logaddexp(0.0, -margins)
        gradient = self.lam * w - self.combine(self.share * self.y * expit(-margins))
        return float(value), gradient

    def newton_direction(
        self, scores: Float[ndarray, "n"], gradient: Float[ndarray, "d1"]
    ) -> Float[ndarray, "d1"]:
        """d with (λI + X̃ᵀSX̃) d = −∇."""
        curvature = self.share * expit(scores) * expit(-scores)
        if len(gradient) > _QR_FEATURES:
            return self._by_conjugate_gradients(curvature, gradient)
        X = self.X.toarray() if sp.issparse(self.X) else self.X
        root = np.sqrt(curvature)[:, None]
        A = np.vstack([np.hstack([root * X, root]), np.sqrt(self.lam) * np.eye(len(gradient))])
        (R,) = scipy.linalg.qr(A, mode="r", overwrite_a=True, check_finite=False)
        half = scipy.linalg.solve_triangular(R[: len(gradient)], -gradient, trans="T")
        return scipy.linalg.solve_triangular(R[: len(gradient)], half)

    def _by_conjugate_gradients(
        self, curvature: Float[ndarray, "n"], gradient: Float[ndarray, "d1"]
    ) -> Float[ndarray, "d1"]:
        squares = self.X.power(2) if sp.issparse(self.X) else self.X**2
        diagonal = self.lam + np.append(squares.T @ curvature, curvature.sum())

        def product(v: Float[ndarray, "d1"]) -> Float[ndarray, "d1"]:
            return self.lam * v + self.combine(curvature * self.scores(v))

        shape = (len(gradient), len(gradient))
        direction, _ = cg(
            LinearOperator(shape, matvec=product, dtype=np.float64),
            -gradient,
            rtol=_CG_TOLERANCE,
            M=LinearOperator(shape, matvec=lambda v: v / diagonal, dtype=np.float64),
            maxiter=10 * len(gradient),
        )
        return direction

    def line_search(
        self,
        w: Float[ndarray, "d1"],
        scores: Float[ndarray, "n"],
        value: float,
        gradient: Float[ndarray, "d1"],
        direction: Float[ndarray, "d1"],
        along: Float[ndarray, "n"],
    ) -> float:
        """The first of 1, ½, ¼ … that lowers the objective enough; 0 if none does.

        Near the minimum rounding hides the fall; then a smaller gradient decides.
        """
        slope = float(gradient @ direction)
        noise = _ROUNDING * abs(value)
        length = 1.0
        for _ in range(_HALVINGS):
            there, steepness = self.value_and_gradient(
                w + length * direction, scores + length * along
            )
            if there <= value + _SUFFICIENT * length * slope:
                return length
            if there <= value + noise and np.linalg.norm(steepness) < np.linalg.norm(gradient):
                return length
            length *= 0.5
        return 0.0
