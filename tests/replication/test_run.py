"""The runner on a toy notebook: whole results or none, one run at a time, nothing left behind."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from filelock import FileLock

from replication import paths, records, run, units
from replication.provenance import tree_state
from tests.replication.conftest import (
    COMPUTE,
    DRAW,
    FINISH,
    SETUP,
    call,
    git,
    surroundings,
    write_notebook,
)

pytestmark = pytest.mark.slow


def results(root, profile="demo"):
    return root / "results" / profile / "toy" / "one"


def test_a_run_leaves_the_executed_notebook_metrics_headline_units_and_provenance(inside):
    folder = run.run_notebook("toy/one", "demo")
    assert folder == results(inside)
    assert {path.name for path in folder.iterdir()} == {
        "one.ipynb", "metrics.json", "headline.json", "timings.json", "provenance.json",
        "units.csv", "figures", "tables", "timed",
    }  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    headline = json.loads((folder / "headline.json").read_text())
    assert headline == {
        "clean": metrics["toy.clean_error"]["value"], "attacked": 0.1, "paper": 0.5
    }  # fmt: skip
    executed = nbformat.read(folder / "one.ipynb", 4)
    shown = [cell for cell in executed.cells if "scale = 0.1" in cell.source]
    assert len(shown) == 1, "parameters are shown once, as they were given"
    assert "mean" in executed.cells[3].outputs[0].data["text/plain"]
    record = json.loads((folder / "provenance.json").read_text())
    assert record["parameters"] == {
        "profile": "demo", "scale": 0.1, "repeats": 2, "seed": 1, "device": "cpu"
    }  # fmt: skip
    assert record["seconds"] > 0
    assert record["units"] == 2
    assert record["units_commits"] == [record["commit"]]
    assert {"dirty", "cpu", "versions", "device", "data", "fingerprint"} <= set(record)
    rows = units.read_table(folder)
    assert [(row["label"], row["index"], row["function"]) for row in rows] == [
        ("draws", 0, "draw"), ("draws", 1, "draw")
    ]  # fmt: skip
    first = {name: (folder / name).read_bytes() for name in ("one.ipynb", "metrics.json")}
    assert str(inside).encode() not in first["one.ipynb"]
    # Again, from the records: the same bytes, and nothing computed.
    spent = [row["cpu_seconds"] for row in rows]
    run.run_notebook("toy/one", "demo")
    assert {name: (folder / name).read_bytes() for name in first} == first
    assert [row["cpu_seconds"] for row in units.read_table(folder)] == spent
    assert not [path for path in (inside / ".cache").iterdir() if path.name.startswith("run-")]


def test_more_repeats_compute_only_what_is_new(inside_with_results):
    before = {row["key"] for row in units.read_table(results(inside_with_results))}
    run.run_notebook("toy/one", "quick")
    after = [row["key"] for row in units.read_table(results(inside_with_results, "quick"))]
    assert len(after) == 3
    assert before < set(after)


def test_a_failed_cell_is_one_sentence_and_leaves_the_old_results(inside_with_results, capsys):
    inside = inside_with_results
    write_notebook(inside, cells=(SETUP, COMPUTE, "1 / 0", FINISH))
    assert run.main(["toy/one", "--profile", "demo"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "ZeroDivisionError: division by zero" in message
    assert "1 / 0" not in (results(inside) / "one.ipynb").read_text()
    assert (inside / ".cache/failed/demo/toy/one/one.ipynb").is_file()


@pytest.mark.parametrize(
    "knobs", ['profile = "demo"\nscale: "Fraction" = 0.1', 'profile = "demo"\nother: "Count" = 1']
)
def test_a_notebook_whose_parameters_are_not_its_knobs_is_refused(inside, knobs, capsys):
    write_notebook(inside, knobs=knobs)
    assert run.main(["toy/one", "--profile", "demo"]) == 1
    assert "toy.one." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["toy/nothing", "/toy/one", "../one", "", "toy/one/two"])
def test_an_unknown_notebook_is_one_sentence(inside, name, capsys):
    assert run.main([name, "--profile", "demo"]) == 1
    told = capsys.readouterr().err
    assert "there is no notebook" in told or "names no notebook" in told
    assert told.count("\n") == 1


def test_the_paper_profile_refuses_a_dirty_tree_and_keeps_small_units(inside, capsys, monkeypatch):
    module = inside / "lib" / "poisoning" / "errors.py"
    text = module.read_text()
    module.write_text(text + "\n# edited\n")
    assert run.main(["toy/one", "--profile", "paper"]) == 1
    assert "refuses a tree with uncommitted changes" in capsys.readouterr().err
    monkeypatch.setenv(run.ALLOW_DIRTY, "1")
    run.run_notebook("toy/one", "paper")
    record = json.loads((results(inside, "paper") / "provenance.json").read_text())
    assert record["dirty"] is True
    assert record["units_dirty"] == 4
    kept = list((inside / "results" / "paper" / "units").iterdir())
    assert len(kept) == 4
    # Who has no cache, a fresh clone, computes none of them again.
    monkeypatch.delenv(run.ALLOW_DIRTY)
    module.write_text(text)
    subprocess.run(["rm", "-r", str(inside / ".cache")], check=True)
    run.run_notebook("toy/one", "paper")
    rows = units.read_table(results(inside, "paper"))
    assert all(row["dirty"] for row in rows)
    assert not (inside / ".cache" / "units").exists()


@pytest.mark.parametrize("way", ["no git", "no repository", "no commit"])
def test_the_paper_profile_refuses_a_tree_whose_commit_git_cannot_tell(
    way, inside, capsys, monkeypatch
):
    if way == "no git":
        monkeypatch.setenv("PATH", str(inside / "nothing"))
    elif way == "no repository":
        (inside / ".git").rename(inside / "git")
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(inside.parent))
    else:
        shutil.rmtree(inside / ".git")
        git(inside, "init", "-q")
    assert tree_state() == {"commit": None, "dirty": True}
    monkeypatch.setattr(run, "_execute", lambda *_: pytest.fail("it was run"))
    assert run.main(["toy/one", "--profile", "paper"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: git cannot tell which commit")
    assert told.count("\n") == 1
    monkeypatch.setenv(run.ALLOW_DIRTY, "1")
    with pytest.raises(pytest.fail.Exception, match="it was run"):
        run.run_notebook("toy/one", "paper")


DEAR, MIDDLE, CHEAP, MINE, OTHERS = ("d" * 32, "b" * 32, "c" * 32, "a" * 32, "e" * 32)


def test_what_git_keeps_has_a_limit_and_what_is_dear_stays(inside, monkeypatch):
    folder = results(inside, "paper")
    folder.mkdir(parents=True)
    rows = ["label,index,key,function,fingerprint,arguments,commit,dirty,cpu_seconds,cpu,adopted"]
    for key, cpu_seconds in ((DEAR, 100.0), (CHEAP, 1.0), (MIDDLE, 10.0)):
        rows.append(f"draws,0,{key},draw,f,a,c,False,{cpu_seconds},cpu,")
        file = run.unit_file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 1000)
    (folder / "units.csv").write_text("\n".join(rows) + "\n")
    run.keep_small_units(folder)
    kept = inside / "results" / "paper" / "units"
    (kept / "nobodys.npz").write_bytes(b"x")
    for name, notebook in ((MINE, "toy/one"), (OTHERS, "toy/two")):
        about = {"notebook": notebook, "cpu_seconds": 50.0}
        records.write(kept / f"{name}.npz", about, np.random.default_rng(0).random(90))
    run.keep_small_units(folder)
    assert {file.stem for file in kept.iterdir()} == {DEAR, MIDDLE, CHEAP, OTHERS}
    monkeypatch.setattr(run, "KEPT_IN_ALL", 2500)
    run.keep_small_units(folder)
    assert {file.stem for file in kept.iterdir()} == {DEAR, OTHERS}


def test_knobs_and_results_do_not_make_a_tree_dirty(inside):
    text = (inside / "params.yaml").read_text()
    (inside / "params.yaml").write_text(text.replace("0.1 #", "0.2 #"))
    (inside / "results").mkdir(exist_ok=True)
    (inside / "results" / "new.json").touch()
    assert tree_state()["dirty"] is False
    (inside / "claims.yaml").touch()
    assert tree_state()["dirty"] is True


def command(*arguments):
    return [sys.executable, "-m", "replication.run", *arguments]


SLOW = """
import time
from pathlib import Path


