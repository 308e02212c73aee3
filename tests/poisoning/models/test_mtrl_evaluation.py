"""NMSE and AUC of learned tasks."""

import numpy as np
from sklearn.metrics import r2_score, roc_auc_score

from poisoning.models.mtrl_evaluation import auc, nmse


def sets_of(seed=0, m=3, d=4, binary=False):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(m, d))
    X = [rng.normal(size=(8 + i, d)) for i in range(m)]
    y = [x @ w for x, w in zip(X, W, strict=True)]
    if binary:
        y = [np.where(np.arange(len(t)) % 2, 1.0, -1.0) for t in y]
    return W, X, y


def test_nmse_is_what_r_squared_lacks_of_one():
    W, X, y = sets_of()
    rough = W + 0.3
    expected = [1 - r2_score(t, x @ w) for w, x, t in zip(rough, X, y, strict=True)]
    np.testing.assert_allclose(nmse(rough, X, y), expected)
    np.testing.assert_allclose(nmse(W, X, y), 0.0, atol=1e-25)


def test_auc_counts_pairs_in_the_right_order():
    W, X, y = sets_of(binary=True)
    coarse = np.round(2 * W)  # with ties
    for weights in (W, coarse):
        expected = [roc_auc_score(t, x @ w) for w, x, t in zip(weights, X, y, strict=True)]
        np.testing.assert_allclose(auc(weights, X, y), expected)
    np.testing.assert_allclose(auc(0 * W, X, y), 0.5)
