"""The result of a parser: arrays in their stored form, and a digest that identifies them."""

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
        DataError: an array is missing.
    """

    def matrix(name: str) -> Matrix | None:
        if f"{name}.data" in arrays:
            parts = [arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr", "shape")]
            data, indices, indptr, shape = parts
            return sp.csr_array((data.astype(np.float64), indices, indptr), shape=tuple(shape))
        if name not in arrays:
            return None
        return arrays[name] / 255.0 if domain == "box01" else arrays[name]

    X = matrix("X")
    if X is None or "y" not in arrays:
        raise DataError("X or y is missing")
    return {
        "X": X,
        "y": arrays["y"],
        "X_test": matrix("X_test"),
        "y_test": arrays.get("y_test"),
        "tasks": arrays.get("tasks"),
        "vocabulary": vocabulary,
    }
