"""The benchmark's peers answer our question, and its records follow from what was measured."""

import pytest

from bench import (
    hypergradient,
    hypergradient_networks,
    hypergradient_peers,
    network_peers,
)
from poisoning.hypergradient.rmd import largest_stable_step, rmd


@pytest.fixture(scope="module")
def problem():
    return hypergradient.make_problem(n=60, d=40, m=6, steps=8)


@pytest.mark.parametrize("peer", ["naive_unroll", *hypergradient_peers.honest()])
def test_peers_agree(problem, peer):
    known = {"naive_unroll": hypergradient_peers.naive_unroll, **hypergradient_peers.honest()}
    answer = known[peer](hypergradient_peers.Task.of(problem))
    assert hypergradient.distance(answer, rmd(problem)) < 1e-5


@pytest.mark.skipif("optax scan and jit" not in hypergradient_peers.honest(), reason="no optax")
def test_peers_agree_on_many_problems():
    problem = hypergradient.make_problem(3, n=60, d=40, m=6, steps=8)
    assert hypergradient.distance(hypergradient_peers.optax_together(problem), rmd(problem)) < 1e-5


@pytest.mark.parametrize("peer", network_peers.installed())
def test_network_peers_agree(peer):
    problem = hypergradient_networks.network_problem((5, 3), n=60, d=40, m=6, steps=8)
    answer = network_peers.installed()[peer](problem)
    assert hypergradient.distance(answer, rmd(problem)) < 1e-5


def test_networks_operations_are_those_of_matrix_products():
    problem = hypergradient_networks.network_problem((5,), K=2, n=60, d=40, m=6, steps=8)
    assert hypergradient_networks.flop(problem) == 2 * 8 * 4 * 2 * 60 * (40 * 5 + 5)


def test_generated_problems_leave_no_pixel_black_and_step_stably(problem):
    assert bool((problem.clean.X != 0).any(dim=0).all())
    assert float(problem.eta[0]) == pytest.approx(0.5 * float(largest_stable_step(problem)))
    assert hypergradient.make_problem(3, n=60, d=40, m=6).poison.shape == (3, 6, 40)


def test_exponents_are_slopes():
    rows = [
        {"method": "a", "along": "T", "size": T, "seconds": 3.0 * T**1.5, "kept_bytes": 8 * T}
        for T in (1, 2, 4)
    ]
    assert hypergradient.Growth.exponent(rows, "a", "T", "seconds") == pytest.approx(1.5)
    assert hypergradient.Growth.exponent(rows, "a", "T", "kept_bytes") == pytest.approx(1.0)
