"""One attack behind the five defenses of Koh et al. 2021, as an attack measures its candidates.

Ours keeps what the clean data contribute: how long that takes, once, is ``one_off_s``. On IMDB its
SVD scores are approximate. The peer keeps nothing and is exact: for every defense it fits the
detector to clean data and poison, discards, and trains. ``agreement`` is the largest difference
between the two in a test error. The attacks are those of the KKT attack for one decoy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.data import examples
from bench.timing import Race, timed
from poisoning.arrays import Matrix, vstack
from poisoning.attacks.decoy import find_decoys
from poisoning.attacks.kkt import KKT, attempts
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.defenses.detector import sanitize
from poisoning.defenses.loss import LossDefense
from poisoning.feasible.sets import FeasibleSet
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM
from poisoning.models.svm import train_svm
from replication.koh2021 import LAMBDA


@dataclass(frozen=True)
class EvaluationEntry:
    """The entry for one data set.

    ``decoy`` are its quantile and repeats. Of its attacks, at different ratios of the classes, the
    ``attacks`` nearest to the decoy are evaluated; ours ``repeats`` times before the peer and as
    often after.
    """

    NAME: str
    dataset: str
    decoy: tuple[float, int]
    attacks: int
    repeats: int

    def run(self, bar: tqdm) -> dict[str, Any]:
        """The clean data once, then attack after attack."""
        data, source = examples(self.dataset)
        game = LinearGame(
            data.X, data.y, data.X_test, data.y_test, domain="counts",
            learner=SVM(LAMBDA[self.dataset]),
        )  # fmt: skip
        poison = self._poison(game)
        bar.reset(total=1 + len(poison))
        one_off, _ = timed(behind_all, game, data.X[:0], data.y[:0])
        bar.update()
        race, differences = Race(self.repeats), []
        for one in poison:
            kept, errors = race.run(
                partial(behind_all, game, one.X, one.y), partial(errors_from_scratch, game, one)
            )
            differences += [abs(kept[name] - errors[name]) for name in game.defenses]
            bar.update()
        return {
            "data": source,
            "peer": "each defense from scratch",
            "n": len(poison),
            "agreement": max(differences),
            "one_off_s": one_off,
            **race.record(),
        }

    def summary(self, record: dict[str, Any]) -> str:
        """One line for a reader."""
        return (
            f"{record['data']}: {record['ours_s']:.2f} s an attack after {record['one_off_s']:.1f} "
            f"s for the clean data, beside {record['peer_s']:.1f} s from scratch "
            f"({record['ratio']:.0f} times as fast), test errors equal to "
            f"{record['agreement']:.1e}"
        )

    def _poison(self, game: LinearGame) -> Sequence[PoisonedSet]:
        X, y, lam = game.X, game.y, game.lam
        quantile, copies = self.decoy
        (decoy,) = find_decoys(
            X, y, game.X_test, game.y_test, lam, (quantile,), (copies,), clean=game.clean_svm.model
        )
        feasible = FeasibleSet.fit(X, y, game.domain)
        found = attempts(X, y, lam, feasible, decoy, KKT(), np.random.default_rng(0))
        return [one for _, one in found if one is not None][: self.attacks]


ENRON = EvaluationEntry("koh2021.evaluation", "enron", (0.4, 8), attacks=4, repeats=3)
IMDB = EvaluationEntry("koh2021.evaluation_imdb", "imdb", (0.4, 3), attacks=1, repeats=1)


def behind_all(game: LinearGame, X: Matrix, y: np.ndarray) -> dict[str, float]:
    """The test error behind each of the game's defenses, and not without any."""
    attacked = game.attacked(X, y, exact=False)
    return {name: attacked.outcome(name).test_error for name in game.defenses}


def errors_from_scratch(game: LinearGame, poison: PoisonedSet) -> dict[str, float]:
    """The test error behind each of the game's defenses, with nothing kept from anywhere."""
    X, y = vstack([game.X, poison.X]), np.concatenate([game.y, poison.y])
    errors = {}
    for name, defense in game.defenses.items():
        alone = LossDefense(game.learner) if name == "loss" else defense
        keep = sanitize(alone, X, y, game.remove)
        model = train_svm(X[keep], y[keep], game.lam).model
        errors[name] = model.error(game.X_test, game.y_test)
    return errors
