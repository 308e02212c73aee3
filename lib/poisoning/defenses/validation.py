"""The fraction p that a defense removes, chosen on held-out data.

A defender who does not know the fraction of poison can hold out some of the data, poison included,
and choose the p whose model errs least there. The defender does not know which held-out points are
poison.
"""

from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from sklearn.base import clone

from poisoning.arrays import Matrix
from poisoning.checks import fraction, generator, predicted
from poisoning.defenses.detector import (
    Defense,
    as_defense,
    equipped,
    examples,
    keep_mask,
    scored,
    seeded,
)

ASIDE = 5  # one point in five is held out


def removal_by_validation(
    defense: Defense,
    learner: Any,
    X: Matrix,
    y: Shaped[ndarray, "n"],
    removals: Sequence[float],
    rng: int | np.random.Generator,
) -> tuple[float, Any]:
    """The best p of ``removals``, and the learner trained on all data that the defense then keeps.

    ``X`` (n, d), ``y`` (n,) are what the defender received. A fifth of it, drawn by ``rng``, is
    held out. For every p the defense cleans the rest, and the model of the points kept is tested on
    the fifth. Of equal errors the first p wins.

    Raises ``ValueError`` for fewer than five points, no fraction to choose from, and what is no
    data set.
    """
    draws = generator(rng)
    X, y = examples(X, y)
    if len(y) < ASIDE:
        raise ValueError(f"X must have at least {ASIDE} rows to hold one out, it has {len(y)}.")
    if isinstance(removals, str) or not isinstance(removals, Sized) or not len(removals):
        raise ValueError(
            f"removals must be a sequence of at least one fraction, not {removals!r:.100}."
        )
    removals = [fraction(p, "removals") for p in removals]
    order, learner = draws.permutation(len(y)), seeded(clone(learner), int(draws.integers(2**31)))
    aside, rest = order[: len(y) // ASIDE], order[len(y) // ASIDE :]
    defense = equipped(as_defense(defense), learner)

    def trained(
        X: Matrix, y: Shaped[ndarray, "m"], scores: Float[ndarray, "m"], remove: float
    ) -> Any:
        keep = keep_mask(scores, y, remove)
        return clone(learner).fit(X[keep], y[keep])

    scores = scored(defense, X[rest], y[rest])
    errors = [
        np.mean(predicted(trained(X[rest], y[rest], scores, p), X[aside]) != y[aside])
        for p in removals
    ]
    best = removals[int(np.argmin(errors))]
    return best, trained(X, y, scored(defense, X, y), best)
