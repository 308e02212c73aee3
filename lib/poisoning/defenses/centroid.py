"""The L2 and the slab defense: distance from the class centroid, whole or along one line."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from poisoning.arrays import Matrix, column_mean, squared_distances


@dataclass
class L2Defense:
    """s(x, y) = ‖x − μ_y‖₂ with μ_y = E[x | y]; any number of classes.

    Koh et al. 2021, Section 2.2.
    """

    name = "l2"
    cost = 0

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "L2Defense":
        """Compute the centroid of every label present, as ``centroids_``."""
        self.centroids_ = {label: column_mean(X[y == label]) for label in np.unique(y).tolist()}
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every point from the centroid of its class."""
        scores = np.empty(len(y))
        for label in np.unique(y).tolist():
            members = y == label
            scores[members] = np.sqrt(squared_distances(X[members], self.centroids_[label]))
        return scores


@dataclass
class SlabDefense:
    """s(x, y) = |(μ₊ − μ₋)·(x − μ_y)|, of two classes −1 and +1.

    Koh et al. 2021, Section 2.2.
    """

    name = "slab"
    cost = 1

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "SlabDefense":
        """Compute the centroids, as ``positive_`` and ``negative_`` (d,).

        Raises ``ValueError`` unless both classes are there: there is then no line between them.
        """
        if not set(np.unique(y)) == {-1.0, 1.0}:
            raise ValueError("the slab defense needs points of both classes, -1 and +1")
        self.positive_, self.negative_ = column_mean(X[y > 0.0]), column_mean(X[y < 0.0])
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every point from its class centroid along the line between the two."""
        axis = self.positive_ - self.negative_
        return np.abs(X @ axis - np.where(y > 0.0, axis @ self.positive_, axis @ self.negative_))
