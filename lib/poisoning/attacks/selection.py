"""Which of many candidate attacks is best, measured no more than is needed to be sure.

Section 5.2 of Koh et al. 2021: an attacker does not know which defense it will meet, so a candidate
is worth its least test error over the five. Every defense measured bounds that from above, and the
defenses differ in cost by orders of magnitude; so the candidate with the highest bound is measured
behind its next dearer defense until the one on top has faced all five. Nothing else can beat it.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

import numpy as np

from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.defenses.evaluation import AttackedData, DefenseOutcome, Evaluation, Evaluator
from poisoning.defenses.spectrum import EXACT
from poisoning.feasible.solver import EmptySetError

CHEAPEST_FIRST = ("l2", "slab", "loss", "knn", "svd")

Source = TypeVar("Source")


@dataclass(frozen=True)
class Tried(Generic[Source]):
    """One candidate, in the order tried, and the ``source`` it came from: a decoy, an iterate …

    ``l2_error`` is its test error behind the L2 defense. ``minimum_error`` is the least over the
    five defenses if ``complete``, else an upper bound on it that shows the candidate no better than
    the winner. ``seconds`` had passed since the attack began when ``l2_error`` was known; they are
    all that differs between two runs with one seed.
    """

    source: Source
    l2_error: float
    minimum_error: float
    complete: bool
    seconds: float


@dataclass(frozen=True)
class AttackResult(Generic[Source]):
    """The best attack, where it came from, what it does, and all that was tried.

    ``skipped`` counts sources that gave no candidate: no feasible point, or no certified solution.
    """

    poisoned: PoisonedSet
    source: Source
    evaluation: Evaluation
    history: tuple[Tried[Source], ...]
    skipped: int


def select(
    evaluator: Evaluator,
    candidates: Iterable[tuple[Source, PoisonedSet | None]],
    begun: float,
    *,
    enough: float = np.inf,
    progress: Callable[[str], None] | None = None,
) -> AttackResult[Source]:
    """The candidate with the highest least test error over the five defenses; of equals the first.

    ``candidates`` are sources with their poison, None where there is none. The search ends early
    when a candidate is worth ``enough``. Seconds count from ``begun`` (``time.perf_counter``).
    ``progress`` is called with a line of text after every candidate.

    Raises ``EmptySetError`` if no source has poison.
    """
    search = BestFirst(evaluator)
    tried: list[tuple[Source, float]] = []
    skipped, winner, highest = 0, None, 0.0
    for source, poisoned in candidates:
        if poisoned is None:
            skipped += 1
            continue
        highest = max(highest, search.offer(poisoned))
        tried.append((source, perf_counter() - begun))
        if progress is not None:
            progress(f"{len(tried)} candidates, {highest:.1%} behind L2")
        winner = search.settle(enough)
        if winner is not None:
            break
    winner = search.settle() if winner is None else winner
    if winner is None:
        raise EmptySetError(
            f"attack: none of {skipped} problems has a solution in the feasible set; "
            "raise its percentiles or the cap on the loss"
        )
    history = tuple(
        Tried(source, search.outcomes[k]["l2"].test_error, search.bound(k), search.complete(k), s)
        for k, (source, s) in enumerate(tried)
    )
    return AttackResult(
        search.candidates[winner], tried[winner][0], search.evaluation(winner), history, skipped
    )


class BestFirst:
    """``candidates`` in the order offered, each with its ``outcomes`` behind the defenses met."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.candidates: list[PoisonedSet] = []
        self.outcomes: list[dict[str, DefenseOutcome]] = []
        self._evaluator = evaluator
        self._queue: list[tuple[float, int]] = []  # (−bound, number): of equals the first wins
        self._attacked: tuple[int, AttackedData] | None = None  # the candidate measured last

    def offer(self, poisoned: PoisonedSet) -> float:
        """Take one candidate, and return its test error behind the cheapest defense, L2."""
        number = len(self.candidates)
        self.candidates.append(poisoned)
        self.outcomes.append({})
        self._measure(number)
        heapq.heappush(self._queue, (-self.bound(number), number))
        return self.bound(number)

    def bound(self, number: int) -> float:
        """The least test error of a candidate over the defenses it has met."""
        return min(outcome.test_error for outcome in self.outcomes[number].values())

    def complete(self, number: int) -> bool:
        """Whether a candidate has met all five."""
        return len(self.outcomes[number]) == len(CHEAPEST_FIRST)

    def settle(self, least: float = -np.inf) -> int | None:
        """The number of the best candidate; None if none is worth at least ``least``."""
        while self._queue and -self._queue[0][0] >= least:
            number = self._queue[0][1]
            if self.complete(number):
                return number
            self._measure(number)
            heapq.heapreplace(self._queue, (-self.bound(number), number))
        return None

    def evaluation(self, number: int) -> Evaluation:
        """What a candidate does undefended and behind the defenses it has met, all of them exact.

        On large data the search itself makes do with a rough SVD (``svd_residual``).
        """
        outcomes = {"none": self._data(number).outcome("none"), **self.outcomes[number]}
        if "svd" in outcomes and outcomes["svd"].svd_residual > EXACT:
            poisoned = self.candidates[number]
            exact = self._evaluator.attacked(poisoned.X, poisoned.y, exact=True)
            outcomes["svd"] = exact.outcome("svd")
        return Evaluation(outcomes)

    def _data(self, number: int) -> AttackedData:
        if self._attacked is None or self._attacked[0] != number:
            poisoned = self.candidates[number]
            self._attacked = number, self._evaluator.attacked(poisoned.X, poisoned.y)
        return self._attacked[1]

    def _measure(self, number: int) -> None:
        """Behind the cheapest defense not yet met."""
        defense = CHEAPEST_FIRST[len(self.outcomes[number])]
        self.outcomes[number][defense] = self._data(number).outcome(defense)
