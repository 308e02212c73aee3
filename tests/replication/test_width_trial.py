"""Units of the width experiment: balanced images, poisoned and learned from."""

import numpy as np
import pytest
import torch
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
@pytest.mark.parametrize("averaged", [False, True])
def test_a_width_is_trained_and_the_epochs_kept_are_among_those_measured(images, averaged):
    record, wider = trial.train_widths(
        images,
        images.X[300:],
        images.y[300:],
        (20, 40),
        0.3,
        16,
        6,
        (1, 5),
        (0, 0),
        "cpu",
        averaged,
    )
    assert not np.array_equal(record.validation, wider.validation)
    assert record.validation.shape == record.test.shape == (6,)
    kept = trial.kept_epochs(record.validation, 3, 2)
    assert kept["fixed"] == 1 and kept["last"] == 5
    assert not np.isnan(record.test[list(kept.values())]).any()
    assert record.test[-1] == pytest.approx(record.validation[-1])


def test_noise_moves_each_weight_by_as_much_as_rounding():
    still, moved, again = (trial.network("cnn", 1, 64, 16, 0) for _ in range(3))
    assert trial.shaken(moved, 3) is moved
    trial.shaken(again, 3)
    for w, w_moved, same in zip(*(m.parameters() for m in (still, moved, again)), strict=True):
        assert torch.equal(w_moved, same) and not torch.equal(w_moved, w)
        torch.testing.assert_close(w_moved, w, rtol=1e-6, atol=0.0)


@pytest.mark.slow
def test_rounding_decides_nothing_at_the_demos_step_size_but_at_four_times_it(images):
    demo = params.load("demo").section("wang2021/width")
    recipe, batch, narrow = demo["recipes"]["mnist"], demo["batch"], min(demo["widths"])

    def tested(rate):
        """Accuracies after every epoch, for twelve starts that differ by rounding."""
        records = trial.train_widths(
            images, images.X, images.y, [narrow] * 12, rate, batch, recipe["epochs"], None, (1, 2),
            "cpu", recipe["averaged"], range(12),
        )  # fmt: skip
        return np.array([record.test for record in records])

    accuracy = tested(recipe["rate"])
    assert accuracy[:, -1].min() > 0.6  # it has learned, by steps of a length that matters
    assert np.ptp(accuracy, axis=0).max() <= 0.005
    assert np.ptp(tested(4 * recipe["rate"]), axis=0).max() > 0.05
