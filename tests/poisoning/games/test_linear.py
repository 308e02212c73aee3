"""The linear game: evaluation against plain sanitisation, foreign learners, detectors, refusals."""

import copy
import re

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.cluster import DBSCAN
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression as SklearnLogistic
from sklearn.linear_model import Ridge, RidgeClassifier, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.svm import SVC, LinearSVC, OneClassSVM

from poisoning.attacks.kkt import KKT
from poisoning.attacks.min_max import MinMax
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.defenses import FIVE, svd
from poisoning.defenses.centroid import L2Defense, SlabDefense
from poisoning.defenses.detector import keep_mask, name_of, sanitize
from poisoning.defenses.filters import OracleFilter, RandomFilter, Together
from poisoning.defenses.knn import KNNDefense
from poisoning.defenses.loss import LossDefense
from poisoning.defenses.svd import SVDDefense
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.games.linear import LinearGame
from poisoning.learners import (
    SVM,
    CrammerSingerSVM,
    LogisticRegression,
    OnePassSVM,
    PartitionedVote,
)
from poisoning.models.linear import LinearModel
from poisoning.models.logistic import train_logistic
from poisoning.models.multiclass_svm import train_multiclass_svm
from poisoning.models.svm import train_svm

COUNTS = "counts"
LAM = 0.05
NAMES = [name_of(defense) for defense in FIVE]
DEFENSES = dict(zip(NAMES, FIVE, strict=True)) | {"loss": LossDefense(SVM(LAM))}


def mail(n, rng, d=250):
    """Two topics over a Zipf vocabulary."""
    y = np.where(rng.random(n) < 0.3, 1.0, -1.0)
    rates = 3.0 / np.arange(1, d + 1) ** 0.8
    tilt = np.random.default_rng(99).normal(0.0, 0.7, d)
    counts = rng.poisson(rates * np.exp(y[:, None] * tilt) * rng.gamma(2.0, 0.5, (n, 1)))
    return counts.astype(float), y


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return mail(400, rng), mail(200, rng)


@pytest.fixture(scope="module")
def poison(data):
    """Spam-like mail called ham and the reverse: few distinct rows, copied; one is clean mail."""
    (X, y), _ = data
    rows = np.vstack([X[y > 0][:2], np.round(X[y > 0].mean(0)), np.round(X[y < 0].mean(0))])
    return np.repeat(rows, [2, 3, 4, 3], axis=0), np.repeat([-1.0, -1.0, -1.0, 1.0], [2, 3, 4, 3])


def game_of(data, sparse=True, **options):
    (X, y), (X_test, y_test) = data
    wrap = sp.csr_array if sparse else np.array
    return LinearGame(
        wrap(X), y, wrap(X_test), y_test, **{"domain": COUNTS, "learner": SVM(LAM)} | options
    )


def fingerprint(outcomes):
    """Every bit of what an evaluation answers."""
    return {
        name: (
            np.float64(
                [
                    *(one.test_error, one.poison_removed, one.clean_removed, one.residual),
                    *one.clean_removed_by_label.values(),
                ]
            ).tobytes(),
            one.model.theta.tobytes(),
            one.model.bias,
        )
        for name, one in outcomes.items()
    }


# Evaluation against plain sanitisation -----------------------------------------------------------


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_cached_evaluation_is_plain_sanitization(data, poison, sparse, name):
    (X, y), (X_test, y_test) = data
    P, yp = poison
    clean = game_of(data, sparse)
    outcome = clean.attacked(P if not sparse else sp.csr_array(P), yp).outcome(name)
    everything, labels = np.vstack([X, P]), np.r_[y, yp]
    keep = sanitize(DEFENSES[name], sp.csr_array(everything) if sparse else everything, labels)
    model = train_svm(everything[keep], labels[keep], LAM).model
    assert outcome.poison_removed == pytest.approx(1.0 - keep[400:].mean())
    assert outcome.clean_removed == pytest.approx(1.0 - keep[:400].mean())
    for label in (1.0, -1.0):
        expected = 1.0 - keep[:400][y == label].mean()
        assert outcome.clean_removed_by_label[label] == pytest.approx(expected)
    assert outcome.test_error == pytest.approx(model.error(X_test, y_test), abs=0.0051)
    assert np.allclose(outcome.model.theta, model.theta, atol=5e-3)


def test_undefended_learner_and_yardsticks(data, poison):
    (X, y), (X_test, y_test) = data
    P, yp = poison
    game = game_of(data, defenses=[OracleFilter(), RandomFilter()])
    outcome = game.evaluate(sp.csr_array(P), yp, rng=np.random.default_rng(3))
    assert outcome["none"].poison_removed == outcome["none"].clean_removed == 0.0
    assert outcome["oracle"].poison_removed == 1.0
    assert outcome["oracle"].clean_removed_by_label[-1.0] == 0.0
    perfect = train_svm(X, y, LAM).model.error(X_test, y_test)
    assert outcome["oracle"].test_error == pytest.approx(perfect, abs=0.0051)
    assert 0.0 < outcome["random"].clean_removed_by_label[-1.0] < 0.1


def test_poison_of_no_rows_prices_the_defenses(data):
    (X, y), _ = data
    clean = game_of(data)
    outcome = clean.evaluate(sp.csr_array(X[:0]), y[:0])
    assert np.isnan(outcome["l2"].poison_removed)
    assert outcome["none"].model.theta.tobytes() == clean.clean_svm.model.theta.tobytes()
    for name in NAMES:
        keep = sanitize(DEFENSES[name], sp.csr_array(X), y)
        for label in (1.0, -1.0):
            expected = 1.0 - keep[y == label].mean()
            assert outcome[name].clean_removed_by_label[label] == pytest.approx(expected)


def test_a_class_without_poison(data, poison):
    P, _ = poison
    outcome = game_of(data).evaluate(sp.csr_array(P), np.ones(len(P)))
    assert set(outcome) == {"none", *NAMES}


def test_poison_is_worth_the_least_error_over_the_defenses(data, poison):
    P, yp = poison
    game = game_of(data)
    outcome = game.evaluate(sp.csr_array(P), yp)
    assert game.value(outcome) == min(outcome[name].test_error for name in NAMES)
    two = game.with_defenses(FIVE[:2])
    few = two.evaluate(sp.csr_array(P), yp)
    assert list(few) == ["none", "l2", "slab"]
    assert two.value(few) == min(outcome["l2"].test_error, outcome["slab"].test_error)
    bare = game.with_defenses([])
    alone = bare.evaluate(sp.csr_array(P), yp)
    assert bare.value(alone) == alone["none"].test_error == outcome["none"].test_error


