"""Checks of the arguments of games: every array that a user passes is checked here, once.

An invalid argument raises ``ValueError`` or ``TypeError`` with one sentence that names the
argument, its value and what would be valid.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy import ndarray

from poisoning.arrays import Matrix, with_short_indices

_MOST_CLASSES = 2**31


def matrix(X: Any, name: str, *, columns: int | None = None, rows: int = 1) -> Matrix:
    """A float64 data matrix, one example per row: an ``ndarray`` or a canonical ``csr_array``.

    An array that already has this form, C-contiguous or with 32-bit indices, is returned without a
    copy. The caller's array is never changed. ``columns`` is the required number of columns,
    ``rows`` the least number of rows.
    """
    if sp.issparse(X):
        X = _canonical(X, name)
        values = X.data
    else:
        X = _dense(X, name, 2)
        values = X
    if X.shape[0] < rows:
        raise ValueError(f"{name} must have at least {rows} rows, it has {X.shape[0]}.")
    if X.shape[1] == 0:
        raise ValueError(f"{name} must have at least one column, its shape is {X.shape}.")
    if columns is not None and X.shape[1] != columns:
        raise ValueError(
            f"{name} must have {columns} columns like the clean data, it has {X.shape[1]}."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, it holds NaN or infinity.")
    return X


def labels(y: Any, name: str, rows: int) -> ndarray:
    """Labels of ``rows`` examples: float64 of −1 and +1, or int64 of 0 … k − 1.

    The caller decides which of the two kinds the game needs.
    """
    y = _dense(y, name, 1)
    if len(y) != rows:
        raise ValueError(f"{name} must have one label for each of {rows} rows, it has {len(y)}.")
    if not np.isfinite(y).all():
        raise ValueError(f"{name} must be finite, it holds NaN or infinity.")
    if np.all(np.abs(y) == 1.0):
        return y
    strange = y[(y < 0.0) | (y != np.floor(y)) | (y > _MOST_CLASSES)]
    if strange.size:
        raise ValueError(
            f"{name} must be -1 and +1 for two classes, or 0 to k - 1 for more; it holds "
            f"{strange[0]:g}."
        )
    return y.astype(np.int64)


def vector(values: Any, name: str, rows: int) -> ndarray:
    """One real number for each of ``rows`` examples, as float64."""
    values = _dense(values, name, 1)
    if len(values) != rows:
        raise ValueError(
            f"{name} must have one value for each of {rows} rows, it has {len(values)}."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, it holds NaN or infinity.")
    return values


def fraction(value: Any, name: str, low: float = 0.0, high: float = 1.0) -> float:
    """A number with ``low`` ≤ value < ``high``."""
    number = isinstance(value, int | float | np.integer | np.floating)
    if not number or isinstance(value, bool) or not low <= value < high:
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}), not {value!r}.")
    return float(value)


def generator(rng: Any, name: str = "rng") -> np.random.Generator:
    """The generator itself, or a new one from a seed; None, not being reproducible, is refused."""
    try:
        if rng is None or isinstance(rng, bool | np.random.RandomState):
            raise TypeError
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} must be a seed or a numpy.random.Generator, not {rng!r}."
        ) from None


def _canonical(X: Any, name: str) -> sp.csr_array:
    if X.ndim != 2:
        raise ValueError(f"{name} must have two dimensions, it has {X.ndim}.")
    if X.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, its dtype is {X.dtype}.")
    right = isinstance(X, sp.csr_array) and X.dtype == np.float64
    X = X if right else sp.csr_array(X, dtype=np.float64)
    if not (X.has_canonical_format and X.has_sorted_indices):
        X = X.copy()
        X.sum_duplicates()
    short = X.indices.dtype == X.indptr.dtype == np.int32
    return X if short or X.nnz > np.iinfo(np.int32).max else with_short_indices(X)


def _dense(values: Any, name: str, dimensions: int) -> ndarray:
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be an array, its rows differ in length.") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, its dtype is {array.dtype}.")
    if array.ndim != dimensions:
        many = "one dimension" if dimensions == 1 else "two dimensions"
        raise ValueError(f"{name} must have {many}, it has {array.ndim}.")
    return np.ascontiguousarray(array, dtype=np.float64)
