"""All attacks of Koh et al. 2021 behind one call, as the notebooks deploy them."""

from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np

from poisoning.attacks.influence import InfluenceSettings, influence_attack
from poisoning.attacks.kkt import KKTSettings, kkt_attack
from poisoning.attacks.label_flips import alfa, random_flips
from poisoning.attacks.min_max import MinMaxSettings, min_max_attack
from poisoning.attacks.selection import AttackResult, select
from poisoning.datasets import Dataset, split
from poisoning.defenses.evaluation import Evaluator
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import EmptySetError

ATTACKS = ("flip", "alfa", "influence", "kkt", "minmax")
"""Two label-flip baselines and the paper's three, by the names of metrics."""


@dataclass(frozen=True)
class Suite:
    """The settings of every attack. The baselines obey ε and the percentiles of ``kkt``.

    ``alfa_copies``: how often alfa may add the same point; None, as in the paper, is no limit.
    """

    influence: InfluenceSettings = field(default_factory=InfluenceSettings)
    kkt: KKTSettings = field(default_factory=KKTSettings)
    minmax: MinMaxSettings = field(default_factory=MinMaxSettings)
    alfa_copies: int | None = None

    def at(self, epsilon: float) -> "Suite":
        """The same with another fraction of poison."""
        return replace(
            self,
            influence=replace(self.influence, epsilon=epsilon),
            kkt=replace(self.kkt, epsilon=epsilon),
            minmax=replace(self.minmax, epsilon=epsilon),
        )


def launch(
    name: str,
    evaluator: Evaluator,
    domain: InputDomain,
    suite: Suite,
    rng: np.random.Generator,
    *,
    feasible: FeasibleSet | None = None,
) -> AttackResult:
    """One of ``ATTACKS`` against the clean data and the five defenses of ``evaluator``.

    ``feasible`` is the set that poison must lie in, by default that of the clean data at the
    attack's own percentiles. Label flips draw from the test data (Appendix D). Raises what the
    attack raises, and ``ValueError`` for another name.
    """
    match name:
        case "influence":
            return influence_attack(evaluator, domain, suite.influence, rng, feasible=feasible)
        case "kkt":
            return kkt_attack(evaluator, domain, suite.kkt, rng, feasible=feasible)
        case "minmax":
            return min_max_attack(evaluator, domain, suite.minmax, rng, feasible=feasible)
        case "flip" | "alfa":
            return _label_flips(name, evaluator, domain, suite, rng, feasible)
    raise ValueError(f"there is no attack {name!r}; there are {', '.join(ATTACKS)}")


def _label_flips(
    name: str,
    evaluator: Evaluator,
    domain: InputDomain,
    suite: Suite,
    rng: np.random.Generator,
    feasible: FeasibleSet | None,
) -> AttackResult:
    begun = perf_counter()
    X, y, settings = evaluator.X, evaluator.y, suite.kkt
    if feasible is None:
        feasible = FeasibleSet.fit(
            X, y, domain, settings.radius_percentile, settings.slab_percentile
        )
    pool = evaluator.X_test, evaluator.y_test
    if name == "flip":
        poisoned = random_flips(
            *pool, len(y), settings.epsilon, domain, rng, feasible=feasible
        )  # fmt: skip
    else:
        poisoned = alfa(
            X, y, *pool, evaluator.lam, settings.epsilon, domain, feasible=feasible,
            clean=evaluator.clean_svm.model, copies=suite.alfa_copies,
        )  # fmt: skip
    return select(evaluator, [(name, poisoned)], begun)


def launch_on_split(
    name: str,
    dataset: Dataset,
    split_rng: np.random.Generator,
    lam: float,
    remove: float,
    suite: Suite,
    rng: np.random.Generator,
    *,
    blind: bool = False,
) -> AttackResult | None:
    """One attack on one random split of a data set: the unit of work that notebooks share.

    None if there is no such attack: nothing that it could play is feasible.

    ``blind`` hides the test data from the attacker, who optimises against the clean training data
    in their place (Section 6.1); so does the evaluation in the result.
    """
    part = split(dataset, split_rng)
    target = (part.X, part.y) if blind else (part.X_test, part.y_test)
    evaluator = Evaluator(part.X, part.y, *target, lam, remove)
    try:
        return launch(name, evaluator, InputDomain.of(dataset.domain, part.X), suite, rng)
    except EmptySetError:
        return None
