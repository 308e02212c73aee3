"""The bilevel game: what it refuses, what a defender learns, and poison from anywhere."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import LogisticRegression

from poisoning.games.bilevel import (
    NO_REGULARISATION,
    BilevelGame,
    FinalTraining,
    Policy,
)
from poisoning.hypergradient.learning import HyperparameterLearning

LEARNING = HyperparameterLearning(steps=60, rate=0.5, hyperiterations=6)
TRAINING = FinalTraining(1000, 1.0)
POLICIES = {"none": Policy(fixed=NO_REGULARISATION), "fixed": Policy(fixed=-3.0), "l2": Policy()}


def rows(n, seed=0, d=6):
    """Bytes of two classes that a line separates up to some noise."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2 == 0, -1.0, 1.0)
    X = rng.normal(128.0, 40.0, (n, d))
    X[:, :3] += 30.0 * y[:, None]
    return np.clip(np.rint(X), 0, 255).astype(np.uint8), y


X, Y = rows(130)
PARTS = (X[:60], Y[:60], X[60:90], Y[60:90], X[90:], Y[90:])


def game_of(*parts, as_bytes=True, **more):
    parts = parts or PARTS
    if not as_bytes:
        parts = [part / 255.0 if k % 2 == 0 else part for k, part in enumerate(parts)]
    options = {
        "box": (0.0, 1.0), "policies": POLICIES, "learning": LEARNING, "training": TRAINING,
        "dtype": "float64",
    } | ({"scale": 1.0 / 255.0} if as_bytes else {})  # fmt: skip
    return BilevelGame(*parts, **(options | more))


def test_plain_arrays_make_a_game_that_answers_by_policy():
    game = BilevelGame(*(part / 255.0 if k % 2 == 0 else part for k, part in enumerate(PARTS)),
                       box=(0, 1), training=FinalTraining(50, 0.5), dtype="float64")  # fmt: skip
    outcomes = game.evaluate(np.zeros((0, 6)), np.zeros(0))
    assert list(outcomes) == ["none", "l2-learned", "l1-learned"]
    assert game.value(outcomes) == min(
        outcomes[name].test_error for name in ("l2-learned", "l1-learned")
    )


def test_models_that_are_tested_are_scikit_learns():
    rng = np.random.default_rng(1)
    points, labels, replaced = rng.random((5, 6)), np.ones(5), np.arange(5)
    found = game_of().evaluate(points, labels, replaced=replaced)["fixed"]
    train = np.c_[np.concatenate([X[5:60] / 255.0, points]), np.ones(60)]
    peer = LogisticRegression(C=1.0 / (60 * np.exp(-3.0)), fit_intercept=False, tol=1e-12)
    peer.fit(train, np.concatenate([Y[5:60], labels]))
    np.testing.assert_allclose(found.w, peer.coef_[0], atol=1e-6)
    wrong = peer.predict(np.c_[X[90:] / 255.0, np.ones(40)]) != Y[90:]
    assert found.test_error == pytest.approx(wrong.mean())
    for label, error in found.error_by_label.items():
        assert error == pytest.approx(wrong[Y[90:] == label].mean())
    margins = Y[60:90] * (np.c_[X[60:90] / 255.0, np.ones(30)] @ peer.coef_[0])
    assert found.loss == pytest.approx(np.logaddexp(0.0, -margins).mean(), abs=1e-6)


def test_points_may_be_the_same_for_all_policies_or_differ():
    game = game_of()
    points, labels = X[90:95] / 255.0, -Y[90:95]
    one = game.evaluate(points, labels)
    each = game.evaluate(np.stack([points] * 3), np.stack([labels] * 3))
    as_bytes = game.evaluate(X[90:95], labels)
    for name in POLICIES:
        assert one[name].test_error == each[name].test_error == as_bytes[name].test_error
        np.testing.assert_allclose(one[name].w, each[name].w)
        np.testing.assert_allclose(one[name].w, as_bytes[name].w)


