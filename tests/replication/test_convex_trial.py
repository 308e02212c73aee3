"""Groups of trials of poisoned SGD."""

import numpy as np
import pytest

from poisoning.attacks.oracle import RepelOracle, ShiftOracle
from poisoning.games.stream import StreamGame
from poisoning.models.oracle_sgd import GaussianLogistic
from replication.convex_trial import clean_label_trials, oracle_trials, pair_trials

LOGISTIC = GaussianLogistic(np.array([0.6, 0.8]), 2.0)


@pytest.mark.parametrize("attack", [ShiftOracle(20.0), RepelOracle(20.0)])
def test_a_group_of_trials_is_a_game(attack):
    excess, bound = oracle_trials(LOGISTIC, 100, attack, 30, np.random.default_rng(1))
    game = StreamGame(LOGISTIC, 100, trials=30)
    assert excess == attack(game, 1).value
    assert 0.0 < excess < bound == game.upper_bound(np.full(100, 0.2))


def test_the_worse_of_a_pair_meets_the_lower_bound():
    excess, bound = pair_trials(200, 40.0, 100, 5)
    assert sum(excess) == pytest.approx(2 * 0.2)  # ε(1 − w̄) and ε(1 + w̄): the learner is one
    assert 0.2 <= max(excess) <= bound


def test_few_long_perturbations_reach_the_oracle_as_poison_of_like_size():
    found = clean_label_trials(LOGISTIC, 200, 30.0, 1.0, 40, np.random.default_rng(0))
    even = clean_label_trials(LOGISTIC, 200, 30.0, None, 40, np.random.default_rng(0))
    for group in (found, even):
        assert np.all(np.diff(group.ratio) > 0.0)
        assert 0.1 < group.spent / 30.0 < 1.5
        assert group.excess_risk > 0.0
    assert even.spent == pytest.approx(30.0 * even.ratio[1], rel=0.3)