def test_together_discards_what_any_of_them_would(data, poison):
    P, yp = poison
    game = game_of(data, defenses=[*FIVE, Together(FIVE)])
    attacked = game.attacked(sp.csr_array(P), yp)
    together = attacked.keep("all")
    assert np.array_equal(together, np.logical_and.reduce([attacked.keep(name) for name in NAMES]))
    assert together.sum() < min(attacked.keep(name).sum() for name in NAMES)
    outcome = attacked.outcome("all")
    assert outcome.poison_removed == pytest.approx(1.0 - together[400:].mean())


def test_together_joins_detectors_of_other_libraries():
    _, _, points, labels = clouds()
    parts = [IsolationForest(random_state=0), OneClassSVM(), EllipticEnvelope(random_state=0)]
    groups = {f"{i}{j}": Together([parts[i], parts[j]]) for i, j in ((0, 1), (0, 2), (1, 2))}
    alone = {str(i): part for i, part in enumerate(parts)}
    attacked = cloud_game(defenses=alone | groups).attacked(points, labels)
    for pair in groups:
        expected = attacked.keep(pair[0]) & attacked.keep(pair[1])
        assert np.array_equal(attacked.keep(pair), expected)
        assert not expected.all()


@pytest.mark.parametrize("name", ["none", "l2", "loss"])
def test_another_learner_trains_behind_every_defense_and_inside_the_loss_defense(
    data, poison, name
):
    (X, y), (X_test, y_test) = data
    P, yp = poison
    clean = game_of(data, sparse=False, learner=LogisticRegression(LAM))
    outcome = clean.attacked(P, yp).outcome(name)
    everything, labels = np.vstack([X, P]), np.r_[y, yp]
    keep = np.ones(len(labels), dtype=bool)
    if name == "loss":
        margins = train_logistic(everything, labels, LAM).model.margins(everything, labels)
        keep = keep_mask(-margins, labels, 0.05)
    elif name == "l2":
        keep = sanitize(L2Defense(), everything, labels)
    model = train_logistic(everything[keep], labels[keep], LAM).model
    assert outcome.test_error == model.error(X_test, y_test)
    assert np.allclose(outcome.model.theta, model.theta)


def test_many_distinct_rows_start_the_svd_afresh(data, poison, monkeypatch):
    P, yp = poison
    clean = game_of(data)
    updated = clean.attacked(sp.csr_array(P), yp).outcome("svd")
    monkeypatch.setattr(svd, "update_pays", lambda *_: False)
    afresh = clean.attacked(sp.csr_array(P), yp).outcome("svd")
    assert afresh.poison_removed == updated.poison_removed


def test_removing_nothing_is_no_defense(data, poison):
    P, yp = poison
    outcome = game_of(data, remove=0.0).evaluate(sp.csr_array(P), yp)
    assert len({result.test_error for result in outcome.values()}) == 1


def test_same_input_same_bits(data, poison):
    P, yp = poison
    first, second = (game_of(data).evaluate(sp.csr_array(P), yp) for _ in range(2))
    assert fingerprint(first) == fingerprint(second)


def test_dense_poison_joins_sparse_data_and_the_reverse(data, poison):
    P, yp = poison
    for sparse in (True, False):
        clean = game_of(data, sparse)
        dense = clean.evaluate(P, yp)
        assert fingerprint(dense) == fingerprint(clean.evaluate(sp.csr_array(P), yp))


# More than two classes ---------------------------------------------------------------------------


def blobs(seed, n):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return np.eye(3)[y] @ np.eye(3, 6) + 0.2 * rng.normal(size=(n, 6)), y


def three_classes(**options):
    defaults = {
        "domain": "real",
        "learner": CrammerSingerSVM(random_state=None),
        "defenses": (L2Defense(), LossDefense()),
    }
    return LinearGame(*blobs(0, 600), *blobs(1, 150), **defaults | options)


def test_far_and_ill_fitting_poison_goes():
    # Points of class 1 far away, labelled 0.
    poison = 4.0 * np.tile(np.eye(6)[1], (6, 1)), np.zeros(6, dtype=np.int64)
    outcomes = three_classes().evaluate(*poison, rng=np.random.default_rng(0))
    assert outcomes["none"].poison_removed == 0.0
    assert outcomes["none"].clean_removed == 0.0
    assert outcomes["l2"].poison_removed == 1.0
    assert outcomes["loss"].poison_removed == 1.0
    for name in ("l2", "loss"):
        assert 0.03 < outcomes[name].clean_removed <= 0.05
        assert outcomes[name].test_error < 0.1
        assert set(outcomes[name].clean_removed_by_label) == {0.0, 1.0, 2.0}


def test_with_more_classes_the_defender_trains_in_a_known_order():
    X, y = blobs(0, 600)
    points, labels = blobs(2, 30)
    outcomes = three_classes().evaluate(points, labels, rng=np.random.default_rng(5))
    rng = np.random.default_rng(5)
    everything, every_label = np.vstack([X, points]), np.r_[y, labels]
    undefended = train_multiclass_svm(everything, every_label, 3, rng)
    distances = L2Defense().fit(everything, every_label).score(everything, every_label)
    for name, scores in (("l2", distances), ("loss", undefended.losses(everything, every_label))):
        keep = keep_mask(scores, every_label, 0.05)
        model = train_multiclass_svm(everything[keep], every_label[keep], 3, rng)
        assert np.array_equal(outcomes[name].model.coef_, model.theta)
    assert np.array_equal(outcomes["none"].model.coef_, undefended.theta)


def test_with_more_classes_the_price_of_the_defense_remains():
    game = three_classes(defenses=[L2Defense()])
    outcomes = game.evaluate(np.zeros((0, 6)), np.zeros(0, dtype=np.int64), rng=0)
    assert set(outcomes) == {"none", "l2"}
    assert np.isnan(outcomes["l2"].poison_removed)
    assert outcomes["l2"].clean_removed == pytest.approx(0.05, abs=0.01)


