"""What the notebooks of Koh et al. 2021 share: the paper's constants, attacks, and games."""

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import joblib
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.arrays import column_mean, vstack
from poisoning.attacks.attacked import Attack, Attacked
from poisoning.attacks.decoy import find_decoys
from poisoning.attacks.influence import Influence
from poisoning.attacks.kkt import KKT, loss_caps
from poisoning.attacks.label_flips import Alfa, RandomFlips
from poisoning.attacks.min_max import MinMax
from poisoning.attacks.min_max_multiclass import MulticlassPoison, refined_attacks
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.attacks.selection import Tried
from poisoning.datasets import Dataset, split
from poisoning.defenses import FIVE
from poisoning.defenses.detector import name_of
from poisoning.defenses.filters import OracleFilter, RandomFilter
from poisoning.defenses.validation import removal_by_validation
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import NONE, LinearGame, Outcome
from poisoning.learners import SVM, CrammerSingerSVM
from poisoning.models.multiclass_svm import train_multiclass_svm
from replication.notebook import Notebook

SUITE = "koh2021/suite"
"""The block of knobs that sets the attacks, and whose splits and seeds notebooks share."""

LAMBDA = {"enron": 0.09, "imdb": 0.01, "mnist-1-7": 0.01, "dogfish": 1.10}
"""The defender's λ, Table 1."""

INVERSE_BALANCE = "influence-inverse-balance"
"""The influence attack with the labels of Appendix B.1, as metrics call it."""

LABELS = {
    "flip": "random flips",
    "alfa": "alfa flips",
    "influence": "influence",
    "kkt": "KKT",
    "minmax": "min-max",
}
"""Names of attacks in figures; metrics use the keys."""

NAMES = tuple(name_of(defense) for defense in FIVE)
"""The five defenses by the names of metrics."""

KINDS = {"flip": RandomFlips, "alfa": Alfa, "influence": Influence, "kkt": KKT, "minmax": MinMax}


def attacks(knobs: dict[str, Any], dataset: str = "enron", **changes: Any) -> dict[str, Attack]:
    """Every attack as the block ``koh2021.suite`` of ``params.yaml`` sets it, by name.

    Settings of the block itself hold for each attack that has them, those below an attack's name
    for it alone, and those below a data set's name for that set. ``changes`` override all of these.
    """
    special = knobs.get(dataset, {})
    found = {}
    for name, kind in KINDS.items():
        given = knobs | special | knobs.get(name, {}) | changes
        own = {field.name for field in fields(kind)} & set(given)
        found[name] = kind(**{key: given[key] for key in own})
    return found


def game_on_split(
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float = 0.05,
    *,
    learner: Any = None,
    defenses: Any = FIVE,
) -> LinearGame:
    """The paper's game on one random split of a data set: an SVM behind the five defenses.

    ``learner`` and ``defenses`` are the defender's, where they are others. Games on one split are
    kept until another split is asked for: attacks and defenders find what is known of the clean
    data, of which the spectrum takes a minute on IMDB. ``split_rng`` moves on only when the split
    is drawn.
    """
    games = _kept(joblib.hash((dataset, split_rng)))
    own = learner is None and defenses is FIVE
    if own and (lam, remove) in games:
        return games[lam, remove]
    learner = SVM(lam) if learner is None else learner
    if games:
        game = next(iter(games.values())).with_defender(learner, defenses, remove)
    else:
        part = split(dataset, split_rng)
        game = LinearGame(
            part.X, part.y, part.X_test, part.y_test, domain=dataset.domain,
            learner=learner, defenses=defenses, remove=remove,
        )  # fmt: skip
    games.setdefault((lam, remove) if own else "another", game)
    return game


@lru_cache(maxsize=1)
def _kept(split: str) -> dict[Any, LinearGame]:
    """The same dictionary for the same ``split``, empty at first, until another is asked for."""
    return {}


def attack_on_split(
    attack: Attack,
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
    rng: np.random.Generator,
    *,
    blind: bool = False,
) -> Attacked | None:
    """One attack on one random split: the unit of work that several notebooks share.

    None if no poison is feasible. ``blind`` hides the test data from the attacker, also in the
    outcomes (Section 6.1).
    """
    game = game_on_split(dataset, split_rng, lam, remove)
    try:
        found = attack(game.blind() if blind else game, rng)
    except EmptySetError:
        return None
    if not isinstance(found, Attacked):
        raise TypeError(
            f"{type(attack).__name__} returned a {type(found).__name__}, not an Attacked: end it "
            "with po.measured(game, points, labels)."
        )
    return _bare(found)


