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
from bench.growth import exponent
from bench.timing import Race, timed
from lib.datasets.multitask import (
    MultiTaskDraw,
    draw_fields,
    draw_one_vs_rest,
    draw_torques,
    principal_components,
)
from lib.models.mtrl import Loss, TaskData, solve_mtrl
from lib.models.mtrl_alternating import solve_alternating
from lib.pipeline.zhao2018 import LOSS

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
        for data in draws:
            ours = partial(solve_mtrl, data, loss, LAMBDA, LAMBDA)
            alternation = partial(solve_alternating, data, loss, LAMBDA, LAMBDA, tol=1e-10)
            solution, optimum = against_cvxpy.run(ours, partial(by_cvxpy, data, loss))
            agreement.append(abs(float(solution.objective) / optimum - 1.0))
            _, stopped = against_alternation.run(ours, alternation)
            excess.append(stopped.objectives[-1] / float(solution.objective) - 1.0)
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


class Growth:
    """How seconds of ours grow with tasks and with examples.

    Tasks: Landmine's fields over and over, each time with other training examples. Examples: of
    Sarcos and of MNIST. Seconds are the least of a few passes through all sizes, as in
    ``bench.growth``.
    """

    NAME = "zhao2018.lower_level.growth"
    PASSES = 3
    COPIES = (1, 2, 4, 8, 17)  # of 29 fields: to 493 tasks
    TRAINING = (250, 500, 1000, 2000, 4000)  # of Sarcos
    PER_CLASS = (75, 150, 300, 600, 1200)  # of MNIST

    def run(self, bar: tqdm) -> dict[str, Any]:
        """Every size, every pass."""
        problems = list(self._problems())
        bar.reset(total=self.PASSES * len(problems))
        seconds = np.full((self.PASSES, len(problems)), np.inf)
        for one in seconds:
            for place, (_, _, loss, data) in enumerate(problems):
                one[place], _ = timed(solve_mtrl, data, loss, LAMBDA, LAMBDA)
                bar.update()
        growth = [
            {"what": name, "along": way, "tasks": data.X.shape[0], "examples": data.X.shape[1],
             "features": data.X.shape[2], "seconds": float(least)}
            for (name, way, _, data), least in zip(problems, seconds.min(axis=0), strict=True)
        ]  # fmt: skip
        ways = dict.fromkeys((name, way) for name, way, _, _ in problems)
        return {
            "data": "sarcos, landmine and mnist",
            "ours_s": growth[len(self.COPIES) - 1]["seconds"],
            "peer": None,
            "peer_s": None,
            "ratio": None,
            "n": len(problems),
            "spread": None,
            "agreement": None,
            "growth": growth,
            "exponents": {name: {way: exponent(growth, name, way)} for name, way in ways},
        }

    def _problems(self) -> list[tuple[str, str, Loss, TaskData]]:
        rng = np.random.default_rng(0)
        dataset, _ = whole("landmine")
        fields = [draw_fields(dataset, rng) for _ in range(max(self.COPIES))]
        found: list[tuple[str, str, Loss, TaskData]] = []
        for copies in self.COPIES:
            arrays = (
                np.concatenate([getattr(draw, name) for draw in fields[:copies]])
                for name in ("X", "y", "weight")
            )
            found.append(("landmine", "tasks", "hinge", TaskData(*arrays)))
        dataset, _ = whole("sarcos")
        for n in self.TRAINING:
            if n < len(dataset.y):
                found.append(("sarcos", "examples", "square", of(draw_torques(dataset, rng, n, 1))))
        dataset = principal_components(whole("mnist")[0])
        for n in self.PER_CLASS:
            found.append(("mnist", "examples", "hinge", of(draw_one_vs_rest(dataset, rng, n))))
        return found

    def summary(self, record: dict[str, Any]) -> str:
        """One line for a reader."""
        powers = [
            f"{way} of {name}^({power:.2f} ± {error:.2f})"
            for name, ways in record["exponents"].items()
            for way, (power, error) in ways.items()
        ]
        largest = record["growth"][len(self.COPIES) - 1]
        return (
            f"{largest['tasks']} tasks in {1e3 * record['ours_s']:.0f} ms, growing as "
            + ", ".join(powers)
        )


ENTRIES = (
    LowerLevelEntry("sarcos", 5), LowerLevelEntry("landmine", 5), LowerLevelEntry("mnist", 3),
    Growth(),
)  # fmt: skip


def of(draw: MultiTaskDraw) -> TaskData:
    """What the learner sees of a draw."""
    return TaskData(draw.X, draw.y, draw.weight)


def tasks(name: str, count: int) -> tuple[Loss, list[TaskData], str]:
    """The loss, ``count`` draws of the paper's tasks, and data set and variant, named."""
    dataset, source = whole(name)
    if name == "mnist":
        dataset = principal_components(dataset)
    draw = {"sarcos": draw_torques, "landmine": draw_fields, "mnist": draw_one_vs_rest}[name]
    draws = [of(draw(dataset, np.random.default_rng(seed))) for seed in range(count)]
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
