"""The poison of an attack: points that lie in the domain of the data set."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

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
        allowed = round(self.epsilon * self.clean_size)
        if self.X.shape[0] != len(self.y):
            raise ValueError(f"{self.X.shape[0]} poisoned points have {len(self.y)} labels.")
        if len(self.y) != allowed:
            raise ValueError(
                f"An attack of epsilon {self.epsilon:g} on {self.clean_size} points has exactly "
                f"{allowed} poisoned points, not {len(self.y)}."
            )
        if self.X.shape[1] != self.domain.lower.size:
            raise ValueError(
                f"Poisoned points have {self.X.shape[1]} features, the domain has "
                f"{self.domain.lower.size}."
            )
        if self.y.dtype.kind == "f" and not np.all(np.abs(self.y) == 1.0):
            raise ValueError("The labels of poisoned points must be -1 or +1.")
        outside = np.flatnonzero(~self.domain.contains(self.X))
        if outside.size:
            raise ValueError(
                f"{outside.size} of {len(self.y)} poisoned points, the first in row {outside[0]}, "
                f"lie outside the input domain {self.domain.kind!r}."
            )
