"""Domains, the envelope f, and what a fitted set lets in."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.feasible.reference import square, violation
from poisoning.feasible.rounding import expected_square, randomised_rounding
from poisoning.feasible.sets import FeasibleSet, InputDomain


def counts(seed=0, n=80, d=6):
    rng = np.random.default_rng(seed)
    X = rng.poisson(1.0, size=(n, d)).astype(float)
    return X, np.where(rng.random(n) < 0.4, 1.0, -1.0)


@given(st.lists(st.floats(0.0, 30.0), min_size=1, max_size=10))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_envelope_is_the_largest_of_its_linear_pieces(values):
    x = np.array(values)
    k = np.arange(31.0)
    pieces = (2.0 * k + 1.0) * x[:, None] - k * (k + 1.0)  # Eq. (7)
    np.testing.assert_allclose(expected_square(x), pieces.max(axis=1), atol=1e-9)
    assert np.all(expected_square(x) >= x * x - 1e-9)


def test_counts_are_capped_where_the_data_end():
    X, _ = counts()
    domain = InputDomain.of("counts", sp.csr_array(X))
    np.testing.assert_array_equal(domain.upper, X.max(axis=0))
    np.testing.assert_array_equal(domain.upper, InputDomain.of("counts", X).upper)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array])
def test_containment_is_exact_row_by_row(kind):
    domain = InputDomain.of("counts", np.array([[3.0, 1.0]]))
    X = kind(np.array([[0.0, 0.0], [3.0, 1.0], [0.5, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
    assert domain.contains(X).tolist() == [True, True, False, False, False]
    box = InputDomain.of("box01", np.zeros((1, 2)))
    inside = box.contains(kind(np.array([[0.2, 1.0], [1.1, 0.0], [0.0, -1e-9]])))
    assert inside.tolist() == [True, False, False]
    assert InputDomain.of("real", np.zeros((1, 2))).contains(kind(np.array([[-9.0, 9.0]]))).all()


def test_a_sparse_matrix_needs_a_domain_with_zero():
    domain = InputDomain("real", np.ones(2), np.full(2, 3.0))
    with pytest.raises(ValueError, match="does not contain 0"):
        domain.contains(sp.csr_array(np.ones((1, 2))))


@pytest.mark.parametrize(
    ("kind", "row"), [("counts", [0.5]), ("box01", [1.5]), ("nonnegative", [-0.1])]
)
def test_clean_data_outside_their_domain_are_refused(kind, row):
    with pytest.raises(ValueError, match=f"domain {kind!r}: row 1 of the clean data"):
        InputDomain.of(kind, np.array([[1.0], row]))


def test_ball_and_slab_hold_the_fraction_asked_for():
    X, y = counts(n=400)
    fitted = FeasibleSet.fit(X, y, InputDomain.of("counts", X), 80.0, 70.0)
    for label, part in ((1.0, fitted.positive), (-1.0, fitted.negative)):
        mine = X[y == label]
        distances = np.linalg.norm(mine - mine.mean(axis=0), axis=1)
        assert np.mean(distances <= part.radius) == pytest.approx(0.8, abs=0.01)
        products = mine @ part.rows[0]
        inside = (products >= part.lower[0]) & (products <= part.upper[0])
        assert inside.mean() == pytest.approx(0.7, abs=0.02)
        np.testing.assert_allclose(part.centre, mine.mean(axis=0))


def test_sparse_and_dense_data_give_the_same_set():
    X, y = counts()
    dense = FeasibleSet.fit(X, y, InputDomain.of("counts", X))
    sparse = FeasibleSet.fit(sp.csr_array(X), y, InputDomain.of("counts", sp.csr_array(X)))
    assert dense.positive.radius == pytest.approx(sparse.positive.radius)
    np.testing.assert_allclose(dense.negative.lower, sparse.negative.lower)


def test_decoy_rows_are_support_vectors_of_bounded_loss():
    X, y = counts()
    base = FeasibleSet.fit(X, y, InputDomain.of("counts", X))
    theta, bias, caps = np.linspace(-0.5, 0.5, 6), 0.3, (0.4, 0.7)
    fitted = base.under_decoy(theta, bias, caps)
    for label, cap, part in ((1.0, 0.4, fitted.positive), (-1.0, 0.7, fitted.negative)):
        for end, loss in ((part.lower[-1], None), (part.upper[-1], None)):
            margin = label * (end + bias)
            loss = max(0.0, 1.0 - margin)
            assert margin == pytest.approx(1.0) or loss == pytest.approx(cap)
        assert part.upper[-1] - part.lower[-1] == pytest.approx(cap)


def test_the_square_of_a_count_point_is_the_mean_over_its_roundings():
    X, y = counts()
    part = FeasibleSet.fit(X, y, InputDomain.of("counts", X)).positive
    x = np.array([0.3, 1.0, 0.0, 2.5, 0.9, 1.1])
    rounded = randomised_rounding(x, 20_000, np.random.default_rng(1)).toarray()
    mean = np.mean(np.sum((rounded - part.centre) ** 2, axis=1))
    assert square(x, part) == pytest.approx(mean, rel=0.02)


def test_violation_is_zero_inside_and_names_the_worst_outside():
    X, y = counts()
    part = FeasibleSet.fit(X, y, InputDomain.of("counts", X)).positive
    assert violation(np.round(part.centre), part) == 0.0
    assert violation(np.full(6, -2.0), part) >= 2.0


def test_a_percentile_out_of_range_and_a_missing_class_are_refused():
    X, y = counts()
    domain = InputDomain.of("counts", X)
    with pytest.raises(ValueError, match="percentile"):
        FeasibleSet.fit(X, y, domain, 0.95e3)
    with pytest.raises(ValueError, match="both classes"):
        FeasibleSet.fit(X, np.ones(len(y)), domain)
