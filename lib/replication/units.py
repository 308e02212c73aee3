"""Units of work: one repeat of one setting, mapped over processes, each kept as a record.

A record says what was computed, by which code, on which machine and in how many CPU seconds. It
is filed under the fingerprint of the unit's function and the digest of its arguments, so that a
killed run resumes where it stopped and a result does not depend on the backend.
"""

import copy
import csv
import json
import multiprocessing
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import joblib

from replication import cluster, paths, records
from replication.digests import digest
from replication.live import Coder
from replication.params import Workers
from replication.progress import stream, track
from replication.provenance import machine, tree_state
from replication.reading import ReadingError

SMALL = 200_000
"""Bytes of a record up to which git keeps it for the paper profile."""

DEAR = 3_000
"""The same for each CPU second that it took: an hour of computing may take 10 MB."""

KEPT_IN_ALL = 40_000_000
"""Bytes of all records that git keeps."""


KEY = re.compile(r"[0-9a-f]{32}")
"""The names of records."""

TABLE = "units.csv"
COLUMNS = (
    "label", "index", "key", "function", "fingerprint", "arguments", "commit", "dirty",
    "cpu_seconds", "cpu", "adopted",
)  # fmt: skip
"""The columns of ``units.csv``, which has one row for every unit of a notebook."""


@dataclass(frozen=True)
class Unit:
    """One call of a notebook: its place, the key that its record is filed under, and the call."""

    label: str
    index: int
    key: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    about: dict[str, Any] = field(repr=False)


class Units:
    """The units of one run of one notebook."""

    def __init__(self, notebook: str, workers: Workers) -> None:
        self.notebook = notebook
        self.workers = workers
        self.rows: list[dict[str, Any]] = []
        self._coder = Coder()
        self._labels: Counter[str] = Counter()
        self._state = tree_state()

    def map(
        self, function: Callable[..., Any], arguments: Sequence[dict[str, Any]], label: str
    ) -> list[Any]:
        """``[function(**a) for a in arguments]``, in order, in parallel, kept and with a bar.

        ``function`` must be deterministic in its arguments and its code, and return what
        :mod:`replication.records` can keep; a recorded result is read back while neither changes.

        Raises:
            RecordError: arguments without a digest, or a result that cannot be kept.
        """
        units = self._units(function, arguments, label)
        if paths.CHECK_VARIABLE in os.environ:
            from replication.checking import answer  # only runs that compare need it

            return answer(units, self)
        results: dict[int, Any] = {}
        for number, unit in enumerate(units):
            known = find(unit.key)
            if known is not None:
                about, results[number] = known
                self.note(unit, about)
        missing = [number for number in range(len(units)) if number not in results]
        for number, result in self.run(units, missing, label):
            results[number] = result
        return [results[number] for number in range(len(units))]

    def run(
        self, units: Sequence[Unit], which: Sequence[int], label: str, keep: bool = True
    ) -> Iterator[tuple[int, Any]]:
        """Compute the units with these numbers, in order of completion, and file each."""
        with _backend(self.workers) as (compute, own):
            calls = (
                joblib.delayed(_run)(
                    number, os.getpid(), units[number].function, own(units[number].arguments)
                )
                for number in which
            )
            with closing(compute(calls)) as done:
                for number, result, spent in track(done, len(which), label):
                    about = units[number].about | self._state | spent
                    if keep:
                        records.write(unit_file(units[number].key), about, result)
                        self.note(units[number], about)
                    yield number, result

    def note(self, unit: Unit, about: dict[str, Any]) -> None:
        """Add a unit to the rows of ``units.csv``."""
        place = {"label": unit.label, "index": unit.index, "key": unit.key}
        self.rows.append(place | {name: about[name] for name in COLUMNS if name not in place})

    def _units(
        self, function: Callable[..., Any], arguments: Sequence[dict[str, Any]], label: str
    ) -> list[Unit]:
        units = []
        self._coder.forget()
        for call in arguments:
            asked, code = self._coder.identify(function, call)
            key = digest([code, asked])
            about = {
                "key": key,
                "function": function.__qualname__,
                "notebook": self.notebook,
                "fingerprint": code,
                "arguments": asked,
                "adopted": None,
            }
            index = self._labels[label]
            self._labels[label] += 1
            units.append(Unit(label, index, key, function, call, about))
        return units


