import numpy as np
import pytest

from poisoning.attacks.label_noise import flip_labels, shift_labels


def test_labels_turn_with_the_given_probability():
    rng = np.random.default_rng(0)
    y, digits = np.ones(20_000), np.arange(20_000) % 10
    assert np.mean(flip_labels(y, 0.3, rng) == -1.0) == pytest.approx(0.3, abs=0.01)
    shifted = shift_labels(digits, 10, 0.3, rng)
    assert np.mean(shifted != digits) == pytest.approx(0.3, abs=0.01)
    assert set((shifted - digits) % 10) == {0, 1}
    assert shifted.max() == 9
    assert np.array_equal(flip_labels(y, 0.0, rng), y)
    assert np.array_equal(flip_labels(y, 1.0, rng), -y)
    for beta in (-0.1, 1.1):
        with pytest.raises(ValueError, match="beta must be"):
            flip_labels(y, beta, rng)
