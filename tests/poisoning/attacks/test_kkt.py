"""Algorithm 4: the gradient, the ratios, the choice; and the attack on real mail."""

import os

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.attacks.decoy import find_decoys
from poisoning.attacks.kkt import (
    KKTSettings,
    attempts,
    clean_gradient,
    kkt_attack,
    loss_caps,
    ratio_grid,
)
from poisoning.datasets import fetch, load, prepare, split
from poisoning.defenses.evaluation import FIVE, Evaluator
from poisoning.errors import SolverError
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.models.linear import LinearModel
from poisoning.models.svm import train_svm

LAMBDA = 0.05
SETTINGS = KKTSettings(
    epsilon=0.06, ratios=3, quantiles=(0.2, 0.4), decoy_repeats=(1, 4), opening=(0.4, 4)
)


def dataset(kind, seed=0, n=260, d=25):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    if kind == "integer":
        X = rng.poisson(np.exp(0.4 * np.outer(y, rng.normal(size=d)) - 0.5)).astype(float)
    else:
        X = 1.0 / (1.0 + np.exp(-rng.normal(size=(n, d)) - 0.5 * np.outer(y, rng.normal(size=d))))
    train, test = slice(0, 200), slice(200, None)
    X = sp.csr_array(X) if kind == "integer" else X
    return X[train], y[train], X[test], y[test]


@pytest.fixture(scope="module", params=["integer", "box01"])
def attacked(request):
    X, y, X_test, y_test = dataset(request.param)
    domain = InputDomain.of(request.param, X)
    evaluator = Evaluator(X, y, X_test, y_test, LAMBDA)
    seen = []
    result = kkt_attack(
        evaluator, domain, SETTINGS, np.random.default_rng(5),
        progress=seen.append,
    )  # fmt: skip
    return evaluator, domain, result, seen


def test_the_gradient_is_that_of_the_clean_loss():
    X, y, _, _ = dataset("integer")
    rng = np.random.default_rng(1)
    model = LinearModel(0.2 * rng.normal(size=25), 0.1)  # no point of which lies on the hinge
    epsilon = 0.03

    def objective(theta, bias):
        hinge = np.maximum(0.0, 1.0 - y * (X @ theta + bias)).mean()
        return hinge + (1.0 + epsilon) * 0.5 * LAMBDA * (theta @ theta + bias**2)

    g, g_bias = clean_gradient(model, X, y, LAMBDA, epsilon)
    step = 1e-6
    for i in range(25):
        move = step * np.eye(25)[i]
        ahead, behind = (objective(model.theta + sign * move, model.bias) for sign in (1.0, -1.0))
        assert (ahead - behind) / (2.0 * step) == pytest.approx(g[i], abs=1e-7)
    ahead, behind = (objective(model.theta, model.bias + sign * step) for sign in (1.0, -1.0))
    assert (ahead - behind) / (2.0 * step) == pytest.approx(g_bias, abs=1e-7)


def test_points_on_the_hinge_do_not_pull():
    model = LinearModel(np.array([1.0]), 0.0)
    X, y = np.array([[1.0], [1.0 - 1e-7], [0.5]]), np.ones(3)
    g, _ = clean_gradient(model, X, y, 0.0, 0.0)
    assert g[0] == pytest.approx(-0.5 / 3.0)


def test_ratios_span_the_budget_exactly_and_balance_the_intercept():
    sizes = ratio_grid(0.03, 7, 0.004, 1000)
    assert all(positive + negative == 30 for positive, negative in sizes)
    assert {0, 5, 10, 15, 20, 25, 30} <= {positive for positive, _ in sizes}
    # ε_- − ε_+ + 0.004 = 0 with ε_+ + ε_- = 0.03
    assert (17, 13) in sizes
    assert ratio_grid(0.03, 7, 1.0, 1000)[-1] == (30, 0)


def test_the_attack_returns_a_legal_attack_and_what_it_does(attacked):
    evaluator, domain, result, _ = attacked
    poisoned = result.poisoned
    assert len(poisoned.y) == round(SETTINGS.epsilon * 200)
    assert domain.contains(poisoned.X).all()
    assert np.mean(poisoned.y == 1.0) * SETTINGS.epsilon == pytest.approx(
        result.source.epsilon_plus
    )
    again = evaluator.evaluate(poisoned.X, poisoned.y)
    assert again.minimum == result.evaluation.minimum
    assert set(FIVE) <= set(result.evaluation.outcomes)


@pytest.mark.slow
def test_the_winner_is_the_best_of_all_candidates_measured_in_full(attacked):
    evaluator, domain, result, _ = attacked
    X, y, lam = evaluator.X, evaluator.y, evaluator.lam
    base = FeasibleSet.fit(X, y, domain)
    data = X, y, evaluator.X_test, evaluator.y_test, lam
    clean, (q, r) = evaluator.clean_svm.model, SETTINGS.opening
    grid = find_decoys(*data, SETTINGS.quantiles, SETTINGS.decoy_repeats, clean=clean)
    opening, rest = np.random.default_rng(5).spawn(2)
    streams = zip(grid, rest.spawn(len(grid)), strict=True)
    tried = [pair for pair in streams if (pair[0].quantile, pair[0].repeats) != (q, r)]
    tried.append((find_decoys(*data, (q,), (r,), clean=clean)[0], opening))
    found = [a for decoy, own in tried for a in attempts(X, y, lam, base, decoy, SETTINGS, own)]
    values = [evaluator.evaluate(p.X, p.y).minimum for _, p in found if p is not None]
    assert result.evaluation.minimum == max(values)
    assert len(result.history) == len(values)
    assert result.skipped == len(found) - len(values)


