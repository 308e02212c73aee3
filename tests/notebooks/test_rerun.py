"""The executed demo notebooks, run again by nbval: every printed output and every file agrees."""

import filecmp
import os
import subprocess
import sys

import pytest

from replication import paths
from replication.provenance import tracked_notebooks

NAMES = sorted(tracked_notebooks())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_second_run_gives_the_same_outputs_and_files(name, tmp_path):
    folder = paths.ROOT / "results" / "demo" / name
    executed = folder / f"{folder.name}.ipynb"
    assert executed.is_file(), "run `make repro` first: the demo notebooks are what is checked"
    environment = os.environ | {
        paths.RESULTS_VARIABLE: str(tmp_path),
        paths.CACHE_VARIABLE: str(tmp_path / "units"),
        paths.PROGRESS_VARIABLE: os.devnull,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # importing the others takes seconds
    }
    command = [
        *(sys.executable, "-m", "pytest", "-c", os.devnull, "-q", "-p", "nbval.plugin", "--nbval"),
        *("--nbval-current-env", "--nbval-cell-timeout=600", "-p", "no:cacheprovider"),
    ]
    run = subprocess.run(
        [*command, str(executed)], env=environment, cwd=paths.ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout
    again = tmp_path / "demo" / name
    files = [
        str(path.relative_to(folder))
        for pattern in ("metrics.json", "headline.json", "figures/*", "tables/*")
        for path in sorted(folder.glob(pattern))
    ]
    assert "metrics.json" in files
    _, different, missing = filecmp.cmpfiles(folder, again, files, shallow=False)
    assert (different, missing) == ([], [])
