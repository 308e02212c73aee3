"""Label flips: what may be flipped, alfa's linear program and its fixed point."""

import os

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from poisoning.attacks.label_flips import (
    Alfa,
    RandomFlips,
    alfa,
    cheapest,
    flippable,
    random_flips,
)
from poisoning.datasets import fetch, load, prepare, split
from poisoning.defenses import FIVE
from poisoning.defenses.centroid import L2Defense
from poisoning.errors import SolverError
from poisoning.feasible.reference import violation
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM, LogisticRegression
from poisoning.models.svm import train_svm

COUNTS = "counts"
LAMBDA, EPSILON = 0.05, 0.06


def dataset(n=260, d=10, seed=0):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    X = sp.csr_array(rng.poisson(np.exp(0.3 * np.outer(y, rng.normal(size=d)))).astype(float))
    return X[:200], y[:200], X[200:], y[200:]


X, Y, X_POOL, Y_POOL = dataset()
DOMAIN = InputDomain.of(COUNTS, sp.vstack([X, X_POOL], format="csr"))
FEASIBLE = FeasibleSet.fit(X, Y, DOMAIN)
CLEAN = train_svm(X, Y, LAMBDA).model


def rows(matrix):
    return [tuple(row) for row in matrix.toarray()]


def run_alfa(**options):
    return alfa(X, Y, X_POOL, Y_POOL, LAMBDA, EPSILON, DOMAIN, clean=CLEAN, **options)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    cost=st.lists(st.floats(-5, 5), min_size=1, max_size=9),
    most=st.integers(1, 4),
    data=st.data(),
)
def test_the_linear_program_is_solved(cost, most, data):
    total = data.draw(st.integers(0, most * len(cost)))
    q = cheapest(np.array(cost), total, most)
    assert q.sum() == total and q.min() >= 0 and q.max() <= most
    reference = linprog(cost, A_eq=np.ones((1, len(cost))), b_eq=[total], bounds=(0, most))
    assert reference.status == 0
    assert cost @ q == pytest.approx(reference.fun, abs=1e-7)


def test_flippable_points_are_those_of_the_other_classs_set():
    legal = flippable(X, Y, FEASIBLE)
    assert 0 < legal.sum() < len(Y)
    for x, label, inside in zip(X.toarray(), Y, legal, strict=True):
        part = FEASIBLE.negative if label > 0.0 else FEASIBLE.positive
        assert (violation(x, part) <= 1e-8) == inside
    assert np.array_equal(flippable(X.toarray(), Y, FEASIBLE), legal)


@pytest.mark.parametrize("feasible", [None, FEASIBLE])
def test_random_flips_are_points_of_the_pool_with_the_other_label(feasible):
    first, second = (
        random_flips(
            X_POOL, Y_POOL, 200, EPSILON, DOMAIN, np.random.default_rng(3), feasible=feasible
        )
        for _ in range(2)
    )
    pool = set(zip(rows(X_POOL), -Y_POOL, strict=True))
    assert len(first.y) == 12
    assert set(zip(rows(first.X), first.y, strict=True)) <= pool
    assert rows(first.X) == rows(second.X)
    if feasible is not None:
        assert flippable(first.X, -first.y, feasible).all()


@pytest.mark.parametrize("copies", [1, 5, None])
@pytest.mark.parametrize("feasible", [None, FEASIBLE])
def test_alfa_ends_at_a_fixed_point(feasible, copies):
    poisoned = run_alfa(feasible=feasible, max_copies=copies)
    total = round(EPSILON * len(Y))
    assert len(poisoned.y) == total
    pool = np.arange(len(Y_POOL))
    if feasible is not None:
        pool = np.flatnonzero(flippable(X_POOL, Y_POOL, feasible))
    flipped_X, flipped_y = X_POOL[pool], -Y_POOL[pool]
    everything = sp.vstack([X, poisoned.X], format="csr")
    model = train_svm(everything, np.concatenate([Y, poisoned.y]), LAMBDA).model
    # No other choice of legal flips is fitted better, compared with the clean model, by θ̂.
    change = model.hinge(flipped_X, flipped_y) - CLEAN.hinge(flipped_X, flipped_y)
    achieved = model.hinge(poisoned.X, poisoned.y) - CLEAN.hinge(poisoned.X, poisoned.y)
    most = total if copies is None else copies
    best = linprog(change, A_eq=np.ones((1, len(pool))), b_eq=[total], bounds=(0, most))
    assert achieved.sum() == pytest.approx(best.fun, abs=1e-3)
    distinct = set(zip(rows(poisoned.X), poisoned.y, strict=True))
    assert distinct <= set(zip(rows(flipped_X), flipped_y, strict=True))
    if copies is None:
        assert len(distinct) == 1


