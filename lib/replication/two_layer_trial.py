"""Units of work of the two-layer experiments of Wang et al. 2021, regimes A, B and C."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning.attacks.ascent import PerSampleBudget, ascend, reversed_logistic
from poisoning.attacks.label_noise import flip_labels
from poisoning.models.two_layer import TwoLayerNets, train_online
from replication.two_layer_theory import MarginEstimate, tangent_margin


def unit_rows(X: Float[ndarray, "n d"]) -> Float[ndarray, "n d"]:
    """The rows, scaled to length 1 as in the theorems."""
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def perturbed(
    X: Float[ndarray, "n d"],
    y: Float[ndarray, "n"],
    largest: float,
    width: int,
    step: float,
    steps: int,
    rate: float,
    rng: np.random.Generator,
) -> Float[ndarray, "n d"]:
    """Every example moved by up to ``largest`` against a network trained on the clean examples.

    The network has ``width`` neurons and learns with the step size ``step`` in one pass; ``steps``
    and ``rate`` are those of :func:`poisoning.attacks.ascent.ascend`.
    """
    start = TwoLayerNets.draw(1, width, X.shape[1], rng)
    reference = train_online(start, X, y[None], np.array([step], np.float32)).nets
    gradient = reversed_logistic(reference)
    return ascend(gradient, X, y, PerSampleBudget(largest), steps=steps, rate=rate, bounds=None)


@dataclass(frozen=True)
class Poisoning:
    """What replaces the examples: rows of ``X`` (n, d) at a random ``share`` of them.

    In addition labels are flipped with each probability in ``flip_rates``, 0 for none; every rate
    has a network of its own.
    """

    X: Float[ndarray, "n d"]
    share: float
    flip_rates: Sequence[float]


@dataclass(frozen=True)
class TrainedWidth:
    """Networks of one width, one for each of F flip rates and R step sizes.

    ``accuracy`` (F, R) on all test examples at the end. On the probe, at the start and at each of
    C checkpoints: ``probe_accuracy``, ``active_fraction`` and ``distance`` (C + 1, F, R), see
    :class:`poisoning.models.two_layer.Checkpoint`.
    """

    accuracy: Float[ndarray, "F R"]
    probe_accuracy: Float[ndarray, "C1 F R"]
    active_fraction: Float[ndarray, "C1 F R"]
    distance: Float[ndarray, "C1 F R"]


def train_width(
    X: Float[ndarray, "n d"],
    y: Float[ndarray, "n"],
    poisoning: Poisoning,
    X_test: Float[ndarray, "t d"],
    y_test: Float[ndarray, "t"],
    width: int,
    steps: Sequence[float],
    checkpoints: Int[ndarray, "C"],
    probe: int,
    rngs: tuple[np.random.Generator, np.random.Generator],
    where: str,
) -> TrainedWidth:
    """One start and one order of the examples, for every flip rate and step size.

    The first of ``rngs`` draws order, poisoned rows and flips, the second the start. The same first
    one gives the same poison at every width. Checkpoints are measured on the first ``probe`` test
    examples. ``where`` is the device: on a CPU blocks of steps are compiled, for NumPy arrays.
    """
    place = np.asarray if where == "cpu" else partial(_on_device, device=where)
    rng, start_rng = rngs
    n = len(y)
    order = rng.permutation(n)
    bad = np.zeros(n, bool)
    bad[rng.permutation(n)[: round(poisoning.share * n)]] = True
    seen = np.where(bad[:, None], poisoning.X, X)[order]
    seeds = rng.integers(2**63, size=8)  # flips by rate: the same whatever the width
    labels = [
        y if beta == 0.0 else flip_labels(y, beta, np.random.default_rng(seeds[k]))
        for k, beta in enumerate(poisoning.flip_rates)
    ]
    runs = len(labels) * len(steps)
    one = TwoLayerNets.draw(1, width, X.shape[1], start_rng)
    nets = TwoLayerNets(*(place(np.repeat(part, runs, axis=0)) for part in (one.W, one.a)))
    X_test, y_test = place(X_test), place(y_test)
    run = train_online(
        nets,
        place(seen),
        place(np.repeat(np.stack(labels)[:, order].astype(np.float32), len(steps), axis=0)),
        place(np.tile(np.array(steps, np.float32), len(labels))),
        probe=(X_test[:probe], y_test[:probe]),
        checkpoints=[0, *map(int, checkpoints)],
    )
    correct = run.nets.scores(X_test) * y_test > 0.0
    accuracy = np.array([float(row.sum()) for row in correct]) / len(y_test)
    shape = len(checkpoints) + 1, len(labels), -1
    return TrainedWidth(
        accuracy.reshape(len(labels), -1),
        np.array([point.accuracy for point in run.checkpoints]).reshape(shape),
        np.array([point.active_fraction for point in run.checkpoints]).reshape(shape),
        np.array([point.distance for point in run.checkpoints]).reshape(shape),
    )


def _on_device(array: ndarray, device: str) -> object:
    """The array as a torch tensor."""
    import torch  # takes seconds; runs on a CPU do not need it

    return torch.as_tensor(array, device=device)


def margin(
    X: Float[ndarray, "n d"], y: Float[ndarray, "n"], neurons: int, rng: np.random.Generator
) -> MarginEstimate:
    """γ of these examples to a relative gap of 3 %; see :func:`tangent_margin`."""
    return tangent_margin(X, y, rng, neurons=neurons, tol=0.03)


def average_risk(
    accuracy: Float[ndarray, "repeats C1"], checkpoints: Int[ndarray, "C"]
) -> Float[ndarray, "repeats C"]:
    """(1/k) Σ_{i ≤ k} L(W_i) at every checkpoint k, by the trapezoidal rule in between.

    ``accuracy`` is that before the first example and at each checkpoint; L is 1 − accuracy.
    """
    edges = np.concatenate([[0.0], checkpoints.astype(float)])
    pieces = np.diff(edges) * (1.0 - 0.5 * (accuracy[..., 1:] + accuracy[..., :-1]))
    return np.cumsum(pieces, axis=-1) / checkpoints


def exponent(n: Int[ndarray, "C"], values: Float[ndarray, "*repeats C"]) -> ndarray | float:
    """p of values ∝ n^p by least squares in logarithms; values below 1e-12 count as that."""
    return np.polyfit(np.log(n), np.log(np.maximum(values, 1e-12)).T, 1)[0]