def write_table(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``units.csv``: a row for every unit, in the order of the notebook's calls."""
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in sorted(rows, key=lambda row: (row["label"], row["index"])):
            adopted = row["adopted"]
            writer.writerow(row | {"adopted": "" if adopted is None else json.dumps(adopted)})


def read_table(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``units.csv`` in a folder of results; none where there is no such file.

    Raises:
        ReadingError: the file was cut off, or is none.
    """
    if not (folder / TABLE).is_file():
        return []
    try:
        with (folder / TABLE).open(encoding="utf-8", newline="") as source:
            reader = csv.DictReader(source, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ValueError("other columns")
            return [_row(row) for row in reader]
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        raise ReadingError(
            f"{folder / TABLE} is no whole table of units ({error}): run the stage of "
            f"{folder.name}@{folder.parent.parent.name} again with `dvc repro --force`."
        ) from None


def _row(row: dict[str, str]) -> dict[str, Any]:
    if len(row) > len(COLUMNS) or None in row.values() or not KEY.fullmatch(row["key"]):
        raise ValueError("a row is not whole")
    return row | {
        "index": int(row["index"]),
        "dirty": {"True": True, "False": False}[row["dirty"]],
        "cpu_seconds": float(row["cpu_seconds"]),
        "adopted": json.loads(row["adopted"]) if row["adopted"] else None,
    }


def unit_file(key: str) -> Path:
    """Where the record of a unit is written."""
    return paths.unit_cache() / key[:2] / f"{key}.npz"


def places(key: str) -> tuple[Path, ...]:
    """Where a record may lie: what was computed here, and what git keeps."""
    return unit_file(key), paths.kept_units() / f"{key}.npz"


def find(key: str) -> tuple[dict[str, Any], Any] | None:
    """The record of a unit and its result; None where there is none, or it is damaged.

    Raises:
        OSError: the system does not give a file, which stays where it is.
        MemoryError: a result does not fit into memory.
    """
    for file in places(key):
        try:
            return records.read(file, find_class)
        except FileNotFoundError:
            continue
        except records.DamagedError:
            if file == unit_file(key):  # files that git keeps are not deleted
                file.unlink(missing_ok=True)
        except records.RecordError:
            continue  # written by other code, which may still use it
    return None


def find_class(name: str, module: str) -> type:
    """A class by its name, in the module where it lay or wherever it lies by now."""
    try:
        return records.load_class(name, module)
    except records.RecordError:
        homes = _homes(name, paths.ROOT)
        if len(homes) != 1:
            raise
        return records.load_class(name, homes[0])


@cache
def _homes(name: str, root: Path) -> list[str]:
    """The modules of the project that define a name; each search parses the project."""
    from replication.project import Project

    project = Project.of_tree(root)
    return [module for module in project.modules if name in project.table(module).definitions]


def cache_size() -> tuple[int, int]:
    """How many records lie in the cache, and their bytes."""
    sizes = [file.stat().st_size for file in paths.unit_cache().glob("*/*.npz")]
    return len(sizes), sum(sizes)


def _run(
    number: int, owner: int, function: Callable[..., Any], arguments: dict[str, Any]
) -> tuple[int, Any, dict[str, Any]]:
    """Compute one unit, in the process ``owner`` or in one of its workers."""
    _end_with(owner)
    begun = time.process_time()
    result = function(**arguments)
    spent = {"cpu_seconds": round(time.process_time() - begun, 3), **machine()}
    return number, result, spent


@cache
def _end_with(owner: int) -> None:
    """Stop a worker within seconds after the process ``owner`` of its notebook has ended."""
    if os.getpid() == owner or threading.current_thread() is not threading.main_thread():
        return

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_Compute = Callable[[Iterable[cluster.Call]], Generator[tuple[int, Any, dict[str, Any]]]]


@contextmanager
def _backend(workers: Workers) -> Iterator[tuple[_Compute, Callable[[Any], Any]]]:
    """What computes calls, in order of completion, and what makes a unit's arguments its own.

    Units may share a generator, and each starts from its present state: other processes get copies
    in any case.
    """
    if workers.scheduler is not None or workers.backend == "dask":
        yield partial(cluster.results, workers=workers), dict
        return
    if workers.backend == "loky" and workers.jobs > 1:
        if _has_semaphores():
            # A worker may still be starting, or wait for work, when its notebook is killed.
            watched = {"initializer": _end_with, "initargs": (os.getpid(),)}
            with joblib.parallel_config(
                "loky", n_jobs=workers.jobs, inner_max_num_threads=1, **watched
            ):
                yield joblib.Parallel(**_UNIT_BY_UNIT), dict
            return
        with stream() as target:
            print("no semaphores here (/dev/shm): units run one by one", file=target)
    yield joblib.Parallel(n_jobs=1, **_UNIT_BY_UNIT), copy.deepcopy


_UNIT_BY_UNIT: dict[str, Any] = {"return_as": "generator_unordered", "batch_size": 1}
"""joblib would bundle units of seconds with units of hours."""


def _has_semaphores() -> bool:
    """Whether the system has semaphores, which a container may lack."""
    try:
        multiprocessing.get_context("spawn").Semaphore(1)
    except (OSError, ImportError):
        return False
    return True
