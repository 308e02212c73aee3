"""Both steps are timed at every size, and a power is fitted to each."""

import json

import numpy as np
from tqdm import tqdm

from bench import patom_growth
from poisoning.datasets.multitask import MultiTaskDraw


def problem(m=3, n=30):
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(m, n, 4)) / 2.0, np.ones((m, n, 1))], axis=-1)
    y = np.sign(X @ rng.normal(size=5))
    tests = m * (np.where(np.arange(n) % 2, 1.0, -1.0),)
    return MultiTaskDraw(X, y, np.full((m, n), 1.0 / n), tuple(X), tests)


def test_learner_and_iteration_have_a_power_for_every_way(monkeypatch):
    problems = [
        (name, way, "hinge", problem(**{size: 20 * k}))
        for name, way, size in (("landmine", "tasks", "m"), ("mnist", "examples", "n"))
        for k in range(1, 4)
    ]
    monkeypatch.setattr(patom_growth, "problems", lambda: problems)
    with tqdm(disable=True) as bar:
        record = patom_growth.run(bar)
    json.dumps(record, allow_nan=False)
    assert [row["tasks"] for row in record["growth"]] == [20, 20, 40, 40, 60, 60] + 6 * [3]
    assert all(row["seconds"] > 0.0 for row in record["growth"])
    assert set(record["exponents"]) == {
        "landmine, learner", "landmine, iteration", "mnist, learner", "mnist, iteration"
    }  # fmt: skip
    assert "60 tasks in" in patom_growth.summary(record)
