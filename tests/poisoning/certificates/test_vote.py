import numpy as np
import pytest

import poisoning as po
from poisoning.certificates.partition import assigned


def _data(n=200, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return X, np.where(X[:, 0] + 0.3 * rng.normal(size=n) > 0.0, 1.0, -1.0)


def test_every_part_has_a_model_of_its_rows_and_one_vote():
    X, y = _data()
    vote = po.PartitionVote(po.SVM(0.1), 7).fit(X, y)
    members = assigned(X, 7)
    predicted = np.array(
        [po.SVM(0.1).fit(X[members == k], y[members == k]).predict(X) for k in range(7)]
    )
    np.testing.assert_array_equal(vote.predict(X), np.where((predicted > 0).sum(0) > 3, 1.0, -1.0))


def test_its_error_is_what_the_certificate_calls_clean():
    X, y = _data()
    game = po.LinearGame(X[:150], y[:150], X[150:], y[150:], domain="real", learner=po.SVM(0.1))
    for parts in (2, 5, 40):  # with ties, with parts of one class
        vote = po.PartitionVote(po.SVM(0.1), parts).fit(game.X, game.y)
        error = np.mean(vote.predict(game.X_test) != game.y_test)
        assert error == po.partition_certificate(game, parts).bound(0)


def test_it_is_a_learner_of_a_game_and_no_attack_is_above_its_certificate():
    X, y = _data()
    game = po.LinearGame(X[:150], y[:150], X[150:], y[150:], domain="real", learner=po.SVM(0.1))
    bound = po.partition_certificate(game, 15).bound(4)
    voting = game.with_defender(po.PartitionVote(po.SVM(0.1), 15), ())
    rng = np.random.default_rng(1)
    for _ in range(30):
        points = 3.0 * rng.normal(size=(4, 3))
        outcome = voting.evaluate(points, rng.choice([-1.0, 1.0], 4))["none"]
        assert outcome.test_error <= bound


def test_what_is_no_number_of_parts_is_refused():
    with pytest.raises(ValueError, match="parts"):
        po.PartitionVote(po.SVM(), 0).fit(*_data())
