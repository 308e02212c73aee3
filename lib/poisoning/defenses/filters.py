"""Three yardsticks beside the real defenses: no filter, a blind one, and a perfect one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from poisoning.arrays import Matrix


@dataclass(frozen=True)
class FixedScores:
    """Scores that do not depend on the points: they belong to the rows, in order."""

    scores: Float[ndarray, "n"]

    def score(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """The fixed scores; ``X`` must be the data that was fitted."""
        return self.scores


def fit_none(X: Matrix, y: Float[ndarray, "n"]) -> FixedScores:
    """All tied, so that nothing goes: the undefended learner."""
    return FixedScores(np.zeros(len(y)))


def fit_random(X: Matrix, y: Float[ndarray, "n"], *, rng: np.random.Generator) -> FixedScores:
    """Uniform scores: what removing this much data costs in itself."""
    return FixedScores(rng.random(len(y)))


def fit_oracle(X: Matrix, y: Float[ndarray, "n"], *, poisoned: Bool[ndarray, "n"]) -> FixedScores:
    """∞ for poison, 0 otherwise: all the poison goes, and nothing else, whatever the fraction."""
    return FixedScores(np.where(poisoned, np.inf, 0.0))
