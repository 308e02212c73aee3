"""The specialised solver against cvxpy, its certificate, and what a set promises."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from poisoning.errors import SolverError
from poisoning.feasible import reference, solver
from poisoning.feasible.sets import ClassSet, FeasibleSet, InputDomain
from poisoning.feasible.solver import (
    EmptySetError,
    LinearProblem,
    match_gradient,
    minimise_linear,
    project,
)
from poisoning.feasible.solver_kernels import nonnegative

KINDS = ("counts", "box01", "nonnegative", "real")
# Problem (17)'s objective is small beside Clarabel's default absolute tolerance.
TIGHT = {"tol_gap_abs": 1e-10}
SEEDS = st.integers(0, 2**32 - 1)


def data(kind, rng, n=60, d=12):
    y = np.where(np.arange(n) % 3 == 0, 1.0, -1.0)
    rate = np.exp(rng.normal(size=d)) * np.where(y[:, None] > 0, 1.5, 1.0)
    if kind == "counts":
        X = rng.poisson(0.7 * rate).astype(float)
        X[:, 0] = 0.0  # a word that never occurs
    elif kind == "box01":
        X = rng.beta(1.0, 2.0, size=(n, d)) * (rng.random((n, d)) < 0.7)
    elif kind == "nonnegative":
        X = rng.gamma(0.5, rate)
    else:
        X = rng.normal(size=(n, d)) + 0.5 * y[:, None]
    return X, y


def problem(kind, seed, d=12):
    """A feasible set under a decoy, and a gradient of a size that poison can partly match."""
    rng = np.random.default_rng(seed)
    X, y = data(kind, rng, d=d)
    feasible = FeasibleSet.fit(X, y, InputDomain.of(kind, X))
    theta = 0.3 * rng.normal(size=d) / max(X.std(), 0.1)
    # The band of margins is put where the clean points of the class are, so that no set is empty.
    middle = {label: float(np.median(X[y == label] @ theta)) for label in (1.0, -1.0)}
    feasible = FeasibleSet(
        feasible.positive.with_row(theta, middle[1.0] - 0.8, middle[1.0] + 0.1),
        feasible.negative.with_row(theta, -np.inf, middle[-1.0] + 0.2),
    )
    return feasible, 0.05 * rng.normal(size=d), rng


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weights", [(0.03, 0.0), (0.0, 0.03), (0.01, 0.02)])
def test_kkt_problem_reaches_the_optimum_of_cvxpy(kind, seed, weights):
    feasible, g, _ = problem(kind, seed)
    ours = match_gradient(g, *weights, feasible)
    optimum, _ = reference.match_gradient(g, *weights, feasible, **TIGHT)
    assert ours.objective == pytest.approx(optimum, rel=1e-6, abs=1e-8 * g @ g)
    assert ours.violation < 1e-8
    # The certificate: nothing feasible is better than objective − gap.
    assert optimum >= ours.objective - ours.gap - 1e-8 * g @ g


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_linear_minimum_is_that_of_cvxpy(kind, seed):
    feasible, _, rng = problem(kind, seed)
    c = rng.normal(size=feasible.positive.centre.size)
    ours = minimise_linear(c, feasible.positive)
    optimum, _ = reference.minimise_linear(c, feasible.positive)
    assert ours.objective == pytest.approx(optimum, rel=2e-6)
    assert ours.violation < 1e-8
    assert optimum >= ours.objective - ours.gap - 1e-6 * abs(optimum)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_projection_is_that_of_cvxpy(kind, seed):
    feasible, _, rng = problem(kind, seed)
    p = feasible.negative.centre + 3.0 * rng.normal(size=feasible.negative.centre.size)
    ours = project(p, feasible.negative)
    optimum, (x,) = reference.project(p, feasible.negative)
    assert ours.objective == pytest.approx(optimum, rel=1e-6)
    np.testing.assert_allclose(ours.points[0], x, atol=2e-3)
    assert ours.violation < 1e-8


@given(SEEDS, st.sampled_from(KINDS))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_projection_is_idempotent_and_does_not_expand(seed, kind):
    feasible, _, rng = problem(kind, seed)
    p, q = rng.normal(scale=3.0, size=(2, feasible.positive.centre.size))
    (first,), (second,) = (project(z, feasible.positive).points for z in (p, q))
    np.testing.assert_allclose(project(first, feasible.positive).points[0], first, atol=1e-6)
    assert np.linalg.norm(first - second) <= np.linalg.norm(p - q) + 1e-6


@given(SEEDS, st.sampled_from(KINDS))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_linear_minimum_is_no_more_than_any_feasible_point(seed, kind):
    feasible, _, rng = problem(kind, seed)
    part = feasible.positive
    c = rng.normal(size=part.centre.size)
    ours = minimise_linear(c, part)
    for p in rng.normal(scale=2.0, size=(5, c.size)) + part.centre:
        (x,) = project(p, part).points
        assert ours.objective <= c @ x + 1e-5 * np.linalg.norm(c) * part.radius


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_poison_can_cancel_is_cancelled(kind):
    feasible, _, rng = problem(kind, 11)
    points = [
        project(part.centre + 0.3 * rng.normal(size=part.centre.size), part).points[0]
        for part in (feasible.positive, feasible.negative)
    ]
    g = 0.02 * points[0] - 0.01 * points[1]
    solution = match_gradient(g, 0.02, 0.01, feasible)
    assert solution.objective <= 2e-11 * (0.5 * g @ g)


def test_a_class_without_weight_has_no_point_and_no_say():
    feasible, g, _ = problem("counts", 3)
    impossible = feasible.positive.with_row(np.zeros_like(g), 1.0, 2.0)
    solution = match_gradient(g, 0.0, 0.03, FeasibleSet(impossible, feasible.negative))
    assert not solution.points[0].any()
    alone = match_gradient(g, 0.0, 0.03, feasible)
    assert solution.objective == alone.objective


def test_both_weights_zero_is_refused():
    feasible, g, _ = problem("counts", 3)
    with pytest.raises(ValueError, match="must be positive"):
        match_gradient(g, 0.0, 0.0, feasible)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_an_empty_set_is_proved_empty(kind):
    feasible, g, _ = problem(kind, 5)
    far = feasible.positive.with_row(np.ones_like(g), 1e4, 2e4)
    with pytest.raises(EmptySetError, match="feasible set is empty"):
        match_gradient(g, 0.02, 0.01, FeasibleSet(far, feasible.negative))
    with pytest.raises(EmptySetError, match="feasible set is empty"):
        minimise_linear(g, far)
    with pytest.raises(EmptySetError, match="feasible set is empty"):
        project(g, far)


def test_a_warm_start_changes_the_work_and_not_the_answer():
    feasible, g, _ = problem("counts", 7, d=60)
    cold = match_gradient(g, 0.02, 0.01, feasible)
    warm = match_gradient(1.001 * g, 0.02, 0.01, feasible, start=cold.multipliers)
    again = match_gradient(1.001 * g, 0.02, 0.01, feasible)
    assert warm.objective == pytest.approx(again.objective, rel=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_proximal_step_that_gets_stuck_is_a_detour(kind, monkeypatch):
    feasible, g, _ = problem(kind, 7, d=60)
    straight = minimise_linear(g, feasible.positive)
    maximise, sigmas = solver._Dual.maximise, []

    def stuck_once(dual, y, sigma, x0, ridge):
        sigmas.append(sigma)
        step = maximise(dual, y, sigma, x0, ridge)
        if len(sigmas) > 1:
            return step
        dual.evaluations[0] += solver._PASSES
        return replace(step, x=step.x + 0.01, violation=1e-6)

    monkeypatch.setattr(solver._Dual, "maximise", stuck_once)
    detour = minimise_linear(g, feasible.positive)
    assert detour.objective == pytest.approx(straight.objective, rel=2e-6)
    assert sigmas[1] > sigmas[0]
    assert min(sigmas[2:]) < sigmas[1]


def test_the_passes_of_one_step_are_limited(monkeypatch):
    feasible, g, _ = problem("counts", 7, d=60)
    monkeypatch.setattr(solver, "_PASSES", 3)
    monkeypatch.setattr(solver, "_OUTER_STEPS", 2)
    with pytest.raises(SolverError, match="duality gap"):
        minimise_linear(g, feasible.positive)


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_search_whose_steps_vanish_in_rounding_spoils_nothing(kind, monkeypatch):
    """Asked for more than rounding allows, Newton's method ends where the next step can begin."""
    monkeypatch.setattr(solver, "_FEASIBILITY", 0.0)
    for seed in range(100):
        feasible, g, _ = problem(kind, seed)
        constraints, zero = solver._Constraints.of([feasible.positive]), np.zeros((1, g.size))
        linear = solver._Dual.of("linear", np.zeros_like(g), np.zeros(1), g[None], constraints)
        matching = solver._Dual.of("KKT", g, np.ones(1), zero, constraints)
        for dual in (linear, matching):
            for sigma in (1e-6, 1.0, 1e3):
                y = np.zeros(constraints.above.shape)
                step = dual.maximise(y, sigma * dual.curvature, zero, 1e-8 / dual.largest)
                assert np.isfinite(step.y).all()
                np.testing.assert_allclose(dual.residual, dual.g - dual.s @ step.x, atol=1e-6)


