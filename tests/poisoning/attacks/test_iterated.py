"""Algorithm 1: rounds played by hand, what is returned, and when rounds end."""

from dataclasses import dataclass, replace

import jaxtyping
import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.attacks.attacked import Attack, Attacked
from poisoning.attacks.influence import Influence
from poisoning.attacks.iterated import Iterated
from poisoning.attacks.kkt import KKT
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.errors import SolverError
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM

COUNTS = "counts"
INFLUENCE = Influence(
    epsilon=0.06, positive_shares=(0.5,), step_sizes=(1.0,), iterations=4, check_every=2,
    smoothing=0.01,
)  # fmt: skip
ROUNDS = {
    "KKT": KKT(0.06, quantiles=(0.3,), decoy_copies=(3,), opening=(0.3, 3), ratios=3),
    "influence": INFLUENCE,
}


@pytest.fixture(scope="module")
def game():
    rng = np.random.default_rng(0)
    y = np.where(rng.random(260) < 0.4, 1.0, -1.0)
    X = rng.poisson(np.exp(0.4 * np.outer(y, rng.normal(size=25)) - 0.5)).astype(float)
    X = sp.csr_array(X)
    return LinearGame(X[:200], y[:200], X[200:], y[200:], domain=COUNTS, learner=SVM(0.05))


def same(one, other):
    assert (one.poison.X != other.poison.X).nnz == 0
    assert np.array_equal(one.poison.y, other.poison.y)
    assert one.value == other.value
    assert one.errors == other.errors


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUNDS)
def test_iterating_is_attacking_again_within_the_new_limits(game, name):
    attack = ROUNDS[name]
    result = Iterated(attack, 3)(game, 7)
    first, second, third = np.random.default_rng(7).spawn(3)
    by_hand = [attack(game, first)]
    for stream in (second, third):
        moved, last = game.against(by_hand[-1].poison), by_hand[-1]
        again = name == "influence"
        by_hand.append(attack.resume(moved, stream, last) if again else attack(moved, stream))
    assert len(result.history) == 3
    for ours, theirs in zip(result.history, by_hand, strict=True):
        same(ours, theirs)
    assert (by_hand[1].poison.X != by_hand[0].poison.X).nnz > 0
    values = [one.value for one in by_hand]
    same(result, by_hand[values.index(max(values))])
    assert result.value == game.value(game.evaluate(result.poison.X, result.poison.y))
    assert result.seconds >= sum(one.seconds for one in result.history) * 0.99


def test_one_round_is_the_attack_itself(game):
    attack = ROUNDS["KKT"]
    (stream,) = np.random.default_rng(7).spawn(1)
    result = Iterated(attack, 1)(game, 7)
    same(result, attack(game, stream))
    assert len(result.history) == 1


@dataclass(frozen=True)
class Scripted:
    """An attack whose rounds are worth what stands in a list; "empty" is one without room."""

    script: tuple

    def __call__(self, game, rng):
        seen = 0 if game._modelled is None else int(game._modelled[0].sum())
        worth = self.script[seen]
        if worth == "empty":
            raise EmptySetError("no room")
        X = np.zeros((1, 1))
        X[0, 0] = seen + 1.0
        poison = PoisonedSet(X, np.ones(1), 2, 0.5, game.domain)
        return Attacked(poison, worth, {}, seen)


@pytest.fixture
def tiny():
    X, y = np.array([[9.0], [0.0]]), np.array([1.0, -1.0])
    return LinearGame(X, y, X, y, domain=COUNTS, learner=SVM(0.05))


def test_the_best_round_wins_and_of_equals_the_first(tiny):
    result = Iterated(Scripted((0.1, 0.3, 0.2, 0.3)), 4)(tiny, 0)
    assert (result.value, result.source) == (0.3, 1)
    assert [one.value for one in result.history] == [0.1, 0.3, 0.2, 0.3]


def test_rounds_end_where_no_room_is_left(tiny):
    result = Iterated(Scripted((0.1, 0.2, "empty", 0.9)), 4)(tiny, 0)
    assert [one.value for one in result.history] == [0.1, 0.2]
    with pytest.raises(SolverError, match="no room"):
        Iterated(Scripted(("empty",)), 4)(tiny, 0)


def test_same_seed_same_rounds_and_the_game_stays_as_it_was(game):
    attack = Iterated(replace(ROUNDS["KKT"], ratios=2), 2)
    before = vars(game).copy()
    same(attack(game, 3), attack(game, np.random.default_rng(3)))
    assert vars(game) == before


def test_settings_are_checked(monkeypatch):
    assert isinstance(Scripted(()), Attack)
    # As users have it: no type checker refuses a value before the library does.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for rounds in (0, 1001, 2.0, True):
        with pytest.raises(ValueError, match="Iterated: rounds must be a whole number"):
            Iterated(KKT(0.03), rounds)
    for attack in (KKT, 3, None, "kkt"):
        with pytest.raises(ValueError, match=r"Iterated: attack must be an attack such as KKT"):
            Iterated(attack)
