"""The convex game of Wang, Mianjy & Arora 2021: SGD whose first-order oracle an attacker poisons.

    w_{i+1} = Π_R(w_i − η (ĝ_i + ζ_i)),        E ĝ_i ∈ ∂F(w_i),        w̄ = (1/n) Σ w_i

The learner takes one noisy subgradient a step. Before the step the attacker, who knows the problem,
the iterate and the example, adds ζ_i to the subgradient. The value of poison is the excess risk
F(w̄) − F(w*) of the average iterate. The population risk is computed without sampling, so no test
data are needed.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.models.oracle_sgd import (
    ConvexProblem,
    OraclePoison,
    OracleRun,
    balanced_step,
    poisoned_sgd,
    risk_upper_bound,
)


@dataclass(frozen=True)
class StreamGame:
    """A poisoned oracle, what attacker and learner both know: ``StreamGame(problem, n=1000)``.

    ``problem`` is a :class:`~poisoning.models.oracle_sgd.ConvexProblem`, ``n`` the number of steps,
    each with an example of its own, ``step`` is η; None for R/(G√n), which balances the theorem's
    terms without poison. ``trials`` independent learners run side by side.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument; the message names it.
    """

    problem: ConvexProblem
    n: int
    step: float | None = None
    trials: int = 100

    def __post_init__(self) -> None:
        if not isinstance(self.problem, ConvexProblem):
            raise TypeError(f"problem must be a ConvexProblem, not {self.problem!r}.")
        checks.whole(self.n, "n")
        checks.whole(self.trials, "trials")
        if self.step is not None:
            checks.positive(self.step, "step")

    @property
    def eta(self) -> float:
        """η."""
        return balanced_step(self.problem, self.n) if self.step is None else self.step

    def evaluate(
        self, poison: OraclePoison | None = None, rng: int | np.random.Generator = 0
    ) -> OracleRun:
        """The effect of any given poison: all trials, and the ‖ζ_i‖ that were spent.

        ``poison`` maps an :class:`~poisoning.models.oracle_sgd.OracleCall` to ζ (trials, d); None
        leaves the oracle honest. Evaluations with the same ``rng`` state see the same examples,
        whatever the poison.
        """
        return poisoned_sgd(
            self.problem, self.n, self.eta, self.trials, checks.generator(rng), poison
        )

    def value(self, run: OracleRun) -> float:
        """The value of poison: the mean excess risk over the trials."""
        return float(run.excess_risk.mean())

    def upper_bound(self, norms: Float[ndarray, "n"]) -> float:
        """The theorem's bound on the expected excess risk if ‖ζ_i‖ are ``norms``."""
        return risk_upper_bound(self.problem, self.eta, norms)
