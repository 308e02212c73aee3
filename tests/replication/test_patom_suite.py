"""Attacks on several draws at once: what each outcome claims is what learning again gives."""

import numpy as np
import pytest

from poisoning.attacks.patom import PATOMSettings, poisoned_data
from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.models.mtrl import TaskData, solve_mtrl
from poisoning.models.mtrl_evaluation import on_targets
from replication.patom_suite import launch


def draw(seed, m=4, n=30, d=5, n_test=40):
    """Related regression tasks on inputs in the unit ball, with a bias."""
    rng = np.random.default_rng(seed)

    def inputs(count):
        X = rng.normal(size=(m, count, d - 1))
        X /= np.maximum(1.0, np.linalg.norm(X, axis=2, keepdims=True))
        return np.concatenate([X, np.ones((m, count, 1))], axis=2)

    W = rng.normal(size=(1, d)) + 0.3 * rng.normal(size=(m, d))
    X, X_test = inputs(n), inputs(n_test)
    y, y_test = (np.einsum("mnd,md->mn", part, W) for part in (X, X_test))
    return MultiTaskDraw(X, y, np.full((m, n), 1.0 / n), tuple(X_test), tuple(y_test))


DRAWS = [draw(0), draw(1)]
TARGETS = np.array([[True, True, False, False], [True, False, True, False]])


def run(members=(0, 1), **changes):
    settings = PATOMSettings(iterations=3, **changes)
    return launch(
        [DRAWS[i] for i in members], TARGETS[list(members)], ~TARGETS[list(members)],
        0.2, "uniform", settings, [np.random.default_rng(i) for i in members],
    )  # fmt: skip


@pytest.mark.parametrize("way", [{}, {"update": "sequential", "gradient": "paper", "step": 5.0}])
def test_an_outcome_is_what_learning_from_its_poison_gives(way):
    for i, outcome in enumerate(run(**way)):
        clean = TaskData(DRAWS[i].X, DRAWS[i].y, DRAWS[i].weight)
        W = solve_mtrl(poisoned_data(clean, outcome.poison), "square", 0.1, 0.1, tol=1e-8).W
        np.testing.assert_allclose(W, outcome.models[outcome.best], atol=1e-5)
        measured = on_targets(W, DRAWS[i], TARGETS[i], "square")
        assert outcome.measures[outcome.best] == pytest.approx(measured, rel=1e-4)
        assert outcome.utilities.argmax() == outcome.best
        assert len(outcome.measures) == len(outcome.models) == 4
        counts = outcome.poison.mask.sum(axis=1)
        np.testing.assert_array_equal(counts, np.where(TARGETS[i], 0, 6))
        W = solve_mtrl(clean, "square", 0.1, 0.1, tol=1e-8).W
        np.testing.assert_allclose(W, outcome.clean_model, atol=1e-5)
        assert outcome.clean_measure == pytest.approx(
            on_targets(W, DRAWS[i], TARGETS[i], "square"), rel=1e-4
        )


def test_an_outcome_does_not_depend_on_what_runs_beside_it():
    together, (alone,) = run()[1], run(members=(1,))
    np.testing.assert_allclose(together.measures, alone.measures, rtol=1e-8)
    np.testing.assert_allclose(together.poison.X, alone.poison.X, atol=1e-8)
