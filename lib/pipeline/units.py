"""Units of work: one repeat of one setting, mapped over processes, each cached when done.

A killed run resumes where it stopped; a result does not depend on the backend.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import joblib
import numpy as np
from tqdm import tqdm

from lib.pipeline import paths
from lib.pipeline.params import Workers
from lib.pipeline.sources import fingerprint


def seed_sequence(seed: int, *key: str | int) -> np.random.SeedSequence:
    """A seed of its own for every (seed, paper, section, setting, repeat)."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return np.random.SeedSequence([seed, *np.frombuffer(digest[:16], dtype=np.uint32).tolist()])


def map_units(
    function: Callable[..., Any],
    units: Sequence[dict[str, Any]],
    workers: Workers,
    label: str,
) -> list[Any]:
    """``[function(**unit) for unit in units]``, in order, in parallel, cached and with a bar.

    ``function`` must be deterministic in its arguments and its code
    (:func:`lib.pipeline.sources.fingerprint`); its result is kept under ``.cache/units`` and read
    back while neither changes.
    """
    run = joblib.Memory(paths.unit_cache(), verbose=0).cache(_run_unit, ignore=["function", "unit"])
    code = fingerprint(function)
    keys = [joblib.hash((code, unit)) for unit in units]
    with _backend(workers) as options, progress_stream() as stream:
        # Unordered, so that the bar moves when any unit is done. One by one, for joblib would
        # bundle minutes of work with units that are only read back.
        finished = joblib.Parallel(return_as="generator_unordered", batch_size=1, **options)(
            joblib.delayed(_numbered)(number, run, key, function, unit)
            for number, (key, unit) in enumerate(zip(keys, units, strict=True))
        )
        bar = tqdm(finished, total=len(units), desc=label, file=stream, leave=False)
        return [result for _, result in sorted(bar, key=lambda pair: pair[0])]


def _numbered(number: int, run: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
    return number, run(*arguments)


def _run_unit(key: str, function: Callable[..., Any], unit: dict[str, Any]) -> Any:
    return function(**unit)


@contextmanager
def _backend(workers: Workers) -> Iterator[dict[str, Any]]:
    if workers.backend == "serial" or (workers.backend == "loky" and workers.jobs == 1):
        yield {"n_jobs": 1}
    elif workers.backend == "loky":
        with joblib.parallel_config("loky", n_jobs=workers.jobs, inner_max_num_threads=1):
            yield {}
    else:
        from distributed import Client, LocalCluster  # two seconds to import

        cluster = workers.scheduler or LocalCluster(
            n_workers=workers.jobs, threads_per_worker=1, dashboard_address=None
        )
        with Client(cluster, set_as_default=True), joblib.parallel_config("dask"):
            yield {}
        if workers.scheduler is None:
            cluster.close()


@contextmanager
def progress_stream() -> Iterator[TextIO]:
    """Where bars are drawn: the terminal that started the run, never a notebook's outputs."""
    target = os.environ.get(paths.PROGRESS_VARIABLE)
    if target is None:
        yield sys.stderr
        return
    try:
        with Path(target).open("a") as stream:
            yield stream
    except OSError:  # the terminal is gone; the work goes on
        with Path(os.devnull).open("w") as stream:
            yield stream
