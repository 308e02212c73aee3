"""The multi-task game: made from plain lists or a draw, evaluation of own poison, refusals."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import r2_score, roc_auc_score

from poisoning.attacks.patom import PATOM
from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.games.multi_task import MultiTaskGame, Poison
from poisoning.models.mtrl import TaskData, loss_values, solve_mtrl

LOSSES = ("square", "hinge")
SIZES = (20, 16, 24, 18)
RULES = {"targets": [0, 1], "attacking": [1, 2]}


def examples(loss, seed=0, sizes=SIZES, features=4):
    """Related tasks in the unit ball, as an outsider has them: a pair of arrays for each."""
    rng = np.random.default_rng(seed)
    common = 2.0 * rng.normal(size=features)
    tasks = []
    for n in sizes:
        X = 0.3 * rng.normal(size=(n, features))
        y = X @ (common + 0.5 * rng.normal(size=features)) + 0.3 + 0.1 * rng.normal(size=n)
        tasks.append((X, np.where(y > 0.0, 1.0, -1.0) if loss == "hinge" else y))
    return tasks


def game(loss, **changes):
    given = {"tasks": examples(loss), "tests": examples(loss, 1), **RULES, "loss": loss}
    given |= changes
    return MultiTaskGame(given.pop("tasks"), given.pop("tests"), **given)


def with_bias(X):
    return np.hstack([X, np.ones((len(X), 1))])


@pytest.mark.parametrize("loss", LOSSES)
def test_own_poison_is_worth_what_learning_from_it_gives(loss):
    made = game(loss, lambda1=0.05, lambda2=0.02)
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(5, 4)), np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    outcome = made.evaluate({2: (X, y)})["none"]

    tasks = examples(loss)
    tasks[2] = np.vstack([tasks[2][0], X]), np.append(tasks[2][1], y)
    data = TaskData.from_tasks([with_bias(X) for X, _ in tasks], [y for _, y in tasks])
    W = solve_mtrl(data, loss, 0.05, 0.02, tol=1e-9).W
    np.testing.assert_allclose(outcome.model, W, atol=1e-5)
    losses = [
        loss_values(with_bias(X) @ w, y, loss).sum()
        for w, (X, y) in zip(outcome.model[:2], examples(loss)[:2], strict=True)
    ]
    assert outcome.utility == pytest.approx(sum(losses))
    scores = [with_bias(X) @ w for w, (X, _) in zip(outcome.model, examples(loss, 1), strict=True)]
    measured = [
        1.0 - r2_score(y, score) if loss == "square" else roc_auc_score(y, score)
        for score, (_, y) in zip(scores[:2], examples(loss, 1)[:2], strict=True)
    ]
    assert outcome.measure == pytest.approx(np.mean(measured))


def test_no_poison_is_the_clean_outcome():
    made = game("square")
    clean = made.evaluate({})["none"]
    assert clean is made.clean
    np.testing.assert_array_equal(
        clean.model, solve_mtrl(made.data, "square", 0.1, 0.1, tol=1e-6).W
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_an_attacks_poison_is_evaluated_as_the_attack_says(loss):
    made = game(loss)
    attacked = PATOM(0.3, iterations=2)(made, 0)
    again = made.evaluate(attacked.poison)["none"]
    assert again.utility == pytest.approx(attacked.value, rel=1e-4)
    assert again.measure == pytest.approx(attacked.outcomes["none"].measure, rel=1e-3)
    as_pairs = made.evaluate(attacked.poison.points)["none"]
    np.testing.assert_array_equal(as_pairs.model, again.model)


def test_tasks_may_be_named_by_mask_or_number_and_arrays_be_lists_sparse_or_of_whole_numbers():
    plain = game("hinge")
    tasks = [(sp.csr_array(X), y.astype(int).tolist()) for X, y in examples("hinge")]
    other = game("hinge", tasks=tasks, targets=[True, True, False, False], attacking=(2, 1, 1))
    np.testing.assert_array_equal(other.clean.model, plain.clean.model)
    np.testing.assert_array_equal(other.targets, plain.targets)
    np.testing.assert_array_equal(other.attacking, plain.attacking)


def test_a_draw_and_its_lists_are_one_game():
    tasks, tests = examples("square"), examples("square", 1)
    data = TaskData.from_tasks([with_bias(X) for X, _ in tasks], [y for _, y in tasks])
    draw = MultiTaskDraw(
        data.X, data.y, data.weight, tuple(with_bias(X) for X, _ in tests),
        tuple(y for _, y in tests),
    )  # fmt: skip
    one = game("square", lambda1=0.2)
    other = MultiTaskGame.from_draw(draw, **RULES, loss="square", lambda1=0.2)
    np.testing.assert_array_equal(one.clean.model, other.clean.model)
    assert one.clean.measure == other.clean.measure
    with pytest.raises(ValueError, match=r"tasks\[0\], y must be -1 and \+1"):
        MultiTaskGame.from_draw(draw, **RULES, loss="hinge")


def test_the_callers_arrays_are_not_changed_and_later_changes_do_not_reach_the_training_sets():
    tasks = examples("square")
    made = game("square", tasks=tasks)
    before = made.data.X.copy()
    tasks[0][0][:] = 7.0
    np.testing.assert_array_equal(made.data.X, before)


def test_poison_weighs_one_over_the_number_of_all_examples_of_its_task():
    made = game("square")
    points = {1: (np.ones((4, 4)), np.zeros(4)), 2: (np.ones((1, 4)), np.zeros(1))}
    data = made.poisoned(Poison.of(points, 4))
    np.testing.assert_allclose(data.weight.sum(axis=1), 1.0)
    np.testing.assert_array_equal((data.weight > 0).sum(axis=1), np.add(SIZES, [0, 4, 1, 0]))
    np.testing.assert_array_equal(data.X[..., -1], data.weight > 0)
    for found, expected in zip(
        data.moments, TaskData(data.X, data.y, data.weight).moments, strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-14)


X0, Y0 = examples("square")[0]
NAN = np.full_like(X0, np.nan)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": []}, "tasks must hold at least one task"),
        ({"tasks": X0}, r"tasks must be a list of pairs \(X, y\)"),
        ({"tasks": "tasks"}, "tasks must be a list of pairs"),
        ({"tasks": [X0, X0, X0, X0]}, r"tasks\[0\] must be a pair"),
        ({"tasks": [(X0[:0], Y0[:0])]}, r"tasks\[0\], X must have at least 1 rows"),
        ({"tasks": [(NAN, Y0)]}, r"tasks\[0\], X must be finite"),
        ({"tasks": [(X0, Y0[:-1])]}, r"tasks\[0\], y must have one value for each of 20 rows"),
        ({"tasks": [(X0, Y0 * np.inf)]}, r"tasks\[0\], y must be finite"),
        ({"tasks": [(X0, [None] * 20)]}, r"tasks\[0\], y must hold real numbers"),
        ({"tasks": [(X0, Y0), (X0[:, 1:], Y0)]}, r"tasks\[1\], X must have 4 columns"),
        ({"tests": examples("square", 1)[:3]}, "a pair for each of 4 tasks, it holds 3"),
        ({"tests": [(X0[:, 1:], Y0)] * 4}, r"tests\[0\], X must have 4 columns"),
        ({"tests": [(X0, 0.0 * Y0 + 2.0)] * 4}, r"tests\[0\] must hold different labels.* an NMSE"),
        ({"targets": []}, "targets must name at least one of 4 tasks"),
        ({"targets": [False] * 4}, "targets must name at least one of 4 tasks"),
        ({"attacking": []}, "attacking must name at least one of 4 tasks"),
        ({"targets": [True, False]}, "targets, a mask, must have 4 entries, it has 2"),
        ({"targets": [4]}, "targets: 4 is no task, there are 0 to 3"),
        ({"attacking": [-1]}, "attacking: -1 is no task"),
        ({"attacking": [0.5]}, "attacking must be a boolean mask or numbers of tasks"),
        ({"attacking": "first"}, "attacking must be a boolean mask or numbers of tasks"),
        ({"loss": "logistic"}, "loss must be square or hinge, not 'logistic'"),
        (
            {"loss": "hinge", "tasks": [(X0, Y0)] * 4},
            r"tasks\[0\], y must be -1 and \+1 for the hinge loss",
        ),
        ({"lambda1": 0.0}, "lambda1 must be a finite number above 0, not 0.0"),
        ({"lambda2": -1}, "lambda2 must be a finite number above 0"),
        ({"lambda2": float("nan")}, "lambda2 must be a finite number above 0"),
        ({"lambda1": True}, "lambda1 must be a finite number above 0"),
        ({"tol": "small"}, "tol must be a finite number above 0"),
    ],
)
def test_an_argument_that_is_wrong_is_named(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        game(**({"loss": "square"} | changes))


def test_a_hinge_needs_both_labels_in_the_tests_of_targets_alone():
    tests = examples("hinge", 1)
    tests[3] = tests[3][0], np.ones(SIZES[3])
    game("hinge", tests=tests)
    with pytest.raises(ValueError, match=r"tests\[3\] must hold different labels.* an AUC"):
        game("hinge", tests=tests, targets=[3])


POINTS = np.zeros((2, 4))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("poison", "message"),
    [
        ([(POINTS, [1.0, 1.0])], "poison must be a Poison, or a mapping"),
        ({0: (POINTS, [1.0, 1.0])}, "poison: task 0 is none of the attacker's"),
        ({7: (POINTS, [1.0, 1.0])}, "poison: 7 is no task, there are 0 to 3"),
        ({"a": (POINTS, [1.0, 1.0])}, "poison: 'a' is no task"),
        ({1: POINTS}, r"poison\[1\] must be a pair"),
        ({1: (POINTS[:, 1:], [1.0, 1.0])}, r"poison\[1\], X must have 4 columns"),
        ({1: (POINTS * np.nan, [1.0, 1.0])}, r"poison\[1\], X must be finite"),
        ({1: (POINTS, [1.0])}, r"poison\[1\], y must have one value for each of 2"),
        ({1: (POINTS, [1.0, 0.5])}, r"poison\[1\], y must be -1 and \+1"),
        (Poison.of({1: (POINTS, np.ones(2))}, 3), "poison must be for 4 tasks, it is for 3"),
    ],
)
def test_poison_that_is_wrong_is_named(poison, message):
    with pytest.raises((ValueError, TypeError), match=message):
        game("hinge").evaluate(poison)
