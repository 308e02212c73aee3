"""The KKT attack: choose what the defender should learn, then solve for poison that makes it so.

Section 4.2, Algorithms 3 and 4, and Appendix B.2 of Koh et al. 2021. For decoy parameters
(θ, b) the defender's optimum condition on clean data and poison is, with n = |D_c|, two distinct
poisoned points x̃_± (Theorem 1) of weights ε_±, both support vectors, and the mean hinge loss,

    (1/n) Σ_{D_c} ∂ℓ + (1 + ε)λθ − ε_+x̃_+ + ε_-x̃_- = 0.

The norm of the left-hand side is minimised over the feasible set for every ratio ε_+ : ε_- on a
grid; the solutions are rounded, and the candidate that does most harm behind its most effective
defense wins (:mod:`lib.attacks.selection`). Eq. (17) writes λθ: the factor 1 + ε appears because
the defender's mean is over (1 + ε)n points.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lib.arrays import Matrix, vstack
from lib.attacks.decoy import Decoy, find_decoys
from lib.attacks.poisoned_set import PoisonedSet
from lib.attacks.selection import BestFirst
from lib.defenses.evaluation import Evaluation, Evaluator
from lib.errors import SolverError
from lib.feasible.rounding import budget, realise
from lib.feasible.sets import FeasibleSet, InputDomain
from lib.feasible.solver import match_gradient
from lib.models.linear import LinearModel

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
class Candidate:
    """One decoy at one ratio, in the order tried.

    ``objective`` and ``gap`` are those of problem (17), ½‖·‖². ``l2_error`` is the test error
    behind the L2 defense. ``minimum_error`` is the least over the five defenses if ``complete``,
    else an upper bound on it that shows the candidate no better than the winner. ``seconds`` had
    passed since the attack began when ``l2_error`` was known; they are all that differs between
    two runs with one seed.
    """

    decoy: Decoy
    epsilon_plus: float
    objective: float
    gap: float
    l2_error: float
    minimum_error: float
    complete: bool
    seconds: float


@dataclass(frozen=True)
class KKTResult:
    """The best attack, the decoy and ε_+ it came from, what it does, and all that was tried.

    ``skipped`` counts the problems (17), one per decoy and ratio, that gave no candidate: no
    feasible point, or no certified solution.
    """

    poisoned: PoisonedSet
    decoy: Decoy
    epsilon_plus: float
    evaluation: Evaluation
    history: tuple[Candidate, ...]
    skipped: int


def kkt_attack(
    evaluator: Evaluator,
    domain: InputDomain,
    settings: KKTSettings,
    rng: np.random.Generator,
    *,
    enough: float = np.inf,
    progress: Callable[[str], None] | None = None,
) -> KKTResult:
    """Algorithms 3 and 4 against the clean data and the five defenses of ``evaluator``.

    The winner has the highest minimum test error over the five defenses (the first of equals).
    The search ends early when a candidate reaches ``enough``. ``progress`` is called with a line
    of text after every decoy.

    Raises ``SolverError`` if no decoy has a point in the feasible set, ``ValueError`` if ε leaves
    no poisoned point.
    """
    begun = perf_counter()
    X, y, n = evaluator.X, evaluator.y, len(evaluator.y)
    if round(settings.epsilon * n) == 0:
        raise ValueError(f"epsilon {settings.epsilon:g} of {n} points is not a single one.")
    base = FeasibleSet.fit(X, y, domain, settings.radius_percentile, settings.slab_percentile)
    search = BestFirst(evaluator)
    tried: list[tuple[Decoy, Attempt, float]] = []
    skipped, winner = 0, None
    for number, (decoy, stream) in enumerate(_decoys(evaluator, settings, rng), start=1):
        found, failed = attempts(X, y, evaluator.lam, base, decoy, settings, stream)
        skipped += failed
        for attempt in found:
            search.offer(attempt.poisoned)
            tried.append((decoy, attempt, perf_counter() - begun))
            winner = search.settle(enough)
            if winner is not None:
                break
        if progress is not None:
            highest = max((search.bound(k) for k in range(len(tried))), default=float("nan"))
            progress(f"decoy {number}: {len(tried)} candidates, at most {highest:.1%}")
        if winner is not None:
            break
    if not tried:
        raise SolverError(
            "KKT attack: no decoy has support vectors in the feasible set; raise the percentiles"
        )
    winner = search.settle() if winner is None else winner
    history = tuple(
        Candidate(
            decoy, attempt.epsilon_plus, attempt.objective, attempt.gap,
            search.outcomes[k]["l2"].test_error, search.bound(k), search.complete(k), seconds,
        )
        for k, (decoy, attempt, seconds) in enumerate(tried)
    )  # fmt: skip
    decoy, best, _ = tried[winner]
    return KKTResult(
        best.poisoned, decoy, best.epsilon_plus, search.evaluation(winner), history, skipped
    )


def _decoys(
    evaluator: Evaluator, settings: KKTSettings, rng: np.random.Generator
) -> Iterator[tuple[Decoy, np.random.Generator]]:
    """The opening decoy, then the grid's by how near they are to it; each with its own seed."""
    data = evaluator.X, evaluator.y, evaluator.X_test, evaluator.y_test, evaluator.lam
    clean = evaluator.clean_svm.model
    q, r = settings.opening
    (opening,) = find_decoys(*data, (q,), (r,), clean=clean)
    first, rest = rng.spawn(2)
    yield opening, first
    grid = find_decoys(*data, settings.quantiles, settings.decoy_repeats, clean=clean)
    # Seeds belong to decoys, not to the order in which they are tried.
    streams = list(zip(grid, rest.spawn(len(grid)), strict=True))
    streams.sort(key=lambda pair: abs(pair[0].test_error - opening.test_error))
    yield from (
        (decoy, stream) for decoy, stream in streams if (decoy.quantile, decoy.repeats) != (q, r)
    )


