"""Units of work: filed once, resumed, the same on every backend, gone with their notebook."""

import builtins
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from poisoning.learners import SVM
from replication import conventions, paths, provenance, records, units
from replication.live import Coder
from replication.params import Workers
from replication.records import RecordError
from replication.units import Units


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "units"))
    monkeypatch.setenv(paths.PROGRESS_VARIABLE, os.devnull)
    monkeypatch.setattr(paths, "kept_units", lambda: tmp_path / "kept")
    return tmp_path


def workers(backend="serial", jobs=2):
    return Workers(backend=backend, jobs=jobs, scheduler=None)


def mapped(function, calls, backend="serial", label="units"):
    made = Units("koh2021/kkt", workers(backend))
    return made.map(function, calls, label), made


def draw(seed, log):
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{seed}\n")
    return np.random.default_rng(seed).normal(size=3)


def fitted(rng, n):
    """What a repeat does: draws, factorises, solves by compiled code."""
    X = rng.normal(size=(n, 20))
    y = np.where(X[:, 0] + rng.normal(size=n) > 0.0, 1, -1)
    model = SVM(0.01).fit(X, y)
    return {"singular": np.linalg.svd(X)[1], "w": model.coef_, "scores": X @ model.coef_.ravel()}


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "jobs"), [("loky", 2), ("dask", 2)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_neither_backend_nor_order_changes_a_bit(backend, jobs, own_cache, monkeypatch):
    calls = [{"rng": conventions.generator(1, "toy", i), "n": 100 + i} for i in range(6)]
    serial, _ = mapped(fitted, calls)
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(own_cache / backend))
    made = Units("koh2021/kkt", workers(backend, jobs))
    order = [3, 0, 5, 1, 4, 2]
    found = made.map(fitted, [calls[i] for i in order], "units")
    for i, result in zip(order, found, strict=True):
        assert records.compare(serial[i], result).equal


def drawn_on(rng, scale):
    return scale * rng.normal(size=2)


def test_units_that_share_a_generator_each_start_from_its_state(own_cache):
    rng = np.random.default_rng(0)
    results, _ = mapped(drawn_on, [{"rng": rng, "scale": float(s)} for s in range(1, 4)])
    for scale, result in enumerate(results, start=1):
        np.testing.assert_array_equal(result, scale * np.random.default_rng(0).normal(size=2))
    np.testing.assert_array_equal(rng.normal(size=2), np.random.default_rng(0).normal(size=2))


def test_a_finished_unit_is_not_run_again(own_cache):
    log = str(own_cache / "log")
    mapped(draw, [{"seed": s, "log": log} for s in range(3)])
    results, _ = mapped(draw, [{"seed": s, "log": log} for s in range(5)])
    assert sorted(map(int, Path(log).read_text().split())) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(results[1], np.random.default_rng(1).normal(size=3))


def test_a_unit_is_run_again_when_the_solvers_change(own_cache, monkeypatch):
    log = str(own_cache / "log")
    mapped(draw, [{"seed": 1, "log": log}])
    monkeypatch.setattr(Coder, "fingerprint", lambda self, thing: "other code")
    mapped(draw, [{"seed": 1, "log": log}])
    assert Path(log).read_text().split() == ["1", "1"]


def test_a_record_says_what_was_computed_by_which_code_and_where(own_cache):
    _, made = mapped(draw, [{"seed": 7, "log": str(own_cache / "log")}], label="draws")
    (row,) = made.rows
    about, _ = records.read(units.unit_file(row["key"]))
    assert about["function"] == "draw"
    assert about["notebook"] == "koh2021/kkt"
    assert len(about["commit"]) == 40
    assert about["dirty"] in (True, False)
    assert about["cpu_seconds"] >= 0.0
    assert about["versions"]["numpy"] == np.__version__
    assert about["adopted"] is None
    assert (row["label"], row["index"]) == ("draws", 0)


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "VERSIONS", ("numpy", "no-such-package"))
    versions = provenance.machine.__wrapped__()["versions"]
    assert versions == {"numpy": np.__version__, "no-such-package": None}


