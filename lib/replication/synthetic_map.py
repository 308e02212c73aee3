"""Figure 1 of Carnerero-Cano et al. 2023: one poisoned point in the plane, wherever it may lie.

Two Gaussians, logistic regression with the penalty e^λ‖w‖²/2, and one point labelled +1 that is
added to the training set (Section IV and Appendix A). Labels are −1 and +1, all numbers float64.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from poisoning.games.bilevel import NO_REGULARISATION
from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.problem import Objective, Problem, Rows, log_loss
from poisoning.hypergradient.rmd import rmd

RATE, STEPS, TEST_STEPS = 0.2, 100, 500
"""η, and T of the attack and of models that are validated."""

ASCENT_STEPS, FIRST_STEP = 60, 0.5
"""Steps of the attack and the length of the first of them."""

EXTENT = 9.5
"""The point lies in [−EXTENT, EXTENT]²."""

LOW, HIGH = -8.0, 4.0
"""The range of exponents that are tried."""

Points: TypeAlias = tuple[Float[Tensor, "_ 2"], Float[Tensor, "_"]]
"""Points in the plane and their labels."""


@dataclass(frozen=True)
class SyntheticMap:
    """One draw, and what a poisoned point does at each of the g² places of a grid.

    ``X_train`` (n, 2), ``y_train`` (n,), ``X_held`` (v, 2) and ``y_held`` (v,) are the training and
    validation points. By place, row after row of the grid: ``free_error`` and ``free_loss`` are
    validation error and loss without a penalty, ``regular_error`` the error with a fixed one, and
    ``best`` the exponent of least validation loss.
    """

    X_train: Float[ndarray, "n 2"]
    y_train: Float[ndarray, "n"]
    X_held: Float[ndarray, "v 2"]
    y_held: Float[ndarray, "v"]
    free_error: Float[ndarray, "places"]
    free_loss: Float[ndarray, "places"]
    regular_error: Float[ndarray, "places"]
    best: Float[ndarray, "places"]

    @property
    def train(self) -> Points:
        """The training points as tensors."""
        return torch.from_numpy(self.X_train), torch.from_numpy(self.y_train)

    @property
    def held(self) -> Points:
        """The validation points as tensors."""
        return torch.from_numpy(self.X_held), torch.from_numpy(self.y_held)


@dataclass(frozen=True)
class Validated:
    """Validation ``error`` and ``loss`` (K,) of K models, and their parameters ``w`` (K, 3)."""

    error: Float[ndarray, "K"]
    loss: Float[ndarray, "K"]
    w: Float[ndarray, "K 3"]


def sample(per_class: int, rng: np.random.Generator) -> Points:
    """Normal points with means −3 and 3 on the first axis and the covariance diag(2.5, 1.5)."""
    y = np.repeat([-1.0, 1.0], per_class)
    X = rng.normal(size=(2 * per_class, 2)) * np.sqrt([2.5, 1.5])
    X[:, 0] += 3.0 * y
    return torch.from_numpy(X), torch.from_numpy(y)


def synthetic_problem(
    train: Points, held: Points, poison: Float[Tensor, "K points 2"], lam: float, steps: int
) -> Problem:
    """K models side by side, each trained on ``train`` and on poison of its own.

    Gradient descent is stable for η < 2/λ_max of the Hessian, so that strong penalties need a
    smaller step than ``RATE``: η is at most 1/(2 + e^λ).
    """
    K, points = len(poison), poison.shape[1]
    exponents = torch.as_tensor(lam, dtype=torch.float64).expand(K).unsqueeze(1)
    rate = torch.minimum(torch.tensor(RATE), 1.0 / (2.0 + exponents.exp())).squeeze(1)
    return Problem(
        model=Logistic(),
        clean=Rows(*train),
        poison=poison,
        poison_y=torch.ones(K, points, dtype=torch.float64),
        objectives=(Objective(*held),),
        lam=exponents,
        rate=rate.double(),
        steps=steps,
        initial=torch.zeros(K, 3, dtype=torch.float64),
    )


def validate(
    train: Points, held: Points, poison: Float[Tensor, "K points 2"], lam: float
) -> Validated:
    """K models after ``TEST_STEPS`` steps, validated; a score of 0 is an error."""
    problem = synthetic_problem(train, held, poison, lam, TEST_STEPS)
    with torch.no_grad():
        w = problem.model.train(problem, problem.initial, TEST_STEPS)
        scores = problem.model.scores(w, held[0])
        wrong = (scores * held[1] <= 0).double()
        return Validated(wrong.mean(1).numpy(), log_loss(scores, held[1]).numpy(), w.numpy())


def synthetic_map(
    rng: np.random.Generator, grid: int, exponents: int, regularised: float
) -> SyntheticMap:
    """One draw: errors with and without a penalty, and the best λ, for every place of the poison.

    ``grid`` places along either axis, ``exponents`` values of λ; ``regularised`` is the exponent of
    the fixed penalty.
    """
    train, held = sample(16, rng), sample(32, rng)
    axis = np.linspace(-EXTENT, EXTENT, grid)
    places = torch.from_numpy(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 1, 2))
    free = validate(train, held, places, NO_REGULARISATION)
    regular = validate(train, held, places, regularised)
    tried = np.linspace(LOW, HIGH, exponents)
    losses = np.stack([validate(train, held, places, lam).loss for lam in tried])
    drawn = (part.numpy() for part in (*train, *held))
    return SyntheticMap(*drawn, free.error, free.loss, regular.error, tried[losses.argmin(axis=0)])


def ascend(drawn: SyntheticMap, lam: float) -> tuple[Float[ndarray, "places 2"], Validated]:
    """The way of one poisoned point by hypergradient ascent, and the model it ends with.

    It starts from the first validation point of the class −1 with its label flipped; the step's
    length decays linearly.
    """
    train, held = drawn.train, drawn.held
    start = int(torch.nonzero(held[1] < 0)[0])
    way = [held[0][start].reshape(1, 1, 2)]
    for h in range(ASCENT_STEPS):
        slope = rmd(synthetic_problem(train, held, way[-1], lam, STEPS)).poison[0]
        direction = slope / slope.norm().clamp_min(1e-300)
        length = (1.0 - h / ASCENT_STEPS) * FIRST_STEP
        way.append((way[-1] + length * direction).clamp(-EXTENT, EXTENT))
    return torch.cat(way)[:, 0].numpy(), validate(train, held, way[-1], lam)


def unpoisoned(drawn: SyntheticMap, lam: float) -> Validated:
    """The model without poison."""
    return validate(drawn.train, drawn.held, torch.empty(1, 0, 2, dtype=torch.float64), lam)


def synthetic_quantities(drawn: SyntheticMap, regularised: float) -> dict[str, float]:
    """What the claims are judged by, for one draw; ``regularised`` as for :func:`synthetic_map`.

    Errors over all places, with and without a penalty: the worst, the best, and their difference;
    and the error without the poisoned point. The mean best λ over the tenth of the places where
    poison does most harm, over that where it does least, and the correlation of harm and best λ.
    Harm is the validation loss without a penalty.
    """
    harm = drawn.free_loss - drawn.free_loss.min()
    order = np.argsort(harm, kind="stable")
    tenth = max(1, len(order) // 10)
    free, regular, best = drawn.free_error, drawn.regular_error, drawn.best
    clean = {
        name: unpoisoned(drawn, lam).error[0]
        for name, lam in (("none", NO_REGULARISATION), ("regularised", regularised))
    }
    return {f"{name}.clean_error": error for name, error in clean.items()} | {
        "none.worst_error": free.max(),
        "none.best_error": free.min(),
        "regularised.worst_error": regular.max(),
        "regularised.best_error": regular.min(),
        "none.range": free.max() - free.min(),
        "regularised.range": regular.max() - regular.min(),
        "best_lambda.harmful": best[order[-tenth:]].mean(),
        "best_lambda.harmless": best[order[:tenth]].mean(),
        "best_lambda.correlation": np.corrcoef(harm, best)[0, 1],
    }
