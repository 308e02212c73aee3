"""The L2 and the slab defense: distance from the class centroid, whole or along one line."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.arrays import Matrix, column_mean, squared_distances


@dataclass(frozen=True)
class L2Detector:
    """s(x, y) = ‖x − μ_y‖₂."""

    centroids: dict[float, Float[ndarray, "d"]]

    def score(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every point from the centroid of its class."""
        scores = np.empty(len(y))
        for label in np.unique(y):
            members = y == label
            scores[members] = np.sqrt(squared_distances(X[members], self.centroids[label]))
        return scores


@dataclass(frozen=True)
class SlabDetector:
    """s(x, y) = |(μ₊ − μ₋)·(x − μ_y)|."""

    positive: Float[ndarray, "d"]
    negative: Float[ndarray, "d"]

    def score(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every point from its class centroid along the line between the two."""
        axis = self.positive - self.negative
        return np.abs(X @ axis - np.where(y > 0.0, axis @ self.positive, axis @ self.negative))


def fit_l2(X: Matrix, y: Float[ndarray, "n"]) -> L2Detector:
    """β_y = E[x | y] for every label present (Koh et al. 2021, Section 2.2)."""
    return L2Detector({label: column_mean(X[y == label]) for label in np.unique(y).tolist()})


def fit_slab(X: Matrix, y: Float[ndarray, "n"]) -> SlabDetector:
    """β = (μ₊, μ₋) of two classes −1 and +1 (Koh et al. 2021, Section 2.2).

    Raises ``ValueError`` if a class is missing: there is then no line between centroids.
    """
    if not (np.any(y > 0.0) and np.any(y < 0.0)):
        raise ValueError("the slab defense needs points of both classes")
    return SlabDetector(column_mean(X[y > 0.0]), column_mean(X[y < 0.0]))
