"""Second derivatives of a support vector machine, its hinge smoothed: what influence needs.

With x̃ = (x, 1), the intercept regularised like every other weight, and margins mᵢ = yᵢ θ̃·x̃ᵢ,

    λ/2 ‖θ̃‖² + (1/Σw) Σ wᵢ δ log(1 + exp((1 − mᵢ)/δ)),        Appendix B.1 of Koh et al. 2021,

has the derivative −(wᵢ/Σw) hᵢ in mᵢ, hᵢ = σ((1 − mᵢ)/δ), and the Hessian

    H = λI + Σ cᵢ x̃ᵢx̃ᵢᵀ,    cᵢ = (wᵢ/Σw) hᵢ(1 − hᵢ)/δ.

As δ → 0 the loss becomes the hinge, and only examples within a few δ of it have curvature: H⁻¹g
then needs a linear system in these few examples (Woodbury), not in the d + 1 weights.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit

from poisoning import checks
from poisoning.arrays import Matrix, squared_norms, to_dense
from poisoning.errors import SolverError

_NEGLIGIBLE = 1e-13  # of λ: a row that adds less than this to H is left out
_WOODBURY_ROWS = 700  # with more, conjugate gradients are quicker than a dense k × k system
_CG_TOLERANCE = 1e-10
_CG_STEPS = 10_000


@dataclass(frozen=True)
class Curvature:
    """The Hessian H of the module's docstring at one model, and every ``pull`` hᵢ (n,).

    ``rows`` (k, d) are the examples whose curvature is not negligible, ``curvatures`` (k,) their
    cᵢ.
    """

    lam: float
    pull: Float[ndarray, "n"]
    rows: Matrix
    curvatures: Float[ndarray, "k"]

    @classmethod
    def of(
        cls,
        X: Matrix,
        y: Float[ndarray, "n"],
        scores: Float[ndarray, "n"],
        lam: float,
        smoothing: float,
        share: Float[ndarray, "n"],
    ) -> "Curvature":
        """H at the model whose decisions on ``X`` are ``scores``; ``share`` are the wᵢ/Σw.

        Raises ``ValueError`` or ``TypeError`` for arrays that do not fit, λ or δ that are not
        positive.
        """
        X = checks.known(X, "X")
        n = X.shape[0]
        y, scores = checks.signs(y, "y", n), checks.vector(scores, "scores", n)
        share = checks.weights(share, "share", n)
        lam, smoothing = checks.positive(lam, "lam"), checks.positive(smoothing, "smoothing")
        distance = (1.0 - y * scores) / smoothing
        pull = expit(distance)
        curvatures = share * pull * expit(-distance) / smoothing
        active = np.flatnonzero(curvatures * (squared_norms(X) + 1.0) > _NEGLIGIBLE * lam)
        return cls(lam, pull, X[active], curvatures[active])

    def product(self, v: Float[ndarray, "d1"]) -> Float[ndarray, "d1"]:
        """H v."""
        return self._product(checks.array(v, "v", (self.rows.shape[1] + 1,)))

    def _product(self, v: Float[ndarray, "d1"]) -> Float[ndarray, "d1"]:
        seen = self.curvatures * (self.rows @ v[:-1] + v[-1])
        return self.lam * v + np.append(self.rows.T @ seen, seen.sum())

    def solve(self, g: Float[ndarray, "d1"]) -> Float[ndarray, "d1"]:
        """H⁻¹g: exact (Woodbury) up to 700 rows with curvature, else conjugate gradients.

        Raises ``ValueError`` for a ``g`` that has not d + 1 finite numbers, ``SolverError`` if
        conjugate gradients do not converge.
        """
        if len(self.curvatures) <= _WOODBURY_ROWS:
            return self.by_woodbury(g)
        return self.by_conjugate_gradients(g)

    def by_woodbury(self, g: Float[ndarray, "d1"]) -> Float[ndarray, "d1"]:
        """(g − BᵀA⁻¹Bg)/λ with the rows B = √c·x̃ and A = λI + BBᵀ, a k × k system."""
        g = checks.array(g, "g", (self.rows.shape[1] + 1,))
        root = np.sqrt(self.curvatures)
        gram = self.rows @ self.rows.T
        gram = to_dense(gram) if sp.issparse(gram) else gram
        A = (gram + 1.0) * np.outer(root, root)
        A[np.diag_indices_from(A)] += self.lam
        seen = root * (self.rows @ g[:-1] + g[-1])
        u = root * cho_solve(cho_factor(A, lower=True, overwrite_a=True, check_finite=False), seen)
        return (g - np.append(self.rows.T @ u, u.sum())) / self.lam

    def by_conjugate_gradients(self, g: Float[ndarray, "d1"]) -> Float[ndarray, "d1"]:
        """Conjugate gradients, preconditioned by the diagonal, to ‖Hv − g‖ ≤ 1e-10 ‖g‖."""
        g = checks.array(g, "g", (self.rows.shape[1] + 1,))
        squares = self.rows.multiply(self.rows) if sp.issparse(self.rows) else self.rows**2
        diagonal = self.lam + np.append(squares.T @ self.curvatures, self.curvatures.sum())
        shape = g.size, g.size
        hessian = LinearOperator(shape, matvec=self._product, dtype=g.dtype)
        by_diagonal = LinearOperator(shape, matvec=lambda r: r / diagonal, dtype=g.dtype)
        v, steps = cg(hessian, g, rtol=_CG_TOLERANCE, maxiter=_CG_STEPS, M=by_diagonal)
        if steps:
            left, size = np.linalg.norm(self._product(v) - g), np.linalg.norm(g)
            raise SolverError(
                f"inverse Hessian ({len(self.curvatures)} rows, lambda {self.lam:g}): conjugate "
                f"gradients leave {left:.1e}, tolerance {_CG_TOLERANCE * size:.1e}; raise the "
                "smoothing or lambda"
            )
        return v