def test_the_generator_decides_the_order_of_training():
    poison = blobs(2, 30)
    game = three_classes()
    one, same, other = (game.evaluate(*poison, rng=seed)["l2"].model.coef_ for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    told = three_classes(learner=CrammerSingerSVM(random_state=4))
    first, again = (told.evaluate(*poison)["l2"].model.coef_ for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("learner", [SklearnLogistic(), LinearSVC(), RidgeClassifier()])
def test_other_learners_tell_three_classes_apart(learner):
    outcomes = three_classes(learner=learner).evaluate(*blobs(2, 30))
    assert all(outcome.test_error < 0.1 for outcome in outcomes.values())


def test_test_labels_may_be_of_one_class_only():
    X, y = blobs(0, 90)
    X_test, y_test = blobs(1, 90)
    ones = y_test == 1
    game = LinearGame(
        X, y, X_test[ones], y_test[ones], domain="real", learner=CrammerSingerSVM(),
        defenses=[L2Defense()],
    )  # fmt: skip
    assert game.y_test.dtype == game.y.dtype
    result = MinMax(0.1, burn_in=0.0, loss_cap=5.0, quantiles=(0.5,), decoy_copies=(1,))(game, 0)
    assert len(result.poison.y) == 9


# Learners of scikit-learn ------------------------------------------------------------------------


def clouds(seed=0, n=160, d=4):
    """Two clouds, of which a few points called by the other's name are the poison."""
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    X = rng.normal(size=(n, d)) + 0.7 * y[:, None]
    return X, y, X[y > 0.0][:8] + 1.5, -np.ones(8)


def cloud_game(sparse=False, **options):
    X, y, _, _ = clouds()
    X_test, y_test, _, _ = clouds(1)
    wrap = sp.csr_array if sparse else np.array
    return LinearGame(
        wrap(X), y, wrap(X_test), y_test, **{"domain": "real", "learner": SVM(LAM)} | options
    )


LEARNERS = [
    SklearnLogistic(),
    LinearSVC(),
    SGDClassifier(random_state=0),
    RidgeClassifier(),
    SVC(kernel="linear"),
]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("learner", LEARNERS, ids=lambda one: type(one).__name__)
def test_a_linear_classifier_of_scikit_learn_defends_behind_all_five(learner, sparse):
    X, y, points, labels = clouds()
    X_test, y_test, _, _ = clouds(1)
    outcomes = cloud_game(sparse, learner=learner).evaluate(points, labels)
    everything, every_label = np.vstack([X, points]), np.r_[y, labels]
    shown = sp.csr_array(everything) if sparse else everything
    for name, outcome in outcomes.items():
        keep = np.ones(len(every_label), dtype=bool)
        if name != "none":
            defense = LossDefense(learner) if name == "loss" else DEFENSES[name]
            keep = sanitize(defense, shown, every_label)
        fitted = clone(learner).fit(shown[keep], every_label[keep])
        tests = sp.csr_array(X_test) if sparse else X_test
        assert outcome.test_error == np.mean(fitted.predict(tests) != y_test)
        assert outcome.poison_removed == 1.0 - keep[len(y) :].mean()
        assert isinstance(outcome.model, LinearModel)
        coefficients = fitted.coef_.toarray() if sp.issparse(fitted.coef_) else fitted.coef_
        assert np.array_equal(outcome.model.theta, np.ravel(coefficients))
    assert not hasattr(learner, "coef_"), "a copy is fitted, not the learner itself"


@pytest.mark.parametrize("sparse", [False, True])
def test_a_pipeline_and_a_kernel_machine_defend_too(sparse):
    _, _, points, labels = clouds()
    for learner in (make_pipeline(MaxAbsScaler(), SklearnLogistic()), SVC()):
        outcomes = cloud_game(sparse, learner=learner).evaluate(points, labels)
        assert all(0.0 < outcome.test_error < 0.3 for outcome in outcomes.values())
        assert type(outcomes["l2"].model) is type(learner)


class OnlyPredicts(ClassifierMixin, BaseEstimator):
    """A classifier without scores."""

    def fit(self, X, y):
        self.inner_ = KNeighborsClassifier().fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict(self, X):
        return self.inner_.predict(X)


def test_the_loss_defense_takes_probabilities_where_a_learner_has_no_decisions():
    _, _, points, labels = clouds()
    game = cloud_game(learner=KNeighborsClassifier())
    data = game.attacked(points, labels)
    proba = data.undefended.predict_proba(data.data.X)
    own = proba[np.arange(len(proba)), (data.data.y > 0).astype(int)]
    assert np.array_equal(data.keep("loss"), keep_mask(1.0 - own, data.data.y, game.remove))


def test_only_the_loss_defense_needs_scores_of_the_learner():
    _, _, points, labels = clouds()
    others = [defense for defense in FIVE if defense.name != "loss"]
    game = cloud_game(learner=OnlyPredicts(), defenses=others)
    assert set(game.evaluate(points, labels)) == {"none", *NAMES} - {"loss"}
    with pytest.raises(TypeError, match="or predict_proba, OnlyPredicts has neither"):
        game.with_defenses(FIVE).evaluate(points, labels)
    given = game.with_defenses([LossDefense(SVM(LAM))]).attacked(points, labels)
    assert np.array_equal(given.keep("loss"), cloud_game().attacked(points, labels).keep("loss"))


def test_min_max_with_more_classes_refuses_another_learner_and_sparse_data():
    with pytest.raises(
        TypeError, match="models CrammerSingerSVM, not the game's learner LinearSVC"
    ):
        MinMax(0.05)(three_classes(learner=LinearSVC()), 0)
    X, y = blobs(0, 60)
    game = LinearGame(
        sp.csr_array(X), y, X, y, domain="real", learner=CrammerSingerSVM(), defenses=[L2Defense()]
    )
    with pytest.raises(ValueError, match="X must be dense"):
        MinMax(0.05)(game, 0)


# Detectors of other libraries, and one's own -----------------------------------------------------

DETECTORS = [
    IsolationForest(n_estimators=20, random_state=3),
    LocalOutlierFactor(),
    OneClassSVM(),
    EllipticEnvelope(random_state=0),
]


def expected_keep(anomaly):
    X, y, points, labels = clouds()
    return keep_mask(anomaly(np.vstack([X, points])), np.r_[y, labels], 0.05)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("detector", DETECTORS, ids=lambda one: type(one).__name__)
def test_a_detector_of_scikit_learn_is_a_defense(detector, sparse):
    _, _, points, labels = clouds()

    def anomaly(X):
        fitted = clone(detector).fit(X)
        if isinstance(fitted, LocalOutlierFactor):
            return -fitted.negative_outlier_factor_
        return -fitted.score_samples(X)

    before = copy.deepcopy(vars(detector))
    game = cloud_game(sparse, defenses=[detector])
    (name,) = game.defenses
    assert name == re.sub("(?<!^)(?=[A-Z])", "-", type(detector).__name__).lower().replace(
        "one-class-s-v-m", "one-class-svm"
    )
    attacked = game.attacked(points, labels)
    assert np.array_equal(attacked.keep(name), expected_keep(anomaly))
    outcome = attacked.outcome(name)
    assert 0.0 < outcome.clean_removed <= 0.05 and 0.0 < outcome.test_error < 0.5
    assert vars(detector) == before, "a copy is fitted, not the detector itself"


def test_a_detector_without_a_seed_draws_the_same_every_time():
    _, _, points, labels = clouds()
    game = cloud_game(defenses=[IsolationForest(n_estimators=10)])
    first, second = (game.attacked(points, labels).keep("isolation-forest") for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_detector_of_pyod_is_a_defense(sparse):
    ecod = pytest.importorskip("pyod.models.ecod")
    _, _, points, labels = clouds()

    def anomaly(X):
        fitted = ecod.ECOD()
        fitted.fit(X)
        return fitted.decision_function(X)

    attacked = cloud_game(sparse, defenses=[ecod.ECOD()]).attacked(points, labels)
    assert np.array_equal(attacked.keep("ecod"), expected_keep(anomaly))


class FarFromMedian:
    """The least that a defense of one's own needs."""

    def fit(self, X, y):
        self.median = np.median(X, axis=0)
        return self

    def score(self, X, y):
        return np.abs(X - self.median).sum(axis=1)


def test_a_detector_of_ones_own_is_a_defense():
    _, _, points, labels = clouds()
    own = FarFromMedian()
    attacked = cloud_game(defenses=[*FIVE, own]).attacked(points, labels)
    expected = expected_keep(lambda X: np.abs(X - np.median(X, axis=0)).sum(axis=1))
    assert np.array_equal(attacked.keep("far-from-median"), expected)
    assert not hasattr(own, "median"), "a copy is fitted, not the detector itself"
    named = cloud_game(defenses={"median": own, "svd of half": SVDDefense(0.5)})
    outcomes = named.evaluate(points, labels)
    assert list(outcomes) == ["none", "median", "svd of half"]
    assert named.value(outcomes) == min(outcomes[name].test_error for name in named.defenses)


def test_a_defense_that_derives_from_ours_is_its_own():
    """Its ``score`` counts, and not a faster ``score_added`` of the class it derives from."""

    class Farther(L2Defense):
        name = "farther"

        def score(self, X, y):
            return -super().score(X, y)

    _, _, points, labels = clouds()
    ours, own = (
        cloud_game(defenses=[d]).attacked(points, labels) for d in (L2Defense(), Farther())
    )
    assert not np.array_equal(ours.keep("l2"), own.keep("farther"))


# What is accepted --------------------------------------------------------------------------------


def small(seed=0):
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(60) % 3 == 0, 1.0, -1.0)
    return rng.poisson(1.0 + (y[:, None] > 0) * np.linspace(0, 2, 6)).astype(float), y


def frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def with_duplicates(X):
    """Every entry stored as two halves, in reverse order."""
    coo = sp.coo_array(X)
    rows, columns = (np.tile(part, 2)[::-1] for part in coo.coords)
    twice = sp.coo_array((np.tile(coo.data / 2.0, 2)[::-1], (rows, columns)), X.shape)
    twice.has_canonical_format = False
    return twice


def unsorted(X):
    X = sp.csr_array(X)
    for i in range(X.shape[0]):
        row = slice(X.indptr[i], X.indptr[i + 1])
        X.indices[row], X.data[row] = X.indices[row][::-1].copy(), X.data[row][::-1].copy()
    X.has_sorted_indices = False
    return X


def long_indices(X):
    X = sp.csr_array(X)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def frozen_csr(X):
    X = sp.csr_array(X)
    for part in (X.data, X.indices, X.indptr):
        part.flags.writeable = False
    return X


DENSE = {
    "lists": lambda a: a.tolist(),
    "int64": lambda a: a.astype(np.int64),
    "uint8": lambda a: np.abs(a).astype(np.uint8) if a.ndim == 2 else a.astype(np.int8),
    "float32": lambda a: a.astype(np.float32),
    "big-endian": lambda a: a.astype(">f8"),
    "read-only": frozen,
    "transposed": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "matrix subclass": lambda a: a.view(type("Own", (np.ndarray,), {})),
}
SPARSE = {
    "csr_array": sp.csr_array,
    "csr_matrix": sp.csr_matrix,
    "coo": sp.coo_array,
    "csc": sp.csc_array,
    "bsr": sp.bsr_array,
    "lil": sp.lil_array,
    "dok": sp.dok_array,
    "dia": sp.dia_array,
    "float32": lambda a: sp.csr_array(a, dtype=np.float32),
    "int": lambda a: sp.csr_array(a.astype(np.int64)),
    "duplicates": with_duplicates,
    "unsorted": unsorted,
    "int64 indices": long_indices,
    "read-only": frozen_csr,
}


def answers(X, y, wrap, wrap_labels, learner=None):
    game = LinearGame(
        wrap(X[:40]), wrap_labels(y[:40]), wrap(X[40:]), wrap_labels(y[40:]), domain=COUNTS,
        learner=learner or SVM(LAM),
    )  # fmt: skip
    outcomes = game.evaluate(wrap(X[:3]), wrap_labels(-y[:3]))
    return fingerprint(outcomes)


@pytest.mark.parametrize("form", DENSE)
def test_arrays_of_every_kind_are_one_game(form, unchecked):
    X, y = small()
    assert answers(X, y, DENSE[form], DENSE[form]) == answers(X, y, np.array, np.array)


@pytest.mark.parametrize("form", SPARSE)
@pytest.mark.parametrize("learner", [SVM(LAM), LinearSVC(), SGDClassifier(random_state=0)])
def test_sparse_matrices_of_every_format_are_one_game(form, learner, unchecked):
    X, y = small()
    usual = answers(X, y, sp.csr_array, np.array, learner)
    assert answers(X, y, SPARSE[form], np.array, learner) == usual


@pytest.mark.parametrize(
    "wrap", [np.array, np.asfortranarray, sp.csr_array, sp.csc_array, unsorted]
)
def test_what_was_passed_in_is_never_changed(wrap, unchecked):
    X, y = small()
    arrays = [wrap(X[:40]), y[:40].copy(), wrap(X[40:]), y[40:].copy(), wrap(X[:3]), -y[:3]]
    copies = copy.deepcopy(arrays)
    learner, defenses = SVM(LAM), [*FIVE[:2], LossDefense(SVM(0.1)), *FIVE[3:], Together(FIVE)]
    known = [copy.deepcopy(vars(one)) for one in (learner, *defenses)]
    game = LinearGame(*arrays[:4], domain=COUNTS, learner=learner, defenses=defenses)
    game.evaluate(*arrays[4:])
    KKT(0.1, quantiles=(0.3,), decoy_copies=(1,), opening=(0.3, 1))(game, 0)
    for after, before in zip(arrays, copies, strict=True):
        assert type(after) is type(before)
        parts = ("data", "indices", "indptr") if sp.issparse(after) else ()
        pairs = [(getattr(after, p), getattr(before, p)) for p in parts] or [(after, before)]
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    for one, before in zip((learner, *defenses), known, strict=True):
        assert vars(one).keys() == before.keys()
    assert (learner.lam, defenses[2].learner.lam) == (LAM, 0.1)
    assert not hasattr(defenses[2].learner, "coef_")


def test_the_game_keeps_a_learner_of_its_own():
    _, _, points, labels = clouds()
    learner = SVM(LAM)
    game = cloud_game(learner=learner)
    before = fingerprint(game.evaluate(points, labels))
    learner.set_params(lam=5.0)
    assert fingerprint(game.evaluate(points, labels)) == before
    assert game.lam == LAM


def test_a_domain_object_is_taken_as_it_is():
    X, y = small()
    wide = InputDomain(COUNTS, np.zeros(6), np.full(6, 99.0))
    game = LinearGame(X, y, X, y, domain=wide, learner=SVM(LAM))
    assert game.domain is wide


def test_removal_may_be_a_whole_number_or_a_small_float(unchecked):
    X, y = small()
    for remove in (0, np.float32(0.25), np.float64(0.25)):
        game = LinearGame(X, y, X, y, domain=COUNTS, learner=SVM(LAM), remove=remove)
        assert game.remove == float(remove)


# What is refused ---------------------------------------------------------------------------------


def altered(array, place, value):
    array = array.astype(type(value) if isinstance(value, str) else array.dtype)
    array[place] = value
    return array


X0, Y0 = small()
STRINGS = X0.astype(str)
BAD = {
    "X is a vector": ({"X": X0[0]}, "X must have two dimensions, it has 1"),
    "X is a cube": ({"X": X0[None]}, "X must have two dimensions, it has 3"),
    "X is a number": ({"X": 3.0}, "X must have two dimensions, it has 0"),
    "X is None": ({"X": None}, "X must hold real numbers"),
    "X is ragged": ({"X": [[1.0, 2.0], [1.0]]}, "X must be an array, its rows differ"),
    "X has one row": ({"X": X0[:1], "y": Y0[:1]}, "X must have at least 2 rows, it has 1"),
    "X has no rows": ({"X": X0[:0], "y": Y0[:0]}, "X must have at least 2 rows, it has 0"),
    "X has no columns": ({"X": X0[:, :0]}, r"X must have at least one column, .* \(60, 0\)"),
    "X holds NaN": ({"X": altered(X0, (3, 1), np.nan)}, "X must be finite"),
    "X holds infinity": ({"X": altered(X0, (3, 1), -np.inf)}, "X must be finite"),
    "X holds strings": ({"X": STRINGS}, "X must hold real numbers, its dtype is <U"),
    "X holds objects": ({"X": X0.astype(object)}, "X must hold real numbers, its dtype is object"),
    "X holds complex": ({"X": X0 + 0j}, "X must hold real numbers, its dtype is complex128"),
    "X holds dates": ({"X": X0.astype("M8[s]")}, "X must hold real numbers, its dtype is datetime"),
    "sparse X holds NaN": ({"X": sp.csr_array(altered(X0, (3, 1), np.nan))}, "X must be finite"),
    "sparse X is complex": ({"X": sp.csr_array(X0 + 0j)}, "X must hold real numbers"),
    "sparse X is a vector": ({"X": sp.coo_array(X0[0])}, "X must have two dimensions, it has 1"),
    "y is short": ({"y": Y0[:-1]}, "y must have one label for each of 60 rows, it has 59"),
    "y is a column": ({"y": Y0[:, None]}, "y must have one dimension, it has 2"),
    "y holds 0 and 1": ({"y": (Y0 > 0).astype(float)}, r"y must hold both of -1 and \+1"),
    "y is true or false": ({"y": Y0 > 0}, r"y must hold both of -1 and \+1"),
    "y holds one class": ({"y": np.ones(60)}, r"y must hold both of -1 and \+1, .* it holds 1\."),
    "y is all 0": ({"y": np.zeros(60)}, "it holds 0"),
    "y holds 1 and 2": ({"y": np.where(Y0 > 0, 1, 2)}, "it holds 1, 2"),
    "y leaves a class out": ({"y": np.arange(60) % 3 * 2}, "it holds 0, 2, 4"),
    "y holds fractions": ({"y": 0.5 * Y0}, "y must be -1 and .* it holds 0.5"),
    "y holds -1, 0, 1": ({"y": altered(Y0, 3, 0.0)}, "y must be -1 and .* it holds -1"),
    "y is huge": ({"y": altered(Y0, 3, 1e300)}, "y must be -1 and"),
    "y holds NaN": ({"y": altered(Y0, 3, np.nan)}, "y must be finite"),
    "y holds words": ({"y": np.where(Y0 > 0, "spam", "ham")}, "y must hold real numbers"),
    "X_test is too wide": (
        {"X_test": np.zeros((4, 7)), "y_test": Y0[:4]},
        "X_test must have 6 columns like the clean data, it has 7",
    ),
    "X_test is empty": ({"X_test": X0[:0], "y_test": Y0[:0]}, "X_test must have at least 1 row"),
    "X_test holds NaN": ({"X_test": altered(X0, (0, 0), np.nan)}, "X_test must be finite"),
    "y_test is short": ({"y_test": Y0[:-1]}, "y_test must have one label for each of 60 rows"),
    "y_test is unknown": ({"y_test": np.full(60, 2)}, "y_test holds the label 2, which y does not"),
    "y_test holds 0": ({"y_test": np.zeros(60)}, "y_test holds the label 0"),
    "domain is unknown": ({"domain": "words"}, "domain must be an InputDomain or one of"),
    "domain is None": ({"domain": None}, "domain must be .*, not None"),
    "X leaves the box": ({"domain": "box01"}, "domain 'box01'.* row 0 of"),
    "X is no count": ({"X": X0 + 0.5}, f"domain '{COUNTS}'.* row 0 of"),
    "X is negative": ({"X": -X0, "domain": "nonnegative"}, "domain 'nonnegative'.* row 0 of"),
    "domain has other features": (
        {"domain": InputDomain("real", np.full(5, -np.inf), np.full(5, np.inf))},
        "domain has 5 features, X has 6",
    ),
    "X leaves the domain": (
        {"domain": InputDomain(COUNTS, np.zeros(6), np.ones(6))},
        r"domain: row \d+ of X lies",
    ),
    "learner is a class": ({"learner": SVM}, "learner must be a scikit-learn classifier"),
    "learner is a name": ({"learner": "svm"}, "learner must be a scikit-learn classifier"),
    "learner is None": ({"learner": None}, "learner must be a scikit-learn classifier"),
    "learner regresses": ({"learner": Ridge()}, r"learner must be .* not Ridge\(\)"),
    "learner detects": ({"learner": IsolationForest()}, "learner must be"),
    "learner cannot fit": ({"learner": BaseEstimator()}, "learner must be"),
    "learner is a function": ({"learner": train_svm}, "learner must be"),
    "defenses are a name": ({"defenses": "l2"}, "defenses must be several defenses, .* not 'l2'"),
    "defenses are names": ({"defenses": ("l2", "slab")}, "defenses must be defense objects"),
    "defenses are one": ({"defenses": L2Defense()}, "defenses must be several"),
    "defenses are None": ({"defenses": None}, "defenses must be several"),
    "a defense is a class": (
        {"defenses": [KNNDefense]},
        r"a defense is an object: write KNNDefense",
    ),
    "a detector is a class": ({"defenses": [IsolationForest]}, "write IsolationForest"),
    "a defense is a number": ({"defenses": [3]}, "3 is no defense"),
    "a defense clusters": ({"defenses": [DBSCAN()]}, "is no defense"),
    "names repeat": ({"defenses": [KNNDefense(3), KNNDefense(5)]}, "the name 'knn' is taken"),
    "detectors repeat": ({"defenses": [OneClassSVM(), OneClassSVM()]}, "'one-class-svm' is taken"),
    "a defense is called none": ({"defenses": {"none": L2Defense()}}, "the name 'none' is taken"),
    "a name is a number": ({"defenses": {1: L2Defense()}}, "a name must be a string, not 1"),
    "a name is empty": ({"defenses": {"": L2Defense()}}, "a name must be a string"),
    "Together of nothing": ({"defenses": [Together(())]}, "Together needs at least one"),
    "Together of names": ({"defenses": [Together(("l2",))]}, "defenses must be defense objects"),
    "remove is 1": ({"remove": 1.0}, r"remove must be a number in \[0, 1\), not 1"),
    "remove is negative": ({"remove": -0.05}, "remove must be a number"),
    "remove is a percentage": ({"remove": 5}, "remove must be a number"),
    "remove is NaN": ({"remove": np.nan}, "remove must be a number"),
    "remove is a word": ({"remove": "5%"}, "remove must be a number"),
    "remove is true": ({"remove": True}, "remove must be a number"),
    "remove is None": ({"remove": None}, "remove must be a number"),
    "remove is an array": ({"remove": np.array([0.05])}, "remove must be a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_of_the_game_is_refused_in_one_sentence(case, unchecked):
    changes, message = BAD[case]
    arguments = {
        "X": X0, "y": Y0, "X_test": X0, "y_test": Y0, "domain": COUNTS, "learner": SVM(LAM)
    } | changes  # fmt: skip
    data = [arguments.pop(name) for name in ("X", "y", "X_test", "y_test")]
    with pytest.raises((ValueError, TypeError), match=message) as refusal:
        LinearGame(*data, **arguments)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith((".", "()"))


BAD_POISON = {
    "too wide": ((np.zeros((2, 7)), np.ones(2)), "points must have 6 columns like the clean data"),
    "a vector": ((np.zeros(6), np.ones(1)), "points must have two dimensions, it has 1"),
    "NaN": ((np.full((2, 6), np.nan), np.ones(2)), "points must be finite"),
    "sparse infinity": ((sp.csr_array(np.full((2, 6), np.inf)), np.ones(2)), "points must be fin"),
    "strings": ((STRINGS[:2], np.ones(2)), "points must hold real numbers"),
    "objects": ((X0[:2].astype(object), np.ones(2)), "points must hold real numbers"),
    "None": ((None, np.ones(2)), "points must hold real numbers"),
    "too few labels": ((X0[:2], np.ones(1)), "labels must have one label for each of 2 rows"),
    "labels 0 and 1": ((X0[:2], np.array([0, 1])), "labels holds 0, which is no class"),
    "label 2": ((X0[:2], np.array([2, 2])), "labels holds 2, which is no class"),
    "a fraction": ((X0[:2], np.array([0.5, 1])), "labels must be -1 and"),
    "NaN label": ((X0[:2], np.array([np.nan, 1])), "labels must be finite"),
    "words": ((X0[:2], np.array(["spam", "ham"])), "labels must hold real numbers"),
}


@pytest.mark.parametrize("case", BAD_POISON)
def test_bad_poison_is_refused_in_one_sentence(case, unchecked):
    poison, message = BAD_POISON[case]
    game = LinearGame(X0, Y0, X0, Y0, domain=COUNTS, learner=SVM(LAM))
    for measure in (game.evaluate, game.attacked):
        with pytest.raises((ValueError, TypeError), match=message) as refusal:
            measure(*poison)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("rng", ["seed", 1.5, -1, [0.5]])
def test_what_is_no_generator_is_refused(rng, unchecked):
    game = LinearGame(X0, Y0, X0, Y0, domain=COUNTS, learner=SVM(LAM))
    with pytest.raises(TypeError, match=r"rng must be a seed or a numpy\.random\.Generator"):
        game.evaluate(X0[:2], -Y0[:2], rng=rng)


def test_bad_requests_are_refused(data, poison):
    P, yp = poison
    attacked = game_of(data).attacked(P, yp)
    for ask in (attacked.outcome, attacked.keep):
        with pytest.raises(
            ValueError, match="no defense 'l3' in this game; there are none, l2, sl"
        ):
            ask("l3")
    with pytest.raises(ValueError, match="name 'l2' is taken"):
        game_of(data).with_defenses([L2Defense(), L2Defense()])


def test_multiclass_poison_of_an_unknown_class_is_refused():
    game = three_classes()
    for label in (3, -1):
        with pytest.raises(ValueError, match=f"labels holds {label}, which is no class"):
            game.evaluate(np.zeros((2, 6)), np.full(2, label), rng=0)


# Knowledge never changes an answer ----------------------------------------------------------------


def several_poisons(X, y, seed=0):
    """Copies, distinct rows, one class, both, none, rows of the clean data, far ones."""
    rng = np.random.default_rng(seed)
    rows = [
        np.repeat(X[:2], 4, axis=0), X[rng.choice(len(X), 9)], 3.0 * X[5:8], X[:0],
        np.floor(X.mean(axis=0) + rng.random((40, X.shape[1]))),
    ]  # fmt: skip
    return [(points, np.where(rng.random(len(points)) < 0.5, 1.0, -1.0)) for points in rows]


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [True, False])
def test_no_answer_depends_on_what_was_asked_before(data, sparse):
    (X, y), _ = data
    poisons = several_poisons(X, y)
    fresh = [fingerprint(game_of(data, sparse).evaluate(*poison)) for poison in poisons]
    rng = np.random.default_rng(1)
    for _ in range(3):
        game = game_of(data, sparse)
        for k in rng.permutation(np.repeat(np.arange(len(poisons)), 2)):
            match rng.integers(6):
                case 0:
                    game.blind().evaluate(*poisons[0])
                case 1:
                    game.with_defenses([KNNDefense(2), SVDDefense(0.3)]).evaluate(*poisons[1])
                case 2:
                    game.attacked(*poisons[k], exact=False).outcome("svd")
                case 3:
                    attacked = game.attacked(*poisons[k])
                    for name in rng.permutation(["none", *NAMES]):
                        own = {name: attacked.outcome(str(name))}
                        assert fingerprint(own)[name] == fresh[k][name]
            assert fingerprint(game.evaluate(*poisons[k])) == fresh[k]


@pytest.mark.slow
def test_an_attack_plays_a_game_that_knows_much_like_a_fresh_one():
    X, y = small()
    attack = KKT(0.1, quantiles=(0.2, 0.4), decoy_copies=(1, 3), opening=(0.4, 3), ratios=3)

    def game():
        return LinearGame(X, y, X, y, domain=COUNTS, learner=SVM(LAM))

    fresh = attack(game(), 3)
    known = game()
    for poison in several_poisons(X, y):
        known.evaluate(*poison)
    attack(known, 4)
    again = attack(known, 3)
    assert again.poison.X.tobytes() == fresh.poison.X.tobytes()
    assert again.value == fresh.value
    assert fingerprint(again.outcomes) == fingerprint(fresh.outcomes)


def test_other_games_leave_the_first_as_it_was(data, poison):
    P, yp = poison
    (X, y), _ = data
    game = game_of(data, sparse=False)
    before = vars(game).copy()
    known = fingerprint(game.evaluate(P, yp))
    feasible = game.feasible(90.0, 90.0)
    blind = game.blind()
    assert blind.X_test is game.X and blind.y_test is game.y
    seen = PoisonedSet(P, yp, 400, 0.03, game.domain)
    moved = game.against(seen)
    refitted = FeasibleSet.fit(np.vstack([X, P]), np.r_[y, yp], game.domain, 90.0, 90.0)
    assert np.array_equal(moved.feasible(90.0, 90.0).negative.centre, refitted.negative.centre)
    twice = moved.against(PoisonedSet(P[:0], yp[:0], 400, 0.001, game.domain))
    assert np.array_equal(twice.feasible(90.0, 90.0).negative.centre, feasible.negative.centre)
    one = game.with_defenses([SlabDefense()])
    assert list(one.defenses) == ["slab"] and list(game.defenses) == NAMES
    for other in (blind, moved, one):
        other.evaluate(P, yp)
    assert fingerprint(moved.evaluate(P, yp)) == known, "the defender's part is the same"
    assert {key: vars(game)[key] for key in before} == before
    assert np.array_equal(game.feasible(90.0, 90.0).negative.centre, feasible.negative.centre)
    assert fingerprint(game.evaluate(P, yp)) == known


def test_a_game_before_another_defender_is_as_one_made_anew(data, poison):
    (X, y), (X_test, y_test) = data
    game = game_of(data)
    game.evaluate(*poison)
    for learner, defenses in ((SVM(0.5), FIVE), (LogisticRegression(0.1), FIVE[2:4])):
        other = game.with_defender(learner, defenses, 0.1)
        assert other.data is game.data
        anew = LinearGame(
            sp.csr_array(X), y, X_test, y_test, domain=COUNTS, learner=learner, defenses=defenses,
            remove=0.1,
        )  # fmt: skip
        assert fingerprint(other.evaluate(*poison)) == fingerprint(anew.evaluate(*poison))
    assert game.lam == LAM and game.with_defender(SVM(0.5)).clean_svm is not game.clean_svm
    with pytest.raises(ValueError, match="remove"):
        game.with_defender(SVM(0.5), FIVE, 1.0)
    with pytest.raises(TypeError, match="learner"):
        game.with_defender("svm")


def test_a_blind_attacker_never_sees_the_test_data(data):
    (X, y), (X_test, y_test) = data
    attack = KKT(0.02, quantiles=(0.3,), decoy_copies=(2,), opening=(0.3, 2), ratios=2)
    one = attack(game_of(data).blind(), 0)
    other = attack(game_of(((X, y), (X_test[:50][::-1], -y_test[:50]))).blind(), 0)
    assert (one.poison.X != other.poison.X).nnz == 0
    assert one.errors == other.errors


def test_other_test_data_change_what_is_measured_and_nothing_else(data):
    _, (X_test, y_test) = data
    game = game_of(data)
    half = game.with_test(X_test[:50], y_test[:50])
    (poison, labels), expected = (
        (game.X[:8], -game.y[:8]),
        game_of((data[0], (X_test[:50], y_test[:50]))),
    )
    assert fingerprint(half.evaluate(poison, labels)) == fingerprint(
        expected.evaluate(poison, labels)
    )
    assert len(game.y_test) == len(y_test)
    with pytest.raises(ValueError, match="y_test holds the label 3, which y does not"):
        game.with_test(X_test[:2], np.array([1.0, 3.0]))
    with pytest.raises(ValueError, match="X_test"):
        game.with_test(X_test[:, :2], y_test)


def test_the_clean_svm_is_that_of_the_solver(data):
    (X, y), _ = data
    game = game_of(data)
    assert (game.n, game.binary, game.labels, game.lam) == (400, True, (-1.0, 1.0), LAM)
    solution = train_svm(sp.csr_array(X), y, LAM)
    assert game.clean_svm.model.theta.tobytes() == solution.model.theta.tobytes()
    assert game.poison_size(0.03) == 12
    with pytest.raises(ValueError, match=r"epsilon 0\.001 of 400 points is not a"):
        game.poison_size(0.001)


# What others' code may do -------------------------------------------------------------------------


class Centring:
    """A detector that changes what it is given."""

    def fit(self, X, y):
        y[:] = 1.0
        return self

    def score(self, X, y):
        X -= X.mean(axis=0)
        return (X**2).sum(axis=1)


def two_blobs(n=120, d=4):
    rng = np.random.default_rng(5)
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    return rng.normal(y[:, None], 2.0, (n, d)), y


def test_a_detector_that_changes_its_input_changes_nothing_else():
    X, y = two_blobs()
    kept = X.copy(), y.copy()
    games = [
        LinearGame(X[:80], y[:80], X[80:], y[80:], domain="real", learner=SVM(0.1), defenses=ds)
        for ds in ({"knn": KNNDefense()}, {"own": Centring(), "knn": KNNDefense()})
    ]
    for poison in (X[:0], X[80:84]):
        alone, beside = (game.evaluate(poison, -y[80 : 80 + len(poison)]) for game in games)
        assert alone["knn"].test_error == beside["knn"].test_error
        assert np.array_equal(alone["knn"].model.theta, beside["knn"].model.theta)
    assert np.array_equal(X, kept[0])
    assert np.array_equal(y, kept[1])


def test_a_learner_that_changes_its_input_changes_nothing_else():
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = two_blobs()
    kept = X.copy()
    learner = make_pipeline(StandardScaler(copy=False), SVM(0.1))
    game = LinearGame(X[:80], y[:80], X[80:], y[80:], domain="real", learner=learner)
    first, second = (game.evaluate(X[80:84], -y[80:84])["l2"].test_error for _ in range(2))
    assert first == second
    assert np.array_equal(X, kept)


def test_nested_learners_and_detectors_draw_the_same_every_time():
    from sklearn.ensemble import IsolationForest, RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = two_blobs()
    found = []
    for rng in (None, None, 3, 3):
        game = LinearGame(
            X[:80], y[:80], X[80:], y[80:], domain="real",
            learner=make_pipeline(StandardScaler(), RandomForestClassifier(3)),
            defenses=[make_pipeline(StandardScaler(), IsolationForest(n_estimators=5))],
        )  # fmt: skip
        outcomes = game.evaluate(X[80:90], -y[80:90], rng=rng)
        found.append([outcome.test_error for outcome in outcomes.values()])
    assert found[0] == found[1]
    assert found[2] == found[3]


def test_a_defense_that_leaves_one_class_is_named():
    class Everything:
        def fit(self, X, y):
            return self

        def score(self, X, y):
            return np.where(y > 0.0, np.inf, 0.0)

    X, y = two_blobs()
    game = LinearGame(
        X[:80], y[:80], X[80:], y[80:], domain="real", learner=SVM(0.1), defenses=[Everything()]
    )
    with pytest.raises(
        ValueError, match="defense 'everything' leaves no points but those of class -1"
    ):
        game.evaluate(X[:0], y[:0])


def test_an_attack_plays_a_game_with_the_random_filter():
    from poisoning.attacks.label_flips import RandomFlips

    X, y = two_blobs()
    game = LinearGame(
        X[:80], y[:80], X[80:], y[80:], domain="real", learner=SVM(0.1), defenses=[RandomFilter()]
    )
    attacks = [RandomFlips(0.1)(game, 0) for _ in range(2)]
    assert attacks[0].errors == attacks[1].errors


def test_three_classes_and_the_slab_do_not_go_together_under_any_name():
    X, _ = two_blobs()
    data = X[:80], np.arange(80) % 3, X[80:], np.arange(40) % 3
    for defenses in ({"mine": SlabDefense()}, [Together((SlabDefense(),))]):
        with pytest.raises(ValueError, match="slab defense is for two classes"):
            LinearGame(*data, domain="real", learner=CrammerSingerSVM(), defenses=defenses)
    game = LinearGame(
        *data, domain="real", learner=CrammerSingerSVM(), defenses={"slab": L2Defense()}
    )
    with pytest.raises(ValueError, match="slab defense is for two classes"):
        game.with_defenses(FIVE)


class Column(ClassifierMixin, BaseEstimator):
    """A perfect learner whose predictions are a column."""

    def fit(self, X, y):
        self.classes_, self.model_ = np.unique(y), SVM(0.1).fit(X, y)
        return self

    def predict(self, X):
        return self.model_.predict(X)[:, None]


def two_heaps(learner=None, defenses=()):
    """Forty points of two classes far apart."""
    y = np.where(np.arange(40) % 2, 1.0, -1.0)
    X = np.random.default_rng(0).normal(4.0 * y[:, None], 1.0, (40, 3))
    learner = learner or SVM(0.1)
    return LinearGame(X, y, X, y, domain="real", learner=learner, defenses=defenses)


def test_a_learner_that_predicts_a_column_is_refused_by_name():
    game = two_heaps(Column())
    with pytest.raises(ValueError, match=r"learner Column must predict one label .* \(40, 1\)"):
        game.evaluate(game.X[:1], game.y[:1])


@pytest.mark.parametrize(
    "learner", [OnePassSVM(), PartitionedVote(SGDClassifier(), 2), SGDClassifier()]
)
def test_a_generator_seeds_any_learner(learner):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 3)), np.where(rng.random(300) < 0.5, 1.0, -1.0)
    game = LinearGame(X, y, X, y, domain="real", learner=learner, defenses=())
    first, again, other = (
        game.evaluate(X[:1], y[:1], rng=seed)["none"].test_error for seed in (3, 3, 4)
    )
    assert first == again != other


class Odd:
    """A detector that fails in one way."""

    def __init__(self, scores=None):
        self.scores = scores

    def fit(self, X, y):
        return self

    def score(self, X, y):
        return self.scores(len(y))


@pytest.mark.parametrize(
    ("scores", "said"),
    [(lambda n: np.full(n, np.nan),
      "defense 'odd' must score each of 41 points, 41 of its scores are NaN"),
     (lambda n: np.full(n, "a"), "defense 'odd' failed: ValueError"),
     (lambda n: 1 / 0, "defense 'odd' failed: ZeroDivisionError"),
     (lambda n: np.zeros((n, 1)),
      r"defense 'odd' must score each of 41 points, its .*shape \(41, 1\)"),
     (lambda n: np.ones(3), "defense 'odd' must score each of 41 points")],
)  # fmt: skip
def test_what_goes_wrong_in_a_defense_names_it(scores, said):
    game = two_heaps(defenses=[Odd(scores)])
    with pytest.raises(ValueError, match=said):
        game.evaluate(game.X[:1], game.y[:1])


def test_fit_of_a_defense_may_return_nothing():
    class Silent(Odd):
        def fit(self, X, y):
            self.centre = X.mean(axis=0)

        def score(self, X, y):
            return np.linalg.norm(X - self.centre, axis=1)

    game = two_heaps(defenses=[Silent()])
    far = np.full((1, 3), 1e3)
    assert game.evaluate(far, game.y[:1])["silent"].poison_removed == 1.0
    assert not sanitize(Silent(), np.vstack([game.X, far]), np.append(game.y, game.y[:1]))[-1]


def test_a_game_against_what_is_no_poison_and_outcomes_of_nothing_are_refused():
    game = two_heaps()
    with pytest.raises(TypeError, match="poison must be a PoisonedSet, not tuple"):
        game.against((game.X, game.y))
    with pytest.raises(ValueError, match="outcomes must hold 'none'"):
        game.value({})


def test_the_least_anomalous_score_stays_however_low():
    scores = np.array([-np.inf] * 5 + [1.0] + [1.0, 2.0, 3.0, 4.0, 5.0, np.inf])
    y = np.array([1.0] * 6 + [-1.0] * 6)
    kept = keep_mask(scores, y, 0.2)
    assert kept[:5].all() and not kept[5]
    assert kept[6:11].all() and not kept[11]
    assert keep_mask(np.full(4, -np.inf), np.ones(4), 0.5).all()


def test_scores_of_pairs_of_classes_are_no_scores_of_classes():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 4
    X = rng.normal(np.eye(4)[y] * 5.0, 1.0, (80, 4))
    pairs = SVC(kernel="linear", decision_function_shape="ovo")
    game = LinearGame(X, y, X, y, domain="real", learner=pairs, defenses=[LossDefense()])
    with pytest.raises(ValueError, match=r"each of 4 classes .* SVC have the shape \(81, 6\)"):
        game.evaluate(X[:1], y[:1])
