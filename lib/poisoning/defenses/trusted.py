"""Learners that defend themselves: by a choice on trusted data, or by discarding."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from poisoning.arrays import Matrix
from poisoning.checks import predicted
from poisoning.defenses.detector import (
    as_defense,
    equipped,
    examples,
    sanitize,
    seeded,
)
from poisoning.defenses.validation import removal_by_validation


def _has(method: str) -> Callable[["_Chosen"], bool]:
    """Whether the model has ``method``; before one is chosen, whether all learners have."""

    def check(self: "_Chosen") -> bool:
        models = [self.model_] if hasattr(self, "model_") else self._learners()
        return all(hasattr(model, method) for model in models)

    return check


class _Chosen(ClassifierMixin, BaseEstimator):
    """A classifier that trains others, and keeps one as ``model_``."""

    def _learners(self) -> Sequence[Any]:
        return [self.learner]

    def _keep(self, model: Any) -> None:
        self.model_, self.classes_ = model, model.classes_
        if hasattr(model, "coef_"):
            self.coef_, self.intercept_ = model.coef_, model.intercept_

    def predict(self, X: Matrix) -> ndarray:
        """The chosen model's label for every row of ``X`` (n, d)."""
        check_is_fitted(self)
        return self.model_.predict(X)

    @available_if(_has("decision_function"))
    def decision_function(self, X: Matrix) -> ndarray:
        """The chosen model's decision for every row of ``X`` (n, d)."""
        check_is_fitted(self)
        return self.model_.decision_function(X)

    @available_if(_has("predict_proba"))
    def predict_proba(self, X: Matrix) -> ndarray:
        """The chosen model's P(y | x) for every row of ``X`` (n, d), by ``classes_``."""
        check_is_fitted(self)
        return self.model_.predict_proba(X)


class TrustedChoice(_Chosen):
    """Of several ``learners`` that which errs least on trusted data.

    With one SVM for each λ it is the defender of Carnerero-Cano et al. 2023, with a grid in place
    of gradient steps. ``X_trusted`` (t, d) and ``y_trusted`` (t,) are used for the choice alone. Of
    equal errors the first learner wins. Fitted: ``chosen_``, its index, and ``model_``.
    """

    def __init__(self, learners: Sequence[Any], X_trusted: Matrix, y_trusted: ndarray) -> None:
        self.learners = learners
        self.X_trusted = X_trusted
        self.y_trusted = y_trusted

    def _learners(self) -> Sequence[Any]:
        return self.learners

    def fit(self, X: Matrix, y: ndarray) -> "TrustedChoice":
        """Train every learner on ``X`` (n, d), ``y`` (n,).

        Raises ``ValueError`` or ``TypeError`` for data that do not fit, or no learner.
        """
        trusted, y_trusted = examples(self.X_trusted, self.y_trusted)
        X, y = examples(X, y, columns=trusted.shape[1])
        if not isinstance(self.learners, Sequence) or not len(self.learners):
            raise ValueError(f"learners must hold at least one, not {self.learners!r}.")
        models = [seeded(clone(learner)).fit(X, y) for learner in self.learners]
        errors = [float(np.mean(predicted(model, trusted) != y_trusted)) for model in models]
        self.chosen_ = int(np.argmin(errors))
        self._keep(models[self.chosen_])
        return self


class Sanitized(_Chosen):
    """A learner of the points that a ``defense`` keeps when it discards ``remove`` of each class.

    Fitted: ``keep_`` (n,), ``model_``.
    """

    def __init__(self, defense: Any, learner: Any, remove: float = 0.05) -> None:
        self.defense = defense
        self.learner = learner
        self.remove = remove

    def fit(self, X: Matrix, y: ndarray) -> "Sanitized":
        """Clean and train on ``X`` (n, d), ``y`` (n,).

        Raises ``ValueError`` or ``TypeError`` as :func:`~poisoning.defenses.detector.sanitize`.
        """
        X, y = examples(X, y)
        self.keep_ = sanitize(equipped(as_defense(self.defense), self.learner), X, y, self.remove)
        self._keep(seeded(clone(self.learner)).fit(X[self.keep_], y[self.keep_]))
        return self


class ValidatedRemoval(_Chosen):
    """A learner behind a ``defense`` that discards the fraction which held-out data choose.

    See :func:`~poisoning.defenses.validation.removal_by_validation`; ``random_state``, a seed,
    draws the fifth that is held out. Fitted: ``remove_``, ``model_``.
    """

    def __init__(
        self, defense: Any, learner: Any, removals: Sequence[float], *, random_state: int = 0
    ) -> None:
        self.defense = defense
        self.learner = learner
        self.removals = removals
        self.random_state = random_state

    def fit(self, X: Matrix, y: ndarray) -> "ValidatedRemoval":
        """Clean and train on ``X`` (n, d), ``y`` (n,).

        Raises ``ValueError`` or ``TypeError`` as ``removal_by_validation`` does.
        """
        self.remove_, model = removal_by_validation(
            self.defense, self.learner, X, y, self.removals, self.random_state
        )
        self._keep(model)
        return self
