"""Checks of arguments: every public function passes what a user gives it through these.

An invalid argument raises ``ValueError`` or ``TypeError`` with one sentence that names the
argument, its value and what would be valid. A compiled kernel trusts its caller, so no array gets
to one unless it went through a check of this module. That guarantees float64 (int64 for indices and
for labels of more than two classes, bool for masks) in the machine's byte order, C-contiguous or
canonical CSR, writable, finite, of the stated shape. CSR has 32-bit indices; beyond 2³¹ − 1
nonzeros it has 64-bit ones, for which kernels are compiled anew, and scikit-learn refuses it. An
array that is right already is returned as it is; the caller's is never changed.

Where a number of rows is None, any will do. A frozen dataclass that a kernel, or code called
thousands of times by an attack, takes its arrays from checks them when it is made; functions that
take one look at its type only. Others that hold arrays do not check them: what datasets and attacks
return, such as ``Dataset``, ``Split``, ``MultiTaskDraw``, ``WeightedPoints`` and ``StagedPoison``.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy import ndarray

from poisoning.arrays import Matrix, with_short_indices

_MOST_CLASSES = 2**31
_LARGEST = 1e100  # squares and sums of squares stay far from overflow
_SMALLEST = 1e-100  # and from underflow, where they would all be 0


def matrix(X: Any, name: str, *, columns: int | None = None, rows: int = 1) -> Matrix:
    """A float64 data matrix, one example per row: an ``ndarray`` or a canonical ``csr_array``.

    ``columns`` is the required number of columns, ``rows`` the least number of rows.
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
    _finite(values, name, _SMALLEST)
    return X


def known(X: Any, name: str, columns: int | None = None) -> Matrix:
    """A data matrix, any number of rows, whose values are not looked at where its type is right.

    For methods that are called all the time on data which were checked before. They must notice
    NaN in what they compute.
    """
    if type(X) not in (ndarray, sp.csr_array) or X.ndim != 2 or X.dtype != np.float64:
        return matrix(X, name, columns=columns, rows=0)
    if columns not in (None, X.shape[1]):
        raise ValueError(f"{name} must have {columns} columns, it has {X.shape[1]}.")
    return X


def array(
    values: Any, name: str, shape: tuple[int | None, ...] | None, *, infinite: bool = False
) -> ndarray:
    """Finite numbers of the given ``shape`` as float64; None, for it or a length, may be any.

    ``infinite``: infinity is allowed, NaN is not.
    """
    values = _dense(values, name, None if shape is None else len(shape))
    if shape is not None:
        _shape(values.shape, name, shape)
    elif values.ndim == 0:
        raise ValueError(f"{name} must have at least one dimension, it is a single number.")
    if not infinite:
        _finite(values, name)
    elif np.isnan(values).any():
        raise ValueError(f"{name} must hold numbers or infinity, it holds NaN.")
    return values


def rectangle(values: Any, name: str) -> ndarray:
    """A finite matrix of at least one row and one column as float64."""
    values = array(values, name, (None, None))
    if not values.size:
        raise ValueError(f"{name} must have rows and columns, its shape is {values.shape}.")
    return values


def square(values: Any, name: str) -> ndarray:
    """A finite square matrix as float64."""
    values = array(values, name, (None, None))
    return array(values, name, (len(values), len(values)))


def bounds(values: Any, name: str, length: int | None) -> ndarray:
    """``length`` numbers that may be infinite, but not NaN, as float64; None: any number."""
    return array(values, name, (length,), infinite=True)


def labels(y: Any, name: str, rows: int | None) -> ndarray:
    """Labels of ``rows`` examples: float64 of −1 and +1, or int64 of 0 … k − 1.

    The caller decides which of the two kinds the game needs.
    """
    y = _dense(y, name, 1)
    _length(y, name, rows, "label", "rows")
    if not np.isfinite(y).all():
        raise ValueError(f"{name} must be finite, it holds NaN or infinity.")
    if np.all(np.abs(y) == 1.0):
        return y
    strange = _uncounted(y, _MOST_CLASSES + 1)
    if strange.size:
        raise ValueError(
            f"{name} must be -1 and +1 for two classes, or 0 to k - 1 for more; it holds "
            f"{strange[0]:g}."
        )
    return y.astype(np.int64)


def signs(y: Any, name: str, rows: int | None) -> ndarray:
    """Labels −1 and +1 of ``rows`` examples, as float64."""
    y = _dense(y, name, 1)
    _length(y, name, rows, "label", "rows")
    strange = np.abs(y) != 1.0
    if np.count_nonzero(strange):
        raise ValueError(f"{name} must be -1 and +1, it holds {y[strange][0] + 0.0:g}.")
    return y


def classes(y: Any, name: str, rows: int | None, k: int) -> ndarray:
    """Labels 0 … k − 1 of ``rows`` examples, as int64."""
    y = _dense(y, name, 1)
    _length(y, name, rows, "label", "rows")
    strange = _uncounted(y, k)
    if strange.size:
        raise ValueError(f"{name} must be 0 to {k - 1}, it holds {strange[0]:g}.")
    return y.astype(np.int64)


