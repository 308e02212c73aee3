"""The result of a parser: arrays in their stored form, and a digest that identifies them."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy import ndarray

from poisoning.arrays import Matrix
from poisoning.datasets.dataset import Domain
from poisoning.errors import DataError


@dataclass(frozen=True)
class Content:
    """A parsed data set as it is stored.

    ``X`` is uint8 pixels for the domain "box01" (a pixel p means p/255), an int32 ``csr_array``
    of counts for "counts", and float64 otherwise. Targets are float64 (±1, or torques) or int64
    classes. The other fields are those of :class:`~poisoning.datasets.dataset.Dataset`.
    """

    domain: Domain
    X: Matrix
    y: ndarray
    X_test: Matrix | None = None
    y_test: ndarray | None = None
    vocabulary: list[str] | None = None
    tasks: ndarray | None = None

    def arrays(self) -> dict[str, ndarray]:
        """Every array under the name it is stored by; a sparse one as its four parts."""
        stored: dict[str, ndarray] = {}
        for name in ("X", "y", "X_test", "y_test", "tasks"):
            array = getattr(self, name)
            if sp.issparse(array):
                stored[f"{name}.data"] = array.data.astype("<i4")
                stored[f"{name}.indices"] = array.indices.astype("<i4")
                stored[f"{name}.indptr"] = array.indptr.astype("<i4")
                stored[f"{name}.shape"] = np.array(array.shape, dtype="<i8")
            elif array is not None:
                stored[name] = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        return stored

    def counts(self) -> dict[str, int | dict[str, int] | None]:
        """n, n_test, d and, for labels, how many training examples each class has."""
        labels = None
        if self.y.ndim == 1:
            values, numbers = np.unique(self.y, return_counts=True)
            labels = {f"{int(v)}": int(k) for v, k in zip(values, numbers, strict=True)}
        n, d = self.X.shape
        n_test = 0 if self.X_test is None else self.X_test.shape[0]
        return {"n": n, "n_test": n_test, "d": d, "labels": labels}


def digest(arrays: dict[str, ndarray], vocabulary: list[str] | None) -> str:
    """SHA-256 over names, types, shapes and bytes of all arrays, and the vocabulary."""
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).data)
    sha.update(json.dumps(vocabulary).encode())
    return sha.hexdigest()


def restore(
    domain: Domain, arrays: dict[str, ndarray], vocabulary: list[str] | None
) -> dict[str, Matrix | ndarray | list[str] | None]:
    """The fields of a :class:`~poisoning.datasets.dataset.Dataset` from what :meth:`arrays` stored.

    Raises:
        DataError: an array is missing, or they are no content that :func:`check` lets pass.
    """

    def matrix(name: str) -> Matrix | None:
        if f"{name}.data" not in arrays:
            return arrays.get(name)
        parts = [arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr", "shape")]
        if any(part.ndim != 1 or part.dtype.kind != "i" for part in parts):
            raise DataError(f"the parts of {name} are no lists of whole numbers")
        data, indices, indptr, shape = parts
        found = sp.csr_array((data, indices, indptr), shape=tuple(map(int, shape)))
        found.check_format(full_check=True)
        return found

    try:
        stored = Content(
            domain, matrix("X"), arrays["y"], matrix("X_test"), arrays.get("y_test"), vocabulary,
            arrays.get("tasks"),
        )  # fmt: skip
    except KeyError as error:
        raise DataError(f"the array {error} is missing") from None
    check(stored)
    fields = {field.name: getattr(stored, field.name) for field in dataclasses.fields(Content)}
    del fields["domain"]
    for name in ("X", "X_test"):
        if domain == "counts" and fields[name] is not None:
            fields[name] = fields[name].astype(np.float64)
        elif domain == "box01" and fields[name] is not None:
            fields[name] = fields[name] / 255.0
    return fields


_KINDS = {"box01": "u1", "counts": "i4", "nonnegative": "f8", "real": "f8"}
"""Types of values, as they are stored, by domain."""


def check(content: Content) -> None:
    """Whether this is a data set at all.

    Raises:
        DataError: a part is missing, or has another type or shape than :class:`Content` says; or it
            holds NaN, infinity, a negative count, or a word twice.
    """
    if content.domain not in _KINDS:
        raise DataError(f"there is no domain {content.domain!r}")
    kind = _KINDS[content.domain]
    for X, y, of in ((content.X, content.y, ""), (content.X_test, content.y_test, "_test")):
        if of and X is None and y is None:
            continue
        if X is None or y is None:
            raise DataError(f"X{of} or y{of} is missing")
        if sp.issparse(X) != (content.domain == "counts") or X.dtype.str[1:] != kind or X.ndim != 2:
            raise DataError(f"X{of} is no matrix of the type that {content.domain} is stored in")
        if min(X.shape) < 1 or X.shape[1] != content.X.shape[1]:
            raise DataError(f"X{of} has the shape {X.shape}")
        if y.ndim not in (1, 2) or y.dtype.str[1:] not in ("f8", "i8") or len(y) != X.shape[0]:
            raise DataError(f"y{of} has the shape {y.shape} of {y.dtype} for {X.shape[0]} examples")
        values = X.data if sp.issparse(X) else X
        for name, numbers in ((f"X{of}", values), (f"y{of}", y)):
            if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
                raise DataError(f"{name} holds NaN or infinity")
        if content.domain in ("counts", "nonnegative") and values.min(initial=0) < 0:
            raise DataError(f"X{of} holds a negative number, which {content.domain} are not")
    n, d = content.X.shape
    tasks, words = content.tasks, content.vocabulary
    if tasks is not None and (tasks.shape != (n,) or tasks.dtype.kind != "i"):
        raise DataError(f"tasks has the shape {tasks.shape} of {tasks.dtype} for {n} examples")
    if words is not None:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DataError("the vocabulary is no list of words")
        if len(words) != d or len(set(words)) != d:
            raise DataError(f"the vocabulary has {len(set(words))} words for {d} features")
