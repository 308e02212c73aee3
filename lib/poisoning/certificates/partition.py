"""Certified test error of a vote among models that share no training example.

Levine & Feizi 2021 ("Deep partition aggregation"): the learner is a
:class:`~poisoning.learners.PartitionedVote`. An example that is added or removed changes one part,
so at most one vote: r of them change at most r votes, and a test point whose class leads by more
than 2r votes stays as it is. This holds for any learner, any number of classes and any poison, and
needs no feasible set. More parts withstand more examples, and their models err more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.base import clone

from poisoning import checks
from poisoning.defenses.detector import seeded
from poisoning.games.linear import LinearGame
from poisoning.learners import PartitionedVote


@dataclass(frozen=True)
class PartitionCertificate:
    """How many examples an attacker must add or remove before the vote on a test point changes.

    ``radius`` (m,): the vote stays right under so many changes, −1 where it is wrong without any.
    ``parts``: how many models vote. ``majority``: the error of the class most common in the
    training data, above which a bound says nothing.
    """

    parts: int
    radius: Int[ndarray, "m"]
    majority: float

    def bound(self, points: int) -> float:
        """The test error that no ``points`` added or removed examples exceed; clean error for 0."""
        return float(np.mean(self.radius < checks.whole(points, "points", 0)))


@dataclass(frozen=True)
class PartitionSweep:
    """Certificates of votes among different numbers of parts."""

    certificates: tuple[PartitionCertificate, ...]

    def best(self, points: int) -> PartitionCertificate:
        """The certificate of the least bound for ``points`` examples; of equal ones the first.

        The number of parts was chosen by the test data, which favours it a little.
        """
        return min(self.certificates, key=lambda one: one.bound(points))

    def table(self, points: int) -> dict[str, Float[ndarray, "k"]]:
        """Columns, a row for each number of parts, as ``pandas.DataFrame`` takes them."""
        return {
            "parts": np.array([float(one.parts) for one in self.certificates]),
            "clean": np.array([one.bound(0) for one in self.certificates]),
            "bound": np.array([one.bound(points) for one in self.certificates]),
            "majority": np.array([one.majority for one in self.certificates]),
        }


def partition_certificate(game: LinearGame, parts: int) -> PartitionCertificate:
    """The certificate of a vote among ``parts`` copies of the game's learner.

    A learner whose ``random_state`` is None gets seed 0. What is certified is the vote, not the
    game's own learner on all data; defenses play no part. To see what an attack does to the vote,
    evaluate it in ``game.with_defender(PartitionedVote(game.learner, parts), ())``.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument.
    """
    checks.instance(game, "game", LinearGame)
    parts = checks.whole(parts, "parts")
    vote = seeded(PartitionedVote(clone(game.learner), parts)).fit(game.X, game.y)
    labels, votes = np.array(game.labels), vote.votes(game.X_test)
    own = game.y_test[:, None] == labels
    leads = np.where(own, -1, votes + (labels < game.y_test[:, None])).max(axis=1)
    lead = votes[own] - leads
    counts = [(game.y == label).sum() for label in labels]
    majority = float(np.mean(game.y_test != labels[np.argmax(counts)]))
    return PartitionCertificate(parts, np.maximum(lead // 2, -1), majority)


def partition_sweep(game: LinearGame, parts: Sequence[int]) -> PartitionSweep:
    """:func:`partition_certificate` for each number of ``parts``.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument.
    """
    checks.instance(game, "game", LinearGame)
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
        raise ValueError(f"parts must be a sequence of whole numbers, not {parts!r}.")
    parts = [checks.whole(many, "parts") for many in parts]
    return PartitionSweep(tuple(partition_certificate(game, many) for many in parts))
