"""MTRL, the lower level of Zhao et al. 2018: ours beside cvxpy and beside the paper's alternation.

Random draws of the paper's tasks at its λ1 = λ2 = 0.1, ours to a residual of 1e-6, cold: from
W = 0. cvxpy has the problem without Ω, which it solves sooner than the joint one, and SCS, which
does it sooner than Clarabel; ``agreement`` is the largest relative difference of the two optima.
The alternation goes on until it comes to a stop, a pair of steps that lowers the objective by 1e-10
of itself; ``alternating_excess`` is by how much, relative to it, it is then above the optimum.
``warm_s`` is ours from the solution for all but a twentieth of the rows.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np
from tqdm import tqdm

from bench.data import whole
from bench.timing import Race, timed
from poisoning.datasets.multitask import (
    MultiTaskDraw,
    draw_fields,
    draw_one_vs_rest,
    draw_torques,
    principal_components,
)
from poisoning.models.mtrl import Loss, TaskData, solve_mtrl
from poisoning.models.mtrl_alternating import solve_alternating
from replication.zhao2018 import LOSS

LAMBDA = 0.1  # both


@dataclass(frozen=True)
class LowerLevelEntry:
    """The entry for one data set and ``draws`` draws of its tasks."""

    dataset: str
    draws: int

    @property
    def NAME(self) -> str:
        """As others read it."""
        return f"zhao2018.lower_level.{self.dataset}"

    def run(self, bar: tqdm) -> dict[str, Any]:
        """Draw after draw, both races."""
        loss, draws, source = tasks(self.dataset, self.draws)
        bar.reset(total=len(draws))
        against_cvxpy, against_alternation = Race(), Race()
        agreement, excess, warm = [], [], []
        for data in map(TaskData.of, draws):
            ours = partial(solve_mtrl, data, loss, LAMBDA, LAMBDA)
            alternation = partial(solve_alternating, data, loss, LAMBDA, LAMBDA, tol=1e-10)
            solution, optimum = against_cvxpy.run(ours, partial(by_cvxpy, data, loss))
            agreement.append(abs(solution.objective / optimum - 1.0))
            _, stopped = against_alternation.run(ours, alternation)
            excess.append(stopped.objectives[-1] / solution.objective - 1.0)
            fewer = replace(data, weight=data.weight * (np.arange(data.y.shape[1]) % 20 > 0))
            start = solve_mtrl(fewer, loss, LAMBDA, LAMBDA).W
            runs = [timed(ours, start=start)[0] for _ in range(2 * against_cvxpy.repeats)]
            warm.append(float(np.median(runs)))
            bar.update()
        return {
            "data": source,
            "peer": "cvxpy/SCS",
            "n": len(draws),
            "agreement": max(agreement),
            "warm_s": float(np.median(warm)),
            "alternating_excess": float(np.median(excess)),
            **against_cvxpy.record(),
            **against_alternation.record("alternating_"),
        }

    def summary(self, record: dict[str, Any]) -> str:
        """One line for a reader."""
        return (
            f"{record['data']}: {1e3 * record['ours_s']:.1f} ms cold, {1e3 * record['warm_s']:.1f} "
            f"ms warm, beside {record['peer_s']:.2f} s of {record['peer']} ({record['ratio']:.0f} "
            f"times as fast, objectives equal to {record['agreement']:.0e}) and "
            f"{record['alternating_peer_s']:.3f} s of the alternation "
            f"({record['alternating_ratio']:.0f} times), which stops "
            f"{record['alternating_excess']:.0e} above"
        )


ENTRIES = (
    LowerLevelEntry("sarcos", 5), LowerLevelEntry("landmine", 5), LowerLevelEntry("mnist", 3),
)  # fmt: skip


def tasks(name: str, count: int) -> tuple[Loss, list[MultiTaskDraw], str]:
    """The loss, ``count`` draws of the paper's tasks, and data set and variant, named."""
    dataset, source = whole(name)
    if name == "mnist":
        dataset = principal_components(dataset)
    draw = {"sarcos": draw_torques, "landmine": draw_fields, "mnist": draw_one_vs_rest}[name]
    draws = [draw(dataset, np.random.default_rng(seed)) for seed in range(count)]
    return LOSS[name], draws, source


def by_cvxpy(data: TaskData, loss: Loss) -> float:
    """The optimum of the problem without Ω, by SCS to 1e-6."""
    W = cp.Variable(data.X[:, 0].shape)
    losses = []
    for i, (X, y, weight) in enumerate(zip(data.X, data.y, data.weight, strict=True)):
        rows = weight > 0.0
        scores = X[rows] @ W[i]
        deviations = y[rows] - scores
        if loss == "hinge":
            deviations = cp.pos(1.0 - cp.multiply(y[rows], scores))
        losses.append(weight[rows] @ cp.square(deviations))
    penalties = cp.sum_squares(W) + cp.square(cp.normNuc(W))
    problem = cp.Problem(cp.Minimize(sum(losses) + LAMBDA / 2.0 * penalties))
    return float(problem.solve(solver=cp.SCS, eps_abs=1e-6, eps_rel=1e-6))