def indices(values: Any, name: str, below: int) -> ndarray:
    """Different whole numbers from 0 to ``below`` − 1, as int64."""
    array = _dense(values, name, 1)
    strange = _uncounted(array, below)
    if strange.size:
        raise ValueError(
            f"{name} must hold whole numbers from 0 to {below - 1}, it holds {strange[0]:g}."
        )
    found = array.astype(np.int64)
    if len(np.unique(found)) < len(found):
        raise ValueError(f"{name} must hold every number once, it repeats some.")
    return found


def mask(values: Any, name: str, shape: tuple[int | None, ...]) -> ndarray:
    """Truth values of the given ``shape``."""
    if sp.issparse(values) or isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a dense array without masked entries.")
    found = np.asarray(values)
    if found.dtype != bool:
        raise TypeError(f"{name} must hold true and false, its dtype is {found.dtype}.")
    _shape(found.shape, name, shape)
    return np.require(found, bool, ["C", "W"])


def unmasked(values: Any, name: str) -> Any:
    """Anything but a masked array, whose mask NumPy and scikit-learn would drop."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} must have no masked entries: fill or drop them first.")
    return values


def vector(values: Any, name: str, rows: int, *, per: str = "rows") -> ndarray:
    """One real number for each of ``rows`` examples, or of whatever ``per`` names, as float64."""
    values = _dense(values, name, 1)
    _length(values, name, rows, "value", per)
    _finite(values, name)
    return values


def weights(values: Any, name: str, rows: int) -> ndarray:
    """One number ≥ 0 for each of ``rows`` examples, not all 0, as float64."""
    values = vector(values, name, rows)
    if values.size and values.min() < 0.0:
        raise ValueError(f"{name} must be at least 0, it holds {values.min():g}.")
    if not values.any():
        raise ValueError(f"{name} must not all be 0.")
    return values


def fraction(value: Any, name: str, low: float = 0.0, high: float = 1.0) -> float:
    """A number with ``low`` ≤ value < ``high``."""
    if not _is_real(value) or not low <= value < high:
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}), not {value!r}.")
    return float(value)


def share(value: Any, name: str) -> float:
    """A number with 0 < value < 1."""
    if not _is_real(value) or not 0.0 < value < 1.0:
        raise ValueError(f"{name} must be between 0 and 1, not {value!r}.")
    return float(value)


def between(value: Any, name: str, low: float, high: float) -> float:
    """A number with ``low`` ≤ value ≤ ``high``; without ends, any finite one."""
    if not _is_real(value) or not low <= value <= high or not np.isfinite(value):
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}.")
    return float(value)


def positive(value: Any, name: str, *, zero: bool = False) -> float:
    """A finite number > 0, or ≥ 0 where ``zero`` is allowed."""
    least = value >= 0.0 if _is_real(value) and zero else _is_real(value) and value > 0.0
    if not least or value > _LARGEST:
        bound = "at least 0" if zero else "above 0"
        raise ValueError(f"{name} must be a finite number {bound}, not {value!r}.")
    return float(value)


def whole(value: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """A whole number with ``least`` ≤ value ≤ ``most``."""
    right = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not right or value < least or (most is not None and value > most):
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {limit}, not {value!r}.")
    return int(value)


def one_of(value: Any, name: str, choices: Iterable[str]) -> str:
    """One of the ``choices``."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
    return value


