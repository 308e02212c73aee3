"""The peer of a PATOM iteration differentiates the same learner."""

import numpy as np
import pytest
from tqdm import tqdm

from bench import entries, patom_iteration
from bench.patom_iteration import ENTRIES, by_recording, iteration
from bench.timing import Race
from poisoning.attacks.patom import draw_poison
from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.games.multi_task import MultiTaskGame


def tasks(loss, seed=0):
    rng = np.random.default_rng(seed)
    X = 0.4 * rng.normal(size=(4, 30, 6))
    X[..., -1] = 1.0
    y = (X @ rng.normal(size=(4, 6, 1)))[..., 0]
    y = np.sign(y) if loss == "hinge" else y
    return MultiTaskDraw(X, y, np.full(y.shape, 1.0 / 30.0), tuple(X), tuple(y))


def test_there_is_an_entry_for_each_data_set():
    assert {entry.NAME for entry in ENTRIES} == {
        f"zhao2018.patom_iteration.{name}" for name in ("sarcos", "landmine", "mnist")
    }
    assert set(ENTRIES) <= set(entries.ENTRIES)


@pytest.mark.parametrize("loss", ["square", "hinge"])
def test_recorded_iterations_have_the_same_gradient(loss):
    game = MultiTaskGame.from_draw(tasks(loss), targets=[0, 1], attacking=[2, 3], loss=loss)
    poison = draw_poison(game, 0.2, "uniform", 1.0, np.random.default_rng(1))
    W = game.learn(game.poisoned(poison))
    ours = iteration(game, poison, W, 0.1)
    theirs = by_recording(game, poison, 0.1)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3 * np.abs(mine).max())


def test_an_entry_holds_the_race(monkeypatch):
    monkeypatch.setattr(
        patom_iteration,
        "tasks",
        lambda name, n: ("square", [tasks("square", i) for i in range(n)], name),
    )
    monkeypatch.setattr(patom_iteration, "Race", lambda: Race(1))
    entry = ENTRIES[0]
    with tqdm(disable=True) as bar:
        record = entry.run(bar)
    assert record["n"] == 2 * entry.draws
    assert record["agreement"] < 1e-3
    assert record["ours_s"] > 0.0 and record["ratio"] > 0.0
    assert "ms an iteration" in entry.summary(record)
