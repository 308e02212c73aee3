"""The implicit method against closed forms, retraining, scikit-learn and long reverse mode."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from poisoning.errors import SolverError
from poisoning.hypergradient.implicit import implicit
from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Objective, Problem, Rows
from poisoning.hypergradient.rmd import rmd

LOGISTIC = ["logistic", "logistic by matrix products", "logistic by autograd"]
TIGHT = {"tolerance": 1e-12, "residual": 1e-12}


def weakly_regularised(problem):
    """From zero, with λ low enough for the L1 problem to keep some weights."""
    start = torch.zeros_like(problem.initial)
    return replace(problem, initial=start, lam=problem.lam - 1.0)


def same(found, limit):
    for name in ("w", "poison", "lam", "values"):
        a, b = getattr(found, name), getattr(limit, name)
        np.testing.assert_allclose(a, b, atol=1e-9 * max(1.0, float(b.abs().max())))


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_long_reverse_mode_converges_to_it(problem_of, solver):
    problem = weakly_regularised(problem_of("logistic", rate=2.0, steps=3000))
    found = implicit(problem, solver=solver, **TIGHT)
    assert 0 < int((found.w[1] == 0).sum()) < found.w.shape[1]  # the L1 problem's zeros
    same(found, rmd(problem))


@pytest.mark.parametrize("solver", ["exact", "cg"])
@pytest.mark.parametrize("name", LOGISTIC)
def test_models_agree_and_say_how_well_they_did(problem_of, name, solver):
    problem = weakly_regularised(problem_of(name))
    found = implicit(problem, solver=solver, **TIGHT)
    same(found, implicit(replace(problem, model=problem_of("logistic").model), **TIGHT))
    assert float(found.diagnostics.gradient_norm.max()) <= 1e-12
    assert float(found.diagnostics.residual.max()) <= 1e-11


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_the_closed_form_with_dense_matrices(problem_of, solver):
    problem = problem_of("logistic", K=1, penalty="l2")
    found = implicit(problem, solver=solver, **TIGHT)
    w = found.w[0]
    rows = torch.cat([problem.clean.values(torch.float64), problem.poison[0]])
    rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    s = torch.sigmoid(rows @ w)
    y = problem.targets[0]
    share = problem.shares[0]
    reg = float(problem.lam.exp())
    H = (rows.T * (share * s * (1 - s))) @ rows + reg * torch.eye(8, dtype=torch.float64)
    _, (gradient, _) = problem.outer(found.w)
    v = torch.linalg.solve(H, gradient[0])
    curvature, pull = (share * s * (1 - s))[-4:], (share * (s - y))[-4:]
    cross = (curvature * (rows[-4:] @ v)).outer(w[:-1]) + pull.outer(v[:-1])
    np.testing.assert_allclose(found.poison[0, 0], -cross, rtol=1e-8, atol=1e-13)
    assert float(found.lam[0, 0]) == pytest.approx(float(-reg * (w @ v)), rel=1e-8)


def test_retraining_with_moved_poison(problem_of):
    problem = problem_of("logistic")
    found = implicit(problem, **TIGHT)
    g = torch.Generator().manual_seed(2)
    along = torch.randn(problem.poison.shape, generator=g, dtype=torch.float64)
    along[:, : problem.frozen] = 0.0
    size = 1e-4
    ends = [
        implicit(replace(problem, poison=problem.poison + s * along), **TIGHT).values
        for s in (size, -size)
    ]
    slope = (found.poison * along[:, problem.frozen :]).sum((-1, -2))
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * size), slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_scikit_learn_trains_the_same_model(problem_of, penalty):
    problem = problem_of("logistic", K=1, penalty=penalty)
    problem = replace(problem, lam=problem.lam - 1.0)
    found = implicit(problem, tolerance=1e-11)
    rows = torch.cat([problem.clean.values(torch.float64), problem.poison[0]])
    rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1).numpy()
    y = torch.cat([problem.clean.y, problem.poison_y[0]]).numpy()
    peer = LogisticRegression(
        C=1.0 / float(problem.lam.exp()),
        l1_ratio={"l2": 0.0, "l1": 1.0}[penalty],
        fit_intercept=False,
        solver={"l2": "newton-cg", "l1": "saga"}[penalty],
        tol=1e-10,
        max_iter=200_000,
        random_state=0,
    ).fit(rows, y, sample_weight=problem.shares[0].numpy())
    np.testing.assert_allclose(found.w[0], peer.coef_[0], atol=1e-6)


@pytest.mark.slow
def test_a_network_at_its_minimum(problem_of):
    problem = problem_of("mlp", K=2, penalty="l2", exponents=3)
    problem = replace(problem, lam=problem.lam + 1.0)
    found = implicit(problem, **TIGHT)
    dense = implicit(problem, solver="exact", **TIGHT)
    twin = implicit(replace(problem, model=problem_of("mlp by autograd").model), **TIGHT)
    for other in (dense, twin):
        np.testing.assert_allclose(found.poison, other.poison, atol=1e-9)
        np.testing.assert_allclose(found.lam, other.lam, atol=1e-9)


def test_what_does_not_converge_is_an_error(problem_of):
    problem = problem_of("logistic", penalty="l2")
    with pytest.raises(SolverError, match=r"after 1 Newton steps, tolerance 1.0e-08"):
        implicit(problem, max_newton=1)
    with pytest.raises(SolverError, match=r"conjugate gradients leave .* after 2 iterations"):
        implicit(problem, max_cg=2)
    with pytest.raises(SolverError, match=r"below what rounding allows|after 30 Newton steps"):
        implicit(problem, tolerance=1e-300, max_newton=30)


def test_a_saddle_is_not_differentiated(problem_of):
    """At w = 0, with balanced labels, a network is stationary and its Hessian indefinite."""
    problem = problem_of("logistic", K=1, penalty="l2")
    y = torch.cat([-torch.ones(16), torch.ones(15)]).double()
    clean = Rows(problem.clean.X, y)
    problem = replace(
        problem,
        model=MLP((4,), 0.5),
        clean=clean,
        poison_y=torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]]).double(),
        weights=None,
        initial=torch.zeros(1, 37, dtype=torch.float64),
        lam=problem.lam - 20.0,
        objectives=problem.objectives[:1],
    )
    with pytest.raises(SolverError, match="not positive definite"):
        implicit(problem, solver="exact")


def l1_problem(seed):
    """More weights than rows, features of any scale, strong and weak penalties."""
    rng = np.random.default_rng(seed)
    n, d, K = rng.integers(2, 40), rng.integers(5, 40), rng.integers(1, 4)
    scale = 10 ** rng.uniform(-1, 1)

    def rows(*shape):
        return torch.from_numpy(scale * rng.normal(size=(*shape, d)))

    def labels(*shape):
        return torch.from_numpy(np.where(rng.random(shape) < 0.5, 1.0, -1.0))

    return Problem(
        Logistic(),
        Rows(rows(n), labels(n)),
        rows(K, 3),
        labels(K, 3),
        (Objective(rows(9), labels(9)),),
        torch.from_numpy(rng.uniform(-6, 0, size=(K, 1))),
        0.1,
        1,
        torch.zeros(K, d + 1, dtype=torch.float64),
        "l1",
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 8, 14, 23, 48, 49, 79, 81, 94, 123])
def test_wide_l1_problems_are_trained_to_the_minimum(seed):
    problem = l1_problem(seed)
    found = implicit(problem)
    rows = torch.cat([problem.clean.X.expand(len(problem.poison), -1, -1), problem.poison], dim=1)
    rows = torch.nn.functional.pad(rows, (0, 1), value=1.0)
    slope = torch.sigmoid((rows @ found.w.unsqueeze(-1)).squeeze(-1)) - problem.targets
    gradient = (problem.shares.unsqueeze(-1) * slope.unsqueeze(-1) * rows).sum(dim=1)
    strength = problem.lam.exp()
    alive = found.w != 0
    assert float(((gradient + strength * found.w.sign()) * alive).abs().max()) <= 2e-8
    assert float(((gradient.abs() - strength) * ~alive).max()) <= 2e-8


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["tolerance", "residual", "max_newton", "max_cg", "solver"])
def test_settings_are_checked(problem_of, name):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        implicit(problem_of("logistic"), **{name: "cholesky" if name == "solver" else -1})