def test_bytes_and_numbers_are_the_same_game():
    of_bytes, of_numbers = game_of(), game_of(as_bytes=False)
    points, labels = X[90:95] / 255.0, -Y[90:95]
    for name, outcome in of_bytes.evaluate(points, labels).items():
        other = of_numbers.evaluate(points, labels)[name]
        np.testing.assert_allclose(outcome.w, other.w, atol=1e-9)


@pytest.mark.parametrize("as_bytes", [True, False])
def test_poison_may_belong_to_the_training_data_of_another_game(as_bytes):
    game = game_of(as_bytes=as_bytes)
    points, labels, replaced = X[90:95] / 255.0, -Y[90:95], np.array([0, 3, 4, 8, 9])
    inside = game.poisoned(points, labels, replaced)
    assert inside.n == game.n
    assert game.n == 60
    none = np.zeros((0, 6)), np.zeros(0)
    expected = game.evaluate(points, labels, replaced=replaced)
    for name, outcome in inside.evaluate(*none).items():
        np.testing.assert_allclose(outcome.w, expected[name].w, atol=1e-8)


@pytest.mark.usefixtures("unchecked")
def test_poison_of_several_policies_belongs_to_no_one_game():
    points, labels = np.stack([X[90:95] / 255.0] * 3), np.stack([-Y[90:95]] * 3)
    with pytest.raises(ValueError, match=r"points must be \(rows, 6\), .* each of 3: .* points\[k"):
        game_of().poisoned(points, labels)


def test_auto_is_a_device_that_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert game_of(device="auto").device == "cpu"


def test_a_learned_lam_lowers_the_validation_loss():
    game = game_of()
    points, labels = X[60:75] / 255.0, -Y[60:75]  # flipped clones of validation points
    lam = game.learn(points, labels)
    assert lam.shape == (3, 1)
    assert lam[0, 0] == NO_REGULARISATION and lam[1, 0] == -3.0
    assert LEARNING.l2.low <= lam[2, 0] <= LEARNING.l2.high
    start = np.array([[NO_REGULARISATION], [-3.0], [LEARNING.l2.start]])
    before, after = (game.evaluate(points, labels, lam=given)["l2"].loss for given in (start, lam))
    assert after < before
    assert game.evaluate(points, labels)["l2"].lam == lam[2]


def test_without_test_data_errors_are_those_on_validation_data():
    game = game_of(*PARTS[:4])
    found = game.evaluate(np.zeros((0, 6)), np.zeros(0))["fixed"]
    other = game_of(*PARTS[:4], *PARTS[2:4]).evaluate(np.zeros((0, 6)), np.zeros(0))["fixed"]
    assert found.test_error == other.test_error


def test_other_policies_leave_the_game_as_it_was():
    game = game_of()
    other = game.with_policies({"l1": Policy("l1", -6.0)})
    assert list(game.policies) == list(POLICIES)
    assert list(other.evaluate(np.zeros((0, 6)), np.zeros(0))) == ["l1"]
    slow = game.with_learning(replace(LEARNING, hyperiterations=1))
    assert game.learning is LEARNING
    assert not np.array_equal(slow.learn(X[60:75], -Y[60:75]), game.learn(X[60:75], -Y[60:75]))


@pytest.mark.parametrize("penalty", ["l2", "l1"])
@pytest.mark.slow
def test_cross_validation_is_that_of_models_fitted_one_by_one(penalty):
    game, grid = game_of(training=FinalTraining(1000, 2.0)), (-5.0, -4.0, -2.0)
    found = game.cross_validate(penalty, grid, 5)
    fold = np.random.default_rng(5).permutation(60) % 5
    values, y = np.c_[X[:60] / 255.0, np.ones(60)], Y[:60]
    losses = []
    for lam in grid:
        held = []
        for f in range(5):
            kept = fold != f
            sk = LogisticRegression(
                C=1.0 / (kept.sum() * np.exp(lam)), l1_ratio={"l2": 0.0, "l1": 1.0}[penalty],
                fit_intercept=False, solver="saga", tol=1e-9, max_iter=100_000,
            )  # fmt: skip
            sk.fit(values[kept], y[kept])
            held.append(np.logaddexp(0.0, -y[~kept] * (values[~kept] @ sk.coef_[0])).mean())
        losses.append(np.mean(held))
    np.testing.assert_allclose(found.losses.numpy(), losses, atol=2e-3)
    assert found.lam == grid[int(np.argmin(losses))]
    assert found.at_edge == (found.lam in (grid[0], grid[-1]))
    with pytest.raises(ValueError, match="grid must hold"):
        game.cross_validate(penalty, (), 0)


