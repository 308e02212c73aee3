"""All methods, models and trajectories against each other, finite differences and torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from poisoning.errors import SolverError
from poisoning.hypergradient.fmd import fmd
from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Objective, Rows
from poisoning.hypergradient.rmd import largest_stable_step, rmd

LOGISTIC = ["logistic", "logistic by matrix products", "logistic by autograd"]
NETWORKS = ["mlp", "relu", "mlp by autograd"]


def close(one, other, tolerance=1e-9):
    for name in ("poison", "lam", "w", "values"):
        a, b = getattr(one, name), getattr(other, name)
        assert float((a - b).abs().max()) <= tolerance * max(1e-3, float(b.abs().max())), name


def outer_values(problem):
    """A by training alone."""
    w = problem.initial
    for _ in range(problem.steps):
        w = problem.step(w, problem.model.linearise(problem, w).gradient)
    return problem.outer(w)[0]


@pytest.mark.parametrize("name", LOGISTIC + NETWORKS)
@pytest.mark.slow
def test_checkpoints_change_nothing_but_rounding(problem_of, name):
    problem = problem_of(name, exponents=3 if "mlp" in name else 1)
    close(rmd(problem, trajectory="checkpointed"), rmd(problem))


@pytest.mark.parametrize("name", LOGISTIC + NETWORKS)
@pytest.mark.slow
def test_forward_mode_has_the_same_derivative_by_lam(problem_of, name):
    problem = problem_of(name, exponents=3 if "mlp" in name else 1)
    found, expected = fmd(problem), rmd(problem)
    assert found.poison is None
    np.testing.assert_allclose(found.lam, expected.lam, rtol=1e-9, atol=1e-12)
    assert torch.equal(found.w, expected.w) or float((found.w - expected.w).abs().max()) < 1e-12


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("logistic", "logistic by matrix products"),
        ("logistic", "logistic by autograd"),
        ("mlp", "mlp by autograd"),
    ],
)
def test_models_agree(problem_of, one, other, pixels):
    first = problem_of(one, pixels=pixels)
    assert (first.frozen_pixels is not None) == pixels
    close(rmd(first), rmd(replace(first, model=problem_of(other).model)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("scale", "offset"), [(1.0 / 255.0, 0.0), (2.0 / 255.0, -1.0)])
def test_bytes_are_recognised_to_rounding_and_nothing_else(dtype, scale, offset):
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 32, 8)
    rows = Rows(every[0], torch.ones(32), scale, offset)
    values = (every.to(dtype) * scale + offset).clamp(offset, 1.0)
    assert torch.equal(rows.pixels(values).X, every)
    moved = values.clone()
    moved[0, 31, 6] += (1e-2 if dtype == torch.float32 else 1e-6) * scale
    assert rows.pixels(moved) is None
    torch.testing.assert_close(rows.nearest(moved), values)
    others = Rows(rows.values(dtype), rows.y)
    assert others.pixels(values) is None
    assert torch.equal(others.nearest(moved), moved)


@pytest.mark.parametrize("name", ["logistic", "mlp", "relu", "mlp by autograd"])
@pytest.mark.slow
def test_finite_differences(problem_of, name):
    problem = problem_of(name, exponents=3 if "mlp" in name else 1)
    found = rmd(problem)
    g = torch.Generator().manual_seed(1)
    along = torch.randn(problem.poison.shape, generator=g, dtype=torch.float64)
    along[:, : problem.frozen] = 0.0
    size = 1e-6

    def difference(field, direction):
        ends = [
            outer_values(replace(problem, **{field: getattr(problem, field) + sign * direction}))
            for sign in (size, -size)
        ]
        return (ends[0] - ends[1]) / (2.0 * size)

    slope = (found.poison * along[:, problem.frozen :]).sum((-1, -2))
    np.testing.assert_allclose(difference("poison", along), slope, rtol=1e-5, atol=1e-8)
    for group in range(problem.lam.shape[1]):
        unit = torch.zeros_like(problem.lam)
        unit[:, group] = 1.0
        np.testing.assert_allclose(
            difference("lam", unit), found.lam[..., group], rtol=1e-5, atol=1e-8
        )


def test_l1_reaches_zeros_where_finite_differences_still_agree(problem_of):
    problem = replace(
        problem_of("logistic", penalty="l1", steps=60), lam=torch.full((3, 1), -3.0).double()
    )
    found = rmd(problem)
    assert 0 < int((found.w == 0).sum()) < found.w.numel()
    size = 1e-6
    ends = [outer_values(replace(problem, lam=problem.lam + s)) for s in (size, -size)]
    np.testing.assert_allclose(
        (ends[0] - ends[1]) / (2 * size), found.lam[..., 0], rtol=1e-5, atol=1e-9
    )


def unrolled(problem):
    """One problem without batch, kernels or weights: torch differentiates the whole training."""
    X = problem.clean.values(torch.float64)
    free = problem.poison[0].clone().requires_grad_()
    lam = problem.lam[0].clone().requires_grad_()
    w = torch.zeros(X.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    y = torch.cat([problem.clean.y, problem.poison_y[0]])
    for _ in range(problem.steps):
        rows = torch.cat([X, free])
        loss = softplus(-y * (rows @ w[:-1] + w[-1])).mean() + 0.5 * lam[0].exp() * (w @ w)
        (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
        w = w - problem.rate * gradient
    objective = problem.objectives[0]
    value = softplus(-objective.y * (objective.X @ w[:-1] + w[-1])).mean()
    return torch.autograd.grad(value, (free, lam))


def test_torch_differentiates_the_unrolled_training_to_the_same(problem_of):
    problem = problem_of("logistic", K=1, penalty="l2")
    problem = replace(problem, weights=None, frozen=0, objectives=problem.objectives[:1])
    d_poison, d_lam = unrolled(problem)
    found = rmd(problem)
    np.testing.assert_allclose(found.poison[0, 0], d_poison, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(found.lam[0, 0], d_lam, rtol=1e-9)


@pytest.mark.parametrize(("name", "K"), [("logistic", 5), ("logistic", 10), ("mlp", 10)])
@pytest.mark.slow
def test_a_batch_is_its_problems_one_by_one(problem_of, name, K):
    penalty = (("l2", "l1") * K)[:K]
    batch = problem_of(name, K=K, penalty=penalty)
    batch = replace(batch, rate=torch.linspace(0.1, 0.4, K, dtype=torch.float64))
    together = rmd(batch)
    for k in (0, 3, K - 1):
        own, target = batch.objectives
        alone = replace(
            batch,
            poison=batch.poison[k : k + 1],
            poison_y=batch.poison_y[k : k + 1],
            lam=batch.lam[k : k + 1],
            rate=float(batch.rate[k]),
            initial=batch.initial[k : k + 1],
            penalty=penalty[k],
            weights=batch.weights[k : k + 1],
            objectives=(own, replace(target, X=target.X[k], y=target.y[k])),
        )
        one = rmd(alone)
        np.testing.assert_allclose(together.poison[:, k], one.poison[:, 0], atol=1e-14)
        np.testing.assert_allclose(together.lam[:, k], one.lam[:, 0], atol=1e-14)


def test_objectives_share_a_trajectory_and_nothing_else(problem_of):
    problem = problem_of("logistic")
    both = rmd(problem)
    for j, objective in enumerate(problem.objectives):
        one = rmd(replace(problem, objectives=(objective,)))
        assert torch.equal(one.poison[0], both.poison[j])
        assert torch.equal(one.lam[0], both.lam[j])


@pytest.mark.parametrize("name", [*LOGISTIC[:2], "mlp by autograd"])
@pytest.mark.slow
def test_rows_of_weight_zero_are_absent(problem_of, name):
    problem = problem_of(name, K=1, penalty="l2")
    kept = problem.weights[0] > 0
    clean = replace(problem.clean, X=problem.clean.X[kept], y=problem.clean.y[kept], _kept={})
    close(rmd(problem), rmd(replace(problem, clean=clean, weights=None)), 1e-12)


def test_frozen_rows_train_but_are_not_differentiated(problem_of):
    problem = problem_of("logistic")
    free = rmd(replace(problem, frozen=0))
    some = rmd(replace(problem, frozen=3))
    np.testing.assert_allclose(some.poison, free.poison[:, :, 3:], atol=1e-15)
    assert torch.equal(some.w, free.w)


def test_pixels_and_floats_are_the_same_rows(problem_of):
    problem = problem_of("logistic")
    for dtype in (torch.float32, torch.float64):
        clean = Rows(problem.clean.X.to(dtype), problem.clean.y, 1.0 / 255.0, -0.1)
        close(rmd(replace(problem, clean=clean)), rmd(problem), 1e-12)
    close(
        rmd(replace(problem, clean=Rows(problem.clean.values(torch.float64), problem.clean.y))),
        rmd(problem),
        1e-12,
    )


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_single_precision_is_close(problem_of, name):
    problem = problem_of(name, penalty="l2")
    single = replace(
        problem,
        poison=problem.poison.float(),
        poison_y=problem.poison_y.float(),
        lam=problem.lam.float(),
        initial=problem.initial.float(),
        weights=problem.weights.float(),
        objectives=tuple(replace(o, X=o.X.float(), y=o.y.float()) for o in problem.objectives),
    )
    exact, found = rmd(problem), rmd(single)
    assert found.poison.dtype == torch.float32
    assert (found.poison - exact.poison).norm() < 1e-5 * exact.poison.norm()
    assert (found.lam - exact.lam).norm() < 1e-5 * exact.lam.norm()


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_the_same_call_gives_the_same_bits(problem_of, name):
    one, other = rmd(problem_of(name)), rmd(problem_of(name))
    assert torch.equal(one.poison, other.poison)
    assert torch.equal(one.lam, other.lam)
    checkpointed = rmd(problem_of(name), trajectory="checkpointed")
    assert torch.equal(one.w, checkpointed.w)


@pytest.mark.parametrize("name", LOGISTIC)
def test_the_largest_stable_step_of_logistic_regression(problem_of, name):
    problem = problem_of(name, penalty="l2")
    problem = replace(problem, initial=torch.zeros_like(problem.initial))
    limit = largest_stable_step(problem)
    for k in range(3):
        rows = torch.cat([problem.clean.values(torch.float64), problem.poison[k]])
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        H = (rows.T * problem.shares[k] / 4.0) @ rows
        largest = float(torch.linalg.eigvalsh(H)[-1] + problem.lam[k].exp())
        assert float(limit[k]) == pytest.approx(2.0 / largest, rel=2e-3)


@pytest.mark.parametrize("method", [rmd, fmd])
def test_a_step_beyond_stability_is_refused_before_training(problem_of, method, monkeypatch):
    problem = problem_of("logistic")
    limit = float(largest_stable_step(problem)[1])
    rates = torch.tensor([0.1, 1.01 * limit, 0.1], dtype=torch.float64)
    monkeypatch.setattr(Logistic, "record", None)
    with pytest.raises(ValueError, match=rf"step size .* beyond stability.*problem 1.*{limit:.4g}"):
        method(replace(problem, rate=rates))


def test_a_network_that_diverges_is_an_error(problem_of):
    problem = problem_of("relu", penalty="l2", rate=1e25)
    with pytest.raises(SolverError, match="12 steps of size 1e\\+25"):
        rmd(problem)


@pytest.mark.parametrize("name", ["logistic", "logistic by matrix products"])
@pytest.mark.slow
def test_trajectories_trade_memory(problem_of, name):
    problem = problem_of(name, penalty="l2", rate=0.05, steps=36)
    kept = {
        trajectory: rmd(problem, trajectory=trajectory).diagnostics.kept_bytes
        for trajectory in ("stored", "checkpointed")
    }
    assert kept["checkpointed"] < kept["stored"] / 2
    assert fmd(problem).diagnostics.kept_bytes < kept["checkpointed"]


@pytest.mark.parametrize("steps", [1, 2, 7, 10])
def test_checkpoints_cover_any_number_of_steps(problem_of, steps):
    problem = problem_of("logistic", steps=steps)
    close(rmd(problem, trajectory="checkpointed"), rmd(problem), 1e-13)


def test_the_gradient_norm_is_that_of_the_inner_objective(problem_of):
    problem = problem_of("logistic", penalty="l2", K=1)
    found = rmd(problem)
    w = found.w.clone().requires_grad_()
    rows = torch.cat([problem.clean.values(torch.float64), problem.poison[0]])
    f = rows @ w[0, :-1] + w[0, -1]
    y = torch.cat([problem.clean.y, problem.poison_y[0]])
    F = (problem.shares[0] * softplus(-y * f)).sum() + 0.5 * problem.lam.exp().sum() * (w @ w.T)
    (gradient,) = torch.autograd.grad(F.sum(), w)
    assert float(found.diagnostics.gradient_norm) == pytest.approx(float(gradient.norm()))


def test_no_regularisation_is_an_exponent_of_minus_infinity(problem_of):
    problem = problem_of("logistic")
    free = replace(problem, lam=torch.full_like(problem.lam, -torch.inf))
    tiny = replace(problem, lam=torch.full_like(problem.lam, -60.0))
    found = rmd(free)
    assert float(found.lam.abs().max()) == 0.0
    np.testing.assert_allclose(found.poison, rmd(tiny).poison, rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poison_y": torch.zeros(3, 5, dtype=torch.float64)}, "poison_y must be -1"),
        ({"frozen": 6}, "frozen must be a whole number from 0 to 5"),
        ({"rate": 0.0}, "rate must be"),
        ({"steps": 0}, "steps must be"),
        (
            {"initial": torch.zeros(3, 4, dtype=torch.float64)},
            r"initial must have the shape \(3, 8\)",
        ),
        ({"lam": torch.zeros(3, 5, dtype=torch.float64)}, "5 exponents"),
        ({"penalty": ("l1",)}, "one for each of 3 problems"),
        ({"objectives": ()}, "at least one outer objective"),
    ],
)
def test_a_problem_that_does_not_fit_together_is_refused(problem_of, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(problem_of("logistic"), **changes)


def test_other_refusals():
    with pytest.raises(ValueError, match="y must be -1"):
        Rows(torch.zeros(2, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="no hidden layers"):
        Logistic((3,))


def test_initial_parameters_are_xavier_uniform():
    model = MLP((32, 8), 0.01)
    generator = torch.Generator().manual_seed(0)
    w = model.initial(784, generator)
    assert w.shape == (1, 25_393)
    layers = model.layers(784)
    assert torch.bincount(layers).tolist() == [785 * 32, 33 * 8, 9]
    first = w[:, : 784 * 32]
    assert float(first.abs().max()) == pytest.approx((6.0 / 816.0) ** 0.5, rel=1e-3)
    assert bool((w[:, 784 * 32 : 785 * 32] == 0).all())
    assert not torch.equal(w, model.initial(784, generator))
    assert not Logistic().initial(784, generator).any()


def test_a_custom_objective_is_differentiated(problem_of):
    """A targeted attack: push one point's score across."""
    problem = problem_of("logistic", K=2, penalty="l2")
    point = torch.full((1, 7), 0.4, dtype=torch.float64)
    target = Objective(point, torch.ones(1, dtype=torch.float64), lambda f, y: (f * y).sum(-1))
    found = rmd(replace(problem, objectives=(target,)))
    scores = problem.model.scores(found.w, point)
    np.testing.assert_allclose(found.values[0], scores[:, 0])