def test_units_that_git_keeps_are_read_like_those_of_the_cache(own_cache):
    log = str(own_cache / "log")
    _, made = mapped(draw, [{"seed": 1, "log": log}])
    key = made.rows[0]["key"]
    (own_cache / "kept").mkdir()
    units.unit_file(key).rename(own_cache / "kept" / f"{key}.npz")
    mapped(draw, [{"seed": 1, "log": log}])
    assert Path(log).read_text().split() == ["1"]


def test_a_damaged_record_is_computed_again(own_cache):
    log = str(own_cache / "log")
    _, made = mapped(draw, [{"seed": 1, "log": log}])
    units.unit_file(made.rows[0]["key"]).write_bytes(b"half a rec")
    results, _ = mapped(draw, [{"seed": 1, "log": log}])
    np.testing.assert_array_equal(results[0], np.random.default_rng(1).normal(size=3))
    assert Path(log).read_text().split() == ["1", "1"]


def test_a_record_is_deleted_only_where_it_is_damaged_and_git_does_not_keep_it(
    own_cache, monkeypatch
):
    log = str(own_cache / "log")
    _, made = mapped(draw, [{"seed": 1, "log": log}])
    key = made.rows[0]["key"]
    (own_cache / "kept").mkdir()
    kept = own_cache / "kept" / f"{key}.npz"
    units.unit_file(key).unlink()
    kept.write_bytes(b"half a rec")
    assert units.find(key) is None
    assert kept.read_bytes() == b"half a rec"
    records.write(units.unit_file(key), {"key": key}, OtherCode(1.0))
    with monkeypatch.context() as patch:
        patch.delattr(sys.modules[__name__], "OtherCode")
        assert units.find(key) is None
    assert units.find(key)[1] == OtherCode(1.0)


@pytest.mark.parametrize(
    "fault", [OSError(errno.EMFILE, "Too many open files"), PermissionError(errno.EACCES, "no"),
              MemoryError()],
)  # fmt: skip
def test_a_fault_of_the_system_costs_no_finished_unit(fault, own_cache, monkeypatch):
    log = str(own_cache / "log")
    _, made = mapped(draw, [{"seed": 1, "log": log}])
    file = units.unit_file(made.rows[0]["key"])
    before = file.read_bytes()

    def fails(*_, **__):
        raise fault

    with monkeypatch.context() as patch, pytest.raises(type(fault)):
        patch.setattr(records.zipfile, "ZipFile", fails)
        units.find(file.stem)
    with monkeypatch.context() as patch, pytest.raises(type(fault)):
        patch.setattr(records, "unpack", fails)
        units.find(file.stem)
    assert file.read_bytes() == before
    mapped(draw, [{"seed": 1, "log": log}])
    assert Path(log).read_text().split() == ["1"]


@pytest.mark.parametrize("fault", ["raise ValueError", "1 +", "{}['k']"])
def test_a_module_that_cannot_be_imported_costs_no_finished_unit(fault, own_cache, monkeypatch):
    monkeypatch.syspath_prepend(str(own_cache))
    monkeypatch.setattr(records, "_SOURCES", own_cache)
    (own_cache / "own_result.py").write_text(fault)
    file = units.unit_file("0" * 32)
    with monkeypatch.context() as patch:
        patch.setattr(OtherCode, "__module__", "own_result")
        records.write(file, {"key": file.stem}, OtherCode(1.0))
    before = file.read_bytes()
    assert units.find(file.stem) is None
    assert file.read_bytes() == before


@dataclass
class OtherCode:
    scale: float


@dataclass
class Setting:
    scale: float

    def of(self, x):
        return self.scale * x


def scaled(setting, x):
    return OFFSET + setting.of(x)


OFFSET = 1.0


def test_constants_beside_a_unit_and_methods_of_its_arguments_are_part_of_it(monkeypatch):
    call = {"setting": Setting(2.0), "x": 3.0}
    digest, code = Coder().identify(scaled, call)
    assert Coder().identify(scaled, call) == (digest, code)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "OFFSET", 2.0)
        assert Coder().identify(scaled, call) != (digest, code)
    assert Coder().identify(scaled, {"setting": 2.0, "x": 3.0})[1] != code


