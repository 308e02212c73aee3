"""Clean data with poison added, as a defense receives it.

An attacker who chooses among hundreds of candidates adds each to the same clean data. Quantities of
the clean data alone are cached with them (:meth:`CleanData.remember`). Quantities of one candidate
that several defenses need are cached with the candidate.
"""

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, column_sum, distinct_rows, squared_norms, to_dense, vstack
from poisoning.defenses.products import InnerProducts

Known = TypeVar("Known")


class CleanData:
    """The clean training data ``X`` (n, d), ``y`` (n,), with a cache of derived quantities."""

    def __init__(self, X: Matrix, y: Shaped[ndarray, "n"]) -> None:
        self.X = checks.matrix(X, "X")
        self.y = checks.labels(y, "y", self.X.shape[0])
        self._known: dict[Hashable, Any] = {}

    def remember(self, key: Hashable, find: Callable[[], Known]) -> Known:
        """The result of ``find()``, computed at the first call with this ``key``."""
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]

    @property
    def products(self) -> InnerProducts:
        """Inner products with every clean row."""
        return self.remember("products", lambda: InnerProducts(self.X))

    @property
    def norms(self) -> Float[ndarray, "n"]:
        """‖x‖² for every clean row."""
        return self.remember("norms", lambda: squared_norms(self.X))

    @property
    def sums(self) -> dict[float | int, tuple[Float[ndarray, "d"], int]]:
        """For each label, the sum of its points and their number."""
        return self.remember("sums", lambda: _sums(self.X, self.y))


class PoisonedData:
    """Clean data and the poison ``X_poison`` (r, d), ``y_poison`` (r,), clean points first.

    ``X`` (n + r, d), ``y`` (n + r,) are what the defender sees; ``poisoned`` (n + r,) marks the
    poison and is hidden from the defender. ``undefended`` returns the learner trained on all
    points. ``exact``: whether scores must be exact; otherwise a defense may approximate where
    exactness takes minutes, and reports the error of its scores in ``residuals``, by the defense's
    id. ``rng`` is for defenses that draw at random.
    """

    def __init__(
        self,
        clean: CleanData,
        X_poison: Matrix,
        y_poison: Shaped[ndarray, "r"],
        undefended: Callable[[], Any],
        *,
        exact: bool = True,
        rng: np.random.Generator | None = None,
    ) -> None:
        columns = checks.instance(clean, "clean", CleanData).X.shape[1]
        X_poison = checks.matrix(X_poison, "X_poison", columns=columns, rows=0)
        y_poison = checks.labels(y_poison, "y_poison", X_poison.shape[0]).astype(clean.y.dtype)
        self.clean, self.undefended = clean, undefended
        self.X_poison, self.y_poison = X_poison, y_poison
        self.exact, self.rng = exact, rng
        self.X = vstack([clean.X, X_poison]) if X_poison.shape[0] else clean.X
        self.y = np.concatenate([clean.y, y_poison])
        self.poisoned: Bool[ndarray, "m"] = np.arange(len(self.y)) >= len(clean.y)
        self.residuals: dict[int, float] = {}

    @cached_property
    def norms(self) -> Float[ndarray, "m"]:
        """‖x‖² for every row."""
        return np.concatenate([self.clean.norms, squared_norms(self.X_poison)])

    @cached_property
    def centroids(self) -> dict[float | int, Float[ndarray, "d"]]:
        """The mean of the points of each label, in ascending order of the labels."""
        added = _sums(self.X_poison, self.y_poison)
        none = np.zeros(self.X.shape[1]), 0
        found = {}
        for label in sorted(self.clean.sums | added):
            (clean, n), (poison, r) = self.clean.sums.get(label, none), added.get(label, none)
            found[label] = (clean + poison) / (n + r)
        return found

    @cached_property
    def distinct(self) -> tuple[Matrix, Int[ndarray, "u"], Int[ndarray, "r"]]:
        """The distinct poisoned rows, their copies, and which of them each poisoned row is."""
        return distinct_rows(vstack([self.clean.X[:0], self.X_poison]))

    @cached_property
    def cross(self) -> Float[ndarray, "n u"]:
        """x·p for every clean row x and every distinct poisoned row p."""
        return np.ascontiguousarray(self.clean.products(self.distinct[0]).T)

    @cached_property
    def inner(self) -> Float[ndarray, "u u"]:
        """p·q for all distinct poisoned rows."""
        P = self.distinct[0]
        return to_dense(P @ P.T)


def _sums(X: Matrix, y: Shaped[ndarray, "n"]) -> dict[float | int, tuple[Float[ndarray, "d"], int]]:
    return {
        label: (column_sum(X[y == label]), int((y == label).sum()))
        for label in np.unique(y).tolist()
    }
