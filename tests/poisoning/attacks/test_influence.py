"""Algorithm 2: the gradient against retraining, the iterates, the choice; and real mail."""

import os
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import minimize

from poisoning.attacks.attacked import Attacked
from poisoning.attacks.influence import (
    INFLUENCE_BASIC,
    Influence,
    Iterate,
    RelaxedPoison,
    flipped_start,
    poison_gradient,
)
from poisoning.datasets import fetch, load, prepare, split
from poisoning.feasible.reference import square, violation
from poisoning.feasible.sets import FeasibleSet
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM
from poisoning.models.linear import LinearModel

COUNTS = "counts"
LAMBDA = 0.05
ATTACK = Influence(
    epsilon=0.06, positive_shares=(0.5,), step_sizes=(0.5, 1.0), iterations=12, check_every=5,
    smoothing=0.01,
)  # fmt: skip
BASIC = replace(INFLUENCE_BASIC, epsilon=0.06, iterations=4, check_every=4, smoothing=0.01)


def dataset(kind, seed=0, n=260, d=25):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    if kind == COUNTS:
        X = rng.poisson(np.exp(0.4 * np.outer(y, rng.normal(size=d)) - 0.5)).astype(float)
    else:
        X = 1.0 / (1.0 + np.exp(-rng.normal(size=(n, d)) - 0.5 * np.outer(y, rng.normal(size=d))))
    X = sp.csr_array(X) if kind == COUNTS else X
    return X[:200], y[:200], X[200:], y[200:]


def game_of(kind):
    return LinearGame(*dataset(kind), domain=kind, learner=SVM(LAMBDA))


@pytest.fixture(scope="module", params=[COUNTS, "box01"])
def attacked(request):
    game = game_of(request.param)
    return game, ATTACK(game, np.random.default_rng(5))


def smooth(margins, smoothing):
    return smoothing * np.logaddexp(0.0, (1.0 - margins) / smoothing)


def retrain(X, y, weights, smoothing):
    """The smoothed SVM, by an independent second-order solver, to 1e-12."""
    share, Z = weights / weights.sum(), np.append(X, np.ones((len(y), 1)), axis=1)

    def value(w):
        return 0.5 * LAMBDA * w @ w + share @ smooth(y * (Z @ w), smoothing)

    def gradient(w):
        pull = 1.0 / (1.0 + np.exp(-(1.0 - y * (Z @ w)) / smoothing))
        return LAMBDA * w - Z.T @ (share * y * pull)

    def hessian(w):
        pull = 1.0 / (1.0 + np.exp(-(1.0 - y * (Z @ w)) / smoothing))
        return LAMBDA * np.eye(w.size) + (Z.T * (share * pull * (1.0 - pull) / smoothing)) @ Z

    w = np.zeros(Z.shape[1])
    w = minimize(value, w, jac=gradient, hess=hessian, method="trust-exact", tol=1e-9).x
    for _ in range(3):
        w = w - np.linalg.solve(hessian(w), gradient(w))
    assert np.linalg.norm(gradient(w)) < 1e-12
    return LinearModel(w[:-1], float(w[-1]))


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
@pytest.mark.parametrize("kind", [COUNTS, "box01"])
def test_the_gradient_is_that_of_the_retrained_test_loss(kind, smoothing):
    X, y, X_test, y_test = dataset(kind, n=260, d=6)
    X, X_test = (np.asarray(A.todense()) if sp.issparse(A) else A for A in (X[:60], X_test))
    rng = np.random.default_rng(1)
    poison, labels = X[:3] + 0.3 * rng.random((3, 6)), np.array([1.0, -1.0, 1.0])
    everything, y_all = np.vstack([X, poison]), np.concatenate([y[:60], labels])
    weights = np.concatenate([np.ones(60), [4.0, 3.0, 1.0]])

    def test_loss(points):
        model = retrain(np.vstack([X, points]), y_all, weights, smoothing)
        return smooth(model.margins(X_test, y_test), smoothing).mean()

    model = retrain(everything, y_all, weights, smoothing)
    for matrix in (everything, sp.csr_array(everything)):
        slopes, directions = poison_gradient(
            matrix, y_all, weights, 3, X_test, y_test, model, LAMBDA, smoothing
        )
        gradient, step = slopes[:, None] * directions, 1e-5
        for i in range(3):
            for j in range(6):
                move = np.zeros_like(poison)
                move[i, j] = step
                numeric = (test_loss(poison + move) - test_loss(poison - move)) / (2.0 * step)
                scale = np.abs(gradient).max()
                assert gradient[i, j] == pytest.approx(numeric, rel=1e-5, abs=1e-6 * scale)


