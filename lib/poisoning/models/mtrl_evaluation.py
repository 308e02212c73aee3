"""How well learned tasks predict: NMSE for regression, AUC for classification, per task.

Zhao et al. 2018 average either over the target tasks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks


def nmse(
    W: Float[ndarray, "m d"],
    X: Sequence[Float[ndarray, "_ d"]],
    y: Sequence[Float[ndarray, "_"]],
) -> Float[ndarray, "m"]:
    """Mean squared error over variance, Σ_j (y_j − w_i·x_j)² / Σ_j (y_j − ȳ)², task by task.

    ``X`` and ``y`` are the test sets, an array per task. 0 is perfect; 1 is what the mean of the
    test targets attains. Raises ``ValueError`` for a set that does not fit W or whose targets are
    all the same.
    """
    W, X, y = _tests(W, X, y)
    return np.array(
        [
            np.mean((targets - inputs @ w) ** 2) / np.var(targets)
            for w, inputs, targets in zip(W, X, y, strict=True)
        ]
    )


def auc(
    W: Float[ndarray, "m d"],
    X: Sequence[Float[ndarray, "_ d"]],
    y: Sequence[Float[ndarray, "_"]],
) -> Float[ndarray, "m"]:
    """The area under the ROC curve of w_i·x, task by task; ties count one half.

    ``X`` and ``y`` are the test sets, an array per task, with labels −1 and +1, both in each.
    Raises ``ValueError`` for a set that is not so or does not fit W.
    """
    W, X, y = _tests(W, X, y)
    for i, labels in enumerate(y):
        checks.signs(labels, f"y[{i}]", len(labels))
    from sklearn.metrics import roc_auc_score  # takes seconds

    return np.array(
        [roc_auc_score(labels, inputs @ w) for w, inputs, labels in zip(W, X, y, strict=True)]
    )


def _tests(W: Any, X: Any, y: Any) -> tuple[ndarray, list[ndarray], list[ndarray]]:
    """Weights, and a test set for each of their rows, checked."""
    W = checks.array(W, "W", (None, None))
    if not len(W) == len(X) == len(y):
        raise ValueError(f"X and y must hold {len(W)} test sets, they hold {len(X)} and {len(y)}.")
    X = [checks.array(part, f"X[{i}]", (None, W.shape[1])) for i, part in enumerate(X)]
    y = [checks.vector(part, f"y[{i}]", len(X[i])) for i, part in enumerate(y)]
    for i, part in enumerate(y):
        if not part.size or np.ptp(part) == 0.0:
            raise ValueError(f"y[{i}] must hold different values.")
    return W, X, y