def test_history_tells_the_order_and_what_was_measured(attacked):
    _, _, result, seen = attacked
    tried = list(
        dict.fromkeys((c.source.decoy.quantile, c.source.decoy.repeats) for c in result.history)
    )
    assert tried[0] == SETTINGS.opening
    assert len(seen) == len(result.history)
    seconds = [candidate.seconds for candidate in result.history]
    assert seconds == sorted(seconds)
    best = result.evaluation.minimum
    assert max(c.minimum_error for c in result.history if c.complete) == best
    assert all(c.minimum_error <= best for c in result.history)
    assert any(not c.complete for c in result.history)
    opening = result.history[0].source.decoy.test_error
    distances = [abs(candidate.source.decoy.test_error - opening) for candidate in result.history]
    assert distances == sorted(distances)


def test_the_search_ends_when_enough_is_reached():
    X, y, X_test, y_test = dataset("integer")
    evaluator = Evaluator(X, y, X_test, y_test, LAMBDA)
    domain = InputDomain.of("integer", X)
    result = kkt_attack(evaluator, domain, SETTINGS, np.random.default_rng(5), enough=0.01)
    assert len(result.history) == 1
    assert result.evaluation.minimum >= 0.01


@pytest.mark.slow
def test_same_seed_same_attack():
    X, y, X_test, y_test = dataset("integer")
    domain = InputDomain.of("integer", X)
    one, two = (
        kkt_attack(Evaluator(X, y, X_test, y_test, LAMBDA), domain, SETTINGS, rng)
        for rng in (np.random.default_rng(9), np.random.default_rng(9))
    )
    assert (one.poisoned.X != two.poisoned.X).nnz == 0
    assert np.array_equal(one.poisoned.y, two.poisoned.y)


def test_attempts_obey_the_decoy_constraints_before_rounding():
    X, y, X_test, y_test = dataset("box01")
    clean = train_svm(X, y, LAMBDA).model
    (decoy,) = find_decoys(X, y, X_test, y_test, LAMBDA, [0.3], [3], clean=clean)
    base = FeasibleSet.fit(X, y, InputDomain.of("box01", X))
    caps = dict(zip((1.0, -1.0), loss_caps(decoy.model, X, y, 90.0), strict=True))
    found = attempts(X, y, LAMBDA, base, decoy, SETTINGS, np.random.default_rng(0))
    assert len(found) in {3, 4}, "three ratios and the balancing one"
    assert [a.objective for a, _ in found] == sorted(a.objective for a, _ in found)
    for _, poisoned in found:
        losses = decoy.model.hinge(poisoned.X, poisoned.y)
        margins = decoy.model.margins(poisoned.X, poisoned.y)
        for label, cap in caps.items():
            assert np.all(losses[poisoned.y == label] <= cap + 1e-6)
        assert np.all(margins <= 1.0 + 1e-6)


def test_an_epsilon_of_no_point_is_an_error():
    X, y, X_test, y_test = dataset("integer")
    domain, rng = InputDomain.of("integer", X), np.random.default_rng(0)
    evaluator = Evaluator(X, y, X_test, y_test, LAMBDA)
    with pytest.raises(ValueError, match="not a single one"):
        kkt_attack(evaluator, domain, KKTSettings(epsilon=0.001), rng)


def test_decoys_without_feasible_support_vectors_are_an_error():
    # Only points next to the centroids, only losses as small as the smallest: nothing is both.
    rng = np.random.default_rng(3)
    y = np.where(np.arange(260) % 2 == 0, 1.0, -1.0)
    X = rng.normal(size=(260, 2)) + y[:, None]
    evaluator = Evaluator(X[:200], y[:200], X[200:], y[200:], LAMBDA)
    narrow = KKTSettings(
        radius_percentile=1e-3,
        loss_percentile=1e-3,
        quantiles=(0.2,),
        decoy_repeats=(1,),
        opening=(0.2, 1),
    )
    domain = InputDomain.of("real", X)
    with pytest.raises(SolverError, match="raise its percentiles"):
        kkt_attack(evaluator, domain, narrow, rng)
    clean = evaluator.clean_svm.model
    data = evaluator.X, evaluator.y, evaluator.X_test, evaluator.y_test, LAMBDA
    (decoy,) = find_decoys(*data, [0.2], [1], clean=clean)
    base = FeasibleSet.fit(evaluator.X, evaluator.y, domain, 1e-3)
    found = attempts(evaluator.X, evaluator.y, LAMBDA, base, decoy, narrow, rng)
    assert len(found) >= narrow.ratios, "every problem left out is told"
    assert all(poisoned is None for _, poisoned in found)


@pytest.mark.real
@pytest.mark.skipif("DATA_MIRROR" not in os.environ, reason="needs the real mails")
def test_three_percent_of_poison_does_17_percent_damage_to_real_mail(tmp_path):
    fetch("enron", tmp_path)
    prepare("enron", "real", tmp_path)
    part = split(load(tmp_path / "real" / "enron"), np.random.default_rng(0))
    evaluator = Evaluator(part.X, part.y, part.X_test, part.y_test, 0.09)
    settings = KKTSettings(quantiles=(0.4,), decoy_repeats=(8,))
    domain = InputDomain.of("integer", part.X)
    result = kkt_attack(evaluator, domain, settings, np.random.default_rng(0), enough=0.17)
    assert len(result.poisoned.y) == 124
    assert result.evaluation.minimum >= 0.17
