"""The loss defense: points that a model trained on everything fits badly."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from poisoning.arrays import Matrix
from poisoning.defenses.data import PoisonedData
from poisoning.defenses.detector import examples, fitted
from poisoning.models.linear import LinearModel


@dataclass
class LossDefense:
    """s(x, y) = 1 − y f(x), the hinge loss without its floor at 0, with f trained on all points.

    Koh et al. 2021, Section 2.2. The paper scores by the loss itself, under which every point
    fitted with a margin is tied at 0. The cut is the same whenever it falls on points with a
    positive loss; otherwise the signed score still removes the requested fraction, worst margin
    first. ``learner`` is a scikit-learn classifier, in a game by default the game's own. If the
    model has a method ``losses(X, y)``, the scores are its values.
    """

    learner: Any = None

    name = "loss"
    cost = 2

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "LossDefense":
        """Train the learner, as ``model_``.

        Raises ``ValueError`` without a learner.
        """
        X, y = examples(X, y)
        self.columns_ = X.shape[1]
        return self._fit(X, y)

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """One minus the margin of every point.

        Raises ``NotFittedError`` before ``fit``, ``ValueError`` for a label that ``fit`` has not
        seen.
        """
        model = fitted(self, "model_")
        return signed_losses(model, *examples(X, y, columns=self.columns_))

    def score_added(self, data: PoisonedData) -> Float[ndarray, "n"]:
        """The scores under the model that the game's learner trains on all points."""
        if self.learner is None:
            return _signed_losses(data.undefended(), data.X, data.y)
        return _signed_losses(replace(self)._fit(data.X, data.y).model_, data.X, data.y)

    def _fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "LossDefense":
        if self.learner is None:
            raise ValueError(
                "learner: outside a game the loss defense needs one, such as LossDefense(SVM())"
            )
        from sklearn.base import clone  # takes a second

        self.model_ = clone(self.learner).fit(X, y)
        return self


def signed_losses(model: Any, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
    """1 − y f(x) for two classes, 1 − f_y(x) + max_{j≠y} f_j(x) for more.

    A model without ``decision_function`` is scored by 1 − P(y | x), its ``predict_proba``.

    Raises ``TypeError`` for a model without either, ``ValueError`` for a label that is none of the
    model's.
    """
    X, y = examples(X, y)
    known = (-1.0, 1.0) if isinstance(model, LinearModel) else getattr(model, "classes_", y)
    strange = np.setdiff1d(y, known)
    if strange.size:
        raise ValueError(f"y holds the label {strange[0]:g}, which the model does not know.")
    return _signed_losses(model, X, y)


def _signed_losses(model: Any, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
    """The same for data that were checked before."""
    if hasattr(model, "losses"):
        return model.losses(X, y)
    if isinstance(model, LinearModel):
        return 1.0 - model.margins(X, y)
    rows, own = np.arange(len(y)), np.searchsorted(model.classes_, y)
    if not hasattr(model, "decision_function"):
        if not hasattr(model, "predict_proba"):
            raise TypeError(
                "the loss defense needs a learner with decision_function or predict_proba, "
                f"{type(model).__name__} has neither"
            )
        return 1.0 - np.asarray(model.predict_proba(X), dtype=np.float64)[rows, own]
    scores = np.asarray(model.decision_function(X), dtype=np.float64)
    if scores.ndim == 1:
        return 1.0 - np.where(y == model.classes_[1], 1.0, -1.0) * scores
    if scores.shape != (len(y), len(model.classes_)):
        raise ValueError(
            f"the loss defense needs a score of each of {len(model.classes_)} classes for each of "
            f"{len(y)} points, those of {type(model).__name__} have the shape {scores.shape}."
        )
    mine = scores[rows, own].copy()
    scores[rows, own] = -np.inf
    return 1.0 - mine + scores.max(axis=1)
