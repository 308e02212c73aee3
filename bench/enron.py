"""The mails that the entries on Koh et al. 2021 use: real if prepared, else the stand-in."""

import numpy as np

from lib.datasets import Split, load, prepare, split
from lib.pipeline import paths

LAMBDA = 0.09


def enron() -> tuple[Split, str]:
    """A fixed 80/20 split and the variant of the data it comes from."""
    folder = paths.dataset("real", "enron")
    if not (folder / "manifest.json").exists():
        folder = paths.dataset("standin", "enron")
        if not (folder / "manifest.json").exists():
            prepare("enron", "standin", folder.parents[1])
    dataset = load(folder)
    return split(dataset, np.random.default_rng(2021)), dataset.variant