def test_same_problem_same_bits():
    feasible, g, _ = problem("counts", 8)
    one, two = (match_gradient(g, 0.02, 0.01, feasible) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one.points, two.points, strict=True))


def test_a_ball_alone_has_the_closed_form():
    d = 5
    domain = InputDomain("real", np.full(d, -np.inf), np.full(d, np.inf))
    empty = np.zeros((0, d)), np.zeros(0), np.zeros(0)
    ball = ClassSet(domain, np.ones(d), 2.0, *empty)
    c = np.arange(1.0, d + 1.0)
    np.testing.assert_allclose(
        minimise_linear(c, ball).points[0], 1.0 - 2.0 * c / np.linalg.norm(c), atol=1e-4
    )
    p = np.full(d, 7.0)
    np.testing.assert_allclose(project(p, ball).points[0], 1.0 + 2.0 / np.sqrt(d), atol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_the_active_set_finds_the_least_squares_that_are_not_negative(seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 9)
    factor = rng.normal(size=(n + 1, n)) * 10.0 ** rng.uniform(-3, 3, n)
    if n > 1 and rng.random() < 0.3:
        factor[:, 1] = factor[:, 0] * (1.0 + 1e-6)  # nearly dependent
    target, free, z = rng.normal(size=n + 1), rng.random(n) < 0.8, np.zeros(n)
    nonnegative(factor.T @ factor, factor.T @ target, free, z)
    assert np.all(z >= 0.0)
    assert not z[~free].any()
    best = nnls(factor[:, free], target)[1] if free.any() else np.linalg.norm(target)
    assert np.linalg.norm(factor @ z - target) == pytest.approx(best, rel=1e-5)


def test_a_problem_kept_for_many_objectives_answers_like_a_new_one():
    feasible, g, _ = problem("counts", 7, d=60)
    kept = LinearProblem(feasible.positive)
    for c in (g, -g, g[::-1].copy()):
        again, fresh = kept.minimise(c), minimise_linear(c, feasible.positive)
        assert np.array_equal(again.points[0], fresh.points[0])
        assert (again.objective, again.gap) == (fresh.objective, fresh.gap)
        assert again.violation == pytest.approx(
            reference.violation(again.points[0], feasible.positive), abs=1e-9
        )


def tight_set(seed):
    """A random set around a point of it: thin slabs, a ball that touches, kinks, equalities."""
    rng = np.random.default_rng(seed)
    d, kind, R = rng.integers(1, 25), str(rng.choice(KINDS)), rng.integers(1, 4)
    some = rng.random(d) < 0.6
    if kind == "counts":
        lower, upper = np.zeros(d), rng.integers(0, 5, size=d).astype(float)
        inside, centre = np.minimum(rng.poisson(0.8, size=d), upper), upper * rng.random(d)
    elif kind == "box01":
        lower, upper, inside, centre = np.zeros(d), np.ones(d), some * rng.random(d), rng.random(d)
    else:
        lower, upper = np.full(d, 0.0 if kind == "nonnegative" else -np.inf), np.full(d, np.inf)
        inside, centre = some * rng.gamma(1.0, size=d), rng.gamma(1.0, size=d)
    domain = InputDomain(kind, lower, upper)
    ball = ClassSet(domain, centre, 1.0, np.zeros((0, d)), np.zeros(0), np.zeros(0))
    radius = (np.sqrt(reference.square(inside, ball)) or 0.1) * (
        1.0 + rng.choice([0.0, 1e-9, 1e-6, 1e-3, 0.3])
    )
    rows = 10 ** rng.uniform(-2, 1) * rng.normal(size=(R, d))
    products = rows @ inside
    width = np.abs(products).mean() * rng.choice([0.0, 1e-9, 1e-6, 1e-3, 0.1, 1.0], size=R)
    low = np.where(rng.random(R) < 0.3, -np.inf, products - width)
    high = np.where(rng.random(R) < 0.3, np.inf, products + width)
    return replace(ball, radius=float(radius), rows=rows, lower=low, upper=high), inside, rng


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_answers_over_tight_sets_are_feasible_and_best(first):
    for seed in range(first, first + 50):
        feasible, inside, rng = tight_set(seed)
        p = inside + 10 ** rng.uniform(-2, 2) * rng.normal(size=inside.size)
        nearest = project(p, feasible)
        assert nearest.violation <= 1e-8
        distance = 0.5 * np.sum((inside - p) ** 2)
        assert nearest.objective - nearest.gap <= distance * (1.0 + 1e-9) + 1e-12
        c = rng.normal(size=inside.size)
        least = minimise_linear(c, feasible)
        assert least.violation <= 1e-8
        assert least.objective - least.gap <= c @ inside + 1e-9 * np.abs(c) @ np.abs(inside)


def test_the_projection_on_a_thin_set_lies_in_it():
    domain = InputDomain("counts", np.zeros(1), np.full(1, 3.0))
    row = np.array([[0.05746290072510955]])
    feasible = ClassSet(
        domain, np.array([0.375]), 0.6262278447196694, row, np.array([0.0574628853]),
        np.array([np.inf]),
    )  # fmt: skip
    found = project(np.array([-26.5329611]), feasible)
    assert found.points[0][0] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda F: project(np.zeros(11), F), "p must have one value for each of 12 features"),
        (lambda F: project(np.full(12, np.nan), F), "p must be finite"),
        (lambda F: minimise_linear(np.zeros(13), F), "c must have one value for each of 12"),
        (lambda F: minimise_linear(np.zeros(12), F, tol=0.0), "tol must be a finite number above"),
        (lambda F: minimise_linear(np.zeros(12), F, start=np.zeros((1, 1))), "start must have"),
        (lambda F: match_gradient(np.zeros(12), -1.0, 0.0, FeasibleSet(F, F)), "epsilon_plus must"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, sentence):
    feasible, _, _ = problem("real", 0)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        call(feasible.positive)
