"""Table II of Carnerero-Cano et al. 2023, measured: a small problem and ways to differentiate it.

Digits 0 and 8, logistic regression under L2, float64. Poison is validation points with flipped
labels, 7 % of the training rows; it takes the place of the first rows.
"""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8

from poisoning.games.bilevel import BilevelGame, FinalTraining, Policy
from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.problem import Hypergradient, Objective, Problem, Rows
from replication.carnerero2023 import even
from replication.hyperparameter_trial import Pool, balanced_draw

SHARE = 0.07
"""Poison, as a fraction of the training rows."""

VALIDATION = 0.1
"""Validation points, as a fraction of the training rows."""

Found = TypeVar("Found")


def table_problem(
    pool: Pool,
    n: int,
    steps: int,
    lam: float,
    rate: float,
    rng: np.random.Generator,
    *,
    d: int | None = None,
    K: int = 1,
) -> Problem:
    """``K`` equal problems of ``n`` training rows and the first ``d`` features, by default all."""
    m = round(SHARE * n)
    train, held = balanced_draw(pool.y, (n, even(VALIDATION * n)), rng)
    X, y = torch.from_numpy(pool.X[:, :d]), torch.from_numpy(pool.y)
    clean = Rows(X[train], y[train], pool.scale)
    validation = Objective(_values(X[held]), y[held])
    weights = torch.ones(K, n, dtype=torch.float64)
    weights[:, :m] = 0.0
    return Problem(
        model=Logistic(),
        clean=clean,
        poison=validation.X[:m].repeat(K, 1, 1),
        poison_y=-validation.y[:m].repeat(K, 1),
        objectives=(validation,),
        lam=torch.full((K, 1), lam, dtype=torch.float64),
        rate=rate,
        steps=steps,
        initial=torch.zeros(K, X.shape[1] + 1, dtype=torch.float64),
        weights=weights,
    )


def attack_game(
    pool: Pool,
    n: int,
    n_test: int,
    policies: Mapping[str, Policy],
    training: FinalTraining,
    rng: np.random.Generator,
    *,
    aimed_at: float | None = None,
) -> BilevelGame:
    """A draw of ``n`` training, a tenth as many validation and ``n_test`` test images; float64.

    ``aimed_at`` is a label: the attacker's target are then the validation images of that class.
    """
    train, held, test = balanced_draw(pool.y, (n, even(VALIDATION * n), n_test), rng)
    X_val, X_test = (_values(torch.from_numpy(pool.X[rows])).numpy() for rows in (held, test))
    y_val = pool.y[held]
    mine = y_val == aimed_at
    return BilevelGame(
        pool.X[train], pool.y[train], X_val, y_val, X_test, pool.y[test],
        box=pool.box, policies=policies, scale=pool.scale, training=training, dtype="float64",
        target=None if aimed_at is None else (X_val[mine], y_val[mine]),
    )  # fmt: skip


def measured(solve: Callable[[], Found]) -> tuple[Found, float]:
    """What ``solve`` returns, and the least seconds of three calls once it is compiled and warm."""
    found, took = solve(), []
    for _ in range(3):
        begin = time.perf_counter()
        solve()
        took.append(time.perf_counter() - begin)
    return found, min(took)


def relative_error(found: Hypergradient, reference: Hypergradient, part: str) -> float:
    """‖a − b‖/‖b‖ of a hypergradient's ``part``, "poison" or "lam"; NaN where it has none."""
    if part == "lam":
        a, b = found.lam, reference.lam
    else:
        a, b = found.poison, reference.poison
    return float("nan") if a is None else float((a - b).norm() / b.norm())


def _values(pixels: UInt8[torch.Tensor, "m d"]) -> Float[torch.Tensor, "m d"]:
    return pixels.to(torch.float64) / 255.0
