"""The entries on the lower level: both races on a small problem."""

import json

import numpy as np
import pytest
from tqdm import tqdm

from bench import entries, lower_level
from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.models.mtrl import TaskData, solve_mtrl


def problem(loss, m=3, n=30):
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(m, n, 4)) / 2.0, np.ones((m, n, 1))], axis=-1)
    y = X @ rng.normal(size=5) + 0.2 * rng.normal(size=(m, n))
    y = y if loss == "square" else np.sign(y)
    return MultiTaskDraw(X, y, np.full((m, n), 1.0 / n), tuple(X), tuple(y))


def test_there_is_an_entry_for_each_data_set():
    names = {entry.NAME for entry in entries.ENTRIES}
    assert names >= {f"zhao2018.lower_level.{name}" for name in ("sarcos", "landmine", "mnist")}


@pytest.mark.parametrize("loss", ["square", "hinge"])
def test_cvxpy_is_given_the_same_problem(loss):
    data = TaskData.of(problem(loss))
    ours = solve_mtrl(data, loss, lower_level.LAMBDA, lower_level.LAMBDA)
    assert lower_level.by_cvxpy(data, loss) == pytest.approx(ours.objective, rel=1e-5)


@pytest.mark.slow
def test_an_entry_holds_both_races(monkeypatch):
    draws = [problem("square"), problem("square")]
    monkeypatch.setattr(lower_level, "tasks", lambda name, count: ("square", draws[:count], name))
    entry = lower_level.LowerLevelEntry("any", 2)
    with tqdm(disable=True) as bar:
        record = entry.run(bar)
    json.dumps(record, allow_nan=False)
    assert record["n"] == 2
    assert record["agreement"] < 1e-5
    assert record["alternating_excess"] > -1e-9
    assert record["ratio"] > 0.0
    assert "cvxpy/SCS" in entry.summary(record)
