"""The influence attack: gradient ascent on the poisoned points themselves.

Section 4.1, Algorithm 2 and Appendix B.1 of Koh et al. 2021. The attacker wants

    max  L(θ̂; D_test)   over the poison D_p in the feasible set,   θ̂ = argmin L(θ; D_c ∪ D_p).

Through the implicit function theorem, with H the Hessian of the training loss, g the gradient of
the test loss and v = H⁻¹g, both in (θ, b) at θ̂, a poisoned point x̃ of label ỹ and weight w among
N examples moves the test loss by (Eq. 9 to 11)

    ∂L/∂x̃ = −(w/N) vᵀ ∂²ℓ(θ̂; x̃, ỹ)/∂(θ, b)∂x̃ = (w/N) h [ỹ v_θ − ((1 − h)/δ) (v·(x̃, 1)) θ̂].

The hinge has no Hessian, so that g, H and h = σ((1 − m)/δ), which is minus the slope of the loss at
the margin m, are those of the smoothed hinge; the model itself is trained with the hinge. The paper
prints no w/N; our steps have a fixed length, so that it does not matter. Every step retrains the
model (warm-started), moves each point along its gradient and projects it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from time import perf_counter
from typing import Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import expit

from poisoning import checks
from poisoning.arrays import Matrix, to_dense, vstack
from poisoning.attacks.attacked import Attacked, playing
from poisoning.attacks.label_flips import flippable
from poisoning.attacks.limits import WithinLimits
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.attacks.selection import select
from poisoning.checks import generator
from poisoning.feasible.rounding import budget, realise
from poisoning.feasible.sets import ClassSet, FeasibleSet
from poisoning.feasible.solver import project
from poisoning.games.linear import LinearGame
from poisoning.models.linear import LinearModel
from poisoning.models.smoothed_svm import Curvature
from poisoning.models.svm import train_svm
from poisoning.settings import COUNT, FLAG, SHARE, STEP, choice, setting

_TINY = np.finfo(float).tiny


@dataclass(frozen=True)
class RelaxedPoison:
    """Distinct points ``X`` (k, d) before rounding, their labels ``y`` and ``copies`` (k,).

    Raises ``ValueError`` or ``TypeError`` for arrays that are not so.
    """

    X: Float[ndarray, "k d"]
    y: Float[ndarray, "k"]
    copies: Int[ndarray, "k"]

    def __post_init__(self) -> None:
        X = checks.rectangle(self.X, "X")
        copies = checks.classes(self.copies, "copies", len(X), 2**31)
        if copies.min() < 1:
            raise ValueError("copies must be at least 1.")
        y = checks.signs(self.y, "y", len(X))
        for name, values in (("X", X), ("y", y), ("copies", copies)):
            object.__setattr__(self, name, values)


@dataclass(frozen=True)
class Iterate:
    """The poison after some steps of one run.

    ``positive_share`` and ``step_size`` identify the run. ``test_loss`` is the hinge loss on the
    test data of the model trained with the points ``relaxed``; a history keeps these points for the
    winner only.
    """

    positive_share: float
    step_size: float
    iteration: int
    test_loss: float
    relaxed: RelaxedPoison | None


@dataclass(frozen=True)
class Influence(WithinLimits):
    """Algorithm 2: ``Influence(0.03)(game, rng)``.

    The paper reports no values for step size, iterations, δ and radii. With ``relaxed`` the L2 ball
    bounds E‖x̂ − μ‖² over the randomised rounding x̂ (the LP relaxation) instead of ‖x − μ‖². A
    share of None is the fraction of negative points in the clean data. Every point moves one step
    length along its gradient before it is projected.
    """

    points: Literal["two", "all"] = setting(
        "two", choice("two", "all"),
        "distinct points: two, one per class (the influence attack), or all (influence-basic)",
    )  # fmt: skip
    relaxed: bool = setting(True, FLAG, "whether the feasible set allows for rounding")
    copies: int = setting(2, COUNT, "copies of each rounded point")
    positive_shares: tuple[float | None, ...] = setting(
        (0.35, 0.5), SHARE, "fractions of the poison labelled +1 to try", many=True, none=True
    )
    step_sizes: tuple[float, ...] = setting(
        (2.0,), STEP, "lengths of a step to try, in units of the inputs", many=True
    )
    iterations: int = setting(100, COUNT, "steps, for each share and step length")
    check_every: int = setting(10, COUNT, "steps after which poison is rounded and deployed")
    smoothing: float = setting(1e-3, STEP, "δ of the smoothed hinge")

    def __call__(
        self, game: LinearGame, rng: int | np.random.Generator, *, enough: float = np.inf
    ) -> Attacked[Iterate]:
        """The best of all checked iterates; see :func:`poisoning.attacks.selection.select`.

        The attack starts from clean points with flipped labels (Appendix B.1). The search ends
        early when a candidate's value reaches ``enough``.

        Raises ``ValueError`` if ε leaves no poisoned point, ``EmptySetError`` if the feasible set
        of a class is empty, ``TypeError`` if the game's learner is no SVM.
        """
        return self._play(game, rng, None, enough)

    def resume(
        self, game: LinearGame, rng: int | np.random.Generator, last: Attacked[Iterate]
    ) -> Attacked[Iterate]:
        """Continue from the points of another attack, after projecting them; Algorithm 1.

        Their labels and copies, hence the share of +1, stay fixed. Raises ``TypeError`` for an
        attack of another kind, ``ValueError`` for points of another game.
        """
        playing(self, game, LinearGame)
        source = checks.instance(last, "last", Attacked).source
        relaxed = checks.instance(source, "source of last", Iterate).relaxed
        start = checks.instance(relaxed, "relaxed points of last", RelaxedPoison)
        checks.array(start.X, "X of last", (None, game.X.shape[1]))
        if start.copies.sum() != game.poison_size(self.epsilon):
            raise ValueError(
                f"last must have {game.poison_size(self.epsilon)} points like this attack, it has "
                f"{start.copies.sum()}."
            )
        return self._play(game, rng, last.source.relaxed, np.inf)

    def _play(
        self,
        game: LinearGame,
        rng: int | np.random.Generator,
        start: "RelaxedPoison | None",
        enough: float,
    ) -> Attacked[Iterate]:
        playing(self, game, LinearGame)
        begun = perf_counter()
        game.poison_size(self.epsilon)
        game.svm(type(self).__name__)
        feasible = game.feasible(self.radius_percentile, self.slab_percentile)
        if not self.relaxed:
            feasible = _continuous(feasible)
        shares = self.positive_shares if start is None else (None,)
        runs = list(product(shares, self.step_sizes))
        streams = generator(rng).spawn(len(runs))
        candidates = (
            iterate
            for (share, step_size), stream in zip(runs, streams, strict=True)
            for iterate in _climb(
                game, feasible, self, step_size, stream,
                start or flipped_start(game, feasible, self, share, stream),
            )
        )  # fmt: skip
        result = select(game, candidates, begun, enough=enough)
        history = tuple(
            replace(tried, source=replace(tried.source, relaxed=None)) for tried in result.history
        )
        return replace(result, history=history)


INFLUENCE_BASIC = Influence(
    points="all", relaxed=False, copies=1, radius_percentile=80.0, slab_percentile=80.0,
    positive_shares=(None,),
)  # fmt: skip
"""Section 4.1.1: separate points, plain rounding; the authors' code shrinks the radii for it."""


