"""Dense and sparse data matrices behind one set of operations.

A data matrix holds one example per row. Images and sensor readings are dense ``ndarray``;
bags of words are ``csr_array`` and stay sparse throughout.
"""

from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy import ndarray

Matrix: TypeAlias = ndarray | sp.csr_array
"""An ``(n, d)`` data matrix, one example per row."""


def vstack(matrices: list[Matrix]) -> Matrix:
    """The matrices stacked row-wise, in order; sparse if the first is sparse."""
    if sp.issparse(matrices[0]):
        return sp.vstack([sp.csr_array(m) for m in matrices], format="csr")
    return np.vstack([to_dense(m) for m in matrices])


def to_dense(X: Matrix) -> Float[ndarray, "n d"]:
    """The matrix as a dense float64 array."""
    return np.asarray(X.todense() if sp.issparse(X) else X, dtype=np.float64)


def squared_norms(X: Matrix) -> Float[ndarray, "n"]:
    """‖x_i‖² for every row."""
    if sp.issparse(X):
        return np.asarray(X.multiply(X).sum(axis=1), dtype=np.float64).ravel()
    return np.einsum("ij,ij->i", X, X, dtype=np.float64)


def column_mean(X: Matrix) -> Float[ndarray, "d"]:
    """The mean of the rows."""
    return np.asarray(X.mean(axis=0), dtype=np.float64).ravel()


def squared_distances(X: Matrix, centre: Float[ndarray, "d"]) -> Float[ndarray, "n"]:
    """‖x_i − centre‖² for every row, without forming the (dense) difference."""
    expanded = squared_norms(X) - 2.0 * (X @ centre) + centre @ centre
    return np.maximum(expanded, 0.0)


def distinct_rows(X: Matrix) -> tuple[Matrix, Int[ndarray, "u"], Int[ndarray, "r"]]:
    """The distinct rows in order of appearance, their numbers of copies, and every row's index."""
    if sp.issparse(X):
        X = X.copy()
        X.sum_duplicates()
        X.eliminate_zeros()
        bounds = [slice(a, b) for a, b in zip(X.indptr[:-1], X.indptr[1:], strict=True)]
        keys = [(X.indices[s].tobytes(), X.data[s].tobytes()) for s in bounds]
    else:
        keys = [row.tobytes() for row in X + 0.0]  # + 0.0: minus zero is zero
    places: dict = {}
    which = np.array([places.setdefault(key, len(places)) for key in keys], dtype=np.int64)
    first = np.unique(which, return_index=True)[1]
    return X[first], np.bincount(which), which


def with_short_indices(X: sp.csr_array) -> sp.csr_array:
    """The same matrix with 32-bit indices, the only ones that scikit-learn takes."""
    indices, indptr = (part.astype(np.int32, copy=False) for part in (X.indices, X.indptr))
    return sp.csr_array((X.data, indices, indptr), shape=X.shape)