def _bare(found: Attacked) -> Attacked:
    """Without what no notebook reads, nine tenths of a record.

    The models behind defenses, and what the candidates came from that did not win.
    """
    outcomes = {
        name: one if name == NONE else replace(one, model=None)
        for name, one in found.outcomes.items()
    }
    history = tuple(
        replace(one, source=None) if isinstance(one, Tried) else one for one in found.history
    )
    return replace(found, outcomes=outcomes, history=history)


def attack_on_one_defense(
    defense: Any,
    attack: Attack,
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
    rng: np.random.Generator,
) -> Attacked | None:
    """An attack that knows the one defense it will meet; None if no poison is feasible."""
    game = game_on_split(dataset, split_rng, lam, remove).with_defenses((defense,))
    try:
        return attack(game, rng)
    except EmptySetError:
        return None


def meet_defenders(
    dataset: Dataset,
    split_rng: np.random.Generator,
    poisoned: PoisonedSet | None,
    learner: Any,
    defenses: Any,
    remove: float,
    rng: np.random.Generator | None = None,
) -> dict[str, tuple[float, float, dict[float, float]]]:
    """The effect of given poison behind a defender's learner and defenses.

    By defense, "none" included: test error, share of the poison removed, and share of the clean
    points of each class removed. ``poisoned`` None is no poison.
    """
    game = game_on_split(dataset, split_rng, 0.0, remove, learner=learner, defenses=defenses)
    X, y = (game.X[:0], game.y[:0]) if poisoned is None else (poisoned.X, poisoned.y)
    return {
        name: (outcome.test_error, outcome.poison_removed, outcome.clean_removed_by_label)
        for name, outcome in game.evaluate(X, y, rng=rng).items()
    }


@dataclass(frozen=True)
class BesideFilters:
    """The outcomes of an attack, and those of baselines.

    ``filters``: outcomes of a blind and of a perfect filter of its poison. ``clean_error`` is the
    test error without poison. ``excess`` (2, d): by how much the mean of the poison of a class, +1
    and −1, is above the mean of the class's clean points; 0 for a class without poison.
    """

    attacked: Attacked
    filters: dict[str, Outcome]
    clean_error: float
    excess: Float[ndarray, "2 d"]

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Outcomes without a defense, behind the five, and behind the two filters."""
        return self.attacked.outcomes | self.filters


def attack_beside_filters(
    attack: Attack,
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
    rng: np.random.Generator,
) -> BesideFilters:
    """One attack on one random split, beside a random filter and an oracle."""
    game = game_on_split(dataset, split_rng, lam, remove)
    attacked = attack(game, rng)
    poison = attacked.poison
    filters = game.with_defenses((RandomFilter(), OracleFilter()))
    outcomes = filters.evaluate(poison.X, poison.y, rng=rng)
    del outcomes[NONE]
    excess = np.zeros((2, game.X.shape[1]))
    for row, label in zip(excess, (1.0, -1.0), strict=True):
        if np.any(poison.y == label):
            row += column_mean(poison.X[poison.y == label])
            row -= column_mean(game.X[game.y == label])
    error = game.clean_svm.model.error(game.X_test, game.y_test)
    return BesideFilters(attacked, outcomes, error, excess)


def repeats(knobs: dict[str, Any], dataset: Dataset) -> range:
    """The repeats of an attack, given the block ``koh2021.suite``.

    Random splits; on a published split the attack's own random numbers.
    """
    return range(knobs["splits"] if dataset.X_test is None else knobs["seeds"])


def shared_split(notebook: Notebook, dataset: Dataset, repeat: int) -> np.random.Generator:
    """What draws the split of a repeat, which all notebooks of the block share.

    The same for every repeat on a published split, whose game is then made once.
    """
    return notebook.rng("split", repeat if dataset.X_test is None else 0, section=SUITE)


def shared_unit(
    notebook: Notebook,
    dataset: Dataset,
    repeat: int,
    key: str,
    attack: Attack,
    remove: float,
    lam: float | None = None,
) -> dict[str, Any]:
    """Arguments of :func:`attack_on_split` that are the same in every notebook that asks for them.

    ``key`` is the attack's name in metrics; splits and seeds belong to the block ``koh2021.suite``.
    ``lam`` is the defender's λ, by default that of Table 1.
    """
    return {
        "attack": attack,
        "dataset": dataset,
        "split_rng": shared_split(notebook, dataset, repeat),
        "lam": LAMBDA[dataset.name] if lam is None else lam,
        "remove": remove,
        "rng": notebook.rng(dataset.name, key, repeat, section=SUITE),
    }


def decoys_kept(
    attack: KKT, dataset: Dataset, split_rng: np.random.Generator, lam: float, remove: float
) -> int:
    """How many decoys of an attack's grid are left after pruning; Appendix B.2."""
    game = game_on_split(dataset, split_rng, lam, remove)
    data = game.X, game.y, game.X_test, game.y_test, lam
    clean = game.clean_svm.model
    return len(find_decoys(*data, attack.quantiles, attack.decoy_copies, clean=clean))


