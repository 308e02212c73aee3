"""The linear classifier f(x) = sign(θ·x + b) that every binary experiment trains."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix


@dataclass(frozen=True)
class LinearModel:
    """Weights ``theta`` (d,) and intercept ``bias`` of f(x) = sign(θ·x + b).

    Methods raise ``ValueError`` or ``TypeError`` for data that do not fit, in number of columns or
    of labels, that are not finite, or whose labels are not −1 and +1.
    """

    theta: Float[ndarray, "d"]
    bias: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", checks.array(self.theta, "theta", (None,)))
        checks.between(self.bias, "bias", -np.inf, np.inf)

    def decision(self, X: Matrix) -> Float[ndarray, "n"]:
        """θ·x + b for every row."""
        scores = checks.known(X, "X", len(self.theta)) @ self.theta + self.bias
        if not checks.bounded(scores):
            raise ValueError("X must be finite, and small enough for scores within 1e100.")
        return scores

    def predict(self, X: Matrix) -> Float[ndarray, "n"]:
        """−1 or +1 for every row; a decision of exactly 0 counts as +1."""
        return np.where(self.decision(X) >= 0.0, 1.0, -1.0)

    def margins(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """y(θ·x + b) for every example; the hinge loss is max(0, 1 − margin)."""
        scores = self.decision(X)
        return checks.signs(y, "y", len(scores)) * scores

    def hinge(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """max(0, 1 − y(θ·x + b)) for every example."""
        return np.maximum(0.0, 1.0 - self.margins(X, y))

    def error(self, X: Matrix, y: Float[ndarray, "n"]) -> float:
        """0-1 error: the fraction of examples classified wrongly. Eq. (1) of Koh et al. 2021."""
        predicted = self.predict(X)
        if not len(predicted):
            raise ValueError("X must have at least one row, it has none.")
        return float(np.mean(predicted != checks.signs(y, "y", len(predicted))))
