"""Run one notebook: ``python -m lib.pipeline.run koh2021/kkt --profile demo``.

Results appear under ``results/<profile>/<paper>/<section>/`` only when the notebook has run to
its end: a failed or killed run leaves nothing half-written.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from lib.pipeline import params, paths
from lib.pipeline.notebook import USED
from lib.pipeline.provenance import provenance

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class NotebookError(RuntimeError):
    """A notebook cannot be run as asked, or one of its cells failed; one sentence."""


def run_notebook(name: str, profile: str) -> Path:
    """Execute ``notebooks/<name>.ipynb`` and return the folder of its results.

    Raises:
        ParameterError: a knob of ``params.yaml`` is bad.
        NotebookError: the notebook's parameters are not the knobs of its block, or a cell failed.
    """
    checked = params.load(profile)
    source = paths.NOTEBOOKS / f"{name}.ipynb"
    if not source.is_file():
        raise NotebookError(f"there is no notebook {source.relative_to(paths.ROOT)}.")
    knobs = {"profile": profile, **checked.section(name)}
    _check_parameters(source, set(knobs))
    target = paths.section_results(profile, name)
    cache = paths.ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="run-") as staging:
        start = time.perf_counter()
        executed = _execute(source, knobs, Path(staging), cache / "failed" / profile / name)
        seconds = time.perf_counter() - start
        folder = Path(staging) / profile / name
        nbformat.write(strip_noise(executed), folder / source.name)
        inputs = json.loads((folder / USED).read_text())
        (folder / USED).unlink()
        used = {**knobs, **inputs["shared"], "seed": checked.seed, "device": checked.device}
        record = provenance(seconds, used, inputs["data"], inputs["device"])
        (folder / "provenance.json").write_text(json.dumps(record, indent=1) + "\n")
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, target)
    return target


def _check_parameters(source: Path, knobs: set[str]) -> None:
    """Papermill only mutters about a parameter that the notebook lacks; here it is an error."""
    declared = set(papermill.inspect_notebook(source))
    if declared != knobs:
        strange = ", ".join(sorted(declared ^ knobs))
        raise NotebookError(
            f"{source.relative_to(paths.ROOT)}: its parameters cell and its block in params.yaml "
            f"must hold the same names; only one of them has {strange}."
        )


def _execute(
    source: Path, knobs: dict[str, Any], staging: Path, failed: Path
) -> nbformat.NotebookNode:
    output = staging / source.name
    environment = {
        paths.RESULTS_VARIABLE: str(staging),
        # Units of work are the parallelism: a worker with its own BLAS threads slows them all.
        **{name: os.environ.get(name, "1") for name in THREAD_VARIABLES},
    }
    terminal = Path(f"/proc/{os.getpid()}/fd/2")
    if terminal.exists():
        environment[paths.PROGRESS_VARIABLE] = str(terminal)
    os.environ.update(environment)
    try:
        return papermill.execute_notebook(
            source,
            output,
            parameters=knobs,
            kernel_name="python3",
            cwd=paths.ROOT,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns of its own loopback port
        )
    except PapermillExecutionError as error:
        failed.mkdir(parents=True, exist_ok=True)
        kept = failed / source.name
        shutil.move(output, kept)
        raise NotebookError(
            f"{source.relative_to(paths.ROOT)}: cell {error.cell_index} failed with "
            f"{error.ename}: {error.evalue} (the notebook as far as it ran: "
            f"{kept.relative_to(paths.ROOT)})."
        ) from None


def strip_noise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs from run to run and from place to place.

    Times, random cell ids, papermill's own records; and in what was printed the project's folder,
    which a warning names.
    """
    notebook.metadata.pop("papermill", None)
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:02d}"
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = output.text.replace(f"{paths.ROOT}/", "")
    return notebook


def main(arguments: list[str] | None = None) -> int:
    """Command line; a one-sentence error and status 1 if the run is not possible or fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", help="<paper>/<section>, for example koh2021/kkt")
    parser.add_argument("--profile", required=True, choices=params.PROFILES)
    options = parser.parse_args(arguments)
    try:
        folder = run_notebook(options.notebook, options.profile)
    except (params.ParameterError, NotebookError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"results in {folder.relative_to(paths.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
