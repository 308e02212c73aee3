"""An attack on a game that it does not play is refused in one sentence, before any compute."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.svm import LinearSVC

import poisoning as po

RNG = np.random.default_rng(0)
Y = np.where(RNG.random(80) < 0.5, 1.0, -1.0)
X = RNG.normal(Y[:, None], 2.0, (80, 3))
PARTS = X[:50], Y[:50], X[50:], Y[50:]


def linear(**more):
    return po.LinearGame(*PARTS, **({"domain": "real", "learner": po.SVM(0.1)} | more))


def three_classes():
    y = np.arange(80) % 3
    return po.LinearGame(
        X[:50], y[:50], X[50:], y[50:], domain="real", learner=po.CrammerSingerSVM(),
        defenses=(po.L2Defense(),),
    )  # fmt: skip


def several_tasks():
    tasks = [(X[:20], X[:20, 0]), (X[20:40], X[20:40, 1])]
    return po.MultiTaskGame(tasks, tasks, targets=[0], attacking=[1], loss="square")


pytestmark = pytest.mark.usefixtures("unchecked")

LINEAR = (
    po.RandomFlips(), po.Alfa(), po.Influence(), po.KKT(), po.MinMax(), po.Iterated(po.KKT()),
    po.Adaptive(po.KKT()),
)  # fmt: skip


@pytest.mark.parametrize("attack", LINEAR, ids=lambda attack: type(attack).__name__)
def test_a_linear_attack_names_the_game_that_it_plays(attack):
    for game in (several_tasks(), None):
        with pytest.raises(TypeError, match=rf"{type(attack).__name__} plays a LinearGame, not a "):
            attack(game, 0)


@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        (po.PATOM(), "MultiTaskGame"),
        (po.MinimaxBilevel(), "BilevelGame"),
        (po.ShiftOracle(), "StreamGame"),
    ],
)
def test_other_attacks_name_theirs(attack, kind):
    with pytest.raises(TypeError, match=f"{type(attack).__name__} plays a {kind}, not a Linear"):
        attack(linear(), 0)
    with pytest.raises(TypeError, match="Iterated plays a LinearGame"):
        po.Iterated(attack)(several_tasks(), 0)


@pytest.mark.parametrize("attack", [po.RandomFlips(), po.Alfa(), po.Influence(), po.KKT()])
def test_attacks_on_two_classes_refuse_more(attack):
    with pytest.raises(TypeError, match=type(attack).__name__):
        attack(three_classes(), 0)


@pytest.mark.parametrize("attack", [po.Alfa(), po.Influence(), po.KKT(), po.MinMax()])
def test_attacks_that_model_an_svm_refuse_another_learner(attack):
    for learner in (po.LogisticRegression(0.1), LinearSVC()):
        told = rf"the game's learner must be SVM .* not {type(learner).__name__}\("
        with pytest.raises(TypeError, match=told):
            attack(linear(learner=learner), 0)


@pytest.mark.parametrize("rng", [None, True, 0.5, "a", np.random.RandomState(0)])
@pytest.mark.parametrize("attack", LINEAR[:5], ids=lambda attack: type(attack).__name__)
def test_a_random_state_that_nothing_could_repeat_is_refused(attack, rng):
    with pytest.raises(TypeError, match="rng must be a seed or a numpy"):
        attack(linear(), rng)


def test_measured_needs_a_linear_game():
    with pytest.raises(TypeError, match="game must be a LinearGame, not a MultiTaskGame"):
        po.measured(several_tasks(), X[:2], Y[:2])


def test_points_that_are_all_equal_leave_no_room():
    same = np.where(Y[:50, None] > 0, 1.0, -1.0) * np.ones((1, 3))
    game = po.LinearGame(
        same, Y[:50], X[50:], Y[50:], domain="real", learner=po.SVM(0.1)
    )  # fmt: skip
    with pytest.raises(ValueError, match="leaves an attacker no room"):
        po.KKT(0.1)(game, 0)


@pytest.mark.parametrize(
    "door",
    [
        lambda game: next(po.Iterated(po.KKT()).play(game, 0)),
        lambda game: po.Adaptive(po.KKT()).pool(game, 0),
        lambda game: po.Adaptive(po.KKT()).search(game, None, 0),
        lambda game: po.Influence().resume(game, 0, None),
        lambda game: po.MinimaxBilevel().play(game, 0),
    ],
)
def test_the_other_doors_of_attacks_name_theirs_too(door):
    for game in (several_tasks(), 5):
        with pytest.raises(TypeError, match=r"plays a \w+Game, not a "):
            door(game)


def nothing(game, rng):
    """Who forgot to return."""


def without_poison(game, rng):
    return po.Attacked(None, 0.5, {})


def of_no_value(game, rng):
    return replace(po.measured(game, X[:1], Y[:1]), value=float("nan"))


@pytest.mark.parametrize(
    "door",
    [
        lambda attack: po.Iterated(attack, 2)(linear(), 0),
        lambda attack: po.Adaptive(attack)(linear(), 0),
        lambda attack: po.assess_defense(linear(), po.KNNDefense(), [attack]),
        lambda attack: po.certify_test_error(linear(), 1, attacks=[attack]),
    ],
)
@pytest.mark.parametrize(
    ("attack", "error", "told"),
    [
        (nothing, TypeError, "attack .*nothing.* must return an Attacked, not None"),
        (without_poison, TypeError, "attack .* must return a PoisonedSet as poison, not None"),
        (of_no_value, ValueError, "attack .* must return a finite number as value, not nan"),
    ],
)
def test_an_attack_of_ones_own_returns_what_an_attack_must(door, attack, error, told):
    with pytest.raises(error, match=told):
        door(attack)
