"""Random label noise: regime C of Wang, Mianjy & Arora 2021.

Each label is changed with probability β, independently of the others and of the example.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from poisoning import checks


def flip_labels(
    y: Float[ndarray, "n"], beta: float, rng: np.random.Generator
) -> Float[ndarray, "n"]:
    """−y with probability β, for labels −1 and +1.

    Raises ``ValueError`` unless 0 ≤ β ≤ 1.
    """
    y = checks.signs(y, "y", None)
    return np.where(_turned(len(y), beta, rng), -y, y)


def shift_labels(
    y: Int[ndarray, "n"], classes: int, beta: float, rng: np.random.Generator
) -> Int[ndarray, "n"]:
    """(y + 1) mod k with probability β, for labels 0 … k−1 of k = ``classes``.

    Raises ``ValueError`` unless 0 ≤ β ≤ 1.
    """
    classes = checks.whole(classes, "classes", 2)
    y = checks.classes(y, "y", None, classes)
    return np.where(_turned(len(y), beta, rng), (y + 1) % classes, y)


def _turned(n: int, beta: float, rng: np.random.Generator) -> Bool[ndarray, "n"]:
    beta = checks.between(beta, "beta", 0.0, 1.0)
    return checks.generator(rng).random(n) < beta
