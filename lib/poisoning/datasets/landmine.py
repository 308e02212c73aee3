"""Landmine detection: 29 fields (tasks), 9 radar features, +1 is a mine and −1 clutter."""

from pathlib import Path

import numpy as np

from poisoning.datasets.archives import read_mat
from poisoning.datasets.content import Content
from poisoning.errors import DataError


def parse(folder: Path) -> Content:
    """All tasks one after the other; ``tasks`` gives the task of every row.

    Labels 0/1 become −1/+1.
    """
    path = folder / "LandmineData.mat"
    cells = read_mat(path)
    if not {"feature", "label"} <= cells.keys():
        raise DataError(f"{path.name} holds no cells feature and label.")
    features, labels = cells["feature"], cells["label"]
    if not isinstance(features, list) or not isinstance(labels, list):
        raise DataError(f"{path.name} holds no cells feature and label.")
    if [len(x) for x in features] != [len(y) for y in labels]:
        raise DataError(f"{path.name} does not hold one label per example.")
    tasks = np.repeat(np.arange(len(features)), [len(x) for x in features])
    X = np.vstack([np.asarray(x, dtype=np.float64) for x in features])
    y = np.where(np.concatenate([y.ravel() for y in labels]) == 1, 1.0, -1.0)
    return Content("real", X, y, tasks=tasks)
