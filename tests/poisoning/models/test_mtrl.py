from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.errors import SolverError
from poisoning.models import mtrl
from poisoning.models.mtrl import (
    TaskData,
    correlations,
    loss_slopes,
    objective,
    phi,
    relationship,
    solve_mtrl,
    task_scores,
)

LOSSES = ("square", "hinge")
LAMBDAS = ((0.1, 0.1), (0.003, 0.01))


def problem(loss, seed=0, m=4, n=25, d=6, rank=2, noise=0.3):
    """Related tasks of different sizes with a bias."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, d))
    X, y = [], []
    for i in range(m):
        rows = np.hstack(
            [rng.normal(size=(n - 3 * (i % 3), d - 1)) / d**0.5, np.ones((n - 3 * (i % 3), 1))]
        )
        scores = rows @ truth[i] + noise * rng.normal(size=len(rows))
        X.append(rows)
        y.append(scores if loss == "square" else np.where(scores > 0.0, 1.0, -1.0))
    return TaskData.from_tasks(X, y)


def subgradient_distance(data, loss, lambda1, lambda2, W, rank):
    """dist(0, ∂F(W)) for a W of this rank, from the definition of the subdifferential."""
    slopes = data.weight * loss_slopes(task_scores(data.X, W), data.y, loss)
    gradient = np.einsum("mn,mnd->md", slopes, data.X) + lambda1 * W
    U, s, Vt = np.linalg.svd(W)
    tau = lambda2 * s.sum()
    inside = U.T @ gradient @ Vt.T  # must be −τI on the rank, of norm at most τ off it
    inside[:rank, :rank] += tau * np.eye(rank)
    free = np.linalg.svd(inside[rank:, rank:], compute_uv=False)
    inside[rank:, rank:] = 0.0
    return np.hypot(np.linalg.norm(inside), np.linalg.norm(np.maximum(free - tau, 0.0)))


def length_at_zero(data, loss):
    slopes = data.weight * loss_slopes(0.0 * data.y, data.y, loss)
    return np.linalg.norm(np.einsum("mn,mnd->md", slopes, data.X))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("lambda1", "lambda2"), LAMBDAS)
def test_agrees_with_cvxpy_on_the_joint_problem(loss, lambda1, lambda2):
    data = problem(loss)
    m, d = 4, 6
    W, Omega = cp.Variable((m, d)), cp.Variable((m, m), PSD=True)
    scores = [data.X[i] @ W[i] for i in range(m)]
    if loss == "square":
        losses = [data.weight[i] @ cp.square(data.y[i] - scores[i]) for i in range(m)]
    else:
        losses = [
            data.weight[i] @ cp.square(cp.pos(1.0 - cp.multiply(data.y[i], scores[i])))
            for i in range(m)
        ]
    penalties = lambda1 / 2 * cp.sum_squares(W) + lambda2 / 2 * cp.matrix_frac(W, Omega)
    joint = cp.Problem(cp.Minimize(sum(losses) + penalties), [cp.trace(Omega) == 1.0])
    expected = joint.solve(solver=cp.CLARABEL)
    solution = solve_mtrl(data, loss, lambda1, lambda2, tol=1e-8)
    assert solution.objective == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(solution.W, W.value, atol=2e-3)
    assert relationship(solution.W) == pytest.approx(Omega.value, abs=2e-3)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("lambda1", "lambda2"), LAMBDAS)
@pytest.mark.parametrize("tol", [1e-4, 1e-10])
def test_the_residual_bounds_what_it_says(loss, lambda1, lambda2, tol):
    data = problem(loss, seed=2)
    exact = solve_mtrl(data, loss, lambda1, lambda2, tol=1e-12)
    found = solve_mtrl(data, loss, lambda1, lambda2, tol=tol)
    r = found.residual * length_at_zero(data, loss)
    rank = int(np.linalg.matrix_rank(found.W, tol=1e-12))
    assert found.residual <= tol
    assert subgradient_distance(data, loss, lambda1, lambda2, found.W, rank) <= r + 1e-12
    assert np.linalg.norm(found.W - exact.W) <= r / lambda1 + 1e-11
    assert 0.0 <= found.objective - exact.objective + 1e-13 <= r**2 / (2 * lambda1) + 2e-13


@pytest.mark.parametrize("loss", LOSSES)
def test_the_solution_is_found_from_anywhere(loss):
    data = problem(loss, seed=5)
    cold = solve_mtrl(data, loss, 0.003, 0.003, tol=1e-9)
    far = solve_mtrl(
        data,
        loss,
        0.003,
        0.003,
        tol=1e-9,
        start=30.0 * np.random.default_rng(0).normal(size=(4, 6)),
    )
    warm = solve_mtrl(data, loss, 0.003, 0.003, tol=1e-9, start=cold.W)
    np.testing.assert_allclose(far.W, cold.W, atol=1e-5)
    assert warm.iterations <= 3
    assert np.linalg.norm(warm.W - cold.W) < 1e-6


def test_hinges_far_within_their_margins_need_halved_steps(monkeypatch):
    """Newton's step from far out overshoots: rows that were flat are curved at its end."""
    halved, evaluate = [], mtrl.objective

    def watched(*arguments):
        halved.append(True)
        return evaluate(*arguments)

    monkeypatch.setattr(mtrl, "objective", watched)
    rng = np.random.default_rng(0)
    x = np.append(rng.normal(size=40), 30.0)
    X = np.stack([x, np.ones(41)], axis=-1)
    y = np.append(np.sign(x[:-1] + 0.1), -1.0)
    data = TaskData.from_tasks([X], [y])
    for scale in (0.1, 1.0, 10.0, 100.0):
        start = scale * rng.normal(size=(1, 2))
        solution = solve_mtrl(data, "hinge", 1e-3, 1e-3, start=start)
        assert solution.residual <= 1e-6
    assert halved


