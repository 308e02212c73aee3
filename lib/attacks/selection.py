"""Which of many candidate attacks is best, measured no more than is needed to be sure.

Section 5.2 of Koh et al. 2021: an attacker does not know which defense it will meet, so a candidate
is worth its least test error over the five. Every defense measured bounds that from above, and the
defenses differ in cost by orders of magnitude; so the candidate with the highest bound is measured
behind its next dearer defense until the one on top has faced all five. Nothing else can beat it.
"""

import heapq

import numpy as np

from lib.attacks.poisoned_set import PoisonedSet
from lib.defenses.evaluation import AttackedData, DefenseOutcome, Evaluation, Evaluator

CHEAPEST_FIRST = ("l2", "slab", "loss", "knn", "svd")


class BestFirst:
    """Candidates in the order offered, each with the outcomes behind the defenses it has met."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.outcomes: list[dict[str, DefenseOutcome]] = []
        self._evaluator = evaluator
        self._candidates: list[PoisonedSet] = []
        self._queue: list[tuple[float, int]] = []  # (−bound, number): of equals the first wins
        self._attacked: tuple[int, AttackedData] | None = None  # the candidate measured last

    def offer(self, poisoned: PoisonedSet) -> float:
        """Take one candidate, and return its test error behind the cheapest defense, L2."""
        number = len(self._candidates)
        self._candidates.append(poisoned)
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
        """What a candidate does undefended and behind the defenses it has met."""
        undefended = self._data(number).outcome("none")
        return Evaluation({"none": undefended, **self.outcomes[number]})

    def _data(self, number: int) -> AttackedData:
        if self._attacked is None or self._attacked[0] != number:
            poisoned = self._candidates[number]
            self._attacked = number, self._evaluator.attacked(poisoned.X, poisoned.y)
        return self._attacked[1]

    def _measure(self, number: int) -> None:
        """Behind the cheapest defense not yet met."""
        defense = CHEAPEST_FIRST[len(self.outcomes[number])]
        self.outcomes[number][defense] = self._data(number).outcome(defense)
