import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError

import poisoning as po
from poisoning.defenses.sever import SEVERDefense


def _data(n=60, d=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, np.where(X[:, 0] + 0.3 * rng.normal(size=n) > 0.0, 1.0, -1.0)


def test_a_round_is_the_singular_vector_of_centred_gradients():
    X, y = _data()
    found = SEVERDefense(po.SVM(0.1), rounds=1)._projections(X, y)
    model = po.SVM(0.1).fit(X, y)
    active = y * model.decision_function(X) < 1.0
    gradients = -(active * y)[:, None] * np.column_stack([X, np.ones(len(y))])
    centred = gradients - gradients.mean(axis=0)
    v = np.linalg.svd(centred)[2][0]
    np.testing.assert_allclose(found, (centred @ v) ** 2, rtol=1e-6, atol=1e-10)


def test_rounds_discard_the_fraction_together_and_earlier_ones_score_higher():
    X, y = _data(200)
    scores = SEVERDefense(po.SVM(0.1), rounds=2, remove=0.1).fit(X, y).score(X, y)
    for label in (-1.0, 1.0):
        n = int((y == label).sum())
        first, both = (scores[y == label] > 2.0).sum(), (scores[y == label] > 1.0).sum()
        assert first == int(0.05 * n)
        assert abs(both - 0.1 * n) <= 2
    keep = po.LinearGame(
        X, y, X, y, domain="real", learner=po.SVM(0.1), remove=0.1,
        defenses=[SEVERDefense(rounds=2, remove=0.1)],
    ).attacked(X[:0], y[:0]).keep("sever")  # fmt: skip
    assert not keep[scores > 1.0].any()


def test_points_that_pull_one_way_go():
    X, y = _data(300)
    game = po.LinearGame(
        X, y, X, y, domain="real", learner=po.SVM(0.1), defenses=[SEVERDefense()], remove=0.05
    )
    poison = np.repeat([[8.0, 8.0, 0.0, 0.0, 0.0]], 6, axis=0)
    assert game.evaluate(poison, -np.ones(6))["sever"].poison_removed == 1.0


def test_what_it_cannot_do_is_said():
    X, y = _data()
    with pytest.raises(ValueError, match="rounds"):
        SEVERDefense(rounds=0)
    with pytest.raises(ValueError, match="outside a game, learner"):
        SEVERDefense().fit(X, y)
    with pytest.raises(TypeError, match="linear classifier"):
        SEVERDefense(RandomForestClassifier(2)).fit(X, y)
    with pytest.raises(NotFittedError):
        SEVERDefense(po.SVM()).score(X, y)
    with pytest.raises(ValueError, match="60 rows"):
        SEVERDefense(po.SVM()).fit(X, y).score(X[:5], y[:5])


def test_points_without_a_gradient_all_score_zero():
    X = np.array([[9.0, 0.0], [8.0, 1.0], [-9.0, 0.0], [-8.0, -1.0]])
    y = np.array([1.0, 1.0, -1.0, -1.0])
    for learner in (LinearDiscriminantAnalysis(), po.SVM(1e-4)):  # wide margins, and just enough
        scores = SEVERDefense(learner).fit(X, y).score(X, y)
        assert np.isfinite(scores).all()
        if isinstance(learner, LinearDiscriminantAnalysis):
            np.testing.assert_array_equal(scores, np.zeros(4))


@pytest.mark.parametrize("lam", [0.01, 1.0])
def test_two_points_are_enough(lam):
    X, y = _data()
    X, y = X[:2], np.array([1.0, -1.0])
    scores = SEVERDefense(po.SVM(lam), rounds=1)._projections(X, y)
    assert scores[0] == pytest.approx(scores[1])
