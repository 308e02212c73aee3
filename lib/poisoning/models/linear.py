"""The linear classifier f(x) = sign(θ·x + b) that every binary experiment trains."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.arrays import Matrix


@dataclass(frozen=True)
class LinearModel:
    """Weights ``theta`` (d,) and intercept ``bias`` of f(x) = sign(θ·x + b)."""

    theta: Float[ndarray, "d"]
    bias: float

    def decision(self, X: Matrix) -> Float[ndarray, "n"]:
        """θ·x + b for every row."""
        return np.asarray(X @ self.theta, dtype=np.float64) + self.bias

    def predict(self, X: Matrix) -> Float[ndarray, "n"]:
        """−1 or +1 for every row; a decision of exactly 0 counts as +1."""
        return np.where(self.decision(X) >= 0.0, 1.0, -1.0)

    def margins(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """y(θ·x + b) for every example; the hinge loss is max(0, 1 − margin)."""
        return y * self.decision(X)

    def hinge(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """max(0, 1 − y(θ·x + b)) for every example."""
        return np.maximum(0.0, 1.0 - self.margins(X, y))

    def error(self, X: Matrix, y: Float[ndarray, "n"]) -> float:
        """0-1 error: the fraction of examples classified wrongly. Eq. (1) of Koh et al. 2021."""
        return float(np.mean(self.predict(X) != y))
