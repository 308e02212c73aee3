"""The L2 and the slab defense: distance from the class centroid, whole or along one line."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, column_mean, squared_distances
from poisoning.defenses.data import PoisonedData
from poisoning.defenses.detector import examples, fitted


@dataclass
class L2Defense:
    """s(x, y) = ‖x − μ_y‖₂ with μ_y = E[x | y]; any number of classes.

    Koh et al. 2021, Section 2.2.
    """

    name = "l2"
    cost = 0

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "L2Defense":
        """Compute the centroid of every label present, as ``centroids_``.

        Raises ``ValueError`` or ``TypeError`` for what is no data set.
        """
        X, y = examples(X, y)
        self.centroids_ = {label: column_mean(X[y == label]) for label in np.unique(y).tolist()}
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every point from the centroid of its class.

        Raises ``NotFittedError`` before ``fit``, ``ValueError`` for a label that ``fit`` has not
        seen.
        """
        centroids = fitted(self, "centroids_")
        X, y = examples(X, y, columns=len(next(iter(centroids.values()))))
        strange = set(np.unique(y).tolist()) - set(centroids)
        if strange:
            raise ValueError(f"y holds the label {min(strange):g}, which fit has not seen.")
        return _distances(X, y, centroids)

    def score_added(self, data: PoisonedData) -> Float[ndarray, "n"]:
        """The scores of clean data and poison; both were checked before."""
        return _distances(data.X, data.y, data.centroids, data.norms)


@dataclass
class SlabDefense:
    """s(x, y) = ``|(μ₊ − μ₋)·(x − μ_y)|``, of two classes −1 and +1.

    Koh et al. 2021, Section 2.2.
    """

    name = "slab"
    cost = 1

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "SlabDefense":
        """Compute the centroids, as ``positive_`` and ``negative_`` (d,).

        Raises ``ValueError`` unless both classes are there: there is then no line between them.
        """
        X, y = examples(X, y)
        _both(np.unique(y))
        self.positive_, self.negative_ = column_mean(X[y > 0.0]), column_mean(X[y < 0.0])
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every point from its class centroid along the line between the two.

        Raises ``NotFittedError`` before ``fit``.
        """
        X, y = examples(X, y, columns=len(fitted(self, "positive_")))
        return _along(X, checks.signs(y, "y", len(y)), self.positive_, self.negative_)

    def score_added(self, data: PoisonedData) -> Float[ndarray, "n"]:
        """The scores of clean data and poison; both were checked before."""
        _both(data.centroids)
        return _along(data.X, data.y, data.centroids[1.0], data.centroids[-1.0])


def _both(labels: Iterable[float | int]) -> None:
    if set(labels) != {-1.0, 1.0}:
        raise ValueError("y: the slab defense needs points of both classes, -1 and +1.")


def _along(
    X: Matrix, y: Float[ndarray, "n"], positive: Float[ndarray, "d"], negative: Float[ndarray, "d"]
) -> Float[ndarray, "n"]:
    axis = positive - negative
    return np.abs(X @ axis - np.where(y > 0.0, axis @ positive, axis @ negative))


def _distances(
    X: Matrix,
    y: Shaped[ndarray, "n"],
    centroids: dict[float | int, Float[ndarray, "d"]],
    norms: Float[ndarray, "n"] | None = None,
) -> Float[ndarray, "n"]:
    which = np.searchsorted(list(centroids), y)  # labels are in ascending order
    return np.sqrt(squared_distances(X, np.array(list(centroids.values())), which, norms))
