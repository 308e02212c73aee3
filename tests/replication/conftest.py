"""A small project of the same shape as this one: one toy notebook, git, no data."""

import errno
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from poisoning.datasets import files
from replication import paths

ROOT = paths.ROOT

PARAMETERS = 'profile = "demo"\nscale: "Fraction" = 0.1\nrepeats: "Count" = 2'
SETUP = """\
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from poisoning.metrics import mean_interval
from replication.notebook import Notebook

notebook = Notebook("toy/one", profile)
"""
COMPUTE = """\
def draw(rng, scale):
    return scale * rng.normal(size=3)


units = {i: {"rng": notebook.rng(i), "scale": scale} for i in range(repeats)}
found = notebook.map(draw, units, "draws")
errors = [float(np.abs(v).mean()) for v in found.values()]
notebook.metric("toy.clean_error", mean_interval(errors))
notebook.metric("toy.scale", scale)
notebook.table(pd.DataFrame({"mean": [v.mean() for v in found.values()]}), "means").round(4)
"""
DRAW = """\
figure, axes = plt.subplots(figsize=(3, 2))
axes.plot([v.mean() for v in found.values()], color="red")
notebook.figure(figure, "means")
"""
FINISH = 'notebook.finish(clean="toy.clean_error", attacked="toy.scale", paper=0.5)'

PARAMS = """\
seed: 1
device: cpu
workers:
  backend: serial
  jobs: 1
  scheduler:
profiles:
  demo:
    data: standin
  quick:
    data: real
  paper:
    data: real
toy:
  one:
    scale: 0.1 # of what is drawn
    repeats:
      demo: 2
      quick: 3
      paper: 4
"""


def write_notebook(root, name="toy/one", cells=(SETUP, COMPUTE, DRAW, FINISH), knobs=PARAMETERS):
    """A notebook of these code cells; what draws is tagged."""
    parameters = new_code_cell(knobs, metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = new_notebook(cells=[new_markdown_cell("# Toy"), parameters])
    made.metadata["kernelspec"] = kernel
    for code in cells:
        tags = {"tags": ["figure"]} if "notebook.figure(" in code else {}
        made.cells.append(new_code_cell(code, metadata=tags))
    file = root / "notebooks" / f"{name}.ipynb"
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, file)


def git(root, *arguments):
    """Run git as nobody in particular."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout


def surroundings(root):
    """Variables for a process of the small project: its packages, this interpreter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(root / "lib"), "DVC_NO_ANALYTICS": "1"}
    away = (paths.RESULTS_VARIABLE, paths.CACHE_VARIABLE)
    return {name: value for name, value in os.environ.items() if name not in away} | own


def call(root, *command, check=True, timeout=None, **environment):
    """Run a command of the small project there, with this interpreter first on the path."""
    settings = surroundings(root) | environment
    done = subprocess.run(
        command, cwd=root, env=settings, capture_output=True, text=True, timeout=timeout
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """The small project, committed; tests work on copies."""
    root = tmp_path_factory.mktemp("project")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lib", root / "lib", ignore=ignore)
    for name in ("requirements.txt", ".gitignore", ".dvcignore"):
        shutil.copyfile(ROOT / name, root / name)
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    write_notebook(root)
    git(root, "init", "-q")
    call(root, "dvc", "init", "-q")
    call(root, sys.executable, "-m", "replication.stages")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "toy")
    return root


@pytest.fixture(scope="session")
def template_with_results(template, tmp_path_factory):
    """The small project once DVC has run its demo, committed; tests work on copies."""
    root = tmp_path_factory.mktemp("with-results") / "project"
    shutil.copytree(template, root, symlinks=True)
    done = call(root, "dvc", "repro", "--glob", "*@demo")
    assert "Running stage 'toy-one@demo'" in done.stdout
    git(root, "add", "-A")
    git(root, "commit", "-qm", "results")
    return root


@pytest.fixture
def project(template, tmp_path):
    """A copy of the small project to run commands in."""
    return shutil.copytree(template, tmp_path / "project", symlinks=True)


@pytest.fixture
def with_results(template_with_results, tmp_path):
    """A copy of the small project with results of its demo, to run commands in."""
    return shutil.copytree(template_with_results, tmp_path / "project", symlinks=True)


def enter(root, monkeypatch):
    """Calls in this process work there: every path of the project leads into the copy."""
    for name in ("PARAMS", "CLAIMS", "REQUIREMENTS", "NOTEBOOKS", "FINGERPRINTS", "PIPELINE"):
        monkeypatch.setattr(paths, name, root / getattr(paths, name).relative_to(ROOT))
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.delenv(paths.RESULTS_VARIABLE, raising=False)
    monkeypatch.setenv(paths.PROGRESS_VARIABLE, os.devnull)
    return root


@pytest.fixture
def inside(project, monkeypatch):
    """A copy of the small project for calls in this process."""
    return enter(project, monkeypatch)


@pytest.fixture
def inside_with_results(with_results, monkeypatch):
    """The same, with results of the demo."""
    return enter(with_results, monkeypatch)


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that takes no file of ours."""

    @contextmanager
    def full(path):
        raise OSError(errno.ENOSPC, "disk full")
        yield path

    monkeypatch.setattr(files, "replacing", full)
