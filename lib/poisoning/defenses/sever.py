"""SEVER: discard the points whose gradients stand out along the direction of largest variance.

Diakonikolas et al. 2019 ("Sever: a robust meta-algorithm for stochastic optimization"), Algorithm
2: train; centre the gradients of the points' losses at the model; score every point by its squared
projection on their top right singular vector; discard the worst; repeat.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Shaped
from numpy import ndarray
from scipy.sparse.linalg import LinearOperator, svds
from sklearn.base import clone

from poisoning import checks
from poisoning.arrays import Matrix
from poisoning.defenses.detector import examples, fitted, keep_mask, seeded


@dataclass
class SEVERDefense:
    """SEVER for a linear classifier of −1 and +1 and the hinge loss.

    ``remove`` is the fraction of each class that the ``rounds`` together discard, in equal shares;
    it should be the game's. Points discarded earlier score higher; within a round and among those
    that stay, larger projections do. ``learner`` is a linear classifier of scikit-learn, by
    default the game's.
    """

    learner: Any = None
    rounds: int = 2
    remove: float = 0.05

    name = "sever"
    cost = 5

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for no round, or a fraction that is none."""
        checks.whole(self.rounds, "rounds")
        checks.fraction(self.remove, "remove")

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "SEVERDefense":
        """Score the points in rounds.

        Raises ``ValueError`` or ``TypeError`` for what is no data set of −1 and +1, or for a
        learner that is not linear.
        """
        X, y = examples(X, y)
        checks.signs(y, "y", len(y))
        scores, left = np.zeros(len(y)), np.arange(len(y))
        for round_ in range(self.rounds):
            found = self._projections(X[left], y[left])
            # Between 0 and 1 within a round, so that an earlier round always counts for more.
            scores[left] = found / max(found.max(), np.finfo(float).tiny)
            # The share of what was there at first, as a fraction of what is left now.
            share = self.remove / self.rounds
            keep = keep_mask(found, y[left], share / (1.0 - round_ * share))
            scores[left[~keep]] += self.rounds - round_
            left = left[keep]
        self.scores_, self.columns_ = scores, X.shape[1]
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """The scores of the points given to ``fit``, the only ones that it can score.

        Raises ``NotFittedError`` before ``fit``, ``ValueError`` for other numbers of points.
        """
        scores = fitted(self, "scores_")
        _, y = examples(X, y, columns=self.columns_)
        if len(y) != len(scores):
            raise ValueError(
                f"X must be the {len(scores)} rows that sever was fitted to, it has {len(y)}."
            )
        return scores

    def _projections(self, X: Matrix, y: Shaped[ndarray, "m"]) -> Float[ndarray, "m"]:
        """(g_i − mean g) · v squared, v the top right singular vector of the centred gradients."""
        if self.learner is None:
            raise ValueError("SEVERDefense: outside a game, learner must be a linear classifier.")
        model = seeded(clone(self.learner)).fit(X, y)
        if not hasattr(model, "coef_"):
            raise TypeError(f"learner must be a linear classifier, not {self.learner!r}.")
        # The hinge loss has the gradient -y (x, 1) where the margin is below 1, else 0.
        slopes = np.where(y * np.ravel(model.decision_function(X)) < 1.0, -y, 0.0)
        if not slopes.any():
            return np.zeros(len(y))
        gradients = sp.hstack([sp.csr_array(X), np.ones((len(y), 1))], format="csr")
        gradients = sp.csr_array(sp.diags_array(slopes) @ gradients)
        mean = np.asarray(gradients.mean(axis=0)).ravel()
        centred = LinearOperator(
            gradients.shape, dtype=np.float64,
            matvec=lambda v: gradients @ np.ravel(v) - mean @ np.ravel(v),
            rmatvec=lambda u: gradients.T @ np.ravel(u) - mean * np.sum(u),
        )  # fmt: skip
        # At random: centring takes the direction of all ones away.
        start = np.random.default_rng(0).normal(size=min(gradients.shape))
        _, _, right = svds(centred, k=1, v0=start)
        return centred.matvec(right[0]) ** 2
