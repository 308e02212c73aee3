import numpy as np
import pytest
from sklearn.datasets import load_digits

from poisoning.models.multiclass_svm import MulticlassModel, train_multiclass_svm
from poisoning.models.multiclass_svm_kernels import adagrad_pass, add_subgradient


def mean_loss(theta, X, y):
    return MulticlassModel(theta).losses(X, y).mean()


def subgradient(theta, X, y):
    out = np.zeros_like(theta)
    for x, label in zip(X, y, strict=True):
        add_subgradient(theta, x, label, 1.0 / len(y), out)
    return out


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 7)), rng.normal(size=(30, 7)), rng.integers(0, 4, 30)


def test_loss_is_equation_34(problem):
    theta, X, y = problem
    by_hand = []
    for x, label in zip(X, y, strict=True):
        rival = max(theta[j] @ x for j in range(4) if j != label)
        by_hand.append(max(0.0, 1.0 - theta[label] @ x + rival))
    assert np.allclose(MulticlassModel(theta).losses(X, y), by_hand)
    assert min(by_hand) == 0.0 < max(by_hand)


def test_subgradient_agrees_with_finite_differences(problem):
    theta, X, y = problem
    numeric = np.empty_like(theta)
    for index in np.ndindex(theta.shape):
        up, down = theta.copy(), theta.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        numeric[index] = (mean_loss(up, X, y) - mean_loss(down, X, y)) / 2e-6
    assert np.allclose(subgradient(theta, X, y), numeric, atol=1e-7)


def test_kernel_is_adagrad(problem):
    theta, X, y = problem
    order = np.random.default_rng(1).permutation(30)
    plain, accumulated = theta.copy(), np.ones_like(theta)
    for first in range(0, 30, 8):
        chosen = order[first : first + 8]
        g = subgradient(plain, X[chosen], y[chosen])
        accumulated += g**2
        plain -= 0.05 * g / np.sqrt(accumulated)
    compiled, accumulator = theta.copy(), np.ones_like(theta)
    adagrad_pass(compiled, accumulator, X, y, order, 8, 0.05)
    assert np.allclose(compiled, plain)
    assert np.allclose(accumulator, accumulated)


def test_learns_digits_and_depends_on_the_seed_alone():
    X, y = load_digits(return_X_y=True)
    X, y = X / 16.0, y.astype(np.int64)
    first, again, other = (
        train_multiclass_svm(X[:1200], y[:1200], 10, np.random.default_rng(seed), passes=40)
        for seed in (0, 0, 1)
    )
    assert first.error(X[1200:], y[1200:]) < 0.12
    assert first.theta.tobytes() == again.theta.tobytes()
    assert not np.array_equal(first.theta, other.theta)


def test_labels_outside_the_classes_are_refused(problem):
    _, X, y = problem
    with pytest.raises(ValueError, match="y must be 0 to 2"):
        train_multiclass_svm(X, y, 3, np.random.default_rng(0))
