"""The poison of an attack: points that lie in the domain of the data set."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix
from poisoning.feasible.sets import InputDomain


@dataclass(frozen=True)
class PoisonedSet:
    """Poisoned points ``X`` (m, d) with labels ``y`` (m,), for ``clean_size`` clean ones.

    Exactly m = round(ε·n) points, every one in ``domain`` (whole numbers within the limits for
    counts), labels −1 or +1, or whole numbers from 0; anything else raises ``ValueError`` when the
    object is made.
    """

    X: Matrix
    y: Shaped[ndarray, "m"]
    clean_size: int
    epsilon: float
    domain: InputDomain

    def __post_init__(self) -> None:
        d = checks.instance(self.domain, "domain", InputDomain).lower.size
        X = checks.matrix(self.X, "X", rows=0)
        object.__setattr__(self, "X", X)
        y = checks.labels(self.y, "y", X.shape[0])
        whole = np.asarray(self.y).dtype.kind in "iu"
        if not whole and np.any(np.abs(y) != 1.0):
            raise ValueError(
                "y must hold the labels -1 and +1, or whole numbers of an integer type."
            )
        object.__setattr__(self, "y", y.astype(np.int64) if whole and np.all(y >= 0) else y)
        size = checks.whole(self.clean_size, "clean_size")
        allowed = round(checks.positive(self.epsilon, "epsilon", zero=True) * size)
        if len(self.y) != allowed:
            raise ValueError(
                f"X: an attack of epsilon {self.epsilon:g} on {size} points has exactly {allowed} "
                f"poisoned points, not {len(self.y)}."
            )
        if X.shape[1] != d:
            raise ValueError(f"X has {X.shape[1]} features, the domain has {d}.")
        outside = np.flatnonzero(~self.domain.contains(self.X))
        if outside.size:
            raise ValueError(
                f"X: {outside.size} of {len(self.y)} poisoned points, the first in row "
                f"{outside[0]}, lie outside the input domain {self.domain.kind!r}."
            )
