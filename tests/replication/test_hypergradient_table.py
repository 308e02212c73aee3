"""The problem of Table II, and the attacks on it."""

import numpy as np
import pytest
import torch

from poisoning.games.bilevel import FinalTraining, Policy
from poisoning.hypergradient.fmd import fmd
from poisoning.hypergradient.rmd import rmd
from replication.hypergradient_table import attack_game, measured, relative_error, table_problem
from replication.hyperparameter_trial import Pool


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(200) % 2 == 0, -1.0, 1.0)
    X = rng.integers(0, 256, (200, 12)).astype(np.uint8)
    return Pool(X, y)


def test_poison_takes_the_place_of_the_first_rows(pool):
    problem = table_problem(pool, 100, 20, -4.0, 0.1, np.random.default_rng(1), d=5, K=2)
    assert problem.poison.shape == (2, 7, 5)
    assert problem.weights.sum(dim=1).tolist() == [93.0, 93.0]
    assert not problem.weights[:, :7].any()
    validation = problem.objectives[0]
    assert torch.equal(problem.poison[0], validation.X[:7])
    assert torch.equal(problem.poison_y[1], -validation.y[:7])
    longer = table_problem(pool, 100, 30, -4.0, 0.1, np.random.default_rng(1), d=5)
    assert torch.equal(longer.clean.X, problem.clean.X)


def test_an_error_is_relative_and_nan_where_a_method_has_no_answer(pool):
    problem = table_problem(pool, 100, 20, -4.0, 0.1, np.random.default_rng(1))
    (found, seconds), reference = measured(lambda: fmd(problem)), rmd(problem)
    assert seconds > 0.0
    assert relative_error(found, reference, "lam") < 1e-10
    assert np.isnan(relative_error(found, reference, "poison"))
    assert relative_error(reference, reference, "poison") == 0.0


def test_a_class_may_be_the_target(pool):
    options = {"weak": Policy(fixed=-4.0)}, FinalTraining(50, 0.1)
    for label in (None, 1.0):
        game = attack_game(pool, 100, 40, *options, np.random.default_rng(2), aimed_at=label)
        assert game.n == 100 and len(game.validation.y) == 10 and len(game.test.y) == 40
        assert game.clean.X.dtype == torch.uint8
        assert (game.target is None) == (label is None)
    assert game.target.y.tolist() == [1.0] * 5
