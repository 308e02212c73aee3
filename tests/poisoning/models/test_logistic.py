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
    assert solution.gradient_norm <= 1e-9


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


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": np.zeros(200)}, "y must be -1 and +1, it holds 0."),
        ({"lam": -1.0}, "lam must be a finite number above 0, not -1.0."),
        ({"weights": np.zeros(200)}, "weights must not all be 0."),
        ({"weights": np.ones(3)}, "weights must have one value for each of 200 rows, it has 3."),
        ({"tol": 0}, "tol must be a finite number above 0, not 0."),
        ({"max_iterations": 0}, "max_iterations must be a whole number of at least 1, not 0."),
    ],
)
def test_bad_input_is_refused(problem, change, sentence):
    X, y = problem
    with pytest.raises(ValueError) as refusal:
        train_logistic(**({"X": X, "y": y, "lam": 0.1} | change))
    assert str(refusal.value) == sentence


def gradient(X, y, lam, model):
    """With 64 bits in the fraction."""
    X = np.hstack([X, np.ones((len(y), 1))]).astype(np.longdouble)
    w = np.append(model.theta, model.bias).astype(np.longdouble)
    return lam * w - X.T @ (y / (1.0 + np.exp(y * (X @ w)))) / len(y)


@pytest.mark.parametrize(("n", "d"), [(30, 5), (20, 320)])  # by QR, by conjugate gradients
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("lam", [1e-5, 5.0, 100.0])
def test_the_tolerance_is_relative(n, d, scale, lam):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X, y = scale * rng.normal(size=(n, d)), np.where(rng.random(n) < 0.5, 1.0, -1.0)
        model = train_logistic(X, y, lam).model
        largest = 0.5 * np.mean(np.sqrt((X**2).sum(1) + 1.0))
        assert np.linalg.norm(gradient(X, y, lam, model)) <= 1e-9 * largest


def test_a_strong_penalty_on_one_class():
    X, y = np.array([[1.0], [2.0]]), np.ones(2)
    model = train_logistic(X, y, 100.0).model
    assert np.linalg.norm(gradient(X, y, 100.0, model)) <= 1e-10


def test_an_exhausted_budget_is_an_error(problem):
    X, y = problem
    with pytest.raises(SolverError, match=r"gradient norm .* max_iterations"):
        train_logistic(X, y, 1e-3, max_iterations=1)
