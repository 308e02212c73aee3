"""How well learned tasks predict: NMSE for regression, AUC for classification, per task.

Zhao et al. 2018 average either over the target tasks.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.models.mtrl import Loss, TaskData


def task_data(draws: Sequence[MultiTaskDraw]) -> TaskData:
    """The training sets of several draws of the same shape, as one batch (len(draws), m, n, …)."""
    return TaskData(
        np.stack([draw.X for draw in draws]),
        np.stack([draw.y for draw in draws]),
        np.stack([draw.weight for draw in draws]),
    )


def nmse(W: Float[ndarray, "m d"], draw: MultiTaskDraw) -> Float[ndarray, "m"]:
    """Mean squared error over variance, Σ_j (y_j − w_i·x_j)² / Σ_j (y_j − ȳ)², on the test sets.

    0 is perfect; 1 is what the mean of the test targets attains.
    """
    return np.array(
        [
            np.mean((y - X @ w) ** 2) / np.var(y)
            for w, X, y in zip(W, draw.X_test, draw.y_test, strict=True)
        ]
    )


def auc(W: Float[ndarray, "m d"], draw: MultiTaskDraw) -> Float[ndarray, "m"]:
    """The area under the ROC curve of w_i·x on each task's test set; ties count one half."""
    from sklearn.metrics import roc_auc_score  # takes seconds

    return np.array(
        [roc_auc_score(y, X @ w) for w, X, y in zip(W, draw.X_test, draw.y_test, strict=True)]
    )


def on_targets(
    W: Float[ndarray, "m d"], draw: MultiTaskDraw, targets: Bool[ndarray, "m"], loss: Loss
) -> float:
    """NMSE for the square loss, AUC for the hinge, averaged over the target tasks."""
    measure = nmse if loss == "square" else auc
    chosen = np.flatnonzero(targets)
    part = replace(
        draw,
        X_test=tuple(draw.X_test[i] for i in chosen),
        y_test=tuple(draw.y_test[i] for i in chosen),
    )
    return float(measure(W[chosen], part).mean())
