"""Units of work on a Dask cluster: the overhead of a unit, and how busy workers are kept.

Scheduler and workers are processes of this machine. A unit waits for a given time and computes
nothing, so that no worker needs a core of its own: measured is how soon it has its next unit, not
how fast cores are. Every unit holds the same array of 8 MB. The efficiency is the time that workers
spent in units, divided by the time from the first result to the last.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle
import numpy as np
from tqdm import tqdm

from replication import cluster, paths
from replication.cluster import results
from replication.params import Workers

NAME = "replication.dask"
WORKERS = (1, 2, 4)
LENGTHS = {0.0: 60, 0.1: 40, 1.0: 6, 10.0: 3}
"""Seconds of a unit, and how many each worker gets."""


def run(bar: tqdm) -> dict[str, Any]:
    """Seconds a unit with nothing to do, and the efficiency by workers and length of a unit."""
    bar.reset(total=len(WORKERS) * len(LENGTHS))
    # By its code, so that workers need not import all that is benchmarked.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    array = np.random.default_rng(0).normal(size=1_000_000)
    overhead, efficiency = {}, {}
    for workers in WORKERS:
        with _cluster(workers) as settings:
            list(results([_unit(0.0, array)] * (4 * workers), settings))  # imports
            for length, each in LENGTHS.items():
                rate = _rate([_unit(length, array)] * (each * workers), workers, settings)
                if length == 0.0:
                    overhead[str(workers)] = 1.0 / rate
                else:
                    busy = rate * length / workers
                    efficiency.setdefault(f"{length:g}", {})[str(workers)] = busy
                bar.update()
    return {
        "data": "units that wait, each with an array of 8 MB that is sent once",
        "ours_s": overhead["1"],
        "overhead_s": overhead,
        "efficiency": efficiency,
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "n": sum(LENGTHS.values()),
        "spread": None,
        "agreement": None,
    }


def summary(record: dict[str, Any]) -> str:
    """One line for a reader."""
    parts = [
        f"{length} s: " + ", ".join(f"{busy:.1%} of {n}" for n, busy in found.items())
        for length, found in record["efficiency"].items()
    ]
    return f"{1e3 * record['ours_s']:.0f} ms a unit; workers busy at units of {'; '.join(parts)}"


def waits(seconds: float, array: np.ndarray) -> int:
    """A unit that takes so long; what it is given it has to have received."""
    time.sleep(seconds)
    return array.size


def _unit(seconds: float, array: np.ndarray) -> cluster.Call:
    return waits, (seconds, array), {}


def _rate(calls: list[cluster.Call], workers: int, settings: Workers) -> float:
    """Units a second, from the first result to the last.

    With the first result the other workers have as good as finished their first units too: these
    do not count.
    """
    done = []
    for size in results(calls, settings):
        assert size == calls[0][1][1].size
        done.append(time.perf_counter())
    return (len(done) - workers) / (done[-1] - done[0])


@contextmanager
def _cluster(workers: int) -> Iterator[Workers]:
    """A scheduler and so many workers, each a process with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        processes = []

        def start(*command: str) -> None:
            path = os.pathsep.join((str(paths.ROOT / "lib"), str(paths.ROOT)))
            environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
            whole = [sys.executable, "-m", *command, "--no-dashboard"]
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            processes.append(subprocess.Popen(whole, cwd=folder, env=environment, **silent))

        address = f"tcp://127.0.0.1:{_free_port()}"
        try:
            start("distributed.cli.dask_scheduler", "--host", address, "--no-jupyter")
            for _ in range(workers):
                start("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny")
            _wait_for(workers, address)
            yield Workers(backend="dask", jobs=1, scheduler=address)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait_for(workers: int, address: str) -> None:
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=120)
