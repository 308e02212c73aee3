"""The k-NN defense: points far from their k-th nearest neighbour.

Distances are exact, not searched approximately: ‖x − z‖² = ‖x‖² + ‖z‖² − 2x·z, with all products
x·z (:mod:`poisoning.defenses.products`), a block of rows at a time to keep memory at O(n).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from poisoning.arrays import Matrix, to_dense
from poisoning.defenses.data import CleanData, PoisonedData
from poisoning.defenses.detector import examples, fitted
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
        """Keep ``X``.

        Raises ``ValueError`` or ``TypeError`` for what is no data set.
        """
        X, _ = examples(X, y)
        self.products_ = InnerProducts(X, centred=True)
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every row of ``X`` to its k-th nearest neighbour.

        Of β with k points or fewer, to its farthest: a defender who discards the fraction p of a
        class must not lose it all.

        Raises ``NotFittedError`` before ``fit``.
        """
        products = fitted(self, "products_")
        X, y = examples(X, y, columns=products.columns)
        points = len(products.norms)
        return self._distance(self._nearest(products.like(X), products, points), points)

    def score_added(self, data: PoisonedData) -> Float[ndarray, "n"]:
        """The scores of clean data and poison, from the distances among clean points."""
        points = len(data.y)
        best = self._clean_nearest(data.clean, points)
        if data.X_poison.shape[0]:
            P, copies, which = data.distinct
            products = self._clean_products(data.clean)
            cross, inner = data.cross, data.inner
            if products.moved:
                moved = to_dense(P) - products.shift
                cross, inner = products.block(P).T.copy(), moved @ moved.T
            norms, clean_norms = products.squares(P), products.norms
            best = best.copy()
            merge_smallest(cross, clean_norms, norms, copies, best)
            of_poison = np.full((P.shape[0], best.shape[1]), np.inf)
            once = np.ones(len(clean_norms), dtype=np.int64)
            merge_smallest(np.ascontiguousarray(cross.T), norms, clean_norms, once, of_poison)
            merge_smallest(inner, norms, norms, copies, of_poison)
            best = np.vstack([best, of_poison[which]])
        return self._distance(best, points)

    def _clean_products(self, clean: CleanData) -> InnerProducts:
        def find() -> InnerProducts:
            centred = InnerProducts(clean.X, centred=True)
            return centred if centred.moved else clean.products

        return clean.remember("centred products", find)

    def _clean_nearest(self, clean: CleanData, points: int) -> Float[ndarray, "n w"]:
        """Squared distances of each clean point to itself and its nearest clean neighbours."""
        return clean.remember(
            ("knn", min(self.k, points - 1)),
            lambda: self._nearest(clean.X, self._clean_products(clean), points),
        )

    def _nearest(self, X: Matrix, products: InnerProducts, points: int) -> Float[ndarray, "n w"]:
        """Squared distances of each row of ``X`` to the nearest k + 1 of β, ascending.

        No wider than the number of ``points`` of β, however large k is.
        """
        best = np.full((X.shape[0], min(self.k + 1, points)), np.inf)
        norms, once = products.squares(X), np.ones(len(products.norms), dtype=np.int64)
        for first in range(0, X.shape[0], _BLOCK):
            now = slice(first, first + _BLOCK)
            merge_smallest(products.block(X[now]), norms[now], products.norms, once, best[now])
        return best

    def _distance(self, best: Float[ndarray, "n w"], points: int) -> Float[ndarray, "n"]:
        """To the k-th neighbour, or to the last of so many ``points``."""
        return np.sqrt(np.maximum(best[:, min(self.k, points - 1)], 0.0))
