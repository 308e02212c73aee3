"""The multi-class support vector machine of Crammer & Singer (2002), trained by AdaGrad.

    ℓ(θ; x, y) = max(0, 1 − θ_y·x + max_{j≠y} θ_j·x)          (Eq. 34 of Koh et al. 2021)

There is no regulariser and no intercept: stopping after a few passes regularises (Appendix B.3,
Table 1 of Koh et al. 2021).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning.models.multiclass_svm_kernels import adagrad_pass


@dataclass(frozen=True)
class MulticlassModel:
    """Weights ``theta`` (k, d) of f(x) = argmax_j θ_j·x."""

    theta: Float[ndarray, "k d"]

    def predict(self, X: Float[ndarray, "n d"]) -> Int[ndarray, "n"]:
        """The label 0…k−1 of the highest score; the lower label of equals."""
        return np.argmax(X @ self.theta.T, axis=1)

    def losses(self, X: Float[ndarray, "n d"], y: Int[ndarray, "n"]) -> Float[ndarray, "n"]:
        """ℓ(θ; x, y) of every example."""
        scores = X @ self.theta.T
        rows = np.arange(len(y))
        own = scores[rows, y]
        scores[rows, y] = -np.inf
        return np.maximum(0.0, 1.0 - own + scores.max(axis=1))

    def error(self, X: Float[ndarray, "n d"], y: Int[ndarray, "n"]) -> float:
        """0-1 error: the fraction of examples classified wrongly."""
        return float(np.mean(self.predict(X) != y))


def train_multiclass_svm(
    X: Float[ndarray, "n d"],
    y: Int[ndarray, "n"],
    classes: int,
    rng: np.random.Generator,
    *,
    batch: int = 20,
    step: float = 0.02,
    passes: int = 3,
) -> MulticlassModel:
    """AdaGrad on the mean of ℓ over each batch, from θ = 0, in an order ``rng`` shuffles per pass.

    The settings are those of Appendix B.3. The paper does not say where AdaGrad's accumulators
    start; here at 1, so that the first steps are not all of size ``step``. Raises ``ValueError``
    for labels outside 0…classes−1 or fewer than two classes.
    """
    if classes < 2 or y.size == 0 or y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels must lie in 0..classes-1 with classes >= 2, got {classes}")
    X = np.ascontiguousarray(X, dtype=np.float64)
    theta = np.zeros((classes, X.shape[1]))
    accumulator = np.ones_like(theta)
    for _ in range(passes):
        adagrad_pass(theta, accumulator, X, y, rng.permutation(len(y)), batch, step)
    return MulticlassModel(theta)
