"""How well learned tasks predict: NMSE for regression, AUC for classification, per task.

Zhao et al. 2018 average either over the target tasks.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def nmse(
    W: Float[ndarray, "m d"],
    X: Sequence[Float[ndarray, "_ d"]],
    y: Sequence[Float[ndarray, "_"]],
) -> Float[ndarray, "m"]:
    """Mean squared error over variance, Σ_j (y_j − w_i·x_j)² / Σ_j (y_j − ȳ)², task by task.

    ``X`` and ``y`` are the test sets, an array per task. 0 is perfect; 1 is what the mean of the
    test targets attains.
    """
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
    """
    from sklearn.metrics import roc_auc_score  # takes seconds

    return np.array(
        [roc_auc_score(labels, inputs @ w) for w, inputs, labels in zip(W, X, y, strict=True)]
    )