def with_locals(x):
    OFFSET = x
    STREAM = [OFFSET + 1 for OFFSET in range(3)]
    return OFFSET, STREAM


def test_locals_that_share_a_name_with_something_beside_a_unit_are_no_part_of_it(monkeypatch):
    before = Coder().identify(with_locals, {"x": 1})
    monkeypatch.setattr(sys.modules[__name__], "OFFSET", 5.0)
    assert Coder().identify(with_locals, {"x": 1}) == before


def test_functions_given_as_arguments_count_by_their_code():
    one = Coder().identify(apply, {"f": lambda x: 2 * x})
    same = Coder().identify(apply, {"f": lambda x: 2 * x})
    other = Coder().identify(apply, {"f": lambda x: 3 * x})
    assert one == same != other
    assert Coder().identify(apply, {"f": conventions.rounded})[0] != one[0]


def apply(f):
    return f(1.0)


def test_a_unit_that_reads_what_has_no_digest_is_told_to_take_it_as_an_argument():
    with pytest.raises(RecordError, match="reads STREAM, a TextIOWrapper beside it: pass it"):
        mapped(reads_a_stream, [{"x": 1}])


STREAM = sys.__stdout__


def reads_a_stream(x):
    return STREAM, x


def test_a_result_that_cannot_be_kept_is_named():
    with pytest.raises(RecordError, match="object cannot be kept"):
        mapped(an_object, [{"x": 1}])


def an_object(x):
    return object()


SCRIPT = """
import os, sys, time
from pathlib import Path
from replication.params import Workers
from replication.units import Units

def work(i, log, second):
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{{i}} {{os.getpid()}}\\n")
    if i == 3 and not os.path.exists(second):
        time.sleep(60)
    return i * i

if __name__ == "__main__":
    workers = Workers(backend="{backend}", jobs=2, scheduler=None)
    calls = [dict(i=i, log={log!r}, second={second!r}) for i in range(5)]
    print(Units("koh2021/kkt", workers).map(work, calls, "w"))
"""


