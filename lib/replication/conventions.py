"""Conventions of all notebooks: seeds, data sets by name, rounding."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poisoning.datasets import Dataset, binary
from poisoning.datasets import load as load_dataset

if TYPE_CHECKING:
    # A second to import; the pipeline's commands do not need it.
    from poisoning.metrics import Estimate

PAIRS = {"mnist-1-7": ("mnist", 7, 1)}
"""Two classes of a multi-class set, by the name papers give them: set, positive, negative."""


def whole_set(name: str) -> str:
    """The prepared data set that contains ``name``, which may be two classes of it."""
    return PAIRS.get(name, (name,))[0]


def load(name: str, folder: Path) -> Dataset:
    """The data set ``name`` from the prepared ``folder`` of its :func:`whole_set`."""
    dataset = load_dataset(folder)
    return binary(dataset, *PAIRS[name][1:]) if name in PAIRS else dataset


def seed_sequence(seed: int, *key: str | int) -> np.random.SeedSequence:
    """A seed of its own for every (seed, paper, section, setting, repeat)."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return np.random.SeedSequence([seed, *np.frombuffer(digest[:16], dtype=np.uint32).tolist()])


def generator(seed: int, section: str, *setting: str | int) -> np.random.Generator:
    """The generator of one setting and repeat of a section."""
    return np.random.default_rng(seed_sequence(seed, section, *setting))


def metric_record(estimate: "Estimate") -> dict[str, Any]:
    """An entry of ``metrics.json``; ``repeats``, if any, let two metrics be compared in pairs."""
    interval = estimate.ci95
    record = {
        "value": rounded(estimate.value),
        "ci95": None if interval is None else [rounded(bound) for bound in interval],
        "n": estimate.n,
    }
    repeats = [rounded(value) for value in estimate.repeats]
    return record | {"repeats": repeats} if repeats else record


def rounded(value: float) -> float:
    """Twelve significant digits: below that, sums differ between BLAS builds."""
    return float(f"{float(value):.12g}")
