"""Units on other machines: a scheduler and workers, each a process in a folder of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from replication import cluster, paths, records, units
from replication.cluster import ClusterError
from replication.params import Workers
from replication.units import Units

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Dask's own, of sockets that its faults leave open
]

# Functions of this file go by their code, as those of a notebook do: workers do not have the file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "units"))
    monkeypatch.setenv(paths.PROGRESS_VARIABLE, str(tmp_path / "progress"))
    return tmp_path


class Farm:
    """Processes on loopback, each in a checkout of its own, without data."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes = []

    def checkout(self, name):
        place = self.folder / name
        if not place.exists():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(paths.ROOT / "lib", place / "lib", ignore=ignore)
            shutil.copyfile(paths.PARAMS, place / "params.yaml")
        return place

    def start(self, name, *command):
        place = self.checkout(name)
        settings = os.environ | {"PYTHONPATH": str(place / "lib"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", *command, "--no-dashboard"]
        with (place / "log").open("a") as log:
            process = subprocess.Popen(command, cwd=place, env=settings, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def scheduler(self):
        options = ("--host", "127.0.0.1", "--port", str(self.port), "--no-jupyter")
        return self.start("scheduler", "distributed.cli.dask_scheduler", *options)

    def worker(self, name, threads=1):
        options = ("--nthreads", str(threads), "--no-nanny", "--death-timeout", "30")
        return self.start(name, "distributed.cli.dask_worker", self.address, *options)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


@contextmanager
def farm_in(folder, *workers):
    made = Farm(folder)
    try:
        made.scheduler()
        for name in workers:
            made.worker(name)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    with farm_in(tmp_path_factory.mktemp("farm"), "one", "two") as made:
        yield made


def on(address, function, calls, label="units"):
    workers = Workers(backend="serial", jobs=1, scheduler=address)  # the address is enough
    made = Units("koh2021/kkt", workers)
    return made.map(function, calls, label), made


def drawn(rng, X, number, log):
    with Path(log).open("a") as file:
        file.write(f"{number} {os.getpid()}\n")
    X[number] += rng.normal(size=X.shape[1])  # a unit's arguments are its own
    return {"sum": X.sum(axis=0), "first": X[0], "aliased": number}


def test_metrics_and_records_are_those_of_a_serial_run(farm, own_cache, monkeypatch):
    X = np.asfortranarray(np.random.default_rng(0).normal(size=(400, 100)))
    rng = np.random.default_rng(1)
    calls = [{"rng": rng, "X": X, "number": n, "log": str(own_cache / "log")} for n in range(6)]
    serial, _ = on(None, drawn, calls)
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(own_cache / "others"))
    from distributed import Client

    sent = []
    submit = Client.submit
    monkeypatch.setattr(
        Client,
        "submit",
        lambda self, function, *rest, **options: (
            sent.append((function is bytes, len(rest[0])))
            or submit(self, function, *rest, **options)
        ),
    )
    there, made = on(farm.address, drawn, calls)
    for one, other in zip(serial, there, strict=True):
        assert records.compare(one, other).equal
    arrays = [size for is_array, size in sent if is_array]
    messages = [size for is_array, size in sent if not is_array]
    assert len(arrays) == 1 and arrays[0] > X.nbytes  # once, for all six
    assert len(messages) == 6 and max(messages) < 10_000
    about, _ = records.read(units.unit_file(made.rows[0]["key"]))
    assert about["function"] == "drawn"
    assert about["versions"]["numpy"] == np.__version__
    assert about["cpu"] and about["cpu_seconds"] >= 0.0
    assert {row["label"] for row in made.rows} == {"units"} and len(made.rows) == 6
    pids = {line.split()[1] for line in (own_cache / "log").read_text().splitlines()}
    assert len(pids - {str(os.getpid())}) == 2  # both workers had a part


def fails(x):
    return 1 / x


def test_an_error_of_a_unit_reaches_the_caller_and_leaves_the_workers_free(farm):
    with pytest.raises(ZeroDivisionError):
        on(farm.address, fails, [{"x": 0.0}])
    assert on(farm.address, fails, [{"x": 2.0}])[0] == [0.5]


def slowly(number, log, hold):
    with Path(log).open("a") as file:
        file.write(f"{number} {os.getpid()}\n")
    while number == 2 and not Path(hold).exists():
        time.sleep(0.05)
    return number * number


def begun(log, number):
    """The process that began a unit, once one has."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines() if log.exists() else ():
            if line.split()[0] == str(number):
                return int(line.split()[1])
        time.sleep(0.05)
    raise AssertionError("the unit was never begun")


class Background(threading.Thread):
    """A run of six units, of which number 2 ends only when it is let."""

    def __init__(self, address, folder):
        super().__init__()
        self.log, self.hold = folder / "log", folder / "hold"
        self.address, self.found = address, None
        self.start()

    def run(self):
        calls = [{"number": n, "log": str(self.log), "hold": str(self.hold)} for n in range(6)]
        try:
            self.found = on(self.address, slowly, calls)[0]
        except Exception as error:
            self.found = error

    def ended(self):
        self.join(90)
        assert not self.is_alive(), "the run hangs"
        return self.found

    def times(self):
        return sorted(int(line.split()[0]) for line in self.log.read_text().splitlines())


def test_a_killed_worker_costs_its_unit_and_another_can_join(tmp_path, own_cache):
    with farm_in(tmp_path / "farm", "one") as made:
        run = Background(made.address, own_cache)
        worker = begun(run.log, 2)
        time.sleep(1)  # units 0 and 1 have arrived
        os.kill(worker, signal.SIGKILL)
        made.worker("late")
        run.hold.touch()
        assert run.ended() == [0, 1, 4, 9, 16, 25]
        assert run.times() == [0, 1, 2, 2, 3, 4, 5]


def test_a_scheduler_that_comes_back_gets_the_units_that_were_not_finished(tmp_path, own_cache):
    with farm_in(tmp_path / "farm", "one") as made:
        run = Background(made.address, own_cache)
        begun(run.log, 2)
        time.sleep(1)  # units 0 and 1 have arrived
        for process in made.processes:
            process.kill()
            process.wait()
        run.hold.touch()
        made.scheduler()
        made.worker("one")
        assert run.ended() == [0, 1, 4, 9, 16, 25]
        assert run.times() == [0, 1, 2, 2, 3, 4, 5]
    assert "the scheduler at tcp://127.0.0.1" in (own_cache / "progress").read_text()


def test_a_scheduler_that_stays_away_ends_the_run_in_a_sentence(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(cluster, "RETURNED", 3.0)
    with farm_in(tmp_path / "farm", "one") as made:
        run = Background(made.address, own_cache)
        begun(run.log, 2)
        made.stop()
        error = run.ended()
    assert isinstance(error, ClusterError)
    assert "finished units are kept" in str(error)


def test_without_a_scheduler_the_run_ends_in_a_sentence(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECTED", 2.0)
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        on("tcp://127.0.0.1:1", fails, [{"x": 1.0}])
    assert time.monotonic() - begun < cluster.CONNECTED + 5


@pytest.mark.parametrize("case", ["code", "threads"])
def test_a_worker_whose_numbers_could_differ_is_refused(case, tmp_path):
    with farm_in(tmp_path) as made:
        if case == "code":
            file = made.checkout("one") / "lib" / "poisoning" / "metrics.py"
            file.write_text(file.read_text().replace("0.975", "0.95"))
        made.worker("one", threads=2 if case == "threads" else 1)
        says = "has other code below lib" if case == "code" else "has several threads"
        with pytest.raises(ClusterError, match=f"the worker tcp://.* {says}"):
            on(made.address, fails, [{"x": 1.0}])
