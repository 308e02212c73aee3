"""The data of the entries: real if prepared, else the stand-in."""

import numpy as np

from poisoning.datasets import Dataset, Split, load, prepare, split
from replication import paths


def whole(name: str) -> tuple[Dataset, str]:
    """A data set; and its name and variant, for a reader."""
    folder = paths.dataset("real", name)
    if not (folder / "manifest.json").exists():
        folder = paths.dataset("standin", name)
        if not (folder / "manifest.json").exists():
            prepare(name, "standin", folder.parents[1])
    dataset = load(folder)
    return dataset, f"{name}, {dataset.variant}"


def examples(name: str) -> tuple[Split, str]:
    """The official split of a data set, or a fixed 80/20 one; and data set and variant, named."""
    dataset, source = whole(name)
    return split(dataset, np.random.default_rng(2021)), source
