import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from lib.pipeline import paths, units
from lib.pipeline.params import Workers


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "units"))
    monkeypatch.setenv(paths.PROGRESS_VARIABLE, os.devnull)
    return tmp_path


def workers(backend, jobs=2):
    return Workers(backend=backend, jobs=jobs, scheduler=None)


def draw(seed, log):
    with Path(log).open("a") as file:
        file.write(f"{seed}\n")
    return np.random.default_rng(seed).normal(size=3)


@pytest.mark.parametrize("backend", ["serial", "loky", "dask"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_results_come_in_order_and_do_not_depend_on_the_backend(backend, own_cache):
    log = str(own_cache / "log")
    results = units.map_units(
        draw, [{"seed": s, "log": log} for s in range(5)], workers(backend), "draws"
    )
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(result, np.random.default_rng(seed).normal(size=3))


def test_a_finished_unit_is_not_run_again(own_cache):
    log = str(own_cache / "log")
    first = [{"seed": s, "log": log} for s in range(3)]
    units.map_units(draw, first, workers("serial"), "draws")
    more = [{"seed": s, "log": log} for s in range(5)]
    units.map_units(draw, more, workers("serial"), "draws")
    assert sorted(map(int, Path(log).read_text().split())) == [0, 1, 2, 3, 4]


def test_a_unit_is_run_again_when_the_solvers_change(own_cache, monkeypatch):
    log = str(own_cache / "log")
    units.map_units(draw, [{"seed": 1, "log": log}], workers("serial"), "draws")
    monkeypatch.setattr(units, "fingerprint", lambda function: "other code")
    units.map_units(draw, [{"seed": 1, "log": log}], workers("serial"), "draws")
    assert Path(log).read_text().split() == ["1", "1"]


def test_a_killed_run_resumes_where_it_stopped(own_cache):
    log = own_cache / "log"
    module = own_cache / "slowly.py"
    module.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            from lib.pipeline.params import Workers
            from lib.pipeline.units import map_units

            def work(i, pause):
                with open({str(log)!r}, "a") as file:
                    file.write(f"{{i}}\\n")
                if i == 3 and not __import__("os").path.exists({str(own_cache / "second")!r}):
                    time.sleep(60)
                return i * i

            if __name__ == "__main__":
                workers = Workers(backend="serial", jobs=1, scheduler=None)
                print(map_units(work, [dict(i=i, pause=0) for i in range(5)], workers, "w"))
            """
        )
    )
    command = [sys.executable, str(module)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().split()[-1:] == ["3"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (own_cache / "second").touch()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0, 1, 4, 9, 16]"
    assert log.read_text().split() == ["0", "1", "2", "3", "3", "4"]


def test_an_error_in_a_unit_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        units.map_units(divide, [{"a": 1, "b": 0}], workers("serial"), "divisions")


def divide(a, b):
    return a / b


def test_seeds_differ_by_setting_and_repeat_and_stay_the_same():
    def first(*key):
        return units.seed_sequence(*key).generate_state(4).tolist()

    assert first(1, "koh2021", "kkt", 0) == first(1, "koh2021", "kkt", 0)
    others = [(1, "koh2021", "kkt", 1), (2, "koh2021", "kkt", 0), (1, "koh2021", "kk", "t0")]
    assert all(first(*key) != first(1, "koh2021", "kkt", 0) for key in others)


def test_a_terminal_that_is_gone_does_not_stop_the_work(monkeypatch, own_cache):
    monkeypatch.setenv(paths.PROGRESS_VARIABLE, str(own_cache / "no" / "terminal"))
    assert units.map_units(divide, [{"a": 4, "b": 2}], workers("serial"), "divisions") == [2]