def instance(value: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    """An object of this ``kind``."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise TypeError(
            f"{name} must be a {' or '.join(k.__name__ for k in kinds)}, not {value!r:.100}."
        )
    return value


def tensor(
    values: Any,
    name: str,
    shape: tuple[int | None, ...],
    *,
    like: Any = None,
    infinite: bool = False,
) -> Any:
    """A torch tensor of finite float32 or float64, of dtype and device of the tensor ``like``.

    A length of None may be any. ``infinite``: −∞ is allowed, NaN is not.
    """
    import torch  # takes seconds; who calls this has imported it

    if not isinstance(values, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, not a {type(values).__name__}.")
    if values.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must hold float32 or float64, its dtype is {values.dtype}.")
    if like is not None and (values.dtype, values.device) != (like.dtype, like.device):
        raise TypeError(
            f"{name} must be {like.dtype} on {like.device} like the rest, it is {values.dtype} on "
            f"{values.device}."
        )
    _shape(tuple(values.shape), name, shape)
    strange = values.isnan() | (values == torch.inf) if infinite else ~values.isfinite()
    if bool(strange.any()):
        raise ValueError(f"{name} must be finite, it holds NaN or infinity.")
    return values


def floats(values: Any, name: str, shape: tuple[int | None, ...], *, like: Any = None) -> Any:
    """A NumPy array or torch tensor of finite floating point numbers, contiguous in memory.

    It keeps its precision, which is that of ``like``, as is its kind and, of a tensor, its device.
    """
    of_torch = type(values if like is None else like).__module__ == "torch"
    if of_torch:
        return tensor(values, name, shape, like=like)
    if type(values) is np.memmap:  # what joblib makes of large arguments
        values = np.asarray(values)
    if type(values) is not ndarray:
        raise TypeError(f"{name} must be a NumPy array, not a {type(values).__name__}.")
    wanted = (np.float32, np.float64) if like is None else (like.dtype,)
    if values.dtype not in wanted:
        kinds = " or ".join(str(np.dtype(kind)) for kind in wanted)
        raise TypeError(f"{name} must hold {kinds}, its dtype is {values.dtype}.")
    _shape(values.shape, name, shape)
    _finite(values, name)
    return np.require(values, values.dtype, ["C", "W"])


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


def bounded(values: ndarray) -> bool:
    """Whether all numbers are finite and within 1e100 of 0."""
    return _squares(values) <= _LARGEST**2 or bool(np.abs(values).max() <= _LARGEST)


def _squares(values: ndarray) -> float:
    """The sum of squares, infinite or NaN if a number is: one pass, no temporary array."""
    return float(np.vdot(values, values))  # of NumPy's products the one that never warns


def _uncounted(values: ndarray, below: int) -> ndarray:
    """Those that are no whole numbers from 0 to ``below`` − 1."""
    return values[~((values >= 0.0) & (values < below) & (values == np.floor(values)))]


def _is_real(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and not isinstance(value, bool)


def _shape(found: tuple[int, ...], name: str, wanted: tuple[int | None, ...]) -> None:
    fits = len(found) == len(wanted) and all(
        length in (None, size) for length, size in zip(wanted, found, strict=True)
    )
    if not fits:
        lengths = ", ".join("any" if length is None else str(length) for length in wanted)
        raise ValueError(f"{name} must have the shape ({lengths}), it has {found}.")


def _length(values: ndarray, name: str, rows: int | None, what: str, per: str) -> None:
    if rows not in (None, len(values)):
        raise ValueError(
            f"{name} must have one {what} for each of {rows} {per}, it has {len(values)}."
        )


def _finite(values: ndarray, name: str, least: float = 0.0) -> None:
    """Refuse NaN, infinities, and what overflows or, if all of it does, vanishes when squared."""
    if values.size * least**2 <= _squares(values) <= _LARGEST**2:
        return
    lowest, highest = float(values.min()), float(values.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise ValueError(f"{name} must be finite, it holds NaN or infinity.")
    largest = max(-lowest, highest)
    if largest > _LARGEST:
        raise ValueError(f"{name} must lie within 1e100 of 0, it holds {largest:g}: rescale it.")
    if 0.0 < largest < least:
        raise ValueError(f"{name} must not be as small as {largest:g} throughout: rescale it.")


def _canonical(X: Any, name: str) -> sp.csr_array:
    if X.ndim != 2:
        raise ValueError(f"{name} must have two dimensions, it has {X.ndim}.")
    if X.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, its dtype is {X.dtype}.")
    right = isinstance(X, sp.csr_array) and X.dtype == np.float64
    try:
        rows = X if right else sp.csr_array(X, dtype=np.float64)
        # A view of its own: a check may store other index types, and X may say that it is
        # canonical though its indices have changed since.
        view = sp.csr_array((rows.data, rows.indices, rows.indptr), shape=rows.shape)
        view.check_format(full_check=True)
    except ValueError as error:
        raise ValueError(f"{name} is no valid sparse matrix: {error}") from None
    parts = (rows.data, rows.indices, rows.indptr)
    if not (view.has_canonical_format and all(part.flags.writeable for part in parts)):
        rows = view.copy()
        rows.sum_duplicates()
    short = rows.indices.dtype == rows.indptr.dtype == np.int32
    return rows if short or rows.nnz > np.iinfo(np.int32).max else with_short_indices(rows)


def _dense(values: Any, name: str, dimensions: int | None) -> ndarray:
    right = type(values) is ndarray and values.dtype == np.float64 and values.flags.carray
    array = values if right else _converted(values, name)
    if dimensions not in (None, array.ndim):
        many = "one dimension" if dimensions == 1 else "two dimensions"
        raise ValueError(f"{name} must have {many}, it has {array.ndim}.")
    return array


def _converted(values: Any, name: str) -> ndarray:
    if sp.issparse(values):
        raise TypeError(f"{name} must be a dense array, it is sparse: use {name}.toarray().")
    unmasked(values, name)
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be an array, its rows differ in length.") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, its dtype is {array.dtype}.")
    with np.errstate(over="ignore"):  # of long doubles; what becomes infinite is refused
        # Writable too: a kernel would be compiled anew for a read-only array, for seconds.
        return np.require(array, np.float64, ["C", "W"])


def predicted(model: Any, X: Any) -> ndarray:
    """The label that a model gives to every row of ``X`` (n, d): (n,).

    Raises ``ValueError`` if it does not predict one label for each.
    """
    labels = np.asarray(model.predict(X))
    if labels.shape != (X.shape[0],):
        raise ValueError(
            f"learner {type(model).__name__} must predict one label for each of {X.shape[0]} rows, "
            f"its predictions have the shape {labels.shape}."
        )
    return labels
