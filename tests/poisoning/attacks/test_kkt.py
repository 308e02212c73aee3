"""Algorithm 4: the gradient, the ratios, the choice; and the attack on real mail."""

import os
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.attacks.decoy import find_decoys
from poisoning.attacks.kkt import KKT, attempts, clean_gradient, loss_caps, ratio_grid
from poisoning.datasets import fetch, load, prepare, split
from poisoning.errors import SolverError
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM
from poisoning.models.linear import LinearModel
from poisoning.models.svm import train_svm

COUNTS = "counts"
LAMBDA = 0.05
ATTACK = KKT(epsilon=0.06, ratios=3, quantiles=(0.2, 0.4), decoy_copies=(1, 4), opening=(0.4, 4))


def dataset(kind, seed=0, n=260, d=25):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    if kind == COUNTS:
        X = rng.poisson(np.exp(0.4 * np.outer(y, rng.normal(size=d)) - 0.5)).astype(float)
    else:
        X = 1.0 / (1.0 + np.exp(-rng.normal(size=(n, d)) - 0.5 * np.outer(y, rng.normal(size=d))))
    train, test = slice(0, 200), slice(200, None)
    X = sp.csr_array(X) if kind == COUNTS else X
    return X[train], y[train], X[test], y[test]


def game_of(kind, **options):
    return LinearGame(*dataset(kind), domain=kind, learner=SVM(LAMBDA), **options)


@pytest.fixture(scope="module", params=[COUNTS, "box01"])
def attacked(request):
    game = game_of(request.param)
    return game, ATTACK(game, np.random.default_rng(5))


def test_the_gradient_is_that_of_the_clean_loss():
    X, y, _, _ = dataset(COUNTS)
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
    g, _ = clean_gradient(model, X, y, 1e-300, 0.0)
    assert g[0] == pytest.approx(-0.5 / 3.0)


def test_ratios_span_the_budget_exactly_and_balance_the_intercept():
    sizes = ratio_grid(0.03, 7, 0.004, 1000)
    assert all(positive + negative == 30 for positive, negative in sizes)
    assert {0, 5, 10, 15, 20, 25, 30} <= {positive for positive, _ in sizes}
    # ε_- − ε_+ + 0.004 = 0 with ε_+ + ε_- = 0.03
    assert (17, 13) in sizes
    assert ratio_grid(0.03, 7, 1.0, 1000)[-1] == (30, 0)


def test_the_attack_returns_a_legal_attack_and_what_it_does(attacked):
    game, result = attacked
    poison = result.poison
    assert len(poison.y) == round(ATTACK.epsilon * 200)
    assert game.domain.contains(poison.X).all()
    assert np.mean(poison.y == 1.0) * ATTACK.epsilon == pytest.approx(result.source.epsilon_plus)
    again = game.evaluate(poison.X, poison.y)
    assert game.value(again) == result.value == game.value(result.outcomes)
    assert set(result.outcomes) == {"none", *game.defenses}
    assert result.errors == {name: outcome.test_error for name, outcome in again.items()}
    assert result.seconds >= result.history[-1].seconds


@pytest.mark.slow
def test_the_winner_is_the_best_of_all_candidates_measured_in_full(attacked):
    game, result = attacked
    X, y, lam = game.X, game.y, game.lam
    base = FeasibleSet.fit(X, y, game.domain)
    data = X, y, game.X_test, game.y_test, lam
    clean, (q, r) = game.clean_svm.model, ATTACK.opening
    grid = find_decoys(*data, ATTACK.quantiles, ATTACK.decoy_copies, clean=clean)
    opening, rest = np.random.default_rng(5).spawn(2)
    cells = list(product(ATTACK.quantiles, ATTACK.decoy_copies))
    streams = dict(zip(cells, rest.spawn(len(cells)), strict=True))
    places = [(decoy, (decoy.quantile, decoy.copies)) for decoy in grid]
    tried = [(decoy, streams[place]) for decoy, place in places if place != (q, r)]
    tried.append((find_decoys(*data, (q,), (r,), clean=clean)[0], opening))
    found = [a for decoy, own in tried for a in attempts(X, y, lam, base, decoy, ATTACK, own)]
    values = [game.value(game.evaluate(p.X, p.y)) for _, p in found if p is not None]
    assert result.value == max(values)
    assert len(result.history) == len(values)
    assert result.skipped == len(found) - len(values)


