import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

import poisoning as po
from poisoning.attacks.adaptive import Adaptive
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.datasets import Dataset
from replication.crossing import (
    CLEANING,
    LEARNING,
    Defenders,
    apart,
    certified,
    in_turn,
    meet_all,
    meet_knowing,
    trusting,
    voted,
)
from replication.koh2021 import game_on_split
from replication.rmd_attack import RMD


def _dataset(counts=False, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.uniform(size=(120, 6))
    y = np.where(X[:, 0] + 0.1 * rng.normal(size=120) > 0.5, 1.0, -1.0)
    if counts:
        X = np.floor(5.0 * X)
    return Dataset("small", "made up", "counts" if counts else "box01", X, y)


def _rng():
    return np.random.default_rng(1)


def _defenders(**changes):
    more = (IsolationForest(n_estimators=5, random_state=0),)
    return Defenders(0.05, 0.1, 8, (0.01, 0.1), (0.0, 0.1), 3, more, **changes)


def test_every_defender_meets_the_same_poison_on_the_same_test_points():
    games = _defenders().games(_dataset(), _rng(), _rng())
    assert set(games) == {"none", *CLEANING, *LEARNING, "isolation-forest"}
    tests = {game.X_test.tobytes() for game in games.values()}
    assert len(tests) == 1
    assert len(games["none"].y_test) == 24 - 8
    poison = PoisonedSet(np.ones((4, 6)), -np.ones(4), 96, 4 / 96, games["none"].domain)
    every = meet_all(_dataset(), _rng(), _rng(), _defenders(), {"no-attack": None, "flip": poison})
    met = every["flip"]
    assert met["oracle"].poison_removed == 1.0
    assert met["oracle"].test_error == every["no-attack"]["none"].test_error
    assert met["repeats"].poison_removed == 0.75


def test_smaller_trusted_sets_lie_within_larger_ones_and_apart_from_the_rest():
    game = game_on_split(_dataset(), _rng(), 0.05)
    order = in_turn(game.y_test, _rng())
    few, many = (apart(game, order, size, 10) for size in (4, 10))
    rows = {row.tobytes() for row in many[0]}
    assert {row.tobytes() for row in few[0]} < rows
    assert rows.isdisjoint(row.tobytes() for row in few[2].X_test)
    np.testing.assert_array_equal(few[2].X_test, many[2].X_test)
    assert len(few[2].y_test) == len(game.y_test) - 10
    assert few[1].sum() == many[1].sum() == 0.0  # as many of either class


def test_trusting_defenders_choose_among_what_they_are_given():
    poison = RMD(0.05, hyperiterations=2, steps=10)(game_on_split(_dataset(), _rng(), 0.05), 0)
    found = trusting(_dataset(), _rng(), _rng(), _defenders(), [4, 8], poison.poison)
    names = {("none", 0)} | {
        (n, t) for n in ("roni", "learned-lambda", "learned-p") for t in (4, 8)
    }
    assert set(found) == names


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_rmd_finds_poison_of_the_domain_that_harms_more_than_where_it_began(counts, learned):
    data = _dataset(counts)
    game = po.LinearGame(
        data.X[:90], data.y[:90], data.X[90:], data.y[90:], domain=data.domain,
        learner=po.SVM(0.05), defenses=(),
    )  # fmt: skip
    attack = RMD(0.2, learned=learned, hyperiterations=15, steps=60)
    found = attack(game, 0)
    poison = found.poison
    assert game.domain.contains(poison.X).all()
    assert len(poison.y) == 18
    if counts:
        np.testing.assert_array_equal(poison.X, np.rint(poison.X))
    start = RMD(0.2, learned=learned, hyperiterations=1, steps=60)(game, 0)
    assert found.value >= start.value
    np.testing.assert_array_equal(attack(game, 0).poison.X, poison.X)


def test_rmd_plays_an_svm_of_two_classes():
    data = _dataset()
    game = po.LinearGame(
        data.X, data.y, data.X, data.y, domain="box01", learner=po.LogisticRegression(), defenses=()
    )
    with pytest.raises(TypeError, match="must be SVM"):
        RMD()(game, 0)


def test_who_knows_the_defender_meets_all_but_the_filters_that_no_one_can_know():
    attack = Adaptive(po.KKT(0.05, quantiles=(0.3,), decoy_copies=(2,)), (80.0,), tries=2)
    found = meet_knowing(_dataset(), _rng(), _rng(), _defenders(), attack, np.random.default_rng(0))
    assert set(found) == {"none", *CLEANING, *LEARNING, "isolation-forest"} - {"random", "oracle"}
    assert found["none"].poison_removed == found["none"].clean_removed == 0.0
    assert found["repeats"].poison_removed == 0.0  # its rows have been moved apart


def test_no_attack_is_above_a_certificate():
    attack = po.KKT(2 / 96, quantiles=(0.3,), decoy_copies=(2,), copies=1)
    table = certified(_dataset(), _rng(), [0.1, 1.0], 2, attack, np.random.default_rng(0))
    assert (table["attacked"] <= table["bound"]).all()
    assert (table["clean"] <= table["attacked"]).all()
    np.testing.assert_array_equal(table["lam"], [0.1, 1.0])
    game = game_on_split(_dataset(), _rng(), 0.1)
    poison = attack(game, 0).poison
    votes = voted(_dataset(), _rng(), 0.1, [3, 9], {2: poison})
    assert votes["parts"] == [3, 9]
    assert votes["points"] == [2, 2]
    assert all(a <= b for a, b in zip(votes["attacked"], votes["bound"], strict=True))
