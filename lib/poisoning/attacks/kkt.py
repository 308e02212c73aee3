"""The KKT attack: choose what the defender should learn, then solve for poison that makes it so.

Section 4.2, Algorithms 3 and 4, and Appendix B.2 of Koh et al. 2021. For decoy parameters
(θ, b) the defender's optimum condition on clean data and poison is, with n = |D_c|, two distinct
poisoned points x̃_± (Theorem 1) of weights ε_±, both support vectors, and the mean hinge loss,

    (1/n) Σ_{D_c} ∂ℓ + (1 + ε)λθ − ε_+x̃_+ + ε_-x̃_- = 0.

The norm of the left-hand side is minimised over the feasible set for every ratio ε_+ : ε_- on a
grid; the solutions are rounded, and the candidate that does most harm behind its most effective
defense wins (:mod:`poisoning.attacks.selection`). Eq. (17) writes λθ: the factor 1 + ε appears
because the defender's mean is over (1 + ε)n points.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.arrays import Matrix, vstack
from poisoning.attacks.decoy import Decoy, likely_first
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.attacks.selection import AttackResult, select
from poisoning.defenses.evaluation import Evaluator
from poisoning.errors import SolverError
from poisoning.feasible.rounding import budget, realise
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import match_gradient
from poisoning.models.linear import LinearModel

ON_THE_HINGE = 1e-4  # margins this near 1 are 1: the decoy is only solved to its own tolerance


@dataclass(frozen=True)
class KKTSettings:
    """The knobs; defaults as in Appendix B.2 for Enron, percentiles as in the authors' code.

    ``epsilon``: poison as a fraction of the clean training set. ``radius_percentile`` and
    ``slab_percentile``: the attacker stays within these percentiles of the clean distances;
    ``loss_percentile``: and within this percentile of the clean losses under the decoy, class by
    class. ``repeats``: copies of each rounded point. ``ratios``: how many ε_+ from 0 to ε are
    tried, beside the one that balances the intercept. ``quantiles`` and ``decoy_repeats``: the
    grid of decoys. ``opening``: the (quantile, repeats) of the decoy tried while no other is
    trained yet; others follow in the order of how near their test error is to that decoy's. It
    decides how soon a good attack is found, hardly how good the winner is.
    """

    epsilon: float = 0.03
    radius_percentile: float = 90.0
    slab_percentile: float = 90.0
    loss_percentile: float = 90.0
    repeats: int = 2
    ratios: int = 7
    quantiles: tuple[float, ...] = tuple(round(0.05 * k, 2) for k in range(1, 12))
    decoy_repeats: tuple[int, ...] = (1, 2, 3, 5, 8, 12, 18, 25, 33)
    opening: tuple[float, int] = (0.4, 8)


@dataclass(frozen=True)
class KKTSource:
    """One decoy at one ratio; ``objective`` and ``gap`` are those of problem (17), ½‖·‖².

    They are NaN where the problem has no certified solution.
    """

    decoy: Decoy
    epsilon_plus: float
    objective: float
    gap: float


def kkt_attack(
    evaluator: Evaluator,
    domain: InputDomain,
    settings: KKTSettings,
    rng: np.random.Generator,
    *,
    feasible: FeasibleSet | None = None,
    enough: float = np.inf,
    progress: Callable[[str], None] | None = None,
) -> AttackResult[KKTSource]:
    """Algorithms 3 and 4 against the clean data and the five defenses of ``evaluator``.

    ``feasible`` is the set without decoy constraints, by default that of the clean data; iterative
    optimisation (Algorithm 1) passes refitted ones. The winner is chosen by
    :func:`poisoning.attacks.selection.select`, which explains ``enough`` and ``progress``.

    Raises ``SolverError`` if no decoy has a point in the feasible set, ``ValueError`` if ε leaves
    no poisoned point.
    """
    begun = perf_counter()
    X, y, n = evaluator.X, evaluator.y, len(evaluator.y)
    if round(settings.epsilon * n) == 0:
        raise ValueError(f"epsilon {settings.epsilon:g} of {n} points is not a single one.")
    if feasible is None:
        feasible = FeasibleSet.fit(
            X, y, domain, settings.radius_percentile, settings.slab_percentile
        )
    candidates = (
        attempt
        for decoy, stream in likely_first(
            evaluator, settings.quantiles, settings.decoy_repeats, settings.opening, rng
        )
        for attempt in attempts(X, y, evaluator.lam, feasible, decoy, settings, stream)
    )
    return select(evaluator, candidates, begun, enough=enough, progress=progress)


def attempts(
    X: Matrix,
    y: Float[ndarray, "n"],
    lam: float,
    base: FeasibleSet,
    decoy: Decoy,
    settings: KKTSettings,
    rng: np.random.Generator,
) -> list[tuple[KKTSource, PoisonedSet | None]]:
    """Algorithm 4 for one decoy, up to the measurement: poison for every ratio ε_+ : ε_-.

    ``base`` is the feasible set without decoy constraints. The attempts come in order of their
    objective, so those that come nearest to the decoy are first; last, without poison, ratios whose
    feasible set is empty or whose problem (17) cannot be certified solved.
    """
    n, model = len(y), decoy.model
    caps = loss_caps(model, X, y, settings.loss_percentile)
    feasible = base.under_decoy(model.theta, model.bias, caps)
    gradient, bias_gradient = clean_gradient(model, X, y, lam, settings.epsilon)
    grid = ratio_grid(settings.epsilon, settings.ratios, bias_gradient, n)
    domain = feasible.positive.domain
    found: list[tuple[KKTSource, PoisonedSet | None]] = []
    failed: list[tuple[KKTSource, PoisonedSet | None]] = []
    for sizes, stream in zip(grid, rng.spawn(len(grid)), strict=True):
        epsilon_plus = sizes[0] / n
        try:
            solution = match_gradient(gradient, epsilon_plus, sizes[1] / n, feasible)
        except SolverError:
            failed.append((KKTSource(decoy, epsilon_plus, np.nan, np.nan), None))
            continue
        rows = [
            realise(x, size, settings.repeats, domain, stream)
            for x, size in zip(solution.points, sizes, strict=True)
        ]
        labels = np.repeat([1.0, -1.0], sizes)
        poisoned = PoisonedSet(vstack([X[:0], *rows]), labels, n, settings.epsilon, domain)
        source = KKTSource(decoy, epsilon_plus, solution.objective, solution.gap)
        found.append((source, poisoned))
    return sorted(found, key=lambda pair: pair[0].objective) + failed


def loss_caps(
    model: LinearModel, X: Matrix, y: Float[ndarray, "n"], percentile: float
) -> tuple[float, float]:
    """The percentile (0 to 100) of the clean hinge losses under ``model``, for +1 and for −1.

    If the attack works, the defender's model is near the decoy, and so are the losses it sees.
    """
    losses = model.hinge(X, y)
    positive, negative = (np.percentile(losses[y == label], percentile) for label in (1.0, -1.0))
    return float(positive), float(negative)


def clean_gradient(
    model: LinearModel, X: Matrix, y: Float[ndarray, "n"], lam: float, epsilon: float
) -> tuple[Float[ndarray, "d"], float]:
    """(1/n) Σ ∂ℓ + (1 + ε)λ(θ, b) at ``model``: its part in θ (d,) and its part in b.

    Of the subgradients at the hinge, those of points with margin exactly 1, 0 is chosen.
    """
    pulling = y * (model.margins(X, y) < 1.0 - ON_THE_HINGE) / len(y)
    scale = (1.0 + epsilon) * lam
    return scale * model.theta - X.T @ pulling, float(scale * model.bias - pulling.sum())


def ratio_grid(epsilon: float, ratios: int, bias_gradient: float, n: int) -> list[tuple[int, int]]:
    """The numbers of positive and negative poisoned points to try, in ascending order.

    ``ratios`` values of ε_+ evenly from 0 to ε, and the one for which the poison, which adds
    ε_- − ε_+ to the gradient in b, cancels ``bias_gradient``: problem (17) leaves b out.
    """
    balanced = float(np.clip((epsilon + bias_gradient) / 2.0, 0.0, epsilon))
    shares = [*np.linspace(0.0, 1.0, ratios), balanced / epsilon]
    return sorted({budget(epsilon, n, float(share)) for share in shares})
