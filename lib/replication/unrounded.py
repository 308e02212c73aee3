"""Points of attacks on counts before they are rounded: Sections 3.3, 4.3 and 5.6 of Koh et al."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.arrays import Matrix, column_mean, squared_distances, to_dense
from poisoning.attacks.attacked import Attack, Attacked
from poisoning.attacks.influence import Influence
from poisoning.attacks.kkt import KKT, clean_gradient, loss_caps
from poisoning.attacks.min_max import MinMax, min_max_poison
from poisoning.attacks.selection import measured
from poisoning.datasets import Dataset
from poisoning.feasible.rounding import budget
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import match_gradient
from poisoning.games.linear import LinearGame
from replication.koh2021 import game_on_split

WHOLE = 0.05
"""An entry this near a whole number is nearly whole."""

_CAUTIOUS = 80.0  # percentile that leaves room for rounding: as for influence-basic


def unrounded(
    attack: Attack, game: LinearGame, attacked: Attacked
) -> tuple[Float[ndarray, "m d"], Float[ndarray, "m"]]:
    """The winner's points (m, d) and labels (m,) before rounding, each as often as it is played.

    ``attacked`` is the result of ``attack`` on ``game``. Raises ``TypeError`` for another attack
    than influence, KKT and min-max.
    """
    source = attacked.source
    if isinstance(attack, Influence):
        poison = source.relaxed
        return np.repeat(poison.X, poison.copies, axis=0), np.repeat(poison.y, poison.copies)
    if not isinstance(attack, KKT | MinMax):
        raise TypeError(f"{type(attack).__name__} has no points that are rounded.")
    feasible = game.feasible(attack.radius_percentile, attack.slab_percentile)
    if isinstance(attack, MinMax):
        poison = min_max_poison(
            game.X, game.y, game.lam, feasible, _continuous(game.domain), attack,
            np.random.default_rng(0), clean=game.clean_svm.model,
            decoy=source.decoy and source.decoy.model,
        ).poisoned  # fmt: skip
        return to_dense(poison.X), poison.y
    model = source.decoy.model
    feasible = feasible.under_decoy(
        model.theta, model.bias, loss_caps(model, game.X, game.y, attack.loss_percentile)
    )
    gradient, _ = clean_gradient(model, game.X, game.y, game.lam, attack.epsilon)
    share = source.epsilon_plus / attack.epsilon
    sizes = budget(attack.epsilon, game.n, min(share, 1.0))
    points = match_gradient(gradient, sizes[0] / game.n, sizes[1] / game.n, feasible).points
    return np.repeat(points, sizes, axis=0), np.repeat([1.0, -1.0], sizes)


def whole_entries(
    attack: Attack,
    attacked: Attacked,
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
) -> float:
    """The share of the words, the sum of all entries, in entries nearly whole before rounding."""
    X, _ = unrounded(attack, game_on_split(dataset, split_rng, lam, remove), attacked)
    near = np.abs(X - np.round(X)) <= WHOLE
    return float(X[near].sum() / X.sum())


def relative_spread(
    attack: Attack,
    attacked: Attacked,
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
) -> float:
    """How widely the points of a class lie before rounding, relative to its clean points.

    The root mean square distance from their mean, of the poison and of the clean points; the mean
    over the classes, weighted by their poison.
    """
    game = game_on_split(dataset, split_rng, lam, remove)
    X, y = unrounded(attack, game, attacked)
    return float(
        sum(
            np.mean(y == label) * _radius(X[y == label]) / _radius(game.X[game.y == label])
            for label in np.unique(y)
        )
    )


def unaugmented_on_split(
    settings: MinMax,
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
    rng: np.random.Generator,
) -> Attacked:
    """Min-max-basic as Steinhardt et al. 2017 have it: no LP relaxation, no repeated points.

    The L2 ball bounds the points before rounding, so that it is drawn at a lower percentile.
    """
    game = game_on_split(dataset, split_rng, lam, remove)
    feasible = FeasibleSet.fit(game.X, game.y, _continuous(game.domain), _CAUTIOUS, _CAUTIOUS)
    poison = min_max_poison(
        game.X, game.y, lam, feasible, game.domain, replace(settings, decoy=False, copies=1), rng,
        clean=game.clean_svm.model,
    ).poisoned  # fmt: skip
    return measured(game, poison.X, poison.y)


def _continuous(domain: InputDomain) -> InputDomain:
    return replace(domain, kind="nonnegative") if domain.integer else domain


def _radius(X: Matrix) -> float:
    return float(np.sqrt(np.mean(squared_distances(X, column_mean(X)))))
