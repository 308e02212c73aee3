"""Units of the width experiment: balanced images, poisoned and learned from."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from poisoning.attacks.ascent import PerSampleBudget
from poisoning.attacks.reference_ascent import ReferenceTraining
from replication import params
from replication import width_trial as trial


@pytest.fixture(scope="module")
def images():
    X, y = load_digits(return_X_y=True)
    rows = trial.rows_per_class(y, 400, np.random.default_rng(0))
    return trial.Images((X[rows] / 16.0).astype(np.float32), y[rows], 300, 1)


def test_every_class_has_as_many_rows_as_the_others(images):
    assert np.bincount(images.y).tolist() == [40] * 10
    y = np.repeat(np.arange(10), [3] + [9] * 9)
    rows = trial.rows_per_class(y, 80, np.random.default_rng(0))
    assert np.bincount(y[rows]).tolist() == [3] * 10
    assert len(np.unique(rows)) == 30


@pytest.mark.parametrize(
    ("kind", "d", "last"), [("softmax", 64, (10, 64)), ("cnn", 64, (10, 7)), ("cnn", 784, (10, 7)),
                            ("alexnet", 64, (10, 512))],
)  # fmt: skip
def test_networks_suit_the_images(kind, d, last):
    parameters = [tuple(p.shape) for p in trial.network(kind, 1, d, 7, 0).parameters()]
    assert parameters[-2] == last


def test_poison_is_that_of_a_reference_of_its_kind(images):
    found = trial.poisoned_images(
        images, "softmax", PerSampleBudget(0.5), ReferenceTraining(0.5, 32, 4), 5, 0.3, 1, "cpu"
    )
    lengths = np.linalg.norm(found.X - images.X, axis=1)
    assert 0.4 < lengths.mean() <= lengths.max() <= 0.5 * (1.0 + 1e-5)
    assert 0.5 < found.accuracy <= 1.0


@pytest.mark.slow
def test_a_width_is_trained_and_the_epochs_kept_are_among_those_measured(images):
    record = trial.train_width(
        images, images.X[300:], images.y[300:], 20, 0.3, 16, 6, (1, 5), (0, 0), "cpu"
    )
    assert record.validation.shape == record.test.shape == (6,)
    kept = trial.kept_epochs(record.validation, 3, 2)
    assert kept["fixed"] == 1 and kept["last"] == 5
    assert not np.isnan(record.test[list(kept.values())]).any()
    assert record.test[-1] == pytest.approx(record.validation[-1])


@pytest.mark.slow
def test_rounding_decides_nothing_at_the_demos_step_size(images):
    demo = params.load("demo").section("wang2021/width")
    rate, batch, narrow = demo["rate"]["mnist"], demo["batch"], min(demo["widths"])
    moved = images.X * (1 + 1e-7 * np.random.default_rng(0).standard_normal(images.X.shape))
    curves = [
        trial.train_width(
            replace(images, X=X.astype(np.float32)), images.X, images.y, narrow, rate, batch,
            demo["epochs"], None, (1, 2), "cpu",
        ).test
        for X in (images.X, moved)
    ]  # fmt: skip
    assert curves[0][-1] > 0.6  # it has learned, by steps of a length that matters
    np.testing.assert_allclose(curves[1], curves[0], atol=0.02)
