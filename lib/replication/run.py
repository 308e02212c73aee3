"""Run one notebook: ``python -m replication.run koh2021/kkt --profile demo``.

Results appear under ``results/<profile>/<paper>/<section>/`` only when the notebook has run to its
end: a failed or killed run leaves nothing half-written, and the next run reads back the units that
it has finished.
"""

import argparse
import errno
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

# At every start jsonschema would spend seconds on a grammar of URLs that notebooks do not need.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat
import papermill
import psutil
from filelock import FileLock, Timeout
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from poisoning.datasets import files
from poisoning.errors import DataError
from replication import params, paths
from replication.provenance import provenance, tree_state
from replication.reading import ReadingError, is_set
from replication.records import RecordError, read
from replication.stages import Needs, Pipeline
from replication.units import DEAR, KEPT_IN_ALL, SMALL, TABLE, cache_size, read_table, unit_file

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
KERNEL_START_SECONDS = 120
ALLOW_DIRTY = "ALLOW_DIRTY"
LOCK = "lock"
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""What a disk answers that is full, or not to be written."""


class NotebookError(RuntimeError):
    """A notebook cannot be run as asked, or one of its cells failed; one sentence."""

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause


def run_notebook(name: str, profile: str) -> Path:
    """Execute ``notebooks/<name>.ipynb`` and return the folder of its results.

    A second run of the same notebook waits for the first.

    Raises:
        ParameterError: a knob of ``params.yaml`` is bad.
        NotebookError: there is no such notebook, the tree is dirty or of no commit (``paper``), the
            notebook's parameters are not the knobs of its block, or a cell failed.
    """
    pipeline = Pipeline()
    loaded = pipeline.params[profile]
    source, knobs = _checked(name, loaded, profile)
    needs = pipeline.needs(name)
    if profile == "paper" and not is_set(ALLOW_DIRTY):
        _refuse_dirty(tree_state())
    with _alone(f"{profile}-{name}"), staging() as working:
        begun = time.perf_counter()
        with _environment({paths.DATA_VARIABLE: ",".join(needs.data[profile])}):
            executed = _execute(source, knobs, working, paths.cache() / "failed" / profile / name)
        seconds = time.perf_counter() - begun
        folder = working / profile / name
        if not (folder / paths.USED).is_file():
            raise NotebookError(
                f"{source.relative_to(paths.ROOT)} has run, but has not ended its results: make "
                f'`notebook = Notebook("{name}", profile)`, and end with `notebook.finish(…)`.'
            )
        nbformat.write(strip_noise(executed), folder / source.name)
        _record(needs, loaded, folder, knobs, seconds)
        target = paths.section_results(profile, name)
        if not paths.in_pipeline():
            target = paths.pipeline_results(profile, name)
        _replace(folder, target)
    if profile == "paper":
        with _alone("kept-units"):
            keep_small_units(target)
    return target


def _refuse_dirty(state: dict[str, Any]) -> None:
    if state["commit"] is None:
        raise NotebookError(
            f"git cannot tell which commit {paths.ROOT} is, and the paper profile records it: "
            f"install git and run in a clone, or set {ALLOW_DIRTY}=1, which marks the result."
        )
    if state["dirty"]:
        raise NotebookError(
            "the paper profile refuses a tree with uncommitted changes, which nobody could check "
            f"out again: commit them, or set {ALLOW_DIRTY}=1, which marks the result."
        )


def compare_units(name: str, profile: str, plan: Path) -> None:
    """Execute a notebook only to compare its units; see :mod:`replication.checking`.

    Raises:
        NotebookError: a cell failed; ``cause`` is the name of the error.
    """
    source, knobs = _checked(name, params.load(profile), profile)
    with (
        _alone(f"{profile}-{name}"),
        staging() as folder,
        _environment({paths.CHECK_VARIABLE: str(plan)}),
    ):
        _execute(source, knobs, folder, paths.cache() / "failed" / "compared" / name)


def _checked(name: str, loaded: params.Params, profile: str) -> tuple[Path, dict[str, Any]]:
    """The file of a notebook and the knobs that it is given."""
    if not re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)?", name):
        raise NotebookError(f"{name!r} names no notebook: write <paper>/<section>.")
    source = params.notebook_file(name)
    if not source.is_file():
        raise NotebookError(f"there is no notebook {source.relative_to(paths.ROOT)}.")
    knobs = {"profile": profile, **loaded.section(name)}
    declared = set(params.declared(name).values)
    if declared != set(knobs):
        strange = ", ".join(sorted(declared ^ set(knobs)))
        raise NotebookError(
            f"{source.relative_to(paths.ROOT)}: its parameters cell and its block in params.yaml "
            f"must hold the same names; only one of them has {strange}."
        )
    return source, knobs


@contextmanager
def _alone(what: str) -> Iterator[None]:
    """Hold the lock of ``what``, for which other processes wait."""
    folder = paths.cache() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotebookError(f"{folder.parent} cannot be written: {error.strerror}.") from None
    lock = FileLock(folder / f"{what.replace('/', '-')}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another run of {what} is under way: waiting for it.", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def staging() -> Iterator[Path]:
    """A working folder that is removed afterwards, even if a signal ends the run.

    Its process holds a lock in it. Folders whose processes were killed outright are removed by the
    next run.
    """
    cache = paths.cache()
    (cache / "locks").mkdir(parents=True, exist_ok=True)
    with _ended_by(signal.SIGTERM), ExitStack() as held:
        with FileLock(cache / "locks" / "working-folders.lock"):
            for left in cache.glob("run-*"):
                with suppress(Timeout, OSError), FileLock(left / LOCK, timeout=0):
                    shutil.rmtree(left, ignore_errors=True)
            made = tempfile.TemporaryDirectory(dir=cache, prefix="run-")
            folder = Path(held.enter_context(made))
            held.enter_context(FileLock(folder / LOCK))
        others = psutil.Process().children(recursive=True)
        try:
            yield folder
        except BaseException:
            _end_children(others)
            raise


@contextmanager
def _ended_by(number: signal.Signals) -> Iterator[None]:
    """Turn a signal into an exception, so that temporary files are removed."""

    def end(*_: Any) -> NoReturn:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(number, end)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)


def _end_children(others: list[psutil.Process]) -> None:
    """Stop the kernel and its workers, which would otherwise go on computing.

    ``others`` were there before the run. They belong to who called it.
    """
    children = set(psutil.Process().children(recursive=True)).difference(others)
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(list(children), timeout=5)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _execute(
    source: Path, knobs: dict[str, Any], staging: Path, failed: Path
) -> nbformat.NotebookNode:
    output = staging / source.name
    variables = {
        paths.RESULTS_VARIABLE: str(staging),
        # Units of work run in parallel: BLAS threads within a worker would slow down all of them.
        **{name: os.environ.get(name, "1") for name in THREAD_VARIABLES},
        "JUPYTER_PATH": _before("JUPYTER_PATH", _own_kernel(staging)),
        # The project's own packages, also where the environment was made for another copy of it.
        "PYTHONPATH": _before("PYTHONPATH", paths.ROOT / "lib"),
    }
    terminal = Path(f"/proc/{os.getpid()}/fd/2")
    if terminal.exists() and paths.PROGRESS_VARIABLE not in os.environ:
        variables[paths.PROGRESS_VARIABLE] = str(terminal)
    # papermill warns of kinds of parameters that it does not know; we check all parameters.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        with _environment(variables):
            execute = partial(
                papermill.execute_notebook,
                source,
                output,
                parameters=knobs,
                kernel_name="python3",
                cwd=paths.ROOT,
                progress_bar=sys.stderr.isatty(),
                start_timeout=KERNEL_START_SECONDS,
                # The kernel warns of its own port, and logs an error when it is stopped.
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            )
            try:
                return execute()
            except DeadKernelError:
                raise
            except RuntimeError:
                # The kernel did not start, so no cell has run. Jupyter chooses ports before the
                # kernel takes them: of two that start at the same moment, one can lose its port.
                return execute()
    except PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt from None
        raise NotebookError(
            f"{source.relative_to(paths.ROOT)}: cell {error.cell_index} failed with "
            f"{error.ename}: {error.evalue}{_kept(output, failed / source.name)}.",
            error.ename,
        ) from None
    except DeadKernelError:
        raise NotebookError(
            f"{source.relative_to(paths.ROOT)}: its process was killed, maybe for want of memory: "
            "run it again, for finished units are kept."
        ) from None
    except RuntimeError as error:
        raise NotebookError(
            f"{source.relative_to(paths.ROOT)}: its kernel did not start in two attempts of "
            f"{KERNEL_START_SECONDS} seconds ({error}): is the machine overloaded?"
        ) from None


def _kept(output: Path, file: Path) -> str:
    """Keep a notebook that failed; says where, unless the disk is full."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(output, file)
    except OSError:
        return ""
    return f" (the notebook as far as it ran: {paths.shown(file)})"


