"""The min-max attack: train against the feasible point that the learner fits worst at each step.

Section 4.3 and Algorithm 5 of Koh et al. 2021, after Steinhardt, Koh & Liang 2017. Clean training
loss stands in for test loss, and poisoned loss is added to it, which turns the attacker's bilevel
problem into a saddle point with the convex outer function

    U(θ) = (1 + ε)λ/2 ‖θ‖² + (1/n) Σ_{D_c} ℓ(θ; x, y) + ε max_{(x, y) ∈ F} ℓ(θ; x, y).     (Eq. 21)

AdaGrad on U meets one maximiser (x, y) per step; after a burn-in they become the poison. *Basic*
does just that. The *improved* attack adds ℓ(θ_decoy; x, y) ≤ τ to F (Eq. 22), so that the poison
has a small loss under models near the decoy.
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
from poisoning.attacks.kkt import ON_THE_HINGE
from poisoning.attacks.limits import WithDecoys
from poisoning.attacks.min_max_multiclass import ClassesSource, play_classes
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.attacks.selection import select
from poisoning.attacks.worst_point import WorstPointSearch
from poisoning.checks import generator
from poisoning.feasible.rounding import realise
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import LinearGame
from poisoning.models.linear import LinearModel
from poisoning.settings import FLAG, LOSS, ROWS, STEP, setting

_INNER_TOL = 1e-3  # relative gap; the error is smaller than the changes by rounding


@dataclass(frozen=True)
class MinMaxPoison:
    """The poison of one run of Algorithm 5.

    ``bound`` is the least U(θ) of Eq. (21) over all steps, inner gap included: no poison within
    the feasible set can push (1 + ε) times the defender's regularised training loss, and with it
    the mean clean hinge loss and the clean training error, above it. With a decoy it holds for
    poison within Eq. (22) only; :func:`poisoning.certificates.loss.certify_loss` finds tighter
    ones. ``learner`` is the model at the last step, and ``steps`` counts them all.
    """

    poisoned: PoisonedSet
    bound: float
    learner: LinearModel
    steps: int


@dataclass(frozen=True)
class MinMaxSource:
    """The decoy, if any, and the share of the poison that is labelled +1."""

    decoy: Decoy | None
    positive_share: float


@dataclass(frozen=True)
class MinMax(WithDecoys):
    """Algorithm 5: ``MinMax(0.03)(game, rng)``, for two classes or more.

    The paper gives ε, ``loss_cap`` and the grid of decoys. With more than two classes the attack is
    that of :mod:`poisoning.attacks.min_max_multiclass`: every decoy of the grid is tried, there is
    no slab, points are not rounded, and each step's clean gradient is that of ``batch`` points.
    """

    loss_cap: float = setting(0.25, LOSS, "τ of Eq. (22): the loss that poison has under the decoy")
    step: float = setting(0.03, STEP, "AdaGrad's η; its accumulators start at 1")
    burn_in: float = setting(2.33, LOSS, "steps without poison, as a multiple of those with it")
    decoy: bool = setting(True, FLAG, "whether to use decoys; min-max-basic does not")
    batch: int = setting(6000, ROWS, "clean points of a step, with more than two classes")

    def __call__(
        self, game: LinearGame, rng: int | np.random.Generator, *, enough: float = np.inf
    ) -> Attacked[MinMaxSource | ClassesSource]:
        """The best poison over all decoys; see :func:`poisoning.attacks.selection.select`.

        The search ends early when a candidate's value reaches ``enough``.

        Raises ``EmptySetError`` if no decoy leaves a feasible point, ``ValueError`` if ε leaves no
        poisoned point, ``TypeError`` if the game's learner is not the one that is modelled: SVM for
        two classes, CrammerSingerSVM for more.
        """
        playing(self, game, LinearGame)
        begun, rng = perf_counter(), generator(rng)
        game.poison_size(self.epsilon)
        if not game.binary:
            return select(game, play_classes(game, self, rng), begun, enough=enough)
        feasible = game.feasible(self.radius_percentile, self.slab_percentile)
        if self.decoy:
            decoys = likely_first(game, self.quantiles, self.decoy_copies, self.opening, rng)
            candidates = (_attempt(game, feasible, self, decoy, own) for decoy, own in decoys)
        else:
            candidates = (_attempt(game, feasible, self, None, rng) for _ in range(1))
        return select(game, candidates, begun, enough=enough)


def _attempt(
    game: LinearGame,
    feasible: FeasibleSet,
    settings: "MinMax",
    decoy: Decoy | None,
    rng: np.random.Generator,
) -> tuple[MinMaxSource, PoisonedSet | None]:
    """The poison for one decoy; None if no feasible point satisfies Eq. (22)."""
    try:
        poisoned = min_max_poison(
            game.X, game.y, game.lam, feasible, game.domain, settings, rng,
            clean=game.clean_svm.model, decoy=decoy and decoy.model,
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
    settings: MinMax,
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
    X = checks.matrix(X, "X", columns=len(checks.instance(clean, "clean", LinearModel).theta))
    y, lam = checks.signs(y, "y", X.shape[0]), checks.positive(lam, "lam")
    checks.instance(feasible, "feasible", FeasibleSet)
    checks.instance(domain, "domain", InputDomain)
    checks.instance(settings, "settings", MinMax)
    rng = generator(rng)
    n, epsilon = len(y), settings.epsilon
    size = round(epsilon * n)
    if size == 0:
        raise ValueError(f"epsilon {epsilon:g} of {n} points is not a single one.")
    if decoy is not None:
        feasible = well_fitted(feasible, decoy, settings.loss_cap)
    attack_steps = -(-size // settings.copies)
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
            copies = min(settings.copies, size - len(labels))
            rows.append(realise(worst.x, copies, copies, domain, rng))
            labels += [worst.label] * copies
        pulling = y * (margins < 1.0 - ON_THE_HINGE) / n
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
