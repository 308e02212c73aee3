"""Inner products between the rows of two data matrices, exactly.

For bags of words the few most frequent columns, which hold most of the work, go through dense
matrix multiplication (in float32 when the data are integers small enough for it to be exact), the
rest through an inverted index.
"""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray

from poisoning.arrays import Matrix, squared_norms
from poisoning.defenses.knn_kernels import add_products

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
