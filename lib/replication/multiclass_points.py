"""Proposition 10 of Koh et al. 2021: k(k − 1) distinct points suffice against a k-class SVM.

The loss of Crammer & Singer, max(0, 1 − θ_y·x + max_{j≠y} θ_j·x), has the dual variables
α_ij ≥ 0, Σ_j α_ij ≤ w_i, one for every example i of weight w_i and rival j. At the optimum

    Nλθ_l = Σ_i Σ_j α_ij ([y_i = l] − [j = l]) x_i,

so that the poison of label y acts through Σ_i α_ij x_i alone, one sum for each rival j. All of it
can be put at x̃ = Σ α_ij x_i / Σ α_ij, with the weight Σ α_ij. Where α_ij > 0, j is a rival of the
highest score and the hinge is not below 0: both hold for averages.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning.attacks.min_max import MinMax
from poisoning.datasets import Dataset, split
from poisoning.defenses import FIVE
from poisoning.games.linear import LinearGame
from poisoning.learners import CrammerSingerSVM

_NOTHING = 1e-6  # a pair of less weight has no poison


@dataclass(frozen=True)
class ClassesSolution:
    """The minimiser ``theta`` (k, d) and the dual variables ``alpha`` (n, k), 0 where j = y_i."""

    theta: Float[ndarray, "k d"]
    alpha: Float[ndarray, "n k"]


def solve_classes(
    X: Float[ndarray, "n d"],
    y: Int[ndarray, "n"],
    weights: Float[ndarray, "n"],
    count: int,
    classes: int,
    lam: float,
) -> ClassesSolution:
    """min λ/2 ‖θ‖² + (1/``count``) Σ w_i ℓ(θ; x_i, y_i), to the solver's tolerance.

    Raises ``cvxpy.SolverError`` if it is not reached.
    """
    import cvxpy as cp  # takes a second to import

    own = np.eye(classes)[y]
    theta, slack = cp.Variable((classes, X.shape[1])), cp.Variable(len(y))
    scores = X @ theta.T
    margins = cp.sum(cp.multiply(own, scores), axis=1) + slack
    columns = np.ones((1, classes))
    # For j = y_i the row says that the slack is not negative.
    rows = cp.reshape(margins, (len(y), 1), order="C") @ columns - scores >= 1.0 - own
    loss = weights @ slack / count
    cp.Problem(cp.Minimize(0.5 * lam * cp.sum_squares(theta) + loss), [rows]).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10
    )
    alpha = count * np.maximum(rows.dual_value, 0.0) * (1.0 - own)
    return ClassesSolution(theta.value, alpha)


def one_point_per_pair(
    X: Float[ndarray, "m d"], y: Int[ndarray, "m"], alpha: Float[ndarray, "m k"]
) -> tuple[Float[ndarray, "p d"], Int[ndarray, "p"], Float[ndarray, "p"]]:
    """Points, labels and weights, one for each label and rival, that act as the poison does."""
    points, labels, weights = [], [], []
    for label in np.unique(y):
        for slopes in alpha[y == label].T:
            if slopes.sum() > _NOTHING:
                points.append(slopes @ X[y == label] / slopes.sum())
                labels.append(label)
                weights.append(slopes.sum())
    return np.array(points).reshape(-1, X.shape[1]), np.array(labels, int), np.array(weights)


def collapse_classes(
    dataset: Dataset, rng: np.random.Generator, settings: MinMax, examples: int, lam: float
) -> dict[str, float]:
    """A test of Proposition 10: train under a min-max attack and under its collapsed version.

    On ``examples`` images of each class, small ones of about 7 × 7 pixels, so that the problem can
    be solved exactly. "parameter change" is the relative change of θ, "clean-trained change" that
    if the attack is left out. "points after" weigh "weight after" and replace "points before".
    """
    part = split(dataset, rng)
    X, y = _some(part.X, part.y, examples, rng)
    test = _some(part.X_test, part.y_test, examples, rng)
    few = tuple(defense for defense in FIVE if defense.name in ("l2", "loss"))
    game = LinearGame(X, y, *test, domain=dataset.domain, learner=CrammerSingerSVM(), defenses=few)
    poison = settings(game, rng).poison
    X_poison, y_poison = poison.X, poison.y.astype(int)
    y, k, total = y.astype(int), len(game.labels), game.n + len(poison.y)

    def solved(points: ndarray, labels: ndarray, weights: ndarray) -> ClassesSolution:
        return solve_classes(
            np.vstack([X, points]), np.append(y, labels), np.append(np.ones(len(y)), weights),
            total, k, lam,
        )  # fmt: skip

    before = solved(X_poison, y_poison, np.ones(len(y_poison)))
    points, labels, weights = one_point_per_pair(X_poison, y_poison, before.alpha[len(y) :])
    after = solved(points, labels, weights)
    clean = solved(X[:0], y[:0], np.ones(0))
    size = np.linalg.norm(before.theta)
    return {
        "parameter change": float(np.linalg.norm(after.theta - before.theta) / size),
        "clean-trained change": float(np.linalg.norm(clean.theta - before.theta) / size),
        "points before": len(y_poison),
        "points after": len(points),
        "weight after": float(weights.sum()),
    }


def _some(
    X: Float[ndarray, "n d"], y: Int[ndarray, "n"], examples: int, rng: np.random.Generator
) -> tuple[Float[ndarray, "m e"], Int[ndarray, "m"]]:
    """So many images of each class, or all that there are, shrunk by averaging square blocks."""
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(y == label))[:examples] for label in np.unique(y)]
    )
    side = int(np.sqrt(X.shape[1]))
    block = max(side // 7, 1)
    small = side // block
    images = np.asarray(X[rows], dtype=float).reshape(-1, side, side)
    images = images[:, : small * block, : small * block]
    means = images.reshape(-1, small, block, small, block).mean(axis=(2, 4))
    return means.reshape(len(rows), -1), y[rows]
