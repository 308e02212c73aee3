"""Experiments of Section 3 of Koh et al. 2021: copies of poison, and attacks of two points."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from poisoning.arrays import Matrix, column_mean, squared_distances, vstack
from poisoning.attacks.attacked import Attacked
from poisoning.attacks.concentrate import concentrate
from poisoning.attacks.decoy import find_decoys
from poisoning.attacks.kkt import KKT, attempts
from poisoning.datasets import Dataset, split
from poisoning.models.logistic import train_logistic
from poisoning.models.svm import train_svm
from replication.koh2021 import NAMES, game_on_split

_WITHIN = 0.95  # of a class's own points


def looks_normal(
    X: Matrix, centre: Float[ndarray, "d"], direction: Float[ndarray, "d"], reference: Matrix
) -> Bool[ndarray, "n"]:
    """Which rows are no farther from ``centre`` than 95 % of ``reference``.

    Both in the whole distance and in that along ``direction``, which joins the class centroids.
    """
    radius = np.quantile(squared_distances(reference, centre), _WITHIN)
    middle = centre @ direction
    width = np.quantile(np.abs(reference @ direction - middle), _WITHIN)
    return (squared_distances(X, centre) <= radius) & (np.abs(X @ direction - middle) <= width)


def flipped_pool(
    X: Matrix, y: Float[ndarray, "n"]
) -> tuple[Int[ndarray, "p"], Float[ndarray, "p"]]:
    """Rows that look normal in the other class, and their flipped labels."""
    centres = {label: column_mean(X[y == label]) for label in (1.0, -1.0)}
    direction = centres[1.0] - centres[-1.0]
    rows = []
    for label in (1.0, -1.0):
        normal = looks_normal(X[y != label], centres[label], direction, X[y == label])
        rows.append(np.flatnonzero(y != label)[normal])
    return np.concatenate(rows), np.repeat([1.0, -1.0], [len(part) for part in rows])


def flips_in_company(
    dataset: Dataset, rng: np.random.Generator, lam: float, epsilon: float, remove: float
) -> dict[str, dict[str, float]]:
    """Fraction of the poison that each defense removes: flipped points, and copies of two of them.

    "spread": round(εn) points of the flipped pool. "concentrated": of each class, that many copies
    of the first that was drawn.
    """
    game = game_on_split(dataset, rng, lam, remove)
    pool, labels = flipped_pool(game.X, game.y)
    chosen = rng.choice(len(pool), size=game.poison_size(epsilon))
    first = [np.flatnonzero(labels[chosen] == label)[:1] for label in (1.0, -1.0)]
    copies = np.where(labels[chosen] == 1.0, chosen[first[0]], chosen[first[1]])
    found = {}
    for name, rows in (("spread", chosen), ("concentrated", copies)):
        outcomes = game.evaluate(game.X[pool[rows]], labels[rows])
        found[name] = {key: outcomes[key].poison_removed for key in NAMES}
    return found


def kkt_in_company(
    dataset: Dataset,
    rng: np.random.Generator,
    lam: float,
    epsilon: float,
    remove: float,
    degrees: Sequence[str],
) -> dict[str, dict[str, tuple[float, float]]] | None:
    """What each defense removes of one KKT attack, and its test error, by the number of copies.

    ``degrees``: "1", "2" … copies of each rounded point, or "all". Of the ratios of one decoy the
    one nearest to 1 : 1 is used. None if no ratio has poison.
    """
    game = game_on_split(dataset, rng, lam, remove)
    test = game.X_test, game.y_test
    clean = game.clean_svm.model
    (decoy,) = find_decoys(game.X, game.y, *test, lam, [0.4], [8], clean=clean)
    found = {}
    for copies in degrees:
        # "all": 1000, the largest value of the setting, is more than the points of any attack.
        settings = KKT(epsilon, copies=1000 if copies == "all" else int(copies))
        feasible = game.feasible(settings.radius_percentile, settings.slab_percentile)
        stream = np.random.default_rng(0)
        tried = attempts(game.X, game.y, lam, feasible, decoy, settings, stream)
        possible = [(source, poison) for source, poison in tried if poison is not None]
        if not possible:
            return None
        _, poison = min(possible, key=lambda pair: abs(pair[0].epsilon_plus - epsilon / 2))
        outcomes = game.evaluate(poison.X, poison.y)
        found[copies] = {
            name: (outcomes[name].poison_removed, outcomes[name].test_error) for name in NAMES
        }
    return found


def collapse(
    dataset: Dataset,
    rng: np.random.Generator,
    loss: Literal["svm", "logistic"],
    lam: float,
    epsilon: float,
) -> dict[str, float | int]:
    """:func:`collapsed` for an attack of random label flips."""
    part = split(dataset, rng)
    pool, labels = flipped_pool(part.X, part.y)
    rows = rng.choice(len(pool), size=round(epsilon * len(part.y)), replace=False)
    return collapsed(part.X, part.y, part.X[pool[rows]], labels[rows], loss, lam)


def collapse_attack(
    attacked: Attacked,
    dataset: Dataset,
    split_rng: np.random.Generator,
    loss: Literal["svm", "logistic"],
    lam: float,
) -> dict[str, float | int]:
    """:func:`collapsed` for an attack that was played on the split."""
    part = split(dataset, split_rng)
    return collapsed(part.X, part.y, attacked.poison.X, attacked.poison.y, loss, lam)


def collapsed(
    X: Matrix,
    y: Float[ndarray, "n"],
    X_poison: Matrix,
    y_poison: Float[ndarray, "m"],
    loss: Literal["svm", "logistic"],
    lam: float,
) -> dict[str, float | int]:
    """A test of Theorem 1: train under an attack and under its two-point version, compare.

    "parameter change": the relative change of (θ, b). "clean-trained change": that of θ if the
    attack is left out, for comparison. "weight after" is what the two points weigh that replace
    "points before", and "infeasible" counts those that do not look normal in their class.
    """
    train, tol = {"svm": (train_svm, 1e-9), "logistic": (train_logistic, 1e-8)}[loss]
    total = len(y) + len(y_poison)
    solved = train(vstack([X, X_poison]), np.concatenate([y, y_poison]), lam, tol=tol)
    if loss == "svm":  # dual variables, as a fraction of their bound, are the hinge's slopes
        slopes = solved.alpha[len(y) :] * lam * total
    else:
        slopes = 1.0 / (1.0 + np.exp(solved.model.margins(X_poison, y_poison)))
    kind = "hinge" if loss == "svm" else loss
    points = concentrate(X_poison, y_poison, slopes, solved.model, kind)
    weights = np.concatenate([np.ones(len(y)), points.weights])
    again = train(
        vstack([X, points.X]), np.concatenate([y, points.y]), lam * total / weights.sum(),
        weights=weights, tol=tol,
    )  # fmt: skip
    before = np.append(solved.model.theta, solved.model.bias)
    after = np.append(again.model.theta, again.model.bias)
    size = np.linalg.norm(before)
    clean = train(X, y, lam).model.theta
    direction = column_mean(X[y == 1.0]) - column_mean(X[y == -1.0])
    normal = [
        looks_normal(x[None, :], column_mean(X[y == label]), direction, X[y == label])[0]
        for x, label in zip(points.X, points.y, strict=True)
    ]
    return {
        "parameter change": float(np.linalg.norm(after - before) / size),
        "clean-trained change": float(np.linalg.norm(clean - before[:-1]) / size),
        "points before": len(y_poison),
        "weight after": float(points.weights.sum()),
        "infeasible": int(len(normal) - np.sum(normal)),
    }


def centroid_shifts(
    dataset: Dataset, rng: np.random.Generator, epsilon: float, remove: float
) -> list[float]:
    """How far poison of one class alone moves its centroid, in units of the defender's radius.

    For +1 and −1: round(εn) points drawn from the flipped pool.
    """
    part = split(dataset, rng)
    pool, labels = flipped_pool(part.X, part.y)
    shifts = []
    for label in (1.0, -1.0):
        mine = part.X[part.y == label]
        drawn = rng.choice(pool[labels == label], size=round(epsilon * len(part.y)))
        centre = column_mean(mine)
        radius = np.sqrt(np.quantile(squared_distances(mine, centre), 1 - remove))
        moved = column_mean(vstack([mine, part.X[drawn]])) - centre
        shifts.append(float(np.linalg.norm(moved) / radius))
    return shifts
