"""The smoothed hinge's Hessian: finite differences, then three ways to invert it."""

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.errors import SolverError
from poisoning.models import smoothed_svm
from poisoning.models.smoothed_svm import Curvature

LAMBDA = 0.1


def problem(n=80, d=12, seed=0):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    X = rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.6) + 0.3 * y[:, None]
    share = rng.uniform(0.5, 2.0, n)
    return X, y, share / share.sum(), rng.normal(size=d + 1) / 2.0


def curvature(X, y, share, w, smoothing):
    scores = np.asarray(X @ w[:-1]) + w[-1]
    return Curvature.of(X, y, scores, LAMBDA, smoothing, share)


def objective_gradient(X, y, share, w, smoothing):
    """Plain transcription of the objective's gradient."""
    pull = 1.0 / (1.0 + np.exp(-(1.0 - y * (X @ w[:-1] + w[-1])) / smoothing))
    return LAMBDA * w - np.append(X, np.ones((len(y), 1)), axis=1).T @ (share * pull * y)


def test_the_pull_is_the_slope_of_the_smoothed_hinge():
    X, y, share, w = problem()
    margins = y * (X @ w[:-1] + w[-1])
    h = 1e-6
    loss = lambda m: 0.2 * np.logaddexp(0.0, (1.0 - m) / 0.2)  # noqa: E731
    slope = (loss(margins + h) - loss(margins - h)) / (2.0 * h)
    assert curvature(X, y, share, w, 0.2).pull == pytest.approx(-slope, abs=1e-9)


@pytest.mark.parametrize("smoothing", [0.05, 0.5])
def test_the_product_is_the_derivative_of_the_gradient(smoothing):
    X, y, share, w = problem()
    H = curvature(X, y, share, w, smoothing)
    rng, h = np.random.default_rng(1), 1e-6
    for _ in range(5):
        v = rng.normal(size=w.size)
        ahead, behind = (
            objective_gradient(X, y, share, w + sign * h * v, smoothing) for sign in (1.0, -1.0)
        )
        assert H.product(v) == pytest.approx((ahead - behind) / (2.0 * h), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("as_matrix", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("smoothing", [1e-3, 0.05, 0.5])
def test_woodbury_and_conjugate_gradients_are_the_dense_inverse(as_matrix, smoothing):
    X, y, share, w = problem()
    # A few points on the hinge, so that even the least smoothing leaves curvature.
    X[:10] += np.outer((y[:10] * 1.0 - (X[:10] @ w[:-1] + w[-1])), w[:-1]) / (w[:-1] @ w[:-1])
    H = curvature(as_matrix(X), y, share, w, smoothing)
    assert len(H.curvatures) >= 10
    dense = np.column_stack([H.product(e) for e in np.eye(w.size)])
    g = np.random.default_rng(2).normal(size=w.size)
    expected = np.linalg.solve(dense, g)
    assert H.by_woodbury(g) == pytest.approx(expected, rel=1e-8, abs=1e-8)
    assert H.by_conjugate_gradients(g) == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_a_model_far_from_the_hinge_has_no_curvature_but_lambda():
    X, y, share, _ = problem()
    H = curvature(X, y, share, np.zeros(13), 1e-3)  # all margins 0
    assert len(H.curvatures) == 0
    g = np.arange(13.0)
    assert H.solve(g) == pytest.approx(g / LAMBDA)
    assert H.by_conjugate_gradients(g) == pytest.approx(g / LAMBDA)


def test_the_solver_follows_the_number_of_rows(monkeypatch):
    X, y, share, w = problem(n=900, d=6)
    H = curvature(X, y, share, w, 0.5)
    assert len(H.curvatures) == 900
    g = np.ones(7)
    assert H.solve(g) == pytest.approx(H.by_woodbury(g), rel=1e-8)
    monkeypatch.setattr(Curvature, "by_woodbury", None)  # must not be called
    assert H.product(H.solve(g)) == pytest.approx(g, abs=1e-8)
    small = curvature(X[:50], y[:50], share[:50], w, 0.5)
    with pytest.raises(TypeError):
        small.solve(g)


def test_conjugate_gradients_that_stop_short_are_an_error(monkeypatch):
    X, y, share, w = problem()
    monkeypatch.setattr(smoothed_svm, "_CG_STEPS", 2)
    with pytest.raises(SolverError, match="raise the smoothing"):
        curvature(X, y, share, w, 0.05).by_conjugate_gradients(np.ones(13))
