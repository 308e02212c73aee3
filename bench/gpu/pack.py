"""Data and knobs in one file, for a machine that has neither data sets nor pipeline.

MNIST and CIFAR-10 are kept whole and to the bit. Colour images are kept as differences, which
deflate packs into half their bytes: red and blue from green, every row from the row above, every
column from the column to its left, all modulo 256.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from poisoning.datasets import Dataset, load
from poisoning.datasets.archives import UNREADABLE, read_npz, reason
from poisoning.errors import DataError
from replication import paths
from replication.conventions import generator
from replication.provenance import tree_state

CHANNELS = {"mnist": 1, "cifar-10": 3}
"""The data sets of a pack, and the planes of an image."""

BLOCKS = ("carnerero2023/attack", "carnerero2023/networks", "wang2021/width")
"""The blocks of knobs of a pack."""

TOY = {
    "carnerero2023/attack": {"n_train": 100},
    "carnerero2023/networks": {
        "n_train": 100, "n_test": 40, "steps": 5, "hyperiterations": 1, "epochs": 30
    },
    "wang2021/width": {
        "recipes": {
            name: {
                "train": 100, "validation": 50, "rate": 0.1, "averaged": False, "epochs": 2,
                "fixed_epoch": 2, "patience": 2,
            }
            for name in CHANNELS
        }
    },
}  # fmt: skip
"""Knobs of the demo's pack, with which a CPU runs all parts in seconds."""


@dataclass(frozen=True)
class Pack:
    """The profile's knobs by block, its seed, the data sets, and the commit that they are from."""

    profile: str
    seed: int
    state: dict[str, Any]
    knobs: dict[str, dict[str, Any]]
    datasets: dict[str, Dataset]

    def load(self, name: str) -> Dataset:
        """A data set; :class:`replication.notebook.Notebook` has the same method."""
        return self.datasets[name]

    def rng(self, section: str, *setting: str | int) -> np.random.Generator:
        """The generator that the notebook ``section`` draws this setting from."""
        return generator(self.seed, section, *setting)

    def source(self, name: str) -> str:
        """A data set and its variant, for a reader."""
        return f"{name}, {self.datasets[name].variant}"


def default() -> Path:
    """Where a pack lies unless it is said."""
    return paths.cache() / "gpu" / "pack.npz"


def write(file: Path, profile: str) -> int:
    """Pack the data sets of a profile, the real ones or the stand-ins, and its knobs; its bytes.

    Raises:
        DataError: a data set is not prepared.
    """
    # These need the pipeline's packages.
    from poisoning.datasets import prepare
    from replication import params

    found = params.load(profile)
    source = found.profiles[profile].data
    toy = TOY if profile == "demo" else {}
    arrays: dict[str, ndarray] = {}
    variants = {}
    for name, channels in CHANNELS.items():
        folder = paths.dataset(source, name)
        if not (folder / "manifest.json").exists():
            if source == "real":
                raise DataError(f"{name} is not prepared: run `dvc repro data@real-{name}`.")
            prepare(name, "standin", folder.parents[1])
        data = load(folder)
        variants[name] = data.variant
        for part, X, y in (("train", data.X, data.y), ("test", data.X_test, data.y_test)):
            pixels = np.rint(255.0 * X).astype(np.uint8)
            arrays[f"{name}.{part}.X"] = differences(pixels) if channels == 3 else pixels
            arrays[f"{name}.{part}.y"] = y.astype(np.uint8)
    about = {
        "profile": profile,
        "seed": found.seed,
        "state": tree_state(),
        "knobs": {block: found.section(block) | toy.get(block, {}) for block in BLOCKS},
        "variants": variants,
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    part.replace(file)
    return file.stat().st_size


def read(file: Path) -> Pack:
    """What :func:`write` packed.

    Raises:
        DataError: the file is not there or is no pack.
    """
    try:
        arrays = read_npz(file)
        about = json.loads(arrays["about"].tobytes())
        variants = about.pop("variants")
        datasets = {name: _dataset(arrays, name, variants[name]) for name in CHANNELS}
        return Pack(**about, datasets=datasets)
    except FileNotFoundError:
        raise DataError(
            f"{file} is not there: write it by `python -m bench.gpu pack` where the data sets are "
            "prepared, and copy it here."
        ) from None
    except UNREADABLE as error:
        raise DataError(f"{file} is no pack ({reason(error)}): write it again.") from None


def _dataset(arrays: dict[str, ndarray], name: str, variant: str) -> Dataset:
    parts = []
    for part in ("train", "test"):
        X = arrays[f"{name}.{part}.X"]
        X = pixels_of(X) if CHANNELS[name] == 3 else X
        parts += [X / 255.0, arrays[f"{name}.{part}.y"].astype(np.int64)]
    return Dataset(name, variant, "box01", *parts, manifest={"variant": variant})


def differences(X: UInt8[ndarray, "n d"]) -> UInt8[ndarray, "n d"]:
    """Colour images as differences, modulo 256."""
    planes = _planes(X)
    found = planes.copy()
    found[:, ::2] -= planes[:, 1:2]
    for axis in (2, 3):
        found = np.diff(found, axis=axis, prepend=np.uint8(0))
    return found.reshape(X.shape)


def pixels_of(X: UInt8[ndarray, "n d"]) -> UInt8[ndarray, "n d"]:
    """The images again."""
    found = _planes(X)
    for axis in (2, 3):
        found = np.cumsum(found, axis=axis, dtype=np.uint8)
    found[:, ::2] += found[:, 1:2]
    return found.reshape(X.shape)


def _planes(X: UInt8[ndarray, "n d"]) -> UInt8[ndarray, "n 3 side side"]:
    side = round((X.shape[1] / 3) ** 0.5)
    return X.reshape(len(X), 3, side, side)
