"""Where signatures name shapes of arrays, shapes and types are enforced while the tests run."""

import os
from pathlib import Path

from jaxtyping import install_import_hook

SOURCES = Path(__file__).parents[1] / "lib"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Compiled kernels live in *_kernels.py: numba must see the plain functions. Where no signature
# names a shape, checks would take most of the time of what reads source code.
CHECKED = [
    ".".join(path.relative_to(SOURCES).with_suffix("").parts)
    for path in sorted(SOURCES.rglob("*.py"))
    if "from jaxtyping import" in path.read_text("utf-8") and not path.stem.endswith("kernels")
]
install_import_hook(CHECKED, "beartype.beartype")

HERE = Path(__file__).parent
UNTRACED = [
    HERE / name
    for name in (
        "fuzz", "poisoning", "replication/test_fingerprint.py", "replication/test_params.py"
    )
]  # fmt: skip


def pytest_collection_modifyitems(items):
    """Leave slow tests out of the coverage, which doubles their time; fast ones reach that code."""
    for item in items:
        slow = item.get_closest_marker("slow")
        if slow and any(item.path.is_relative_to(folder) for folder in UNTRACED):
            item.add_marker("no_cover")
