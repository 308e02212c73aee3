"""Small convolutional classifiers whose last hidden layer varies; experiments of Wang et al. 2021.

    conv 8 – pool – relu – conv 16 – pool – relu – full m – relu – full k

The slides' figure draws clean test accuracy against the width m. All layers are trained, from
PyTorch's default initialisation, by plain SGD whose step size does not depend on m, with early
stopping on validation data that are poisoned as well. Under poison accuracy changes much from epoch
to epoch. So training goes on to the last epoch and keeps a record, from which the accuracy at the
epoch of early stopping, at a fixed epoch and at the last one are read. The mean of an epoch's
iterates changes less, and rounding moves it less.

Examples are rows of pixels, (n, channels·side²), plane by plane. A model and its data have to be on
one device.
"""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from poisoning import checks
from poisoning.errors import SolverError

_EVALUATED = 250  # examples at once: their feature maps fit the caches
_MOST_CLASSES = 2**31
_CONVOLUTION = [nn.Conv2d, nn.MaxPool2d, nn.ReLU]
_LAYERS = [
    nn.Unflatten, *_CONVOLUTION, *_CONVOLUTION, nn.Flatten, nn.Linear, nn.ReLU, nn.Linear,
]  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """Rows of pixels ``X`` (n, d), n ≥ 1, and labels ``y`` (n,), 0 … k−1.

    Raises ``ValueError`` or ``TypeError`` for tensors that are not so.
    """

    X: Float[Tensor, "n d"]
    y: Int[Tensor, "n"]

    def __post_init__(self) -> None:
        checks.tensor(self.X, "X", (None, None))
        n = len(self.X)
        if not n:
            raise ValueError("X must have at least one row, it has none.")
        whole = isinstance(self.y, Tensor) and self.y.dtype == torch.int64
        if not whole or self.y.shape != (n,) or self.y.device != self.X.device:
            raise TypeError(f"y must be an int64 tensor of {n} labels on {self.X.device}.")
        if int(self.y.min()) < 0:
            raise ValueError(f"y must be 0 to k - 1, it holds {int(self.y.min())}.")

    @classmethod
    def on(cls, where: str, X: Float[ndarray, "n d"], y: Int[ndarray, "n"]) -> "Examples":
        """NumPy arrays as float32 on the device ``where``."""
        X = checks.array(X, "X", (None, None))
        y = checks.classes(y, "y", len(X), _MOST_CLASSES)
        features = torch.as_tensor(X.astype(np.float32), device=where)
        return cls(features, torch.as_tensor(y, device=where))


def small_cnn(
    channels: int,
    side: int,
    classes: int,
    width: int,
    seed: int,
    *,
    kernel: int = 5,
    padding: int = 0,
) -> nn.Sequential:
    """The figure's network for channels × side × side images; ``width`` is m.

    The size of the convolutions is not published: 5 × 5 without padding here, as in LeNet-5; 3 × 3
    with ``padding`` 1 suits images of 8 × 8. The weights are drawn from ``seed``. Maximum pooling
    comes before ReLU: the two commute, and after pooling only a quarter of the numbers is left to
    rectify. Channels lie last in memory. On a CPU each of these two choices saves narrow networks a
    fifth of the time or more.

    Raises ``ValueError`` if the images are too small for two such convolutions and poolings, or for
    sizes that are no whole numbers from 1.
    """
    _sizes(channels=channels, side=side, classes=classes, width=width, kernel=kernel)
    padding, seed = checks.whole(padding, "padding", 0), checks.whole(seed, "seed", 0)
    lost = kernel - 1 - 2 * padding
    left = ((side - lost) // 2 - lost) // 2
    if left < 1:
        raise ValueError(f"{side} x {side} images are too small for two kernels of {kernel}")
    with _seeded(seed):
        return nn.Sequential(
            nn.Unflatten(1, (channels, side, side)),
            nn.Conv2d(channels, 8, kernel, padding=padding), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(8, 16, kernel, padding=padding), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * left**2, width), nn.ReLU(), nn.Linear(width, classes),
        ).to(memory_format=torch.channels_last)  # fmt: skip


