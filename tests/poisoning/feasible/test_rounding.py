import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.feasible.rounding import (
    budget,
    expected_square,
    randomised_rounding,
    realise,
    repeated_roundings,
)
from poisoning.feasible.sets import InputDomain


def test_the_mean_is_kept_and_the_squared_norm_is_the_envelope():
    x = np.array([0.0, 0.25, 1.0, 2.9, 3.5])
    rows = randomised_rounding(x, 40_000, np.random.default_rng(0)).toarray()
    np.testing.assert_allclose(rows.mean(axis=0), x, atol=0.02)
    np.testing.assert_allclose((rows**2).mean(axis=0), expected_square(x), atol=0.1)


@given(st.lists(st.floats(0, 50), min_size=1, max_size=8), st.integers(0, 7), st.integers(1, 4))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_rows_are_neighbouring_integers_of_the_right_number(x, count, copies):
    x = np.array(x)
    rows = repeated_roundings(x, count, copies, np.random.default_rng(1))
    dense = rows.toarray()
    assert dense.shape == (count, len(x))
    assert np.all((dense == np.floor(x)) | (dense == np.ceil(x)))
    assert rows.nnz == np.count_nonzero(dense)
    assert len(np.unique(dense, axis=0)) <= -(-count // copies)


def test_each_rounding_stands_r_times_in_a_row():
    dense = repeated_roundings(np.full(40, 0.5), 7, 3, np.random.default_rng(2)).toarray()
    assert np.array_equal(dense[0], dense[1]) and np.array_equal(dense[0], dense[2])
    assert np.array_equal(dense[3], dense[5])
    assert not np.array_equal(dense[0], dense[3])


def test_the_same_seed_gives_the_same_rows():
    x = np.linspace(0, 3, 50)
    first, second = (
        randomised_rounding(x, 5, np.random.default_rng(3)).toarray() for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_a_small_change_of_the_point_changes_few_entries():
    rng = np.random.default_rng(4)
    x = np.where(rng.random(5_000) < 0.1, 3.0 * rng.random(5_000), 0.0)
    nearby = np.maximum(x + 1e-6 * rng.normal(size=x.size), 0.0)  # no entry is whole any more
    first, second = (
        randomised_rounding(point, 20, np.random.default_rng(5)).toarray() for point in (x, nearby)
    )
    assert np.count_nonzero(first != second) <= 5


def test_repeats_must_be_positive():
    with pytest.raises(ValueError, match="copies must be"):
        repeated_roundings(np.ones(2), 3, 0, np.random.default_rng(0))


@given(st.floats(0.001, 0.5), st.integers(10, 30_000), st.floats(0, 1))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_the_budget_is_exact_whatever_the_shares(epsilon, n, share):
    positive, negative = budget(epsilon, n, share)
    assert positive >= 0 and negative >= 0
    assert positive + negative == round(epsilon * n)
    assert abs(positive - share * round(epsilon * n)) <= 0.5


def test_a_share_is_a_fraction():
    with pytest.raises(ValueError, match="share"):
        budget(0.03, 100, 1.5)


@pytest.mark.parametrize("kind", ["box01", "counts"])
def test_realised_points_are_in_the_domain(kind):
    domain = InputDomain.of(kind, np.ones((1, 3)))
    x = np.array([0.25, 1.0 + 1e-12, 0.0])
    rows = realise(x, 5, 2, domain, np.random.default_rng(0))
    assert rows.shape == (5, 3)
    assert domain.contains(rows).all()
    if kind == "box01":
        np.testing.assert_allclose(rows, np.tile(x, (5, 1)), atol=1e-9)
