"""Units of the two-layer experiments: perturbed examples, trained widths, risks and exponents."""

import numpy as np
import pytest

from poisoning.models.two_layer import TwoLayerNets, train_online
from replication import two_layer_trial as trial


def examples(n=80, d=6, seed=0):
    rng = np.random.default_rng(seed)
    X = trial.unit_rows(rng.normal(size=(n, d)))
    return X.astype(np.float32), np.where(X[:, 0] > 0.0, 1.0, -1.0).astype(np.float32)


def test_rows_have_unit_length():
    X, _ = examples()
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1.0, rtol=1e-6)


def test_examples_are_moved_against_the_label_by_no_more_than_they_may():
    X, y = examples()
    moved = trial.perturbed(X, y, 0.3, 40, 1.0, 10, 0.2, np.random.default_rng(1))
    assert np.linalg.norm(moved - X, axis=1).max() <= 0.3 * (1.0 + 1e-5)
    assert (y * (moved - X)[:, 0]).mean() < -0.05


def trained(poisoning, seed=2):
    X, y = examples()
    rngs = np.random.default_rng(seed), np.random.default_rng(3)
    return trial.train_width(
        X, y, poisoning, *examples(50, seed=9), 32, (1.0, 0.5), np.array([20, 80]), 30, rngs, "cpu"
    )


def test_clean_networks_are_those_of_a_pass_in_the_drawn_order():
    X, y = examples()
    found = trained(trial.Poisoning(X, 0.0, [0.0, 0.4]))
    assert found.accuracy.shape == (2, 2)
    assert found.distance.shape == found.probe_accuracy.shape == (3, 2, 2)
    order = np.random.default_rng(2).permutation(80)
    start = TwoLayerNets.draw(1, 32, 6, np.random.default_rng(3))
    steps = np.array([1.0], np.float32)
    nets = train_online(start, X[order], y[None, order], steps).nets
    X_test, y_test = examples(50, seed=9)
    assert found.accuracy[0, 0] == pytest.approx(np.mean(nets.scores(X_test)[0] * y_test > 0.0))
    assert found.accuracy[0, 0] > found.accuracy[1, 0]  # flipped labels
    assert np.all(found.distance[0] == 0.0)


def test_a_share_of_the_examples_is_replaced():
    X, _ = examples()
    clean, none, all_of_them = (
        trained(trial.Poisoning(other, share, [0.0]))
        for other, share in ((X, 1.0), (-X, 0.0), (-X, 1.0))
    )
    assert np.array_equal(clean.accuracy, none.accuracy)
    assert np.all(all_of_them.accuracy < clean.accuracy)


def test_the_margin_is_the_estimate_of_the_theory():
    X, y = examples(20)
    keep = np.abs(X[:, 0]) > 0.2
    found = trial.margin(
        trial.unit_rows(X[keep].astype(float)), y[keep].astype(float), 50, np.random.default_rng(0)
    )
    assert found.gap <= 0.03
    assert found.value > 0.0


def test_average_risk_and_its_exponent():
    stops = np.array([1, 2, 4])
    accuracy = np.array([[0.5, 0.5, 0.5, 0.5], [0.0, 1.0, 1.0, 1.0]])
    risk = trial.average_risk(accuracy, stops)
    np.testing.assert_allclose(risk, [[0.5, 0.5, 0.5], [0.5, 0.25, 0.125]])
    np.testing.assert_allclose(trial.exponent(stops, risk), [0.0, -1.0], atol=1e-12)
