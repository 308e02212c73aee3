"""Theorem 1 on random problems: the collapsed attack teaches the same model at no more weight."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.arrays import vstack
from poisoning.attacks.concentrate import concentrate
from poisoning.models.linear import LinearModel
from poisoning.models.logistic import train_logistic
from poisoning.models.svm import train_svm


def attacked(seed, n=60, poison=9, d=4):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    X = rng.normal(size=(n, d)) + np.outer(y, np.linspace(0.2, 0.8, d))
    y_poison = np.where(rng.random(poison) < 0.5, 1.0, -1.0)
    X_poison = 2.0 * rng.normal(size=(poison, d))
    return X, y, X_poison, y_poison


def slopes_of(loss, solution, X_poison, y_poison, clean, lam):
    if loss == "hinge":
        return solution.alpha[clean:] * lam * (clean + len(y_poison))
    return 1.0 / (1.0 + np.exp(solution.model.margins(X_poison, y_poison)))


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
@pytest.mark.parametrize("sparse", [False, True])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, derandomize=True, deadline=None)
def test_two_points_teach_the_same_parameters(loss, sparse, seed):
    X, y, X_poison, y_poison = attacked(seed)
    if sparse:
        X, X_poison = sp.csr_array(X), sp.csr_array(X_poison)
    train = {"hinge": train_svm, "logistic": train_logistic}[loss]
    tol = {"hinge": 1e-11, "logistic": 1e-8}[loss]  # of the gap, of the gradient's norm
    lam, total = 0.1, len(y) + len(y_poison)
    solved = train(vstack([X, X_poison]), np.append(y, y_poison), lam, tol=tol)
    slopes = slopes_of(loss, solved, X_poison, y_poison, len(y), lam)
    points = concentrate(X_poison, y_poison, slopes, solved.model, loss)

    assert len(points.y) == len(set(points.y)) <= 2
    for label, weight in zip(points.y, points.weights, strict=True):
        assert 0 < weight <= np.sum(y_poison == label) * (1 + 1e-9)
    weights = np.append(np.ones(len(y)), points.weights)
    again = train(
        vstack([X, points.X]), np.append(y, points.y), lam * total / weights.sum(),
        weights=weights, tol=tol,
    )  # fmt: skip
    np.testing.assert_allclose(again.model.theta, solved.model.theta, atol=2e-5)
    assert again.model.bias == pytest.approx(solved.model.bias, abs=2e-5)


def test_the_point_is_the_pull_weighted_mean():
    X = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [9.0, 9.0]])
    y = np.array([1.0, 1.0, 1.0, -1.0])
    slopes = np.array([1.0, 0.5, 0.5, 0.0])
    points = concentrate(X, y, slopes, LinearModel(np.zeros(2), 0.0), "hinge")
    np.testing.assert_allclose(points.X, [[0.5, 1.0]])
    np.testing.assert_array_equal(points.y, [1.0])
    np.testing.assert_allclose(points.weights, [2.0])


def test_copies_count():
    X, y = np.array([[0.0], [3.0]]), np.array([1.0, 1.0])
    points = concentrate(
        X, y, np.ones(2), LinearModel(np.zeros(1), 0.0), "hinge", weights=np.array([2.0, 1.0])
    )
    np.testing.assert_allclose(points.X, [[1.0]])
    np.testing.assert_allclose(points.weights, [3.0])


def test_slopes_that_are_no_derivatives_are_refused():
    X, y = np.ones((1, 1)), np.ones(1)
    with pytest.raises(ValueError, match="slopes"):
        concentrate(X, y, np.array([1.5]), LinearModel(np.zeros(1), 0.0), "hinge")
