"""Attacks on a first-order oracle: Wang, Mianjy & Arora 2021, the convex learning problem.

Each spends a budget Σ‖ζ_i‖ over the n steps of a :class:`~poisoning.games.stream.StreamGame`: the
same at every step, or a fixed norm at few of them. The attacks differ in the direction of ζ_i.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.attacks.attacked import Attacked, playing
from poisoning.games.stream import StreamGame
from poisoning.models.oracle_sgd import ConvexProblem, OracleCall, OraclePoison
from poisoning.settings import LENGTH, STEP, Settings, setting


@dataclass(frozen=True)
class OracleAttack(Settings, ABC):
    """A direction of poison at every step, and a budget for its norms."""

    total: float = setting(1.0, LENGTH, "the budget, added up over all steps")
    per_step: float | None = setting(
        None, STEP, "the norm at each poisoned step, as few as the budget takes; None: all alike",
        none=True,
    )  # fmt: skip

    def __call__(self, game: StreamGame, rng: int | np.random.Generator) -> Attacked:
        """All trials of the game under this attack.

        ``poison`` is the function that ``game.evaluate`` takes, ``outcomes["none"]`` the
        :class:`~poisoning.models.oracle_sgd.OracleRun`, ``value`` its mean excess risk.

        Raises ``ValueError`` if the game's steps are too few to spend the budget.
        """
        playing(self, game, StreamGame)
        begun = perf_counter()
        poison = self.poison(self.norms(game.n))
        run = game.evaluate(poison, rng)
        return Attacked(poison, game.value(run), {"none": run}, seconds=perf_counter() - begun)

    def norms(self, n: int) -> Float[ndarray, "n"]:
        """The budget's share of each of n steps; see :func:`spread_budget`."""
        return spread_budget(n, self.total, self.per_step)

    @abstractmethod
    def poison(self, norms: Float[ndarray, "n"]) -> OraclePoison:
        """The function from an oracle call to ζ (trials, d), ``norms`` given step by step."""


@dataclass(frozen=True)
class ShiftOracle(OracleAttack):
    """ζ_i = ‖ζ_i‖ w*/‖w*‖, always in the same direction, so that the learner drifts to −w*.

    On :class:`poisoning.models.oracle_sgd.LinearPair` with ‖ζ_i‖ = ε this is the shift that makes
    the oracles of F₊ and F₋ equal in distribution.
    """

    def poison(self, norms: Float[ndarray, "n"]) -> OraclePoison:
        """ζ along w*."""

        def zeta(call: OracleCall) -> Float[ndarray, "trials d"]:
            return np.broadcast_to(norms[call.index] * _direction(call.problem), call.W.shape)

        return zeta


@dataclass(frozen=True)
class RepelOracle(OracleAttack):
    """ζ_i = ‖ζ_i‖ (w* − w_i)/‖w* − w_i‖: every step leads away from w*, wherever the learner is.

    At w_i = w*, where no direction leads away more than another, ζ_i is 0.
    """

    def poison(self, norms: Float[ndarray, "n"]) -> OraclePoison:
        """ζ from the iterate to w*, so that a descent step goes the other way."""

        def zeta(call: OracleCall) -> Float[ndarray, "trials d"]:
            away = call.problem.minimiser - call.W
            lengths = np.linalg.norm(away, axis=1, keepdims=True)
            return norms[call.index] * away / np.where(lengths > 0.0, lengths, 1.0)

        return zeta


@dataclass(frozen=True)
class CleanLabelOracle(OracleAttack):
    """ζ_i = ĝ(w_i; x_i + δ_i, y_i) − ĝ(w_i; x_i, y_i) with δ_i = −y_i ‖δ_i‖ w*/‖w*‖.

    This is a clean-label attack on the examples, seen as an attack on the oracle. The budget is one
    of ‖δ_i‖; the run's ``poison_norms`` are the ‖ζ_i‖ that follow from them.
    """

    def poison(self, norms: Float[ndarray, "n"]) -> OraclePoison:
        """The difference that moving the example makes to its gradient."""

        def zeta(call: OracleCall) -> Float[ndarray, "trials d"]:
            X = call.X - norms[call.index] * call.y[:, None] * _direction(call.problem)
            return call.problem.gradients(call.W, X, call.y) - call.gradients

        return zeta


def spread_budget(n: int, total: float, per_step: float | None = None) -> Float[ndarray, "n"]:
    """Norms (n,) that add up to ``total``: equal, or ``per_step`` on as few steps as that takes.

    Those few are evenly spread over the n steps; the last of them gets what remains. Raises
    ``ValueError`` if n steps of ``per_step`` fall short of ``total``, or for what is no budget.
    """
    n, total = checks.whole(n, "n"), checks.positive(total, "total", zero=True)
    per_step = None if per_step is None else checks.positive(per_step, "per_step")
    if per_step is None:
        return np.full(n, total / n)
    count = int(np.ceil(total / per_step * (1.0 - 1e-12)))  # so that 0.3/0.1 gives 3
    if count > n:
        raise ValueError(f"{n} steps of {per_step:g} do not add up to {total:g}; raise per_step")
    norms = np.zeros(n)
    if count:
        steps = np.arange(count) * n // count
        norms[steps] = per_step
        norms[steps[-1]] = total - per_step * (count - 1)
    return norms


def _direction(problem: ConvexProblem) -> Float[ndarray, "d"]:
    length = np.linalg.norm(problem.minimiser)
    if length == 0.0:
        raise ValueError("problem: its minimiser is 0, which has no direction to shift along.")
    return problem.minimiser / length
