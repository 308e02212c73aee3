"""The game of a poisoned oracle: what it refuses, and what the theorem says about it."""

import numpy as np
import pytest

from poisoning.attacks.oracle import CleanLabelOracle, RepelOracle, ShiftOracle
from poisoning.games.stream import StreamGame
from poisoning.models.oracle_sgd import GaussianLogistic, LinearPair, risk_lower_bound

LOGISTIC = GaussianLogistic(np.array([1.0, 0.0, -0.5, 0.2]), 2.0)


def test_without_poison_the_bound_is_radius_times_noise_over_root_n():
    game = StreamGame(LOGISTIC, 100)
    assert game.eta == pytest.approx(2.0 / (2.0 * 10.0))
    assert game.upper_bound(np.zeros(100)) == pytest.approx(2.0 * 2.0 / 10.0)


@pytest.mark.parametrize("attack", [ShiftOracle, RepelOracle, CleanLabelOracle])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("problem", [LOGISTIC, LinearPair(0.3, 1.0)])
def test_mean_excess_stays_below_the_upper_bound(attack, share, problem):
    game = StreamGame(problem, 400)
    found = attack(share * 400)(game, 0)
    spent = found.outcomes["none"].poison_norms.mean(axis=1)
    assert found.value <= game.upper_bound(spent)


@pytest.mark.parametrize("n", [64, 512])
@pytest.mark.parametrize("epsilon", [0.3, 0.05])
def test_the_pair_cannot_be_told_apart_so_the_lower_bound_is_met(n, epsilon):
    found = [
        ShiftOracle(n * epsilon)(StreamGame(LinearPair(epsilon, sign), n, n**-0.5, 200), 7)
        for sign in (-1.0, 1.0)
    ]
    runs = [one.outcomes["none"] for one in found]
    # The same noise: what the two learners see differs by rounding only.
    assert np.allclose(runs[0].average, runs[1].average)
    lower = risk_lower_bound(1.0, float(runs[1].poison_norms[:, 0].sum()), n)
    assert lower == pytest.approx(epsilon)
    assert 1.0 <= max(one.value for one in found) / lower <= 1.1


@pytest.mark.slow
def test_root_n_in_all_does_no_harm_and_a_share_of_n_leaves_a_floor():
    excess = {}
    for n in (128, 1024):
        for name, total in {"clean": 0.0, "root": n**0.5, "share": 0.3 * n}.items():
            excess[name, n] = ShiftOracle(total)(StreamGame(LOGISTIC, n, trials=60), n).value
    assert excess["root", 1024] < 0.4 * excess["root", 128]
    assert excess["root", 1024] < 5.0 * excess["clean", 1024]
    assert excess["share", 1024] > 0.7 * excess["share", 128]
    assert excess["share", 1024] > 20.0 * excess["clean", 1024]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"problem": None}, TypeError, "ConvexProblem"),
        ({"n": 0}, ValueError, "n must be a whole number of at least 1"),
        ({"trials": 0}, ValueError, "trials must be"),
        ({"step": 0.0}, ValueError, "step must be a finite number above 0"),
    ],
)
def test_a_game_that_makes_no_sense_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        StreamGame(**({"problem": LOGISTIC, "n": 10} | change))
