"""Budgets and the ascent of the reversed loss: regimes A and B."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.attacks.ascent import (
    OverallBudget,
    PerSampleBudget,
    ascend,
    reversed_cross_entropy,
    reversed_logistic,
)
from poisoning.models.two_layer import TwoLayerNets

BUDGETS = [OverallBudget(6.0), PerSampleBudget(1.0)]


def perturbations(seed=0, n=9, d=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * rng.exponential(size=(n, 1))


def constraint(budget, delta):
    norms = cp.norm(delta, 2, axis=1)
    if isinstance(budget, OverallBudget):
        return cp.sum(norms) <= budget.total
    return norms <= budget.largest


def size(budget, delta):
    """How much of the budget is used; 1 is all of it."""
    norms = np.linalg.norm(delta, axis=1)
    if isinstance(budget, OverallBudget):
        return norms.sum() / budget.total
    return norms.max() / budget.largest


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("seed", range(3))
def test_projections_are_the_nearest_points_by_an_independent_solver(budget, seed):
    delta = perturbations(seed)
    point = cp.Variable(delta.shape)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(point - delta)), [constraint(budget, point)])
    problem.solve(solver=cp.CLARABEL)
    assert size(budget, delta) > 1.0
    assert np.allclose(budget.project(delta), point.value, atol=1e-4)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 30.0), st.integers(1, 40), st.booleans())
def test_projections_are_feasible_idempotent_and_variational(seed, radius, n, overall):
    budget = (OverallBudget if overall else PerSampleBudget)(radius)
    delta, other = perturbations(seed, n), perturbations(seed + 1, n)
    inside = budget.project(delta)
    assert size(budget, inside) <= 1.0 + 1e-12
    assert np.allclose(budget.project(inside), inside, atol=1e-12)
    feasible = budget.project(other)
    assert np.sum((delta - inside) * (feasible - inside)) <= 1e-9 * (1.0 + np.sum(delta**2))


@pytest.mark.parametrize("budget", BUDGETS)
def test_torch_projects_and_steps_like_numpy(budget):
    delta = perturbations()
    delta[3] = 0.0
    tensor = torch.as_tensor(delta)
    assert np.allclose(budget.project(tensor).numpy(), budget.project(delta), atol=1e-14)
    assert np.allclose(budget.step(tensor).numpy(), budget.step(delta), atol=1e-14)
    assert size(budget, budget.step(delta)) == pytest.approx(1.0)
    assert np.array_equal(budget.project(delta)[3], np.zeros(4))
    assert np.array_equal(budget.step(np.zeros((2, 4))), np.zeros((2, 4)))
    single = budget.project(torch.as_tensor(delta, dtype=torch.float32))
    assert single.dtype == torch.float32
    assert size(budget, single.numpy()) <= 1.0 + 1e-6


def test_an_overall_budget_spends_where_there_is_most_to_move():
    delta = np.array([[3.0, 4.0], [0.0, 1.0], [2.0, 0.0]])
    assert np.allclose(np.linalg.norm(OverallBudget(4.0).project(delta), axis=1), [3.5, 0.0, 0.5])


def reference(d=6):
    return TwoLayerNets.draw(3, 40, d, np.random.default_rng(8), np.float64)


def test_reversed_logistic_is_a_gradient():
    nets, rng = reference(), np.random.default_rng(0)
    X, y = rng.normal(size=(5, 6)), np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    X[0] *= 300.0  # far on one side: no overflow

    def objective(X):
        return -np.logaddexp(0.0, y * nets.scores(X).mean(axis=0)).sum()

    numeric = np.empty_like(X)
    for index in np.ndindex(X.shape):
        up, down = X.copy(), X.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        numeric[index] = (objective(up) - objective(down)) / 2e-6
    assert np.allclose(reversed_logistic(nets)(X, y), numeric, atol=1e-6)


def test_with_two_classes_the_cross_entropy_is_the_logistic_loss():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(2300, 6)), rng.choice([-1.0, 1.0], 2300)
    nets = TwoLayerNets(reference().W[:1], reference().a[:1])
    W, a = torch.as_tensor(nets.W[0]), torch.as_tensor(nets.a[0])

    def model(inputs):
        f = torch.relu(inputs @ W.T) @ a / 40**0.5
        return torch.stack([-f / 2.0, f / 2.0], dim=1)

    gradient = reversed_cross_entropy(model)(torch.as_tensor(X), torch.as_tensor(y > 0.0).long())
    assert np.allclose(gradient.numpy(), reversed_logistic(nets)(X, y), atol=1e-12)


@pytest.mark.parametrize("budget", [OverallBudget(6.0), PerSampleBudget(0.4)])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
def test_ascent_gains_within_budget_and_bounds(budget, bounds):
    nets, rng = reference(), np.random.default_rng(0)
    X = rng.random((30, 6))
    X[:, 0], X[:, 1] = 0.0, 1.0
    y = np.where(nets.scores(X).mean(axis=0) > 0.0, 1.0, -1.0)
    attacked = ascend(reversed_logistic(nets), X, y, budget, steps=30, rate=0.2, bounds=bounds)
    assert size(budget, attacked - X) == pytest.approx(1.0, abs=0.05)
    assert size(budget, attacked - X) <= 1.0 + 1e-9
    if bounds:
        assert attacked.min() >= 0.0
        assert attacked.max() <= 1.0
    before, after = (y * nets.scores(inputs).mean(axis=0) for inputs in (X, attacked))
    assert -np.logaddexp(0.0, after).sum() > -np.logaddexp(0.0, before).sum()
    assert after.mean() < before.mean() - 0.1


def test_ascent_on_a_linear_model_reaches_the_optimum():
    """Without bounds the best δ_i of length B against f = w·x is −y_i B w/‖w‖."""
    w = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)

    def model(inputs):
        return torch.cat([-inputs @ w.T, inputs @ w.T], dim=1)

    X, y = torch.zeros((4, 3), dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    attacked = ascend(
        reversed_cross_entropy(model), X, y, PerSampleBudget(0.7), steps=20, rate=0.1, bounds=None
    )
    expected = torch.outer(1.0 - 2.0 * y, 0.7 * w[0] / w.norm())
    assert torch.allclose(attacked, expected, atol=1e-12)


def test_ascent_refuses_examples_outside_their_bounds():
    with pytest.raises(ValueError, match="bounds 0 to 1"):
        ascend(
            reversed_logistic(reference()), np.full((2, 6), 1.5), np.ones(2), BUDGETS[1],
            steps=1, rate=1.0,
        )  # fmt: skip


def test_the_way_stays_in_the_precision_of_the_examples():
    X, y = np.ones((3, 2), np.float32), np.array([1, -1, 1])
    moved = ascend(
        lambda X, y: y[:, None] * X, X, y, PerSampleBudget(0.1), steps=2, rate=0.1, bounds=None
    )
    assert moved.dtype == np.float32
