"""A prepared data set with its domain, its provenance and, if there is one, its official split."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix

Domain: TypeAlias = Literal["counts", "box01", "nonnegative", "real"]
"""Values an example may take: counts 0, 1, 2 …; the box [0, 1]; x ≥ 0; any real number."""

Targets: TypeAlias = Float[ndarray, "n"] | Int[ndarray, "n"] | Float[ndarray, "n outputs"]
"""−1.0/+1.0 for two classes, 0 … k−1 for more, one column per output for regression."""

TestTargets: TypeAlias = Float[ndarray, "m"] | Int[ndarray, "m"] | Float[ndarray, "m outputs"]
"""The same for the m test examples."""


@dataclass(frozen=True)
class Dataset:
    """A prepared data set.

    ``X`` (n, d) is a float64 ``ndarray``, or a float64 ``csr_array`` for bags of words, with values
    in ``domain``; ``y`` are its :data:`Targets`. ``X_test`` and ``y_test`` are None where there is
    no official split. ``vocabulary[j]`` is the word that column j counts. ``tasks`` (n,) gives the
    task 0 … T−1 of every row of a multi-task set. ``manifest`` records the variant, the content's
    digest, licence, citation and counts.
    """

    name: str
    variant: str
    domain: Domain
    X: Matrix
    y: Targets
    X_test: Matrix | None = None
    y_test: TestTargets | None = None
    vocabulary: list[str] | None = None
    tasks: Int[ndarray, "n"] | None = None
    manifest: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """Training and test examples: ``X`` (n, d), ``y`` (n,), ``X_test`` (m, d), ``y_test`` (m,)."""

    X: Matrix
    y: Targets
    X_test: Matrix
    y_test: TestTargets


def split(dataset: Dataset, rng: int | np.random.Generator, test_fraction: float = 0.2) -> Split:
    """The official split, or ⌊(1 − f)n⌋ random rows to train on and the others to test on.

    Koh et al. 2021 (Table 1) split Enron 80/20: 4,137 training and 1,035 test mails. ``rng``, a
    seed or a generator, is left untouched by a data set that has an official split.

    Raises:
        ValueError: ``test_fraction`` is not between 0 and 1 or leaves no row to train on, or the
            set has several tasks, whose examples have to be split task by task.
    """
    if dataset.X_test is not None:
        return Split(dataset.X, dataset.y, dataset.X_test, dataset.y_test)
    if dataset.tasks is not None:
        raise ValueError(f"{dataset.name} has several tasks: split the rows of each task.")
    if not 0.0 < test_fraction < 1.0:
        raise ValueError(f"test_fraction must lie between 0 and 1, not be {test_fraction}.")
    n = len(dataset.y)
    # 0.8 · 10 may be computed as 7.999…; adding 1e-9 keeps the floor right.
    n_train = int((1.0 - test_fraction) * n + 1e-9)
    if not 0 < n_train < n:
        raise ValueError(
            f"test_fraction = {test_fraction} leaves {n_train} of {n} rows to train on."
        )
    order = checks.generator(rng).permutation(n)
    train, test = order[:n_train], order[n_train:]
    return Split(dataset.X[train], dataset.y[train], dataset.X[test], dataset.y[test])


def binary(dataset: Dataset, positive: int, negative: int) -> Dataset:
    """Two classes of a multi-class set: ``positive`` becomes +1.0, ``negative`` −1.0.

    MNIST-1-7 of Koh et al. 2021 is ``binary(load("mnist"), positive=7, negative=1)``: n = 13,007
    and 2,163 test images.

    Raises:
        ValueError: the two classes are the same, or the set has no examples of one of them.
    """
    if positive == negative:
        raise ValueError(f"Two different classes are needed, not {positive} twice.")

    def select(X: Matrix, y: Targets) -> tuple[Matrix, Float[ndarray, "selected"]]:
        for label in (positive, negative):
            if not np.any(y == label):
                raise ValueError(f"{dataset.name} has no examples of class {label}.")
        rows = np.flatnonzero((y == positive) | (y == negative))
        return X[rows], np.where(y[rows] == positive, 1.0, -1.0)

    X, y = select(dataset.X, dataset.y)
    X_test, y_test = None, None
    if dataset.X_test is not None:
        X_test, y_test = select(dataset.X_test, dataset.y_test)
    low, high = sorted((positive, negative))
    name = f"{dataset.name}-{low}-{high}"
    return replace(dataset, name=name, X=X, y=y, X_test=X_test, y_test=y_test)