def sleep(i):
    Path(f"started-{i}").touch()
    time.sleep(300)


notebook.map(sleep, {i: {"i": i} for i in range(2)}, "sleep")
"""


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_run_that_is_ended_leaves_no_results_and_nobody_computing(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(
        text.replace("serial", "loky").replace("jobs: 1", "jobs: 2")
    )
    write_notebook(project, cells=(SETUP, SLOW, FINISH))
    for kind in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        for started in project.glob("started-*"):
            started.unlink()
        process = subprocess.Popen(
            command("toy/one", "--profile", "demo"),
            cwd=project,
            env=surroundings(project),
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background job ignores SIGINT, and so does whatever it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_for(lambda: len(list(project.glob("started-*"))) == 2)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3
        process.send_signal(kind)
        _, told = process.communicate(timeout=30)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []
        assert not results(project).exists()
        if kind != signal.SIGKILL:  # which nobody can clear up after; the next run does
            assert not list((project / ".cache").glob("run-*"))
        if kind == signal.SIGINT:
            assert told.strip().splitlines()[-1].startswith("interrupted: finished units are kept")
    write_notebook(project)
    call(project, *command("toy/one", "--profile", "demo"))
    assert not list((project / ".cache").glob("run-*"))


def test_a_kernel_that_is_killed_is_one_sentence(inside, capsys):
    write_notebook(inside, cells=("import os\nos.kill(os.getpid(), 9)", FINISH))
    assert run.main(["toy/one", "--profile", "demo"]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: notebooks/toy/one.ipynb: its process was killed")


def test_working_folders_are_removed_once_their_process_has_ended(inside):
    cache = inside / ".cache"
    for name in ("run-killed", "run-elsewhere"):
        (cache / name).mkdir(parents=True)
    with FileLock(cache / "run-elsewhere" / run.LOCK), run.staging() as folder:
        assert {path.name for path in cache.glob("run-*")} == {"run-elsewhere", folder.name}
    with run.staging() as folder:
        assert list(cache.glob("run-*")) == [folder]
    assert not list(cache.glob("run-*"))


@pytest.fixture
def finished(inside):
    """Old results of the notebook, and a folder of new ones."""
    old, new = results(inside), inside / "new"
    for folder, text in ((old, "old"), (new, "new")):
        (folder / "figures").mkdir(parents=True)
        (folder / "metrics.json").write_text(text)
    return old, new


def test_a_run_that_fails_ends_what_it_started_and_nothing_else(inside):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleep) as before:
        with pytest.raises(KeyboardInterrupt), run.staging():
            during = subprocess.Popen(sleep)
            raise KeyboardInterrupt
        during.wait(timeout=5)
        assert before.poll() is None
        before.kill()


@pytest.mark.parametrize("owner, call", [(shutil, "move"), (shutil, "rmtree"), (Path, "replace")])
def test_results_are_replaced_whole_whenever_the_run_is_ended(finished, monkeypatch, owner, call):
    old, new = finished

    def ended(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, call, ended)
        run._replace(new, old)
    whole = "new" if call == "rmtree" else "old"  # what is removed is out of sight by then
    assert (old / "metrics.json").read_text() == whole
    assert (old / "figures").is_dir()


def test_units_that_git_keeps_are_copied_whole(inside, monkeypatch):
    folder = results(inside, "paper")
    folder.mkdir(parents=True)
    rows = "label,index,key,function,fingerprint,arguments,commit,dirty,cpu_seconds,cpu,adopted\n"
    (folder / "units.csv").write_text(rows + f"draws,0,{DEAR},draw,f,a,c,False,1.0,cpu,\n")
    file = run.unit_file(DEAR)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x" * 1000)

    def half(source, target):
        target.write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(shutil, "copyfile", half)
        run.keep_small_units(folder)
    assert list((inside / "results/paper/units").iterdir()) == []
    run.keep_small_units(folder)
    assert (inside / f"results/paper/units/{DEAR}.npz").read_bytes() == b"x" * 1000


def test_a_full_disk_is_one_sentence(inside, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "results/demo")

    monkeypatch.setattr(run, "run_notebook", full)
    assert run.main(["toy/one", "--profile", "demo"]) == 1
    assert capsys.readouterr().err == (
        "error: results/demo cannot be written (No space left on device): free the disk or make "
        "the folder writable; finished units are kept.\n"
    )


def test_a_notebook_that_does_not_end_its_results_is_told_how(inside, capsys):
    file = inside / "notebooks" / "toy" / "one.ipynb"
    text = file.read_text()
    assert "toy/one" in text
    file.write_text(text.replace("toy/one", "toy/two"))
    assert run.main(["toy/one", "--profile", "demo"]) == 1
    told = capsys.readouterr().err
    assert 'has not ended its results: make `notebook = Notebook("toy/one", profile)`' in told


def test_a_second_run_of_a_notebook_waits_for_the_first(project):
    pause = "import time\ntime.sleep(1)\n"
    write_notebook(project, cells=(SETUP, pause, COMPUTE, DRAW, FINISH))
    first, second = (
        subprocess.Popen(
            command("toy/one", "--profile", "demo"),
            cwd=project,
            env=surroundings(project),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    told = first.communicate()[1] + second.communicate()[1]
    assert (first.returncode, second.returncode) == (0, 0)
    assert told.count("another run of demo-toy/one is under way: waiting for it.") == 1
    assert (results(project) / "metrics.json").is_file()


def test_a_notebook_that_somebody_runs_writes_below_lab(project):
    """As JupyterLab does: in the notebook's folder, without the runner's variables."""
    call(project, "jupyter", "execute", "notebooks/toy/one.ipynb")
    lab = project / "results" / "lab" / "demo" / "toy" / "one"
    assert json.loads((lab / "headline.json").read_text())["attacked"] == 0.1
    assert not results(project).exists()
    assert git(project, "status", "--porcelain") == ""


def test_the_log_is_short_the_kernel_ours_and_the_commit_recorded(project, tmp_path):
    other = tmp_path / "elsewhere" / "kernels" / "python3"
    other.mkdir(parents=True)
    broken = {"argv": ["/bin/false"], "display_name": "Other", "language": "python"}
    (other / "kernel.json").write_text(json.dumps(broken))
    run_it = command("toy/one", "--profile", "demo")
    done = call(project, *run_it, JUPYTER_PATH=str(tmp_path / "elsewhere"))
    assert len(done.stderr) < 200
    assert "units of work in .cache take" in done.stdout
    record = json.loads((results(project) / "provenance.json").read_text())
    assert record["commit"] == git(project, "rev-parse", "HEAD").strip()
    assert record["dirty"] is False
    assert os.fspath(project) not in json.dumps(record)
    assert paths.RESULTS_VARIABLE not in os.environ


KERNELS_FAIL = """
import os, pathlib, sys

