"""A defender who throws out repeated points before the five defenses clean: Section 3.1."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Shaped
from numpy import ndarray

from poisoning.arrays import Matrix, vstack
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.datasets import Dataset, split
from poisoning.defenses import FIVE
from poisoning.defenses.repeats import RepeatsDefense
from poisoning.games.linear import NONE, LinearGame
from poisoning.learners import SVM


def first_of_each(X: Matrix, y: Shaped[ndarray, "n"]) -> Bool[ndarray, "n"]:
    """Which rows have no equal row of the same label before them."""
    return RepeatsDefense().fit(X, y).score(X, y) == 0.0


def repeats_dropped(
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
    poisoned: Mapping[str, PoisonedSet],
) -> dict[str, dict[str, float]]:
    """Test errors of a defender who drops repeated points, then cleans with one of the five.

    For "no-attack" and for every attack of ``poisoned``, by defense, "none" included. Of equal
    points one stays.
    """
    part = split(dataset, split_rng)
    keep = first_of_each(part.X, part.y)
    game = LinearGame(
        part.X[keep], part.y[keep], part.X_test, part.y_test, domain=dataset.domain,
        learner=SVM(lam), defenses=FIVE, remove=remove,
    )  # fmt: skip
    found = {"no-attack": game.evaluate(game.X[:0], game.y[:0])}
    for name, poison in poisoned.items():
        X, y = vstack([game.X, poison.X]), np.concatenate([game.y, poison.y])
        new = first_of_each(X, y)[game.n :]
        found[name] = game.evaluate(poison.X[new], poison.y[new])
    return {
        name: {key: outcome.test_error for key, outcome in outcomes.items()}
        for name, outcomes in found.items()
    }


def least(errors: Mapping[str, float]) -> float:
    """The least test error over the defenses."""
    return min(error for name, error in errors.items() if name != NONE)
