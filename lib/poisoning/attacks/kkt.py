"""The KKT attack: choose decoy parameters, then solve for poison that makes them optimal.

Section 4.2, Algorithms 3 and 4, and Appendix B.2 of Koh et al. 2021. For decoy parameters
(θ, b) the defender's optimum condition on clean data and poison is, with n = |D_c|, two distinct
poisoned points x̃_± (Theorem 1) of weights ε_±, both support vectors, and the mean hinge loss,

    (1/n) Σ_{D_c} ∂ℓ + (1 + ε)λθ − ε_+x̃_+ + ε_-x̃_- = 0.

The norm of the left-hand side is minimised over the feasible set for every ratio ε_+ : ε_- on a
grid; the solutions are rounded, and the candidate that does most harm behind its most effective
defense wins (:mod:`poisoning.attacks.selection`). Eq. (17) writes λθ: the factor 1 + ε appears
because the defender's mean is over (1 + ε)n points.
"""

from dataclasses import dataclass
from time import perf_counter

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, vstack
from poisoning.attacks.attacked import Attacked, playing
from poisoning.attacks.decoy import Decoy, likely_first
from poisoning.attacks.limits import WithDecoys
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.attacks.selection import select
from poisoning.checks import generator
from poisoning.errors import SolverError
from poisoning.feasible.rounding import budget, realise
from poisoning.feasible.sets import FeasibleSet
from poisoning.feasible.solver import match_gradient
from poisoning.games.linear import LinearGame
from poisoning.models.linear import LinearModel
from poisoning.settings import COUNT, PERCENTILE, setting

ON_THE_HINGE = 1e-4
"""Margins this near 1 count as 1: a trained model's are, to a tolerance and rounding."""


@dataclass(frozen=True)
class KKTSource:
    """One decoy at one ratio; ``objective`` and ``gap`` are those of problem (17), ½‖·‖².

    They are NaN where the problem has no certified solution.
    """

    decoy: Decoy
    epsilon_plus: float
    objective: float
    gap: float


@dataclass(frozen=True)
class KKT(WithDecoys):
    """Algorithms 3 and 4: ``KKT(0.03)(game, rng)``.

    The defaults are those of Appendix B.2 for Enron, percentiles as in the authors' code.
    """

    loss_percentile: float = setting(
        90.0, PERCENTILE, "poison stays within this percentile of the clean losses under the decoy"
    )
    ratios: int = setting(
        7, COUNT, "how many ε₊ from 0 to ε are tried, beside the one that balances the intercept"
    )

    def __call__(
        self, game: LinearGame, rng: int | np.random.Generator, *, enough: float = np.inf
    ) -> Attacked[KKTSource]:
        """The best poison over all decoys and ratios; :func:`poisoning.attacks.selection.select`.

        The search ends early when a candidate's value reaches ``enough``.

        Raises ``EmptySetError`` if no decoy has a point in the feasible set, ``ValueError`` if ε
        leaves no poisoned point, ``TypeError`` if the game's learner is no SVM.
        """
        playing(self, game, LinearGame)
        begun = perf_counter()
        game.poison_size(self.epsilon)
        lam = game.svm(type(self).__name__).lam
        feasible = game.feasible(self.radius_percentile, self.slab_percentile)
        decoys = likely_first(game, self.quantiles, self.decoy_copies, self.opening, generator(rng))
        candidates = (
            attempt
            for decoy, stream in decoys
            for attempt in attempts(game.X, game.y, lam, feasible, decoy, self, stream)
        )
        return select(game, candidates, begun, enough=enough)


def attempts(
    X: Matrix,
    y: Float[ndarray, "n"],
    lam: float,
    base: FeasibleSet,
    decoy: Decoy,
    settings: KKT,
    rng: np.random.Generator,
) -> list[tuple[KKTSource, PoisonedSet | None]]:
    """Algorithm 4 for one decoy, without the evaluation: poison for every ratio ε_+ : ε_-.

    ``base`` is the feasible set without decoy constraints. The attempts come in order of their
    objective, so those that come nearest to the decoy are first. Last come, without poison, ratios
    whose feasible set is empty or for which problem (17) has no certified solution.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument.
    """
    checks.instance(base, "base", FeasibleSet)
    checks.instance(decoy, "decoy", Decoy)
    checks.instance(settings, "settings", KKT)
    X = checks.matrix(X, "X", columns=len(decoy.model.theta))
    y, rng = checks.signs(y, "y", X.shape[0]), checks.generator(rng)
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
            realise(x, size, settings.copies, domain, stream)
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
    Raises ``ValueError`` or ``TypeError`` for data that do not fit, or a class without points.
    """
    checks.instance(model, "model", LinearModel)
    percentile = checks.between(percentile, "percentile", 0.0, 100.0)
    losses = model.hinge(X, y)
    y = checks.signs(y, "y", len(losses))
    if not (np.any(y > 0.0) and np.any(y < 0.0)):
        raise ValueError("y must hold both -1 and +1.")
    positive, negative = (np.percentile(losses[y == label], percentile) for label in (1.0, -1.0))
    return float(positive), float(negative)


def clean_gradient(
    model: LinearModel, X: Matrix, y: Float[ndarray, "n"], lam: float, epsilon: float
) -> tuple[Float[ndarray, "d"], float]:
    """(1/n) Σ ∂ℓ + (1 + ε)λ(θ, b) at ``model``: its part in θ (d,) and its part in b.

    Of the subgradients at the hinge, those of points with margin exactly 1, 0 is chosen. Raises
    ``ValueError`` or ``TypeError`` for data that do not fit.
    """
    checks.instance(model, "model", LinearModel)
    X = checks.known(X, "X", len(model.theta))
    y = checks.signs(y, "y", X.shape[0])
    lam = checks.positive(lam, "lam")
    epsilon = checks.positive(epsilon, "epsilon", zero=True)
    if not len(y):
        raise ValueError("X must have at least one row, it has none.")
    pulling = y * (model.margins(X, y) < 1.0 - ON_THE_HINGE) / len(y)
    scale = (1.0 + epsilon) * lam
    return scale * model.theta - X.T @ pulling, float(scale * model.bias - pulling.sum())


def ratio_grid(epsilon: float, ratios: int, bias_gradient: float, n: int) -> list[tuple[int, int]]:
    """The numbers of positive and negative poisoned points to try, in ascending order.

    ``ratios`` values of ε_+ evenly from 0 to ε, and the one for which the poison, which adds
    ε_- − ε_+ to the gradient in b, cancels ``bias_gradient``: problem (17) leaves b out.
    """
    epsilon, ratios = checks.positive(epsilon, "epsilon"), checks.whole(ratios, "ratios")
    bias_gradient = checks.between(bias_gradient, "bias_gradient", -np.inf, np.inf)
    n = checks.whole(n, "n")
    balanced = float(np.clip((epsilon + bias_gradient) / 2.0, 0.0, epsilon))
    shares = [*np.linspace(0.0, 1.0, ratios), balanced / epsilon]
    return sorted({budget(epsilon, n, float(share)) for share in shares})
