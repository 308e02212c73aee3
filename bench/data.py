"""The data of the entries on Koh et al. 2021: real if prepared, else the stand-in."""

import numpy as np

from lib.datasets import Split, load, prepare, split
from lib.pipeline import paths


def examples(name: str) -> tuple[Split, str]:
    """The official split of a data set, or a fixed 80/20 one; and data set and variant, named."""
    folder = paths.dataset("real", name)
    if not (folder / "manifest.json").exists():
        folder = paths.dataset("standin", name)
        if not (folder / "manifest.json").exists():
            prepare(name, "standin", folder.parents[1])
    dataset = load(folder)
    return split(dataset, np.random.default_rng(2021)), f"{name}, {dataset.variant}"
