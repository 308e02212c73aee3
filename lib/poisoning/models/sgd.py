"""A defender who does not train to the optimum: one pass of SGD over the data."""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray
from sklearn.linear_model import SGDClassifier

from poisoning import checks
from poisoning.arrays import Matrix, with_short_indices
from poisoning.models.linear import LinearModel


def train_one_pass(
    X: Matrix, y: Float[ndarray, "n"], lam: float, *, seed: int, average: bool = False
) -> LinearModel:
    """Hinge loss + λ/2 ‖θ‖², every example used once, in an order drawn from ``seed``.

    Section 6.3 of Koh et al. 2021, which reports neither step sizes nor order; both are those of
    scikit-learn's ``SGDClassifier``, η_t = 1/(λ(t₀ + t)) after Bottou. ``X`` (n, d), ``y`` (n,) of
    ±1. ``average`` returns the mean of the iterates in place of the last one. The intercept is not
    regularised. Raises ``ValueError`` or ``TypeError`` for what is no data set of two classes.
    """
    X = checks.matrix(X, "X")
    y = checks.signs(y, "y", X.shape[0])
    if np.ptp(y) == 0.0:
        raise ValueError(f"y must hold both -1 and +1, it holds {y[0]:g} alone.")
    lam, seed = checks.positive(lam, "lam"), checks.whole(seed, "seed", 0)
    order = np.random.default_rng(seed).permutation(len(y))
    learner = SGDClassifier(
        loss="hinge", alpha=lam, max_iter=1, tol=None, shuffle=False, average=average
    )
    shuffled = X[order]
    if sp.issparse(shuffled):  # scikit-learn takes 32-bit indices only
        shuffled = with_short_indices(shuffled)
    learner.fit(shuffled, y[order])
    sign = 1.0 if learner.classes_[-1] == 1.0 else -1.0
    return LinearModel(sign * learner.coef_[0], float(sign * learner.intercept_[0]))
