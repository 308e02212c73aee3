"""What every defense shares: fit on what the defender sees, score, cut the worst of each class.

Section 2.2 of Koh et al. 2021. A defense is an outlier detector that may look at labels. Any
detector of scikit-learn or pyod becomes one by :func:`as_defense`.
"""

import re
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, with_short_indices

_ROUNDING = 1e-9  # scores this close, relatively, are tied: copies of one row must stay together


@runtime_checkable
class Defense(Protocol):
    """Anomaly scores whose parameters β are fitted to a data set.

    A defense may also have the following attributes, which a game then uses:

    * ``name``: the name of its results; by default from its class;
    * ``score_added(data)``: the scores of ``fit(data.X, data.y).score(data.X, data.y)``, computed
      faster from cached quantities of the clean data
      (:class:`~poisoning.defenses.data.PoisonedData`);
    * ``cost``: an attack that tries many candidates measures them behind cheap defenses first; L2
      has cost 0, k-NN 3, SVD 4, a defense without this attribute 5;
    * ``learner``: if it is None, the learner of the game.
    """

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "Defense":
        """Learn β from clean and poisoned points together."""

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """s_β(x, y) for every point: larger is more anomalous, ∞ is always removed."""


@dataclass
class Unsupervised:
    """An outlier detector of scikit-learn or pyod as a defense; it does not see labels.

    A copy of ``detector`` is fitted, never ``detector`` itself. If its ``random_state`` is None,
    the copy uses the seed 0.
    """

    detector: Any

    @property
    def name(self) -> str:
        """The detector's class, in lower case with hyphens."""
        return hyphenated(type(self.detector).__name__)

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "Unsupervised":
        """Fit a copy of the detector to ``X``."""
        X, _ = examples(X, y)
        detector = seeded(deepcopy(self.detector)).fit(self._readable(X))
        self.detector_, self.columns_ = detector, X.shape[1]
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Minus scikit-learn's ``score_samples``, or pyod's ``decision_function``."""
        detector = fitted(self, "detector_")
        X, y = examples(X, y, columns=self.columns_)
        readable = self._readable(X)
        if _is_pyod(detector):
            return np.asarray(detector.decision_function(readable), dtype=np.float64)
        if hasattr(detector, "score_samples"):
            return -np.asarray(detector.score_samples(readable), dtype=np.float64)
        own = np.asarray(detector.negative_outlier_factor_, dtype=np.float64)  # local outliers
        if len(own) != len(y):
            raise ValueError(
                f"X must be the {len(own)} rows that {self.name} was fitted to, the only ones that "
                f"it can score; it has {len(y)}."
            )
        return -own

    def _readable(self, X: Matrix) -> Matrix:
        if not sp.issparse(X):
            return X
        tags = getattr(self.detector, "__sklearn_tags__", None)
        if tags is not None and tags().input_tags.sparse and not _is_pyod(self.detector):
            return with_short_indices(X)
        return X.toarray()


def as_defense(detector: Any) -> Defense:
    """``detector`` as a defense: itself, or an outlier detector of scikit-learn or pyod wrapped.

    Raises:
        TypeError: it has neither of the two interfaces, or is a class and not an object.
    """
    if isinstance(detector, type):
        raise TypeError(f"a defense is an object: write {detector.__name__}().")
    foreign = (
        _is_pyod(detector)
        or hasattr(detector, "score_samples")
        or hasattr(type(detector), "score_samples")
    )
    if foreign and hasattr(detector, "fit"):
        return Unsupervised(detector)
    if hasattr(detector, "fit") and hasattr(detector, "score"):
        return detector
    raise TypeError(
        f"{detector!r} is no defense: it needs fit(X, y) and score(X, y), or the interface of an "
        "outlier detector of scikit-learn or pyod."
    )


def equipped(defense: Defense, learner: Any) -> Defense:
    """A copy of ``defense``; an attribute ``learner`` that is None becomes ``learner``."""
    defense = deepcopy(defense)
    if getattr(defense, "learner", defense) is None:
        defense.learner = learner
    return defense


def seeded(estimator: Any, seed: Any = None) -> Any:
    """``estimator`` itself, every ``random_state`` in it set to ``seed``, also in nested steps.

    Without a ``seed``, those that are None become 0: two fits then give the same.
    """
    parameters = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    states = {key: value for key, value in parameters.items() if key.endswith("random_state")}
    chosen = {
        k: 0 if seed is None else seed for k, v in states.items() if seed is not None or v is None
    }
    if chosen:
        estimator.set_params(**chosen)
    return estimator


def scored(defense: Any, X: Matrix, y: Shaped[ndarray, "n"]) -> Any:
    """Scores of all points by a defense fitted to the same ones; ``fit`` may return nothing."""
    fitted = defense.fit(X, y)
    # Fresh copies, since a detector may change what it is given.
    return (defense if fitted is None else fitted).score(X.copy(), y.copy())


def name_of(defense: Any) -> str:
    """The name of a defense's results."""
    return getattr(defense, "name", None) or hyphenated(type(defense).__name__)


