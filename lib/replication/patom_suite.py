"""PATOM against several draws of tasks at once, and what it does to the test sets.

What every experiment of Zhao et al. 2018 consists of: learn from clean data, inject random points
(the random attack), let PATOM move them, and measure the target tasks before, at every iteration
and after.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from poisoning.attacks.patom import (
    Labels,
    PATOMSettings,
    Poison,
    attack_utility,
    draw_poison,
    patom,
    stack_poison,
)
from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.models.mtrl import TaskData, solve_mtrl
from poisoning.models.mtrl_evaluation import on_targets, task_data


@dataclass(frozen=True)
class AttackOutcome:
    """One attack on one draw.

    ``clean_model`` (m, d) and ``models`` (t, m, d): learned without poison, and with that of every
    iterate, the random start first. ``clean_utility`` and ``utilities`` (t,): U of Eq. (2), the
    summed training loss of the targets. ``clean_measure`` and ``measures`` (t,): NMSE (square loss)
    or AUC (hinge) of the targets on the test sets. ``best``: the iterate of highest U, whose points
    are ``poison``. ``steps``: how far each iteration moved (:class:`PATOMResult`).
    """

    clean_model: Float[ndarray, "m d"]
    models: Float[ndarray, "t m d"]
    clean_utility: float
    utilities: Float[ndarray, "t"]
    clean_measure: float
    measures: Float[ndarray, "t"]
    best: int
    poison: Poison
    steps: Float[ndarray, "s"]


def launch(
    draws: Sequence[MultiTaskDraw],
    targets: Bool[ndarray, "b m"],
    attacking: Bool[ndarray, "b m"],
    budget: float,
    labels: Labels,
    settings: PATOMSettings,
    rngs: Sequence[np.random.Generator],
) -> list[AttackOutcome]:
    """One attack per draw, run side by side; problem i's randomness is ``rngs[i]``'s alone.

    ``budget`` is the number of poisoned examples in each attacking task, as a fraction of its
    clean ones.
    """
    clean = task_data(draws)
    learned = solve_mtrl(
        clean, settings.loss, settings.lambda1, settings.lambda2, tol=settings.tol
    ).W
    clean_utility, _ = attack_utility(clean, targets, learned, settings.loss)
    poison = stack_poison(
        [
            draw_poison(
                TaskData(draw.X, draw.y, draw.weight), attacking[i], budget, labels,
                settings.loss, rngs[i], radius=settings.radius,
            )
            for i, draw in enumerate(draws)
        ]
    )  # fmt: skip
    result = patom(clean, targets, poison, settings, rngs)
    return [
        AttackOutcome(
            clean_model=learned[i],
            models=result.models[:, i],
            clean_utility=float(clean_utility[i]),
            utilities=result.utilities[:, i],
            clean_measure=on_targets(learned[i], draw, targets[i], settings.loss),
            measures=np.array(
                [on_targets(W, draw, targets[i], settings.loss) for W in result.models[:, i]]
            ),
            best=int(result.best[i]),
            poison=Poison(result.poison.X[i], result.poison.y[i], result.poison.mask[i]),
            steps=result.steps[:, i],
        )
        for i, draw in enumerate(draws)
    ]
