"""Detection of attacked tasks and of their poisoned examples, as Zhao et al. 2018 propose.

"The tasks under attacking show a strong correlation … Therefore, the machine learner can examine
the data from tasks that form strong local correlations" (Conclusion and Future Work). There are two
steps. Every task gets a score, larger if it is more suspicious, from the data that the learner
received and the model learned from them; then the data of the flagged tasks are examined.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from poisoning import checks
from poisoning.models.mtrl import Loss, TaskData, loss_values, solve_mtrl, task_scores


def group_scores(correlations: Float[ndarray, "m m"], size: int) -> Float[ndarray, "m"]:
    """How much more strongly a task correlates with its nearest group than with the other tasks.

    s_i = mean of the ``size`` − 1 largest C_ij, j ≠ i, minus the mean of the others: positive
    correlations, because the paper sees attacking tasks "highly positive correlated, in contrast
    with other tasks". A matrix of ones, as a rank-one Ω with equal signs gives, scores 0.

    Raises:
        ValueError: a group must have at least two tasks and leave one out.
    """
    correlations = checks.square(correlations, "correlations")
    m = len(correlations)
    size = checks.whole(size, "size", 2, m - 1)
    others = correlations[~np.eye(m, dtype=bool)].reshape(m, m - 1)
    ranked = -np.sort(-others, axis=1)
    return ranked[:, : size - 1].mean(axis=1) - ranked[:, size - 1 :].mean(axis=1)


def loss_scores(data: TaskData, W: Float[ndarray, "m d"], loss: Loss) -> Float[ndarray, "m"]:
    """The mean training loss of every task, Σ_j weight_ij ℓ(w_i·x_ij, y_ij): a plain baseline.

    Raises ``ValueError`` for weights that do not fit the data.
    """
    m, _, d = checks.instance(data, "data", TaskData).X.shape
    W = checks.array(W, "W", (m, d))
    losses = loss_values(task_scores(data.X, W), data.y, loss)
    return np.sum(data.weight * losses, axis=-1)


def trim(
    data: TaskData,
    flagged: Bool[ndarray, "m"],
    fraction: float,
    loss: Loss,
    regularisation: float,
    rounds: int = 20,
) -> Bool[ndarray, "m n"]:
    """Which examples stay after the flagged tasks' data were examined, each task by itself.

    Least trimmed losses: fit w to the kept examples of one task, keep the round((1 − f) n_i) of its
    examples with the lowest loss, fit again, until nothing changes or ``rounds`` are over. The fit
    minimises mean loss + ``regularisation``/2 ‖w‖², without the other tasks, so that poison in
    these cannot hide that of the task. The sum of the kept losses never rises.

    Raises:
        ValueError: ``fraction`` is not in [0, 1).
        SolverError: a fit does not converge.
    """
    m = len(checks.instance(data, "data", TaskData).y)
    flagged = checks.mask(flagged, "flagged", (m,))
    fraction = checks.fraction(fraction, "fraction")
    regularisation = checks.positive(regularisation, "regularisation")
    rounds = checks.whole(rounds, "rounds")
    kept = data.weight > 0.0
    for i in np.flatnonzero(flagged):
        own = kept[i].copy()
        kept[i, own] = _trim_alone(
            data.X[i, own], data.y[i, own], fraction, loss, regularisation, rounds
        )
    return kept


def _trim_alone(
    X: Float[ndarray, "n d"],
    y: Float[ndarray, "n"],
    fraction: float,
    loss: Loss,
    regularisation: float,
    rounds: int,
) -> Bool[ndarray, "n"]:
    """Least trimmed losses of one task: for a single row, ‖w‖_*² = ‖w‖²."""
    staying = round((1.0 - fraction) * len(y))
    kept, W = np.ones(len(y), dtype=bool), None
    for _ in range(rounds):
        data = TaskData(X[None], y[None], _equal_weights(kept[None]))
        W = solve_mtrl(data, loss, regularisation / 2, regularisation / 2, start=W).W
        losses = loss_values(task_scores(data.X, W), data.y, loss)[0]
        chosen = np.argsort(np.argsort(losses, kind="stable")) < staying
        if np.array_equal(chosen, kept):
            break
        kept = chosen
    return kept


def keep(data: TaskData, kept: Bool[ndarray, "m n"]) -> TaskData:
    """The tasks with only the ``kept`` examples; each task's weights again add up to one.

    Raises ``TypeError`` or ``ValueError`` unless ``kept`` is a mask of the examples.
    """
    kept = checks.mask(kept, "kept", checks.instance(data, "data", TaskData).y.shape)
    return replace(data, weight=_equal_weights(kept & (data.weight > 0)))


def _equal_weights(kept: Bool[ndarray, "m n"]) -> Float[ndarray, "m n"]:
    return kept / np.maximum(kept.sum(axis=1, keepdims=True), 1)
