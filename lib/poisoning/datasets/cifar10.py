"""CIFAR-10 from its binary distribution: records of one label and 3 × 32 × 32 pixels."""

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from poisoning.datasets.archives import read_tar
from poisoning.datasets.content import Content
from poisoning.errors import DataError

PIXELS = 3 * 32 * 32
TRAIN = [f"cifar-10-batches-bin/data_batch_{k}.bin" for k in range(1, 6)]
TEST = "cifar-10-batches-bin/test_batch.bin"


def parse(folder: Path) -> Content:
    """Rows of 3,072 bytes (red plane, green plane, blue plane) and classes 0 … 9.

    Raises:
        DataError: a batch is missing, is no whole number of records, or has a label above 9.
    """
    batches = read_tar(folder / "cifar-10-binary.tar.gz", {*TRAIN, TEST}.__contains__)
    missing = {*TRAIN, TEST} - batches.keys()
    if missing:
        raise DataError(f"cifar-10-binary.tar.gz has no member {min(missing)}.")
    X, y = _records(b"".join(batches[name] for name in TRAIN))
    X_test, y_test = _records(batches[TEST])
    return Content("box01", X, y, X_test, y_test)


def _records(raw: bytes) -> tuple[UInt8[ndarray, "n d"], Int[ndarray, "n"]]:
    if len(raw) % (1 + PIXELS):
        raise DataError(f"{len(raw)} bytes are no whole number of CIFAR-10 records.")
    records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 1 + PIXELS)
    labels = records[:, 0].astype(np.int64)
    if labels.max(initial=0) > 9:
        raise DataError(f"{labels.max()} is no CIFAR-10 class.")
    return np.ascontiguousarray(records[:, 1:]), labels
