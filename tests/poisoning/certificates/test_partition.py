"""A vote among models on separate parts: what is certified holds against every change tried."""

import os

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import normalize

import poisoning as po
from poisoning.certificates.partition import partition_certificate, partition_sweep
from poisoning.datasets import fetch, load, prepare, split
from poisoning.learners import PartitionedVote, assigned


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


def test_of_all_ways_to_change_one_example_none_exceeds_the_bound():
    rng = np.random.default_rng(3)
    y = np.where(np.arange(24) % 2 == 0, 1.0, -1.0)
    X, X_test = y[:, None] + 1.2 * rng.normal(size=(24, 1)), np.linspace(-3.0, 3.0, 20)[:, None]
    y_test, vote = np.where(X_test[:, 0] > 0.0, 1.0, -1.0), PartitionedVote(GaussianNB(), 3)

    def played(X, y):
        return po.LinearGame(X, y, X_test, y_test, domain="real", learner=vote, defenses=())

    def errors(game):
        return game.clean_model.predict(X_test) != y_test

    before = played(X, y)
    found = partition_certificate(before.with_defender(vote.learner, ()), 3)
    assert np.mean(errors(before)) == found.bound(0)
    wrong = [errors(played(np.delete(X, i, 0), np.delete(y, i))) for i in range(24)]
    for place in np.linspace(-8.0, 8.0, 150):
        for label in (1.0, -1.0):
            wrong.append(errors(played(np.vstack([X, [[place]]]), np.append(y, label))))
    certified = found.radius >= 1
    assert 0 < certified.sum() < 20
    assert not np.any(np.array(wrong)[:, certified])
    assert found.bound(0) < max(map(np.mean, wrong)) <= found.bound(1)


def test_the_best_attack_on_the_vote_is_within_the_bound():
    rng = np.random.default_rng(0)
    y = np.where(rng.random(200) < 0.5, 1.0, -1.0)
    X = rng.normal(y[:, None], 1.5, (200, 3))
    data = X[:150], y[:150], X[150:], y[150:]
    modelled = po.LinearGame(*data, domain="real", learner=po.SVM(0.1), defenses=())
    poison = po.KKT(0.04, quantiles=(0.3,), decoy_copies=(3,))(modelled, 0).poison
    found = partition_certificate(modelled, 25)
    voting = modelled.with_defender(PartitionedVote(po.SVM(0.1), 25), ())
    attacked = voting.evaluate(poison.X, poison.y)["none"].test_error
    # Equal rows get into one part, and change one vote.
    assert attacked <= found.bound(len(np.unique(poison.X, axis=0))) <= found.bound(6)
    assert attacked < modelled.evaluate(poison.X, poison.y)["none"].test_error


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("wrap", [np.array, sp.csr_array])
def test_a_vote_is_a_classifier_whose_models_share_no_example(classes, wrap):
    played = game(4, classes)
    names = np.array(["a", "b", "c"])[np.searchsorted(played.labels, played.y)]
    vote = PartitionedVote(DummyClassifier(strategy="most_frequent"), 6).fit(wrap(played.X), names)
    members = assigned(played.X, 6)
    most = [max(sorted(set(names)), key=list(names[members == part]).count) for part in range(6)]
    expected = [most.count(name) for name in sorted(set(names))]
    np.testing.assert_array_equal(vote.votes(wrap(played.X_test))[0], expected)
    assert set(vote.predict(wrap(played.X_test))) == {max(sorted(set(most)), key=most.count)}


def test_parts_without_both_classes_vote_for_what_they_have():
    X, y = np.arange(4.0)[:, None], np.array([0, 1, 1, 1])
    vote = PartitionedVote(parts=60).fit(X, y)
    parts = assigned(X, 60)
    assert len(set(parts)) == 4
    np.testing.assert_array_equal(vote.votes(X), [[57, 3]] * 4)  # empty parts vote for the first
    assert vote.predict(X).tolist() == [0] * 4


def test_a_sweep_finds_the_number_of_parts_for_a_number_of_points():
    played = game(5)
    sweep = partition_sweep(played, (1, 9, 45))
    assert [one.parts for one in sweep.certificates] == [1, 9, 45]
    for points in (0, 1, 3):
        bounds = [partition_certificate(played, k).bound(points) for k in (1, 9, 45)]
        table = sweep.table(points)
        assert table["bound"].tolist() == bounds
        assert sweep.best(points).bound(points) == min(bounds)
    assert table["clean"].tolist() == [one.bound(0) for one in sweep.certificates]
    assert sweep.best(0).parts != sweep.best(3).parts


@pytest.mark.parametrize("parts", [0, -1, 2.5, True])
def test_parts_are_checked(parts, unchecked):
    with pytest.raises(ValueError, match="parts must be"):
        partition_certificate(game(), parts)
    with pytest.raises(ValueError, match="parts must be"):
        partition_sweep(game(), (3, parts))
    with pytest.raises(ValueError, match="parts must be"):
        PartitionedVote(GaussianNB(), parts).fit(np.zeros((4, 1)), [0, 1, 0, 1])


@pytest.mark.parametrize("parts", [(), 3, "3"])
def test_a_sweep_needs_numbers_of_parts(parts, unchecked):
    with pytest.raises(ValueError, match="parts must be a sequence of whole numbers"):
        partition_sweep(game(), parts)


@pytest.mark.real
@pytest.mark.skipif("DATA_MIRROR" not in os.environ, reason="needs the real mails")
def test_four_mails_bring_a_vote_on_real_mail_below_ten_percent(tmp_path):
    fetch("enron", tmp_path)
    prepare("enron", "real", tmp_path)
    part = split(load(tmp_path / "real" / "enron"), np.random.default_rng(0))
    X, X_test = (sp.csr_array(normalize((X > 0).astype(float))) for X in (part.X, part.X_test))
    played = po.LinearGame(
        X, part.y, X_test, part.y_test, domain="nonnegative", learner=po.SVM(0.001), defenses=()
    )  # fmt: skip
    found = partition_certificate(played, 30)
    assert found.bound(0) < found.bound(4) <= 0.10 < found.majority


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_stored_zeros_and_unsorted_rows_stay_as_they_are(kind):
    D = np.random.default_rng(0).integers(0, 3, (12, 3)).astype(float)
    y = np.where(np.arange(12) % 2, 1.0, -1.0)

    def stored():
        indices, starts = np.tile([2, 0, 1], 12), np.arange(0, 37, 3)
        parts = D[:, [2, 0, 1]].ravel(), indices.astype(kind), starts.astype(kind)
        return sp.csr_array(parts, shape=D.shape)

    S, as_it_was = stored(), stored()
    votes = PartitionedVote(po.SVM(), 2).fit(S, y).votes(D)
    np.testing.assert_array_equal(votes, PartitionedVote(po.SVM(), 2).fit(D, y).votes(D))
    played, dense = (
        po.LinearGame(X, y, D, y, domain="counts", learner=po.SVM(), defenses=()) for X in (S, D)
    )
    held = played.X.copy()
    found = partition_certificate(played, 2)
    np.testing.assert_array_equal(found.radius, partition_certificate(dense, 2).radius)
    for one, other in ((S, as_it_was), (played.X, held)):
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
