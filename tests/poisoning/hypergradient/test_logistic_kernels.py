"""Each compiled kernel beside its plain NumPy twin."""

import numpy as np
import pytest
from scipy.special import expit

from poisoning.hypergradient import byte_kernels
from poisoning.hypergradient import logistic_kernels as kernels

SCALE, OFFSET = 0.25, -0.3
COLUMNS = np.array([0, 2, 3, 5, 6, 8])
AFFINE = COLUMNS, SCALE, OFFSET
HALVES = {vectors: kernels.rows_at_a_time(vectors) for vectors in (1, kernels.GROUP)}


def rows_of(kind, rng, n, d):
    return rng.integers(0, 256, (n, d)).astype(kind)


@pytest.fixture(params=["uint8", "float32", "float64"])
def case(request):
    """11 raw rows of 6 columns in 9 features, 5 raw and 6 other rows of poison.

    ``rows`` are all of them with a last column of ones; no number is a multiple of four.
    """
    rng = np.random.default_rng(3)
    raw = rows_of(request.param, rng, 11, COLUMNS.size)
    raw = (raw % 7).astype(request.param)
    X = np.full((11, 9), OFFSET)
    X[:, COLUMNS] += SCALE * raw
    F, P = rows_of("uint8", rng, 5, 9) % 9, rng.random((6, 9))
    rows = np.column_stack([np.vstack([X, OFFSET + SCALE * F, P]), np.ones(22)])
    y = (rng.random(22) < 0.5).astype(float)
    share = rng.random(22) / 22
    return raw, (F, P), rows, y, share, rng


def gradient_twin(rows, y, share, w):
    s = expit(rows @ w)
    pull = share * (s - y)
    return rows.T @ pull, share * s * (1.0 - s), pull


@pytest.fixture(params=[1, kernels.GROUP, 2 * kernels.GROUP + 1])
def K(request):
    """Problems: one, a full group, and two with a rest."""
    return request.param


@pytest.fixture(params=["raw poison", "raw and other poison", "other poison"])
def poison(request, case):
    """F and P, one of them empty or not, and which rows of the case are there."""
    _, (F, P), *_ = case
    there = np.arange(22)
    if request.param == "raw poison":
        return F, P[:0], there[:16]
    if request.param == "other poison":
        return F[:0], P, np.delete(there, slice(11, 16))
    return F, P, there


def of_every_problem(part, K):
    return np.repeat(part[None], K, axis=0)