def start(own_cache, backend):
    log, second = own_cache / "log", own_cache / "second"
    module = own_cache / "slowly.py"
    text = SCRIPT.format(backend=backend, log=str(log), second=str(second))
    module.write_text(textwrap.dedent(text), encoding="utf-8")
    command = [sys.executable, str(module)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (log.exists() and "3" in [line.split()[0] for line in log.read_text().splitlines()]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return command, process, log, second


@pytest.mark.slow
def test_a_killed_run_resumes_where_it_stopped(own_cache):
    command, process, log, second = start(own_cache, "serial")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    second.touch()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0, 1, 4, 9, 16]"
    assert [line.split()[0] for line in log.read_text().splitlines()] == list("012334")


@pytest.mark.slow
def test_workers_do_not_outlive_the_process_that_asked(own_cache):
    _, process, log, _ = start(own_cache, "loky")
    pids = {int(line.split()[1]) for line in log.read_text().splitlines()} - {process.pid}
    assert pids
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 15
    while any(map(psutil.pid_exists, pids)):
        assert time.monotonic() < deadline, "a worker computes on for nobody"
        time.sleep(0.2)


STARTING = """
import os, signal, sys
from joblib.externals.loky.backend import popen_loky_posix

launch = popen_loky_posix.Popen._launch


def killed(self, process):
    launch(self, process)
    print(self.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


popen_loky_posix.Popen._launch = killed
from replication.params import Workers
from replication.units import Units


def work(x):
    return x


if __name__ == "__main__":
    workers = Workers(backend="loky", jobs=2, scheduler=None)
    Units("koh2021/kkt", workers).map(work, [{"x": 1}, {"x": 2}], "w")
"""


@pytest.mark.slow
def test_a_worker_that_is_starting_ends_with_the_process_that_asked(own_cache):
    script = own_cache / "starting.py"
    script.write_text(STARTING, encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    worker = int(done.stdout)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(worker):
        assert time.monotonic() < deadline, "a worker waits for nobody"
        time.sleep(0.2)


def test_without_semaphores_units_run_one_by_one_and_that_is_said_once(monkeypatch, own_cache):
    import multiprocessing

    class Without:
        def Semaphore(self, value):
            raise OSError(38, "Function not implemented")

    assert units._has_semaphores()
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind=None: Without())
    monkeypatch.setenv(paths.PROGRESS_VARIABLE, str(own_cache / "log.txt"))
    assert mapped(divide, [{"a": 4, "b": 2}], "loky")[0] == [2]
    assert (own_cache / "log.txt").read_text().count("no semaphores here") == 1


def test_an_error_in_a_unit_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        mapped(divide, [{"a": 1, "b": 0}])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_local_cluster_is_closed_when_a_unit_raises():
    from distributed import LocalCluster

    before = set(LocalCluster._instances)
    with pytest.raises(ZeroDivisionError):
        mapped(divide, [{"a": 1, "b": 0}], "dask")
    left = [c for c in LocalCluster._instances if c not in before and c.status.name == "running"]
    assert left == []


def divide(a, b):
    return a / b


def test_seeds_differ_by_setting_and_repeat_and_stay_the_same():
    def first(*key):
        return conventions.seed_sequence(*key).generate_state(4).tolist()

    assert first(1, "koh2021", "kkt", 0) == first(1, "koh2021", "kkt", 0)
    others = [(1, "koh2021", "kkt", 1), (2, "koh2021", "kkt", 0), (1, "koh2021", "kk", "t0")]
    assert all(first(*key) != first(1, "koh2021", "kkt", 0) for key in others)


def test_a_terminal_that_is_gone_does_not_stop_the_work(monkeypatch, own_cache):
    monkeypatch.setenv(paths.PROGRESS_VARIABLE, str(own_cache / "no" / "terminal"))
    assert mapped(divide, [{"a": 4, "b": 2}])[0] == [2]


@pytest.mark.parametrize("error", [FileNotFoundError, TimeoutError, BrokenPipeError])
def test_what_a_unit_raises_is_what_is_raised(error, monkeypatch, own_cache):
    monkeypatch.setenv(paths.PROGRESS_VARIABLE, str(own_cache / "log.txt"))
    with pytest.raises(error, match="of the unit"):
        mapped(fail, [{"error": error.__name__}])


def fail(error):
    raise getattr(builtins, error)("of the unit")


def test_a_log_that_cannot_be_written_any_more_does_not_stop_the_work(monkeypatch):
    from replication import progress

    monkeypatch.setenv(paths.PROGRESS_VARIABLE, "/dev/full")
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    assert list(progress.track(range(3), 3, "attacks")) == [0, 1, 2]


def test_what_a_notebook_changes_between_two_calls_is_seen(own_cache, monkeypatch):
    """An array changed in place, and a constant beside the unit's function."""
    made = Units("koh2021/kkt", workers())
    given = np.ones(3)
    assert made.map(total, [{"values": given}], "sums") == [3.0]
    given[0] = 5.0
    assert made.map(total, [{"values": given}], "sums") == [7.0]
    monkeypatch.setitem(globals(), "TIMES", 2.0)
    assert made.map(total, [{"values": given}], "sums") == [14.0]


TIMES = 1.0


def total(values):
    return TIMES * float(values.sum())


def test_a_log_gets_a_line_a_minute_and_no_bars(monkeypatch, own_cache):
    from replication import progress

    log = own_cache / "log.txt"
    monkeypatch.setenv(paths.PROGRESS_VARIABLE, str(log))
    clock = iter(range(0, 100_000, 7))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    assert list(progress.track(range(40), 40, "attacks")) == list(range(40))
    lines = log.read_text().splitlines()
    assert 3 <= len(lines) <= 5
    assert lines[0].startswith("attacks: ")
    assert all("\r" not in line for line in lines)
