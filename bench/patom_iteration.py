"""One iteration of PATOM beside differentiating through the learner's own iterations.

Ours: learn from moved poison (1e-6, from the weights before), the total gradient, the step. The
peer has the same tolerance and the same step, and no formula for the gradient: accelerated proximal
gradient in torch, every iteration recorded, then ``backward``. It begins at W = 0, because what
begins near the solution soon stops, with too few iterations to differentiate. Half the
problems are direct attacks, half indirect ones, with half of the tasks as targets, λ1 = λ2 = 0.1
and 20 % poison. ``agreement`` is the largest relative difference of the two gradients.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bench.lower_level import LAMBDA, tasks
from bench.timing import Race
from poisoning.attacks.patom import (
    Poison,
    attack_utility,
    draw_poison,
    poisoned_data,
    project_to_ball,
)
from poisoning.attacks.patom_gradient import attack_gradient
from poisoning.models.mtrl import Loss, TaskData, loss_slopes, loss_values, solve_mtrl, task_scores

BUDGET = 0.2
TOLERANCE = 1e-6


@dataclass(frozen=True)
class PATOMIterationEntry:
    """The entry for one data set: two attacks on each of ``draws`` draws of its tasks."""

    dataset: str
    draws: int

    @property
    def NAME(self) -> str:
        """As others read it."""
        return f"zhao2018.patom_iteration.{self.dataset}"

    def run(self, bar: tqdm) -> dict[str, Any]:
        """Attack after attack, the second iteration of each."""
        loss, draws, source = tasks(self.dataset, self.draws)
        bar.reset(total=2 * len(draws))
        race, differences = Race(), []
        for seed, clean in enumerate(draws):
            rng = np.random.default_rng(seed)
            m = len(clean.y)
            targets = np.isin(np.arange(m), rng.choice(m, (m + 1) // 2, replace=False))
            for attacking in (targets, ~targets):
                there, W, size = after_one_iteration(clean, targets, attacking, loss, rng)
                (gradient, _), (peer, _) = race.run(
                    partial(iteration, clean, targets, there, W, loss, size),
                    partial(by_recording, clean, targets, there, loss, size),
                )
                differences.append(np.linalg.norm(gradient - peer) / np.linalg.norm(gradient))
                bar.update()
        return {
            "data": source,
            "peer": "torch, through recorded iterations",
            "n": len(differences),
            "agreement": float(max(differences)),
            **race.record(),
        }

    def summary(self, record: dict[str, Any]) -> str:
        """One line for a reader."""
        return (
            f"{record['data']}: {1e3 * record['ours_s']:.1f} ms an iteration, beside "
            f"{record['peer_s']:.2f} s of {record['peer']} ({record['ratio']:.0f} times as fast), "
            f"gradients equal to {record['agreement']:.0e}"
        )


ENTRIES = (
    PATOMIterationEntry("sarcos", 3), PATOMIterationEntry("landmine", 3),
    PATOMIterationEntry("mnist", 2),
)  # fmt: skip


def after_one_iteration(
    clean: TaskData,
    targets: np.ndarray,
    attacking: np.ndarray,
    loss: Loss,
    rng: np.random.Generator,
) -> tuple[Poison, np.ndarray, float]:
    """Poison moved once, the weights before, and the length of a step."""
    poison = draw_poison(clean, attacking, BUDGET, "uniform", loss, rng)
    W = solve_mtrl(poisoned_data(clean, poison), loss, LAMBDA, LAMBDA).W
    gradient = iteration(clean, targets, poison, W, loss, 1.0)[0]
    size = 1.0 / np.linalg.norm(gradient, axis=-1).max()
    moved = iteration(clean, targets, poison, W, loss, size)[1]
    return Poison(moved, poison.y, poison.mask), W, size


def iteration(
    clean: TaskData, targets: np.ndarray, poison: Poison, W: np.ndarray, loss: Loss, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """∂U/∂x̂ at the poison, and where a step of length ``size`` takes it."""
    train = poisoned_data(clean, poison)
    W = solve_mtrl(train, loss, LAMBDA, LAMBDA, tol=TOLERANCE, start=W).W
    _, v = attack_utility(clean, targets, W, loss)
    gradient = attack_gradient(
        train, poison.y.shape[-1], W, v, loss, LAMBDA, LAMBDA, "total", tol=TOLERANCE
    )
    return gradient, project_to_ball(poison.X + size * gradient, 1.0)


def by_recording(
    clean: TaskData, targets: np.ndarray, poison: Poison, loss: Loss, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """The same, by torch."""
    data = TaskData(*(torch.asarray(a) for a in (clean.X, clean.y, clean.weight)))
    points = torch.tensor(poison.X, requires_grad=True)
    train = poisoned_data(data, Poison(points, torch.asarray(poison.y), torch.asarray(poison.mask)))
    weights = learn_recorded(train, loss)
    losses = loss_values(task_scores(data.X, weights), data.y, loss) * (data.weight > 0.0)
    losses[torch.asarray(targets)].sum().backward()
    gradient = points.grad.numpy() * poison.mask[..., None]
    return gradient, project_to_ball(poison.X + size * gradient, 1.0)


def learn_recorded(train: TaskData, loss: Loss) -> torch.Tensor:
    """Accelerated proximal gradient, a restart where the momentum points uphill."""

    def gradient(at: torch.Tensor) -> torch.Tensor:
        slopes = train.weight * loss_slopes(task_scores(train.X, at), train.y, loss)
        return (slopes[..., None, :] @ train.X)[..., 0, :] + LAMBDA * at

    previous = Y = torch.zeros_like(train.X[:, 0])
    with torch.no_grad():
        scale = torch.linalg.norm(gradient(Y))
        hessians = 2.0 * (train.X * train.weight[..., None]).mT @ train.X
        L = torch.linalg.eigvalsh(hessians).max() + LAMBDA
    momentum = (1.0 - (LAMBDA / L) ** 0.5) / (1.0 + (LAMBDA / L) ** 0.5)
    while True:
        U, a, V = torch.linalg.svd(Y - gradient(Y) / L, full_matrices=False)
        taus = torch.cumsum(a, 0) / (L / LAMBDA + torch.arange(1, len(a) + 1))
        new = (U * torch.relu(a - taus.max())) @ V
        with torch.no_grad():
            if L * torch.linalg.norm(Y - new) <= TOLERANCE * scale:
                return new
            uphill = torch.sum((Y - new) * (new - previous)) > 0.0
        Y = new if uphill else new + momentum * (new - previous)
        previous = new
