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

_CANCELLED = 1e-6  # of two terms, what their difference must exceed to be accurate to 1e-10
_AT_ONCE = 500  # rows made dense


def vstack(matrices: list[Matrix]) -> Matrix:
    """The matrices stacked row-wise, in order; sparse if the first is sparse."""
    if sp.issparse(matrices[0]):
        return sp.vstack([sp.csr_array(m) for m in matrices], format="csr")
    return np.vstack([to_dense(m) for m in matrices])


def to_dense(X: Matrix | sp.sparray) -> Float[ndarray, "n d"]:
    """The matrix, of any sparse format, as a dense float64 array."""
    return np.asarray(X.todense() if sp.issparse(X) else X, dtype=np.float64)


def squared_norms(X: Matrix) -> Float[ndarray, "n"]:
    """‖x_i‖² for every row, in float64 whatever the type of ``X``."""
    if sp.issparse(X):
        X = X.astype(np.float64, copy=False)
        return np.asarray(X.multiply(X).sum(axis=1), dtype=np.float64).ravel()
    return np.einsum("ij,ij->i", X, X, dtype=np.float64)


def column_mean(X: Matrix) -> Float[ndarray, "d"]:
    """The mean of the rows."""
    return np.asarray(X.mean(axis=0), dtype=np.float64).ravel()


def column_sum(X: Matrix) -> Float[ndarray, "d"]:
    """The sum of the rows."""
    return np.asarray(X.sum(axis=0), dtype=np.float64).ravel()


def squared_distances(
    X: Matrix,
    centres: Float[ndarray, "d"] | Float[ndarray, "k d"],
    which: Int[ndarray, "n"] | None = None,
    norms: Float[ndarray, "n"] | None = None,
) -> Float[ndarray, "n"]:
    """‖x_i − c_i‖² for every row: c_i is ``centres`` (d,), or row ``which_i`` of (k, d).

    By ‖x‖² − 2x·c + ‖c‖², without forming the (dense) difference, except for rows that are so near
    the centre, for their distance from 0, that this would lose ten digits. ``norms`` are the ‖x_i‖²
    where they are known.
    """
    products = X @ centres.T
    if which is None:
        which, centres = np.zeros(X.shape[0], dtype=np.int64), centres[None]
    else:
        products = products[np.arange(X.shape[0]), which]
    sizes = (squared_norms(X) if norms is None else norms) + squared_norms(centres)[which]
    expanded = sizes - 2.0 * products
    near = np.flatnonzero(expanded < _CANCELLED * sizes)
    for first in range(0, near.size, _AT_ONCE):
        rows = near[first : first + _AT_ONCE]
        expanded[rows] = squared_norms(to_dense(X[rows]) - centres[which[rows]])
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


def first_rows(X: Matrix) -> Int[ndarray, "u"]:
    """The indices of rows that no row before them equals."""
    return np.unique(distinct_rows(X)[2], return_index=True)[1]


def with_short_indices(X: sp.csr_array) -> sp.csr_array:
    """The same matrix with 32-bit indices, the only ones that scikit-learn takes.

    Raises ``ValueError`` beyond 2³¹ − 1 nonzeros, which they cannot count.
    """
    if X.nnz > np.iinfo(np.int32).max:
        raise ValueError(f"a sparse matrix must have at most 2^31 - 1 nonzeros, not {X.nnz}.")
    indices, indptr = (part.astype(np.int32, copy=False) for part in (X.indices, X.indptr))
    return sp.csr_array((X.data, indices, indptr), shape=X.shape)
