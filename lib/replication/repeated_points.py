"""A defender who throws out repeated points, and an attacker who adds noise: Section 3.1."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Shaped
from numpy import ndarray

from poisoning.arrays import Matrix, to_dense
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.datasets import Dataset, split
from poisoning.defenses import FIVE
from poisoning.feasible.sets import InputDomain
from poisoning.games.linear import NONE, LinearGame
from poisoning.learners import SVM


def _keys(X: Matrix, y: Shaped[ndarray, "n"]) -> Iterator[tuple[bytes, bytes, float]]:
    """Of every row what is equal for equal points only."""
    for i, label in enumerate(y):
        x = to_dense(X[i : i + 1]).ravel()
        columns = np.flatnonzero(x)
        yield columns.tobytes(), x[columns].tobytes(), float(label)


def first_of_each(
    X: Matrix, y: Shaped[ndarray, "n"], known: Iterable[tuple[bytes, bytes, float]] = ()
) -> Bool[ndarray, "n"]:
    """Which rows have no equal row of the same label before them, nor among those ``known``."""
    seen = set(known)
    keep = np.zeros(len(y), dtype=bool)
    for i, key in enumerate(_keys(X, y)):
        keep[i] = key not in seen
        seen.add(key)
    return keep


def with_noise(poison: PoisonedSet, rng: np.random.Generator) -> PoisonedSet:
    """The same poison, every point different: in each copy one count of one feature is changed.

    Copies get one more, or one less where the limit of the feature is reached, of a feature drawn
    at random.
    """
    X = to_dense(poison.X).copy()
    domain: InputDomain = poison.domain
    free = np.flatnonzero(domain.upper > domain.lower)
    while not (keep := first_of_each(X, poison.y)).all():
        for i in np.flatnonzero(~keep):
            j = rng.choice(free)
            X[i, j] += 1.0 if X[i, j] < domain.upper[j] else -1.0
    return PoisonedSet(X, poison.y, poison.clean_size, poison.epsilon, domain)


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
    clean = set(_keys(game.X, game.y))
    found = {"no-attack": game.evaluate(game.X[:0], game.y[:0])}
    for name, poison in poisoned.items():
        new = first_of_each(poison.X, poison.y, clean)
        found[name] = game.evaluate(poison.X[new], poison.y[new])
    return {
        name: {key: outcome.test_error for key, outcome in outcomes.items()}
        for name, outcomes in found.items()
    }


def least(errors: Mapping[str, float]) -> float:
    """The least test error over the defenses."""
    return min(error for name, error in errors.items() if name != NONE)
