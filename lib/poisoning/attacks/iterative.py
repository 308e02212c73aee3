"""Iterative optimisation: attack, let the anomaly detector refit, attack within its new limits.

Algorithm 1 and Section 5.4 of Koh et al. 2021. The centroids, and with them the L2 balls and the
slab, are those of clean data and poison together once the defender has seen the poison; a second
attack can use the room that the first one made.
"""

from collections.abc import Iterator

import numpy as np

from poisoning.arrays import vstack
from poisoning.attacks.influence import influence_attack
from poisoning.attacks.selection import AttackResult
from poisoning.attacks.suite import Suite, launch
from poisoning.defenses.evaluation import Evaluator
from poisoning.feasible.sets import FeasibleSet, InputDomain


def refine(
    name: str,
    evaluator: Evaluator,
    domain: InputDomain,
    suite: Suite,
    rng: np.random.Generator,
    rounds: int,
) -> Iterator[AttackResult]:
    """Algorithm 1, round by round; the first is the attack with F_β fixed on the clean data.

    The influence attack goes on from its own points; attacks that solve a problem from scratch do
    so again. No round is sure to be better than the one before: whoever attacks keeps the best.
    Raises what the attack raises, among others ``SolverError`` when a refitted set is empty.
    """
    X, y = evaluator.X, evaluator.y
    settings = suite.influence if name == "influence" else suite.kkt
    percentiles = settings.radius_percentile, settings.slab_percentile
    feasible, start = FeasibleSet.fit(X, y, domain, *percentiles), None
    for stream in rng.spawn(rounds):
        if name == "influence":
            result = influence_attack(
                evaluator, domain, suite.influence, stream, feasible=feasible, start=start
            )
            start = result.source.relaxed
        else:
            result = launch(name, evaluator, domain, suite, stream, feasible=feasible)
        yield result
        poisoned = result.poisoned
        feasible = FeasibleSet.fit(
            vstack([X, poisoned.X]), np.concatenate([y, poisoned.y]), domain, *percentiles
        )
