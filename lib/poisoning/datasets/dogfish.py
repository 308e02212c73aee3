"""Dogfish: Inception-v3 features of ImageNet dogs and fish, as published by Koh & Liang 2017."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.datasets.archives import read_npz
from poisoning.datasets.content import Content
from poisoning.errors import DataError


def parse(folder: Path) -> Content:
    """900 training and 300 test images per class with 2,048 features; labels 0/1 become −1/+1."""
    X, y = _part(folder / "dogfish_900_300_inception_features_train.npz")
    X_test, y_test = _part(folder / "dogfish_900_300_inception_features_test.npz")
    return Content("real", X, y, X_test, y_test)


def _part(path: Path) -> tuple[Float[ndarray, "n d"], Float[ndarray, "n"]]:
    arrays = read_npz(path)
    missing = {"inception_features_val", "labels"} - arrays.keys()
    if missing:
        raise DataError(f"{path.name} has no array {min(missing)}.")
    X = np.asarray(arrays["inception_features_val"], dtype=np.float64)
    labels = np.asarray(arrays["labels"]).ravel()
    if X.ndim != 2 or len(X) != len(labels) or not np.isin(labels, (0, 1)).all():
        raise DataError(f"{path.name} does not hold one row of features and a label 0/1 per image.")
    return X, np.where(labels == 1, 1.0, -1.0)
