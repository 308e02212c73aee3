"""The papers' data sets: fetched, verified, prepared and loaded the same way every time.

``fetch`` brings the published files to ``data/raw/<set>``, ``prepare`` turns them (or an embedded
stand-in) into ``data/<source>/<set>``, and ``load`` reads that folder as a :class:`Dataset`.
``sources.yaml``, beside this file, says where the files come from and how each variant is
recognised.
"""

from poisoning.datasets.dataset import Dataset, Split, binary, split
from poisoning.datasets.download import fetch
from poisoning.datasets.preparation import prepare
from poisoning.datasets.sources import Source, registry
from poisoning.datasets.store import load

__all__ = [
    "Dataset",
    "Source",
    "Split",
    "binary",
    "fetch",
    "load",
    "prepare",
    "registry",
    "split",
]
