"""The learner that :mod:`poisoning.certificates.partition` certifies: a vote among partitions."""

from typing import Any

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.utils.validation import check_is_fitted

from poisoning import checks
from poisoning.arrays import Matrix
from poisoning.certificates.partition import assigned
from poisoning.defenses.detector import examples, seeded


class PartitionVote(ClassifierMixin, BaseEstimator):
    """``parts`` copies of ``learner``, each trained on the rows that a hash assigns to it, vote.

    A part that holds one class votes for it, an empty part for the first class. Ties go to the
    class that comes first. A learner whose ``random_state`` is None gets seed 0. Fitted:
    ``models_``, ``classes_``.
    """

    def __init__(self, learner: Any, parts: int = 50) -> None:
        self.learner = learner
        self.parts = parts

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "PartitionVote":
        """Train on ``X`` (n, d), dense or sparse, with labels ``y`` (n,).

        Raises ``ValueError`` or ``TypeError`` for what is no data set, or no number of parts.
        """
        X, y = examples(X, y)
        members = assigned(X, checks.whole(self.parts, "parts"))
        self.classes_, self.n_features_in_ = np.unique(y), X.shape[1]
        self.models_ = [self._model(X[members == k], y[members == k]) for k in range(self.parts)]
        return self

    def _model(self, X: Matrix, y: Shaped[ndarray, "m"]) -> Any:
        if len(np.unique(y)) < 2:
            only = y[0] if len(y) else self.classes_[0]
            return DummyClassifier(strategy="constant", constant=[only]).fit([[0.0]], [only])
        return seeded(clone(self.learner)).fit(X, y)

    def votes(self, X: Matrix) -> Int[ndarray, "m k"]:
        """How many models vote for each of the classes on each row of ``X`` (m, d)."""
        check_is_fitted(self)
        X = checks.matrix(X, "X", columns=self.n_features_in_)
        return sum(model.predict(X)[:, None] == self.classes_ for model in self.models_)

    def predict(self, X: Matrix) -> Shaped[ndarray, "m"]:
        """The class with most votes, for every row of ``X`` (m, d)."""
        return self.classes_[np.argmax(self.votes(X), axis=1)]
