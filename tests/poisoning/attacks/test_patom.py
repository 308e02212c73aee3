"""The climb: feasible, monotone, reproducible, and the same numbers one by one and side by side."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.attacks.patom import (
    PATOMSettings,
    Poison,
    attack_utility,
    best_start,
    draw_poison,
    patom,
    poisoned_data,
    project_to_ball,
    stack_poison,
)
from poisoning.models.mtrl import TaskData, loss_slopes, phi, relationship, solve_mtrl

SETTINGS = PATOMSettings(iterations=4, tol=1e-9)
SEQUENTIAL = replace(SETTINGS, update="sequential", gradient="paper", iterations=2, step=30.0)
SIZES = (20, 16, 24, 18)
losses = pytest.mark.parametrize("loss", ["square", "hinge"])
updates = pytest.mark.parametrize("setting", [SETTINGS, SEQUENTIAL], ids=["ascent", "sequential"])


def clean_data(loss, seed=0, d=5):
    """Four related tasks of different sizes, inputs in the unit ball."""
    rng = np.random.default_rng(seed)
    common = 2.0 * rng.normal(size=d)
    X, y = [], []
    for n in SIZES:
        inputs = np.hstack([0.5 * rng.normal(size=(n, d - 1)), np.ones((n, 1))])
        inputs[:, :-1] = project_to_ball(inputs[:, :-1], 1.0)
        scores = inputs @ (common + rng.normal(size=d)) + 0.1 * rng.normal(size=n)
        X.append(inputs)
        y.append(np.sign(scores) if loss == "hinge" else scores)
    return TaskData.from_tasks(X, y)


def batch(loss, seeds=(0, 1, 2), fraction=0.3):
    """Problems that differ in data, targets and number of points."""
    data = [clean_data(loss, seed) for seed in seeds]
    targets = np.array([np.roll([True, True, False, False], seed) for seed in seeds])
    attacking = np.roll(targets, 1, axis=1)  # hybrid
    poison = [
        draw_poison(
            one, attacking[i], fraction + 0.1 * i, "uniform", loss, np.random.default_rng(seed)
        )
        for i, (one, seed) in enumerate(zip(data, seeds, strict=True))
    ]
    return data, targets, poison


def stack_data(data):
    return TaskData(*(np.stack([getattr(one, f.name) for one in data]) for f in fields(TaskData)))


def generators(count, seed=5):
    return [np.random.default_rng([seed, i]) for i in range(count)]


def arrays(result):
    return {
        "X": result.poison.X,
        **{f.name: getattr(result, f.name) for f in fields(result) if f.name != "poison"},
    }


@losses
@updates
def test_a_problem_of_a_batch_is_as_if_alone(loss, setting):
    data, targets, poison = batch(loss)
    setting = replace(setting, loss=loss)
    together = patom(stack_data(data), targets, stack_poison(poison), setting, generators(3))
    for i in range(3):
        alone = arrays(patom(data[i], targets[i], poison[i], setting, [generators(3)[i]]))
        for name, both in arrays(together).items():
            mine = both[:, i] if name in ("utilities", "models", "steps") else both[i]
            if name == "X":
                k = poison[i].mask.shape[-1]
                assert np.all(mine[:, k:] == 0.0)
                mine = mine[:, :k]
            np.testing.assert_allclose(mine, alone[name], rtol=1e-8, atol=1e-8, err_msg=name)


@losses
@updates
@pytest.mark.slow
def test_torch_agrees_whatever_the_number_of_batch_dimensions(loss, setting):
    data, targets, poison = batch(loss, (0, 1, 2, 3))
    setting = replace(setting, loss=loss)
    clean, start = stack_data(data), stack_poison(poison)
    flat = patom(clean, targets, start, setting, generators(4))

    def tensor(array):
        return torch.asarray(array.reshape(2, 2, *array.shape[1:]))

    two = patom(
        TaskData(*(tensor(getattr(clean, f.name)) for f in fields(clean))),
        tensor(targets),
        Poison(*(tensor(getattr(start, f.name)) for f in fields(start))),
        setting,
        generators(4),
    )
    for name, expected in arrays(flat).items():
        found = arrays(two)[name]
        assert isinstance(found, torch.Tensor)
        found = found.numpy().reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8, err_msg=name)


@losses
@updates
def test_same_seed_same_bits(loss, setting):
    data, targets, poison = batch(loss, (0,))
    setting = replace(setting, loss=loss)
    first, second = (patom(data[0], targets[0], poison[0], setting, generators(1)) for _ in "ab")
    for name, value in arrays(first).items():
        np.testing.assert_array_equal(value, arrays(second)[name])


@losses
@pytest.mark.parametrize("gradient", ["paper", "fixed", "total"])
def test_ascent_never_descends_and_reports_what_it_did(loss, gradient):
    data, targets, poison = batch(loss)
    setting = replace(SETTINGS, loss=loss, gradient=gradient)
    clean = stack_data(data)
    result = patom(clean, targets, stack_poison(poison), setting)
    assert result.utilities.shape == (5, 3)
    rises = np.diff(result.utilities, axis=0)
    assert np.all(rises[result.steps > 0.0] > 0.0)
    assert np.all(rises[result.steps == 0.0] == 0.0)
    assert np.all(result.utility == result.utilities.max(axis=0))
    if gradient == "total":
        assert np.all(result.steps[0] > 0.0)
    for i in range(3):
        np.testing.assert_array_equal(result.W[i], result.models[result.best[i], i])
    train = poisoned_data(clean, result.poison)
    W = solve_mtrl(train, loss, 0.1, 0.1, tol=1e-10).W
    np.testing.assert_allclose(W, result.W, atol=1e-6)
    np.testing.assert_allclose(
        attack_utility(clean, targets, W, loss)[0], result.utility, rtol=1e-6
    )


@updates
def test_points_stay_in_the_ball_and_the_start_is_projected(setting):
    data, targets, poison = batch("square", (0,))
    setting = replace(setting, radius=0.4)
    result = patom(data[0], targets[0], poison[0], setting, generators(1))
    assert np.linalg.norm(result.poison.X, axis=-1).max() <= 0.4 * (1.0 + 1e-12)
    projected = replace(poison[0], X=project_to_ball(poison[0].X, 0.4))
    same = patom(data[0], targets[0], projected, setting, generators(1))
    np.testing.assert_allclose(same.utilities, result.utilities, rtol=1e-9)


def test_random_attack_is_no_iteration():
    data, targets, poison = batch("square")
    result = patom(stack_data(data), targets, stack_poison(poison), replace(SETTINGS, iterations=0))
    np.testing.assert_array_equal(result.poison.X, stack_poison(poison).X)
    assert result.steps.shape == (0, 3)
    assert result.models.shape == (1, 3, 4, 5)
    assert np.all(result.best == 0)


def test_a_problem_rests_where_no_step_raises_its_utility():
    """All labels 0: nothing is learned, whatever the inputs. The problem beside it goes on."""
    data, targets, poison = batch("square", (0, 1))
    data[0], poison[0] = (
        replace(data[0], y=0.0 * data[0].y),
        replace(poison[0], y=0.0 * poison[0].y),
    )
    result = patom(stack_data(data), targets, stack_poison(poison), SETTINGS)
    assert np.all(result.steps[:, 0] == 0.0)
    assert np.all(result.steps[:, 1] > 0.0)
    np.testing.assert_array_equal(result.poison.X[0], stack_poison(poison).X[0])


def sweep(clean, targets, poison, W, loss, step, rng):
    """Steps 7 to 10 of Algorithm 1, one example and one point at a time."""
    train = poisoned_data(clean, poison)
    n = clean.y.shape[-1]
    Phi = phi(relationship(W), 0.1, 0.1)
    pool = [(p, q) for p, q in np.ndindex(clean.y.shape) if targets[p] and clean.weight[p, q] > 0]
    X = poison.X.copy()
    for drawn in rng.integers(len(pool), size=3 * len(pool)):
        p, q = pool[drawn]
        x, y = clean.X[p, q], clean.y[p, q]
        slope = loss_slopes(np.array(x @ W[p]), np.array(y), loss)
        for i, j in zip(*np.nonzero(poison.mask), strict=True):
            score, label = np.array(train.X[i, n + j] @ W[i]), train.y[i, n + j]
            alpha = -train.weight[i, n + j] * loss_slopes(score, np.array(label), loss)
            X[i, j] += step * slope * x[:-1] * alpha * Phi[i, p]
            X[i, j] /= max(1.0, np.linalg.norm(X[i, j]))
    return X


@losses
@pytest.mark.parametrize("step", [0.5, 30.0])
def test_sequential_update_is_that_of_the_plain_loop(loss, step):
    data, targets, poison = batch(loss, (0,))
    clean, start = data[0], poison[0]
    setting = replace(SEQUENTIAL, loss=loss, step=step, iterations=1)
    result = patom(clean, targets[0], start, setting, generators(1))
    W = solve_mtrl(poisoned_data(clean, start), loss, 0.1, 0.1, tol=1e-9).W
    X = sweep(clean, targets[0], start, W, loss, step, generators(1)[0])
    moved = poisoned_data(clean, replace(start, X=X))
    expected = solve_mtrl(moved, loss, 0.1, 0.1, tol=1e-9).W
    np.testing.assert_allclose(result.models[1], expected, rtol=0, atol=1e-6)
    if result.best == 1:
        np.testing.assert_allclose(result.poison.X, X, rtol=0, atol=1e-6)
    assert result.utility >= result.utilities[0]
    assert np.abs(X - start.X).max() > 1e-3


def test_sequential_keeps_the_best_iterate():
    data, targets, poison = batch("square")
    setting = replace(SEQUENTIAL, iterations=6, step=300.0)
    result = patom(stack_data(data), targets, stack_poison(poison), setting, generators(3))
    assert np.any(np.diff(result.utilities, axis=0) < 0.0)
    np.testing.assert_array_equal(result.utility, result.utilities.max(axis=0))
    np.testing.assert_array_equal(result.best, result.utilities.argmax(axis=0))
    assert np.all(result.steps == 300.0)


def test_best_of_several_starts():
    data, targets, _ = batch("square", (0, 1))
    attacking = np.roll(targets, 1, axis=1)
    starts = [
        [
            draw_poison(
                data[i], attacking[i], 0.3, "clean", "square", np.random.default_rng([i, s])
            )
            for i in range(2)
        ]
        for s in range(3)
    ]
    flat = stack_poison([poison for start in starts for poison in start])
    shaped = Poison(*(getattr(flat, f.name).reshape(3, 2, *getattr(flat, f.name).shape[1:])
                      for f in fields(flat)))  # fmt: skip
    clean = stack_data(data)
    clean = TaskData(
        *(np.broadcast_to(getattr(clean, f.name), (3, *getattr(clean, f.name).shape))
          for f in fields(clean))
    )  # fmt: skip
    result = patom(clean, np.broadcast_to(targets, (3, *targets.shape)), shaped, SETTINGS)
    best = best_start(result)
    for i, s in enumerate(result.utility.argmax(axis=0)):
        assert best.utility[i] == result.utility[:, i].max()
        np.testing.assert_array_equal(best.poison.X[i], result.poison.X[s, i])
        np.testing.assert_array_equal(best.poison.mask[i], result.poison.mask[s, i])
        np.testing.assert_array_equal(best.W[i], result.W[s, i])
        np.testing.assert_array_equal(best.models[:, i], result.models[:, s, i])
        np.testing.assert_array_equal(best.steps[:, i], result.steps[:, s, i])


@losses
@pytest.mark.parametrize("labels", ["uniform", "clean", "constant"])
def test_budget_and_labels(loss, labels):
    data = clean_data(loss)
    attacking = np.array([True, False, True, False])
    poison = draw_poison(data, attacking, 0.3, labels, loss, np.random.default_rng(0), radius=0.5)
    assert poison.mask.sum(axis=1).tolist() == [6, 0, 7, 0]
    assert np.all(poison.X[~poison.mask] == 0.0)
    assert np.all(np.linalg.norm(poison.X, axis=-1) <= 0.5)
    for i in (0, 2):
        y, clean = poison.y[i][poison.mask[i]], data.y[i, : SIZES[i]]
        if labels == "constant":
            assert np.all(y == 1.0)
        elif labels == "clean" or loss == "hinge":
            assert np.all(np.isin(y, clean))
        else:
            assert clean.min() <= y.min() < y.max() <= clean.max()
    train = poisoned_data(data, poison)
    np.testing.assert_allclose(train.weight.sum(axis=-1), 1.0)
    np.testing.assert_array_equal((train.weight > 0).sum(axis=-1), np.add(SIZES, [6, 0, 7, 0]))
    assert np.all(train.X[..., -1] == (train.weight > 0))


def test_points_fill_the_ball_evenly():
    data = clean_data("square", d=4)
    attacking = np.ones(4, dtype=bool)
    poison = draw_poison(data, attacking, 100.0, "clean", "square", np.random.default_rng(0))
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


@pytest.mark.parametrize(
    ("setting", "count", "message"),
    [
        (replace(SEQUENTIAL, gradient="total"), 1, "needs gradient 'paper'"),
        (SEQUENTIAL, 0, "a generator per problem"),
    ],
)
def test_what_the_sequential_update_needs(setting, count, message):
    data, targets, poison = batch("square", (0,))
    with pytest.raises(ValueError, match=message):
        patom(data[0], targets[0], poison[0], setting, generators(count))


def test_an_attack_needs_targets_and_points():
    data, _, poison = batch("square", (0,))
    with pytest.raises(ValueError, match="no target task"):
        patom(data[0], np.zeros(4, dtype=bool), poison[0], SETTINGS)
    with pytest.raises(ValueError, match="not a single poisoned one"):
        draw_poison(data[0], np.arange(4) < 2, 0.02, "clean", "square", np.random.default_rng(0))
