"""Learners that defend themselves: by a λ learned on trusted data, or by a validated removal."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from poisoning import checks
from poisoning.arrays import Matrix
from poisoning.defenses.detector import examples, seeded
from poisoning.defenses.validation import removal_by_validation


class _Chosen(ClassifierMixin, BaseEstimator):
    """A classifier that trains several, and keeps one as ``model_``."""

    def _keep(self, model: Any) -> None:
        self.model_, self.classes_ = model, model.classes_
        if hasattr(model, "coef_"):
            self.coef_, self.intercept_ = model.coef_, model.intercept_

    def predict(self, X: Matrix) -> ndarray:
        """The chosen model's label for every row of ``X`` (n, d)."""
        check_is_fitted(self)
        return self.model_.predict(X)

    def decision_function(self, X: Matrix) -> ndarray:
        """The chosen model's decision for every row of ``X`` (n, d)."""
        check_is_fitted(self)
        return self.model_.decision_function(X)


class TrustedLambda(_Chosen):
    """A learner whose λ is learned: that of ``lams`` which errs least on trusted data.

    The defender of Carnerero-Cano et al. 2023, with a grid in place of gradient steps. ``learner``
    has a parameter ``lam``; ``X_trusted`` (t, d) and ``y_trusted`` (t,) are used for this choice
    alone. Of equal errors the first λ wins. Fitted: ``lam_``, ``model_``.
    """

    def __init__(
        self, learner: Any, lams: Sequence[float], X_trusted: Matrix, y_trusted: ndarray
    ) -> None:
        self.learner = learner
        self.lams = lams
        self.X_trusted = X_trusted
        self.y_trusted = y_trusted

    def fit(self, X: Matrix, y: ndarray) -> "TrustedLambda":
        """Train on ``X`` (n, d), ``y`` (n,) once for every λ.

        Raises ``ValueError`` or ``TypeError`` for data that do not fit, or no λ to choose from.
        """
        trusted, y_trusted = examples(self.X_trusted, self.y_trusted)
        X, y = examples(X, y, columns=trusted.shape[1])
        if isinstance(self.lams, str) or not len(self.lams):
            raise ValueError(f"lams must hold at least one λ, not {self.lams!r}.")
        lams = [checks.positive(lam, "lams") for lam in self.lams]
        models = [seeded(clone(self.learner)).set_params(lam=lam).fit(X, y) for lam in lams]
        errors = [float(np.mean(model.predict(trusted) != y_trusted)) for model in models]
        best = int(np.argmin(errors))
        self.lam_ = lams[best]
        self._keep(models[best])
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
