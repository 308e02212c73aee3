"""The runner on small notebooks that the tests write; nothing here needs data."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.pipeline import params, paths, run

KNOBS = params.load("demo").section("koh2021/concentration")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project whose notebook koh2021/concentration is what the test says."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "requirements.txt").touch()
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setenv(paths.RESULTS_VARIABLE, str(tmp_path / "results"))
    monkeypatch.setenv(paths.PROGRESS_VARIABLE, os.devnull)

    def write(*cells, knobs=("profile", *KNOBS)):
        names = "\n".join(f"{name} = None" for name in knobs)
        parameters = new_code_cell(names, metadata={"tags": ["parameters"]})
        kernel = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        notebook = new_notebook(cells=[new_markdown_cell("# Title"), parameters], metadata=kernel)
        notebook.cells += [new_code_cell(cell) for cell in cells]
        file = tmp_path / "notebooks" / "koh2021" / "concentration.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, file)
        return tmp_path

    return write


RESULT = """
import json, os
from pathlib import Path
folder = Path(os.environ["POISON_RESULTS"]) / profile / "koh2021" / "concentration"
folder.mkdir(parents=True, exist_ok=True)
(folder / "metrics.json").write_text(json.dumps({"epsilon": epsilon}))
(folder / "used.json").write_text('{"data": {}, "shared": {}, "device": "cpu"}')
print("done")
"""


def test_a_run_leaves_the_executed_notebook_metrics_and_provenance(project):
    root = project(RESULT)
    folder = run.run_notebook("koh2021/concentration", "demo")
    assert folder == root / "results" / "demo" / "koh2021" / "concentration"
    assert json.loads((folder / "metrics.json").read_text()) == {"epsilon": KNOBS["epsilon"]}
    executed = nbformat.read(folder / "concentration.ipynb", 4)
    assert executed.cells[-1].outputs[0].text == "done\n"
    record = json.loads((folder / "provenance.json").read_text())
    assert record["parameters"]["epsilon"] == KNOBS["epsilon"]
    assert record["parameters"]["seed"] == params.load("demo").seed
    assert record["seconds"] > 0
    assert {"commit", "dirty", "cpu", "versions", "device", "data"} <= set(record)


def test_two_runs_give_identical_notebooks_without_paths(project):
    root = project(RESULT)
    file = "results/demo/koh2021/concentration/concentration.ipynb"
    run.run_notebook("koh2021/concentration", "demo")
    first = (root / file).read_bytes()
    run.run_notebook("koh2021/concentration", "demo")
    assert (root / file).read_bytes() == first
    assert str(root).encode() not in first


def test_a_warning_names_its_file_from_the_projects_folder(project):
    project(
        RESULT, "import os, sys; print(f'{os.getcwd()}/lib/a.py:3: UserWarning', file=sys.stderr)"
    )
    folder = run.run_notebook("koh2021/concentration", "demo")
    executed = nbformat.read(folder / "concentration.ipynb", 4)
    printed = [output.text for cell in executed.cells for output in cell.get("outputs", ())]
    assert "lib/a.py:3: UserWarning\n" in printed


def test_a_failing_cell_is_one_sentence_and_leaves_the_old_results(project, capsys):
    root = project(RESULT)
    run.run_notebook("koh2021/concentration", "demo")
    project(RESULT, "1 / 0")
    assert run.main(["koh2021/concentration", "--profile", "demo"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "ZeroDivisionError: division by zero" in message
    folder = root / "results" / "demo" / "koh2021" / "concentration"
    assert "1 / 0" not in (folder / "concentration.ipynb").read_text()
    assert (root / ".cache/failed/demo/koh2021/concentration/concentration.ipynb").is_file()
    assert [path.name for path in (root / ".cache").iterdir()] == ["failed"]


@pytest.mark.parametrize("knobs", [("profile", "epsilon"), ("profile", *KNOBS, "extra")])
def test_a_notebook_whose_parameters_are_not_its_knobs_is_refused(project, knobs):
    project(RESULT, knobs=knobs)
    with pytest.raises(run.NotebookError, match="same names; only one of them has"):
        run.run_notebook("koh2021/concentration", "demo")


def test_an_unknown_notebook_is_named(project):
    project(RESULT)
    with pytest.raises(run.NotebookError, match="no notebook notebooks/koh2021/nothing"):
        run.run_notebook("koh2021/nothing", "demo")


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_results(project, kind):
    root = project(RESULT, "import time; time.sleep(120)")
    script = (
        "import sys, pathlib; from lib.pipeline import paths, run;"
        f"paths.ROOT = pathlib.Path({str(root)!r}); paths.NOTEBOOKS = paths.ROOT / 'notebooks';"
        "sys.exit(run.main(['koh2021/concentration', '--profile', 'demo']))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not list((root / ".cache").glob("run-*/demo/koh2021/concentration/metrics.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(kind)
    process.wait()
    assert not (root / "results").exists()


def test_source_notebooks_hold_the_demo_values_of_their_knobs():
    import papermill

    for source in sorted(paths.NOTEBOOKS.glob("*/*.ipynb")):
        name = str(source.relative_to(paths.NOTEBOOKS).with_suffix(""))
        declared = {
            key: eval(parameter["default"])
            for key, parameter in papermill.inspect_notebook(source).items()
        }
        assert declared == {"profile": "demo", **params.load("demo").section(name)}, name
