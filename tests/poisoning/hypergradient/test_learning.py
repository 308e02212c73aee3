"""Learning λ by its hypergradient: paths, boxes, ties, rules, starts; an attacker in the loop."""

from dataclasses import replace

import pytest
import torch

from poisoning.hypergradient.learning import (
    Exponents,
    HyperparameterLearning,
    LamRange,
    Starts,
    learn,
)
from poisoning.hypergradient.mlp import MLP

LEARNING = HyperparameterLearning(steps=12, rate=0.3, hyperiterations=5, lam_step=0.5)
ALL = torch.arange(3)


def exponents_of(problem, low=-8.0, high=1.5, learned=(True, True, False), tied=True):
    column = problem.lam.new_ones(3, 1)
    return Exponents(
        problem.lam, low * column, high * column, torch.tensor(learned), torch.tensor([tied] * 3)
    )


def starts_of(problem, method="rmd"):
    return Starts(problem.model, 3, method, torch.Generator().manual_seed(0), problem.poison)


def test_only_learned_exponents_move_and_their_loss_falls(problem_of):
    problem = problem_of("logistic", penalty="l2")
    found = learn(LEARNING, problem, ALL, exponents_of(problem), starts_of(problem))
    assert torch.equal(found.lam_path[:, 0], problem.lam)
    assert torch.equal(found.lam_path[2], problem.lam[2].expand(6, 1))
    steps = found.lam_path[:2].diff(dim=1).abs()
    lengths = 0.5 * (1.0 - torch.arange(5.0).double() / 5.0)
    assert torch.allclose(steps[..., 0], lengths.expand(2, 5))
    assert bool((found.validation[:2, -1] < found.validation[:2, 0]).all())
    assert not torch.equal(found.target, found.validation)  # the attacker's objective is another


def test_exponents_stay_in_their_box(problem_of):
    problem = problem_of("logistic")
    exponents = exponents_of(problem, low=-3.4, high=-2.6)
    problem = replace(problem, lam=torch.full_like(problem.lam, -3.0))
    found = learn(replace(LEARNING, lam_step=5.0), problem, ALL, exponents, starts_of(problem))
    assert bool(((found.lam_path >= -3.4) & (found.lam_path <= -2.6)).all())
    assert bool((found.at_bound[:2] > 0.5).all())
    assert float(found.at_bound[2]) == 0.0


@pytest.mark.parametrize("tied", [True, False])
def test_tied_exponents_move_together(problem_of, tied):
    problem = problem_of("mlp", exponents=3)
    problem = replace(problem, lam=torch.full_like(problem.lam, -3.0))
    found = learn(LEARNING, problem, ALL, exponents_of(problem, tied=tied), starts_of(problem))
    last = found.lam_path[:2, -1]
    assert bool((last == last[:, :1]).all()) == tied


def test_adaptive_steps_grow_while_the_sign_stays(problem_of):
    problem = problem_of("logistic", penalty="l2")
    learning = replace(LEARNING, rule="adaptive", lam_step=0.1)
    found = learn(learning, problem, ALL, exponents_of(problem), starts_of(problem))
    steps = found.lam_path[0, :, 0].diff()
    assert bool((steps.sign() == steps[0].sign()).all())
    assert torch.allclose(steps.abs(), 0.1 * 1.25 ** torch.arange(5.0).double())


def test_an_attacker_moves_before_the_exponent_does(problem_of):
    problem = problem_of("logistic")
    seen = []

    def move(found, h):
        seen.append(h)
        problem.poison[:, problem.frozen :] += 0.1 * found.poison[-1].sign()

    before = problem.poison.clone()
    learn(LEARNING, problem, ALL, exponents_of(problem), starts_of(problem), move)
    assert seen == [0, 1, 2, 3, 4]
    assert torch.equal(problem.poison[:, : problem.frozen], before[:, : problem.frozen])
    assert not torch.equal(problem.poison, before)


def test_networks_start_anew_and_the_implicit_method_goes_on(problem_of):
    problem = problem_of("logistic")
    network = Starts(MLP((2,)), 3, "rmd", torch.Generator().manual_seed(0), problem.poison)
    one, other = network.draw(ALL, 7), network.draw(ALL, 7)
    assert torch.equal(one[0], one[2]) and not torch.equal(one, other)
    assert not starts_of(problem).draw(ALL, 7).any()
    starts = starts_of(problem, "implicit")
    starts.draw(ALL, 7)
    minimum = torch.rand(2, 8, dtype=torch.float64)
    starts.ended(ALL[1:], minimum)
    assert torch.equal(starts.draw(ALL[1:], 7), minimum)


def test_ranges_and_settings_are_checked():
    with pytest.raises(ValueError, match="start must lie between"):
        LamRange(2.0, -8.0, 1.0)
    with pytest.raises(ValueError, match="hyperiterations must be"):
        replace(LEARNING, hyperiterations=0)
