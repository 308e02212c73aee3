"""The compiled passes beside their plain twins, on every layout of rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from poisoning.hypergradient import byte_kernels
from poisoning.hypergradient import logistic_kernels as kernels
from poisoning.hypergradient import logistic_plain as plain
from poisoning.hypergradient.rmd import rmd

pytestmark = pytest.mark.slow

SCALE, OFFSET, STEPS, FEATURES = 0.25, -0.3, 9, 9
COLUMNS = np.array([0, 2, 3, 5, 6, 8])
N, F, P = 11, 5, 6
"""Clean rows, raw rows of poison and others: none a multiple of four."""

TOLERANCE = {np.float64: 1e-11, np.float32: 2e-5}


class Case:
    """Arguments of both passes for K problems; ``rows`` for the kernels, ``same`` for the twins."""

    def __init__(self, layout, K, poison):
        rng = np.random.default_rng(3)
        self.rng, self.K = rng, K
        self.real = real = np.float32 if layout in ("packed", "float32") else np.float64
        X = rng.integers(0, 7, (N, COLUMNS.size)).astype(np.uint8)
        raw = rng.integers(0, 9, (K, F if "raw" in poison else 0, FEATURES)).astype(np.uint8)
        own = rng.random((K, P if "other" in poison else 0, FEATURES)).astype(real)
        affine = COLUMNS, real(SCALE), real(OFFSET)
        lay_out = {"packed": byte_kernels.packed, "uint8": np.copy}.get(layout, real)
        f = byte_kernels.packed(raw) if layout == "packed" else raw
        self.rows = lay_out(X), *affine, f, own
        every = np.concatenate([real(SCALE) * raw.astype(real) + real(OFFSET), own], axis=1)
        self.same = X.astype(real), *affine, raw[:, :0], every
        self.m = every.shape[1]
        self.clean, self.poison = ((self.signs(n), self.draw(n) / n) for n in (N, self.m))

    def draw(self, *shape):
        return self.rng.random((self.K, *shape)).astype(self.real)

    def signs(self, n):
        return (self.draw(n) < 0.5).astype(self.real)

    def states(self, *steps):
        return tuple(np.zeros((self.K, *steps, n), self.real) for n in (N, self.m, self.m))

    def assert_same(self, found, expected):
        for one, other in zip(found, expected, strict=True):
            tolerance = TOLERANCE[self.real]
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=0.1 * tolerance)


@pytest.fixture(params=["uint8", "float32", "float64", "packed"])
def layout(request):
    if request.param == "packed" and not byte_kernels.available():
        pytest.skip("the processor has no AVX-512 VNNI")
    return request.param


@pytest.fixture(params=[1, 2], ids=["one problem", "two"])
def K(request):
    assert kernels.GROUP == 2
    return request.param


@pytest.fixture(params=["raw", "raw and other", "other", ""])
def case(request, layout, K):
    """Poison of bytes, of other numbers, both and none."""
    return Case(layout, K, request.param)


def test_gradients_and_products(case):
    v = case.draw(FEATURES + 1) - case.real(0.5)
    for bent in (False, True):
        if bent:
            found[:2] = expected[:2] = [case.draw(N), case.draw(case.m)]
        else:
            found, expected = list(case.states()), list(case.states())
        out, twin = np.full_like(v, np.nan), np.full_like(v, np.nan)
        kernels.data_term(case.rows, case.clean, case.poison, bent, tuple(found), v, out)
        plain.data_term(case.same, case.clean, case.poison, bent, tuple(expected), v, twin)
        case.assert_same([out, *found], [twin, *expected])


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_descent_and_ascent(case, penalty):
    strength = case.real(0.02 if penalty == "l2" else 0.15) * (1.0 + 0.1 * np.arange(case.K))
    strength = np.repeat(strength[:, None], FEATURES + 1, axis=1).astype(case.real)
    eta = np.linspace(0.2, 0.4, case.K).astype(case.real)
    step = (eta, strength, 0 * strength) if penalty == "l2" else (eta, 0 * strength, strength)
    way = np.zeros((case.K, STEPS + 1, FEATURES + 1), case.real)
    way[:, 0] = 0.2 * (case.draw(FEATURES + 1) - 0.5)
    found, expected = (way.copy(), case.states(STEPS)), (way.copy(), case.states(STEPS))
    kernels.descend(case.rows, case.clean, case.poison, step, *found)
    plain.descend(case.same, case.clean, case.poison, step, *expected)
    case.assert_same([found[0], *found[1]], [expected[0], *expected[1]])
    assert penalty == "l2" or (expected[0][:, -1] == 0).any()

    p = case.draw(FEATURES + 1) - case.real(0.5)
    results = []
    for passes, rows in ((kernels, case.rows), (plain, case.same)):
        mine, products = p.copy(), np.zeros((case.K, STEPS, case.m), case.real)
        adjoints, d_lam = np.zeros_like(way[:, 1:]), np.zeros_like(p)
        passes.ascend(
            rows, case.clean, case.poison, step, *expected, mine, adjoints, products, d_lam
        )
        results.append([mine, adjoints, products, d_lam])
    case.assert_same(*results)


@pytest.mark.parametrize("size", [3, 8, 21, 64, 117])
@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_rows_of_every_length(size, n):
    """Whole vector registers and a rest of columns, whole fours of rows and a rest."""
    rng = np.random.default_rng(size)
    X, v = rng.integers(0, 256, (n, size)).astype(np.uint8), rng.random((2, size))
    for J in (1, 2):
        given = tuple(rng.random((J, n)) for _ in range(4))
        sums, totals = np.zeros((J, size)), np.zeros(J)
        kernels.matrix_pass(X, True, given, 0, 0, n, v[:J], np.full(J, 0.2), sums, totals)
        r = given[2] * (v[:J] @ X.T + 0.2)
        np.testing.assert_allclose(given[3], r, rtol=1e-12)
        np.testing.assert_allclose(sums, r @ X, rtol=1e-12)
        np.testing.assert_allclose(totals, r.sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("K", [1, 5])
def test_small_problems_differ_by_rounding(problem_of, monkeypatch, single, pixels, K):
    """What is compiled and what is not give the same hypergradients."""
    problem = problem_of("logistic", K=K, penalty="l1", pixels=pixels)
    if single:
        names = ("poison", "poison_y", "lam", "initial", "weights")
        parts = {name: getattr(problem, name).float() for name in names}
        objectives = tuple(
            replace(one, X=one.X.float(), y=one.y.float()) for one in problem.objectives
        )
        problem = replace(problem, **parts, objectives=objectives)
    expected = rmd(problem)
    monkeypatch.setattr("poisoning.hypergradient.problem.SMALL", 0)
    found = rmd(problem)
    assert not torch.equal(found.poison, expected.poison)
    assert not torch.equal(found.w, expected.w)
    for name in ("poison", "lam", "w", "values"):
        one, other = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(one, other, rtol=2e-4 if single else 1e-9, atol=1e-6)
