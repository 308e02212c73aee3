"""The compiled dual function against plain NumPy on a fine grid of points."""

import numpy as np
import pytest

from poisoning.feasible.rounding import expected_square
from poisoning.feasible.solver_kernels import evaluate, proximal


def plain_proximal(t, tau, lower, upper, integer):
    """argmin ½(x − t)² + τf(x) by search over a grid and the kinks."""
    grid = np.linspace(lower, upper, 200_001)
    f = expected_square(grid) if integer else grid**2
    return grid[np.argmin(0.5 * (grid - t) ** 2 + tau * f)]


@pytest.mark.parametrize("integer", [True, False])
def test_proximal_step_is_the_minimiser(integer):
    rng = np.random.default_rng(0)
    for t, tau in zip(rng.uniform(-2, 12, 60), rng.exponential(0.7, 60), strict=True):
        x, _ = proximal(t, tau, 1.0 / (1.0 + 2.0 * tau), 0.0, 4.0, integer)
        assert x == pytest.approx(plain_proximal(t, tau, 0.0, 4.0, integer), abs=1e-4)


def plain_dual(G, c, g, s, integer, sigma, x0, y, x):
    """The Lagrangian plus proximal term at x, coordinate by coordinate."""
    w = g - s @ x
    b = c + np.einsum("ikj,kj->ki", G, y)
    f = expected_square(x) if integer else x**2
    terms = 0.5 * sigma * (x - x0) ** 2 + y[:, :1] * f + b * x
    return 0.5 * w**2 + terms.sum(axis=0)


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("sigma", [0.3, 1e-3])
def test_value_is_the_minimum_with_its_derivatives(integer, classes, sigma):
    rng = np.random.default_rng(3 if integer else 4)
    d, m = 300, 3
    G = rng.normal(size=(d, classes, m))
    c, g = 0.1 * rng.normal(size=(classes, d)), rng.normal(size=d)
    s = np.array([0.8, -0.5])[:classes]
    lower = np.zeros(d) if integer else rng.choice([0.0, -np.inf], size=d)
    upper = rng.integers(0, 5, size=d).astype(float)
    x0 = rng.uniform(0.0, 1.0, size=(classes, d)) * np.minimum(upper, 1.0)
    y = 0.2 * rng.normal(size=(classes, m))
    y[:, 0] = np.abs(y[:, 0])
    below, above = np.sort(rng.normal(size=(2, classes, m)), axis=0)
    below[:, 0] = -np.inf

    def at(y):
        x, gradient = np.empty((classes, d)), np.empty((classes, m))
        hessian, w = np.empty((classes * m, classes * m)), g.copy()
        value = evaluate(
            G, c, g, s, lower, upper, integer, sigma, x0, (tuple(y[0]), tuple(y[-1])), below,
            above, x, w, gradient, hessian,
        )  # fmt: skip
        return value, x, w, gradient, hessian

    value, x, w, gradient, hessian = at(y)
    best = plain_dual(G, c, g, s, integer, sigma, x0, y, x)
    ends = np.where(y > 0.0, above, below)
    assert value == pytest.approx(best.sum() - np.sum(y * ends), rel=1e-12)
    np.testing.assert_allclose(w, g - s @ x, atol=1e-12)
    assert np.all(x >= lower) and np.all(x <= upper)
    for scale in (1.0, 0.1, 1e-3):  # no other point is lower, in any coordinate
        for _ in range(50):
            other = np.clip(x + scale * rng.normal(size=x.shape), lower, upper)
            assert np.all(plain_dual(G, c, g, s, integer, sigma, x0, y, other) >= best - 1e-12)

    f = expected_square(x) if integer else x**2
    products = np.einsum("ikj,ki->kj", G, x)
    products[:, 0] += f.sum(axis=1)
    np.testing.assert_allclose(gradient, products - ends, rtol=1e-9)

    # A multiplier of 0 stays unless its product leaves the range, and then rises or falls.
    at_zero = at(np.zeros((classes, m)))
    x = at_zero[1]
    products = np.einsum("ikj,ki->kj", G, x)
    products[:, 0] += (expected_square(x) if integer else x**2).sum(axis=1)
    outside = np.maximum(products - above, 0.0) + np.minimum(products - below, 0.0)
    np.testing.assert_allclose(at_zero[3], outside, rtol=1e-9, atol=1e-9)

    step = 1e-7
    for k in range(classes):
        for j in range(m):
            moved = y.copy()
            moved[k, j] += step
            ahead = at(moved)
            moved[k, j] -= 2.0 * step
            behind = at(moved)
            assert (ahead[0] - behind[0]) / (2.0 * step) == pytest.approx(gradient[k, j], rel=1e-4)
            change = -(ahead[3] - behind[3]).ravel() / (2.0 * step)
            np.testing.assert_allclose(
                hessian[k * m + j], change, atol=2e-2 * np.abs(hessian).max()
            )