def test_alfa_gains_more_than_blind_flips():
    poisoned = run_alfa(max_copies=1)
    rng = np.random.default_rng(0)
    blind = random_flips(X_POOL, Y_POOL, 200, EPSILON, DOMAIN, rng)

    def gain(attack):
        together = sp.vstack([X, attack.X], format="csr")
        model = train_svm(together, np.concatenate([Y, attack.y]), LAMBDA).model
        change = model.hinge(attack.X, attack.y) - CLEAN.hinge(attack.X, attack.y)
        return change.sum()

    assert gain(poisoned) < gain(blind)


def test_points_outside_the_domain_are_left_out():
    small = InputDomain.of(COUNTS, X[:20])
    legal = small.contains(X_POOL)
    assert 0 < legal.sum() < len(Y_POOL)
    poisoned = random_flips(X_POOL, Y_POOL, 200, EPSILON, small, np.random.default_rng(0))
    assert set(rows(poisoned.X)) <= set(rows(X_POOL[np.flatnonzero(legal)]))


def test_a_pool_too_small_is_an_error():
    narrow = FeasibleSet.fit(X, Y, DOMAIN, 1e-3, 1e-3)
    rng = np.random.default_rng(0)
    with pytest.raises(EmptySetError, match="once its label is turned"):
        random_flips(X_POOL, Y_POOL, 200, EPSILON, DOMAIN, rng, feasible=narrow)
    with pytest.raises(ValueError, match="fewer than the 12"):
        alfa(X, Y, X_POOL[:3], Y_POOL[:3], LAMBDA, EPSILON, DOMAIN, clean=CLEAN, max_copies=2)


def test_rounds_that_run_out_are_an_error():
    with pytest.raises(SolverError, match="raise max_rounds"):
        run_alfa(max_rounds=1)


def game(**options):
    return LinearGame(X, Y, X_POOL, Y_POOL, **{"domain": DOMAIN, "learner": SVM(LAMBDA)} | options)


@pytest.mark.parametrize("constrained", [True, False])
def test_the_attacks_flip_the_test_data(constrained):
    feasible = FEASIBLE if constrained else None
    flips = RandomFlips(EPSILON, constrained=constrained)(game(), 3)
    rng = np.random.default_rng(3)
    expected = random_flips(X_POOL, Y_POOL, 200, EPSILON, DOMAIN, rng, feasible=feasible)
    chosen = Alfa(EPSILON, constrained=constrained, max_copies=2)(game(), 0)
    wanted = run_alfa(feasible=feasible, max_copies=2)
    for result, poison in ((flips, expected), (chosen, wanted)):
        assert rows(result.poison.X) == rows(poison.X)
        assert np.array_equal(result.poison.y, poison.y)
        outcomes = game().evaluate(poison.X, poison.y)
        assert result.value == game().value(outcomes)
        assert result.errors == {name: one.test_error for name, one in outcomes.items()}
        assert len(result.history) == 1


def test_random_flips_need_no_model_of_the_learner():
    other = game(learner=LogisticRegression(LAMBDA), defenses=FIVE[:2])
    assert set(RandomFlips(EPSILON)(other, 0).outcomes) == {"none", "l2", "slab"}


def test_an_epsilon_of_no_whole_flip_is_refused():
    for attack in (RandomFlips(0.001), Alfa(0.001)):
        with pytest.raises(ValueError, match="not a single one"):
            attack(game(), 0)


@pytest.mark.real
@pytest.mark.skipif("DATA_MIRROR" not in os.environ, reason="needs the real mails")
def test_label_flips_do_little_to_real_mail(tmp_path):
    """Appendix D, Figure 13: about two points at ε = 3 % against the L2 defense."""
    fetch("enron", tmp_path)
    prepare("enron", "real", tmp_path)
    part = split(load(tmp_path / "real" / "enron"), np.random.default_rng(0))
    mail = LinearGame(
        part.X, part.y, part.X_test, part.y_test, domain=COUNTS, learner=SVM(0.09),
        defenses=[L2Defense()],
    )  # fmt: skip
    clean = mail.clean_svm.model.error(part.X_test, part.y_test)
    error = Alfa(0.03, slab_percentile=100.0)(mail, 0).errors["l2"]
    assert clean + 0.005 < error < clean + 0.04
