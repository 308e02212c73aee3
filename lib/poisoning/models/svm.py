"""The linear support vector machine, solved exactly: every defender in Koh et al. 2021 trains it.

With x̃ = (x, 1), so that the intercept is regularised like every other weight, and θ̃ = (θ, b),

    min  λ/2 ‖θ̃‖² + (1/Σw) Σ wᵢ max(0, 1 − yᵢ θ̃·x̃ᵢ)                           (Eq. 2)

has the dual max Σαᵢ − ½‖Σ αᵢyᵢx̃ᵢ‖² over 0 ≤ αᵢ ≤ wᵢ/(λΣw), in units of λ, and θ̃ = Σ αᵢyᵢx̃ᵢ.

Dual coordinate descent (Hsieh et al. 2008) finds which αᵢ lie at a bound within a few epochs, but
converges slowly on the rest when examples are nearly collinear, as concentrated poison is. So
epochs over all points alternate with epochs over the undecided ones, and once the bounds have
nearly settled a projected Newton step (conjugate gradients, Armijo) finishes the undecided ones.
Where ‖x̃‖²/(λn) is large and the classes overlap, the bounds do not settle within thousands of
epochs; then an interior point (:mod:`poisoning.models.svm_interior`) finishes from any gap.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, squared_norms
from poisoning.errors import SolverError
from poisoning.models.linear import LinearModel
from poisoning.models.svm_interior import LARGEST_SYSTEM, interior_point
from poisoning.models.svm_kernels import descend_csr, descend_dense

_FREE_EPOCHS = 20
_NEWTON_BELOW = 1e-3  # relative gap under which the undecided set is worth a Newton step
_SETTLED = 0.01  # part of the tolerance from which on a smaller gap does not help: rounding does
_CG_STEPS = 100
_CG_TOLERANCE = 0.03
_DETOURS = 50  # bounds reached one by one in a Newton step


@dataclass(frozen=True)
class SVMSolution:
    """A trained model with its certificate.

    ``objective`` is the value of the problem in the module's docstring; no model does better than
    ``objective − gap``. ``alpha`` (n,) are the dual variables, in [0, wᵢ/(λΣw)], for a warm start.
    ``epochs`` counts passes, over all points or over the undecided ones.
    """

    model: LinearModel
    alpha: Float[ndarray, "n"]
    objective: float
    gap: float
    epochs: int


def train_svm(
    X: Matrix,
    y: Float[ndarray, "n"],
    lam: float,
    *,
    weights: Float[ndarray, "n"] | None = None,
    alpha0: Float[ndarray, "n"] | None = None,
    tol: float = 1e-6,
    max_epochs: int = 2_000,
) -> SVMSolution:
    """min λ/2 (‖θ‖² + b²) + (1/Σw) Σ wᵢ max(0, 1 − yᵢ(θ·xᵢ + b)); Eq. (2) of Koh et al. 2021.

    ``X`` (n, d) dense or sparse; ``y`` (n,) of ±1; ``lam`` > 0; ``weights`` (n,) ≥ 0, by default
    all 1: an example of weight k counts as k copies, one of weight 0 as absent. ``alpha0`` (n,)
    warm-starts from another solution's ``alpha``; it is clipped to the present bounds. The answer
    is deterministic and certified: duality gap ≤ ``tol`` · objective. After ``max_epochs`` passes
    an interior point takes over, if examples or features number at most 5,000.

    Raises ``ValueError`` or ``TypeError`` for an argument that is not as described; ``SolverError``
    if the tolerance is not reached.
    """
    X = checks.matrix(X, "X")
    n = X.shape[0]
    y, lam = checks.signs(y, "y", n), checks.positive(lam, "lam")
    weights = np.ones(n) if weights is None else checks.weights(weights, "weights", n)
    tol, max_epochs = checks.positive(tol, "tol"), checks.whole(max_epochs, "max_epochs", 0)
    problem = _Problem.of(X, y, lam, weights)
    alpha = np.zeros(n)
    if alpha0 is not None:
        alpha = np.clip(checks.vector(alpha0, "alpha0", n), 0.0, problem.upper)
    everything = np.flatnonzero(problem.upper > 0.0)
    epochs = 0
    newton = False
    while True:
        w = problem.combine(alpha)
        primal, gap, gradient = problem.certificate(alpha, w)
        if gap > tol * primal and epochs >= max_epochs:
            if min(len(everything), X.shape[1] + 1) <= LARGEST_SYSTEM:
                w, alpha, primal, gap = problem.interior_point(everything, tol)
            if not gap <= tol * primal:
                raise _no_convergence(n, lam, gap / primal, tol, epochs)
        if gap <= tol * primal:
            sure_w, sure_primal, sure_gap = problem.beyond_rounding(w, alpha, primal, gap, tol)
            if sure_gap <= tol * sure_primal:
                model = LinearModel(sure_w[:-1].copy(), float(sure_w[-1]))
                return SVMSolution(model, alpha, lam * sure_primal, lam * sure_gap, epochs)
            if gap <= _SETTLED * tol * primal or epochs >= max_epochs:
                raise _no_convergence(n, lam, sure_gap / sure_primal, tol, epochs)
        newton = gap <= _NEWTON_BELOW * primal and not newton
        if newton:
            problem.newton_step(alpha, w, gradient)
        else:
            epochs += problem.descend(alpha, w, everything, 1)
        undecided = np.flatnonzero((alpha > 0.0) & (alpha < problem.upper))
        if undecided.size:
            epochs += problem.descend(alpha, w, undecided, _FREE_EPOCHS)


def _no_convergence(n: int, lam: float, gap: float, tol: float, epochs: int) -> SolverError:
    return SolverError(
        f"SVM ({n} examples, lambda {lam:g}): relative duality gap {gap:.1e} after {epochs} "
        f"epochs, tolerance {tol:.1e}; raise max_epochs, tol or lambda, or bring the features "
        "nearer to 0"
    )


@dataclass(frozen=True)
class _Problem:
    """The dual problem; ``w`` (d + 1,) stands for Σ αᵢyᵢx̃ᵢ throughout."""

    X: Matrix
    y: Float[ndarray, "n"]
    upper: Float[ndarray, "n"]
    diagonal: Float[ndarray, "n"]
    kernel: Callable
    rows: tuple[ndarray, ...]
    shuffler: ndarray

    @classmethod
    def of(
        cls, X: Matrix, y: Float[ndarray, "n"], lam: float, weights: Float[ndarray, "n"]
    ) -> "_Problem":
        if sp.issparse(X):
            kernel, rows = descend_csr, (X.data, X.indices, X.indptr)
        else:
            kernel, rows = descend_dense, (X,)
        diagonal, seed = squared_norms(X) + 1.0, np.ones(1, dtype=np.uint64)
        return cls(X, y, weights / (lam * weights.sum()), diagonal, kernel, rows, seed)

    def combine(self, alpha: Float[ndarray, "n"]) -> Float[ndarray, "d1"]:
        """Σ αᵢyᵢx̃ᵢ."""
        signed = alpha * self.y
        return np.append(self.X.T @ signed, signed.sum())

    def certificate(
        self, alpha: Float[ndarray, "n"], w: Float[ndarray, "d1"]
    ) -> tuple[float, float, Float[ndarray, "n"]]:
        """Primal value and duality gap in units of λ, and the dual gradient 1 − margin."""
        gradient = 1.0 - self.y * (self.X @ w[:-1] + w[-1])
        square = w @ w
        primal = 0.5 * square + self.upper @ np.maximum(0.0, gradient)
        return float(primal), float(primal + 0.5 * square - alpha.sum()), gradient

    def beyond_rounding(
        self,
        w: Float[ndarray, "d1"],
        alpha: Float[ndarray, "n"],
        primal: float,
        gap: float,
        tol: float,
    ) -> tuple[Float[ndarray, "d1"], float, float]:
        """w, primal value and gap of which the last holds in exact arithmetic, too.

        Where all points have margin 1 or more and λ is small, the primal value can be so small that
        rounding of margins, times 1/λn, is more than ``tol`` of it. Then w is made longer by more
        than that rounding, and every margin is taken for as small as it may be.
        """
        off = len(w) * np.finfo(np.float64).eps * np.sqrt(self.diagonal) * np.linalg.norm(w)
        if self.upper @ off <= 0.01 * tol * primal:
            return w, primal, gap
        w = w * (1.0 + 4.0 * off.max())
        margins = self.y * (self.X @ w[:-1] + w[-1]) - 2.0 * off
        combined = self.combine(alpha)
        primal = float(0.5 * w @ w + self.upper @ np.maximum(0.0, 1.0 - margins))
        return w, primal, float(primal + 0.5 * combined @ combined - alpha.sum())

    def interior_point(
        self, present: Int[ndarray, "k"], tol: float
    ) -> tuple[Float[ndarray, "d1"], Float[ndarray, "n"], float, float]:
        """w, α, primal value and gap; ``present`` are the points of a weight above 0."""
        alpha = np.zeros(len(self.y))
        w, alpha[present], primal, gap = interior_point(
            self.X[present], self.y[present], self.upper[present], tol
        )
        return w, alpha, primal, gap

    def descend(
        self,
        alpha: Float[ndarray, "n"],
        w: Float[ndarray, "d1"],
        active: Int[ndarray, "k"],
        epochs: int,
    ) -> int:
        """Coordinate descent over the ``active`` points, in place; epochs done."""
        return self.kernel(
            *self.rows, self.y, self.upper, self.diagonal, alpha, w, active.copy(), self.shuffler,
            0.0, epochs,
        )  # fmt: skip

    def newton_step(
        self,
        alpha: Float[ndarray, "n"],
        w: Float[ndarray, "d1"],
        gradient: Float[ndarray, "n"],
    ) -> None:
        """Projected Newton (Bertsekas 1982) on the points that are not held at a bound, in place.

        With F those points, d solves Q_FF d = gradient_F by conjugate gradients, and α_F ← clip(α_F
        + t d), t halved until the dual rises enough. Where it never does, as between near copies of
        one point, α_F goes along d to the first bound, and continues without that point.
        """
        held = ((alpha == 0.0) & (gradient <= 0.0)) | ((alpha == self.upper) & (gradient >= 0.0))
        F = np.flatnonzero(~held)
        X, y, upper, start = self.X[F], self.y[F], self.upper[F], alpha[F]
        Xt = X.T  # for a sparse X a new object every time, which costs more than a small product
        free = np.ones(F.size, dtype=bool)

        def combine(v: Float[ndarray, "f"]) -> Float[ndarray, "d1"]:
            return np.append(Xt @ (y * v), y @ v)

        def gram(v: Float[ndarray, "f"]) -> Float[ndarray, "f"]:
            u = combine(v)
            return free * (y * (X @ u[:-1] + u[-1]))

        for _ in range(_DETOURS):
            here = alpha[F]
            slope = free * (gradient[F] - gram(here - start))
            direction = _conjugate_gradient(gram, slope, 1.0 / self.diagonal[F])
            for halvings in range(11):
                moved = np.clip(here + 0.5**halvings * direction, 0.0, upper) - here
                dw = combine(moved)
                rise = slope @ moved - 0.5 * dw @ dw
                if rise > 1e-4 * (slope @ moved) > 0.0:
                    alpha[F] = np.clip(here + moved, 0.0, upper)
                    w += dw
                    return
            room = np.where(direction > 0.0, upper - here, here)
            steps = np.divide(
                room, np.abs(direction), out=np.full(F.size, np.inf), where=direction != 0.0
            )
            first = int(np.argmin(steps))
            if steps[first] >= 1.0:
                return  # no bound is in the way: what is left is rounding
            moved = np.clip(here + steps[first] * direction, 0.0, upper) - here
            moved[first] = (upper[first] if direction[first] > 0.0 else 0.0) - here[first]
            alpha[F] = here + moved
            w += combine(moved)
            free[first] = False


def _conjugate_gradient(
    apply: Callable, b: Float[ndarray, "f"], preconditioner: Float[ndarray, "f"]
) -> Float[ndarray, "f"]:
    """Roughly solve A x = b for A ⪰ 0; along a direction of no curvature, stop there."""
    x = np.zeros_like(b)
    residual = b.copy()
    z = preconditioner * residual
    p = z
    rz = first = residual @ z
    for _ in range(_CG_STEPS):
        if rz <= _CG_TOLERANCE**2 * first:
            break
        Ap = apply(p)
        curvature = p @ Ap
        if curvature <= 1e-12 * (p @ (p / preconditioner)):
            # The dual is linear along p: any step rises; the box will cut it.
            return x + p * (rz / (1e-12 * (p @ (p / preconditioner))))
        step = rz / curvature
        x += step * p
        residual -= step * Ap
        z = preconditioner * residual
        rz, previous = residual @ z, rz
        p = z + (rz / previous) * p
    return x
