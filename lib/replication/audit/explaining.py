"""Which points and which features carry an attack."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy import ndarray

from poisoning.games.linear import NONE, LinearGame
from replication.audit.features import Problem

MOST_POINTS = 6
MOST_FEATURES = 10
_UNUSUAL = 4  # values shown of a point


@dataclass(frozen=True)
class Carrier:
    """One distinct row of poison: its copies, its label, and the test error without all of them.

    ``values`` are the features in which it is farthest from the mean of its label, in standard
    deviations: name, its value in units of the table, and that mean.
    """

    copies: int
    label: str
    error_without: float
    values: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Shift:
    """One feature: its weight before and after the attack, in the model's scale.

    ``share`` is that of its squared change in the sum over all features.
    """

    name: str
    before: float
    after: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """``attack`` with ``points`` of poison, ``distinct`` different ones, brings ``error``."""

    attack: str
    points: int
    distinct: int
    error: float
    carriers: tuple[Carrier, ...]
    shifts: tuple[Shift, ...]


def explain(problem: Problem, game: LinearGame, attack: str, poison: Any) -> Explanation:
    """What of ``poison``, a :class:`~poisoning.PoisonedSet`, harms the undefended ``game``."""
    X = poison.X.toarray() if sp.issparse(poison.X) else np.asarray(poison.X)
    signed = np.column_stack([poison.y, X])
    distinct, which, copies = np.unique(signed, axis=0, return_inverse=True, return_counts=True)
    outcome = game.evaluate(poison.X, poison.y)[NONE]
    most = np.argsort(-copies, kind="stable")[:MOST_POINTS]
    carriers = []
    for k in most:
        rest = np.flatnonzero(which.ravel() != k)
        without = game.evaluate(poison.X[rest], poison.y[rest])[NONE].test_error
        label, x = distinct[k, 0], distinct[k, 1:]
        carriers.append(
            Carrier(
                int(copies[k]), problem.positive if label > 0 else problem.negative, without,
                _unusual(problem, game, label, x),
            )
        )  # fmt: skip
    before, after = game.clean_model.coef_[0], outcome.model.theta
    return Explanation(
        attack, len(poison.y), len(distinct), outcome.test_error,
        tuple(sorted(carriers, key=lambda one: one.error_without)),
        _shifts(problem.names, before, after),
    )  # fmt: skip


def _unusual(
    problem: Problem, game: LinearGame, label: float, x: ndarray
) -> tuple[tuple[str, float, float], ...]:
    rows = game.X[game.y == label]
    mean = np.asarray(rows.mean(axis=0)).ravel()
    squares = rows.multiply(rows) if sp.issparse(rows) else rows**2
    spread = np.sqrt(np.maximum(np.asarray(squares.mean(axis=0)).ravel() - mean**2, 0.0))
    far = np.abs(x - mean) / np.maximum(spread, 1e-9 + spread.mean() / 10.0)
    table = [problem.centre + problem.scale * values for values in (x, mean)]
    return tuple(
        (problem.names[j], float(table[0][j]), float(table[1][j]))
        for j in np.argsort(-far, kind="stable")[:_UNUSUAL]
    )


def _shifts(names: tuple[str, ...], before: ndarray, after: ndarray) -> tuple[Shift, ...]:
    change = (after - before) ** 2
    total = change.sum() or 1.0
    return tuple(
        Shift(names[j], float(before[j]), float(after[j]), float(change[j] / total))
        for j in np.argsort(-change, kind="stable")[:MOST_FEATURES]
    )
