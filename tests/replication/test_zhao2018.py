"""Draws and settings that the notebooks of Zhao et al. 2018 share."""

import numpy as np
import pytest

from poisoning.datasets import load, prepare
from replication import params, zhao2018
from replication.notebook import Notebook, paths
from replication.patom_suite import launch


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in zhao2018.LOSS:
        prepare(name, "standin", folder)
    return folder


@pytest.fixture
def notebook(data, tmp_path, monkeypatch):
    monkeypatch.setenv(paths.RESULTS_VARIABLE, str(tmp_path))
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "units"))
    monkeypatch.setattr(paths, "dataset", lambda source, name: data / source / name)
    made = Notebook("zhao2018/quality", "demo")
    serial = made.params.workers.model_copy(update={"backend": "serial"})
    made.params = made.params.model_copy(update={"workers": serial})
    return made


@pytest.mark.slow
def test_every_notebook_sees_the_same_draws(notebook):
    first = zhao2018.draw_all(notebook, list(zhao2018.LOSS), 2)
    again = zhao2018.draw_all(notebook, ["sarcos"], 1)
    np.testing.assert_array_equal(first["sarcos"][0].X, again["sarcos"][0].X)
    assert not np.array_equal(first["sarcos"][0].X, first["sarcos"][1].X)
    assert {name: len(draws[0].X) for name, draws in first.items()} == zhao2018.TASKS


def test_draws_have_the_sizes_that_the_knobs_ask_for(data):
    knobs = params.load("demo").section(zhao2018.SHARED)
    sarcos = load(data / "standin" / "sarcos")
    (drawn,) = zhao2018.draw_tasks("sarcos", sarcos, knobs, [np.random.default_rng(0)])
    assert drawn.X.shape == (7, knobs["sarcos_train"], 22)
    assert len(drawn.y_test[0]) == knobs["sarcos_test"]


def test_settings_are_the_knobs_and_the_method():
    knobs = params.load("paper").section(zhao2018.SHARED)
    printed = zhao2018.settings("sarcos", "printed", knobs, 5)
    assert (printed.update, printed.gradient, printed.step) == ("sequential", "paper", 100.0)
    assert (printed.loss, printed.lambda1, printed.lambda2) == ("square", 0.1, 0.1)
    total = zhao2018.settings("mnist", "total", knobs, 5, lambda1=0.01)
    assert (total.update, total.gradient, total.lambda1) == ("ascent", "total", 0.01)
    assert total.loss == "hinge"


def test_a_task_set_has_its_size():
    chosen = zhao2018.task_set(10, 4, np.random.default_rng(0))
    assert chosen.sum() == 4
    assert chosen.shape == (10,)


@pytest.mark.slow
def test_draws_are_attacked_in_groups_and_come_back_in_order(notebook, monkeypatch):
    monkeypatch.setattr(zhao2018, "GROUP", 2)
    knobs = notebook.shared(zhao2018.SHARED)
    drawn = zhao2018.draw_all(notebook, ["sarcos"], 3)["sarcos"]
    targets = np.tile(np.arange(7) < 3, (3, 1))

    def job(method):
        return {
            "draws": drawn, "targets": targets, "attacking": ~targets, "budget": 0.1,
            "labels": "uniform", "settings": zhao2018.settings("sarcos", method, knobs, 1),
            "rngs": [np.random.default_rng(i) for i in range(3)],
        }  # fmt: skip

    methods = ("printed", "total")
    found = zhao2018.launch_all(notebook, [job(method) for method in methods], "attacks")
    for method, outcomes in zip(methods, found, strict=True):
        whole = launch(**job(method))
        assert len(outcomes) == 3
        for one, other in zip(outcomes, whole, strict=True):
            np.testing.assert_allclose(one.measures, other.measures, rtol=1e-8)
