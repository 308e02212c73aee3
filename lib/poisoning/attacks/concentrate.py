"""Theorem 1 of Koh et al. 2021, constructively: one poisoned point per class is enough.

If the loss of a binary model depends on the margin m = y(θ·x + b), a poisoned point of weight w
enters training only through its gradient −w·h·y(x, 1) with h = −dℓ/dm ≥ 0. The gradients of all
points of a class therefore add up to that of

    x̃ = Σ w_i h_i x_i / Σ w_i h_i   with weight   w̃ = Σ w_i h_i / h(x̃),

a convex combination, so x̃ lies in every convex feasible set that holds them all; and w̃ ≤ Σ w_i
(Proposition 7 for the hinge, Proposition 8 for losses with non-increasing c''/c' such as the
logistic). So (θ, b) remains optimal, provided that the sum over the points is divided by the same
number as before.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit

from poisoning import checks
from poisoning.arrays import Matrix
from poisoning.models.linear import LinearModel

Loss: TypeAlias = Literal["hinge", "logistic"]


@dataclass(frozen=True)
class WeightedPoints:
    """At most one point per class: ``X`` (k, d), k ≤ 2, labels ``y`` (k,), ``weights`` (k,) > 0.

    A class is left out if all of its points have gradient 0.
    """

    X: Float[ndarray, "k d"]
    y: Float[ndarray, "k"]
    weights: Float[ndarray, "k"]


def concentrate(
    X: Matrix,
    y: Float[ndarray, "n"],
    slopes: Float[ndarray, "n"],
    model: LinearModel,
    loss: Loss,
    *,
    weights: Float[ndarray, "n"] | None = None,
) -> WeightedPoints:
    """Collapse a poisoned set (X, y), by default of weight 1 each, to one point per class.

    ``model`` is the one trained with this poison. ``slopes`` (n,) are the h_i at it: for the
    logistic loss σ(−m_i); for the hinge 1 where m_i < 1, 0 where m_i > 1, and where m_i = 1 any γ_i
    in [0, 1] that makes the model optimal. A dual solution of the SVM contains all of them: h_i is
    α_i divided by its upper bound. Where γ_i > 0 the margin is at most 1, hence also that of x̃:
    h(x̃) = 1.

    Raises ``ValueError`` or ``TypeError`` for slopes outside [0, 1] or another invalid argument.
    """
    X = checks.matrix(X, "X", columns=len(checks.instance(model, "model", LinearModel).theta))
    n = X.shape[0]
    y, slopes = checks.signs(y, "y", n), checks.vector(slopes, "slopes", n)
    loss = checks.one_of(loss, "loss", get_args(Loss))
    weights = None if weights is None else checks.weights(weights, "weights", n)
    if np.any((slopes < 0.0) | (slopes > 1.0 + 1e-9)):
        raise ValueError(f"slopes of the {loss} loss must lie between 0 and 1.")
    pulls = slopes if weights is None else slopes * weights
    points, labels, totals = [], [], []
    for label in (1.0, -1.0):
        mine = np.where(y == label, pulls, 0.0)
        total = float(mine.sum())
        if total > 0.0:
            points.append(np.asarray(X.T @ mine, dtype=np.float64) / total)
            labels.append(label)
            totals.append(total)
    together = np.array(points).reshape(len(points), X.shape[1])
    classes, weight = np.array(labels), np.array(totals)
    if loss == "logistic":
        weight = weight / expit(-model.margins(together, classes))
    return WeightedPoints(together, classes, weight)
