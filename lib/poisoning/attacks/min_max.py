"""The min-max attack: play, again and again, the feasible point that the learner fits worst.

Section 4.3 and Algorithm 5 of Koh et al. 2021, after Steinhardt, Koh & Liang 2017. Clean training
loss stands in for test loss, and poisoned loss is added to it, which turns the attacker's bilevel
problem into a saddle point with the convex outer function

    U(θ) = (1 + ε)λ/2 ‖θ‖² + (1/n) Σ_{D_c} ℓ(θ; x, y) + ε max_{(x, y) ∈ F} ℓ(θ; x, y).     (Eq. 21)

AdaGrad on U meets one maximiser (x, y) per step; after a burn-in they become the poison. *Basic*
does just that. The *improved* attack adds ℓ(θ_decoy; x, y) ≤ τ to F (Eq. 22), so that a defender
who is pulled towards the decoy finds the poison unsuspicious.
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
from poisoning.attacks.worst_point import WorstPointSearch
from poisoning.defenses.evaluation import Evaluator
from poisoning.feasible.rounding import realise
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import EmptySetError
from poisoning.models.linear import LinearModel

_INNER_TOL = 1e-3  # relative; what is left of the maximum is less than what rounding changes


@dataclass(frozen=True)
class MinMaxSettings:
    """The knobs. Given in the paper: ``epsilon``, ``loss_cap``, the grid of decoys.

    ``epsilon``: poison as a fraction of the clean training set. ``radius_percentile`` and
    ``slab_percentile``: the attacker stays within these percentiles of the clean distances.
    ``loss_cap``: τ of Eq. (22). ``repeats``: r, copies of each rounded point, and so one attack
    step for every r points. ``step``: AdaGrad's η; its accumulators start at 1. ``burn_in``: steps
    without poison, as a multiple of those with it. ``quantiles`` and ``decoy_repeats``: the grid
    of decoys. ``opening``: the (quantile, repeats) of the decoy tried first.
    """

    epsilon: float = 0.03
    radius_percentile: float = 90.0
    slab_percentile: float = 90.0
    loss_cap: float = 0.25
    repeats: int = 2
    step: float = 0.03
    burn_in: float = 2.33
    quantiles: tuple[float, ...] = tuple(round(0.05 * k, 2) for k in range(1, 12))
    decoy_repeats: tuple[int, ...] = (1, 2, 3, 5, 8, 12, 18, 25, 33)
    opening: tuple[float, int] = (0.4, 8)


@dataclass(frozen=True)
class MinMaxPoison:
    """The poison of one run of Algorithm 5.

    ``bound`` is the least U(θ) of Eq. (21) over all steps, inner gap included: no poison within
    the feasible set can push (1 + ε) times the defender's regularised training loss, and with it
    the mean clean hinge loss and the clean training error, above it. With a decoy it holds for
    poison within Eq. (22) only; :func:`poisoning.attacks.certificate.certify_loss` finds tighter
    ones. ``learner`` is the model at the last step, and ``steps`` counts them all.
    """

    poisoned: PoisonedSet
    bound: float
    learner: LinearModel
    steps: int


@dataclass(frozen=True)
class MinMaxSource:
    """The decoy that an attack was made for, and how much of the poison came out labelled +1."""

    decoy: Decoy
    positive_share: float


def min_max_attack(
    evaluator: Evaluator,
    domain: InputDomain,
    settings: MinMaxSettings,
    rng: np.random.Generator,
    *,
    feasible: FeasibleSet | None = None,
    enough: float = np.inf,
    progress: Callable[[str], None] | None = None,
) -> AttackResult[MinMaxSource]:
    """The improved attack: Algorithm 5 for every pruned decoy, and the best of them.

    ``feasible`` is the set without decoy constraint, by default fitted on the clean data; iterative
    optimisation (Algorithm 1) passes refitted ones. The winner is chosen by
    :func:`poisoning.attacks.selection.select`, which explains ``enough`` and ``progress``.

    Raises ``SolverError`` if no decoy leaves a feasible point, ``ValueError`` if ε leaves no
    poisoned point.
    """
    begun = perf_counter()
    if feasible is None:
        feasible = FeasibleSet.fit(
            evaluator.X, evaluator.y, domain, settings.radius_percentile, settings.slab_percentile
        )
    candidates = (
        _attempt(evaluator, feasible, domain, settings, decoy, stream)
        for decoy, stream in likely_first(
            evaluator, settings.quantiles, settings.decoy_repeats, settings.opening, rng
        )
    )
    return select(evaluator, candidates, begun, enough=enough, progress=progress)


def _attempt(
    evaluator: Evaluator,
    feasible: FeasibleSet,
    domain: InputDomain,
    settings: MinMaxSettings,
    decoy: Decoy,
    rng: np.random.Generator,
) -> tuple[MinMaxSource, PoisonedSet | None]:
    """The poison for one decoy; None if nothing feasible looks normal under it."""
    try:
        poisoned = min_max_poison(
            evaluator.X, evaluator.y, evaluator.lam, feasible, domain, settings, rng,
            clean=evaluator.clean_svm.model, decoy=decoy.model,
        ).poisoned  # fmt: skip
    except EmptySetError:
        return MinMaxSource(decoy, float("nan")), None
    return MinMaxSource(decoy, float(np.mean(poisoned.y > 0.0))), poisoned


def min_max_poison(
    X: Matrix,
    y: Float[ndarray, "n"],
    lam: float,
    feasible: FeasibleSet,
    domain: InputDomain,
    settings: MinMaxSettings,
    rng: np.random.Generator,
    *,
    clean: LinearModel,
    decoy: LinearModel | None = None,
) -> MinMaxPoison:
    """Algorithm 5 against clean data (X, y): improved with a ``decoy``, basic without.

    ``feasible`` is the set without decoy constraint, and ``clean`` the model of the clean data,
    where θ starts. Points are rounded to ``domain``: usually that of ``feasible``, whose ball then
    bounds the expected norm of the rounded points. Basic, for counts, with r = 1 and a ``feasible``
    fitted over ``replace(domain, kind="nonnegative")``, this is the attack of Steinhardt et al.
    2017 before the augmentations of Section 3.3.

    Raises ``EmptySetError`` if no class has a feasible point, ``SolverError`` if an inner problem
    is not solved to its tolerance, ``ValueError`` if ε leaves no poisoned point.
    """
    n, epsilon = len(y), settings.epsilon
    size = round(epsilon * n)
    if size == 0:
        raise ValueError(f"epsilon {epsilon:g} of {n} points is not a single one.")
    if decoy is not None:
        feasible = well_fitted(feasible, decoy, settings.loss_cap)
    attack_steps = -(-size // settings.repeats)
    burn_in = round(settings.burn_in * attack_steps)

    search = WorstPointSearch(feasible, _INNER_TOL)
    w = np.append(clean.theta, clean.bias)
    accumulator = np.ones_like(w)
    bound, rows, labels = np.inf, [], []
    for step in range(burn_in + attack_steps):
        model = LinearModel(w[:-1], float(w[-1]))
        worst = search.find(model)
        margins = model.margins(X, y)
        outer = 0.5 * (1.0 + epsilon) * lam * float(w @ w)
        outer += float(np.maximum(0.0, 1.0 - margins).mean()) + epsilon * max(0.0, worst.bound)
        bound = min(bound, outer)
        if step >= burn_in:
            copies = min(settings.repeats, size - len(labels))
            rows.append(realise(worst.x, copies, copies, domain, rng))
            labels += [worst.label] * copies
        pulling = y * (margins < 1.0) / n
        gradient = (1.0 + epsilon) * lam * w - np.append(X.T @ pulling, pulling.sum())
        if worst.loss > 0.0:
            gradient -= epsilon * worst.label * np.append(worst.x, 1.0)
        accumulator += gradient**2
        w = w - settings.step * gradient / np.sqrt(accumulator)
    poisoned = PoisonedSet(vstack([X[:0], *rows]), np.array(labels), n, epsilon, domain)
    return MinMaxPoison(
        poisoned, bound, LinearModel(w[:-1].copy(), float(w[-1])), burn_in + attack_steps
    )


def well_fitted(feasible: FeasibleSet, decoy: LinearModel, cap: float) -> FeasibleSet:
    """The set with ℓ(θ_decoy; x, y) ≤ ``cap`` added: y(θ·x + b) ≥ 1 − cap; Eq. (22)."""
    positive = feasible.positive.with_row(decoy.theta, 1.0 - cap - decoy.bias, np.inf)
    negative = feasible.negative.with_row(decoy.theta, -np.inf, cap - 1.0 - decoy.bias)
    return FeasibleSet(positive, negative)