def test_beyond_the_hinge_a_direction_is_left():
    X, y, X_test, y_test = dataset("box01", d=6)
    model = LinearModel(np.full(6, 0.5), 0.0)
    far = 4.0 * np.ones((1, 6))  # a margin of 12 for the label +1
    slopes, directions = poison_gradient(
        np.vstack([X, far]), np.append(y, 1.0), np.ones(201), 1, X_test, y_test, model, LAMBDA,
        1e-3,
    )  # fmt: skip
    assert slopes[0] == 0.0
    assert np.linalg.norm(directions) > 0.0


@pytest.mark.slow
def test_the_attack_returns_a_legal_attack_and_what_it_does(attacked):
    game, result = attacked
    poison, relaxed = result.poison, result.source.relaxed
    assert len(poison.y) == relaxed.copies.sum() == round(ATTACK.epsilon * 200)
    assert game.domain.contains(poison.X).all()
    assert relaxed.y.tolist() == [1.0, -1.0]
    assert np.sum(poison.y == 1.0) == relaxed.copies[0]
    again = game.evaluate(poison.X, poison.y)
    assert game.value(again) == result.value == game.value(result.outcomes)
    assert set(result.outcomes) == {"none", *game.defenses}


def test_the_points_stay_in_the_feasible_set(attacked):
    game, result = attacked
    feasible = FeasibleSet.fit(game.X, game.y, game.domain)
    for x, part in zip(
        result.source.relaxed.X, (feasible.positive, feasible.negative), strict=True
    ):
        assert violation(x, part) <= 1e-6


def test_ascent_raises_the_test_loss(attacked):
    game, result = attacked
    clean = game.clean_svm.model.hinge(game.X_test, game.y_test).mean()
    losses = [t.source.test_loss for t in result.history if t.source.step_size == 0.5]
    assert losses[-1] > losses[0] > clean


def test_history_holds_every_check_and_the_winner(attacked):
    _, result = attacked
    order = [(t.source.step_size, t.source.iteration) for t in result.history]
    assert order == [(size, k) for size in (0.5, 1.0) for k in (5, 10, 12)]
    assert sorted(t.seconds for t in result.history) == [t.seconds for t in result.history]
    best = result.value
    assert max(t.minimum_error for t in result.history if t.complete) == best
    assert all(t.minimum_error <= best for t in result.history)
    assert all(t.source.relaxed is None for t in result.history), "kept for the winner only"


def test_same_seed_same_attack():
    game = game_of(COUNTS)
    attack = replace(ATTACK, iterations=4, step_sizes=(1.0,))
    one, two = (attack(game, rng) for rng in (np.random.default_rng(9), 9))
    assert np.array_equal(one.source.relaxed.X, two.source.relaxed.X)
    assert np.array_equal(one.poison.y, two.poison.y)
    assert (one.poison.X != two.poison.X).nnz == 0
    histories = [[replace(i, seconds=0.0) for i in result.history] for result in (one, two)]
    assert histories[0] == histories[1]


def test_basic_moves_every_point_by_itself():
    game = game_of(COUNTS)
    result = BASIC(game, np.random.default_rng(0))
    assert len(np.unique(result.source.relaxed.X, axis=0)) > 2
    assert result.source.relaxed.copies.tolist() == [1] * 12
    # Labels in inverse proportion to the classes of the clean data.
    assert np.sum(result.poison.y == 1.0) == round(12 * np.mean(game.y < 0.0))
    shrunk = FeasibleSet.fit(game.X, game.y, game.domain, 80.0, 80.0)
    plain = [
        np.linalg.norm(x - part.centre) / part.radius
        for x, part in (
            (x, shrunk.positive if label > 0.0 else shrunk.negative)
            for x, label in zip(result.source.relaxed.X, result.source.relaxed.y, strict=True)
        )
    ]
    assert max(plain) <= 1.0 + 1e-6
    assert game.domain.contains(result.poison.X).all()


