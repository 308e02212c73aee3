from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

from poisoning.models.oracle_sgd import (
    GaussianLogistic,
    LinearPair,
    balanced_step,
    poisoned_sgd,
    risk_lower_bound,
    risk_upper_bound,
)

LOGISTIC = GaussianLogistic(np.array([1.0, 0.0, -0.5, 0.2]), 2.0)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_population_risk_is_that_of_a_large_sample():
    X, y = LOGISTIC.draw((1, 400_000), rng())
    W = 0.5 * rng(1).normal(size=(3, 4))
    for w, excess in zip(W, LOGISTIC.excess_risk(W), strict=True):
        losses = np.logaddexp(0.0, -y[0] * (X[0] @ w))
        losses -= np.logaddexp(0.0, -y[0] * (X[0] @ LOGISTIC.minimiser))
        assert excess == pytest.approx(losses.mean(), abs=4.0 * losses.std() / 400_000**0.5)


def test_quadrature_is_that_of_an_adaptive_rule():
    w = np.array([[1.2, -0.8, 0.3, 2.0]])
    norm, density = np.linalg.norm(w), lambda z: np.exp(-z * z / 2) / np.sqrt(2 * np.pi)

    def mean(f):
        return quad(lambda z: f(z) * density(z), -12.0, 12.0, epsabs=1e-13, epsrel=1e-13)[0]

    star = np.linalg.norm(LOGISTIC.minimiser)
    kappa = mean(lambda z: expit(star * z) * expit(-star * z))
    risks = [
        mean(lambda z, length=length: np.logaddexp(0.0, length * z)) for length in (norm, star)
    ]
    expected = risks[0] - risks[1] - kappa * (w[0] @ LOGISTIC.minimiser - star**2)
    assert LOGISTIC.excess_risk(w)[0] == pytest.approx(expected, abs=1e-9)


def test_the_minimiser_has_no_excess_and_nothing_has_less():
    near = LOGISTIC.minimiser + 0.1 * rng().normal(size=(50, 4))
    assert LOGISTIC.excess_risk(LOGISTIC.minimiser[None]) == pytest.approx(0.0, abs=1e-15)
    assert np.all(LOGISTIC.excess_risk(near) > 0.0)


@pytest.mark.parametrize("problem", [LOGISTIC, LinearPair(0.2, -1.0)])
def test_gradients_are_unbiased_and_bounded(problem):
    d = problem.minimiser.size
    X, y = problem.draw((1, 300_000), rng(2))
    w = 0.3 * np.ones(d)
    sampled = problem.gradients(np.tile(w, (300_000, 1)), X[0], y[0])
    numeric = [
        float(problem.excess_risk((w + e)[None])[0] - problem.excess_risk((w - e)[None])[0]) / 2e-5
        for e in 1e-5 * np.eye(d)
    ]
    assert sampled.mean(axis=0) == pytest.approx(numeric, abs=0.01)
    assert np.mean(np.sum(sampled**2, axis=1)) <= 1.01 * problem.gradient_norm**2


def shifted(norm):
    """Poison of one norm along the minimiser."""
    return lambda call: np.broadcast_to(
        norm * call.problem.minimiser / np.linalg.norm(call.problem.minimiser), call.W.shape
    )


def test_sgd_is_the_recursion_it_says_it_is():
    problem, n, step = LOGISTIC, 300, 0.7
    run = poisoned_sgd(problem, n, step, 2, rng(5), shifted(0.1))
    draws = rng(5)
    w, iterates = np.zeros((2, 4)), []
    unit = problem.minimiser / np.linalg.norm(problem.minimiser)
    for size in (256, 44):
        X, y = problem.draw((size, 2), draws)
        for x, label in zip(X, y, strict=True):
            iterates.append(w)
            g = -(label * expit(-label * np.sum(w * x, axis=1)))[:, None] * x + 0.1 * unit
            w = w - step * g
            w = w * np.minimum(1.0, 2.0 / np.linalg.norm(w, axis=1))[:, None]
    assert np.max(np.linalg.norm(iterates, axis=2)) == pytest.approx(2.0)  # the ball is reached
    assert np.allclose(run.average, np.mean(iterates, axis=0))
    assert np.allclose(run.poison_norms, 0.1)
    assert np.allclose(run.excess_risk, problem.excess_risk(run.average))


def test_poison_leaves_the_draws_alone():
    honest = poisoned_sgd(LOGISTIC, 100, 0.1, 5, rng(1))
    harmless = poisoned_sgd(LOGISTIC, 100, 0.1, 5, rng(1), shifted(0.0))
    assert np.array_equal(honest.average, harmless.average)
    assert np.array_equal(honest.poison_norms, np.zeros((100, 5)))


def test_bounds_are_their_formulas():
    problem, step, norms = LOGISTIC, 0.1, np.array([0.0, 1.0])
    noise = (2.0**2 + 3.0**2) * step / 4.0
    assert risk_upper_bound(problem, step, norms) == pytest.approx(4.0 / 0.4 + noise + 2.0)
    assert risk_lower_bound(2.0, 3.0, 10) == pytest.approx(0.6)
    assert balanced_step(problem, 100) == pytest.approx(0.1)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="ball"):
        replace(LOGISTIC, radius=0.5)
    for arguments in [(0, 0.1, 1), (1, 0.0, 1), (1, 0.1, 0)]:
        with pytest.raises(ValueError, match="must be"):
            poisoned_sgd(LOGISTIC, *arguments, rng())


@pytest.mark.parametrize("length", [0.5, 2.4, 2.6, 10.0, 1e3])
def test_the_risk_is_exact_at_any_length(length):
    """Against adaptive quadrature in u = ‖w‖|z|; Gauss-Hermite alone errs beyond 2.5."""
    problem = GaussianLogistic(np.array([length, 0.0]), 2.0 * length)

    def normal(z):
        return np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)

    def loss(a):
        rest = quad(lambda u: np.log1p(np.exp(-u)) * normal(u / a) * 2.0 / a, 0.0, 60.0, limit=200)
        return a / np.sqrt(2.0 * np.pi) + rest[0]

    kappa = quad(
        lambda u: expit(u) * expit(-u) * normal(u / length) * 2.0 / length, 0.0, 60.0, limit=200
    )[0]
    w = 1.5 * problem.minimiser
    expected = loss(1.5 * length) - loss(length) - kappa * 0.5 * length**2
    assert problem.excess_risk(w[None])[0] == pytest.approx(expected, abs=1e-8 * max(1.0, length))


def test_the_adversary_may_add_to_a_subgradient_and_change_nothing_else():
    def write(call):
        for known in (call.W, call.X, call.y, call.gradients):
            with pytest.raises(ValueError, match="read-only"):
                known[...] = 0.0
        return np.zeros_like(call.W)

    assert np.isfinite(poisoned_sgd(LOGISTIC, 3, 0.1, 2, rng(), write).excess_risk).all()


@pytest.mark.parametrize(
    ("zeta", "told"),
    [
        (lambda call: np.zeros(3), "array of shape"),
        (lambda call: call.W + np.nan, "finite numbers"),
    ],
)
def test_poison_that_is_none_is_refused(zeta, told):
    with pytest.raises(ValueError, match=f"poison must give .*{told}"):
        poisoned_sgd(LOGISTIC, 3, 0.1, 2, rng(), zeta)
