"""Poison by a clean reference model; the experiments of Wang, Mianjy & Arora 2021, attacks A and B.

The attacker trains a classifier of its own on the clean training examples and then moves every
example, of training and validation data alike, uphill on the reversed loss of that classifier
(:mod:`poisoning.attacks.ascent`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning import checks
from poisoning.attacks.ascent import Budget, ascend, reversed_cross_entropy
from poisoning.models.small_cnn import Examples, train_classifier


@dataclass(frozen=True)
class ReferenceTraining:
    """Step size, batch and epochs of :func:`poisoning.models.small_cnn.train_classifier`."""

    rate: float
    batch: int
    epochs: int


@dataclass(frozen=True)
class ReferencePoison:
    """The moved examples ``X`` (n, d); the reference's ``accuracy`` on clean validation data."""

    X: Float[ndarray, "n d"]
    accuracy: float


def ascend_reference(
    reference: torch.nn.Module,
    X: Float[ndarray, "n d"],
    y: Int[ndarray, "n"],
    n_train: int,
    budget: Budget,
    training: ReferenceTraining,
    *,
    steps: int,
    rate: float,
    seed: int,
) -> ReferencePoison:
    """All n examples moved within ``budget`` against ``reference``, which is trained first.

    The first ``n_train`` examples train the reference, in place, the others validate it. Features
    are pixels in [0, 1] and stay there. ``steps`` and ``rate`` are those of
    :func:`poisoning.attacks.ascent.ascend`; ``seed`` orders the training examples. Computes where
    the reference's parameters are, in float32.

    Raises ``ValueError`` or ``TypeError`` for examples outside [0, 1] or another invalid argument,
    ``SolverError`` if training diverges.
    """
    checks.instance(reference, "reference", torch.nn.Module)
    X = checks.array(X, "X", (None, None))
    n_train = checks.whole(n_train, "n_train", 1, len(X) - 1)
    checks.instance(training, "training", ReferenceTraining)
    checks.instance(budget, "budget", Budget)
    if X.min() < 0.0 or X.max() > 1.0:
        raise ValueError(f"X must lie in [0, 1], it holds {X.min():g} to {X.max():g}.")
    y = checks.classes(y, "y", len(X), 2**31)
    where = str(next(reference.parameters()).device)
    train, rest = (
        Examples.on(where, X[rows], y[rows]) for rows in (slice(n_train), slice(n_train, None))
    )
    record = train_classifier(
        reference, train, rest, rest, rate=training.rate, epochs=training.epochs, seed=seed,
        batch=training.batch, tested=(),
    )  # fmt: skip
    whole = Examples.on(where, X, y)
    gradient = reversed_cross_entropy(reference)
    moved = ascend(gradient, whole.X, whole.y, budget, steps=steps, rate=rate)
    return ReferencePoison(moved.cpu().numpy(), float(record.validation_accuracy[-1]))
