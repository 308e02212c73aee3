"""RONI: reject on negative impact, measured on data that the defender trusts.

Nelson et al. 2008 ("Exploiting machine learning to subvert your spam filter"), Section 5.1: a point
is rejected if training on it as well makes a model of a few trusted points err more.
"""

from typing import Any

import joblib
import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from sklearn.base import clone

from poisoning import checks
from poisoning.arrays import Matrix, distinct_rows, vstack
from poisoning.defenses.data import PoisonedData
from poisoning.defenses.detector import examples, seeded


class RONIDefense:
    """How much a point, added to trusted training data, raises the hinge loss on trusted test data.

    ``X`` (t, d), ``y`` (t,), −1 and +1, at least two of each, are trusted: of each class every
    other one trains, the rest test. The paper counts errors, too few to rank points by; the mean
    hinge loss is finer. ``learner`` is a scikit-learn classifier with ``decision_function``. A
    point's score does not depend on the other points.

    Raises ``ValueError`` or ``TypeError`` for what is no such data.
    """

    name = "roni"
    cost = 5

    def __init__(self, X: Matrix, y: Shaped[ndarray, "t"], learner: Any) -> None:
        self.X, self.y = examples(X, y)
        checks.signs(self.y, "y", len(self.y))
        members = [np.flatnonzero(self.y == label) for label in (-1.0, 1.0)]
        fewest = min(len(rows) for rows in members)
        if fewest < 2:
            raise ValueError(f"y must hold at least two of -1 and two of +1, one has {fewest}.")
        self.train = np.concatenate([rows[::2] for rows in members])
        self.test = np.concatenate([rows[1::2] for rows in members])
        self.learner = seeded(clone(learner))
        self._content = ("roni", joblib.hash((self.X, self.y, self.learner.get_params())))

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "RONIDefense":
        """Learn nothing from data that are not trusted.

        Raises ``ValueError`` or ``TypeError`` for what is no data set.
        """
        examples(X, y, columns=self.X.shape[1])
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """The rise of the mean loss on the trusted test points, for each row of ``X`` (n, d)."""
        return self._rises(*examples(X, y, columns=self.X.shape[1]))

    def score_added(self, data: PoisonedData) -> Float[ndarray, "m"]:
        """The same for clean points, whose scores no poison changes, and for poison."""
        clean = data.clean
        known = clean.remember(self._content, lambda: self._rises(clean.X, clean.y))
        return np.concatenate([known, self._rises(data.X_poison, data.y_poison)])

    def _rises(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Train once for every distinct example."""
        scores = np.zeros(len(y))
        for label in np.unique(y):
            members = np.flatnonzero(y == label)
            distinct, _, which = distinct_rows(X[members])
            found = [self._loss(distinct[i : i + 1], [label]) for i in range(distinct.shape[0])]
            scores[members] = np.array(found)[which]
        return scores - self._loss(self.X[:0], [])

    def _loss(self, X: Matrix, y: Any) -> float:
        """The mean hinge loss on the trusted test points of a model that trains on these too."""
        model = clone(self.learner).fit(
            vstack([self.X[self.train], X]), np.concatenate([self.y[self.train], y])
        )
        margins = self.y[self.test] * np.ravel(model.decision_function(self.X[self.test]))
        return float(np.mean(np.maximum(0.0, 1.0 - margins)))
