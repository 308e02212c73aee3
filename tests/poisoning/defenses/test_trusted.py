import numpy as np
import pytest
from sklearn.base import clone

import poisoning as po
from poisoning.defenses.trusted import TrustedLambda, ValidatedRemoval
from poisoning.defenses.validation import removal_by_validation


def _data(n=80, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, np.where(X[:, 0] + 0.5 * rng.normal(size=n) > 0.0, 1.0, -1.0)


def test_the_lambda_that_errs_least_on_trusted_data_is_kept():
    X, y = _data()
    trusted, labels = _data(50, seed=1)
    y = np.where(np.arange(80) < 25, -y, y)  # a third of the labels are wrong
    lams = (1e-4, 1e-2, 1.0, 100.0)
    chosen = TrustedLambda(po.SVM(), lams, trusted, labels).fit(X, y)
    errors = [np.mean(po.SVM(lam).fit(X, y).predict(trusted) != labels) for lam in lams]
    assert chosen.lam_ == lams[int(np.argmin(errors))]
    np.testing.assert_array_equal(chosen.predict(X), po.SVM(chosen.lam_).fit(X, y).predict(X))


def test_the_removal_is_that_of_held_out_data():
    X, y = _data()
    removals = (0.0, 0.1, 0.3)
    chosen = ValidatedRemoval(po.L2Defense(), po.SVM(0.1), removals, random_state=3).fit(X, y)
    p, model = removal_by_validation(po.L2Defense(), po.SVM(0.1), X, y, removals, 3)
    assert chosen.remove_ == p
    np.testing.assert_array_equal(chosen.decision_function(X), model.decision_function(X))


@pytest.mark.parametrize("kind", ["lambda", "removal"])
def test_they_are_learners_of_a_game(kind):
    X, y = _data()
    learner = (
        TrustedLambda(po.SVM(), [0.01, 1.0], X[:20], y[:20])
        if kind == "lambda"
        else ValidatedRemoval(po.L2Defense(), po.SVM(0.1), [0.0, 0.2])
    )
    game = po.LinearGame(X, y, X, y, domain="real", learner=clone(learner), defenses=[])
    outcome = game.evaluate(np.full((5, 4), 2.0), -np.ones(5))["none"]
    again = game.evaluate(np.full((5, 4), 2.0), -np.ones(5))["none"]
    assert 0.0 < outcome.test_error == again.test_error < 0.6


def test_what_they_cannot_choose_from_is_refused():
    X, y = _data()
    with pytest.raises(ValueError, match="at least one"):
        TrustedLambda(po.SVM(), [], X, y).fit(X, y)
    with pytest.raises(ValueError, match="lams"):
        TrustedLambda(po.SVM(), [-1.0], X, y).fit(X, y)
    with pytest.raises(ValueError, match="must have 2 columns"):
        TrustedLambda(po.SVM(), [1.0], X[:, :2], y).fit(X, y)
    with pytest.raises(ValueError, match="removals"):
        ValidatedRemoval(po.L2Defense(), po.SVM(), []).fit(X, y)
