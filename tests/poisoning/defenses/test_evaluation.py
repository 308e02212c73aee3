from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.defenses import evaluation
from poisoning.defenses.centroid import fit_l2, fit_slab
from poisoning.defenses.detector import keep_mask, sanitize
from poisoning.defenses.evaluation import FIVE, Evaluator
from poisoning.defenses.knn import fit_knn
from poisoning.defenses.loss import fit_loss
from poisoning.defenses.svd import fit_svd
from poisoning.models.logistic import train_logistic
from poisoning.models.svm import train_svm

LAM = 0.05
FITS = {
    "l2": fit_l2,
    "slab": fit_slab,
    "loss": partial(fit_loss, lam=LAM),
    "svd": fit_svd,
    "knn": fit_knn,
}


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


def evaluator(data, sparse=True, **kwargs):
    (X, y), (X_test, y_test) = data
    wrap = sp.csr_array if sparse else np.array
    return Evaluator(wrap(X), y, wrap(X_test), y_test, LAM, **kwargs)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("name", FIVE)
def test_cached_evaluation_is_plain_sanitization(data, poison, sparse, name):
    (X, y), (X_test, y_test) = data
    (P, yp) = poison
    clean = evaluator(data, sparse)
    outcome = clean.evaluate(P if not sparse else sp.csr_array(P), yp, [name])[name]
    everything, labels = np.vstack([X, P]), np.r_[y, yp]
    keep = sanitize(FITS[name], sp.csr_array(everything) if sparse else everything, labels)
    model = train_svm(everything[keep], labels[keep], LAM).model
    assert outcome.poison_removed == pytest.approx(1.0 - keep[400:].mean())
    assert outcome.clean_removed_positive == pytest.approx(1.0 - keep[:400][y > 0].mean())
    assert outcome.clean_removed_negative == pytest.approx(1.0 - keep[:400][y < 0].mean())
    assert outcome.test_error == pytest.approx(model.error(X_test, y_test), abs=0.0051)
    assert np.allclose(outcome.model.theta, model.theta, atol=5e-3)


def test_undefended_learner_and_yardsticks(data, poison):
    (X, y), (X_test, y_test) = data
    P, yp = poison
    rng = np.random.default_rng(3)
    outcome = evaluator(data).evaluate(sp.csr_array(P), yp, ["none", "oracle", "random"], rng=rng)
    assert outcome["none"].poison_removed == outcome["none"].clean_removed_positive == 0.0
    assert outcome["oracle"].poison_removed == 1.0
    assert outcome["oracle"].clean_removed_negative == 0.0
    perfect = train_svm(X, y, LAM).model.error(X_test, y_test)
    assert outcome["oracle"].test_error == pytest.approx(perfect, abs=0.0051)
    assert 0.0 < outcome["random"].clean_removed_negative < 0.1


def test_poison_of_no_rows_prices_the_defenses(data):
    (X, y), _ = data
    clean = evaluator(data)
    outcome = clean.evaluate(sp.csr_array(X[:0]), y[:0])
    assert np.isnan(outcome["l2"].poison_removed)
    assert outcome["none"].model is clean.clean_svm.model
    for name in FIVE:
        keep = sanitize(FITS[name], sp.csr_array(X), y)
        assert outcome[name].clean_removed_positive == pytest.approx(1.0 - keep[y > 0].mean())
        assert outcome[name].clean_removed_negative == pytest.approx(1.0 - keep[y < 0].mean())


def test_a_class_without_poison(data, poison):
    P, _ = poison
    outcome = evaluator(data).evaluate(sp.csr_array(P), np.ones(len(P)))
    assert set(outcome.outcomes) == {"none", *FIVE}


def test_minimum_is_over_the_five(data, poison):
    P, yp = poison
    clean = evaluator(data)
    outcome = clean.evaluate(sp.csr_array(P), yp)
    assert outcome.minimum == min(outcome[name].test_error for name in FIVE)
    with pytest.raises(ValueError, match="svd"):
        _ = clean.evaluate(sp.csr_array(P), yp, ["none", "l2", "slab", "loss", "knn"]).minimum


def test_all_discards_what_any_of_the_five_would(data, poison):
    P, yp = poison
    attacked = evaluator(data).attacked(sp.csr_array(P), yp)
    together = attacked.keep("all")
    assert np.array_equal(together, np.logical_and.reduce([attacked.keep(name) for name in FIVE]))
    assert together.sum() < min(attacked.keep(name).sum() for name in FIVE)
    outcome = attacked.outcome("all")
    assert outcome.poison_removed == pytest.approx(1.0 - together[400:].mean())


@pytest.mark.parametrize("name", ["none", "l2", "loss"])
def test_another_learner_trains_behind_every_defense_and_inside_the_loss_defense(
    data, poison, name
):
    (X, y), (X_test, y_test) = data
    P, yp = poison

    def logistic(X, y, lam):
        return train_logistic(X, y, lam).model

    clean = Evaluator(X, y, X_test, y_test, LAM, learner=logistic)
    outcome = clean.evaluate(P, yp, [name])[name]
    everything, labels = np.vstack([X, P]), np.r_[y, yp]
    keep = np.ones(len(labels), dtype=bool)
    if name == "loss":
        margins = logistic(everything, labels, LAM).margins(everything, labels)
        keep = keep_mask(-margins, labels, 0.05)
    elif name == "l2":
        keep = sanitize(fit_l2, everything, labels)
    model = logistic(everything[keep], labels[keep], LAM)
    assert outcome.test_error == model.error(X_test, y_test)
    assert np.allclose(outcome.model.theta, model.theta)


def test_many_distinct_rows_start_the_svd_afresh(data, poison, monkeypatch):
    P, yp = poison
    clean = evaluator(data)
    updated = clean.evaluate(sp.csr_array(P), yp, ["svd"])
    monkeypatch.setattr(evaluation, "update_pays", lambda *_: False)
    assert clean.evaluate(sp.csr_array(P), yp, ["svd"])["svd"].poison_removed == (
        updated["svd"].poison_removed
    )


def test_removing_nothing_is_no_defense(data, poison):
    P, yp = poison
    outcome = evaluator(data, remove=0.0).evaluate(sp.csr_array(P), yp)
    assert len({result.test_error for result in outcome.outcomes.values()}) == 1


def test_same_input_same_bits(data, poison):
    P, yp = poison
    first, second = (evaluator(data).evaluate(sp.csr_array(P), yp) for _ in range(2))
    for name in FIVE:
        assert first[name].model.theta.tobytes() == second[name].model.theta.tobytes()


def test_bad_requests_are_refused(data, poison):
    P, yp = poison
    with pytest.raises(ValueError, match="unknown defenses"):
        evaluator(data).evaluate(P, yp, ["l3"])
    with pytest.raises(ValueError, match="rng"):
        evaluator(data).evaluate(P, yp, ["random"])


def test_dense_poison_joins_sparse_data(data, poison):
    P, yp = poison
    clean = evaluator(data)
    assert clean.evaluate(P, yp).minimum == clean.evaluate(sp.csr_array(P), yp).minimum
