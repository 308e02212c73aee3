"""The point of the feasible set that a linear model fits worst: min-max's inner problem.

Section 4.3.1 of Koh et al. 2021. A loss that falls with the margin y(θ·x + b) is greatest, within
class y, at the solution of

    min  y θ·x   over  x ∈ F_y

and the two classes are tried in turn. Consecutive models differ little, so each problem starts from
the multipliers of the one before. A class is not solved if its dual bound shows that the other
class has the worse point.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.feasible.bounds import linear_lower_bounds
from poisoning.feasible.sets import FeasibleSet
from poisoning.feasible.solver import EmptySetError, LinearProblem
from poisoning.models.linear import LinearModel


@dataclass(frozen=True)
class WorstPoint:
    """``x`` (d,) with ``label`` ±1, and its signed loss 1 − y(θ·x + b).

    No feasible point of either class has a greater signed loss than ``bound``.
    """

    x: Float[ndarray, "d"]
    label: float
    loss: float
    bound: float


class WorstPointSearch:
    """Worst points for a sequence of models, each search warm-started from the last one.

    ``tol`` is the relative duality gap of the linear problems. A class whose set turns out empty
    is left out from then on.
    """

    def __init__(self, feasible: FeasibleSet, tol: float) -> None:
        checks.instance(feasible, "feasible", FeasibleSet)
        checks.positive(tol, "tol")
        parts = {1.0: feasible.positive, -1.0: feasible.negative}
        self.problems = {label: LinearProblem(part) for label, part in parts.items()}
        self.multipliers: dict[float, Float[ndarray, "1 k"]] = {}
        self.tol = tol

    def find(self, model: LinearModel) -> WorstPoint:
        """argmax over F of the loss under ``model``, to within the tolerance.

        Raises ``EmptySetError`` if no class has a feasible point.
        """
        checks.instance(model, "model", LinearModel)
        limits = {label: self._limit(label, model) for label in self.problems}
        worst: WorstPoint | None = None
        bound = -np.inf
        for label in sorted(limits, key=limits.__getitem__, reverse=True):
            if worst is not None and limits[label] <= worst.loss:
                continue
            try:
                found = self._solve(label, model)
            except EmptySetError:
                del self.problems[label]
                continue
            bound = max(bound, found.bound)
            if worst is None or found.loss > worst.loss:
                worst = found
        if worst is None:
            raise EmptySetError("No class has a point in the feasible set; widen it.")
        return WorstPoint(worst.x, worst.label, worst.loss, max(bound, worst.loss))

    def _limit(self, label: float, model: LinearModel) -> float:
        """No point of the class has a greater loss than this; infinite if nothing is known."""
        if label not in self.multipliers:
            return np.inf
        direction = label * model.theta[None, :]
        part = self.problems[label].feasible
        least = linear_lower_bounds(direction, part, self.multipliers[label])
        return float(1.0 - least[0] - label * model.bias)

    def _solve(self, label: float, model: LinearModel) -> WorstPoint:
        solution = self.problems[label].minimise(
            label * model.theta, tol=self.tol, start=self.multipliers.get(label)
        )
        self.multipliers[label] = solution.multipliers
        loss = 1.0 - solution.objective - label * model.bias
        return WorstPoint(solution.points[0], label, loss, loss + solution.gap)