def scores_added(defense: Any) -> bool:
    """Whether ``score_added`` counts: not that of a base whose ``fit`` or ``score`` does not."""
    for kind in type(defense).__mro__:
        if "score_added" in vars(kind):
            return True
        if "score" in vars(kind) or "fit" in vars(kind):
            return False
    return hasattr(defense, "score_added")


def examples(X: Any, y: Any, *, columns: int | None = None) -> tuple[Matrix, Shaped[ndarray, "n"]]:
    """What a defense is given, checked: a matrix, and a label −1, +1 or 0 … k − 1 for every row."""
    X = checks.matrix(X, "X", columns=columns)
    return X, checks.labels(y, "y", X.shape[0])


def fitted(defense: Any, attribute: str) -> Any:
    """What ``fit`` has stored in ``attribute``.

    Raises ``NotFittedError`` before ``fit``.
    """
    if attribute not in vars(defense):
        from sklearn.exceptions import NotFittedError  # takes a second

        raise NotFittedError(f"{type(defense).__name__} is not fitted: call fit before score.")
    return vars(defense)[attribute]


def hyphenated(name: str) -> str:
    """``IsolationForest`` as ``isolation-forest``, ``ECOD`` as ``ecod``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def _is_pyod(detector: Any) -> bool:
    return any(base.__module__.startswith("pyod.") for base in type(detector).__mro__)


def threshold(scores: Float[ndarray, "n"], remove: float) -> float:
    """τ: the (1 − ``remove``) quantile, the least score that this fraction does not exceed.

    Raises ``ValueError`` unless 0 ≤ ``remove`` < 1 and there are scores, none of them NaN.
    """
    remove = checks.fraction(remove, "remove")
    scores = checks.bounds(scores, "scores", None)
    if not len(scores):
        raise ValueError("scores must hold at least one score.")
    kept = max(1, int(np.ceil((1.0 - remove) * len(scores) - 1e-9)))
    return float(np.partition(scores, kept - 1)[kept - 1])


def keep_mask(
    scores: Float[ndarray, "n"], y: Shaped[ndarray, "n"], remove: float
) -> Bool[ndarray, "n"]:
    """Which points survive a cut of the fraction ``remove`` of each class.

    A point stays if s ≤ τ_y. The paper writes s < τ_y; with its strict sign all points with a score
    equal to the threshold would be removed, possibly more than the fraction. Here at most ⌊remove ·
    n_y⌋ points of a class are removed, fewer if there are ties; scores that differ by rounding
    count as tied. Raises ``ValueError`` unless 0 ≤ ``remove`` < 1, or if a score is NaN.
    """
    remove = checks.fraction(remove, "remove")
    y = checks.labels(y, "y", None)
    scores = checks.bounds(scores, "scores", len(y))
    keep = scores < np.inf
    for label in np.unique(y):
        members = y == label
        tau = threshold(scores[members], remove)
        tied = _ROUNDING * abs(tau) if np.isfinite(tau) else 0.0
        keep[members] &= scores[members] <= tau + tied
    return keep


def sanitize(
    defense: Defense, X: Matrix, y: Shaped[ndarray, "n"], remove: float = 0.05
) -> Bool[ndarray, "n"]:
    """D_san = D ∩ F_β: which points a defense keeps when fitted on the very data it cleans.

    ``X`` (n, d), ``y`` (n,) are clean and poisoned points together, as the defender sees them;
    ``remove`` is the fraction p of every class.
    """
    remove = checks.fraction(remove, "remove")
    X, y = examples(X, y)
    return keep_mask(scored(deepcopy(as_defense(defense)), X, y), y, remove)
