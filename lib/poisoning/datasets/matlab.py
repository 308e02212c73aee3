"""MATLAB files as ``.npz``: run as a script, it reads one and writes the other to its output.

SciPy's reader can crash on a damaged file, not only raise. In a process of its own that is an error
like any other. The script imports no other module of this package, so it can be run by its path.
"""

import io
import sys

import numpy as np
from scipy.io import loadmat


def main(path: str) -> None:
    """Write every numeric array under its name, and of a cell array every numeric cell.

    Cells are called ``<name>/0``, ``<name>/1``, … in the order of the file.
    """
    found: dict[str, np.ndarray] = {}
    for name, value in loadmat(path).items():
        if not isinstance(value, np.ndarray):
            continue
        cells = value.ravel(order="F") if value.dtype == object else ()
        found |= {f"{name}/{k}": np.asarray(cell) for k, cell in enumerate(cells)}
        if value.dtype != object:
            found[name] = value
    numbers = {name: array for name, array in found.items() if array.dtype.kind in "fiub"}
    buffer = io.BytesIO()
    np.savez(buffer, **numbers)
    sys.stdout.buffer.write(buffer.getvalue())


if __name__ == "__main__":
    main(sys.argv[1])