@pytest.mark.slow
def test_gradients(case, poison, K):
    raw, _, rows, y, share, rng = case
    F, P, there = poison
    rows, y, share = rows[there], y[there], share[there]
    w, shares = rng.normal(size=(K, 10)), share * rng.random((K, len(there)))
    ys = np.where(np.arange(K)[:, None] % 2, y, 1.0 - y)
    m = len(there) - 11
    out, curvature, pull = np.empty((K, 10)), np.empty((K, 11 + m)), np.empty((K, m))
    scratch = np.empty((kernels.GROUP, 11))
    kernels.raw_gradients(
        raw, ys[:, :11], shares[:, :11], *AFFINE, w, out, curvature[:, :11], scratch
    )
    kernels.poison_gradients(
        of_every_problem(F, K), of_every_problem(P, K), SCALE, OFFSET, ys[:, 11:], shares[:, 11:],
        w, out, curvature[:, 11:], pull,
    )  # fmt: skip
    for k in range(K):
        expected, bent, pulls = gradient_twin(rows, ys[k], shares[k], w[k])
        np.testing.assert_allclose(out[k], expected, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(curvature[k], bent, rtol=1e-12)
        np.testing.assert_allclose(pull[k], pulls[11:], rtol=1e-11, atol=1e-15)


@pytest.mark.slow
def test_products(case, poison, K):
    raw, _, rows, _y, share, rng = case
    F, P, there = poison
    rows, share = rows[there], share[there]
    v, curvature = rng.normal(size=(K, 10)), share * rng.random((K, len(there)))
    out, pull = np.empty((K, 10)), np.empty((K, len(there) - 11))
    kernels.raw_products(raw, curvature[:, :11], *AFFINE, v, out, np.empty((kernels.GROUP, 11)))
    kernels.poison_products(
        of_every_problem(F, K), of_every_problem(P, K), SCALE, OFFSET, curvature[:, 11:], v, out,
        pull,
    )  # fmt: skip
    for k in range(K):
        q = curvature[k] * (rows @ v[k])
        np.testing.assert_allclose(out[k], rows.T @ q, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(pull[k], q[11:], rtol=1e-11, atol=1e-15)


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
@pytest.mark.slow
def test_descent_and_ascent(case, penalty, K):
    raw, (F, P), rows, y, share, rng = case
    strength = (0.02 if penalty == "l2" else 0.15) * (1.0 + 0.1 * np.arange(K))
    strength = np.repeat(strength[:, None], 10, axis=1)
    decay, shrinkage = (strength, 0 * strength) if penalty == "l2" else (0 * strength, strength)
    eta, steps = np.linspace(0.2, 0.4, K), 9
    way = np.zeros((K, steps + 1, 10))
    way[:, 0] = 0.1 * rng.normal(size=(K, 10))
    F, P, y, share = (of_every_problem(part, K) for part in (F, P, y, share))
    clean, poison, pull = (np.empty((K, steps, count)) for count in (11, 11, 11))
    kernels.descend(
        raw, y[:, :11], share[:, :11], *AFFINE, F, P, y[:, 11:], share[:, 11:], eta, decay,
        shrinkage, way, clean, poison, pull,
    )  # fmt: skip
    curvature = np.concatenate([clean, poison], axis=2)
    ahead = [
        descend_twin(rows, y[k], share[k], eta[k], decay[k], shrinkage[k], way[k, 0], steps)
        for k in range(K)
    ]
    for k, expected in enumerate(ahead):
        found = way[k], curvature[k], pull[k]
        for got, twin in zip(found, (*expected[:2], expected[2][:, 11:]), strict=True):
            np.testing.assert_allclose(got, twin, rtol=1e-11, atol=1e-14)
    assert (penalty == "l1") == bool((way[:, -1] == 0).any())

    p = rng.normal(size=(K, 10))
    back = [
        ascend_twin(rows, eta[k], decay[k], shrinkage[k], way[k], curvature[k], p[k])
        for k in range(K)
    ]
    d_lam, adjoints = np.zeros((K, 10)), np.empty((K, steps, 10))
    products = np.empty((K, steps, 11))
    kernels.ascend(
        raw, *AFFINE, F, P, eta, decay, shrinkage, way, clean, poison, p, adjoints, products, d_lam
    )
    for k, twin in enumerate(back):
        for got, expected in zip((p[k], d_lam[k], adjoints[k]), twin[:3], strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(products[k], twin[3][:, 11:], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("vectors", HALVES)
@pytest.mark.parametrize("d", [3, 5, 8, 16, 21, 32, 53])
@pytest.mark.parametrize(("raw", "real"), [("u1", "f4"), ("f4", "f4"), ("u1", "f8"), ("f8", "f8")])
@pytest.mark.slow
def test_rows_at_a_time(raw, real, d, vectors):
    """The passes' halves: no whole register, whole ones only, and both."""
    scores, add = HALVES[vectors]
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (8, d)).astype(raw)
    v, g = rng.random((vectors, d)).astype(real), np.zeros((vectors, d), real)
    buffer, z = np.empty((4, d), real), np.empty((vectors, 4), real)
    single = real == "f4"
    scores(X, 2, v, buffer, z)
    np.testing.assert_allclose(z, v @ X[2:6].T, rtol=1e-6 if single else 1e-13)
    if raw != real:
        whole = kernels.left_over(d, v.itemsize)
        np.testing.assert_array_equal(buffer[:, :whole], X[2:6, :whole])
    add(X, 2, buffer, z, g)
    np.testing.assert_allclose(g, (v @ X[2:6].T) @ X[2:6], rtol=1e-5 if single else 1e-13)
    assert kernels.left_over(d, v.itemsize) == d - d % (64 // v.itemsize)


@pytest.mark.parametrize("kind", ["numbers", "bytes"])
@pytest.mark.slow
def test_passes_in_single_precision(kind):
    """Both passes against float64 twins: a few ulps of the largest term."""
    rng, G = np.random.default_rng(1), kernels.GROUP
    X = rng.random((13, 40), np.float32)
    rows = X
    if kind == "bytes":
        if not byte_kernels.available():
            pytest.skip("the processor has no AVX-512 VNNI")
        X = rng.integers(0, 256, (13, 40)).astype(np.uint8)
        rows = byte_kernels.packed(X)
    y = (rng.random((G, 13)) < 0.5).astype(np.float32)
    share = np.full((G, 13), 1.0 / 13.0, np.float32)
    v, bias = rng.normal(size=(G, 40)).astype(np.float32), np.full(G, 0.2, np.float32)
    v /= X.max()
    g = np.zeros((G, 40), np.float32)
    curvature, pull = np.empty((G, 13), np.float32), np.empty((G, 13), np.float32)
    kernels.group_gradient(rows, (y, share, curvature), v, bias, g, pull)
    s = expit(v.astype(float) @ X.T + 0.2)
    np.testing.assert_allclose(pull, share * (s - y), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(g, (share * (s - y)) @ X, rtol=1e-4, atol=1e-6 * X.max())
    g[:] = 0.0
    kernels.group_product(rows, curvature, v, bias, g, pull)
    q = curvature * (v.astype(float) @ X.T + 0.2)
    np.testing.assert_allclose(g, q @ X, rtol=1e-4, atol=1e-6 * X.max())


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
