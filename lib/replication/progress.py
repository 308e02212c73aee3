"""How far a run has come: a bar on a terminal, a line a minute in a log."""

import io
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from replication import paths

LINE_EVERY = 60.0
"""Seconds between two lines in a log."""

T = TypeVar("T")


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """``items`` one by one, with reports to the terminal or the log that started the run."""
    with stream() as target:
        if target.isatty():
            yield from tqdm(items, total=total, desc=label, file=target, leave=False)
            return
        begun = told = time.monotonic()
        for done, item in enumerate(items, start=1):
            now = time.monotonic()
            if now - told >= LINE_EVERY:
                told = now
                minutes = (now - begun) / 60
                line = f"{label}: {done} of {total} after {minutes:.0f} min"
                print(line, file=target, flush=True)
            yield item


@contextmanager
def stream() -> Iterator[TextIO]:
    """Where progress is written: the terminal that started the run, never a notebook's outputs."""
    target = os.environ.get(paths.PROGRESS_VARIABLE)
    if target is None:
        yield sys.stderr
        return
    try:
        raw = _Lenient(target, "a")
    except OSError:
        raw = _Lenient(os.devnull, "a")
    with io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8") as log:
        yield log


class _Lenient(io.FileIO):
    """A file that may vanish, such as a terminal that is closed: the work goes on."""

    def write(self, text: Any) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)
