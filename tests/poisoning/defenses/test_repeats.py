import numpy as np
import pytest
import scipy.sparse as sp

import poisoning as po
from poisoning.defenses.repeats import RepeatsDefense


@pytest.mark.parametrize("form", [np.array, sp.csr_array])
def test_of_equal_points_the_first_stays(form):
    X = form(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [-0.0, 2.0], [0.0, 2.0]]))
    y = np.array([1.0, 1.0, -1.0, 1.0, 1.0, -1.0])
    scores = RepeatsDefense().fit(X, y).score(X, y)
    np.testing.assert_array_equal(np.isinf(scores), [False, True, False, False, True, False])


def test_in_a_game_copies_go_whatever_the_fraction():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    y = np.where(X[:, 0] > 0.0, 1.0, -1.0)
    game = po.LinearGame(
        X, y, X, y, domain="real", learner=po.SVM(0.1), defenses=[RepeatsDefense()], remove=0.0
    )
    copies = np.vstack([np.repeat([[9.0, 9.0, 9.0]], 4, axis=0), X[:1]])
    outcome = game.evaluate(copies, np.array([1.0, 1.0, 1.0, 1.0, y[0]]))["repeats"]
    assert outcome.poison_removed == 0.8
    assert outcome.clean_removed == 0.0
