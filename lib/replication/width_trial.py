"""Units of work of the width experiment of Wang et al. 2021: poisoned images, trained networks."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import nn

from poisoning.attacks.ascent import Budget
from poisoning.attacks.reference_ascent import (
    ReferencePoison,
    ReferenceTraining,
    ascend_reference,
)
from poisoning.models.small_cnn import (
    Examples,
    alexnet,
    early_stopped,
    small_cnn,
    softmax_regression,
    train_classifiers,
)

CLASSES = 10
REFERENCE_WIDTH = 100
"""The width of a small CNN that serves as reference model."""
ROUNDING = 1e-7
"""A relative change of weights that is as large as float32's rounding."""


@dataclass(frozen=True)
class Images:
    """Rows of pixels ``X`` (n, d) in ``channels`` planes with labels ``y``, 0 … 9.

    The first ``n_train`` are for training, the others for validation.
    """

    X: Float[ndarray, "n d"]
    y: Int[ndarray, "n"]
    n_train: int
    channels: int


def rows_per_class(y: Int[ndarray, "n"], count: int, rng: np.random.Generator) -> Int[ndarray, "m"]:
    """About ``count`` rows, equally many of every class, in random order.

    Each class gives ``count``/10 rows rounded down, or as many as the smallest class has.
    """
    each = min(count // CLASSES, np.bincount(y, minlength=CLASSES).min())
    rows = [rng.permutation(np.flatnonzero(y == label))[:each] for label in range(CLASSES)]
    return rng.permutation(np.concatenate(rows))


def network(kind: str, channels: int, d: int, width: int, seed: int) -> nn.Sequential:
    """A classifier of square images with d pixels: "softmax", "alexnet" or the small "cnn".

    ``width`` is that of the CNN's last hidden layer. Images with sides below 20 get kernels of
    3 × 3 instead of 5 × 5.
    """
    side = int(np.sqrt(d // channels))
    if kind == "softmax":
        return softmax_regression(d, CLASSES, seed)
    if kind == "alexnet":
        return alexnet(channels, side, CLASSES, seed)
    small = {"kernel": 3, "padding": 1} if side < 20 else {}
    return small_cnn(channels, side, CLASSES, width, seed, **small)


def shaken(model: nn.Sequential, seed: int) -> nn.Sequential:
    """The model itself, each weight w moved to (1 + 1e-7 z) w with a normal z drawn from ``seed``.

    A result that this moves is decided by rounding, which differs from processor to processor.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for weights in model.parameters():
            factors = 1.0 + ROUNDING * rng.standard_normal(weights.shape)
            weights.copy_(weights.double() * torch.as_tensor(factors))
    return model


def poisoned_images(
    images: Images,
    kind: str,
    budget: Budget,
    training: ReferenceTraining,
    steps: int,
    rate: float,
    seed: int,
    where: str,
) -> ReferencePoison:
    """All images moved against a clean reference of this ``kind``, on the device ``where``.

    See :func:`poisoning.attacks.reference_ascent.ascend_reference`.
    """
    d = images.X.shape[1]
    reference = network(kind, images.channels, d, REFERENCE_WIDTH, seed).to(where)
    return ascend_reference(
        reference, images.X, images.y, images.n_train, budget, training, steps=steps, rate=rate,
        seed=seed,
    )  # fmt: skip


@dataclass(frozen=True)
class WidthRecord:
    """Accuracies after every epoch on validation and on test images; NaN where not measured."""

    validation: Float[ndarray, "epochs"]
    test: Float[ndarray, "epochs"]


def train_widths(
    images: Images,
    X_test: Float[ndarray, "t d"],
    y_test: Int[ndarray, "t"],
    widths: Sequence[int],
    rate: float,
    batch: int,
    epochs: int,
    tested: Container[int] | None,
    seeds: tuple[int, int],
    where: str,
    averaged: bool,
    noises: Sequence[int] | None = None,
) -> list[WidthRecord]:
    """Small CNNs, side by side, on images that may be poisoned; ``seeds``: of start and order.

    ``tested`` are the epochs after which test images are wanted, from 0, None for all; with
    ``averaged`` the mean of an epoch's iterates is measured. See
    :func:`poisoning.models.small_cnn.train_classifiers`. With ``noises``, a seed for each network,
    the initial weights are those that :func:`shaken` draws from it.
    """
    start, order = seeds
    X, y, n_train = images.X, images.y, images.n_train
    models = [network("cnn", images.channels, X.shape[1], width, start) for width in widths]
    if noises is not None:
        models = [shaken(model, noise) for model, noise in zip(models, noises, strict=True)]
    records = train_classifiers(
        [model.to(where) for model in models],
        Examples.on(where, X[:n_train], y[:n_train]),
        Examples.on(where, X[n_train:], y[n_train:]),
        Examples.on(where, X_test, y_test),
        rate=rate,
        epochs=epochs,
        seed=order,
        batch=batch,
        tested=tested,
        averaged=averaged,
    )
    return [WidthRecord(record.validation_accuracy, record.test_accuracy) for record in records]


def kept_epochs(
    validation: Float[ndarray, "epochs"], patience: int, fixed_epoch: int
) -> dict[str, int]:
    """The epochs, from 0, that three rules keep: early stopping, a fixed epoch, the last."""
    epochs = len(validation)
    return {
        "early": early_stopped(1.0 - validation, patience),
        "fixed": min(fixed_epoch, epochs) - 1,
        "last": epochs - 1,
    }
