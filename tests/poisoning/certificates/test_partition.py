"""A vote among models on separate parts: what is certified holds against every change tried."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.naive_bayes import GaussianNB

import poisoning as po
from poisoning.certificates.partition import assigned, partition_certificate


def game(seed=0, classes=2, learner=None, n=90):
    rng = np.random.default_rng(seed)
    labels = np.array([-1.0, 1.0]) if classes == 2 else np.arange(classes, dtype=float)
    centres = 2.0 * rng.normal(size=(classes, 3))

    def draw(size):
        which = rng.integers(0, classes, size)
        return centres[which] + rng.normal(size=(size, 3)), labels[which]

    return po.LinearGame(
        *draw(n), *draw(40), domain="real", learner=learner or GaussianNB(), defenses=()
    )  # fmt: skip


def changed(played, rng, add, drop):
    """The game with ``drop`` rows removed and ``add`` hostile rows added."""
    kept = rng.permutation(played.n)[drop:]
    X = np.vstack([played.X[kept], 5.0 * rng.normal(size=(add, 3))])
    y = np.append(played.y[kept], rng.choice(played.labels, size=add))
    return po.LinearGame(
        X, y, played.X_test, played.y_test, domain="real", learner=played.learner, defenses=()
    )  # fmt: skip


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(0, 2), st.sampled_from([2, 3]))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_no_change_of_so_many_examples_flips_a_certified_point(seed, add, drop, classes):
    rng = np.random.default_rng(seed)
    before = game(seed, classes)
    found = partition_certificate(before, 15)
    after = partition_certificate(changed(before, rng, add, drop), 15)
    certified = found.radius >= add + drop
    assert np.all(after.radius[certified] >= 0)
    assert np.all(np.abs(after.radius - found.radius)[certified] <= add + drop)
    assert after.bound(0) <= found.bound(add + drop)


def test_bounds_are_those_of_the_votes():
    played = game(1)
    one = partition_certificate(played, 1)
    right = GaussianNB().fit(played.X, played.y).predict(played.X_test) == played.y_test
    np.testing.assert_array_equal(one.radius, np.where(right, 0, -1))
    assert one.bound(0) == np.mean(~right)
    assert one.bound(1) == 1.0
    many = partition_certificate(played, 9)
    bounds = [many.bound(r) for r in range(10)]
    assert bounds == sorted(bounds)
    assert bounds[-1] == 1.0


def test_a_vote_of_all_for_one_class_is_the_majority():
    played = game(2, learner=DummyClassifier(strategy="constant", constant=1))
    found = partition_certificate(played, 5)
    assert found.bound(0) == np.mean(played.y_test != 1.0)
    assert found.radius.max() == 2  # five votes to none: two may change


def test_a_row_has_its_part_whatever_holds_it():
    X = np.round(np.random.default_rng(0).normal(size=(200, 4)))
    parts = assigned(X, 7)
    np.testing.assert_array_equal(parts, assigned(sp.csr_array(X), 7))
    np.testing.assert_array_equal(parts[50:], assigned(X[50:], 7))
    np.testing.assert_array_equal(assigned(-0.0 * X, 7), assigned(0.0 * X, 7))
    assert set(parts) == set(range(7))


@pytest.mark.parametrize("parts", [0, -1])
def test_parts_are_checked(parts):
    with pytest.raises(ValueError, match="parts must be"):
        partition_certificate(game(), parts)
