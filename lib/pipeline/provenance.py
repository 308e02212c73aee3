"""What a result was computed from and on."""

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lib.pipeline import paths

VERSIONS = ("numpy", "scipy", "scikit-learn", "numba", "torch", "cvxpy", "matplotlib", "dvc")


def provenance(
    seconds: float, parameters: dict[str, Any], data: dict[str, Any], device: str
) -> dict[str, Any]:
    """Commit, environment, parameters, data digests, device and wall time of one run.

    It differs from run to run and is therefore no DVC output.
    """
    return {
        "commit": _git("rev-parse", "HEAD"),
        # What a run itself writes does not make the code that ran it dirty.
        "dirty": bool(_git("status", "--porcelain", "--", ".", ":!results", ":!dvc.lock")),
        "requirements_sha256": hashlib.sha256(paths.REQUIREMENTS.read_bytes()).hexdigest(),
        "parameters": parameters,
        "data": data,
        "device": _device_name(device),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "unset"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in VERSIONS},
        "seconds": round(seconds, 1),
    }


def _git(*arguments: str) -> str | None:
    run = subprocess.run(["git", *arguments], cwd=paths.ROOT, capture_output=True, text=True)
    return run.stdout.strip() if run.returncode == 0 else None


def _device_name(device: str) -> str:
    if device == "cpu":
        return device
    import torch  # two seconds to import

    return torch.cuda.get_device_name(device)


def cpu_model() -> str:
    """The processor's name, as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
