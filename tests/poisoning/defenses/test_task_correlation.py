"""Flagging tasks that hang together, and trimming what does not fit its own task."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.defenses.task_correlation import group_scores, keep, loss_scores, trim
from poisoning.models.mtrl import TaskData


def correlated(m, group, inside, outside):
    C = np.full((m, m), outside)
    C[np.ix_(group, group)] = inside
    np.fill_diagonal(C, 1.0)
    return C


def regression(seed, m=3, n=60, d=4, noise=0.05):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(m, n, d)) / np.sqrt(d)
    W = rng.normal(size=(m, d))
    y = np.einsum("mnd,md->mn", X, W) + noise * rng.normal(size=(m, n))
    return TaskData(X, y, np.full((m, n), 1.0 / n)), W


def test_a_tight_group_scores_highest_and_by_its_contrast():
    scores = group_scores(correlated(7, [1, 3, 4], 0.9, 0.2), size=3)
    np.testing.assert_allclose(scores[[1, 3, 4]], 0.7)
    np.testing.assert_allclose(scores[[0, 2, 5, 6]], 0.0, atol=1e-12)


def test_a_matrix_that_says_nothing_flags_nobody():
    np.testing.assert_allclose(group_scores(np.ones((7, 7)), size=3), 0.0)


def test_the_score_of_negatively_correlated_camps_counts_positive_ties_only():
    signs = np.array([1.0, 1.0, 1.0, -1.0, -1.0])
    scores = group_scores(np.outer(signs, signs), size=3)
    np.testing.assert_allclose(scores, [2.0, 2.0, 2.0, 2 / 2, 2 / 2])


@settings(max_examples=25, derandomize=True, deadline=None)
@given(m=st.integers(3, 9), seed=st.integers(0, 50), data=st.data())
def test_scores_follow_tasks_when_these_are_renumbered(m, seed, data):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(m, m))
    C = A @ A.T
    size = data.draw(st.integers(2, m - 1))
    order = rng.permutation(m)
    np.testing.assert_allclose(
        group_scores(C[np.ix_(order, order)], size), group_scores(C, size)[order]
    )


@pytest.mark.parametrize("size", [1, 5])
def test_a_group_has_two_tasks_and_leaves_one(size):
    with pytest.raises(ValueError, match="size must be a whole number from 2 to 4"):
        group_scores(np.eye(5), size)


def test_losses_are_means_over_a_tasks_own_examples():
    data, W = regression(0)
    padded = TaskData(
        np.concatenate([data.X, np.zeros_like(data.X[:, :5])], axis=1),
        np.concatenate([data.y, np.zeros((3, 5))], axis=1),
        np.concatenate([data.weight, np.zeros((3, 5))], axis=1),
    )
    expected = [np.mean((data.y[i] - data.X[i] @ W[i]) ** 2) for i in range(3)]
    np.testing.assert_allclose(loss_scores(padded, W, "square"), expected)
    hinge = [np.mean(np.maximum(0, 1 - data.y[i] * (data.X[i] @ W[i])) ** 2) for i in range(3)]
    np.testing.assert_allclose(loss_scores(padded, W, "hinge"), hinge)


@settings(max_examples=10, derandomize=True, deadline=None)
@given(seed=st.integers(0, 50))
def test_trimming_removes_planted_outliers_of_flagged_tasks_only(seed):
    data, _ = regression(seed)
    y = data.y.copy()
    y[:, :12] += 5.0  # a fifth of every task
    flagged = np.array([True, False, True])
    kept = trim(TaskData(data.X, y, data.weight), flagged, 0.2, "square", 1e-3)
    assert kept[1].all()
    for task in (0, 2):
        assert not kept[task, :12].any()
        assert kept[task, 12:].all()


def test_trimming_by_the_hinge_removes_wrong_labels():
    rng = np.random.default_rng(3)
    y = np.where(rng.random((1, 80)) < 0.5, 1.0, -1.0)
    X = rng.normal(size=(1, 80, 3)) * 0.2
    X[..., 0] += y
    y[0, :8] *= -1.0
    kept = trim(TaskData(X, y, np.full((1, 80), 1 / 80)), np.array([True]), 0.1, "hinge", 0.01)
    np.testing.assert_array_equal(np.flatnonzero(~kept[0]), np.arange(8))


def test_trimming_counts_examples_and_not_padding():
    data, _ = regression(1, m=2)
    weight = data.weight.copy()
    weight[1, 40:] = 0.0
    weight[1, :40] = 1 / 40
    padded = TaskData(data.X, data.y, weight)
    kept = trim(padded, np.array([True, True]), 0.25, "square", 0.1)
    assert kept.sum(axis=1).tolist() == [45, 30]
    assert not kept[1, 40:].any()
    trimmed = keep(padded, kept)
    np.testing.assert_allclose(trimmed.weight.sum(axis=1), 1.0)
    np.testing.assert_allclose(trimmed.weight[1][kept[1]], 1 / 30)
    # Nothing is removed when nothing shall be, or when nobody is flagged.
    nobody = np.zeros(2, dtype=bool)
    np.testing.assert_array_equal(trim(padded, ~nobody, 0.0, "square", 0.1), weight > 0)
    np.testing.assert_array_equal(trim(padded, nobody, 0.5, "square", 0.1), weight > 0)


def test_a_fraction_is_less_than_everything():
    data, _ = regression(1)
    with pytest.raises(ValueError, match="fraction must be a number in"):
        trim(data, np.ones(3, dtype=bool), 1.0, "square", 0.1)
