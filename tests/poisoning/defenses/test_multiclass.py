"""The L2 and the loss defense with more than two classes."""

import numpy as np
import pytest

from poisoning.defenses.multiclass import evaluate_multiclass


def blobs(seed, n):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return np.eye(3)[y] @ np.eye(3, 6) + 0.2 * rng.normal(size=(n, 6)), y


def evaluate(X_poison, y_poison, **options):
    X, y = blobs(0, 600)
    X_test, y_test = blobs(1, 150)
    return evaluate_multiclass(
        X, y, X_test, y_test, X_poison, y_poison, 3, np.random.default_rng(0), **options
    )


def test_far_and_ill_fitting_poison_goes():
    # Points of class 1 far away, labelled 0.
    outcomes = evaluate(4.0 * np.tile(np.eye(6)[1], (6, 1)), np.zeros(6, dtype=np.int64))
    assert outcomes["none"].poison_removed == 0.0
    assert outcomes["none"].clean_removed == 0.0
    assert outcomes["l2"].poison_removed == 1.0
    assert outcomes["loss"].poison_removed == 1.0
    for name in ("l2", "loss"):
        assert 0.03 < outcomes[name].clean_removed <= 0.05
        assert outcomes[name].test_error < 0.1


def test_without_poison_the_price_of_the_defense_remains():
    outcomes = evaluate(np.zeros((0, 6)), np.zeros(0, dtype=np.int64), defenses=("l2",))
    assert set(outcomes) == {"l2"}
    assert np.isnan(outcomes["l2"].poison_removed)
    assert outcomes["l2"].clean_removed == pytest.approx(0.05, abs=0.01)


def test_other_defenses_are_refused():
    with pytest.raises(ValueError, match="unknown defenses"):
        evaluate(np.zeros((0, 6)), np.zeros(0, dtype=np.int64), defenses=("slab",))
