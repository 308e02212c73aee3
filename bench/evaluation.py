"""One attack behind the five defenses of Koh et al. 2021, each exact.

Ours keeps what the clean data contribute: how long that takes, once, is ``one_off_s``. The peer
keeps nothing: for every defense it fits the detector to clean data and poison, discards, and
trains. ``agreement`` is the largest difference between the two in a test error. The attacks are
those of the KKT attack for one decoy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.data import examples
from bench.timing import Race, timed
from poisoning.arrays import vstack
from poisoning.attacks.decoy import find_decoys
from poisoning.attacks.kkt import KKTSettings, attempts
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.defenses.centroid import fit_l2, fit_slab
from poisoning.defenses.detector import sanitize
from poisoning.defenses.evaluation import FIVE, Evaluator
from poisoning.defenses.knn import fit_knn
from poisoning.defenses.loss import fit_loss
from poisoning.defenses.svd import fit_svd
from poisoning.feasible.sets import FeasibleSet, InputDomain
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
        evaluator = Evaluator(data.X, data.y, data.X_test, data.y_test, LAMBDA[self.dataset])
        poison = self._poison(evaluator)
        bar.reset(total=1 + len(poison))
        one_off, _ = timed(evaluator.evaluate, data.X[:0], data.y[:0], FIVE)
        bar.update()
        race, differences = Race(self.repeats), []
        for one in poison:
            evaluation, errors = race.run(
                partial(evaluator.evaluate, one.X, one.y, FIVE),
                partial(errors_from_scratch, evaluator, one),
            )
            differences += [abs(evaluation[name].test_error - errors[name]) for name in FIVE]
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

    def _poison(self, evaluator: Evaluator) -> Sequence[PoisonedSet]:
        X, y, lam = evaluator.X, evaluator.y, evaluator.lam
        quantile, copies = self.decoy
        (decoy,) = find_decoys(
            X, y, evaluator.X_test, evaluator.y_test, lam, (quantile,), (copies,),
            clean=evaluator.clean_svm.model,
        )  # fmt: skip
        feasible = FeasibleSet.fit(X, y, InputDomain.of("integer", X))
        rng = np.random.default_rng(0)
        found = attempts(X, y, lam, feasible, decoy, KKTSettings(), rng)
        return [one for _, one in found if one is not None][: self.attacks]


ENRON = EvaluationEntry("koh2021.evaluation", "enron", (0.4, 8), attacks=4, repeats=3)
IMDB = EvaluationEntry("koh2021.evaluation_imdb", "imdb", (0.4, 3), attacks=1, repeats=1)


def errors_from_scratch(clean: Evaluator, poison: PoisonedSet) -> dict[str, float]:
    """The test error behind each of the five, with nothing kept from anywhere."""
    X, y = vstack([clean.X, poison.X]), np.concatenate([clean.y, poison.y])
    fits = (fit_l2, fit_slab, partial(fit_loss, lam=clean.lam), fit_svd, fit_knn)
    errors = {}
    for name, fit in zip(FIVE, fits, strict=True):
        keep = sanitize(fit, X, y, clean.remove)
        model = train_svm(X[keep], y[keep], clean.lam).model
        errors[name] = model.error(clean.X_test, clean.y_test)
    return errors
