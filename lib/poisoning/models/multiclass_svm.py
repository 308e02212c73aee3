"""The multi-class support vector machine of Crammer & Singer (2002), trained by AdaGrad.

    ℓ(θ; x, y) = max(0, 1 − θ_y·x + max_{j≠y} θ_j·x)          (Eq. 34 of Koh et al. 2021)

There is no regulariser and no intercept: stopping after a few passes regularises (Appendix B.3,
Table 1 of Koh et al. 2021).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning import checks
from poisoning.errors import SolverError
from poisoning.models.multiclass_svm_kernels import adagrad_pass

_LARGEST = 1e100


@dataclass(frozen=True)
class MulticlassModel:
    """Weights ``theta`` (k, d) of f(x) = argmax_j θ_j·x.

    Methods raise ``ValueError`` or ``TypeError`` for data that do not fit or are not finite, and
    for labels other than 0 … k − 1.
    """

    theta: Float[ndarray, "k d"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", checks.array(self.theta, "theta", (None, None)))

    def scores(self, X: Float[ndarray, "n d"]) -> Float[ndarray, "n k"]:
        """θ_j·x for every example and label."""
        scores = checks.known(X, "X", self.theta.shape[1]) @ self.theta.T
        if not np.abs(scores).max(initial=0.0) <= _LARGEST:
            raise ValueError("X must be finite, and small enough for scores within 1e100.")
        return scores

    def predict(self, X: Float[ndarray, "n d"]) -> Int[ndarray, "n"]:
        """The label 0…k−1 of the highest score; the lower label of equals."""
        return np.argmax(self.scores(X), axis=1)

    def losses(self, X: Float[ndarray, "n d"], y: Int[ndarray, "n"]) -> Float[ndarray, "n"]:
        """ℓ(θ; x, y) of every example."""
        scores = self.scores(X)
        y = checks.classes(y, "y", *scores.shape)
        rows = np.arange(len(y))
        own = scores[rows, y]
        scores[rows, y] = -np.inf
        return np.maximum(0.0, 1.0 - own + scores.max(axis=1))

    def error(self, X: Float[ndarray, "n d"], y: Int[ndarray, "n"]) -> float:
        """0-1 error: the fraction of examples classified wrongly."""
        predicted = self.predict(X)
        if not len(predicted):
            raise ValueError("X must have at least one row, it has none.")
        return float(np.mean(predicted != checks.classes(y, "y", len(predicted), len(self.theta))))


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
    start; here at 1, so that the first steps are not all of size ``step``.

    Raises:
        ValueError: labels outside 0…classes−1, fewer than two classes, or what is no data set.
        TypeError: ``X`` is sparse.
        SolverError: ``step`` is so long that the weights overflow.
    """
    classes = checks.whole(classes, "classes", 2)
    X = checks.rectangle(X, "X")
    y = checks.classes(y, "y", len(X), classes)
    batch, passes = checks.whole(batch, "batch"), checks.whole(passes, "passes", 0)
    step, rng = checks.positive(step, "step"), checks.generator(rng)
    theta = np.zeros((classes, X.shape[1]))
    accumulator = np.ones_like(theta)
    for _ in range(passes):
        adagrad_pass(theta, accumulator, X, y, rng.permutation(len(y)), batch, step)
    if not np.isfinite(theta).all():
        raise SolverError(
            f"multi-class SVM ({len(y)} examples): weights overflow with step {step:g}; lower it "
            "or rescale the features"
        )
    return MulticlassModel(theta)