@dataclass(frozen=True)
class Attempt:
    """The poison found for one decoy and one ε_+, with problem (17)'s ½‖·‖² and certified gap."""

    poisoned: PoisonedSet
    epsilon_plus: float
    objective: float
    gap: float


def attempts(
    X: Matrix,
    y: Float[ndarray, "n"],
    lam: float,
    base: FeasibleSet,
    decoy: Decoy,
    settings: KKTSettings,
    rng: np.random.Generator,
) -> tuple[list[Attempt], int]:
    """Algorithm 4 for one decoy, up to the measurement: poison for every ratio ε_+ : ε_-.

    ``base`` is the feasible set without decoy constraints. The attempts come in order of their
    objective, so those that come nearest to the decoy are first. A ratio is left out if the
    feasible set is empty for it or problem (17) cannot be certified solved; the second answer
    is how many were.
    """
    n, model = len(y), decoy.model
    caps = loss_caps(model, X, y, settings.loss_percentile)
    feasible = base.under_decoy(model.theta, model.bias, caps)
    gradient, bias_gradient = clean_gradient(model, X, y, lam, settings.epsilon)
    grid = ratio_grid(settings.epsilon, settings.ratios, bias_gradient, n)
    found = []
    for sizes, stream in zip(grid, rng.spawn(len(grid)), strict=True):
        try:
            solution = match_gradient(gradient, sizes[0] / n, sizes[1] / n, feasible)
        except SolverError:
            continue
        domain = feasible.positive.domain
        rows = [
            realise(x, size, settings.repeats, domain, stream)
            for x, size in zip(solution.points, sizes, strict=True)
        ]
        labels = np.repeat([1.0, -1.0], sizes)
        poisoned = PoisonedSet(vstack([X[:0], *rows]), labels, n, settings.epsilon, domain)
        found.append(Attempt(poisoned, sizes[0] / n, solution.objective, solution.gap))
    found.sort(key=lambda attempt: attempt.objective)
    return found, len(grid) - len(found)


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
