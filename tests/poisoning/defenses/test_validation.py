"""The fraction that a defense removes, chosen on data held out."""

import numpy as np
import pytest

from poisoning.defenses.centroid import L2Defense
from poisoning.defenses.validation import removal_by_validation
from poisoning.learners import SVM


def two_clouds(far, n=400):
    """Two clouds, and per class ``far`` points deep behind the other one that turn the model."""
    rng = np.random.default_rng(0)
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    X = rng.normal(size=(n, 5)) + 1.5 * y[:, None] * np.eye(5)[0]
    labels = np.repeat([1.0, -1.0], far)
    return np.concatenate([X, -30.0 * labels[:, None] * np.eye(5)[0]]), np.append(y, labels)


def choose(X, y, removals, rng=0):
    return removal_by_validation(L2Defense(), SVM(0.01), X, y, removals, rng)


def test_what_removes_the_poison_is_chosen_and_the_model_is_trained_without_it():
    X, y = two_clouds(far=20)  # a tenth of each class
    best, model = choose(X, y, [0.0, 0.02, 0.12])
    assert best == 0.12
    assert np.mean(model.predict(X[:400]) != y[:400]) < 0.12
    assert np.mean(choose(X, y, [0.0])[1].predict(X[:400]) != y[:400]) > 0.3


def test_of_equal_errors_the_first_is_chosen():
    X, y = two_clouds(far=0)
    X[:, 0] *= 20.0  # no removal costs anything
    assert choose(X, y, [0.05, 0.0, 0.1])[0] == 0.05
    assert choose(X, y, [0.1, 0.05, 0.0])[0] == 0.1


def test_the_points_held_out_depend_on_the_generator_only():
    X, y = two_clouds(far=20)
    one, two = (choose(X, y, [0.0, 0.12], np.random.default_rng(3)) for _ in range(2))
    assert one[0] == two[0]
    np.testing.assert_array_equal(one[1].coef_, two[1].coef_)


@pytest.mark.parametrize("removals", [[], "0.1", [0.1, 1.5], [np.nan]])
@pytest.mark.usefixtures("unchecked")
def test_fractions_that_cannot_be_removed_are_refused(removals):
    with pytest.raises(ValueError, match=r"removals must"):
        choose(*two_clouds(far=0), removals)


def test_too_few_points_to_hold_one_out_are_refused():
    with pytest.raises(ValueError, match="X must have at least 5 rows"):
        choose(np.eye(4), np.array([1.0, -1.0, 1.0, -1.0]), [0.0])
