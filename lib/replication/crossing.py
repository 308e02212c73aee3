"""What the notebooks of ``crossing`` share: data sets, defenders, and how they meet poison.

A defender is a learner, and defenses that clean the data before it learns. Some defenders have a
few trusted points: drawn from the test data, which attackers know anyway; errors are measured on
the rest.
"""

from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from poisoning.arrays import Matrix
from poisoning.attacks.adaptive import Adaptive
from poisoning.attacks.attacked import Attack
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.certificates.certified_error import certify_over_lambda
from poisoning.certificates.partition import partition_sweep
from poisoning.datasets import Dataset, binary
from poisoning.defenses import FIVE, L2Defense
from poisoning.defenses.detector import as_defense, name_of
from poisoning.defenses.filters import OracleFilter, RandomFilter, Together
from poisoning.defenses.repeats import RepeatsDefense
from poisoning.defenses.roni import RONIDefense
from poisoning.defenses.sever import SEVERDefense
from poisoning.defenses.trusted import Sanitized, TrustedChoice, ValidatedRemoval
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import NONE, LinearGame, Outcome
from poisoning.learners import SVM, PartitionedVote
from replication.carnerero2023 import CLASSES
from replication.koh2021 import game_on_split
from replication.notebook import Notebook

CLEANING = (
    "l2",
    "slab",
    "loss",
    "svd",
    "knn",
    "all",
    "repeats",
    "sever",
    "roni",
    "random",
    "oracle",
)
"""Defenders who clean the data, by the names of metrics."""

LEARNING = ("validated-l2", "learned-lambda", "partitions")
"""Defenders who learn in another way."""


@dataclass(frozen=True)
class Defenders:
    """Every defender of the matrix, as the knobs set them.

    ``lam`` and ``remove`` are those of all; ``trusted`` is how many points a defender who trusts
    some has; ``lams`` and ``removals`` are what is chosen from, ``parts`` how many models vote, and
    ``more`` the defenses that a knob adds.
    """

    lam: float
    remove: float
    trusted: int
    lams: tuple[float, ...]
    removals: tuple[float, ...]
    parts: int
    more: tuple[Any, ...] = ()

    def games(
        self, dataset: Dataset, split_rng: np.random.Generator, trusted_rng: np.random.Generator
    ) -> dict[str, LinearGame]:
        """The game of each defender on one split, by the defender's name; "none" has no defense."""
        base = game_on_split(dataset, split_rng, self.lam, self.remove)
        order = in_turn(base.y_test, trusted_rng)
        X, y, base = apart(base, order, self.trusted, self.trusted)
        svm = SVM(self.lam)
        cleaning = (
            *FIVE, Together(FIVE), RepeatsDefense(), SEVERDefense(remove=self.remove),
            RONIDefense(X, y, svm), *map(as_defense, self.more), RandomFilter(), OracleFilter(),
        )  # fmt: skip
        learning = {
            "validated-l2": ValidatedRemoval(L2Defense(), svm, self.removals),
            "learned-lambda": TrustedChoice([SVM(lam) for lam in self.lams], X, y),
            "partitions": PartitionedVote(svm, self.parts),
        }
        found = {NONE: base.with_defenses(())}
        found |= {name_of(defense): base.with_defenses((defense,)) for defense in cleaning}
        for name, learner in learning.items():
            found[name] = base.with_defender(learner, (), self.remove)
        return found


def in_turn(y: Shaped[ndarray, "m"], rng: np.random.Generator) -> Int[ndarray, "m"]:
    """A random order of test points in which the classes take turns while both have points left."""
    turns = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        turns[members] = rng.permutation(len(members))
    return np.lexsort((y, turns))


def apart(
    game: LinearGame, order: Int[ndarray, "m"], size: int, aside: int
) -> tuple[Matrix, Shaped[ndarray, "t"], LinearGame]:
    """``size`` trusted points of ``aside`` test points put aside, and the game tested on the rest.

    ``order`` is that of :func:`in_turn`. A larger size holds what a smaller one holds, and the rest
    is the same.
    """
    trusted, rest = np.sort(order[:size]), np.sort(order[aside:])
    return (
        game.X_test[trusted], game.y_test[trusted],
        game.with_test(game.X_test[rest], game.y_test[rest]),
    )  # fmt: skip


@dataclass(frozen=True)
class Met:
    """One defender and one attack: test error, shares of poison and clean points removed, CPU s."""

    test_error: float
    poison_removed: float
    clean_removed: float
    seconds: float


def meet(game: LinearGame, X: Any, y: ndarray) -> Met:
    """Given poison before one defender; a game of several defenses has no place here."""
    begun = process_time()
    return _met(game.evaluate(X, y, rng=0), begun)


def _met(outcomes: dict[str, Outcome], begun: float) -> Met:
    """The outcome behind the one defense that there is, or without any, found since ``begun``."""
    (name,) = outcomes.keys() - {NONE} or {NONE}
    one = outcomes[name]
    return Met(one.test_error, one.poison_removed, one.clean_removed, process_time() - begun)


