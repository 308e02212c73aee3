"""PATOM: poisoning the examples of some tasks to spoil what is learned for others.

Zhao et al. 2018, Eq. (2) to (6), Algorithm 1. The attacker wants

    max  U = Σ_{i target} Σ_j ℓ(w_i·x_ij, y_ij)   over x̂_ij, i attacking, ‖x̂_ij‖ ≤ r,

with W learned from clean and poisoned examples together (:mod:`poisoning.games.multi_task`). Labels
ŷ are fixed beforehand, and the attacker cannot change the constant feature 1 of the bias. Points
are drawn at random and then moved, in one of two ways:

- "ascent", Eq. (4): all points along the gradient of U at once, x̂ ← Proj(x̂ + η ∇U), with a line
  search in which U is that of the model learned anew.
- "sequential", Eq. (6), Algorithm 1: for one example of the target tasks after the other, drawn at
  random, all points move by η times the gradient of that example's loss, and are projected, before
  the model is learned anew. The gradient is the paper's, in which W, Ω and the multipliers stay
  those of the last model: it depends on the poison through these alone, so that all points can be
  moved in parallel.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning import checks
from poisoning.attacks.attacked import Attacked, playing
from poisoning.attacks.patom_gradient import attack_gradient
from poisoning.attacks.patom_kernels import walk
from poisoning.games.multi_task import NONE, MultiTaskGame, MultiTaskOutcome, Poison
from poisoning.models.mtrl import TaskData, loss_slopes, phi, relationship, task_scores
from poisoning.settings import (
    COUNT,
    FRACTION,
    RADIUS,
    ROUNDS,
    STEP,
    Settings,
    choice,
    setting,
)

_BLOCK = 64  # examples of a sequential sweep taken together
_TRIALS = 12  # steps tried by one line search, each a quarter of the one before
_SHARE = 1e-4  # of the predicted rise of U that a step must attain


@dataclass(frozen=True)
class Iterate:
    """One iterate: the model learned from poison after ``number`` moves; 0 is the start.

    ``step`` is the η of the last move: 0 for the start, and where the line search found no step
    that raises U, after which the poison stays unchanged. ``outcome`` holds U, the targets' measure
    and W.
    """

    number: int
    step: float
    outcome: MultiTaskOutcome


@dataclass(frozen=True)
class PATOM(Settings):
    """Algorithm 1, or the ascent along a gradient: ``PATOM(0.2)(game, rng)``.

    The paper's attack is ``PATOM(0.2, update="sequential", gradient="paper", step=100.0)``, but
    that the best iterate is returned, where Algorithm 1 keeps the last. The sequential update has
    no other gradient.
    """

    budget: float = setting(
        0.2, FRACTION, "poison of an attacking task, as a fraction of its clean examples"
    )
    labels: Literal["uniform", "clean", "constant"] = setting(
        "uniform",
        choice("uniform", "clean", "constant"),
        "labels of the poison: uniform over the clean labels' range, drawn from them, or all +1",
    )
    update: Literal["ascent", "sequential"] = setting(
        "ascent", choice("ascent", "sequential"), "Eq. (4) with a line search, or Eq. (6)"
    )
    gradient: Literal["paper", "fixed", "total"] = setting(
        "total",
        choice("paper", "fixed", "total"),
        "what stays constant: Ω and the multipliers, Ω alone, or neither",
    )
    iterations: int = setting(
        10, ROUNDS, "how often poison is moved and the model learned anew; 0 is the random attack"
    )
    radius: float = setting(1.0, RADIUS, "poisoned features stay in this ball around 0")
    step: float = setting(
        10.0,
        STEP,
        "η of the sequential update; for the ascent, how far the first step tried moves the point "
        "of the longest gradient, in units of the radius",
    )
    batch_factor: int = setting(
        3,
        COUNT,
        "examples drawn per sequential iteration, as a multiple of the targets' clean ones",
    )

    def __post_init__(self) -> None:
        """Check that the gradient fits the update."""
        super().__post_init__()
        if self.update == "sequential" and self.gradient != "paper":
            raise ValueError(
                f"PATOM: gradient must be paper for the sequential update, not {self.gradient!r}."
            )

    def __call__(self, game: MultiTaskGame, rng: int | np.random.Generator) -> Attacked[Iterate]:
        """The poison of the iterate with the largest U, of equals the first.

        ``source`` is that iterate, ``history`` all of them, the random start first. The outcome is
        that of the model which the attack has learned; evaluating the poison gives it again within
        the learner's tolerance.

        Raises ``ValueError`` if the budget leaves no poisoned point, ``SolverError`` if the
        learner's problem, or the gradient's, is not solved to the game's tolerance.
        """
        playing(self, game, MultiTaskGame)
        begun = perf_counter()
        rng = checks.generator(rng, "rng")
        start = draw_poison(game, self.budget, self.labels, self.radius, rng)
        problem = _Problem(game, start, self)
        now = problem.learn(project_to_ball(start.X, self.radius))
        moves = _ascent(problem, now) if self.update == "ascent" else _sweeps(problem, now, rng)
        best, source = now, Iterate(0, 0.0, game.outcome(now.W))
        history = [source]
        for number, (now, step) in zip(range(1, self.iterations + 1), moves, strict=False):
            history.append(Iterate(number, step, game.outcome(now.W)))
            if now.U > best.U:
                best, source = now, history[-1]
        return Attacked(
            poison=replace(start, X=best.X),
            value=best.U,
            outcomes={NONE: source.outcome},
            source=source,
            history=tuple(history),
            seconds=perf_counter() - begun,
        )


def draw_poison(
    game: MultiTaskGame,
    budget: float,
    labels: Literal["uniform", "clean", "constant"],
    radius: float,
    rng: np.random.Generator,
) -> Poison:
    """Random poison: round(budget · n_i) points in every attacking task.

    Features are uniform in the ball of ``radius``. The paper does not say how labels are chosen;
    ``labels``: "uniform" over the range of the task's clean ones, or over −1 and +1 (hinge);
    "clean", drawn from the task's clean ones; "constant", +1 for all (one standard deviation above
    the mean, if targets are standardised).

    Raises ``ValueError`` if that leaves no point at all, or for an invalid argument.
    """
    checks.instance(game, "game", MultiTaskGame)
    checks.one_of(labels, "labels", ("uniform", "clean", "constant"))
    budget, radius = checks.positive(budget, "budget"), checks.positive(radius, "radius")
    rng = checks.generator(rng)
    data = game.data
    sizes = np.sum(data.weight > 0.0, axis=-1).tolist()
    counts = [
        round(budget * n) * owned for n, owned in zip(sizes, game.attacking.tolist(), strict=True)
    ]
    if max(counts) == 0:
        raise ValueError(
            f"budget {budget:g} of {sizes} examples is not a single poisoned one in the attacking "
            f"tasks {np.flatnonzero(game.attacking).tolist()}."
        )
    features = data.X.shape[-1] - 1
    points = {}
    for i, count in enumerate(counts):
        if count == 0:
            continue
        X = _in_ball(count, features, radius, rng)
        clean = data.y[i, data.weight[i] > 0.0]
        if labels == "constant":
            y = np.ones(count)
        elif labels == "clean":
            y = rng.choice(clean, count)
        elif game.loss == "hinge":
            y = rng.choice([-1.0, 1.0], count)
        else:
            y = rng.uniform(clean.min(), clean.max(), count)
        points[i] = X, y
    return Poison.of(points, len(counts))


def project_to_ball(X: Float[ndarray, "*b f"], radius: float) -> Float[ndarray, "*b f"]:
    """Proj of Eq. (4): the nearest point with ‖x‖ ≤ r, for every row."""
    X = checks.array(X, "X", None)
    radius = checks.positive(radius, "radius")
    norms = np.sqrt(np.linalg.vecdot(X, X))[..., None]
    return X * (radius / np.maximum(norms, radius))


@dataclass(frozen=True)
class _Point:
    """Features ``X`` (m, k, f) of the poison, all training data, what is learned, U, and ∂U/∂W."""

    X: ndarray
    train: TaskData
    W: ndarray
    U: float
    v: ndarray


@dataclass(frozen=True)
class _Problem:
    """What stays constant while poison moves: the game, and labels and tasks of ``start``."""

    game: MultiTaskGame
    start: Poison
    settings: PATOM

    def learn(self, X: Float[ndarray, "m k f"], start: ndarray | None = None) -> _Point:
        """Learn from poison with features ``X``, beginning with the weights ``start``."""
        game = self.game
        train = game.poisoned(replace(self.start, X=X))
        W = game.learn(train, start)
        return _Point(X, train, W, *game.utility(W))

    def gradient(self, now: _Point) -> Float[ndarray, "m k f"]:
        """∂U/∂x̂ for every poisoned point."""
        game = self.game
        return attack_gradient(
            now.train, now.X.shape[1], now.W, now.v, game.loss, game.lambda1, game.lambda2,
            self.settings.gradient, tol=game.tol,
        )  # fmt: skip


def _ascent(problem: _Problem, now: _Point) -> Iterator[tuple[_Point, float]]:
    """Eq. (4); yields iterates and their η.

    A line search begins with the last successful η, or twice that if it succeeded at the first
    trial. If no η succeeds, the poison stays unchanged.
    """
    gradient = problem.gradient(now)
    longest = float(np.sqrt(np.max(np.sum(gradient**2, axis=-1))))
    eta = problem.settings.step * problem.settings.radius / (longest if longest > 0.0 else 1.0)
    while True:
        now, step = _line_search(problem, now, gradient, eta)
        yield now, step
        if step == 0.0:
            break
        eta = 2.0 * step if step == eta else step
        gradient = problem.gradient(now)
    while True:
        yield now, 0.0


def _line_search(
    problem: _Problem, begin: _Point, gradient: Float[ndarray, "m k f"], eta: float
) -> tuple[_Point, float]:
    """Divide η by 4 until U, learned anew, rises by ``_SHARE`` of the rise that ∇U predicts.

    The rise must also exceed the error that the learner's tolerance allows. If no trial succeeds,
    the iterate stays ``begin`` and η is 0.
    """
    for _ in range(_TRIALS):
        X = project_to_ball(begin.X + eta * gradient, problem.settings.radius)
        new = problem.learn(X, begin.W)
        promised = np.sum(gradient * (X - begin.X))
        if begin.U + max(_SHARE * promised, problem.game.tol * begin.U) < new.U:
            return new, eta
        eta /= 4.0
    return begin, 0.0


def _sweeps(
    problem: _Problem, now: _Point, rng: np.random.Generator
) -> Iterator[tuple[_Point, float]]:
    """Steps 7 to 12 of Algorithm 1; yields iterates and the constant η.

    The gradient of the example (x_q, y_q) of task p is α Φ_ip ℓ'(w_p·x_q, y_q) x_q for a poisoned
    point of task i: the direction x_q is the same for all points, so that only the projection has
    to be done one example at a time.
    """
    game, mask, settings = problem.game, problem.start.mask, problem.settings
    m, n, d = game.data.X.shape
    pool = np.flatnonzero(game.targets[:, None] & (game.data.weight > 0.0))
    rows, labels = game.data.X.reshape(m * n, d), game.data.y.reshape(m * n)
    points = np.flatnonzero(mask)
    owners = points // mask.shape[1]
    while True:
        drawn = pool[rng.integers(len(pool), size=settings.batch_factor * len(pool))]
        tasks, x = drawn // n, rows[drawn]
        scores = np.sum(x * now.W[tasks], axis=-1)
        pull = loss_slopes(scores, labels[drawn], game.loss)
        directions = settings.step * pull[:, None] * x[:, :-1]
        Phi = phi(relationship(now.W), game.lambda1, game.lambda2)[tasks]

        train = now.train
        slopes = loss_slopes(task_scores(train.X, now.W), train.y, game.loss)
        alpha = -(train.weight * slopes)[:, n:]
        moved = np.zeros_like(now.X).reshape(-1, d - 1)
        moved[points] = _walk(
            now.X.reshape(-1, d - 1)[points], alpha.ravel()[points], owners, Phi.T, directions,
            settings.radius,
        )  # fmt: skip
        now = problem.learn(moved.reshape(now.X.shape), now.W)
        yield now, settings.step


def _walk(
    X: Float[ndarray, "r f"],
    alpha: Float[ndarray, "r"],
    owners: Int[ndarray, "r"],
    Phi: Float[ndarray, "m q"],
    directions: Float[ndarray, "q f"],
    radius: float,
) -> Float[ndarray, "r f"]:
    """x ← Proj(x + α Φ_iq direction_q) for q = 1, 2, …, all points in parallel, i the task of each.

    In blocks: within one, a point is σ (x_0 + Σ γ_q direction_q), and its norm follows from inner
    products with x_0 and among the directions, so that a step costs a few numbers per point.
    """
    for first in range(0, len(directions), _BLOCK):
        block = slice(first, first + _BLOCK)
        Z = directions[block]
        lengths = np.ascontiguousarray(alpha[:, None] * Phi[:, block][owners])
        gamma, sigma = walk(X @ Z.T, Z @ Z.T, lengths, np.sum(X * X, axis=-1), radius)
        X = project_to_ball(sigma[:, None] * (X + gamma @ Z), radius)
    return X


def _in_ball(
    count: int, dimension: int, radius: float, rng: np.random.Generator
) -> Float[ndarray, "count dimension"]:
    """Points uniform in the ball."""
    directions = rng.normal(size=(count, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return radius * rng.random((count, 1)) ** (1.0 / dimension) * directions
