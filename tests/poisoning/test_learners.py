"""The classifiers as scikit-learn's own checks see them, and against the solvers they wrap."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from poisoning import learners
from poisoning.errors import SolverError
from poisoning.learners import SVM, CrammerSingerSVM, LogisticRegression, OnePassSVM
from poisoning.models.logistic import train_logistic
from poisoning.models.multiclass_svm import train_multiclass_svm
from poisoning.models.sgd import train_one_pass
from poisoning.models.svm import train_svm

ALL = ["SVM", "LogisticRegression", "OnePassSVM", "CrammerSingerSVM"]

CHECKS = """
import sys, warnings
from sklearn.utils.estimator_checks import check_estimator
from poisoning import learners
warnings.simplefilter("ignore")
made = getattr(learners, sys.argv[1])()
results = check_estimator(made, on_skip=None, on_fail=None)
for one in results:
    if one["status"] != "passed":
        print(one["check_name"], one["status"], one["exception"])
print(len(results), "checks")
"""


def two_classes(seed=0, n=80, d=5):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    return rng.normal(size=(n, d)) + 0.5 * y[:, None], y


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ALL, "PartitionedVote"])
def test_scikit_learn_finds_nothing_wrong(name):
    """All of its checks pass, none is skipped; one of them needs a variable set at the start."""
    sources = Path(learners.__file__).parents[1]
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": str(sources)}
    done = subprocess.run(
        [sys.executable, "-c", CHECKS, name],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *complaints, count = done.stdout.splitlines()
    assert complaints == []
    assert int(count.split()[0]) >= 50


@pytest.mark.parametrize(
    ("learner", "train"),
    [
        (SVM(0.05, tol=1e-8), lambda X, y: train_svm(X, y, 0.05, tol=1e-8).model),
        (LogisticRegression(0.05), lambda X, y: train_logistic(X, y, 0.05).model),
        (OnePassSVM(0.05, random_state=3), lambda X, y: train_one_pass(X, y, 0.05, seed=3)),
        (
            OnePassSVM(0.05, average=True),
            lambda X, y: train_one_pass(X, y, 0.05, seed=0, average=True),
        ),
    ],
)
@pytest.mark.parametrize("wrap", [np.array, sp.csr_array, sp.csr_matrix, sp.coo_array])
def test_a_classifier_is_what_its_solver_finds(learner, train, wrap):
    X, y = two_classes()
    fitted = clone(learner).fit(wrap(X), y)
    model = train(sp.csr_array(X) if sp.issparse(wrap(X)) else X, y)
    assert fitted.coef_[0].tobytes() == model.theta.tobytes()
    assert fitted.intercept_.tolist() == [model.bias]
    assert np.array_equal(fitted.decision_function(X), model.decision(X))
    assert np.array_equal(fitted.predict(wrap(X)), model.predict(X))


@pytest.mark.parametrize("names", [("ham", "spam"), (0, 1), (3, 7), (False, True)])
@pytest.mark.parametrize("name", ALL)
def test_labels_of_any_two_kinds_are_told_apart(name, names):
    X, y = two_classes()
    kinds = np.array(names)[(y > 0).astype(int)]
    learner = getattr(learners, name)
    plain, other = learner().fit(X, y), learner().fit(X, kinds)
    assert other.classes_.tolist() == list(names)
    assert np.array_equal(other.coef_, plain.coef_)
    assert np.array_equal(other.predict(X) == names[1], plain.predict(X) == 1.0)
    assert other.score(X, kinds) == plain.score(X, y) > 0.7


def test_a_start_from_the_clean_solution_reaches_the_same_model():
    X, y = two_classes()
    clean = SVM(0.05, tol=1e-9).fit(X[:60], y[:60])
    weights = np.r_[np.ones(70), np.zeros(10)]
    added = SVM(0.05, tol=1e-9).fit_added(X, y, weights, clean)
    fresh = SVM(0.05, tol=1e-9).fit(X[:70], y[:70])
    np.testing.assert_allclose(added.coef_, fresh.coef_, atol=1e-4)
    assert np.array_equal(added.predict(X), fresh.predict(X))


@pytest.mark.parametrize("seed", [0, 1, 42])
@pytest.mark.parametrize(
    "learner", [SVM(), LogisticRegression(), SVM(1e-4), LogisticRegression(1.0)]
)
def test_features_far_from_zero_are_learned_to_the_tolerance(learner, seed):
    """Coordinate descent crawls there, and values of the objective differ by rounding alone."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(loc=100.0, size=(100, 2)), np.where(rng.random(100) < 0.5, 1.0, -1.0)
    solution = clone(learner).fit(X, y).solution_
    if isinstance(learner, SVM):
        assert solution.gap <= 1e-6 * solution.objective
    else:
        assert solution.gradient_norm <= 1e-8


def test_three_classes_are_those_of_the_solver_whatever_they_are_called():
    rng = np.random.default_rng(0)
    codes = np.arange(90) % 3
    X = np.eye(3)[codes] + 0.2 * rng.normal(size=(90, 3))
    names = np.array(["a", "b", "c"])[codes]
    fitted = CrammerSingerSVM(batch=5, step=0.1, passes=4, random_state=7).fit(X, names)
    model = train_multiclass_svm(
        X, codes, 3, np.random.default_rng(7), batch=5, step=0.1, passes=4
    )  # fmt: skip
    assert np.array_equal(fitted.coef_, model.theta)
    assert fitted.score(X, names) > 0.9
    assert np.array_equal(fitted.losses(X, names), model.losses(X, codes))
    assert fitted.decision_function(X).shape == (90, 3)


def test_they_join_scikit_learns_own_tools():
    X, y = two_classes()
    pipeline = make_pipeline(StandardScaler(), SVM())
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.7
    search = GridSearchCV(LogisticRegression(), {"lam": [1e-3, 1e-1]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.7


@pytest.mark.parametrize("name", ALL)
def test_as_many_labels_as_points(name):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        getattr(learners, name)().fit(np.zeros((4, 2)), [1, -1, 1])


@pytest.mark.parametrize("learner", [SVM(0.0), SVM(-1.0), LogisticRegression(0.0)])
def test_a_penalty_is_above_zero(learner):
    with pytest.raises(ValueError, match=r"^lam must be a finite number above 0"):
        learner.fit(*two_classes())


def test_two_classes_only():
    X, _ = two_classes()
    for learner in (SVM(), LogisticRegression(), OnePassSVM()):
        with pytest.raises(ValueError, match="Only binary classification is supported"):
            learner.fit(X, np.arange(80) % 3)


def test_a_budget_too_small_is_an_error():
    X, y = two_classes()
    with pytest.raises(SolverError, match="raise max_epochs"):
        SVM(1e-4, max_epochs=1).fit(X + 1e12, y)
    with pytest.raises(SolverError, match="raise max_iterations"):
        LogisticRegression(1e-4, max_iterations=1).fit(X, y)
