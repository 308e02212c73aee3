"""How far a run has come: a bar on a terminal, a line a minute in a log."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

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
                print(
                    f"{label}: {done} of {total} after {minutes:.0f} min", file=target, flush=True
                )
            yield item


@contextmanager
def stream() -> Iterator[TextIO]:
    """Where progress is written: the terminal that started the run, never a notebook's outputs."""
    target = os.environ.get(paths.PROGRESS_VARIABLE)
    if target is None:
        yield sys.stderr
        return
    try:
        with Path(target).open("a", encoding="utf-8") as opened:
            yield opened
    except OSError:  # the terminal is gone; the work goes on
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            yield nowhere
