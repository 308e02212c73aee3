"""NMSE and AUC of learned tasks, and draws as one batch."""

import numpy as np
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.models.mtrl import solve_mtrl
from poisoning.models.mtrl_evaluation import auc, nmse, on_targets, task_data


def draw(seed=0, m=3, n=20, d=4, binary=False):
    rng = np.random.default_rng(seed)
    X, X_test = rng.normal(size=(m, n, d)), [rng.normal(size=(8 + i, d)) for i in range(m)]
    W = rng.normal(size=(m, d))
    y = np.einsum("mnd,md->mn", X, W)
    y_test = [x @ w for x, w in zip(X_test, W, strict=True)]
    if binary:
        y, y_test = np.sign(y), [np.where(np.arange(len(t)) % 2, 1.0, -1.0) for t in y_test]
    weight = np.full((m, n), 1.0 / n)
    return MultiTaskDraw(X, y, weight, tuple(X_test), tuple(y_test)), W


def test_nmse_is_what_r_squared_lacks_of_one():
    data, W = draw()
    rough = W + 0.3
    expected = [
        1 - r2_score(y, X @ w) for w, X, y in zip(rough, data.X_test, data.y_test, strict=True)
    ]
    np.testing.assert_allclose(nmse(rough, data), expected)
    np.testing.assert_allclose(nmse(W, data), 0.0, atol=1e-25)


def test_auc_counts_pairs_in_the_right_order():
    data, W = draw(binary=True)
    coarse = np.round(2 * W)  # with ties
    for weights in (W, coarse):
        expected = [
            roc_auc_score(y, X @ w)
            for w, X, y in zip(weights, data.X_test, data.y_test, strict=True)
        ]
        np.testing.assert_allclose(auc(weights, data), expected)
    np.testing.assert_allclose(auc(0 * W, data), 0.5)


def test_targets_are_averaged_and_measured_by_the_loss():
    targets = np.array([True, False, True])
    data, W = draw()
    assert on_targets(W + 0.3, data, targets, "square") == pytest.approx(
        nmse(W + 0.3, data)[targets].mean()
    )
    data, W = draw(binary=True)
    assert on_targets(W, data, targets, "hinge") == pytest.approx(auc(W, data)[targets].mean())


def test_draws_are_stacked_into_one_batch():
    draws = [draw(seed)[0] for seed in range(2)]
    batch = task_data(draws)
    assert batch.X.shape == (2, 3, 20, 4)
    together = solve_mtrl(batch, "square", 0.1, 0.1).W
    alone = solve_mtrl(task_data(draws[1:]), "square", 0.1, 0.1).W[0]
    np.testing.assert_allclose(together[1], alone, atol=1e-6)