def test_history_tells_the_order_and_what_was_measured(attacked):
    _, result = attacked
    tried = list(
        dict.fromkeys((c.source.decoy.quantile, c.source.decoy.copies) for c in result.history)
    )
    assert tried[0] == ATTACK.opening
    seconds = [candidate.seconds for candidate in result.history]
    assert seconds == sorted(seconds)
    best = result.value
    assert max(c.minimum_error for c in result.history if c.complete) == best
    assert all(c.minimum_error <= best for c in result.history)
    assert any(not c.complete for c in result.history)
    opening = result.history[0].source.decoy.test_error
    distances = [abs(candidate.source.decoy.test_error - opening) for candidate in result.history]
    assert distances == sorted(distances)


def test_the_search_ends_when_enough_is_reached():
    result = ATTACK(game_of(COUNTS), np.random.default_rng(5), enough=0.01)
    assert len(result.history) == 1
    assert result.value >= 0.01


@pytest.mark.slow
def test_same_seed_same_attack():
    one, two = (ATTACK(game_of(COUNTS), rng) for rng in (np.random.default_rng(9), 9))
    assert (one.poison.X != two.poison.X).nnz == 0
    assert np.array_equal(one.poison.y, two.poison.y)


def test_attempts_obey_the_decoy_constraints_before_rounding():
    X, y, X_test, y_test = dataset("box01")
    clean = train_svm(X, y, LAMBDA).model
    (decoy,) = find_decoys(X, y, X_test, y_test, LAMBDA, [0.3], [3], clean=clean)
    base = FeasibleSet.fit(X, y, InputDomain.of("box01", X))
    caps = dict(zip((1.0, -1.0), loss_caps(decoy.model, X, y, 90.0), strict=True))
    found = attempts(X, y, LAMBDA, base, decoy, ATTACK, np.random.default_rng(0))
    assert len(found) in {3, 4}, "three ratios and the balancing one"
    assert [a.objective for a, _ in found] == sorted(a.objective for a, _ in found)
    for _, poisoned in found:
        losses = decoy.model.hinge(poisoned.X, poisoned.y)
        margins = decoy.model.margins(poisoned.X, poisoned.y)
        for label, cap in caps.items():
            assert np.all(losses[poisoned.y == label] <= cap + 1e-6)
        assert np.all(margins <= 1.0 + 1e-6)


def test_an_epsilon_of_no_point_is_an_error():
    with pytest.raises(ValueError, match=r"epsilon 0\.001 of 200 points is not a single one"):
        KKT(epsilon=0.001)(game_of(COUNTS), np.random.default_rng(0))


def test_decoys_without_feasible_support_vectors_are_an_error():
    # Only points next to the centroids, only losses as small as the smallest: nothing is both.
    rng = np.random.default_rng(3)
    y = np.where(np.arange(260) % 2 == 0, 1.0, -1.0)
    X = rng.normal(size=(260, 2)) + y[:, None]
    game = LinearGame(X[:200], y[:200], X[200:], y[200:], domain="real", learner=SVM(LAMBDA))
    narrow = KKT(
        radius_percentile=1e-3,
        loss_percentile=1e-3,
        quantiles=(0.2,),
        decoy_copies=(1,),
        opening=(0.2, 1),
    )
    with pytest.raises(SolverError, match="raise its percentiles"):
        narrow(game, rng)
    clean = game.clean_svm.model
    data = game.X, game.y, game.X_test, game.y_test, LAMBDA
    (decoy,) = find_decoys(*data, [0.2], [1], clean=clean)
    base = FeasibleSet.fit(game.X, game.y, game.domain, 1e-3)
    found = attempts(game.X, game.y, LAMBDA, base, decoy, narrow, rng)
    assert len(found) >= narrow.ratios, "every problem left out is told"
    assert all(poisoned is None for _, poisoned in found)


@pytest.mark.real
@pytest.mark.skipif("DATA_MIRROR" not in os.environ, reason="needs the real mails")
def test_three_percent_of_poison_does_17_percent_damage_to_real_mail(tmp_path):
    fetch("enron", tmp_path)
    prepare("enron", "real", tmp_path)
    part = split(load(tmp_path / "real" / "enron"), np.random.default_rng(0))
    game = LinearGame(
        part.X, part.y, part.X_test, part.y_test, domain=COUNTS, learner=SVM(0.09)
    )  # fmt: skip
    attack = KKT(quantiles=(0.4,), decoy_copies=(8,))
    result = attack(game, np.random.default_rng(0), enough=0.17)
    assert len(result.poison.y) == 124
    assert result.value >= 0.17
