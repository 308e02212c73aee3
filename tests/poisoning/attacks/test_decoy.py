"""Algorithm 3: the flip set, the weights, and the pruning rule."""

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.attacks.decoy import Decoy, find_decoys, prune
from poisoning.models.linear import LinearModel
from poisoning.models.svm import train_svm

LAMBDA = 0.05


def corpus(seed=0, n=160, d=20):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    X = rng.poisson(np.exp(0.4 * np.outer(y, rng.normal(size=d)) - 0.5)).astype(float)
    return sp.csr_array(X[:120]), y[:120], sp.csr_array(X[120:]), y[120:]


def decoy(test_error, train_loss):
    return Decoy(LinearModel(np.zeros(1), 0.0), test_error, train_loss, 0.5, 1)


def test_a_decoy_is_the_svm_on_clean_data_and_copies_of_flipped_test_points():
    X, y, X_test, y_test = corpus()
    clean = train_svm(X, y, LAMBDA).model
    (found,) = find_decoys(X, y, X_test, y_test, LAMBDA, [0.3], [3], clean=clean)
    margins = clean.margins(X_test, y_test)
    worst = np.flatnonzero(margins <= np.quantile(margins, 0.3))
    copies = np.repeat(worst, 3)
    enlarged = sp.vstack([X, X_test[copies]], format="csr")
    plain = train_svm(enlarged, np.append(y, -y_test[copies]), LAMBDA, tol=1e-8).model
    np.testing.assert_allclose(found.model.theta, plain.theta, atol=2e-3)
    assert found.test_error == found.model.error(X_test, y_test)
    assert (found.quantile, found.copies) == (0.3, 3)


def test_more_copies_err_more_and_fit_the_clean_data_less():
    X, y, X_test, y_test = corpus()
    clean = train_svm(X, y, LAMBDA).model
    found = find_decoys(X, y, X_test, y_test, LAMBDA, [0.4], [1, 4, 16], clean=clean)
    errors, losses = zip(*((d.test_error, d.train_loss) for d in found), strict=True)
    assert list(errors) == sorted(errors) and list(losses) == sorted(losses)
    assert errors[-1] > clean.error(X_test, y_test)


@pytest.mark.parametrize(
    ("decoys", "kept"),
    [
        ([(0.2, 0.5), (0.3, 0.4)], [1]),  # beaten in both
        ([(0.2, 0.4), (0.3, 0.5)], [0, 1]),  # a trade-off
        ([(0.2, 0.5), (0.2, 0.4)], [1]),  # equal error, more loss
        ([(0.2, 0.5), (0.2, 0.5)], [0]),  # equal in both
        ([(0.1, 0.1), (0.2, 0.2), (0.15, 0.3)], [0, 1]),
    ],
)
def test_pruning_keeps_the_pareto_front(decoys, kept):
    made = [decoy(*pair) for pair in decoys]
    assert prune(made) == [made[i] for i in kept]