def flipped_start(
    game: LinearGame,
    feasible: FeasibleSet,
    settings: Influence,
    share: float | None,
    rng: np.random.Generator,
) -> RelaxedPoison:
    """Clean points with their labels flipped, drawn uniformly with replacement; Appendix B.1.

    The fraction ``share`` of the poison is labelled +1, by default the fraction of negative points
    in the clean data. Only points that lie in the feasible set once flipped are drawn; if a class
    has none, all its points may be drawn, and the attack starts from their projections.
    """
    checks.instance(game, "game", LinearGame)
    checks.instance(settings, "settings", Influence)
    share = None if share is None else checks.between(share, "share", 0.0, 1.0)
    rng = checks.generator(rng)
    X, y = game.X, game.y
    share = float(np.mean(y < 0.0)) if share is None else share
    legal = flippable(X, y, feasible)
    rows, labels, copies = [], [], []
    for label, size in zip((1.0, -1.0), budget(settings.epsilon, len(y), share), strict=True):
        if size == 0:
            continue
        mine = y == -label
        pool = np.flatnonzero(mine & legal if np.any(mine & legal) else mine)
        distinct = 1 if settings.points == "two" else size
        rows.append(to_dense(X[rng.choice(pool, size=distinct)]))
        labels += [label] * distinct
        copies += [size // distinct] * distinct
    return RelaxedPoison(np.vstack(rows), np.array(labels), np.array(copies))


def poison_gradient(
    X: Matrix,
    y: Float[ndarray, "n"],
    weights: Float[ndarray, "n"],
    poisoned: int,
    X_test: Matrix,
    y_test: Float[ndarray, "m"],
    model: LinearModel,
    lam: float,
    smoothing: float,
) -> tuple[Float[ndarray, "k"], Float[ndarray, "k d"]]:
    """∂L(θ̂; D_test)/∂x̃ for the last k = ``poisoned`` rows of ``X``, as slopes and directions.

    ``X`` (n, d), ``y`` (n,), ``weights`` (n,) are clean and poisoned points together, ``model`` is
    trained on them, ``lam`` with the smoothed hinge of δ = ``smoothing`` or, nearly so, with the
    hinge. The gradient of x̃_i is slopes_i · directions_i, slopes_i = (w_i/N) h_i; they are
    returned separately because beyond the hinge the slope underflows and the direction does not.

    Raises ``ValueError`` or ``TypeError`` for arrays that do not fit.
    """
    d = len(checks.instance(model, "model", LinearModel).theta)
    X, X_test = checks.known(X, "X", d), checks.known(X_test, "X_test", d)
    weights = checks.weights(weights, "weights", X.shape[0])
    y, y_test = checks.signs(y, "y", X.shape[0]), checks.signs(y_test, "y_test", X_test.shape[0])
    poisoned = checks.whole(poisoned, "poisoned", 1, X.shape[0])
    lam, smoothing = checks.positive(lam, "lam"), checks.positive(smoothing, "smoothing")
    slope_test = -y_test * expit((1.0 - model.margins(X_test, y_test)) / smoothing) / len(y_test)
    g = np.append(X_test.T @ slope_test, slope_test.sum())
    share = weights / weights.sum()
    curvature = Curvature.of(X, y, model.decision(X), lam, smoothing, share)
    v = curvature.solve(g)
    first = len(y) - poisoned
    pull = curvature.pull[first:]
    along = ((1.0 - pull) / smoothing) * (X[first:] @ v[:-1] + v[-1])
    return share[first:] * pull, np.outer(y[first:], v[:-1]) - np.outer(along, model.theta)


class _Ascent:
    """Algorithm 2's state: the poison in its feasible set, and the model trained with it."""

    def __init__(
        self, game: LinearGame, feasible: FeasibleSet, smoothing: float, start: RelaxedPoison
    ) -> None:
        self.game, self.smoothing = game, smoothing
        self.sets = [feasible.positive if y > 0.0 else feasible.negative for y in start.y]
        self.y = np.concatenate([game.y, start.y])
        self.weights = np.concatenate([np.ones(len(game.y)), start.copies])
        clean = game.clean_svm.alpha * (len(game.y) / self.weights.sum())
        self.alpha = np.concatenate([clean, np.zeros(len(start.y))])
        self._place(start, start.X)

    def step(self, length: float) -> None:
        """Move every point by ``length`` along its gradient, project, train.

        Lengths are normalised: ‖∂L/∂x̃‖ changes by orders of magnitude with h.
        """
        poison = self.poison
        _, directions = poison_gradient(
            self.X, self.y, self.weights, len(poison.y), self.game.X_test,
            self.game.y_test, self.model, self.game.lam, self.smoothing,
        )  # fmt: skip
        norms = np.linalg.norm(directions, axis=1, keepdims=True)
        self._place(poison, poison.X + length * directions / np.maximum(norms, _TINY))

    def _place(self, poison: RelaxedPoison, aims: Float[ndarray, "k d"]) -> None:
        """Project the points ``aims`` (k, d) and train with them."""
        points = [project(aim, part).points[0] for aim, part in zip(aims, self.sets, strict=True)]
        self.poison = replace(poison, X=np.array(points))
        self.X = vstack([self.game.X, self.poison.X])
        solution = train_svm(self.X, self.y, self.game.lam, weights=self.weights, alpha0=self.alpha)
        self.model, self.alpha = solution.model, solution.alpha

    @property
    def test_loss(self) -> float:
        """L(θ̂; D_test), the mean hinge loss."""
        return float(self.model.hinge(self.game.X_test, self.game.y_test).mean())


def _climb(
    game: LinearGame,
    feasible: FeasibleSet,
    settings: Influence,
    step_size: float,
    rng: np.random.Generator,
    start: RelaxedPoison,
) -> Iterator[tuple[Iterate, PoisonedSet]]:
    """One run of Algorithm 2; yields the iterates to be checked, with their rounded poison."""
    ascent = _Ascent(game, feasible, settings.smoothing, start)
    for iteration in range(1, settings.iterations + 1):
        ascent.step(step_size)
        if iteration % settings.check_every and iteration < settings.iterations:
            continue
        poisoned = _rounded(ascent.poison, game, settings, rng)
        share = float(np.mean(poisoned.y > 0.0))
        yield Iterate(share, step_size, iteration, ascent.test_loss, ascent.poison), poisoned


def _rounded(
    relaxed: RelaxedPoison,
    game: LinearGame,
    settings: Influence,
    rng: np.random.Generator,
) -> PoisonedSet:
    """The points of an iterate, rounded to the game's domain."""
    rows = [
        realise(x, int(size), settings.copies, game.domain, rng)
        for x, size in zip(relaxed.X, relaxed.copies, strict=True)
    ]
    X = sp.vstack(rows, format="csr") if sp.issparse(rows[0]) else np.vstack(rows)
    labels = np.repeat(relaxed.y, relaxed.copies)
    return PoisonedSet(X, labels, game.n, settings.epsilon, game.domain)


def _continuous(feasible: FeasibleSet) -> FeasibleSet:
    """The set with a bound on ‖x − μ‖² in place of that on E‖x̂ − μ‖²."""

    def continuous(part: ClassSet) -> ClassSet:
        kind = "nonnegative" if part.domain.integer else part.domain.kind
        return replace(part, domain=replace(part.domain, kind=kind))

    return FeasibleSet(continuous(feasible.positive), continuous(feasible.negative))
