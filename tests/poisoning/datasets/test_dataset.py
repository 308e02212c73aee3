"""Splits and two-class problems keep every example once, with its own label."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning import datasets
from poisoning.datasets import Dataset, binary, split


def numbered(n: int, **fields) -> Dataset:
    """Row i is (i, i): every row and label can be recognised."""
    rows = np.repeat(np.arange(n, dtype=np.float64)[:, None], 2, axis=1)
    return Dataset("numbered", "test", "real", rows, np.arange(n, dtype=np.float64), **fields)


@settings(derandomize=True, max_examples=40)
@given(n=st.integers(20, 300), fraction=st.floats(0.05, 0.95), seed=st.integers(0, 10))
def test_a_split_is_a_partition(n, fraction, seed):
    parts = split(numbered(n), np.random.default_rng(seed), fraction)
    assert np.array_equal(parts.X[:, 0], parts.y)
    assert np.array_equal(parts.X_test[:, 0], parts.y_test)
    assert sorted([*parts.y, *parts.y_test]) == list(range(n))
    assert abs(len(parts.y_test) - fraction * n) < 1.0 + 1e-6


def test_enron_sizes_of_the_paper():
    """Table 1: 4,137 training and 1,035 test mails of 5,172."""
    parts = split(numbered(5172), np.random.default_rng(0))
    assert (len(parts.y), len(parts.y_test)) == (4137, 1035)


def test_ten_rows_split_eight_to_two():
    assert len(split(numbered(10), np.random.default_rng(0)).y_test) == 2


def test_a_seed_decides_the_split():
    first, again, other = (split(numbered(50), np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first.y, again.y)
    assert not np.array_equal(first.y, other.y)


def test_a_split_takes_a_seed_and_leaves_rows_on_both_sides():
    four = numbered(4)
    one = split(four, 3, 0.5)
    other = split(four, np.random.default_rng(3), 0.5)
    np.testing.assert_array_equal(one.X, other.X)
    with pytest.raises(ValueError, match=r"test_fraction = 0.9 leaves 0 of 4 rows to train on"):
        split(four, 3, 0.9)


def test_a_split_of_a_sparse_set_stays_sparse():
    X = sp.csr_array(np.eye(10))
    dataset = Dataset("sparse", "test", "counts", X, np.ones(10))
    assert sp.issparse(split(dataset, np.random.default_rng(0)).X_test)


def test_an_official_split_is_kept():
    official = numbered(4, X_test=np.ones((2, 2)), y_test=np.ones(2))
    rng = np.random.default_rng(0)
    parts = split(official, rng)
    assert parts.X is official.X
    assert parts.y_test is official.y_test
    assert rng.random() == np.random.default_rng(0).random()


def test_wrong_fraction_and_several_tasks_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1, not be 20"):
        split(numbered(4), np.random.default_rng(0), 20.0)
    with pytest.raises(ValueError, match="several tasks"):
        split(numbered(4, tasks=np.zeros(4, dtype=np.int64)), np.random.default_rng(0))


class TestBinary:
    digits = Dataset(
        "digits",
        "test",
        "real",
        np.arange(6.0)[:, None],
        np.array([7, 1, 3, 1, 7, 3]),
        np.arange(2.0)[:, None],
        np.array([1, 7]),
    )

    def test_selects_and_labels(self):
        pair = binary(self.digits, positive=7, negative=1)
        assert pair.name == "digits-1-7"
        assert np.array_equal(pair.X.ravel(), [0.0, 1.0, 3.0, 4.0])
        assert np.array_equal(pair.y, [1.0, -1.0, -1.0, 1.0])
        assert np.array_equal(pair.y_test, [-1.0, 1.0])

    def test_a_set_without_test_examples(self):
        dataset = Dataset("digits", "test", "real", np.arange(2.0)[:, None], np.array([0, 1]))
        assert binary(dataset, 0, 1).X_test is None

    @pytest.mark.parametrize(
        "pair, reason", [((7, 9), "no examples of class 9"), ((7, 7), "twice")]
    )
    def test_impossible_pairs(self, pair, reason):
        with pytest.raises(ValueError, match=reason):
            binary(self.digits, *pair)


def test_every_name_of_the_package_is_found_where_it_is_said_to_be():
    assert all(getattr(datasets, name).__name__ == name for name in datasets.__all__)
    with pytest.raises(AttributeError, match=r"no attribute 'unload'"):
        datasets.unload  # noqa: B018
