"""The k-NN defense: points far from their k-th nearest neighbour.

Distances are exact, not searched approximately: ‖x − z‖² = ‖x‖² + ‖z‖² − 2x·z, with all products
x·z (:mod:`poisoning.defenses.products`), a block of rows at a time to keep memory at O(n).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from poisoning.arrays import Matrix, squared_norms
from poisoning.defenses.data import CleanData, PoisonedData
from poisoning.defenses.knn_kernels import merge_smallest
from poisoning.defenses.products import InnerProducts

_BLOCK = 500


@dataclass
class KNNDefense:
    """s(x) = distance from x to its k-th nearest *other* point of β = D_c ∪ D_p, labels ignored.

    Koh et al. 2021, Section 2.2, with k = 5; the authors' code instead sums the distances to the k
    nearest, the point itself among them. The points scored are members of β, as are all points that
    a defender scores, so each has itself as a neighbour at distance 0, which is not counted. Copies
    of a point are neighbours at distance 0.
    """

    k: int = 5

    name = "knn"
    cost = 3

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless k is a whole number from 1."""
        if not isinstance(self.k, int | np.integer) or isinstance(self.k, bool) or self.k < 1:
            raise ValueError(f"KNNDefense: k must be a whole number from 1, not {self.k!r}.")

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "KNNDefense":
        """Keep ``X``."""
        self.products_ = InnerProducts(X)
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every row of ``X`` to its k-th nearest neighbour; ∞ if β has ≤ k points."""
        return _distance(self._nearest(X, self.products_))

    def score_added(self, data: PoisonedData) -> Float[ndarray, "n"]:
        """The scores of clean data and poison, from the distances among clean points."""
        best = self._clean_nearest(data.clean)
        if data.X_poison.shape[0]:
            P, copies, which = data.distinct
            norms, clean_norms = squared_norms(P), data.clean.products.norms
            best = best.copy()
            merge_smallest(data.cross, clean_norms, norms, copies, best)
            of_poison = np.full((P.shape[0], best.shape[1]), np.inf)
            once = np.ones(len(clean_norms), dtype=np.int64)
            merge_smallest(np.ascontiguousarray(data.cross.T), norms, clean_norms, once, of_poison)
            merge_smallest(data.inner, norms, norms, copies, of_poison)
            best = np.vstack([best, of_poison[which]])
        return _distance(best)

    def _clean_nearest(self, clean: CleanData) -> Float[ndarray, "n w"]:
        """Squared distances of each clean point to itself and its nearest clean neighbours."""
        return clean.remember(("knn", self.k), lambda: self._nearest(clean.X, clean.products))

    def _nearest(self, X: Matrix, products: InnerProducts) -> Float[ndarray, "n w"]:
        best = np.full((X.shape[0], self.k + 1), np.inf)
        nearest(X, products, np.ones(len(products.norms), dtype=np.int64), best)
        return best


def _distance(best: Float[ndarray, "n w"]) -> Float[ndarray, "n"]:
    return np.sqrt(np.maximum(best[:, -1], 0.0))


def nearest(
    X: Matrix, products: InnerProducts, copies: Int[ndarray, "m"], best: Float[ndarray, "n w"]
) -> None:
    """Lower ``best``, in place, to the w smallest squared distances seen so far.

    ``best`` (n, w) holds, ascending, those of each row of ``X`` to other points; this adds the
    points of ``products``, each counted ``copies`` times.
    """
    norms = squared_norms(X)
    for first in range(0, X.shape[0], _BLOCK):
        block = slice(first, first + _BLOCK)
        merge_smallest(products(X[block]), norms[block], products.norms, copies, best[block])
