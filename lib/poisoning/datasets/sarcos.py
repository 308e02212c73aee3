"""SARCOS: inverse dynamics of a seven-joint arm, 21 inputs → 7 torques."""

from pathlib import Path

from numpy import ndarray

from poisoning.datasets.archives import read_mat
from poisoning.datasets.content import Content
from poisoning.errors import DataError

INPUTS = 21
TORQUES = 7


def parse(folder: Path) -> Content:
    """Positions, velocities and accelerations (n, 21) and torques (n, 7), in the file's order.

    Only ``sarcos_inv_test.mat`` is read: its rows are nearly all repeated in the training file,
    so that the published pair is no split. Experiments draw disjoint sets from its 4,449 rows.
    """
    path = folder / "sarcos_inv_test.mat"
    table = read_mat(path).get("sarcos_inv_test")
    if not isinstance(table, ndarray) or table.ndim != 2 or table.shape[1] != INPUTS + TORQUES:
        raise DataError(f"{path.name} holds no table sarcos_inv_test of 28 columns.")
    return Content("real", table[:, :INPUTS].copy(), table[:, INPUTS:].copy())
