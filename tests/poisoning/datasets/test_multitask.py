"""Draws of tasks: disjoint, scaled by what is trained on, padded, and of the paper's sizes."""

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from poisoning.datasets import fetch, load, prepare
from poisoning.datasets.dataset import Dataset
from poisoning.datasets.multitask import (
    draw_fields,
    draw_one_vs_rest,
    draw_torques,
    principal_components,
)

MIRROR = os.environ.get("DATA_MIRROR")


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("data"), {}

    def get(name):
        if name not in found:
            prepare(name, "standin", folder)
            found[name] = load(folder / "standin" / name)
        return found[name]

    return get


def rng(seed=0):
    return np.random.default_rng(seed)


def draws_of(standin):
    return {
        "sarcos": draw_torques(standin("sarcos"), rng()),
        "landmine": draw_fields(standin("landmine"), rng()),
        "mnist": draw_one_vs_rest(principal_components(standin("mnist")), rng()),
    }


def test_training_rows_fill_the_unit_ball_carry_a_bias_and_weigh_one_per_task(standin):
    for draw in draws_of(standin).values():
        used = draw.weight > 0
        assert np.linalg.norm(draw.X[used][:, :-1], axis=1).max() == pytest.approx(1.0)
        assert np.all(draw.X[used][:, -1] == 1.0)
        assert not draw.X[~used].any()
        assert not draw.y[~used].any()
        np.testing.assert_allclose(draw.weight.sum(axis=1), 1.0)
        for X, y in zip(draw.X_test, draw.y_test, strict=True):
            assert np.all(X[:, -1] == 1.0)
            assert len(X) == len(y)


def test_the_same_generator_draws_the_same_and_another_differs(standin):
    data = standin("landmine")
    np.testing.assert_array_equal(draw_fields(data, rng(1)).X, draw_fields(data, rng(1)).X)
    assert not np.array_equal(draw_fields(data, rng(1)).X, draw_fields(data, rng(2)).X)


def test_torques_are_standardised_on_the_training_rows_and_tasks_share_inputs(standin):
    draw = draw_torques(standin("sarcos"), rng(), n_train=200, n_test=400)
    assert draw.X.shape == (7, 200, 22)
    np.testing.assert_allclose(draw.y.mean(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(draw.y.std(axis=1), 1.0)
    assert all(X is draw.X_test[0] for X in draw.X_test)
    assert draw.X_test[0].shape == (400, 22)
    for task in range(1, 7):
        np.testing.assert_array_equal(draw.X[task], draw.X[0])


def test_rows_that_train_do_not_test(standin):
    # Each row carries its number as an input, which survives the scaling as a distinct value.
    sarcos = standin("sarcos")
    numbered = replace(sarcos, X=np.arange(1.0, len(sarcos.y) + 1)[:, None])
    draw = draw_torques(numbered, rng())
    assert not np.intersect1d(draw.X[0, :, 0], draw.X_test[0][:, 0]).size

    fields = standin("landmine")
    numbered = replace(fields, X=np.arange(1.0, len(fields.y) + 1)[:, None])
    draw = draw_fields(numbered, rng())
    for task in range(29):
        train = draw.X[task, draw.weight[task] > 0, 0]
        test = draw.X_test[task][:, 0]
        assert not np.intersect1d(train, test).size
        assert len(train) + len(test) == np.sum(fields.tasks == task)


@settings(max_examples=15, derandomize=True, deadline=None)
@given(
    sizes=st.lists(st.integers(8, 40), min_size=1, max_size=5),
    fraction=st.floats(0.15, 0.7),
    seed=st.integers(0, 100),
)
def test_every_field_trains_on_its_share(sizes, fraction, seed):
    generator = rng(seed)
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    # Every other example is positive: any four test examples or more nearly always hold both.
    y = np.where(np.arange(len(tasks)) % 2 == 0, 1.0, -1.0)
    data = Dataset("f", "standin", "real", generator.normal(size=(len(tasks), 3)), y, tasks=tasks)
    try:
        draw = draw_fields(data, generator, fraction)
    except ValueError as error:
        assert "too few" in str(error)
        reject()
    assert (draw.weight > 0).sum(axis=1).tolist() == [round(fraction * n) for n in sizes]


def test_digits_are_told_from_the_rest_in_equal_numbers(standin):
    mnist = standin("mnist")
    draw = draw_one_vs_rest(mnist, rng(), per_class=50)
    assert draw.X.shape == (10, 100, 65)
    np.testing.assert_array_equal((draw.y > 0).sum(axis=1), 50)
    np.testing.assert_array_equal((draw.y < 0).sum(axis=1), 50)
    for label, y in enumerate(draw.y_test):
        np.testing.assert_array_equal(y > 0, mnist.y_test == label)
    # A class with fewer examples than asked for gives all of them.
    scarce = draw_one_vs_rest(mnist, rng(), per_class=10_000)
    np.testing.assert_array_equal(
        (scarce.y > 0).sum(axis=1), np.bincount(mnist.y.astype(int), minlength=10)
    )


def test_principal_components_are_the_singular_vectors_of_the_training_set(standin):
    mnist = standin("mnist")
    reduced = principal_components(mnist, 20)
    centred = mnist.X - mnist.X.mean(axis=0)
    right = np.linalg.svd(centred, full_matrices=False)[2][:20]
    signs = np.sign(np.sum((centred @ right.T) * reduced.X, axis=0))
    np.testing.assert_allclose(reduced.X, centred @ right.T * signs, atol=1e-9)
    expected = (mnist.X_test - mnist.X.mean(axis=0)) @ right.T * signs
    np.testing.assert_allclose(reduced.X_test, expected, atol=1e-9)
    assert principal_components(mnist, 128).X.shape == mnist.X.shape


def test_what_has_no_such_tasks_is_refused(standin):
    with pytest.raises(ValueError, match="one column of targets per task"):
        draw_torques(standin("landmine"), rng())
    with pytest.raises(ValueError, match="at least 1000 \\+ 600 rows"):
        draw_torques(standin("sarcos"), rng(), n_train=1000)
    with pytest.raises(ValueError, match="has no tasks"):
        draw_fields(standin("mnist"), rng())
    with pytest.raises(ValueError, match="too few"):
        draw_fields(standin("landmine"), rng(), train_fraction=1.0)
    with pytest.raises(ValueError, match="must have a test set"):
        draw_one_vs_rest(standin("landmine"), rng())


@pytest.mark.real
@pytest.mark.skipif(not MIRROR, reason="DATA_MIRROR is not set")
def test_landmine_has_the_papers_training_sizes(tmp_path):
    fetch("landmine", tmp_path)
    prepare("landmine", "real", tmp_path)
    draw = draw_fields(load(tmp_path / "real" / "landmine"), rng())
    sizes = (draw.weight > 0).sum(axis=1)
    assert (len(sizes), sizes.min(), sizes.max()) == (29, 89, 138)
