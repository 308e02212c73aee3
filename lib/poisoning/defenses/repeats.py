"""A defender who throws out repeated points: Koh et al. 2021, Section 3.1."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from poisoning.arrays import Matrix, first_rows
from poisoning.defenses.detector import examples, fitted


@dataclass
class RepeatsDefense:
    """∞ for every point that is equal, label included, to one before it; 0 for the others.

    So of equal points the first stays, whatever fraction a game removes. In a game clean points
    come first: a poisoned copy of a clean point goes.
    """

    name = "repeats"
    cost = 1

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "RepeatsDefense":
        """Learn nothing: points are compared with those that are scored with them.

        Raises ``ValueError`` or ``TypeError`` for what is no data set.
        """
        self.columns_ = examples(X, y)[0].shape[1]
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """∞ for every row of ``X`` (n, d) that repeats an earlier one, 0 otherwise.

        Raises ``NotFittedError`` before ``fit``.
        """
        X, y = examples(X, y, columns=fitted(self, "columns_"))
        scores = np.full(len(y), np.inf)
        for label in np.unique(y):
            members = np.flatnonzero(y == label)
            scores[members[first_rows(X[members])]] = 0.0
        return scores