def test_no_more_is_promised_than_was_reached():
    data = problem("hinge")
    with pytest.raises(SolverError, match="after 3 proximal steps"):
        solve_mtrl(data, "hinge", 0.003, 0.003, max_iterations=3)
    for lambdas in ((0.0, 0.1), (0.1, -0.1)):
        with pytest.raises(ValueError, match=r"^lambda[12] must be"):
            solve_mtrl(data, "hinge", *lambdas)


def test_without_a_relationship_tasks_are_ridge_regressions():
    data = problem("square")
    W = solve_mtrl(data, "square", 0.05, 0.0, tol=1e-12).W
    for i in range(4):
        A = 2.0 * (data.X[i] * data.weight[i, :, None]).T @ data.X[i] + 0.05 * np.eye(6)
        b = 2.0 * data.X[i].T @ (data.weight[i] * data.y[i])
        assert W[i] == pytest.approx(np.linalg.solve(A, b), abs=1e-9)


def test_labels_that_are_all_zero_have_the_model_zero():
    data = problem("square")
    solution = solve_mtrl(replace(data, y=0.0 * data.y), "square", 0.1, 0.1)
    assert not solution.W.any()
    assert relationship(solution.W) == pytest.approx(np.eye(4) / 4)


many = settings(max_examples=15, derandomize=True, deadline=None)
cases = given(
    st.sampled_from(LOSSES), st.integers(0, 10**6), st.sampled_from((1e-3, 0.03, 1.0)),
    st.sampled_from((0.0, 0.01, 0.3)),
)  # fmt: skip


@many
@cases
def test_the_objective_is_not_above_that_of_any_other_model(loss, seed, lambda1, lambda2):
    data = problem(loss, seed)
    best = solve_mtrl(data, loss, lambda1, lambda2)
    near = best.W + 1e-3 * np.random.default_rng(seed).normal(size=best.W.shape)
    for other in (0.0 * best.W, near, 1.001 * best.W):
        assert best.objective <= objective(data, loss, lambda1, lambda2, other) + 1e-9


@many
@cases
def test_the_order_of_tasks_does_not_matter(loss, seed, lambda1, lambda2):
    data = problem(loss, seed)
    order = np.random.default_rng(seed).permutation(4)
    moved = TaskData(data.X[order], data.y[order], data.weight[order])
    W = solve_mtrl(data, loss, lambda1, lambda2, tol=1e-10).W
    again = solve_mtrl(moved, loss, lambda1, lambda2, tol=1e-10).W
    np.testing.assert_allclose(again, W[order], atol=1e-6)


@many
@cases
def test_rows_given_twice_with_half_the_weight_change_nothing(loss, seed, lambda1, lambda2):
    data = problem(loss, seed)
    twice = TaskData(
        np.concatenate([data.X, data.X], axis=1),
        np.concatenate([data.y, data.y], axis=1),
        np.concatenate([data.weight, data.weight], axis=1) / 2.0,
    )
    W = solve_mtrl(data, loss, lambda1, lambda2, tol=1e-10).W
    again = solve_mtrl(twice, loss, lambda1, lambda2, tol=1e-10).W
    np.testing.assert_allclose(again, W, atol=1e-6)


def test_padding_holds_nothing():
    data = problem("hinge")
    noise = np.where(data.weight > 0.0, 0.0, 7.0)
    padded = TaskData(data.X + noise[..., None], data.y + noise, data.weight)
    assert data.weight.sum(axis=1) == pytest.approx(np.ones(4))
    assert np.array_equal((data.weight > 0.0).sum(axis=1), [25, 22, 19, 25])
    W = solve_mtrl(data, "hinge", 0.1, 0.1).W
    np.testing.assert_allclose(solve_mtrl(padded, "hinge", 0.1, 0.1).W, W, atol=1e-12)


def test_the_relationship_is_the_covariance_that_minimises_the_penalty():
    W = np.random.default_rng(0).normal(size=(3, 5))
    Omega = relationship(W)
    variable = cp.Variable((3, 3), PSD=True)
    value = cp.Problem(cp.Minimize(cp.matrix_frac(W, variable)), [cp.trace(variable) == 1.0]).solve(
        solver=cp.CLARABEL
    )
    assert np.trace(Omega) == pytest.approx(1.0)
    assert np.trace(W.T @ np.linalg.solve(Omega, W)) == pytest.approx(value, rel=1e-6)
    assert Omega == pytest.approx(variable.value, abs=1e-3)


def test_correlations_of_tasks_with_and_without_variance():
    W = np.array([[1.0, 2.0], [-2.0, -4.0], [0.0, 0.0]])
    R = correlations(relationship(W))
    assert pytest.approx(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])) == R


def test_phi_of_a_singular_relationship():
    W = np.outer([1.0, -2.0, 0.5], [1.0, 1.0])
    Omega = relationship(W)
    Phi = phi(Omega, 0.1, 0.3)
    assert Phi @ (0.1 * Omega + 0.3 * np.eye(3)) == pytest.approx(Omega, abs=1e-14)
    regular = relationship(np.random.default_rng(0).normal(size=(3, 4)))
    inverse = 0.1 * np.eye(3) + 0.3 * np.linalg.inv(regular)
    assert phi(regular, 0.1, 0.3) == pytest.approx(np.linalg.inv(inverse))