def _before(variable: str, folder: Path) -> str:
    """The search path in ``variable`` with ``folder`` in front."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get(variable))))


def _own_kernel(staging: Path) -> Path:
    """A kernel ``python3`` that is this interpreter, whatever else is installed under the name."""
    folder = staging / "jupyter"
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def _record(
    needs: Needs, loaded: params.Params, folder: Path, knobs: dict[str, Any], seconds: float
) -> None:
    """Write ``provenance.json`` from what the notebook used and what its units say."""
    inputs = json.loads((folder / paths.USED).read_text(encoding="utf-8"))
    (folder / paths.USED).unlink()
    used = {**knobs, **inputs["shared"], "seed": loaded.seed, "device": loaded.device}
    code, units = needs.code.value, read_table(folder)
    record = provenance(seconds, used, inputs["data"], inputs["device"], code, units)
    text = json.dumps(record, indent=1) + "\n"
    (folder / "provenance.json").write_text(text, encoding="utf-8")


def _replace(folder: Path, target: Path) -> None:
    """Put ``folder`` where ``target`` was, whole at every moment."""
    part = files.part_of(target)
    files.delete(part)  # of a run that was killed
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, part)  # a copy, where the cache lies on another disk
    files.replace_folder(part, target)


def keep_small_units(target: Path) -> None:
    """Copy a paper result's small and dear units to where git keeps them; drop what it had before.

    Records of other notebooks stay, also of runs that have not ended yet. Where all take more than
    :data:`KEPT_IN_ALL` bytes, those with the least computing time per byte are dropped.
    """
    kept, own = paths.kept_units(), "/".join(target.parts[-2:])
    kept.mkdir(parents=True, exist_ok=True)
    for row in read_table(target):
        file, copy = unit_file(row["key"]), kept / f"{row['key']}.npz"
        largest = max(SMALL, DEAR * row["cpu_seconds"])
        if not copy.is_file() and file.is_file() and file.stat().st_size <= largest:
            with files.replacing(copy) as part:
                shutil.copyfile(file, part)
    folders = {table.parent for table in kept.parent.glob(f"*/*/{TABLE}")}
    seconds = {row["key"]: row["cpu_seconds"] for f in folders for row in read_table(f)}
    sizes = {file: file.stat().st_size for file in kept.glob("*.npz")}
    for file in sizes:
        if file.stem not in seconds:
            about = _about(file)
            if about.get("notebook", own) != own:
                seconds[file.stem] = about["cpu_seconds"]
    worth = {file: seconds.get(file.stem, -1.0) / size for file, size in sizes.items()}
    total = sum(sizes.values())
    for file in sorted(sizes, key=worth.__getitem__):
        if file.stem not in seconds or total > KEPT_IN_ALL:
            total -= sizes[file]
            file.unlink()


def _about(file: Path) -> dict[str, Any]:
    """What a record says of itself; nothing if it is damaged."""
    try:
        return read(file)[0]
    except RecordError:
        return {}


def strip_noise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs from run to run and from place to place.

    These are times, random cell ids and papermill's own records, and the path of the project's
    folder in printed warnings. Parameters are shown once, as they were given.
    """
    notebook.metadata.pop("papermill", None)
    tags = [set(cell.metadata.get("tags", ())) for cell in notebook.cells]
    if any("injected-parameters" in found for found in tags):
        shown = zip(notebook.cells, tags, strict=True)
        notebook.cells = [cell for cell, found in shown if "parameters" not in found]
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
    return reported(lambda: _run(options.notebook, options.profile))


def _run(name: str, profile: str) -> int:
    folder = run_notebook(name, profile)
    count, size = cache_size()
    print(
        f"results in {paths.shown(folder)}; {count} units of work in .cache take "
        f"{size / 1e6:.0f} MB (`make clean` removes them)"
    )
    return 0


def reported(command: Callable[[], int]) -> int:
    """The status of a command that runs notebooks; where it cannot end, one sentence says why."""
    try:
        return command()
    except (params.ParameterError, NotebookError, ReadingError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in DISK:
            raise
        where = error.filename or paths.ROOT
        print(
            f"error: {where} cannot be written ({error.strerror}): free the disk or make the "
            "folder writable; finished units are kept.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        # asyncio would report that the running cell failed by the interrupt.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        print("interrupted: finished units are kept, the next run goes on there.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
