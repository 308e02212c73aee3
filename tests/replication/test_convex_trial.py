"""Groups of trials of poisoned SGD."""

import numpy as np
import pytest

from poisoning.attacks.oracle import RepelOracle, ShiftOracle
from poisoning.games.stream import StreamGame
from poisoning.models.oracle_sgd import ConvexProblem, GaussianLogistic
from replication.convex_trial import (
    AbsoluteLoss,
    clean_label_trials,
    hardest,
    oracle_trials,
    pair_trials,
)

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


ABSOLUTE = AbsoluteLoss(np.array([0.6, -0.8, 0.0]), 1.0)


def test_the_risk_of_the_absolute_loss_is_a_distance():
    assert isinstance(ABSOLUTE, ConvexProblem)
    X = ABSOLUTE.draw((1, 400_000), np.random.default_rng(0))[0][0]
    w = np.array([1.0, 0.5, -0.3])
    losses = np.abs(X @ (w - ABSOLUTE.minimiser))
    assert ABSOLUTE.excess_risk(w[None])[0] == pytest.approx(losses.mean(), abs=5e-3)
    assert np.sqrt((X**2).sum(axis=1).mean()) == pytest.approx(ABSOLUTE.gradient_norm, rel=0.01)


def test_subgradients_are_those_of_the_absolute_loss():
    X, y = (part[0] for part in ABSOLUTE.draw((1, 50), np.random.default_rng(1)))
    W = np.random.default_rng(2).normal(size=(50, 3))

    def losses(W):
        return np.abs(np.einsum("td,td->t", W - ABSOLUTE.minimiser, X))

    differences = [(losses(W + h) - losses(W - h)) / 2e-6 for h in 1e-6 * np.eye(3)]
    np.testing.assert_allclose(ABSOLUTE.gradients(W, X, y).T, differences, atol=1e-6)


def test_a_minimiser_outside_the_ball_is_refused():
    with pytest.raises(ValueError, match=r"ball of radius 0\.5"):
        AbsoluteLoss(np.array([0.6, 0.8]), 0.5)


@pytest.mark.parametrize("problem", [lambda n: ABSOLUTE, lambda n: hardest(n, 0.0)])
def test_without_curvature_the_excess_risk_falls_like_the_bound(problem):
    found = [
        oracle_trials(problem(n), n, ShiftOracle(0.0), 200, np.random.default_rng(3))
        for n in (256, 4096)
    ]
    assert found[1][0] / found[0][0] == pytest.approx(0.25, rel=0.2)
    assert all(0.1 * bound < excess < bound for excess, bound in found)


def test_poison_hides_what_it_pays_for():
    n, total = 400, 40.0
    clean, _ = oracle_trials(hardest(n, 0.0), n, ShiftOracle(0.0), 300, np.random.default_rng(4))
    hidden, _ = oracle_trials(
        hardest(n, total), n, ShiftOracle(total), 300, np.random.default_rng(4)
    )
    assert hidden / clean == pytest.approx(1.0 + total / np.sqrt(n), rel=0.05)
