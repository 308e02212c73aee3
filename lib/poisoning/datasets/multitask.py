"""Draws of several tasks from one data set: training and test sets as in Zhao et al. 2018.

All inputs of a draw are divided by the largest Euclidean norm among its training inputs. These then
lie in the unit ball, where an attacker may put its points too ("Datasets"). Then the constant 1 is
appended to every input: the bias is one more weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.datasets.dataset import Dataset


@dataclass(frozen=True)
class MultiTaskDraw:
    """Training and test examples of m tasks; the last of the d features is the constant 1.

    Training sets are padded to the n rows of the largest: ``X`` (m, n, d), ``y`` (m, n), and
    ``weight`` (m, n) is 1/n_i on the n_i examples of task i and 0 on padding, whose rows are 0.
    Test sets keep their own lengths, one array per task; tasks that share inputs share the array.
    """

    X: Float[ndarray, "m n d"]
    y: Float[ndarray, "m n"]
    weight: Float[ndarray, "m n"]
    X_test: tuple[Float[ndarray, "_ d"], ...]
    y_test: tuple[Float[ndarray, "_"], ...]


def draw_torques(
    dataset: Dataset, rng: np.random.Generator, n_train: int = 300, n_test: int = 600
) -> MultiTaskDraw:
    """One regression task per column of ``dataset.y``, all on the same inputs (SARCOS).

    Training and test rows are drawn without replacement and are disjoint. Targets are centred and
    divided by their standard deviation over the training rows: joints differ in torque by a
    factor of fifty, and λ₁, λ₂ and the losses are common to all tasks.

    Raises:
        ValueError: the set has several groups of inputs, or fewer than ``n_train + n_test`` rows.
    """
    if dataset.y.ndim != 2 or n_train + n_test > len(dataset.y):
        raise ValueError(
            f"{dataset.name} must have one column of targets per task and at least "
            f"{n_train} + {n_test} rows; its targets have shape {dataset.y.shape}."
        )
    rows = rng.permutation(len(dataset.y))[: n_train + n_test]
    X, y = np.asarray(dataset.X[rows]), dataset.y[rows]
    y = (y - y[:n_train].mean(axis=0)) / y[:n_train].std(axis=0)
    tasks = y.shape[1]
    return _assemble(
        [X[:n_train]] * tasks,
        list(y[:n_train].T.copy()),
        [X[n_train:]] * tasks,
        list(y[n_train:].T.copy()),
    )


def draw_fields(
    dataset: Dataset, rng: np.random.Generator, train_fraction: float = 0.2
) -> MultiTaskDraw:
    """One classification task per value of ``dataset.tasks``, split task by task (Landmine).

    Task i trains on round(f n_i) random examples and is tested on the others. With f = 0.2 the
    training sets have the 89 to 138 examples that Zhao et al. report.

    Raises:
        ValueError: the set has no tasks, or a task's test examples lack a class (it has no AUC).
    """
    if dataset.tasks is None:
        raise ValueError(f"{dataset.name} has no tasks.")
    X_train, y_train, X_test, y_test = [], [], [], []
    for task in np.unique(dataset.tasks):
        rows = np.flatnonzero(dataset.tasks == task)
        n_train = round(train_fraction * len(rows))
        order = rng.permutation(rows)
        train, test = order[:n_train], order[n_train:]
        if n_train == 0 or len(np.unique(dataset.y[test])) < 2:
            raise ValueError(
                f"Task {task} of {dataset.name} has {len(rows)} examples, too few to train on a "
                f"fraction {train_fraction:g} of them and to test on both classes."
            )
        X_train.append(dataset.X[train])
        y_train.append(dataset.y[train])
        X_test.append(dataset.X[test])
        y_test.append(dataset.y[test])
    return _assemble(X_train, y_train, X_test, y_test)


def draw_one_vs_rest(
    dataset: Dataset, rng: np.random.Generator, per_class: int = 300
) -> MultiTaskDraw:
    """One task per class: +1 for its examples, −1 for all others (MNIST).

    Each task trains on ``per_class`` examples of its class and as many of all other classes
    together, drawn from the training set for each task anew; a class with fewer examples gives all
    of them. Every task is tested on the whole test set: the AUC does not depend on the proportion
    of the classes.

    Raises:
        ValueError: the set has no test set or fewer than two classes.
    """
    classes = np.unique(dataset.y)
    if dataset.X_test is None or len(classes) < 2:
        raise ValueError(f"{dataset.name} must have a test set and at least two classes.")
    X_train, y_train = [], []
    for label in classes:
        own = np.flatnonzero(dataset.y == label)
        other = np.flatnonzero(dataset.y != label)
        size = min(per_class, len(own), len(other))
        rows = [rng.choice(part, size, replace=False) for part in (own, other)]
        X_train.append(dataset.X[np.concatenate(rows)])
        y_train.append(np.repeat([1.0, -1.0], size))
    y_test = [np.where(dataset.y_test == label, 1.0, -1.0) for label in classes]
    return _assemble(X_train, y_train, [dataset.X_test] * len(classes), y_test)


def principal_components(dataset: Dataset, components: int = 128) -> Dataset:
    """Project the inputs on their leading principal components, fitted on the training set.

    All training inputs are used, without labels; a set with fewer features keeps them all. The
    covariance's eigenvectors are exact, so no random numbers enter.
    """
    kept = min(components, *dataset.X.shape)
    from sklearn.decomposition import PCA  # takes seconds

    pca = PCA(kept, svd_solver="covariance_eigh").fit(dataset.X)
    X_test = None if dataset.X_test is None else pca.transform(dataset.X_test)
    return replace(dataset, domain="real", X=pca.transform(dataset.X), X_test=X_test)


def _assemble(
    X_train: Sequence[Float[ndarray, "_ _"]],
    y_train: Sequence[Float[ndarray, "_"]],
    X_test: Sequence[Float[ndarray, "_ _"]],
    y_test: Sequence[Float[ndarray, "_"]],
) -> MultiTaskDraw:
    scale = 1.0 / max(np.sqrt(np.einsum("ij,ij->i", X, X).max()) for X in X_train)
    sizes = [len(X) for X in X_train]
    shape = len(X_train), max(sizes)
    X = np.zeros((*shape, X_train[0].shape[1] + 1))
    y, weight = np.zeros(shape), np.zeros(shape)
    for i, n in enumerate(sizes):
        X[i, :n] = _with_bias(X_train[i], scale)
        y[i, :n] = y_train[i]
        weight[i, :n] = 1.0 / n
    inputs = {id(part): _with_bias(part, scale) for part in X_test}
    return MultiTaskDraw(X, y, weight, tuple(inputs[id(part)] for part in X_test), tuple(y_test))


def _with_bias(X: Float[ndarray, "n d"], scale: float) -> Float[ndarray, "n d_plus_1"]:
    return np.hstack([scale * X, np.ones((len(X), 1))])
