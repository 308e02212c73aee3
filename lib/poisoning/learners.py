"""The solvers of :mod:`poisoning.models` as scikit-learn classifiers.

Each has ``fit``, ``decision_function`` and ``predict``; the mathematics is in the module that its
docstring names.
"""

from hashlib import blake2b
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int
from numpy import ndarray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from poisoning import checks
from poisoning.arrays import Matrix
from poisoning.models.linear import LinearModel
from poisoning.models.logistic import train_logistic
from poisoning.models.multiclass_svm import MulticlassModel, train_multiclass_svm
from poisoning.models.sgd import train_one_pass
from poisoning.models.svm import train_svm


class _TwoClasses(ClassifierMixin, BaseEstimator):
    """A linear classifier of two classes; a decision of exactly 0 counts as the higher label."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "_TwoClasses":
        """Train on ``X`` (n, d), dense or sparse, with labels ``y`` (n,) of two kinds.

        ``sample_weight`` (n,) ≥ 0: an example of weight k counts as k copies.

        Raises:
            ValueError: the data do not have this form, or λ ≤ 0.
            SolverError: the tolerance is not reached.
        """
        checks.unmasked(X, "X")
        checks.unmasked(y, "y")
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(
                f"Only binary classification is supported by {type(self).__name__}: y has "
                f"{len(self.classes_)} class{'es' if len(self.classes_) > 1 else ''}."
            )
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        X = sp.csr_array(X) if sp.issparse(X) else X
        self._train(X, np.where(codes == 1, 1.0, -1.0), weights)
        return self

    def _train(self, X: Matrix, y: ndarray, weights: ndarray | None) -> None:
        raise NotImplementedError

    def _keep(self, model: LinearModel, iterations: int = 1) -> None:
        self.coef_, self.intercept_ = model.theta[None, :], np.array([model.bias])
        self.n_iter_ = iterations

    def decision_function(self, X: Any) -> ndarray:
        """θ·x + b for every row of ``X`` (n, d)."""
        check_is_fitted(self)
        checks.unmasked(X, "X")
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        X = sp.csr_array(X) if sp.issparse(X) else X
        return LinearModel(self.coef_[0], float(self.intercept_[0])).decision(X)

    def predict(self, X: Any) -> ndarray:
        """A label of ``classes_`` for every row of ``X`` (n, d)."""
        higher = self.decision_function(X) >= 0.0
        return self.classes_[higher.astype(np.int64)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.sparse = True
        return tags


class SVM(_TwoClasses):
    """min λ/2 ‖(θ, b)‖² + mean of max(0, 1 − y(θ·x + b)), certified; :mod:`poisoning.models.svm`.

    ``lam`` is λ; ``tol`` the duality gap as a fraction of the objective at which training ends, and
    ``max_epochs`` the passes after which an interior point takes over. Fitted: ``coef_`` (1, d),
    ``intercept_`` (1,), ``classes_``, and ``solution_``, with dual variables and certificate.
    """

    def __init__(self, lam: float = 0.01, *, tol: float = 1e-6, max_epochs: int = 2_000) -> None:
        self.lam = lam
        self.tol = tol
        self.max_epochs = max_epochs

    def _train(
        self, X: Matrix, y: ndarray, weights: ndarray | None, start: ndarray | None = None
    ) -> None:
        self.solution_ = train_svm(
            X, y, self.lam, weights=weights, alpha0=start, tol=self.tol, max_epochs=self.max_epochs
        )
        self._keep(self.solution_.model, self.solution_.epochs)

    def fit_added(self, X: Matrix, y: ndarray, sample_weight: ndarray, clean: "SVM") -> "SVM":
        """``fit`` with labels −1 and +1, warm-started from ``clean``, which fits the first rows.

        Games call it on clean data followed by poison, with weights 0 or 1.

        Raises ``ValueError`` or ``TypeError`` for data that do not fit, ``NotFittedError`` if
        ``clean`` is not fitted.
        """
        check_is_fitted(checks.instance(clean, "clean", SVM))
        known = clean.solution_.alpha
        X = checks.known(X, "X", clean.n_features_in_)
        y = checks.signs(y, "y", X.shape[0])
        sample_weight = checks.weights(sample_weight, "sample_weight", len(y))
        if len(y) < len(known):
            raise ValueError(f"X must begin with the {len(known)} rows of clean, it has {len(y)}.")
        start = np.zeros(len(y))
        start[: len(known)] = known * (len(known) / sample_weight.sum())
        self.classes_, self.n_features_in_ = clean.classes_, X.shape[1]
        self._train(X, y, sample_weight, start)
        return self


class LogisticRegression(_TwoClasses):
    """min λ/2 ‖(θ, b)‖² + mean of log(1 + exp(−y(θ·x + b))); :mod:`poisoning.models.logistic`.

    ``lam`` is λ; training ends when the norm of the gradient is ``tol`` of the largest it can be at
    0, and fails after ``max_iterations`` iterations. Fitted: ``coef_`` (1, d), ``intercept_`` (1,),
    ``classes_``, ``solution_``.
    """

    def __init__(self, lam: float = 0.01, *, tol: float = 1e-10, max_iterations: int = 500) -> None:
        self.lam = lam
        self.tol = tol
        self.max_iterations = max_iterations

    def _train(self, X: Matrix, y: ndarray, weights: ndarray | None) -> None:
        self.solution_ = train_logistic(
            X, y, self.lam, weights=weights, tol=self.tol, max_iterations=self.max_iterations
        )
        self._keep(self.solution_.model, self.solution_.iterations)


class OnePassSVM(_TwoClasses):
    """One pass of stochastic gradient descent on the SVM's objective; :mod:`poisoning.models.sgd`.

    ``lam`` is λ; ``random_state``, a seed, determines the order of the examples; with ``average``
    the model is the mean of all iterates, not the last one.
    """

    def __init__(self, lam: float = 0.01, *, random_state: int = 0, average: bool = False) -> None:
        self.lam = lam
        self.random_state = random_state
        self.average = average

    def fit(self, X: Any, y: Any) -> "OnePassSVM":
        """Train on ``X`` (n, d), dense or sparse, with labels ``y`` (n,) of two kinds."""
        return super().fit(X, y)

    def _train(self, X: Matrix, y: ndarray, weights: ndarray | None) -> None:
        self._keep(train_one_pass(X, y, self.lam, seed=self.random_state, average=self.average))


class CrammerSingerSVM(ClassifierMixin, BaseEstimator):
    """Crammer & Singer's multi-class hinge, by AdaGrad; :mod:`poisoning.models.multiclass_svm`.

    The only regularisation is to stop after ``passes`` over the data. An example of weight 2 would
    then differ from two copies, so there are no sample weights. ``batch`` examples share a step of
    length ``step``. ``random_state``, a seed or a ``numpy.random.Generator``, shuffles them.
    Fitted: ``coef_`` (k, d), ``classes_``. There is no intercept.
    """

    def __init__(
        self,
        *,
        batch: int = 20,
        step: float = 0.02,
        passes: int = 3,
        random_state: int | np.random.Generator | None = 0,
    ) -> None:
        self.batch = batch
        self.step = step
        self.passes = passes
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "CrammerSingerSVM":
        """Train on ``X`` (n, d) with labels ``y`` (n,) of at least two kinds."""
        checks.unmasked(X, "X")
        checks.unmasked(y, "y")
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"CrammerSingerSVM needs two classes, y has 1 class: {self.classes_[0]}."
            )
        self.coef_ = train_multiclass_svm(
            X, codes.astype(np.int64), len(self.classes_), np.random.default_rng(self.random_state),
            batch=self.batch, step=self.step, passes=self.passes,
        ).theta  # fmt: skip
        self.n_iter_ = self.passes
        return self

    def decision_function(self, X: Any) -> ndarray:
        """θ_j·x for every row of ``X`` and class j; with two classes their difference."""
        check_is_fitted(self)
        checks.unmasked(X, "X")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        scores = X @ self.coef_.T
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> ndarray:
        """The label of the highest score; of equal scores the lower label."""
        check_is_fitted(self)
        checks.unmasked(X, "X")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.classes_[np.argmax(X @ self.coef_.T, axis=1)]

    def losses(self, X: ndarray, y: ndarray) -> ndarray:
        """max(0, 1 − θ_y·x + max_{j≠y} θ_j·x) of every example; Eq. (34) of Koh et al. 2021."""
        check_is_fitted(self)
        checks.unmasked(X, "X")
        checks.unmasked(y, "y")
        y = column_or_1d(y)
        strange = np.setdiff1d(y, self.classes_)
        if strange.size:
            raise ValueError(f"y holds the label {strange[0]}, which fit has not seen.")
        return MulticlassModel(self.coef_).losses(X, np.searchsorted(self.classes_, y))


class PartitionedVote(ClassifierMixin, BaseEstimator):
    """A vote among models that share no training example; Levine & Feizi 2021.

    A hash of its features assigns every example to one of ``parts`` parts, a copy of ``learner``
    (None: ``SVM()``) is trained on each, and the models vote; ties go to the class that comes
    first. A part that holds one class votes for it, an empty part for the first class. No example
    changes more than one vote, see :mod:`poisoning.certificates.partition`. Fitted: ``classes_``,
    and ``models_`` with a model or a constant vote for each part.
    """

    def __init__(self, learner: Any = None, parts: int = 10) -> None:
        self.learner = learner
        self.parts = parts

    def fit(self, X: Any, y: Any) -> "PartitionedVote":
        """Train on ``X`` (n, d), dense or sparse, with labels ``y`` (n,)."""
        parts = checks.whole(self.parts, "parts")
        checks.unmasked(X, "X")
        checks.unmasked(y, "y")
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        X = sp.csr_array(X) if sp.issparse(X) else X
        members = assigned(X, parts)
        rows = [np.flatnonzero(members == part) for part in range(parts)]
        self.models_ = [self._trained(X[mine], y[mine]) for mine in rows]
        return self

    def _trained(self, X: Matrix, y: ndarray) -> Any:
        """The model of one part, or the label that it votes for whatever the point."""
        if len(np.unique(y)) < 2:
            return y[0] if len(y) else self.classes_[0]
        return clone(self._model).fit(X, y)

    @property
    def _model(self) -> Any:
        return SVM() if self.learner is None else self.learner

    def votes(self, X: Any) -> Int[ndarray, "m k"]:
        """How many models vote for each of ``classes_``, for every row of ``X`` (m, d)."""
        check_is_fitted(self)
        checks.unmasked(X, "X")
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        X = sp.csr_array(X) if sp.issparse(X) else X
        votes = np.zeros((X.shape[0], len(self.classes_)), dtype=np.int64)
        for model in self.models_:
            # A copy, since a learner may change what it is given.
            said = (
                checks.predicted(model, X.copy())
                if hasattr(model, "predict")
                else np.array([model])
            )
            votes += said[:, None] == self.classes_
        return votes

    def predict(self, X: Any) -> ndarray:
        """The label of most votes for every row of ``X`` (m, d); of equal votes the lower label."""
        most = np.argmax(self.votes(X), axis=1)
        return self.classes_[most]

    def __sklearn_tags__(self) -> Any:
        tags, own = super().__sklearn_tags__(), get_tags(self._model)
        tags.classifier_tags.multi_class = own.classifier_tags.multi_class
        tags.input_tags.sparse = own.input_tags.sparse
        return tags


def assigned(X: Matrix, parts: int) -> Int[ndarray, "n"]:
    """The part of every row of ``X`` (n, d), a function of that row alone, sparse or dense.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument.
    """
    X, parts = checks.matrix(X, "X"), checks.whole(parts, "parts")
    X = sp.csr_array(X, copy=True)  # what follows works in place
    X.eliminate_zeros()
    X.sort_indices()
    columns, values = X.indices.astype("<i8"), X.data.astype("<f8")
    found = np.empty(X.shape[0], dtype=np.int64)
    for i, (start, stop) in enumerate(zip(X.indptr[:-1], X.indptr[1:], strict=True)):
        content = blake2b(columns[start:stop].tobytes(), digest_size=8)
        content.update(values[start:stop].tobytes())
        found[i] = int.from_bytes(content.digest(), "little") % parts
    return found
