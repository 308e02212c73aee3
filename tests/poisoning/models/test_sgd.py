"""One pass of stochastic gradient descent: what the defender of §6.3 learns."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import SGDClassifier

from poisoning.models.sgd import train_one_pass
from poisoning.models.svm import train_svm


def clouds(n=2_000, d=8, seed=0):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    return rng.normal(size=(n, d)) + 0.5 * y[:, None], y


@pytest.mark.parametrize("wrap", [np.array, sp.csr_array])
def test_one_pass_comes_near_the_solution_but_is_not_it(wrap):
    X, y = clouds()
    exact = train_svm(X, y, 0.01).model
    one_pass = train_one_pass(wrap(X), y, 0.01, seed=0, average=True)
    assert abs(one_pass.error(X, y) - exact.error(X, y)) < 0.02
    lengths = np.linalg.norm(one_pass.theta) * np.linalg.norm(exact.theta)
    assert 0.95 < one_pass.theta @ exact.theta / lengths < 1.0 - 1e-6


def test_the_order_is_drawn_from_the_seed():
    X, y = clouds(n=300)
    first, again, other = (train_one_pass(X, y, 0.01, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.theta, again.theta)
    assert not np.array_equal(first.theta, other.theta)


def test_every_example_counts_once(monkeypatch):
    X, y = clouds(n=300)
    passes = []
    real = SGDClassifier.fit

    def recorded(self, X, y):
        fitted = real(self, X, y)
        passes.append((fitted.t_ - 1.0, X))
        return fitted

    monkeypatch.setattr(SGDClassifier, "fit", recorded)
    train_one_pass(X, y, 0.01, seed=1)
    ((steps, seen),) = passes
    assert steps == len(X)
    assert np.array_equal(np.sort(seen, axis=0), np.sort(X, axis=0))