def alexnet(channels: int, side: int, classes: int, seed: int) -> nn.Sequential:
    """AlexNet's five convolutions at the size of CIFAR: the reference model of its attacks.

    Kernels of 3 × 3 and three poolings by 2 in place of the strides that ImageNet's size asks for,
    one hidden layer of 512. Raises ``ValueError`` for a side below 8, or for sizes that are no
    whole numbers from 1.
    """
    _sizes(channels=channels, side=side, classes=classes)
    seed = checks.whole(seed, "seed", 0)
    if side < 8:
        raise ValueError(f"{side} x {side} images do not survive three poolings")

    def convolution(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]

    with _seeded(seed):
        return nn.Sequential(
            nn.Unflatten(1, (channels, side, side)),
            *convolution(channels, 64), nn.MaxPool2d(2),
            *convolution(64, 192), nn.MaxPool2d(2),
            *convolution(192, 384), *convolution(384, 256), *convolution(256, 256), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(256 * (side // 8) ** 2, 512), nn.ReLU(),
            nn.Linear(512, classes),
        )  # fmt: skip


def softmax_regression(d: int, classes: int, seed: int) -> nn.Sequential:
    """Logits that are linear in the pixels: the other reference model on MNIST."""
    _sizes(d=d, classes=classes)
    seed = checks.whole(seed, "seed", 0)
    with _seeded(seed):
        return nn.Sequential(nn.Linear(d, classes))


@dataclass(frozen=True)
class TrainingRecord:
    """Every epoch e = 0, 1 … of one training, after its last step.

    ``train_loss`` (e,) is the mean of the batches' losses while training; ``validation_loss``,
    ``validation_accuracy`` and ``test_accuracy`` (e,) are measured after the epoch, the last one
    NaN where it was not asked for. Accuracies are fractions.
    """

    train_loss: Float[ndarray, "epochs"]
    validation_loss: Float[ndarray, "epochs"]
    validation_accuracy: Float[ndarray, "epochs"]
    test_accuracy: Float[ndarray, "epochs"]


def train_classifier(
    model: nn.Module,
    train: Examples,
    validation: Examples,
    test: Examples,
    *,
    rate: float,
    epochs: int,
    seed: int,
    batch: int = 128,
    tested: Container[int] | None = None,
    averaged: bool = False,
) -> TrainingRecord:
    """One model as :func:`train_classifiers` trains several."""
    (record,) = train_classifiers(
        [checks.instance(model, "model", nn.Module)], train, validation, test, rate=rate,
        epochs=epochs, seed=seed, batch=batch, tested=tested, averaged=averaged,
    )  # fmt: skip
    return record


def train_classifiers(
    models: Sequence[nn.Module],
    train: Examples,
    validation: Examples,
    test: Examples,
    *,
    rate: float,
    epochs: int,
    seed: int,
    batch: int = 128,
    tested: Container[int] | None = None,
    averaged: bool = False,
) -> list[TrainingRecord]:
    """Plain SGD on the mean cross entropy of each batch; the models are trained in place.

    Several are trained side by side, on the same batches: each takes the steps that it would take
    alone, but for rounding. They have to be small CNNs with convolutions of one size. On a CPU
    narrow ones take about .6 of the time.

    ``rate`` is the step size, the same for all widths and epochs; the examples come in an order
    that ``seed`` shuffles for every epoch, the same on every device. ``test`` has no influence on
    training. It is measured after every epoch or, with ``tested``, after those epochs, from 0, and
    whenever validation accuracy is the best so far: the epoch that early stopping keeps is always
    among them. With ``averaged`` validation and test measure the mean of the epoch's iterates, one
    after every step, in place of the last one; training and the models are the same.

    Raises ``SolverError`` if a loss is no longer finite, ``ValueError`` or ``TypeError`` for
    invalid arguments, among them labels for which a model has no logit.
    """
    together = _together(models)
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        checks.instance(part, name, Examples)
        for model in models:
            _fits(model, part, name)
    rate, seed = checks.positive(rate, "rate"), checks.whole(seed, "seed", 0)
    epochs, batch = checks.whole(epochs, "epochs"), checks.whole(batch, "batch")
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(together.parameters(), lr=rate)
    measured = deepcopy(together) if checks.instance(averaged, "averaged", bool) else together
    n = len(train.y)
    history = np.empty((epochs, len(models), 4))  # the record's four, epoch by epoch
    for epoch in range(epochs):
        total = torch.zeros(len(models), device=train.X.device)
        batches = torch.randperm(n, generator=order).to(train.X.device).split(batch)
        for step, chosen in enumerate(batches):
            optimiser.zero_grad(set_to_none=True)
            y = train.y[chosen]
            losses = [nn.functional.cross_entropy(z, y) for z in together(train.X[chosen])]
            torch.stack(losses).sum().backward()
            optimiser.step()
            if averaged:
                _take_in(measured, together, step)
            total += torch.stack(losses).detach() * len(chosen)
        now = history[epoch]
        now[:, 0] = total.cpu().numpy() / n
        if not np.isfinite(now[:, 0]).all():
            raise SolverError(
                f"training of a classifier on {n} examples: loss {now[:, 0].max()} in epoch "
                f"{epoch} with step size {rate:g}; lower it"
            )
        now[:, 1:3] = _evaluated(measured, validation)
        best = now[:, 2] > history[:epoch, :, 2].max(axis=0, initial=-1.0)
        wanted = best | (tested is None or epoch in tested)
        now[:, 3] = np.nan
        if wanted.any():
            now[wanted, 3] = _evaluated(measured, test)[wanted, 1]
    together.give_back(models)
    return [TrainingRecord(*history[:, number].T) for number in range(len(models))]


class _Alone(nn.Module):
    """One model, whose logits are those of all."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.count = model, 1

    def forward(self, X: Float[Tensor, "b d"]) -> list[Float[Tensor, "b k"]]:
        return [self.model(X)]

    def give_back(self, models: Sequence[nn.Module]) -> None:
        """Nothing: the model itself was trained."""


class _SideBySide(nn.Module):
    """Small CNNs on the same images; their channels lie side by side, as groups of convolutions.

    The other layers are the models' own.
    """

    def __init__(self, models: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.count, self.unflatten = len(models), models[0][0]
        self.dense = nn.ModuleList(model[7:] for model in models)
        self.first = _grouped([model[1] for model in models], groups=1)
        self.second = _grouped([model[4] for model in models], groups=len(models))

    def forward(self, X: Float[Tensor, "b d"]) -> list[Float[Tensor, "b k"]]:
        maps = self.unflatten(X)
        for convolution in (self.first, self.second):
            maps = torch.relu(nn.functional.max_pool2d(convolution(maps), 2))
        own = maps.chunk(self.count, dim=1)
        return [dense(part) for dense, part in zip(self.dense, own, strict=True)]

    def give_back(self, models: Sequence[nn.Sequential]) -> None:
        """Copy each model's part of the convolutions into it."""
        with torch.no_grad():
            for place, convolution in ((1, self.first), (4, self.second)):
                for name, values in convolution.named_parameters():
                    for model, own in zip(models, values.chunk(self.count), strict=True):
                        getattr(model[place], name).copy_(own)


def _grouped(convolutions: Sequence[nn.Conv2d], groups: int) -> nn.Conv2d:
    """One convolution with the output channels of all, on their common input or on groups of it."""
    one = convolutions[0]
    both = nn.utils.skip_init(
        nn.Conv2d, one.in_channels * groups, one.out_channels * len(convolutions), one.kernel_size,
        padding=one.padding, groups=groups, device=one.weight.device,
    ).to(memory_format=torch.channels_last)  # fmt: skip
    with torch.no_grad():
        for name, values in both.named_parameters():
            values.copy_(torch.cat([getattr(own, name) for own in convolutions]))
    return both


def _together(models: Sequence[nn.Module]) -> _Alone | _SideBySide:
    """The models as one module, whose output is a list of logits."""
    if not isinstance(models, Sequence) or not models:
        raise TypeError(f"models must be a sequence of modules, it is {models!r}.")
    for model in models:
        checks.instance(model, "models", nn.Module)
    if len(models) == 1:
        return _Alone(models[0])
    sizes = {_convolutions(model) for model in models}
    if len(sizes) > 1 or None in sizes:
        raise ValueError(
            "models must be small CNNs with convolutions of one size where there are several."
        )
    return _SideBySide(models)


def _convolutions(model: nn.Module) -> str | None:
    """The layers of a small CNN up to its dense ones; None for any other model."""
    kinds = [type(layer) for layer in model] if isinstance(model, nn.Sequential) else []
    return str(model[:7]) if kinds == _LAYERS else None


def evaluate(model: nn.Module, examples: Examples) -> tuple[float, float]:
    """Mean cross entropy, and the fraction of the examples classified correctly.

    Raises ``ValueError`` for labels for which the model has no logit.
    """
    checks.instance(model, "model", nn.Module)
    _fits(model, checks.instance(examples, "examples", Examples), "examples")
    ((loss, accuracy),) = _evaluated(_Alone(model), examples).tolist()
    return loss, accuracy


def _take_in(mean: nn.Module, model: nn.Module, count: int) -> None:
    """Turn the ``mean`` of ``count`` iterates into that of one more, the model's."""
    with torch.no_grad():
        for average, weights in zip(mean.parameters(), model.parameters(), strict=True):
            average.lerp_(weights, 1.0 / (count + 1))


def _evaluated(together: _Alone | _SideBySide, examples: Examples) -> Float[ndarray, "models 2"]:
    """Every model's mean cross entropy, and the fraction that it classifies correctly."""
    # Sums stay on the device, so that a GPU need not synchronise at every batch.
    sums = torch.zeros((together.count, 2), dtype=torch.float64, device=examples.X.device)
    with torch.no_grad():
        for X, y in zip(examples.X.split(_EVALUATED), examples.y.split(_EVALUATED), strict=True):
            for (loss, correct), logits in zip(sums, together(X), strict=True):
                loss += nn.functional.cross_entropy(logits, y, reduction="sum")
                correct += (logits.argmax(dim=1) == y).sum()
    return (sums / len(examples.y)).cpu().numpy()


def early_stopped(criterion: Float[ndarray, "epochs"], patience: int) -> int:
    """The epoch that early stopping keeps: the best until ``patience`` epochs bring no better one.

    ``criterion`` is what should be low, such as 1 − validation accuracy; of equals the first.
    Raises ``ValueError`` for no epochs, values that are not finite, a patience below 0.
    """
    criterion = checks.array(criterion, "criterion", (None,))
    patience = checks.whole(patience, "patience", 0)
    if not criterion.size:
        raise ValueError("criterion must hold at least one epoch.")
    best = 0
    for epoch in range(1, len(criterion)):
        if epoch - best > patience:
            break
        if criterion[epoch] < criterion[best]:
            best = epoch
    return best


def _sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        checks.whole(size, name)


def _fits(model: nn.Module, examples: Examples, name: str) -> None:
    """Raise ``ValueError`` unless the model takes such rows and has a logit for every label."""
    with torch.no_grad():
        try:
            logits = deepcopy(model).eval()(examples.X[:1])
        except RuntimeError as error:
            raise ValueError(
                f"{name} must have rows X that the model takes, not of {examples.X.shape[1]} "
                f"numbers: {error}"
            ) from None
    highest = int(examples.y.max())
    if logits.ndim != 2 or logits.shape[1] <= highest:
        raise ValueError(
            f"{name} holds the label {highest}, the model's output has the shape "
            f"{tuple(logits.shape)} for a row."
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's global generator, which initialisation uses, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