def cap_at_quantile(
    attacked: Attacked,
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
    percentile: float,
) -> float:
    """The percentile of the clean losses under the decoy of an attack, of the class with more."""
    game = game_on_split(dataset, split_rng, lam, remove)
    return max(loss_caps(attacked.source.decoy.model, game.X, game.y, percentile))


def validated_on_split(
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    poisoned: PoisonedSet,
    removals: list[float],
    defenses: Any = FIVE,
) -> dict[str, tuple[float, float]]:
    """For each of the defenses: the p chosen by validation, and the test error with it."""
    part = split(dataset, split_rng)
    X, y = vstack([part.X, poisoned.X]), np.concatenate([part.y, poisoned.y])
    found = {}
    for defense in defenses:
        p, model = removal_by_validation(defense, SVM(lam), X, y, removals, 0)
        found[name_of(defense)] = (p, float(np.mean(model.predict(part.X_test) != part.y_test)))
    return found


# Ten classes (Section 5.7) ------------------------------------------------------------------------


def ten_class_game(
    dataset: Dataset, split_rng: np.random.Generator, remove: float = 0.05
) -> LinearGame:
    """Ten classes behind the L2 and the loss defense, learned by Crammer & Singer's SVM."""
    part = split(dataset, split_rng)
    few = tuple(defense for defense in FIVE if defense.name in ("l2", "loss"))
    return LinearGame(
        part.X, part.y, part.X_test, part.y_test, domain=dataset.domain,
        learner=CrammerSingerSVM(), defenses=few, remove=remove,
    )  # fmt: skip


def refined_on_split(
    settings: MinMax,
    dataset: Dataset,
    split_rng: np.random.Generator,
    rng: np.random.Generator,
    quantile: float,
    copies: int,
    rounds: int,
) -> tuple[list[tuple[MulticlassPoison, float]], float]:
    """The poison of every round with its decoy's test error (NaN for none), and the clean error.

    See :func:`poisoning.attacks.min_max_multiclass.refined_attacks`.
    """
    game = ten_class_game(dataset, split_rng)
    clean = train_multiclass_svm(game.X, game.y, len(game.labels), rng)
    test = game.X_test, game.y_test
    found = [
        (one.poison, np.nan if one.decoy is None else one.decoy.error(*test))
        for one in refined_attacks(game, settings, clean, quantile, copies, rounds, rng)
    ]
    return found, clean.error(*test)


def ten_class_defenders(
    dataset: Dataset,
    split_rng: np.random.Generator,
    poison: MulticlassPoison,
    remove: float,
    rng: np.random.Generator,
) -> dict[str, tuple[float, float, float]]:
    """By defense: test error, share of the poison removed and of the clean data.

    ``rng`` draws the order that the defender trains in, which alone moves an error on MNIST by
    ±0.2 points.
    """
    game = ten_class_game(dataset, split_rng, remove)
    return {
        name: (outcome.test_error, outcome.poison_removed, outcome.clean_removed)
        for name, outcome in game.evaluate(poison.X, poison.y, rng=rng).items()
    }
