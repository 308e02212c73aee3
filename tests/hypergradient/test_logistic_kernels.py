"""Each compiled kernel beside its plain NumPy twin."""

import numpy as np
import pytest
from scipy.special import expit

from lib.hypergradient import logistic_kernels as kernels

SCALE, OFFSET = 0.25, -0.3
COLUMNS = np.array([0, 2, 3, 5, 6, 8])


def rows_of(kind, rng, n, d):
    return rng.integers(0, 256, (n, d)).astype(kind)


@pytest.fixture(params=["uint8", "float32", "float64"])
def case(request):
    """11 raw rows of 6 columns in 9 features, 6 poison rows; nothing a multiple of four."""
    rng = np.random.default_rng(3)
    raw = rows_of(request.param, rng, 11, COLUMNS.size)
    raw = (raw % 7).astype(request.param)
    X = np.full((11, 9), OFFSET)
    X[:, COLUMNS] += SCALE * raw
    P = rng.random((6, 9))
    rows = np.column_stack([np.vstack([X, P]), np.ones(17)])
    y = (rng.random(17) < 0.5).astype(float)
    share = rng.random(17) / 17
    return raw, P, rows, y, share, rng


def gradient_twin(rows, y, share, w):
    s = expit(rows @ w)
    pull = share * (s - y)
    return rows.T @ pull, share * s * (1.0 - s), pull


def test_gradient(case):
    raw, P, rows, y, share, rng = case
    w = rng.normal(size=10)
    out, curvature, pull = np.empty(10), np.empty(17), np.empty(17)
    affine = COLUMNS, SCALE, OFFSET
    kernels.clean_gradient(raw, y[:11], share[:11], *affine, w, out, curvature[:11], pull[:11])
    kernels.poison_gradients(
        P[None], y[None, 11:], share[None, 11:], w[None], out[None],
        curvature[None, 11:], pull[None, 11:],
    )  # fmt: skip
    expected, bent, pulls = gradient_twin(rows, y, share, w)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(curvature, bent, rtol=1e-12)
    np.testing.assert_allclose(pull, pulls, rtol=1e-11, atol=1e-15)


