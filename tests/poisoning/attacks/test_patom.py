"""The climb: feasible, monotone, reproducible, and as the plain loop says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.attacks.patom import PATOM, draw_poison, project_to_ball
from poisoning.games.multi_task import MultiTaskGame
from poisoning.models.mtrl import loss_slopes, phi, relationship, solve_mtrl

ASCENT = PATOM(0.3, iterations=4)
SEQUENTIAL = PATOM(0.3, update="sequential", gradient="paper", iterations=2, step=30.0)
SIZES = (20, 16, 24, 18)
losses = pytest.mark.parametrize("loss", ["square", "hinge"])
attacks = pytest.mark.parametrize("attack", [ASCENT, SEQUENTIAL], ids=["ascent", "sequential"])


def game(loss, seed=0, features=4, zero=False, **changes):
    """Four related tasks of different sizes, inputs in the unit ball; a hybrid attack."""
    rng = np.random.default_rng(seed)
    common = 2.0 * rng.normal(size=features + 1)
    sets = []
    for n in (*SIZES, *SIZES):
        X = project_to_ball(0.5 * rng.normal(size=(n, features)), 1.0)
        weights = common + rng.normal(size=features + 1)
        y = X @ weights[:-1] + 0.2 * weights[-1] + 0.1 * rng.normal(size=n)
        sets.append((X, np.sign(y) if loss == "hinge" else y))
    tasks = [(X, 0.0 * y) for X, y in sets[:4]] if zero else sets[:4]
    rules = {"targets": [0, 1], "attacking": [1, 2], "loss": loss, "tol": 1e-9} | changes
    return MultiTaskGame(tasks, sets[4:], **rules)


def models(attacked):
    return np.array([iterate.outcome.model for iterate in attacked.history])


def utilities(attacked):
    return np.array([iterate.outcome.utility for iterate in attacked.history])


def steps(attacked):
    return np.array([iterate.step for iterate in attacked.history])


@losses
@attacks
def test_a_result_says_what_learning_from_its_poison_gives(loss, attack):
    made = game(loss)
    attacked = attack(made, 0)
    W = solve_mtrl(made.poisoned(attacked.poison), loss, 0.1, 0.1, tol=1e-10).W
    outcome = attacked.outcomes["none"]
    np.testing.assert_allclose(outcome.model, W, atol=1e-6)
    assert outcome.utility == attacked.value == pytest.approx(made.utility(W)[0], rel=1e-6)
    assert outcome.measure == pytest.approx(made.measure(W), rel=1e-6)
    assert outcome is attacked.source.outcome
    assert attacked.source is attacked.history[attacked.source.number]
    assert [iterate.number for iterate in attacked.history] == list(range(attack.iterations + 1))
    assert attacked.seconds > 0.0


@losses
@attacks
def test_same_seed_same_bits(loss, attack):
    first, second = (attack(game(loss), rng) for rng in (3, np.random.default_rng(3)))
    np.testing.assert_array_equal(first.poison.X, second.poison.X)
    np.testing.assert_array_equal(models(first), models(second))
    assert not np.array_equal(first.poison.X, attack(game(loss), 4).poison.X)


@losses
@pytest.mark.parametrize("gradient", ["paper", "fixed", "total"])
def test_ascent_never_descends_and_reports_what_it_did(loss, gradient):
    attacked = replace(ASCENT, gradient=gradient)(game(loss), 0)
    assert len(attacked.history) == 5
    rises, moves = np.diff(utilities(attacked)), steps(attacked)[1:]
    assert np.all(rises[moves > 0.0] > 0.0)
    assert np.all(rises[moves == 0.0] == 0.0)
    assert attacked.value == utilities(attacked).max()
    if gradient == "total":
        assert moves[0] > 0.0


@attacks
def test_points_stay_in_the_ball(attack):
    attacked = replace(attack, radius=0.4)(game("square"), 0)
    assert np.linalg.norm(attacked.poison.X, axis=-1).max() <= 0.4 * (1.0 + 1e-12)
    assert not attacked.poison.X[~attacked.poison.mask].any()


def test_random_attack_is_no_iteration():
    made = game("square")
    attacked = replace(ASCENT, iterations=0)(made, 0)
    start = draw_poison(made, 0.3, "uniform", 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(attacked.poison.X, start.X)
    np.testing.assert_array_equal(attacked.poison.y, start.y)
    assert len(attacked.history) == 1
    assert attacked.source.number == 0


def test_poison_rests_where_no_step_raises_the_utility():
    """All labels are 0: nothing is learned, whatever the inputs."""
    made = game("square", zero=True)
    attacked = ASCENT(made, 0)
    assert not steps(attacked).any()
    assert len(attacked.history) == 5
    start = draw_poison(made, 0.3, "uniform", 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(attacked.poison.X, start.X)


def sweep(made, poison, W, step, rng):
    """Steps 7 to 10 of Algorithm 1, one example and one point at a time."""
    clean, train = made.data, made.poisoned(poison)
    n = clean.y.shape[-1]
    Phi = phi(relationship(W), 0.1, 0.1)
    pool = [
        (p, q) for p, q in np.ndindex(clean.y.shape) if made.targets[p] and clean.weight[p, q] > 0
    ]
    X = poison.X.copy()
    for drawn in rng.integers(len(pool), size=3 * len(pool)):
        p, q = pool[drawn]
        x, y = clean.X[p, q], clean.y[p, q]
        slope = loss_slopes(np.array([x @ W[p]]), np.array([y]), made.loss)[0]
        for i, j in zip(*np.nonzero(poison.mask), strict=True):
            score, label = train.X[i, [n + j]] @ W[i], train.y[i, [n + j]]
            alpha = -train.weight[i, n + j] * loss_slopes(score, label, made.loss)[0]
            X[i, j] += step * slope * x[:-1] * alpha * Phi[i, p]
            X[i, j] /= max(1.0, np.linalg.norm(X[i, j]))
    return X


@losses
@pytest.mark.parametrize("step", [0.5, 30.0])
def test_sequential_update_is_that_of_the_plain_loop(loss, step):
    made, rng = game(loss), np.random.default_rng(7)
    attacked = replace(SEQUENTIAL, step=step, iterations=1)(made, 7)
    start = draw_poison(made, 0.3, "uniform", 1.0, rng)
    X = sweep(made, start, made.learn(made.poisoned(start)), step, rng)
    expected = made.learn(made.poisoned(replace(start, X=X)))
    np.testing.assert_allclose(models(attacked)[1], expected, rtol=0, atol=1e-6)
    if attacked.source.number == 1:
        np.testing.assert_allclose(attacked.poison.X, X, rtol=0, atol=1e-6)
    assert np.abs(X - start.X).max() > 1e-3


def test_sequential_keeps_the_best_iterate():
    attacked = replace(SEQUENTIAL, iterations=6, step=300.0)(game("square"), 2)
    assert np.any(np.diff(utilities(attacked)) < 0.0)
    assert attacked.value == utilities(attacked).max()
    assert attacked.source.number == utilities(attacked).argmax()
    np.testing.assert_array_equal(steps(attacked), [0.0] + 6 * [300.0])


@losses
@pytest.mark.parametrize("labels", ["uniform", "clean", "constant"])
def test_budget_and_labels(loss, labels):
    made = game(loss, attacking=[0, 2])
    poison = draw_poison(made, 0.3, labels, 0.5, np.random.default_rng(0))
    assert poison.mask.sum(axis=1).tolist() == [6, 0, 7, 0]
    assert np.all(poison.X[~poison.mask] == 0.0)
    assert np.all(np.linalg.norm(poison.X, axis=-1) <= 0.5)
    for i in (0, 2):
        y, clean = poison.y[i][poison.mask[i]], made.data.y[i, : SIZES[i]]
        if labels == "constant":
            assert np.all(y == 1.0)
        elif labels == "clean" or loss == "hinge":
            assert np.all(np.isin(y, clean))
        else:
            assert clean.min() <= y.min() < y.max() <= clean.max()


def test_points_fill_the_ball_evenly():
    made = game("square", features=3, attacking=[0, 1, 2, 3])
    poison = draw_poison(made, 100.0, "clean", 1.0, np.random.default_rng(0))
    points = poison.X[poison.mask]
    norms = np.linalg.norm(points, axis=1)
    assert np.mean(norms < 0.5) == pytest.approx(0.125, abs=0.02)  # the share of the volume
    assert np.abs(points.mean(axis=0)).max() < 0.03


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.floats(-10.0, 10.0), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(0.01, 10.0),
)
def test_projection_is_the_nearest_point_of_the_ball(rows, radius):
    X = np.array(rows)
    P = project_to_ball(X, radius)
    norms = np.linalg.norm(X, axis=1)
    assert np.linalg.norm(P, axis=1).max() <= radius * (1.0 + 1e-12)
    np.testing.assert_array_equal(P[norms < radius], X[norms < radius])
    # The distance to the ball is ‖x‖ − r: no point of it is nearer.
    away = np.linalg.norm(X - P, axis=1)
    np.testing.assert_allclose(away, np.maximum(norms - radius, 0.0), atol=1e-9)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 0.0}, "PATOM: budget must be a fraction"),
        ({"budget": 20}, "PATOM: budget must be a fraction"),
        ({"labels": "random"}, "PATOM: labels must be uniform, clean or constant"),
        ({"update": "stochastic"}, "PATOM: update must be ascent or sequential"),
        ({"gradient": "exact"}, "PATOM: gradient must be paper, fixed or total"),
        ({"iterations": -1}, "PATOM: iterations must be a whole number, 0 to 1000"),
        ({"radius": 0.0}, "PATOM: radius must be a radius above 0"),
        ({"step": -1.0}, "PATOM: step must be a step length above 0"),
        ({"batch_factor": 0.5}, "PATOM: batch_factor must be a whole number"),
        ({"update": "sequential"}, "gradient must be paper for the sequential update, not 'total'"),
    ],
)
def test_a_setting_that_is_wrong_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        PATOM(**changes)


@pytest.mark.usefixtures("unchecked")
def test_an_attack_needs_points_and_a_seed():
    with pytest.raises(ValueError, match=r"not a single poisoned one .* tasks \[1, 2\]"):
        PATOM(0.01)(game("square"), 0)
    with pytest.raises(TypeError, match="rng must be a seed"):
        PATOM(0.3)(game("square"), "seed")
