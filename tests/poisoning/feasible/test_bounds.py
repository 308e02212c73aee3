"""Dual bounds: never above the optimum, tight at the optimum's multipliers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.feasible.bounds import linear_lower_bounds
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import minimise_linear

KINDS = ("counts", "box01", "nonnegative", "real")


def problem(kind, seed, d=10):
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(60) % 3 == 0, 1.0, -1.0)
    X = rng.poisson(np.exp(rng.normal(size=d)), size=(60, d)).astype(float) + 0.1 * rng.random()
    X = {
        "counts": np.floor(X), "box01": X / X.max(), "nonnegative": X, "real": X - 1.0
    }[kind]  # fmt: skip
    part = FeasibleSet.fit(X, y, InputDomain.of(kind, X)).positive
    theta = rng.normal(size=d)
    part = part.with_row(theta, float(np.median(X[y > 0.0] @ theta)) - 0.5, np.inf)
    return part, rng.normal(size=(3, d)), rng


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_tight_at_the_multipliers_of_the_solution(kind, seed):
    part, C, _ = problem(kind, seed)
    found = [minimise_linear(c, part) for c in C]
    multipliers = np.vstack([solution.multipliers for solution in found])
    optima = np.array([solution.objective for solution in found])
    np.testing.assert_allclose(linear_lower_bounds(C, part, multipliers), optima, rtol=1e-4)


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
@settings(max_examples=15, deadline=None, derandomize=True)
@pytest.mark.slow
def test_no_feasible_point_falls_below(seed, kind):
    part, C, rng = problem(kind, seed)
    multipliers = rng.normal(size=(3, 3))
    multipliers[:, 0] = np.abs(multipliers[:, 0]) * (rng.random(3) < 0.7)
    bounds = linear_lower_bounds(C, part, multipliers)
    for c, bound in zip(C, bounds, strict=True):
        solution = minimise_linear(c, part)
        assert bound <= solution.objective + 1e-6 * np.linalg.norm(c) * part.radius


def test_a_multiplier_on_an_absent_end_bounds_nothing():
    part, C, _ = problem("counts", 0)
    multipliers = np.tile([0.1, 0.0, 1.0], (3, 1))  # the last row has no upper end
    assert np.all(linear_lower_bounds(C, part, multipliers) == -np.inf)


def test_a_negative_multiplier_of_the_ball_is_refused():
    part, C, _ = problem("counts", 0)
    with pytest.raises(ValueError, match="must not be negative"):
        linear_lower_bounds(C, part, np.full((3, 3), -1.0))