def without(k, part):
    return [*PARTS[:k], part, *PARTS[k + 1 :]]


@pytest.mark.parametrize(
    ("parts", "options", "error", "message"),
    [
        (without(0, sp.csr_array(X[:60])), {}, TypeError, "X must be a dense array"),
        (without(0, X[:60, 0]), {}, ValueError, "X must have two dimensions"),
        (without(0, X[:60] * np.nan), {}, ValueError, "X must be finite"),
        (without(1, Y[:59]), {}, ValueError, "y must have one label for each of 60 rows"),
        (without(1, np.arange(60)), {}, ValueError, "y must hold -1 and \\+1"),
        (without(2, X[60:90, :5]), {}, ValueError, "X_val must have 6 columns"),
        (without(3, 2.0 * Y[60:90]), {}, ValueError, "y_val must be -1 and \\+1"),
        (without(5, np.arange(40)), {}, ValueError, "y_test must hold"),
        (PARTS, {"box": (1.0, 1.0)}, ValueError, "box must be"),
        (PARTS, {"box": (0.0, 0.5)}, ValueError, "box: row 0 of X lies outside"),
        (PARTS, {"policies": {}}, ValueError, "at least one policy"),
        (PARTS, {"policies": {"a": -3.0}}, TypeError, "Policy"),
        (PARTS, {"hidden": (0,)}, ValueError, "hidden must be a whole number"),
        (PARTS, {"dtype": "int8"}, ValueError, "one of float32, float64"),
        (without(5, Y[60:61].repeat(40)), {}, ValueError, "y_test must hold both of -1 and"),
        ((*PARTS[:3], -np.ones(30)), {}, ValueError, "y_val must hold both of .* all .* is -1"),
        (PARTS, {"device": "meta"}, ValueError, "device must be auto, cpu, or cuda .* not 'meta'"),
        (PARTS, {"device": "tpu"}, ValueError, "device must be auto, cpu, or cuda .* not 'tpu'"),
        (PARTS, {"device": "cuda:77"}, ValueError, "device must be auto, cpu, or cuda"),
        (PARTS, {"target": (X[:3, :2], Y[:3])}, ValueError, "X of target must have 6 columns"),
    ],
)
def test_a_game_that_does_not_fit_together_is_refused(parts, options, error, message):
    with pytest.raises(error, match=message):
        game_of(*parts, **options)


@pytest.mark.parametrize(
    ("points", "labels", "more", "message"),
    [
        (np.zeros((2, 5)), np.ones(2), {}, "points must be"),
        (np.zeros((2, 6)), np.ones(3), {}, "one label for each point"),
        (np.zeros((2, 2, 6)), np.ones((2, 2)), {}, "a set for each of 3 policies"),
        (np.full((2, 6), np.inf), np.ones(2), {}, "points must be finite"),
        (np.zeros((2, 6)), np.zeros(2), {}, "labels must hold"),
        (np.zeros((2, 6)), np.ones(2), {"lam": np.zeros((2, 1))}, "lam must have a row"),
    ],
)
def test_poison_that_does_not_fit_is_refused(points, labels, more, message):
    with pytest.raises(ValueError, match=message):
        game_of().evaluate(points, labels, **more)


def test_settings_outside_their_range_are_refused():
    with pytest.raises(ValueError, match="exceed 20 epochs"):
        FinalTraining(20, checkpoints=3)