starts = pathlib.Path(__file__).with_name("starts")
if any("ipykernel" in word for word in sys.orig_argv):
    with starts.open("a") as file:
        file.write("x")
    if len(starts.read_text()) <= {failures}:
        os._exit(1)
"""


@pytest.mark.parametrize(("failures", "ends"), [(1, 0), (2, 1)])
def test_a_kernel_that_does_not_start_gets_a_second_attempt(project, failures, ends):
    folder = project / "elsewhere"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(KERNELS_FAIL.format(failures=failures))
    search = f"{folder}{os.pathsep}{project / 'lib'}"
    run_it = command("toy/one", "--profile", "demo")
    done = call(project, *run_it, check=False, PYTHONPATH=search)
    assert done.returncode == ends, done.stderr
    assert (folder / "starts").read_text() == "xx"
    assert results(project).exists() is not bool(ends)
    if ends:
        told = done.stderr.splitlines()[-1]
        assert told.startswith("error: notebooks/toy/one.ipynb: its kernel did not start")


def test_files_are_read_in_utf8_whatever_the_locale(project):
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text + "# λ and ε\n", encoding="utf-8")
    write_notebook(project, cells=(SETUP + '\nprint("λ")', COMPUTE, DRAW, FINISH))
    call(project, sys.executable, "-m", "replication.stages", **locale)
    call(project, *command("toy/one", "--profile", "demo"), **locale)
    call(project, sys.executable, "-m", "replication.fingerprint", "toy/one", **locale)
    executed = nbformat.read(results(project) / "one.ipynb", 4)
    assert executed.cells[2].outputs[0].text == "λ\n"


def test_a_folder_that_cannot_be_written_is_one_sentence(project):
    (project / ".cache").write_text("in the way")
    done = call(project, *command("toy/one", "--profile", "demo"), check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr


def test_git_is_not_needed(project):
    subprocess.run(["rm", "-rf", str(project / ".git")], check=True)
    call(project, *command("toy/one", "--profile", "demo"))
    record = json.loads((results(project) / "provenance.json").read_text())
    assert record["commit"] is None
