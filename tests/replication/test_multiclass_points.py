"""Proposition 10: one point for each label and rival."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from poisoning.attacks.min_max import MinMax
from poisoning.datasets import Dataset
from replication.multiclass_points import collapse_classes, one_point_per_pair, solve_classes


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, size=60)
    return rng.normal(size=(60, 4)) + 0.8 * np.eye(4)[y], y


def test_the_solution_is_stationary_and_its_duals_are_slopes(problem):
    X, y = problem
    weights = np.ones(60)
    weights[:5] = 2.5
    found = solve_classes(X, y, weights, 60, 3, 0.1)
    own = np.eye(3)[y] * found.alpha.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(60 * 0.1 * found.theta, (own - found.alpha).T @ X, atol=1e-5)
    assert np.all(found.alpha.sum(axis=1) <= weights + 1e-6)
    scores = X @ found.theta.T
    rows = np.arange(60)
    others = np.where(np.eye(3)[y] > 0, -np.inf, scores)
    losses = 1.0 - scores[rows, y] + others.max(axis=1)
    np.testing.assert_allclose(found.alpha[losses < -1e-4], 0.0, atol=1e-5)
    np.testing.assert_allclose(
        found.alpha.sum(axis=1)[losses > 1e-4], weights[losses > 1e-4], atol=1e-4
    )


def test_points_are_averages_by_label_and_rival():
    X = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    alpha = np.array([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    points, labels, weights = one_point_per_pair(X, np.array([0, 0, 1]), alpha)
    np.testing.assert_array_equal(labels, [0, 0, 1])
    np.testing.assert_allclose(weights, [1.5, 0.5, 1.0])
    np.testing.assert_allclose(points, [[5 / 3, 0.0], [3.0, 0.0], [0.0, 2.0]])


def test_collapsed_poison_makes_the_model_learn_the_same():
    settings = MinMax(0.3, copies=1, radius_percentile=95.0, step=0.06, decoy=False)
    images, labels = load_digits(return_X_y=True)
    parts = images[:900] / 16.0, labels[:900], images[900:] / 16.0, labels[900:]
    digits = Dataset("mnist", "test", "box01", *parts)
    found = collapse_classes(digits, np.random.default_rng(0), settings, 8, 0.01)
    assert found["parameter change"] < 1e-3 < 0.05 < found["clean-trained change"]
    assert found["points after"] < found["points before"] == 24
    assert found["weight after"] <= found["points before"] * (1 + 1e-6)
