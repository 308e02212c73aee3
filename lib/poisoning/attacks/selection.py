"""The best of many candidate attacks, without measuring each behind every defense.

Section 5.2 of Koh et al. 2021: the attacker does not know the defense, so a candidate's value is
its least test error over all defenses. The test error behind any one defense is an upper bound on
the value, and defenses differ in cost by orders of magnitude. So the candidate with the highest
bound is measured behind its next cheapest defense, until that candidate has been measured behind
all defenses. No other candidate has a higher value.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from poisoning.arrays import Matrix
from poisoning.attacks.attacked import Attacked
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import NONE, AttackedGame, LinearGame, Outcome

EXACT = 1e-6
"""Residual of a defense's scores that is too small to change what it removes."""

MARGIN = 0.01
"""What the test error of a roughly trained model is taken to be off by, at most.

A choice, not a bound: of 80 candidates of KKT on one split of Enron none was off by more than .005.
"""

_UNKNOWN_COST = 5

Source = TypeVar("Source")


@dataclass(frozen=True)
class Tried(Generic[Source]):
    """One candidate, in the order tried, and the ``source`` it came from: a decoy, an iterate …

    ``first_error`` is its test error behind the game's cheapest defense, which of Koh et al.'s five
    is L2; of a candidate that is not ``exact``, that of a model trained to a loose tolerance.
    ``minimum_error`` is the least over all defenses if ``complete``, else an upper bound on it that
    shows the candidate no better than the winner. ``seconds`` is the time from the start of
    the attack until ``first_error`` was known, the only field that differs between two runs with
    one seed.
    """

    source: Source
    first_error: float
    minimum_error: float
    exact: bool
    complete: bool
    seconds: float


def select(
    game: LinearGame,
    candidates: Iterable[tuple[Source, PoisonedSet | None]],
    begun: float,
    *,
    enough: float = np.inf,
) -> Attacked[Source]:
    """The candidate with the highest least test error over the defenses; of equals the first.

    ``candidates`` are sources with their poison, None where there is none. The search ends early
    when a candidate's value reaches ``enough``. Seconds count from ``begun``
    (``time.perf_counter``).

    Raises ``EmptySetError`` if no source has poison.
    """
    search = BestFirst(game)
    tried: list[tuple[Source, float]] = []
    skipped, winner = 0, None
    for source, poisoned in candidates:
        if poisoned is None:
            skipped += 1
            continue
        search.offer(poisoned)
        tried.append((source, perf_counter() - begun))
        winner = search.settle(enough)
        if winner is not None:
            break
    winner = search.settle() if winner is None else winner
    if winner is None:
        raise EmptySetError(
            f"attack: none of {skipped} problems has a solution in the feasible set; "
            "raise its percentiles or the cap on the loss"
        )
    history = tuple(search.tried(k, *one) for k, one in enumerate(tried))
    outcomes = search.evaluation(winner)
    return Attacked(
        search.candidates[winner], game.value(outcomes), outcomes, tried[winner][0], history,
        skipped, perf_counter() - begun,
    )  # fmt: skip


def measured(game: LinearGame, points: Matrix, labels: Shaped[ndarray, "r"]) -> Attacked:
    """The result of an attack that has only one candidate.

    ``points`` (r, d) and ``labels`` (r,) as for :meth:`LinearGame.evaluate
    <poisoning.games.linear.LinearGame.evaluate>`; the points must lie in the game's domain.

    Raises:
        TypeError: ``game`` is no ``LinearGame``, or the poison holds no numbers.
        ValueError: the poison is not of the game's kind, or lies outside its domain.
    """
    if not isinstance(game, LinearGame):
        raise TypeError(f"game must be a LinearGame, not a {type(game).__name__}.")
    begun = perf_counter()
    outcomes = game.evaluate(points, labels)
    X, y = game.checked(points, labels)
    poison = PoisonedSet(X, y, game.n, len(y) / game.n, game.domain)
    seconds = perf_counter() - begun
    return Attacked(poison, game.value(outcomes), outcomes, seconds=seconds)


class BestFirst:
    """``candidates`` in the order offered, each with its ``outcomes`` measured so far."""

    def __init__(self, game: LinearGame) -> None:
        self.candidates: list[PoisonedSet] = []
        self.outcomes: list[dict[str, Outcome]] = []
        self._game = game
        self._rough: list[float | None] = []
        costs = {name: getattr(one, "cost", _UNKNOWN_COST) for name, one in game.defenses.items()}
        self.cheapest_first = sorted(costs, key=costs.__getitem__) or [NONE]
        self._queue: list[tuple[float, int]] = []  # (−bound, number): of equals the first wins
        self._attacked: tuple[int, AttackedGame] | None = None  # the candidate measured last

    def offer(self, poisoned: PoisonedSet) -> None:
        """Add one candidate, and measure it behind the cheapest defense, roughly if it can be."""
        number = len(self.candidates)
        self.candidates.append(poisoned)
        self.outcomes.append({})
        self._rough.append(self._data(number).rough_error(self.cheapest_first[0]))
        if self._rough[number] is None:
            self._measure(number)
        heapq.heappush(self._queue, (-self.bound(number), number))

    def exact(self, number: int) -> bool:
        """Whether the model of a candidate was trained to the learner's own tolerance."""
        return bool(self.outcomes[number])

    def first_error(self, number: int) -> float:
        """The test error of a candidate behind the cheapest defense, as exact as it is known."""
        if self.exact(number):
            return self.outcomes[number][self.cheapest_first[0]].test_error
        return self._rough[number]

    def bound(self, number: int) -> float:
        """The least test error of a candidate over the defenses measured so far."""
        if self.exact(number):
            return min(outcome.test_error for outcome in self.outcomes[number].values())
        return self._rough[number] + MARGIN

    def complete(self, number: int) -> bool:
        """Whether a candidate has been measured behind all defenses."""
        return len(self.outcomes[number]) == len(self.cheapest_first)

    def tried(self, number: int, source: Source, seconds: float) -> Tried[Source]:
        """What is known of a candidate."""
        return Tried(
            source, self.first_error(number), self.bound(number), self.exact(number),
            self.complete(number), seconds,
        )  # fmt: skip

    def settle(self, least: float = -np.inf) -> int | None:
        """The number of the best candidate; None if no value is at least ``least``."""
        while self._queue and -self._queue[0][0] >= least:
            number = self._queue[0][1]
            if self.complete(number):
                return number
            self._measure(number)
            heapq.heapreplace(self._queue, (-self.bound(number), number))
        return None

    def evaluation(self, number: int) -> dict[str, Outcome]:
        """The exact outcomes of a candidate without a defense and behind every defense.

        The search itself uses approximate scores where exact ones take minutes
        (:attr:`poisoning.games.linear.Outcome.residual`).
        """
        known = {NONE: self._data(number).outcome(NONE), **self.outcomes[number]}
        poisoned, exact = self.candidates[number], None
        for name, outcome in known.items():
            if outcome.residual > EXACT:
                exact = exact or self._game.attacked(poisoned.X, poisoned.y)
                known[name] = exact.outcome(name)
        return known

    def _data(self, number: int) -> AttackedGame:
        if self._attacked is None or self._attacked[0] != number:
            poisoned = self.candidates[number]
            self._attacked = number, self._game.attacked(poisoned.X, poisoned.y, exact=False)
        return self._attacked[1]

    def _measure(self, number: int) -> None:
        """Measure a candidate behind the cheapest defense that is left."""
        defense = self.cheapest_first[len(self.outcomes[number])]
        self.outcomes[number][defense] = self._data(number).outcome(defense)
