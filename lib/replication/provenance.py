"""The code, knobs, data and machine that a result was computed with."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from replication import paths

VERSIONS = ("numpy", "scipy", "scikit-learn", "numba", "torch", "cvxpy", "matplotlib", "dvc")

_OWN_RECORD = ("results", "dvc.lock", "params.yaml")
"""Files that never make a tree dirty: outputs of runs, and the knobs, which records hold."""


def provenance(
    seconds: float,
    parameters: dict[str, Any],
    data: dict[str, Any],
    device: str,
    fingerprint: str,
    units: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Where one run's result comes from; it differs from run to run and is no DVC output.

    ``units``: what the records of its units say. A result that was read back in seconds names the
    commits, and the CPU seconds, of the runs that computed it.
    """
    return {
        **tree_state(),
        "fingerprint": fingerprint,
        "requirements_sha256": hashlib.sha256(paths.REQUIREMENTS.read_bytes()).hexdigest(),
        "parameters": parameters,
        "data": data,
        "device": _device_name(device),
        **machine(),
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "1"),
        "seconds": round(seconds, 1),
        "units": len(units),
        "units_cpu_seconds": round(sum(unit["cpu_seconds"] for unit in units), 1),
        "units_commits": sorted({str(unit["commit"]) for unit in units}),
        "units_dirty": sum(bool(unit["dirty"]) for unit in units),
        "units_adopted": sum(unit["adopted"] is not None for unit in units),
    }


def tree_state() -> dict[str, Any]:
    """The commit that is checked out, and whether code or claims differ from it.

    Where git cannot tell, the commit is None and the tree counts as dirty.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", *(f":!{name}" for name in _OWN_RECORD))
    return {"commit": commit, "dirty": commit is None or changes != ""}


@cache
def machine() -> dict[str, Any]:
    """The processor, and the versions that numbers may depend on."""
    return {
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in VERSIONS},
    }


def _version(name: str) -> str | None:
    """None where the package is not installed, as on a machine that only computes units."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], cwd=paths.ROOT, capture_output=True, check=False)
    except OSError:
        return None
    return run.stdout.decode("utf-8", "replace").strip() if run.returncode == 0 else None


def _device_name(device: str) -> str:
    if device == "cpu":
        return device
    import torch  # two seconds to import

    return torch.cuda.get_device_name(device)


def cpu_model() -> str:
    """The processor's name, as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def tracked_notebooks() -> set[str] | None:
    """Names of the notebooks that git knows; None where there is no git."""
    listing = _git("ls-files", "notebooks")
    if listing is None:
        return None
    files = [name for name in listing.splitlines() if name.endswith(".ipynb")]
    return {name.removeprefix("notebooks/").removesuffix(".ipynb") for name in files}
