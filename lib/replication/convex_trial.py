"""Units of work of the convex experiments of Wang et al. 2021: groups of trials of poisoned SGD."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.attacks.oracle import CleanLabelOracle, OracleAttack, ShiftOracle
from poisoning.games.stream import StreamGame
from poisoning.models.oracle_sgd import ConvexProblem, LinearPair


def oracle_trials(
    problem: ConvexProblem, n: int, attack: OracleAttack, trials: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Mean excess risk of a group of trials under an attack, and the theorem's upper bound."""
    game = StreamGame(problem, n, trials=trials)
    return attack(game, rng).value, game.upper_bound(attack.norms(n))


def pair_trials(n: int, total: float, trials: int, seed: int) -> tuple[list[float], float]:
    """Mean excess risks of F₊ and F₋ under the shift that makes them alike; the upper bound.

    Both see the same noise. With an even budget ε is ``total``/n.
    """
    attack = ShiftOracle(total)
    games = [StreamGame(LinearPair(total / n, sign), n, trials=trials) for sign in (1.0, -1.0)]
    excess = [attack(game, seed).value for game in games]
    return excess, games[-1].upper_bound(attack.norms(n))


@dataclass(frozen=True)
class CleanLabelTrials:
    """A group of trials under perturbed examples.

    ``excess_risk`` is its mean, ``spent`` the mean over trials of the oracle's poison Σ‖ζ_i‖.
    ``ratio`` (3,): 5 % quantile, median and 95 % quantile of ‖ζ_i‖/‖δ_i‖ where δ_i is not zero.
    """

    excess_risk: float
    spent: float
    ratio: Float[ndarray, "3"]


def clean_label_trials(
    problem: ConvexProblem,
    n: int,
    total: float,
    per_step: float | None,
    trials: int,
    rng: np.random.Generator,
) -> CleanLabelTrials:
    """Examples are moved by Σ‖δ_i‖ = ``total``: evenly, or by ``per_step`` at few steps."""
    attack = CleanLabelOracle(total, per_step)
    found = attack(StreamGame(problem, n, trials=trials), rng)
    norms, reached = attack.norms(n), found.outcomes["none"].poison_norms
    ratio = reached[norms > 0] / norms[norms > 0, None]
    return CleanLabelTrials(
        found.value, float(reached.sum(axis=0).mean()), np.quantile(ratio, [0.05, 0.5, 0.95])
    )
