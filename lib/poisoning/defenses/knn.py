"""The k-NN defense: points far from their fifth nearest neighbour.

Distances are exact, not searched approximately: ‖x − z‖² = ‖x‖² + ‖z‖² − 2x·z, with all products
x·z. For bags of words the few most frequent columns, which hold most of the work, go through dense
matrix multiplication (in float32 when the data are integers small enough for it to be exact), the
rest through an inverted index; a block of rows at a time keeps memory at O(n).
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning.arrays import Matrix, squared_norms
from poisoning.defenses.knn_kernels import add_products, merge_smallest

NEIGHBOURS = 5
_BLOCK = 500
_FREQUENT = 200


class InnerProducts:
    """x·z between any rows x and the fixed rows z of one matrix, exactly."""

    def __init__(self, Z: Matrix) -> None:
        """``Z`` (n, d), dense or sparse."""
        self.norms = squared_norms(Z)
        self._sparse = sp.issparse(Z)
        if not self._sparse:
            self._dense = Z
            return
        occurrences = np.bincount(Z.indices, minlength=Z.shape[1])
        self._frequent = np.sort(np.argsort(-occurrences, kind="stable")[:_FREQUENT])
        self._single = _is_small_integer(Z)
        self._dense = self._frequent_part(Z, self._single)
        self._rare = np.ones(Z.shape[1], dtype=bool)
        self._rare[self._frequent] = False
        self._index = self._rare_part(Z).T.tocsr()

    def __call__(self, X: Matrix) -> Float[ndarray, "m n"]:
        """X Zᵀ, for a block of rows small enough that the answer fits in memory."""
        if not self._sparse:
            return X @ self._dense.T
        single = self._single and _is_small_integer(X)
        dense = self._dense if single else self._dense.astype(np.float64)
        products = (self._frequent_part(X, single) @ dense.T).astype(np.float64)
        rare = self._rare_part(X)
        index = self._index
        add_products(
            rare.data, rare.indices, rare.indptr, index.data, index.indices, index.indptr, products
        )
        return products

    def _frequent_part(self, X: sp.csr_array, single: bool) -> Float[ndarray, "m f"]:
        return X[:, self._frequent].toarray().astype(np.float32 if single else np.float64)

    def _rare_part(self, X: sp.csr_array) -> sp.csr_array:
        entries = self._rare[X.indices]
        kept_before = np.concatenate([[0], np.cumsum(entries)])
        return sp.csr_array((X.data[entries], X.indices[entries], kept_before[X.indptr]), X.shape)


def _is_small_integer(X: sp.csr_array) -> bool:
    """Whether float32 sums of products of two rows are exact: integers, ‖x‖² < 2²⁴."""
    return bool(np.all(X.data == np.rint(X.data)) and np.all(squared_norms(X) < 2.0**24))


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


@dataclass(frozen=True)
class KNNDetector:
    """s(x) = distance from x to its k-th nearest *other* point of β, labels ignored.

    The points scored are members of β, as all a defender scores are, so each meets itself once,
    at distance 0; that meeting is not counted. Copies of a point are neighbours at distance 0.
    """

    products: InnerProducts
    k: int

    def score(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every row of ``X`` to its k-th nearest neighbour; ∞ if β has ≤ k points."""
        best = np.full((X.shape[0], self.k + 1), np.inf)
        nearest(X, self.products, np.ones(len(self.products.norms), dtype=np.int64), best)
        return np.sqrt(np.maximum(best[:, -1], 0.0))


def fit_knn(X: Matrix, y: Float[ndarray, "n"], *, k: int = NEIGHBOURS) -> KNNDetector:
    """β = D_c ∪ D_p (Koh et al. 2021, Section 2.2, with k = 5).

    The authors' code instead sums the distances to the k nearest, the point itself among them.
    """
    return KNNDetector(InnerProducts(X), k)
