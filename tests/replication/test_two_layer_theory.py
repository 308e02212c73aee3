import cvxpy as cp
import numpy as np
import pytest

from poisoning.errors import SolverError
from replication import two_layer_theory as theory


def examples(n=30, d=5, gap=0.2, seed=0):
    """Unit examples on both sides of a gap."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(4 * n, d))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    X = X[np.abs(X[:, 0]) > gap][:n]
    return X, np.where(X[:, 0] > 0.0, 1.0, -1.0)


def test_margin_is_that_of_an_independent_solver():
    X, y = examples()
    ours = theory.tangent_margin(X, y, np.random.default_rng(1), neurons=20, fresh=10, tol=1e-6)
    active = (np.random.default_rng(1).standard_normal((20, 5)) @ X.T >= 0.0).astype(float)
    v, gamma = cp.Variable((20, 5)), cp.Variable()
    margins = cp.multiply(y, cp.sum(cp.multiply(v @ X.T, active), axis=0) / 20)
    problem = cp.Problem(cp.Maximize(gamma), [margins >= gamma, cp.norm(v, 2, axis=1) <= 1.0])
    problem.solve(solver=cp.CLARABEL)
    assert ours.value == pytest.approx(gamma.value, rel=1e-5)
    assert ours.gap <= 1e-6
    assert ours.neurons == 20


def test_two_opposite_examples_have_the_margin_of_half_a_sphere():
    """v̄ = x at every neuron gives both 1/2, for every neuron is active on one of them."""
    X, y = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([1.0, -1.0])
    ours = theory.tangent_margin(X, y, np.random.default_rng(0), neurons=4000, fresh=4000)
    assert ours.value == pytest.approx(0.5, abs=0.02)
    assert ours.lower <= ours.upper == pytest.approx(0.5, abs=0.02)


def test_estimates_bracket_each_other_and_more_neurons_close_the_bracket():
    X, y = examples(40)
    small, large = (
        theory.tangent_margin(X, y, np.random.default_rng(2), neurons=m, fresh=20_000)
        for m in (30, 1000)
    )
    for estimate in (small, large):
        assert estimate.lower < estimate.upper
        assert estimate.value > 0.0
    assert small.value < large.upper  # few neurons err low
    assert large.upper - large.lower < 0.5 * (small.upper - small.lower)
    assert large.lower * 0.9 <= large.value <= large.upper * 1.1


def test_examples_that_contradict_each_other_have_no_margin():
    X, y = examples()
    X[1] = X[0]
    y[:2] = 1.0, -1.0
    with pytest.raises(SolverError, match="contradict"):
        theory.tangent_margin(X, y, np.random.default_rng(0), neurons=20, max_iterations=50)


def test_wrong_arguments_are_refused():
    X, y = examples()
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unit length"):
        theory.tangent_margin(2.0 * X, y, rng)
    with pytest.raises(ValueError, match="labels"):
        theory.tangent_margin(X, 0.0 * y, rng)
    with pytest.raises(ValueError, match="max_iterations"):
        theory.tangent_margin(X, y, rng, max_iterations=0)


def test_bounds_are_those_of_the_slides():
    n, gamma, delta = 10_000, 0.1, 0.05
    log = np.log(25.0) ** 2 + np.log(24 * 10_000 / 0.05)
    assert theory.risk_few_large(n, gamma, delta) == pytest.approx(log / (100 * 0.01))
    assert theory.risk_many_small(n, gamma, delta) == pytest.approx(log / (10_000 * 0.01))
    log = np.log(25.0) ** 2 + np.log(16 * 10_000 / 0.05)
    assert theory.risk_label_flips(n, gamma, delta) == pytest.approx(log / (100 * 0.01))


def test_the_range_of_widths_is_empty_beyond_its_budget():
    """γ⁻⁸ ≤ n/(γ⁴S²) is S ≤ γ²√n."""
    n, gamma = 10_000, 0.5
    limit = gamma**2 * np.sqrt(n)
    m = theory.least_width(gamma)
    assert theory.largest_total(m, n, gamma) == pytest.approx(limit)
    small = theory.largest_single(100, gamma)
    assert small == pytest.approx(0.05)
    assert theory.few_large_holds(m, n, 100, gamma, 0.99 * limit, small)
    assert not theory.few_large_holds(m, n, 100, gamma, 1.01 * limit, small)
    assert not theory.few_large_holds(m, n, 100, gamma, 0.99 * limit, 1.01 * small)
    assert not theory.few_large_holds(0.99 * m, n, 100, gamma, 0.0, small)


def test_regions_are_evaluated_on_grids():
    m = 2.0 ** np.arange(4, 16)
    n, d, gamma, delta = 10_000, 100, 0.5, 0.05
    of_many = theory.largest_of_many(m, n, d, gamma, delta)
    expected = 1.0 / (np.sqrt(m * d) + np.sqrt(m * np.log(m / delta)))
    assert of_many[-1] == pytest.approx(expected[-1])
    assert np.all(np.diff(of_many) < 0.0)
    holds = theory.many_small_holds(m, n, d, gamma, 1e-3, delta)
    assert np.array_equal(holds, (m >= 256.0) & (of_many >= 1e-3))
    assert 0 < holds.sum() < len(m)
    rates = theory.largest_flip_rate(m, n, gamma, delta)
    logs = np.log(n / delta)
    assert rates[0] == pytest.approx(
        (logs + np.log(n) ** 2) / ((np.sqrt(logs) + 0.125 * np.sqrt(16 * 1.5)) * 0.25 * 100)
    )
    assert np.all(np.diff(rates) < 0.0)
    holds = theory.label_flips_hold(m, n, gamma, 0.8, delta)
    assert np.array_equal(holds, (m >= 256.0) & (rates >= 0.8))
