"""Shapes and types written in signatures are enforced while the tests run."""

import os
from pathlib import Path

from jaxtyping import install_import_hook

SOURCES = Path(__file__).parents[1] / "lib"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Compiled kernels live in *_kernels.py: numba must see the plain functions.
CHECKED = [
    ".".join(path.relative_to(SOURCES).with_suffix("").parts)
    for path in sorted(SOURCES.rglob("*.py"))
    if path.stem not in {"__init__", "__main__"} and not path.stem.endswith("kernels")
]
install_import_hook(CHECKED, "beartype.beartype")
