import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression

from poisoning.arrays import to_dense
from poisoning.errors import SolverError
from poisoning.models.logistic import train_logistic


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    X = rng.poisson(0.5, (200, 20)).astype(float)
    y = np.where(X @ rng.normal(size=20) + rng.normal(size=200) > 0.0, 1.0, -1.0)
    return sp.csr_array(X), y


@pytest.mark.parametrize("dense", [True, False])
def test_gradient_vanishes(problem, dense):
    X, y = problem
    X = to_dense(X) if dense else X
    lam, weights = 0.03, np.random.default_rng(1).uniform(0.0, 2.0, 200)
    solution = train_logistic(X, y, lam, weights=weights)
    pull = weights / weights.sum() * y / (1.0 + np.exp(solution.model.margins(X, y)))
    assert np.allclose(lam * solution.model.theta, X.T @ pull, atol=1e-7)
    assert np.isclose(lam * solution.model.bias, pull.sum(), atol=1e-7)
    assert solution.gradient_norm <= 1e-8


def test_agrees_with_scikit_learn(problem):
    X, y = problem
    lam = 0.05
    ours = train_logistic(X, y, lam)
    extended = np.hstack([to_dense(X), np.ones((200, 1))])
    peer = LogisticRegression(C=1.0 / (lam * 200), fit_intercept=False, tol=1e-10, max_iter=5000)
    peer.fit(extended, y)
    assert np.allclose(ours.model.theta, peer.coef_[0, :-1], atol=1e-4)
    assert np.isclose(ours.model.bias, peer.coef_[0, -1], atol=1e-4)


def test_agrees_with_cvxpy(problem):
    X, y = problem
    theta, bias = cp.Variable(20), cp.Variable()
    loss = cp.sum(cp.logistic(-cp.multiply(y, to_dense(X) @ theta + bias))) / 200
    penalty = 0.05 * (cp.sum_squares(theta) + bias**2)
    expected = cp.Problem(cp.Minimize(penalty + loss)).solve(solver="CLARABEL")
    assert np.isclose(train_logistic(X, y, 0.1).objective, expected, rtol=1e-6)


def test_weights_are_copies(problem):
    X, y = problem
    weights = np.random.default_rng(2).integers(0, 3, 200)
    copies = np.repeat(np.arange(200), weights)
    weighted = train_logistic(X, y, 0.1, weights=weights.astype(float)).model
    repeated = train_logistic(X[copies], y[copies], 0.1).model
    assert np.allclose(weighted.theta, repeated.theta, atol=1e-6)


def test_bad_input_is_refused(problem):
    X, y = problem
    with pytest.raises(ValueError, match="labels"):
        train_logistic(X, 0.0 * y, 0.1)
    with pytest.raises(ValueError, match="lambda"):
        train_logistic(X, y, -1.0)
    with pytest.raises(ValueError, match="weights"):
        train_logistic(X, y, 0.1, weights=np.zeros(200))


def test_an_exhausted_budget_is_an_error(problem):
    X, y = problem
    with pytest.raises(SolverError, match=r"gradient norm .* max_iterations"):
        train_logistic(X, y, 1e-3, max_iterations=1)
