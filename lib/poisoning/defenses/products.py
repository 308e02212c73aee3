"""Inner products between the rows of two data matrices, exactly.

For bags of words the few most frequent columns, which hold most of the work, go through dense
matrix multiplication (in float32 when the data are integers small enough for it to be exact), the
rest through an inverted index.

Where data lie far from 0 compared with their spread, distances that are computed from products
lose all digits. ``centred`` products are those of rows moved by the mean of Z; of a sparse Z only
columns without zeros are moved, the only ones that can be far from 0 throughout.
"""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, column_mean, squared_distances, squared_norms, to_dense
from poisoning.defenses.knn_kernels import add_products

_FREQUENT = 200
_FAR = 1e-6  # of the squared length of the mean: a spread below it would lose six digits


class InnerProducts:
    """x·z between any rows x and the fixed rows z of one matrix, exactly.

    ``norms`` (n,) are the ‖z‖²; ``moved`` says whether the rows are moved by ``shift`` (d,).
    """

    def __init__(self, Z: Matrix, *, centred: bool = False) -> None:
        """``Z`` (n, d), dense or sparse; ``centred``: moved by its mean if it is far from 0."""
        Z = checks.matrix(Z, "Z")
        self.columns = Z.shape[1]
        self._sparse = sp.issparse(Z)
        self.shift = column_mean(Z)
        occurrences = np.bincount(Z.indices, minlength=self.columns) if self._sparse else None
        if self._sparse:
            self.shift[occurrences < Z.shape[0]] = 0.0
        size = self.shift @ self.shift
        self.moved = centred and bool(squared_distances(Z, self.shift).mean() < _FAR * size)
        self.norms = self.squares(Z)
        if not self._sparse:
            self._dense = Z - self.shift if self.moved else Z
            return
        full = int(np.sum(self.shift != 0.0)) if self.moved else 0
        frequent = np.argsort(-occurrences, kind="stable")[: max(_FREQUENT, full)]
        self._frequent = np.sort(frequent)
        self._single = not self.moved and _is_small_integer(Z)
        self._dense = self._frequent_part(Z, self._single)
        self._rare = np.ones(Z.shape[1], dtype=bool)
        self._rare[self._frequent] = False
        self._index = self._rare_part(Z).T.tocsr()

    def __call__(self, X: Matrix) -> Float[ndarray, "m n"]:
        """X Zᵀ, for a block of rows small enough that the answer fits in memory.

        Raises ``ValueError`` or ``TypeError`` for what is no matrix of as many columns as Z.
        """
        return self.block(self.like(checks.matrix(X, "X", columns=self.columns, rows=0)))

    def like(self, X: Matrix) -> Matrix:
        """The rows as a sparse matrix if Z is one, else dense."""
        if sp.issparse(X) == self._sparse:
            return X
        return sp.csr_array(X) if self._sparse else to_dense(X)

    def block(self, X: Matrix) -> Float[ndarray, "m n"]:
        """The same for rows that were checked before, of the kind of ``Z``."""
        if not self._sparse:
            return (X - self.shift if self.moved else X) @ self._dense.T
        single = self._single and _is_small_integer(X)
        dense = self._dense if single else self._dense.astype(np.float64)
        products = (self._frequent_part(X, single) @ dense.T).astype(np.float64)
        rare = self._rare_part(X)
        index = self._index
        add_products(
            rare.data, rare.indices, rare.indptr, index.data, index.indices, index.indptr, products
        )
        return products

    def squares(self, X: Matrix) -> Float[ndarray, "m"]:
        """‖x‖² of rows that were checked before, moved if these are."""
        return squared_distances(X, self.shift) if self.moved else squared_norms(X)

    def _frequent_part(self, X: sp.csr_array, single: bool) -> Float[ndarray, "m f"]:
        part = X[:, self._frequent].toarray()
        if self.moved:
            part -= self.shift[self._frequent]
        return part.astype(np.float32 if single else np.float64)

    def _rare_part(self, X: sp.csr_array) -> sp.csr_array:
        entries = self._rare[X.indices]
        kept_before = np.concatenate([[0], np.cumsum(entries)])
        return sp.csr_array((X.data[entries], X.indices[entries], kept_before[X.indptr]), X.shape)


def _is_small_integer(X: sp.csr_array) -> bool:
    """Whether float32 sums of products of two rows are exact: integers, ‖x‖² < 2²⁴."""
    return bool(np.all(X.data == np.rint(X.data)) and np.all(squared_norms(X) < 2.0**24))