def meet_all(
    dataset: Dataset,
    split_rng: np.random.Generator,
    trusted_rng: np.random.Generator,
    defenders: Defenders,
    poisons: dict[str, PoisonedSet | None],
) -> dict[str, dict[str, Met]]:
    """Each of some poisons, or none, before every defender, by poison and defender.

    What defenders find on the clean data serves for all poisons.
    """
    games = defenders.games(dataset, split_rng, trusted_rng)
    clean = games[NONE]
    found = {}
    for kind, poison in poisons.items():
        X, y = (clean.X[:0], clean.y[:0]) if poison is None else (poison.X, poison.y)
        found[kind] = {name: meet(game, X, y) for name, game in games.items()}
    return found


def meet_knowing(
    dataset: Dataset,
    split_rng: np.random.Generator,
    trusted_rng: np.random.Generator,
    defenders: Defenders,
    attack: Adaptive,
    rng: np.random.Generator,
) -> dict[str, Met]:
    """Every defender before an attacker who knows it, random and perfect filters left out.

    The attacker's candidates are the same for all defenders; what is chosen is not. The seconds
    are those of the search behind a defender, without those of finding candidates.
    """
    games = defenders.games(dataset, split_rng, trusted_rng)
    pool = attack.pool(games[NONE], rng)
    found = {}
    for name, game in games.items():
        if name not in ("random", "oracle"):
            begun = process_time()
            found[name] = _met(attack.search(game, pool, rng).outcomes, begun)
    return found


def trusting(
    dataset: Dataset,
    split_rng: np.random.Generator,
    trusted_rng: np.random.Generator,
    defenders: Defenders,
    sizes: list[int],
    poisoned: PoisonedSet | None,
) -> dict[tuple[str, int], Met]:
    """Given poison, or none, before defenders who use trusted points, by defender and their number.

    "none" trusts nothing, "learned-lambda" and "learned-p" choose λ, or what the L2 defense
    removes, by trusted errors; "roni" rejects what harms a model of trusted points.
    """
    base = game_on_split(dataset, split_rng, defenders.lam, defenders.remove)
    svm = SVM(defenders.lam)
    candidates = {
        "learned-lambda": [SVM(lam) for lam in defenders.lams],
        "learned-p": [Sanitized(L2Defense(), svm, p) for p in defenders.removals],
    }
    order = in_turn(base.y_test, trusted_rng)
    found = {}
    for size in sizes:
        X, y, game = apart(base, order, size, max(sizes))
        poison = (game.X[:0], game.y[:0]) if poisoned is None else (poisoned.X, poisoned.y)
        games = {"roni": game.with_defenses((RONIDefense(X, y, svm),))}
        for name, learners in candidates.items():
            learner = TrustedChoice(learners, X, y)
            games[name] = game.with_defender(learner, (), defenders.remove)
        if size == sizes[0]:
            found[NONE, 0] = meet(game.with_defenses(()), *poison)
        found |= {(name, size): meet(one, *poison) for name, one in games.items()}
    return found


def attack_that_knows(
    attack: Attack,
    dataset: Dataset,
    split_rng: np.random.Generator,
    trusted_rng: np.random.Generator,
    lam: float,
    remove: float,
    size: int,
    aside: int,
    rng: np.random.Generator,
) -> dict[str, float] | None:
    """Errors on the rest of an attacker who has the trusted points in place of the test data.

    By defense, "none" included. With ``size`` 0 the attacker has the training data alone. None if
    no poison is feasible.
    """
    base = game_on_split(dataset, split_rng, lam, remove)
    X, y, game = apart(base, in_turn(base.y_test, trusted_rng), size, aside)
    try:
        poison = attack(game.with_test(X, y) if size else game.blind(), rng).poison
    except EmptySetError:
        return None
    return {name: o.test_error for name, o in game.evaluate(poison.X, poison.y).items()}


def certified(
    dataset: Dataset,
    split_rng: np.random.Generator,
    lams: list[float],
    points: int,
    attack: Attack,
    rng: np.random.Generator,
) -> dict[str, Float[ndarray, "k"]]:
    """Clean, attacked and certified test errors of ``points`` poisoned points, a row for each λ.

    ``attack`` adds at most so many points.
    """
    game = game_on_split(dataset, split_rng, lams[0])
    return certify_over_lambda(game, points, lams, attacks=(attack,), rng=rng).table


def voted(
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    parts: list[int],
    poisons: dict[int, PoisonedSet],
) -> dict[str, list[Any]]:
    """Clean, attacked and certified errors of a vote, a row for each number of parts and points.

    ``poisons`` is poison by the number of its points; it was made against one SVM.
    """
    game = game_on_split(dataset, split_rng, lam)
    rows = []
    for certificate in partition_sweep(game, parts).certificates:
        voting = game.with_defender(PartitionedVote(SVM(lam), certificate.parts), ())
        for points, poison in poisons.items():
            error = meet(voting, poison.X, poison.y).test_error
            rows.append((certificate.parts, points, certificate.bound(0), error,
                         certificate.bound(points), certificate.majority))  # fmt: skip
    names = ("parts", "points", "clean", "attacked", "bound", "majority")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def pair(notebook: Notebook, name: str) -> Dataset:
    """A data set of two classes: as it is, or the pair of Carnerero-Cano et al. 2023."""
    data = notebook.load(name)
    return binary(data, *CLASSES[name]) if name in CLASSES else data
