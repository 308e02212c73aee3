"""An attacker who has validation data in place of the test data: Section 6.1 of Koh et al. 2021."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from poisoning.attacks.attacked import Attack
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.datasets import Dataset
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import LinearGame
from replication.koh2021 import game_on_split


@dataclass(frozen=True)
class Halved:
    """Least test errors over five defenses, on the half that the attacker has and on the other."""

    seen: float
    unseen: float


def halves(count: int, rng: np.random.Generator) -> tuple[Int[ndarray, "a"], Int[ndarray, "b"]]:
    """The rows 0 … ``count`` − 1 in two random halves, each in ascending order."""
    order = rng.permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def attack_with_half(
    attack: Attack,
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
    rng: np.random.Generator,
    half_rng: np.random.Generator,
) -> Halved | None:
    """An attack made for one half of the test data, on both; None if no poison is feasible."""
    game = game_on_split(dataset, split_rng, lam, remove)
    seen, unseen = halves(len(game.y_test), half_rng)
    try:
        attacked = attack(_tested_on(game, seen), rng)
    except EmptySetError:
        return None
    return Halved(attacked.value, _value(_tested_on(game, unseen), attacked.poison))


def value_on_unseen(
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
    poisoned: PoisonedSet,
    half_rng: np.random.Generator,
) -> float:
    """The least test error of given poison over five defenses, on the half that is not seen."""
    game = game_on_split(dataset, split_rng, lam, remove)
    _, unseen = halves(len(game.y_test), half_rng)
    return _value(_tested_on(game, unseen), poisoned)


def _tested_on(game: LinearGame, rows: Int[ndarray, "a"]) -> LinearGame:
    return game.with_test(game.X_test[rows], game.y_test[rows])


def _value(game: LinearGame, poison: PoisonedSet) -> float:
    return game.value(game.evaluate(poison.X, poison.y))
