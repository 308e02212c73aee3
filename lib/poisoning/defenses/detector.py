"""What every defense shares: fit on what the defender sees, score, cut the worst of each class.

Section 2.2 of Koh et al. 2021. A *defense* is a function ``fit(X, y)``; what it returns scores
points, and the higher the score the more anomalous the point.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from poisoning.arrays import Matrix

_ROUNDING = 1e-9  # scores this close, relatively, are tied: copies of one row must stay together


class Detector(Protocol):
    """Anomaly scores under parameters β fitted to a data set."""

    def score(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """s_β(x, y) for every point; an infinite score marks a point that always goes."""
        ...


Fit: TypeAlias = Callable[[Matrix, Float[ndarray, "n"]], Detector]
"""A defense: from the poisoned data to a fitted detector."""


def threshold(scores: Float[ndarray, "n"], remove: float) -> float:
    """τ: the (1 − ``remove``) quantile, the least score that this fraction does not exceed."""
    kept = int(np.ceil((1.0 - remove) * len(scores) - 1e-9))
    return float(np.partition(scores, kept - 1)[kept - 1])


def keep_mask(
    scores: Float[ndarray, "n"], y: Float[ndarray, "n"], remove: float
) -> Bool[ndarray, "n"]:
    """Which points survive a cut of the fraction ``remove`` of each class.

    A point stays if s ≤ τ_y. The paper writes s < τ_y; with its strict sign a cluster of equal
    scores at the threshold would go as a whole and take more than the fraction. Thus at most
    ⌊remove · n_y⌋ points of a class go, fewer if there are ties; scores that differ by rounding
    count as tied. Raises ``ValueError`` unless 0 ≤ ``remove`` < 1.
    """
    if not 0.0 <= remove < 1.0:
        raise ValueError(f"the fraction to remove must be in [0, 1), got {remove:g}")
    keep = np.isfinite(scores)
    for label in np.unique(y):
        members = y == label
        tau = threshold(scores[members], remove)
        keep[members] &= scores[members] <= tau + _ROUNDING * abs(tau)
    return keep


def sanitize(
    fit: Fit, X: Matrix, y: Float[ndarray, "n"], remove: float = 0.05
) -> Bool[ndarray, "n"]:
    """D_san = D ∩ F_β: which points a defense keeps when fitted on the very data it cleans.

    ``X`` (n, d), ``y`` (n,) are clean and poisoned points together, as the defender sees them;
    ``remove`` is the fraction p of every class.
    """
    return keep_mask(fit(X, y).score(X, y), y, remove)
