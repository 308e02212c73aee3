"""MNIST and Fashion-MNIST: 28 × 28 grey images in the IDX format."""

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from poisoning.datasets.archives import read_gzip
from poisoning.datasets.content import Content
from poisoning.errors import DataError


def parse(folder: Path) -> Content:
    """Read the four ``.gz`` files of ``folder``: pixels as rows of 784, classes 0 … 9."""
    X, y = _part(folder, "train")
    X_test, y_test = _part(folder, "t10k")
    return Content("box01", X, y, X_test, y_test)


def _part(folder: Path, prefix: str) -> tuple[UInt8[ndarray, "n d"], Int[ndarray, "n"]]:
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"{prefix} has {len(images)} images but {len(labels)} labels.")
    return images.reshape(len(images), -1), labels.astype(np.int64)


def read_idx(path: Path, dimensions: int) -> UInt8[ndarray, "..."]:
    """An array of bytes from a gzipped IDX file.

    The format: two zero bytes, the type (8 = unsigned byte), the number of dimensions, each
    dimension as a big-endian 32-bit integer, then the values in row-major order.

    Raises:
        DataError: the header is not that of bytes in ``dimensions`` dimensions, or the length is
            not the product of the dimensions.
    """
    raw = read_gzip(path)
    start = 4 + 4 * dimensions
    if raw[:4] != bytes([0, 0, 8, dimensions]) or len(raw) < start:
        raise DataError(f"{path.name} is no IDX file of bytes in {dimensions} dimension(s).")
    shape = tuple(int(size) for size in np.frombuffer(raw[4:start], dtype=">u4"))
    if len(raw) - start != np.prod(shape, dtype=object):
        raise DataError(f"{path.name} holds {len(raw) - start} bytes for the shape {shape}.")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)
