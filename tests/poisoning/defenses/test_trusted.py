import numpy as np
import pytest
from sklearn.base import clone
from sklearn.tree import DecisionTreeClassifier

import poisoning as po
from poisoning.defenses.trusted import Sanitized, TrustedChoice, ValidatedRemoval
from poisoning.defenses.validation import removal_by_validation


def _data(n=80, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, np.where(X[:, 0] + 0.5 * rng.normal(size=n) > 0.0, 1.0, -1.0)


def _svms(lams):
    return [po.SVM(lam) for lam in lams]


def test_the_lambda_that_errs_least_on_trusted_data_is_kept():
    X, y = _data()
    trusted, labels = _data(50, seed=1)
    y = np.where(np.arange(80) < 25, -y, y)  # a third of the labels are wrong
    lams = (1e-4, 1e-2, 1.0, 100.0)
    chosen = TrustedChoice(_svms(lams), trusted, labels).fit(X, y)
    errors = [np.mean(po.SVM(lam).fit(X, y).predict(trusted) != labels) for lam in lams]
    assert chosen.chosen_ == np.argmin(errors)
    best = po.SVM(lams[chosen.chosen_]).fit(X, y)
    np.testing.assert_array_equal(chosen.predict(X), best.predict(X))


def test_a_sanitized_learner_is_a_defense_and_a_learner():
    X, y = _data()
    poison = np.full((4, 4), 3.0)
    attacked = np.vstack([X, poison]), np.append(y, -np.ones(4))
    for defense in (po.L2Defense(), po.LossDefense()):
        game = po.LinearGame(
            X, y, X, y, domain="real", learner=po.SVM(0.1), defenses=[defense], remove=0.1
        )
        (outcome,) = [o for n, o in game.evaluate(poison, -np.ones(4)).items() if n != "none"]
        learner = Sanitized(defense, po.SVM(0.1), 0.1).fit(*attacked)
        assert np.mean(learner.predict(X) != y) == outcome.test_error
        assert 1.0 - learner.keep_[-4:].mean() == outcome.poison_removed


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
        TrustedChoice(_svms([0.01, 1.0]), X[:20], y[:20])
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
        TrustedChoice([], X, y).fit(X, y)
    with pytest.raises(ValueError, match="must have 2 columns"):
        TrustedChoice([po.SVM()], X[:, :2], y).fit(X, y)
    with pytest.raises(ValueError, match="removals"):
        ValidatedRemoval(po.L2Defense(), po.SVM(), []).fit(X, y)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("removals", [(p for p in (0.0, 0.1)), 0.1])
def test_fractions_that_cannot_be_read_twice_are_refused(removals):
    with pytest.raises(
        ValueError, match="removals must be a sequence of at least one fraction, not "
    ):
        ValidatedRemoval(po.L2Defense(), po.SVM(), removals).fit(*_data())


@pytest.mark.parametrize(
    "model", [DecisionTreeClassifier(max_depth=2, random_state=0), po.SVM(0.1)]
)
def test_they_can_do_what_their_model_can(model):
    X, y = _data()
    for learner in (
        Sanitized(po.KNNDefense(), model, 0.1),
        TrustedChoice([model, model], X[:20], y[:20]),
        ValidatedRemoval(po.L2Defense(), model, [0.0, 0.2]),
    ):
        for made in (learner, clone(learner).fit(X, y)):
            for method in ("decision_function", "predict_proba"):
                assert hasattr(made, method) == hasattr(model, method)
        can = "decision_function" if hasattr(model, "decision_function") else "predict_proba"
        np.testing.assert_array_equal(getattr(made, can)(X), getattr(made.model_, can)(X))
        game = po.LinearGame(
            X, y, X, y, domain="real", learner=learner, defenses=[po.LossDefense()]
        )  # fmt: skip
        assert game.evaluate(X[:3], -y[:3])["loss"].test_error < 0.6
