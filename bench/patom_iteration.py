"""One iteration of PATOM beside differentiating through the learner's own iterations.

Ours: learn from moved poison (1e-6, from the weights before), the total gradient, the step. The
peer has the same tolerance and the same step, and no formula for the gradient: accelerated proximal
gradient in torch, every iteration recorded, then ``backward``. It begins at W = 0, because what
begins near the solution soon stops, with too few iterations to differentiate. Half the
problems are direct attacks, half indirect ones, with half of the tasks as targets, λ1 = λ2 = 0.1
and 20 % poison. ``agreement`` is the largest relative difference of the two gradients.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bench.lower_level import LAMBDA, tasks
from bench.timing import Race
from poisoning.attacks.patom import draw_poison, project_to_ball
from poisoning.attacks.patom_gradient import attack_gradient
from poisoning.games.multi_task import MultiTaskGame, Poison
from poisoning.models.mtrl import Loss

BUDGET = 0.2
TOLERANCE = 1e-6  # the game's, too


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
        for seed, draw in enumerate(draws):
            rng = np.random.default_rng(seed)
            targets = half(len(draw.y), rng)
            for attacking in (targets, ~targets):
                game = MultiTaskGame.from_draw(
                    draw, targets=targets, attacking=attacking, loss=loss, lambda1=LAMBDA,
                    lambda2=LAMBDA, tol=TOLERANCE,
                )  # fmt: skip
                there, W, size = after_one_iteration(game, rng)
                (gradient, _), (peer, _) = race.run(
                    partial(iteration, game, there, W, size),
                    partial(by_recording, game, there, size),
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


def half(m: int, rng: np.random.Generator) -> np.ndarray:
    """Half of m tasks at random, as a mask."""
    return np.isin(np.arange(m), rng.choice(m, (m + 1) // 2, replace=False))


def after_one_iteration(
    game: MultiTaskGame, rng: np.random.Generator
) -> tuple[Poison, np.ndarray, float]:
    """Poison moved once, the weights before, and the length of a step."""
    poison = draw_poison(game, BUDGET, "uniform", 1.0, rng)
    W = game.learn(game.poisoned(poison))
    gradient = iteration(game, poison, W, 1.0)[0]
    size = 1.0 / np.linalg.norm(gradient, axis=-1).max()
    moved = iteration(game, poison, W, size)[1]
    return replace(poison, X=moved), W, size


def iteration(
    game: MultiTaskGame, poison: Poison, W: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """∂U/∂x̂ at the poison, and where a step of length ``size`` takes it."""
    train = game.poisoned(poison)
    W = game.learn(train, W)
    _, v = game.utility(W)
    gradient = attack_gradient(
        train, poison.y.shape[-1], W, v, game.loss, LAMBDA, LAMBDA, "total", tol=game.tol
    )
    return gradient, project_to_ball(poison.X + size * gradient, 1.0)


def by_recording(game: MultiTaskGame, poison: Poison, size: float) -> tuple[np.ndarray, np.ndarray]:
    """The same, by torch."""
    points = torch.tensor(poison.X, requires_grad=True)
    train = game.poisoned(poison)
    X, y, weight = (torch.asarray(a) for a in (train.X, train.y, train.weight))
    n = game.data.y.shape[1]
    X = torch.cat([X[:, :n], torch.cat([points, X[:, n:, -1:]], dim=-1)], dim=1)
    W = learn_recorded(X, y, weight, game.loss)
    clean = torch.asarray(game.data.weight > 0.0) & torch.asarray(game.targets)[:, None]
    losses(_scores(X, W)[:, :n], y[:, :n], game.loss)[clean].sum().backward()
    gradient = points.grad.numpy() * poison.mask[..., None]
    return gradient, project_to_ball(poison.X + size * gradient, 1.0)


def learn_recorded(
    X: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, loss: Loss
) -> torch.Tensor:
    """Accelerated proximal gradient, a restart where the momentum points uphill."""

    def gradient(at: torch.Tensor) -> torch.Tensor:
        coefficients = weight * slopes(_scores(X, at), y, loss)
        return (coefficients[..., None, :] @ X)[..., 0, :] + LAMBDA * at

    previous = Y = torch.zeros_like(X[:, 0])
    with torch.no_grad():
        scale = torch.linalg.norm(gradient(Y))
        hessians = 2.0 * (X * weight[..., None]).mT @ X
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


def losses(scores: torch.Tensor, y: torch.Tensor, loss: Loss) -> torch.Tensor:
    """The loss of every score, as in :mod:`poisoning.models.mtrl`."""
    return (y - scores) ** 2 if loss == "square" else torch.relu(1.0 - y * scores) ** 2


def slopes(scores: torch.Tensor, y: torch.Tensor, loss: Loss) -> torch.Tensor:
    """Its derivative in the score."""
    return 2.0 * (scores - y) if loss == "square" else -2.0 * y * torch.relu(1.0 - y * scores)


def _scores(X: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    return (X @ W[..., None])[..., 0]
