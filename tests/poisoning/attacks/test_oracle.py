"""Attacks on a first-order oracle: budgets, directions, and what they do to a game."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.attacks.oracle import CleanLabelOracle, RepelOracle, ShiftOracle, spread_budget
from poisoning.games.stream import StreamGame
from poisoning.models.oracle_sgd import GaussianLogistic, OracleCall

LOGISTIC = GaussianLogistic(np.array([1.0, 0.0, -0.5, 0.2]), 2.0)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(1, 200), st.floats(0.0, 1.0), st.floats(0.5, 3.0))
def test_a_budget_is_spent_to_the_last(n, share, per_step):
    total = share * n * per_step
    even = spread_budget(n, total)
    few = spread_budget(n, total, per_step)
    assert even.sum() == pytest.approx(total)
    assert few.sum() == pytest.approx(total)
    assert np.ptp(even) == 0.0
    assert np.all((few >= 0.0) & (few <= per_step * (1.0 + 1e-9)))
    assert np.count_nonzero(few) <= np.ceil(share * n)


def test_a_budget_that_cannot_be_spent_is_refused():
    assert np.allclose(spread_budget(10, 0.3, 0.1)[[0, 3, 6]], 0.1)
    with pytest.raises(ValueError, match="raise per_step"):
        spread_budget(3, 1.0, 0.3)
    with pytest.raises(ValueError, match="total must be a length from 0"):
        ShiftOracle(-1.0)
    with pytest.raises(ValueError, match="per_step must be"):
        ShiftOracle(1.0, 0.0)
    with pytest.raises(ValueError, match="raise per_step"):
        ShiftOracle(10.0, 1.0)(StreamGame(LOGISTIC, 5), 0)


def test_oracle_attacks_point_where_they_say():
    problem = GaussianLogistic(np.array([0.6, 0.8]), 2.0)
    X, y = (part[0] for part in problem.draw((1, 3), np.random.default_rng(0)))
    W = np.array([[0.0, 0.0], [0.6, 0.8], [2.0, 0.0]])
    call = OracleCall(1, problem, W, X, y, problem.gradients(W, X, y))
    norms = np.array([9.0, 0.5, 9.0])
    assert np.allclose(ShiftOracle().poison(norms)(call), [[0.3, 0.4]] * 3)
    away = RepelOracle().poison(norms)(call)
    assert np.allclose(away[0], [0.3, 0.4])
    assert np.array_equal(away[1], [0.0, 0.0])  # at w* there is no way that is away
    assert np.linalg.norm(away[2]) == pytest.approx(0.5)
    moved = problem.gradients(W, X - 0.5 * y[:, None] * problem.minimiser, y)
    assert np.allclose(CleanLabelOracle().poison(norms)(call), moved - call.gradients)


@pytest.mark.parametrize("attack", [ShiftOracle(30.0), RepelOracle(30.0), ShiftOracle(30.0, 1.0)])
def test_an_attack_plays_the_game(attack):
    game = StreamGame(LOGISTIC, 100, trials=20)
    found = attack(game, 3)
    run = found.outcomes["none"]
    assert found.value == run.excess_risk.mean() > 2.0 * game.value(game.evaluate(rng=3))
    assert np.array_equal(game.evaluate(found.poison, 3).average, run.average)
    np.testing.assert_allclose(run.poison_norms, np.tile(attack.norms(100)[:, None], 20))


def test_a_clean_label_attack_is_an_oracle_attack_of_lesser_or_like_size():
    game = StreamGame(LOGISTIC, 500, 0.05, 50)
    found = CleanLabelOracle(100.0)(game, 0)
    # |∂ĝ/∂x| ≤ σ + |x + δ||w| σ'; on average near 1/2 here.
    assert 0.05 < found.outcomes["none"].poison_norms.mean() / 0.2 < 1.0
    assert found.value > 1.2 * game.value(game.evaluate())
