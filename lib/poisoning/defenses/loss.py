"""The loss defense: points that a model trained on everything fits badly."""

from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from poisoning.arrays import Matrix
from poisoning.models.linear import LinearModel
from poisoning.models.svm import train_svm


@dataclass(frozen=True)
class LossDetector:
    """s(x, y) = 1 − y f(x), the hinge loss without its floor at 0.

    The paper scores by the loss itself, under which every point fitted with a margin is tied at
    0. The cut is the same whenever it falls on points with a positive loss; otherwise the signed
    score still removes the requested fraction, worst margin first.
    """

    model: LinearModel

    def score(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """One minus the margin of every point."""
        return 1.0 - self.model.margins(X, y)


def fit_loss(X: Matrix, y: Float[ndarray, "n"], *, lam: float) -> LossDetector:
    """β = argmin_θ E_D[ℓ_θ], regularised as the final model is (Koh et al. 2021, Section 2.2)."""
    return LossDetector(train_svm(X, y, lam).model)
