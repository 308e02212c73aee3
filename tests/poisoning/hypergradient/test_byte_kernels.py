"""Products of bytes in integers, beside products of the same numbers in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from poisoning.hypergradient import byte_kernels
from poisoning.hypergradient.byte_kernels import BLOCK, LIMBS, QUAD, TILE, TILES

pytestmark = pytest.mark.skipif(
    not byte_kernels.available(), reason="the processor has no AVX-512 VNNI"
)


def products(X, v, r):
    """z = v Xᵀ and g = 1 + r X for one or two v and r, block by block as the kernels have them."""
    rows, J = byte_kernels.packed(X), len(v)
    n, part, size = len(X), QUAD * BLOCK, TILE * rows.shape[1]
    limbs, limbs_of_r = (tuple(np.empty((J, LIMBS, c), np.int8)) for c in (size, part))
    units = np.array([byte_kernels.split(*each) for each in zip(v, limbs, strict=True)])
    z, g = [], np.ones((J, size), np.float32)
    for first in range(0, n, part):
        block = rows[first // QUAD : first // QUAD + BLOCK]
        found, factors = np.empty((J, part), np.float32), np.zeros((J, part), np.float32)
        byte_kernels.block_products(block, limbs, units, found)
        z.append(found[:, : n - first])
        factors[:, : n - first] = r[:, first : first + part]
        byte_kernels.block_sums(block, factors, limbs_of_r, np.empty(J, np.float32), g)
    return np.concatenate(z, axis=1), g[:, : X.shape[1]]


@pytest.mark.parametrize("J", [1, 2])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (4, 64), (7, 65), (133, 200), (700, 3)])
def test_products(n, d, J):
    rng = np.random.default_rng(n)
    X = rng.integers(0, 256, (n, d)).astype(np.uint8)
    v, r = (rng.normal(size=(J, size)).astype(np.float32) for size in (d, n))
    z, g = products(X, v, r)
    # Each number of a vector is off by half a unit at most, 2⁻²⁴ of the largest.
    for found, of, pixels in ((z, v, X.T), (g - 1.0, r, X)):
        allowed = 255.0 * len(pixels) * np.abs(of).max() * 2.0**-22
        np.testing.assert_allclose(found, of.astype(float) @ pixels, rtol=1e-6, atol=allowed)


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_sums_over_very_many_rows_or_columns_do_not_overflow(value):
    for n, d in ((QUAD * BLOCK * 256 + 5, 2), (2, TILE * TILES * 40 + 5)):
        X = np.full((n, d), 255, np.uint8)
        v, r = (np.full((1, size), value, np.float32) for size in (d, n))
        z, g = products(X, v, r)
        np.testing.assert_allclose(z, value * 255.0 * d, rtol=1e-6)
        np.testing.assert_allclose(g - 1.0, value * 255.0 * n, rtol=1e-6)


def test_a_vector_of_zeros_has_products_zero():
    X = np.full((5, 70), 255, np.uint8)
    z, g = products(X, np.zeros((1, 70), np.float32), np.zeros((1, 5), np.float32))
    assert not z.any()
    assert np.all(g == 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_passed_on_for_its_own_vector_only(value):
    v, r = np.ones((2, 3), np.float32), np.ones((2, 5), np.float32)
    v[0, 1] = r[0, 2] = value
    z, g = products(np.ones((5, 3), np.uint8), v, r)
    assert np.isnan(z[0]).all()
    assert np.isnan(g[0]).all()
    np.testing.assert_allclose(z[1], 3.0, rtol=1e-6)
    np.testing.assert_allclose(g[1], 6.0, rtol=1e-6)


@given(arrays(np.float32, st.integers(1, 90), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_limbs_make_up_the_vector(v):
    limbs = np.full((LIMBS, TILE * 2), 77, np.int8)
    unit = byte_kernels.split(v, limbs)
    number = np.array([65536.0, 256.0, 1.0]) @ limbs
    assert unit <= np.abs(v).max() * 2.0**-22
    np.testing.assert_allclose(unit * number[: v.size], v, rtol=1e-6, atol=max(float(unit), 1e-30))
    assert not number[v.size :].any()


def test_packed_bytes_are_filled_up_with_zeros_and_begin_with_a_cache_line():
    X = np.arange(1, 2 * 5 * 70 + 1).reshape(2, 5, 70).astype(np.uint8)
    rows = byte_kernels.packed(X)
    assert rows.shape == (2, 2, 2, QUAD, TILE)
    whole = np.zeros((2, 8, 128), np.uint8)
    whole[:, :5, :70] = X
    np.testing.assert_array_equal(rows.transpose(0, 1, 3, 2, 4).reshape(2, 8, 128), whole)
    assert rows.ctypes.data % TILE == 0
