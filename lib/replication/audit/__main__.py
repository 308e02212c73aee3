"""How poisonable is a table? ``make audit DATA=table.csv LABEL=column``; ``docs/audit.md``."""

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import TextIO

import numpy as np
import psutil

from poisoning.errors import DataError
from replication import paths

MOST_MINUTES = 600.0
_ARGUMENTS = (
    ("DATA", "", "a file: CSV, TSV, Parquet, NPZ or SVMlight"),
    ("LABEL", "", "the column, or array, of classes"),
    ("MINUTES", "2", "the time for everything"),
    ("NAME", "", "the folder below audit/"),
    ("FEATURES", "auto", "auto, real, box or counts"),
    ("CLASS", "", "the class that is set against all others"),
)
_NAME_BYTES = 240  # file systems take 255, and the folder is written beside its place
_SEED = 0
_RESERVE = 0.1  # of the budget, for the report
_LINE_EVERY = 10.0  # seconds, where standard error is no terminal


def audit(data: str, label: str, minutes: str, name: str, told: str, against: str) -> Path:
    """The folder of the report on one table.

    Raises:
        DataError: an argument or the table is refused, in one sentence, before any computation; or
            the report cannot be written.
    """
    # These take seconds to import, which belong to the budget, and may be interrupted.
    from replication.audit import features, measuring, report, summary, tables

    budget = 60.0 * _minutes(minutes)
    ends = psutil.Process().create_time() + budget
    if not data:
        raise DataError("DATA: say which file to audit: make audit DATA=table.csv LABEL=column.")
    if told not in features.KINDS:
        raise DataError(f"FEATURES must be one of {', '.join(features.KINDS)}, not {told!r}.")
    path = Path(data)
    folder = paths.audit(_name(name) if name else re.sub(r"\W+", "-", path.stem)[:100])
    label = _label(label, path)
    problem = features.prepare(
        tables.read(path, label, np.random.default_rng(_SEED)), told, against or None
    )
    progress = Progress(sys.stderr, ends)
    left = ends - _RESERVE * budget - time.time()
    findings = measuring.measure(problem, left, progress.tell, _SEED)
    progress.tell("writing the report")
    about = {
        "name": folder.name,
        "file": os.fsencode(path.name).decode("utf-8", "replace"),  # names may be any bytes
        "label": label,
        "minutes": float(minutes),
        "seed": _SEED,
    }
    report.write(folder, about | summary.summarise(problem, findings))
    progress.clear()
    return folder


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = np.nan
    if not 0.0 < minutes <= MOST_MINUTES:
        raise DataError(
            f"MINUTES must be a number above 0, at most {MOST_MINUTES:g}, not {text!r}."
        )
    return minutes


def _name(name: str) -> str:
    if not re.fullmatch(r"[\w][\w.-]{0,99}", name) or len(os.fsencode(name)) > _NAME_BYTES:
        raise DataError(
            "NAME must be letters, digits, '.', '-' and '_', at most 100 of them, not "
            f"{name[:40]!r}: give one by NAME=."
        )
    return name


def _label(label: str, path: Path) -> str:
    """Files of SVMlight have no name for their labels, NPZ have y where nothing is said."""
    named = path.suffix.lower() in (".csv", ".tsv", ".parquet")
    if named and not label:
        raise DataError("LABEL: say which column holds the classes: LABEL=column.")
    return label or "y"


class Progress:
    """What is being done and how much time is left: one line on a terminal, else now and then."""

    def __init__(self, stream: TextIO, ends: float) -> None:
        self._stream, self._ends, self._told = stream, ends, -np.inf
        self._terminal = stream.isatty()

    def tell(self, what: str) -> None:
        """Say that ``what`` is being done."""
        now = time.time()
        if self._terminal or now - self._told >= _LINE_EVERY:
            line = f"{max(0.0, self._ends - now):4.0f} s left: {what}"
            self._stream.write(f"\r\033[K{line[:79]}" if self._terminal else f"{line}\n")
            self._stream.flush()
            self._told = now

    def clear(self) -> None:
        """Leave the terminal's line to others."""
        if self._terminal:
            self._stream.write("\r\033[K")


def main() -> int:
    """Audit one table; 1 and one sentence if that is refused."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default, about in _ARGUMENTS:
        parser.add_argument(f"--{name}", default=default, help=about)
    given = parser.parse_args()
    try:
        folder = audit(
            given.DATA, given.LABEL, given.MINUTES, given.NAME, given.FEATURES, given.CLASS
        )
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted before anything was measured: there is no report.", file=sys.stderr)
        return 130
    for file in ("report.html", "report.json"):
        print(paths.shown(folder / file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
