"""The certificate: no attack in the set exceeds it, and one almost reaches it."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.arrays import vstack
from poisoning.attacks.min_max import MinMax, min_max_poison
from poisoning.certificates.loss import certify_loss
from poisoning.errors import SolverError
from poisoning.feasible.reference import violation
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import EmptySetError, project
from poisoning.models.svm import train_svm

COUNTS = "counts"
LAMBDA, EPSILON, N = 0.05, 0.06, 150


def dataset(kind, seed=0, d=12):
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(N) % 3 == 0, 1.0, -1.0)
    if kind == COUNTS:
        X = rng.poisson(np.exp(0.4 * np.outer(y, rng.normal(size=d)) - 0.5)).astype(float)
        return sp.csr_array(X), y
    return 1.0 / (1.0 + np.exp(-rng.normal(size=(N, d)) - 0.5 * np.outer(y, rng.normal(size=d)))), y


def game(kind):
    X, y = dataset(kind)
    domain = InputDomain.of(kind, X)
    feasible = FeasibleSet.fit(X, y, domain)
    return X, y, domain, feasible


def damage(X, y, X_poison, y_poison, weights):
    """(1 + ε)·(training objective) of a defender with this poison, and its mean clean hinge."""
    solution = train_svm(
        vstack([X, X_poison]), np.append(y, y_poison), LAMBDA,
        weights=np.append(np.ones(N), N * weights),
    )  # fmt: skip
    return (1.0 + weights.sum()) * solution.objective, solution.model.hinge(X, y).mean()


@pytest.fixture(scope="module", params=[COUNTS, "box01"])
def certified(request):
    X, y, domain, feasible = game(request.param)
    return X, y, domain, feasible, certify_loss(X, y, LAMBDA, EPSILON, feasible)


def test_the_two_sides_meet(certified):
    X, y, _, feasible, certificate = certified
    assert 0.0 <= certificate.gap <= 0.02
    assert certificate.weights.sum() == pytest.approx(EPSILON)
    reached, _ = damage(X, y, certificate.X, certificate.y, certificate.weights)
    assert certificate.attained <= reached + 1e-9 <= certificate.bound + 2e-9
    rows = certificate.X.toarray() if sp.issparse(certificate.X) else certificate.X
    for x, label in zip(rows, certificate.y, strict=True):
        part = feasible.positive if label > 0.0 else feasible.negative
        assert violation(x, part) < 1e-7


@pytest.mark.slow
def test_no_random_feasible_poison_exceeds_the_bound(certified):
    X, y, _, feasible, certificate = certified

    @given(st.integers(0, 2**32 - 1))
    @settings(max_examples=15, deadline=None, derandomize=True)
    def check(seed):
        rng = np.random.default_rng(seed)
        labels = rng.choice([1.0, -1.0], size=6)
        parts = [feasible.positive if label > 0.0 else feasible.negative for label in labels]
        points = [
            project(part.centre + 3.0 * rng.normal(size=part.centre.size), part).points[0]
            for part in parts
        ]
        weights = EPSILON * rng.dirichlet(np.ones(6))
        objective, hinge = damage(X, y, np.array(points), labels, weights)
        assert hinge <= objective <= certificate.bound

    check()


@pytest.mark.slow
def test_the_min_max_attack_stays_below_both_bounds():
    X, y, domain, feasible = game("box01")
    certificate = certify_loss(X, y, LAMBDA, EPSILON, feasible)
    made = min_max_poison(
        X, y, LAMBDA, feasible, domain, MinMax(epsilon=EPSILON, burn_in=20.0, copies=1),
        np.random.default_rng(0), clean=train_svm(X, y, LAMBDA).model,
    )  # fmt: skip
    size = len(made.poisoned.y)
    weights = np.full(size, EPSILON / size)
    objective, hinge = damage(X, y, made.poisoned.X, made.poisoned.y, weights)
    assert hinge <= objective <= min(made.bound, certificate.bound)
    assert certificate.attained <= made.bound
    assert objective > damage(X, y, X[:1], y[:1], np.zeros(1))[0]


def test_more_poison_and_wider_sets_have_higher_bounds():
    X, y, domain, feasible = game("box01")
    less, more = (certify_loss(X, y, LAMBDA, e, feasible, tol=5e-3) for e in (0.02, 0.1))
    assert less.bound < more.attained
    narrow = FeasibleSet.fit(X, y, domain, 50.0, 50.0)
    assert certify_loss(X, y, LAMBDA, 0.1, narrow, tol=5e-3).bound < more.attained


@pytest.mark.slow
def test_same_problem_same_bits():
    X, y, _, feasible = game(COUNTS)
    one, two = (certify_loss(X, y, LAMBDA, EPSILON, feasible) for _ in range(2))
    assert one.bound == two.bound and np.array_equal(one.weights, two.weights)


def test_errors_say_what_to_change():
    X, y, _, feasible = game("box01")
    with pytest.raises(SolverError, match="raise max_rounds or tol"):
        certify_loss(X, y, LAMBDA, EPSILON, feasible, tol=1e-6, max_rounds=3)
    with pytest.raises(ValueError, match="epsilon must be a finite number above 0"):
        certify_loss(X, y, LAMBDA, 0.0, feasible)
    row = np.ones(12)
    nowhere = FeasibleSet(
        feasible.positive.with_row(row, 1e4, 2e4), feasible.negative.with_row(row, 1e4, 2e4)
    )
    with pytest.raises(EmptySetError):
        certify_loss(X, y, LAMBDA, EPSILON, nowhere)
