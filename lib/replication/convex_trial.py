"""Units of work of the convex experiments of Wang et al. 2021: groups of trials of poisoned SGD.

Logistic regression is curved at its minimum, so that SGD does better there than the theorem's 1/√n.
Here are two problems without curvature beside it: :class:`AbsoluteLoss`, the same for every n, and
:func:`hardest`, another for every n and every budget.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.attacks.oracle import CleanLabelOracle, OracleAttack, ShiftOracle
from poisoning.games.stream import StreamGame
from poisoning.models.oracle_sgd import ConvexProblem, LinearPair


@dataclass(frozen=True)
class AbsoluteLoss:
    """x ~ N(0, I_d), ℓ(w; x) = |(w − w*)·x|, so F(w) − F(w*) = √(2/π) ‖w − w*‖.

    F has a kink at w* and no curvature towards it: what SGD loses is its way there, which costs
    1/√n. It is longest where ``radius`` is ‖w*‖.

    Raises ``ValueError`` if w* is outside the ball of ``radius``.
    """

    minimiser: Float[ndarray, "d"]
    radius: float

    def __post_init__(self) -> None:
        if not np.linalg.norm(self.minimiser) <= self.radius * (1.0 + 1e-12):
            raise ValueError(f"minimiser must lie in the ball of radius {self.radius:g}.")

    @property
    def gradient_norm(self) -> float:
        """E‖ĝ‖² = E‖x‖² = d."""
        return float(np.sqrt(self.minimiser.size))

    def draw(
        self, shape: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Float[ndarray, "steps trials d"], Float[ndarray, "steps trials"]]:
        """Normal examples; every label is 1."""
        return rng.standard_normal((*shape, self.minimiser.size)), np.ones(shape)

    def gradients(
        self,
        W: Float[ndarray, "trials d"],
        X: Float[ndarray, "trials d"],
        y: Float[ndarray, "trials"],
    ) -> Float[ndarray, "trials d"]:
        """sign((w − w*)·x) x."""
        return np.sign(np.einsum("td,td->t", W - self.minimiser, X))[:, None] * X

    def excess_risk(self, W: Float[ndarray, "trials d"]) -> Float[ndarray, "trials"]:
        """F(w) − F(w*)."""
        return np.sqrt(2.0 / np.pi) * np.linalg.norm(W - self.minimiser, axis=1)


def hardest(n: int, total: float) -> LinearPair:
    """F₊ of the pair with ε = 1/√n + S/n, which n examples and a budget ``total`` = S can hide.

    A shift by S/n leaves subgradients of mean 1/√n: one standard error of their mean over n. So
    every learner takes F₊ for F₋ with a probability that does not fall with n, and its excess risk
    is of the order of ε, which is the theorem's bound.
    """
    return LinearPair(1.0 / np.sqrt(n) + total / n, 1.0)


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
