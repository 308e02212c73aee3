import numpy as np
import pytest

from poisoning.errors import SolverError
from poisoning.models.mtrl import TaskData, objective, relationship, solve_mtrl
from poisoning.models.mtrl_alternating import solve_alternating


def problem(loss, seed=0, m=5, n=40, d=8):
    """Tasks around two directions."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(m, 2)) @ rng.normal(size=(2, d))
    X = np.concatenate([rng.normal(size=(m, n, d - 1)) / d**0.5, np.ones((m, n, 1))], axis=-1)
    y = np.einsum("mnd,md->mn", X, truth) + 0.3 * rng.normal(size=(m, n))
    y = y if loss == "square" else np.where(y > 0.0, 1.0, -1.0)
    return TaskData(X, y, np.full((m, n), 1.0 / n))


@pytest.mark.parametrize("loss", ["square", "hinge"])
@pytest.mark.slow
def test_it_comes_near_the_minimum_and_never_rises(loss):
    data = problem(loss)
    exact = solve_mtrl(data, loss, 0.01, 0.01, tol=1e-9)
    found = solve_alternating(data, loss, 0.01, 0.01, tol=1e-9)
    assert np.all(np.diff(found.objectives) <= 1e-12)
    assert -1e-12 <= found.objectives[-1] / exact.objective - 1.0 <= 2e-3
    assert found.objectives[-1] == pytest.approx(
        objective(data, loss, 0.01, 0.01, found.W), rel=1e-9
    )
    assert found.Omega == pytest.approx(relationship(found.W), abs=1e-9)


@pytest.mark.parametrize("loss", ["square", "hinge"])
def test_the_w_step_solves_equation_8(loss):
    """After one pair of steps from Ω = I/m, W is the solution of separate ridge problems."""
    data = problem(loss)
    with pytest.raises(SolverError, match="still falls"):
        solve_alternating(data, loss, 0.02, 0.01, tol=1e-300, max_iterations=1)
    found = solve_alternating(data, loss, 0.02, 0.01, tol=1.0, max_iterations=1)
    separate = solve_mtrl(data, loss, 0.02 + 5 * 0.01, 0.0, tol=1e-10)
    np.testing.assert_allclose(found.W, separate.W, atol=1e-8)
    s = np.linalg.svd(found.W, compute_uv=False)
    assert found.spectra[0] == pytest.approx(s / s.sum())


@pytest.mark.slow
def test_it_stops_above_the_minimum_where_omega_is_nearly_singular():
    """Both steps stand still there, though F has a descent direction: Ω can no longer turn."""
    data = problem("square")
    found = solve_alternating(data, "square", 0.01, 0.05, tol=1e-14)
    exact = solve_mtrl(data, "square", 0.01, 0.05, tol=1e-10)
    assert found.spectra[-1, -1] < 1e-12
    assert found.objectives[-1] > exact.objective * (1.0 + 1e-7)
    lowered = solve_mtrl(data, "square", 0.01, 0.05, tol=1e-3, start=found.W)
    assert lowered.objective < found.objectives[-1]


def test_a_floor_keeps_every_eigenvalue_up_and_solves_its_own_problem():
    data = problem("square")
    floored = solve_alternating(data, "square", 0.01, 0.05, tol=1e-12, floor=0.02)
    values = np.linalg.eigvalsh(floored.Omega)
    assert values.min() >= 0.02 - 1e-12
    assert values.sum() == pytest.approx(1.0)
    assert np.all(np.diff(floored.objectives) <= 1e-12)
    inverse = np.linalg.inv(floored.Omega)
    slopes = 2.0 * data.weight * (np.einsum("mnd,md->mn", data.X, floored.W) - data.y)
    gradient = np.einsum("mn,mnd->md", slopes, data.X)
    penalty = (0.01 * np.eye(5) + 0.05 * inverse) @ floored.W
    assert np.linalg.norm(gradient + penalty) < 1e-4 * np.linalg.norm(gradient)
    same = solve_alternating(data, "square", 0.01, 0.05, floor=0.2)
    assert same.Omega == pytest.approx(np.eye(5) / 5)


def test_labels_that_are_all_zero_leave_omega_even():
    data = problem("square")
    found = solve_alternating(TaskData(data.X, 0.0 * data.y, data.weight), "square", 0.1, 0.1)
    assert not found.W.any()
    assert found.Omega == pytest.approx(np.eye(5) / 5)


@pytest.mark.parametrize("floor", [-0.1, 0.3])
def test_a_floor_that_no_covariance_of_trace_one_has(floor):
    with pytest.raises(ValueError, match="floor"):
        solve_alternating(problem("square"), "square", 0.1, 0.1, floor=floor)
