import numpy as np
import pytest
import scipy.sparse as sp

import poisoning as po
from poisoning.defenses.roni import RONIDefense


def _data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, 3)), 2)
    return X, np.where(X[:, 0] > 0.0, 1.0, -1.0)


def test_a_score_is_the_rise_of_the_loss_by_training_again():
    trusted, labels = _data(20, seed=1)
    order = np.argsort(labels, kind="stable")
    low = (labels < 0.0).sum()
    train, test = [np.concatenate([order[:low][i::2], order[low:][i::2]]) for i in (0, 1)]
    X, y = _data(6, seed=2)
    scores = RONIDefense(trusted, labels, po.SVM(0.1)).fit(X, y).score(X, y)

    def loss(rows, signs):
        model = po.SVM(0.1).fit(rows, signs)
        margins = labels[test] * model.decision_function(trusted[test])
        return np.maximum(0.0, 1.0 - margins).mean()

    base = loss(trusted[train], labels[train])
    again = [
        loss(np.vstack([trusted[train], X[i]]), np.append(labels[train], y[i])) - base
        for i in range(6)
    ]
    np.testing.assert_allclose(scores, again, atol=1e-12)


@pytest.mark.parametrize("form", [np.array, sp.csr_array])
def test_a_game_gives_the_scores_of_all_points_together(form):
    trusted, labels = _data(20, seed=1)
    X, y = _data()
    defense = RONIDefense(form(trusted), labels, po.SVM(0.1))
    game = po.LinearGame(
        form(X), y, form(X), y, domain="real", learner=po.SVM(0.1), defenses=[defense], remove=0.2
    )
    poison, signs = form(np.outer([5.0, 6.0, 7.0], np.ones(3))), -np.ones(3)
    attacked = game.attacked(poison, signs)
    everything = defense.score(attacked.data.X, attacked.data.y)
    np.testing.assert_allclose(defense.score_added(attacked.data), everything)
    assert game.evaluate(poison, signs)["roni"].poison_removed == 1.0


def test_trusted_data_of_one_class_are_refused():
    X, y = _data(20)
    with pytest.raises(ValueError, match="at least two of -1"):
        RONIDefense(X, np.ones(20), po.SVM())
    with pytest.raises(ValueError, match="3"):
        RONIDefense(X, y, po.SVM()).score(X[:, :2], y)
