"""Poison by a clean reference model: trained on clean data, then ascended within a budget."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from poisoning.attacks.ascent import OverallBudget, PerSampleBudget
from poisoning.attacks.reference_ascent import ReferenceTraining, ascend_reference
from poisoning.models.small_cnn import softmax_regression

TRAINING = ReferenceTraining(rate=0.5, batch=32, epochs=5)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X[:400] / 16.0).astype(np.float32), y[:400]


def poisoned(digits, budget, seed=0):
    reference = softmax_regression(64, 10, 0)
    found = ascend_reference(
        reference, *digits, 300, budget, TRAINING, steps=20, rate=0.2, seed=seed
    )
    return found, reference


@pytest.mark.parametrize("budget", [OverallBudget(200.0), PerSampleBudget(0.5)])
def test_poison_keeps_budget_and_box_and_looks_like_other_classes(digits, budget):
    X, y = digits
    found, reference = poisoned(digits, budget)
    lengths = np.linalg.norm(found.X - X, axis=1)
    if isinstance(budget, OverallBudget):
        assert lengths.sum() == pytest.approx(200.0, rel=1e-3)
    else:
        assert lengths.max() <= 0.5 * (1.0 + 1e-5)
    assert found.X.min() >= 0.0 and found.X.max() <= 1.0
    assert found.accuracy > 0.7
    with torch.no_grad():
        clean, moved = (
            float((reference(torch.from_numpy(part)).argmax(1).numpy() == y).mean())
            for part in (X, found.X)
        )
    assert moved < clean - 0.05


def test_the_same_seed_gives_the_same_poison(digits):
    one, other = (poisoned(digits, PerSampleBudget(0.5))[0] for _ in range(2))
    assert np.array_equal(one.X, other.X)
    assert not np.array_equal(poisoned(digits, PerSampleBudget(0.5), seed=1)[0].X, one.X)


def test_examples_outside_the_box_are_refused(digits):
    X, y = digits
    with pytest.raises(ValueError, match=r"X must lie in \[0, 1\]"):
        poisoned((2.0 * X, y), PerSampleBudget(0.5))