def test_product(case):
    raw, P, rows, _y, share, rng = case
    v = rng.normal(size=(2, 1, 10))
    out, pull = np.empty((2, 1, 10)), np.empty((2, 1, 17))
    for j in range(2):
        kernels.clean_product(
            raw, share[:11], COLUMNS, SCALE, OFFSET, v[j, 0], out[j, 0], pull[j, 0, :11]
        )
    poison_pull = np.empty((2, 1, 6))
    kernels.poison_products(P[None], share[None, 11:], v, out, poison_pull)
    pull[..., 11:] = poison_pull
    for j in range(2):
        q = share * (rows @ v[j, 0])
        np.testing.assert_allclose(out[j, 0], rows.T @ q, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(pull[j, 0], q, rtol=1e-11, atol=1e-15)


def descend_twin(rows, y, share, eta, decay, shrinkage, w0, steps):
    way, curvatures, pulls = [w0], [], []
    for _ in range(steps):
        g, curvature, pull = gradient_twin(rows, y, share, way[-1])
        u = way[-1] - eta * (g + decay * way[-1])
        way.append(np.sign(u) * np.maximum(np.abs(u) - eta * shrinkage, 0.0))
        curvatures.append(curvature)
        pulls.append(pull)
    return np.array(way), np.array(curvatures), np.array(pulls)


def ascend_twin(rows, eta, decay, shrinkage, way, curvatures, p):
    d_lam, adjoints, products = np.zeros_like(p), [], []
    for t in range(len(way) - 2, -1, -1):
        p = np.where((shrinkage > 0) & (way[t + 1] == 0), 0.0, p)
        d_lam -= eta * p * (shrinkage * np.sign(way[t + 1]) + decay * way[t])
        q = curvatures[t] * (rows @ p)
        adjoints.insert(0, p)
        products.insert(0, q)
        p = p - eta * (rows.T @ q + decay * p)
    return p, d_lam, np.array(adjoints), np.array(products)


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_descent_and_ascent(case, penalty):
    raw, P, rows, y, share, rng = case
    strength = np.full(10, 0.02 if penalty == "l2" else 0.15)
    decay, shrinkage = (strength, 0 * strength) if penalty == "l2" else (0 * strength, strength)
    eta, steps = 0.4, 9
    way = np.zeros((steps + 1, 10))
    way[0] = 0.1 * rng.normal(size=10)
    clean, poison, pull = np.empty((steps, 11)), np.empty((steps, 6)), np.empty((steps, 6))
    affine = COLUMNS, SCALE, OFFSET
    kernels.descend(
        raw, y[:11], share[:11], *affine, P, y[11:], share[11:], eta, decay, shrinkage,
        way, clean, poison, pull,
    )  # fmt: skip
    expected = descend_twin(rows, y, share, eta, decay, shrinkage, way[0], steps)
    curvature = np.hstack([clean, poison])
    for got, twin in zip((way, curvature, pull), (*expected[:2], expected[2][:, 11:]), strict=True):
        np.testing.assert_allclose(got, twin, rtol=1e-11, atol=1e-14)
    assert (penalty == "l1") == bool((way[-1] == 0).any())

    p = rng.normal(size=10)
    twin = ascend_twin(rows, eta, decay, shrinkage, way, curvature, p)
    d_lam, adjoints, products = np.zeros(10), np.empty((steps, 10)), np.empty((steps, 6))
    kernels.ascend(
        raw, *affine, P, eta, decay, shrinkage, way, clean, poison, p, adjoints, products, d_lam,
    )  # fmt: skip
    for got, expected in zip((p, d_lam, adjoints), twin[:3], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(products, twin[3][:, 11:], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("d", [5, 16, 32, 53])
@pytest.mark.parametrize("raw", [np.uint8, np.float32])
def test_rows_at_a_time(raw, d):
    """The passes' helpers: no whole vector, whole ones only, and both."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (8, d)).astype(raw)
    v, g = rng.random(d, np.float32), np.zeros(d, np.float32)
    buffer = np.empty((4, d + 2), np.float32)
    z = np.float32(kernels.scores_of_four(X, 2, v, buffer))
    np.testing.assert_allclose(z, X[2:6] @ v, rtol=1e-6)
    np.testing.assert_array_equal(buffer[:, :d], X[2:6])
    kernels.add_four(buffer, *z, g)
    np.testing.assert_allclose(g, X[2:6].T @ (X[2:6] @ v), rtol=1e-5)
    assert kernels.score(X, 7, v) == pytest.approx(float(X[7] @ v), rel=1e-6)
    kernels.add(X, 7, np.float32(2.0), g)
    np.testing.assert_allclose(g, X[2:6].T @ (X[2:6] @ v) + 2.0 * X[7], rtol=1e-5)


@pytest.mark.parametrize("d", [3, 8, 21])
def test_rows_at_a_time_in_double_precision(d):
    rng = np.random.default_rng(0)
    X, v, g, buffer = rng.random((4, d)), rng.random(d), rng.random(d), np.empty((4, d))
    expected = g + X.T @ (X @ v)
    kernels.add_four(buffer, *kernels.scores_of_four(X, 0, v, buffer), g)
    np.testing.assert_allclose(g, expected, rtol=1e-13)
    assert kernels.left_over(d, 8) == d - d % 8


def test_passes_in_single_precision():
    """gradient_pass and product_pass against float64 twins: a few ulps of the largest term."""
    rng = np.random.default_rng(1)
    X = rng.random((13, 40), np.float32)
    y = (rng.random(13) < 0.5).astype(np.float32)
    share = np.full(13, 1.0 / 13.0, np.float32)
    v = rng.normal(size=40).astype(np.float32)
    buffer, g = np.empty((4, 40), np.float32), np.zeros(40, np.float32)
    curvature, pull = np.empty(13, np.float32), np.empty(13, np.float32)
    total = kernels.gradient_pass(X, y, share, v, np.float32(0.2), buffer, g, curvature, pull)
    s = expit(X.astype(float) @ v + 0.2)
    np.testing.assert_allclose(pull, share * (s - y), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(g, X.T @ (share * (s - y)), rtol=1e-4, atol=1e-6)
    assert total == pytest.approx((share * (s - y)).sum(), rel=1e-4, abs=1e-6)
    g[:] = 0.0
    total = kernels.product_pass(X, curvature, v, np.float32(0.2), buffer, g, pull)
    q = curvature * (X.astype(float) @ v + 0.2)
    np.testing.assert_allclose(g, X.T @ q, rtol=1e-4, atol=1e-6)
    assert total == pytest.approx(q.sum(), rel=1e-4, abs=1e-6)


def test_raw_vectors_and_sums():
    """raw_vector and collect are each other's transpose."""
    rng = np.random.default_rng(2)
    v, u, total = rng.normal(size=10), rng.normal(size=6), 1.7
    raw, out = np.empty(6), np.empty(10)
    bias = kernels.raw_vector(v, COLUMNS, SCALE, OFFSET, raw)
    kernels.collect(u, total, COLUMNS, SCALE, OFFSET, out)
    np.testing.assert_allclose(raw, SCALE * v[COLUMNS])
    assert bias == pytest.approx(v[9] + OFFSET * v[:9].sum())
    assert raw @ u + bias * total == pytest.approx(v @ out)
