"""Certified test error of a vote among models that share no training example.

Levine & Feizi 2021 ("Deep partition aggregation"): a hash of its features assigns every example to
one of k parts, a model is trained on each, and the models vote. An example that is added or removed
changes one part, so at most one vote: r of them change at most r votes, and a test point whose
class leads by more than 2r votes stays as it is. This holds for any learner and any poison, and
needs no feasible set.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.base import clone

from poisoning import checks
from poisoning.arrays import Matrix
from poisoning.defenses.detector import seeded
from poisoning.games.linear import LinearGame


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


def partition_certificate(game: LinearGame, parts: int) -> PartitionCertificate:
    """The certificate of a vote among ``parts`` copies of the game's learner.

    A part that holds one class votes for it, an empty part for the first class. The vote's ties go
    to the class that comes first. A learner whose ``random_state`` is None gets seed 0. What is
    certified is the vote, not the game's own learner on all data; defenses play no part.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument.
    """
    checks.instance(game, "game", LinearGame)
    parts = checks.whole(parts, "parts")
    labels = np.array(game.labels)
    members = assigned(game.X, parts)
    votes = np.zeros((len(game.y_test), len(labels)), dtype=np.int64)
    for part in range(parts):
        rows = np.flatnonzero(members == part)
        predicted = _predicted(game, game.X[rows], game.y[rows])
        votes += predicted[:, None] == labels
    own = game.y_test[:, None] == labels
    leads = np.where(own, -1, votes + (labels < game.y_test[:, None])).max(axis=1)
    lead = votes[own] - leads
    counts = [(game.y == label).sum() for label in labels]
    majority = float(np.mean(game.y_test != labels[np.argmax(counts)]))
    return PartitionCertificate(parts, np.maximum(lead // 2, -1), majority)


def assigned(X: Matrix, parts: int) -> Int[ndarray, "n"]:
    """The part of every row of ``X`` (n, d), a function of that row alone, sparse or dense.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument.
    """
    X, parts = checks.matrix(X, "X"), checks.whole(parts, "parts")
    X = sp.csr_array(X)
    X.eliminate_zeros()
    X.sort_indices()
    columns, values = X.indices.astype("<i8"), X.data.astype("<f8")
    found = np.empty(X.shape[0], dtype=np.int64)
    for i, (start, stop) in enumerate(zip(X.indptr[:-1], X.indptr[1:], strict=True)):
        content = blake2b(columns[start:stop].tobytes(), digest_size=8)
        content.update(values[start:stop].tobytes())
        found[i] = int.from_bytes(content.digest(), "little") % parts
    return found


def _predicted(game: LinearGame, X: Matrix, y: ndarray) -> Float[ndarray, "m"]:
    """What a model of one part says of the test points."""
    if len(np.unique(y)) < 2:
        return np.full(len(game.y_test), float(y[0] if len(y) else game.labels[0]))
    model = seeded(clone(game.learner)).fit(X, y)
    return np.asarray(model.predict(game.X_test.copy()), dtype=np.float64)
