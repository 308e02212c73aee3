"""One poisoned point in the plane: its map, and the way that an attack takes on it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from replication import synthetic_map as synthetic


@pytest.fixture(scope="module")
def drawn():
    return synthetic.synthetic_map(np.random.default_rng(0), 9, 5, 1.0)


def test_classes_lie_on_either_side_with_the_covariance_of_the_paper():
    X, y = (part.numpy() for part in synthetic.sample(20_000, np.random.default_rng(1)))
    for label in (-1.0, 1.0):
        part = X[y == label]
        np.testing.assert_allclose(part.mean(axis=0), [3.0 * label, 0.0], atol=0.05)
        np.testing.assert_allclose(np.cov(part.T), np.diag([2.5, 1.5]), atol=0.06)


def test_a_regularised_model_is_scikit_learns(drawn):
    found = synthetic.unpoisoned(drawn, 1.0)
    peer = LogisticRegression(C=1.0 / (32 * np.e), fit_intercept=False, tol=1e-12)
    peer.fit(np.c_[drawn.X_train, np.ones(32)], drawn.y_train)
    np.testing.assert_allclose(found.w[0], peer.coef_[0], atol=1e-6)
    wrong = peer.predict(np.c_[drawn.X_held, np.ones(64)]) != drawn.y_held
    assert found.error[0] == wrong.mean()


def test_a_place_of_the_map_is_that_point_added_to_the_training_set(drawn):
    axis = np.linspace(-synthetic.EXTENT, synthetic.EXTENT, 9)
    place = torch.tensor([[[axis[7], axis[2]]]])  # row 2, column 7
    alone = synthetic.validate(drawn.train, drawn.held, place, 1.0)
    assert drawn.regular_error[2 * 9 + 7] == alone.error[0]
    tried = np.linspace(synthetic.LOW, synthetic.HIGH, 5)
    losses = [synthetic.validate(drawn.train, drawn.held, place, lam).loss[0] for lam in tried]
    assert drawn.best[2 * 9 + 7] == tried[np.argmin(losses)]


def test_the_ascent_stays_in_the_square_and_raises_the_loss(drawn):
    way, attacked = synthetic.ascend(drawn, 1.0)
    assert way.shape == (61, 2)
    assert np.abs(way).max() <= synthetic.EXTENT
    start = torch.from_numpy(way[:1]).reshape(1, 1, 2)
    assert attacked.loss[0] > synthetic.validate(drawn.train, drawn.held, start, 1.0).loss[0]


def test_quantities_are_those_of_the_map(drawn):
    found = synthetic.synthetic_quantities(drawn, 1.0)
    assert found["none.range"] == np.ptp(drawn.free_error)
    assert found["regularised.clean_error"] == synthetic.unpoisoned(drawn, 1.0).error[0]
    harmful = np.argsort(drawn.free_loss, kind="stable")[-8:]
    assert found["best_lambda.harmful"] == pytest.approx(drawn.best[harmful].mean())
    assert -1.0 <= found["best_lambda.correlation"] <= 1.0
