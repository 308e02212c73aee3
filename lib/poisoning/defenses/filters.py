"""Baselines for the defenses: a random filter, a perfect one, and several defenses together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.defenses.data import PoisonedData


@dataclass(frozen=True)
class RandomFilter:
    """Uniform random scores: a baseline for the cost of removing this much data.

    It works in games only. It draws from the ``rng`` given to ``evaluate``, or from seed 0.
    """

    name = "random"
    cost = 0

    def score_added(self, data: PoisonedData) -> Float[ndarray, "n"]:
        """A random number for every point."""
        rng = np.random.default_rng(0) if data.rng is None else data.rng
        return rng.random(len(data.y))


@dataclass(frozen=True)
class OracleFilter:
    """∞ for poison, 0 otherwise: removes all the poison and nothing else, whatever the fraction.

    It works in games only, since no data set says which points are poison.
    """

    name = "oracle"
    cost = 0

    def score_added(self, data: PoisonedData) -> Float[ndarray, "n"]:
        """∞ for poison, 0 otherwise."""
        return np.where(data.poisoned, np.inf, 0.0)


@dataclass(frozen=True)
class Together:
    """Removes what any of ``defenses`` would, each its fraction of every class."""

    defenses: Sequence[Any]
    name: str = "all"

    cost = 5