def test_the_relaxation_keeps_rounded_points_in_the_ball_on_average():
    game = game_of(COUNTS)
    squares = {}
    for relaxed in (True, False):
        attack = replace(
            ATTACK, relaxed=relaxed, step_sizes=(2.0,), radius_percentile=20.0, iterations=3
        )
        result = attack(game, np.random.default_rng(0))
        part = FeasibleSet.fit(game.X, game.y, game.domain, 20.0, 90.0).positive
        x = result.source.relaxed.X[0]
        squares[relaxed] = square(x, part) / part.radius**2
        assert np.linalg.norm(x - part.centre) <= part.radius * (1.0 + 1e-6)
    assert squares[True] <= 1.0 + 1e-6 < squares[False]


def test_an_attack_goes_on_from_the_points_of_another():
    game = game_of("box01")
    narrow = FeasibleSet.fit(game.X, game.y, game.domain, 50.0, 50.0)
    start = RelaxedPoison(np.full((2, 25), 0.5), np.array([-1.0, 1.0]), np.array([9, 3]))
    last = Attacked(None, 0.0, {}, Iterate(0.25, 0.5, 3, 0.0, start))
    attack = replace(
        ATTACK, iterations=3, step_sizes=(0.5,), radius_percentile=50.0, slab_percentile=50.0
    )
    result = attack.resume(game, np.random.default_rng(0), last)
    assert result.source.positive_share == 0.25
    assert result.source.relaxed.copies.tolist() == [9, 3]
    for x, part in zip(result.source.relaxed.X, (narrow.negative, narrow.positive), strict=True):
        assert violation(x, part) <= 1e-6


def test_the_start_is_of_flipped_points_that_are_legal():
    game = game_of(COUNTS)
    feasible = FeasibleSet.fit(game.X, game.y, game.domain, 95.0, 100.0)
    rng = np.random.default_rng(0)
    for points in ("two", "all"):
        start = flipped_start(game, feasible, replace(ATTACK, points=points), None, rng)
        assert start.copies.sum() == 12
        for x, label in zip(start.X, start.y, strict=True):
            part = feasible.positive if label > 0.0 else feasible.negative
            assert violation(x, part) <= 1e-8
            opposite = game.X.toarray()[game.y == -label]
            assert np.any(np.all(opposite == x, axis=1))


def test_without_a_legal_flip_any_flip_is_projected():
    game = game_of("box01")
    narrow = FeasibleSet.fit(game.X, game.y, game.domain, 1.0, 1.0)
    attack = replace(
        ATTACK, positive_shares=(1.0,), iterations=1, step_sizes=(0.5,), radius_percentile=1.0,
        slab_percentile=1.0,
    )  # fmt: skip
    result = attack(game, np.random.default_rng(0))
    assert result.source.relaxed.y.tolist() == [1.0]  # a class without poison has no point
    assert violation(result.source.relaxed.X[0], narrow.positive) <= 1e-6


def test_the_search_ends_once_enough_is_reached():
    result = ATTACK(game_of(COUNTS), np.random.default_rng(5), enough=0.01)
    assert len(result.history) < 6
    assert result.value >= 0.01


def test_impossible_demands_are_errors():
    with pytest.raises(ValueError, match="not a single one"):
        replace(ATTACK, epsilon=0.001)(game_of(COUNTS), np.random.default_rng(0))


@pytest.mark.real
@pytest.mark.skipif("DATA_MIRROR" not in os.environ, reason="needs the real mails")
def test_three_percent_of_poison_does_18_percent_damage_to_real_mail(tmp_path):
    fetch("enron", tmp_path)
    prepare("enron", "real", tmp_path)
    part = split(load(tmp_path / "real" / "enron"), np.random.default_rng(0))
    data = part.X, part.y, part.X_test, part.y_test
    game = LinearGame(*data, domain=COUNTS, learner=SVM(0.09))
    result = Influence(positive_shares=(0.35,), iterations=50)(game, np.random.default_rng(0))
    assert len(result.poison.y) == 124
    assert result.value >= 0.183
    # The first iterates already do most of it behind the L2 defense.
    assert max(t.first_error for t in result.history if t.source.iteration <= 30) >= 0.17
