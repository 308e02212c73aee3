"""PATOM: poisoning the examples of some tasks to spoil what is learned for others.

Zhao et al. 2018, Eq. (2) to (6), Algorithm 1. The attacker wants

    max  U = Σ_{i target} Σ_j ℓ(w_i·x_ij, y_ij)   over x̂_ij, i attacking, ‖x̂_ij‖ ≤ r,

with W learned by multi-task relationship learning (:mod:`poisoning.models.mtrl`) from clean and
poisoned examples together, each weighing 1/(n_i + n̂_i). U is summed over the clean training
examples of the target tasks; labels ŷ are fixed beforehand, and the constant feature 1 of the bias
is not the attacker's to choose. A direct attack has the same target and attacking tasks, an
indirect one none in common, a hybrid one some: no more than a choice of the two sets.

Two ways to climb:

- "ascent", Eq. (4): all points along the gradient of U at once, x̂ ← Proj(x̂ + η ∇U), with a line
  search in which U is that of the model learned anew.
- "sequential", Eq. (6), Algorithm 1: for one example of the target tasks after the other, drawn at
  random, all points take a step of length η along the gradient of that example's loss, and are
  projected, before the model is learned anew. The gradient is the paper's, in which W, Ω and the
  multipliers stay those of the last model: it depends on the poison through nothing else, so that
  all points move together.

Problems of the same shape run side by side: every array may have leading batch dimensions, and
each problem's numbers are what they would be alone.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from array_api_compat import array_namespace, device
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from poisoning.attacks.patom_gradient import Method, attack_gradient
from poisoning.attacks.patom_kernels import walk
from poisoning.models.mtrl import (
    Array,
    Loss,
    TaskData,
    combine,
    loss_slopes,
    loss_values,
    phi,
    relationship,
    solve_mtrl,
    task_scores,
)

_BLOCK = 64  # examples of a sequential sweep taken together
_TRIALS = 12  # steps tried by one line search, each a quarter of the one before
_SHARE = 1e-4  # of the promised rise of U that a step must attain

Labels = Literal["uniform", "clean", "constant"]


@dataclass(frozen=True)
class Poison:
    """Injected examples of m tasks, padded to k each.

    ``X`` (*b, m, k, f): features without the bias, f = d − 1. ``y`` (*b, m, k): labels. ``mask``
    (*b, m, k): which of them exist, n̂_i in task i. Absent ones are 0.
    """

    X: Float[Array, "*b m k f"]
    y: Float[Array, "*b m k"]
    mask: Bool[Array, "*b m k"]


@dataclass(frozen=True)
class PATOMSettings:
    """The learner (``loss``, ``lambda1``, ``lambda2``) and the climb.

    ``update``: "ascent", Eq. (4) with a line search, or "sequential", Eq. (6). ``gradient``: of
    which kind (:mod:`poisoning.attacks.patom_gradient`); "sequential" has the paper's only.
    ``iterations``: how often the model is learned from moved poison; 0 is the random attack.
    ``radius``: r. ``step``: η of "sequential" (the paper's is 100); for "ascent" how far the first
    step tried moves the point of the longest gradient, in units of r. ``batch_factor``: examples
    drawn (with replacement) per iteration of "sequential", as a multiple of the target tasks'
    clean ones.
    ``tol``: the relative residual at which the learner stops, and the gradient's solver.
    """

    loss: Loss = "square"
    lambda1: float = 0.1
    lambda2: float = 0.1
    update: Literal["ascent", "sequential"] = "ascent"
    gradient: Method = "total"
    iterations: int = 10
    radius: float = 1.0
    step: float = 10.0
    batch_factor: int = 3
    tol: float = 1e-6


@dataclass(frozen=True)
class PATOMResult:
    """The best poison met and what it does; the history of all iterations.

    ``poison``, ``W`` (*b, m, d) and ``utility`` (*b): the best iterate, ``best`` (*b) its number; 0
    is the start. ``utilities`` (t, *b) and ``models`` (t, *b, m, d): U and W of every iterate, the
    start first, t = iterations + 1. ``steps`` (iterations, *b): η of every move; 0 where the line
    search found none that raises U, after which a problem rests.
    """

    poison: Poison
    W: Float[Array, "*b m d"]
    utility: Float[Array, "*b"]
    best: Int[Array, "*b"]
    utilities: Float[Array, "t *b"]
    models: Float[Array, "t *b m d"]
    steps: Float[Array, "s *b"]


def draw_poison(
    data: TaskData,
    attacking: Bool[ndarray, "m"],
    fraction: float,
    labels: Labels,
    loss: Loss,
    rng: np.random.Generator,
    *,
    radius: float = 1.0,
) -> Poison:
    """Random poison for one problem: round(fraction · n_i) points in every attacking task.

    Features are uniform in the ball of ``radius``. The paper does not say how labels are chosen;
    ``labels``: "uniform" over the range of the task's clean ones, or over −1 and +1 ("hinge");
    "clean", drawn from the task's clean ones; "constant", +1 for all (one standard deviation above
    the mean, if targets are standardised).

    Raises ``ValueError`` if that leaves no point at all.
    """
    sizes = np.sum(data.weight > 0.0, axis=-1).tolist()
    counts = [
        round(fraction * n) * attacks for n, attacks in zip(sizes, attacking.tolist(), strict=True)
    ]
    if max(counts) == 0:
        raise ValueError(
            f"A fraction {fraction:g} of {sizes} examples is not a single poisoned one in the "
            f"attacking tasks {np.flatnonzero(attacking).tolist()}."
        )
    shape = len(counts), max(counts)
    features = data.X.shape[-1] - 1
    X, y = np.zeros((*shape, features)), np.zeros(shape)
    for i, count in enumerate(counts):
        X[i, :count] = _in_ball(count, features, radius, rng)
        clean = data.y[i, data.weight[i] > 0.0]
        if labels == "constant":
            y[i, :count] = 1.0
        elif labels == "clean":
            y[i, :count] = rng.choice(clean, count)
        elif loss == "hinge":
            y[i, :count] = rng.choice([-1.0, 1.0], count)
        else:
            y[i, :count] = rng.uniform(clean.min(), clean.max(), count)
    return Poison(X, y, np.arange(shape[1]) < np.array(counts)[:, None])


def stack_poison(poison: Sequence[Poison]) -> Poison:
    """One batch of several problems' poison, padded to the most points of any."""
    k = max(one.mask.shape[-1] for one in poison)

    def stacked(arrays: list[ndarray], axis: int) -> ndarray:
        padding = [(0, 0)] * arrays[0].ndim
        out = []
        for array in arrays:
            padding[axis] = (0, k - array.shape[axis])
            out.append(np.pad(array, padding))
        return np.stack(out)

    return Poison(
        stacked([one.X for one in poison], -2),
        stacked([one.y for one in poison], -1),
        stacked([one.mask for one in poison], -1),
    )


def poisoned_data(clean: TaskData, poison: Poison) -> TaskData:
    """Clean and poisoned examples together, those last; 1/(n_i + n̂_i) for each of task i."""
    xp = array_namespace(clean.X)
    X = xp.concat([poison.X, xp.astype(poison.mask, poison.X.dtype)[..., None]], axis=-1)
    present = xp.concat([clean.weight > 0.0, poison.mask], axis=-1)
    present = xp.astype(present, clean.weight.dtype)
    return TaskData(
        xp.concat([clean.X, X], axis=-2),
        xp.concat([clean.y, poison.y], axis=-1),
        present / xp.sum(present, axis=-1, keepdims=True),
    )


def attack_utility(
    clean: TaskData, targets: Bool[Array, "*b m"], W: Float[Array, "*b m d"], loss: Loss
) -> tuple[Float[Array, "*b"], Float[Array, "*b m d"]]:
    """U of Eq. (2), the summed loss on the clean examples of the target tasks, and ∂U/∂W."""
    xp = array_namespace(W)
    counted = xp.astype(targets[..., None] & (clean.weight > 0.0), W.dtype)
    scores = task_scores(clean.X, W)
    utility = xp.sum(counted * loss_values(scores, clean.y, loss), axis=(-2, -1))
    slopes = counted * loss_slopes(scores, clean.y, loss)
    return utility, combine(slopes, clean.X)


def project_to_ball(X: Float[Array, "*b f"], radius: float) -> Float[Array, "*b f"]:
    """Proj of Eq. (4): the nearest point with ‖x‖ ≤ r, for every row."""
    xp = array_namespace(X)
    norms = xp.sqrt(xp.sum(X * X, axis=-1, keepdims=True))
    return X * (radius / xp.clip(norms, min=radius))


def patom(
    clean: TaskData,
    targets: Bool[Array, "*b m"],
    start: Poison,
    settings: PATOMSettings,
    rngs: Sequence[np.random.Generator] = (),
) -> PATOMResult:
    """Algorithm 1 from ``start`` (projected first), against the ``targets``; best iterate kept.

    ``rngs``: for "sequential", one generator per problem, in the order of the flattened batch.

    Raises:
        ValueError: a problem without target tasks; "sequential" with a gradient that is not the
            paper's, or without a generator for every problem.
        SolverError: the learner's problem, or the gradient's, was not solved to its tolerance.
    """
    xp = array_namespace(clean.X)
    batch = tuple(clean.X.shape[:-3])
    problems, X = _flattened(clean, targets, start, settings)
    if not bool(xp.all(xp.any(problems.targets, axis=-1))):
        raise ValueError("A problem has no target task.")
    now = problems.learn(X)
    if settings.update == "ascent":
        moves = _ascent(problems, now)
    else:
        if settings.gradient != "paper" or len(rngs) != len(X):
            raise ValueError(
                "The sequential update needs gradient 'paper' and a generator per problem, not "
                f"{settings.gradient!r} and {len(rngs)} for {len(X)}."
            )
        moves = _sweeps(problems, now, rngs)
    best, number = now, xp.zeros_like(now.U, dtype=xp.int64)
    utilities, models, steps = [now.U], [now.W], []
    for iteration, (now, step) in zip(range(1, settings.iterations + 1), moves, strict=False):
        better = now.U > best.U
        best, number = now.where(better, best), xp.where(better, iteration, number)
        utilities.append(now.U)
        models.append(now.W)
        steps.append(step)

    def shaped(array: Array) -> Array:
        return xp.reshape(array, (*batch, *array.shape[1:]))

    def history(arrays: list[Array], like: Array) -> Array:
        shape = (len(arrays), *batch, *like.shape[1:])
        return xp.reshape(xp.stack(arrays) if arrays else like[None][:0], shape)

    return PATOMResult(
        poison=replace(start, X=shaped(best.X)),
        W=shaped(best.W),
        utility=shaped(best.U),
        best=shaped(number),
        utilities=history(utilities, now.U),
        models=history(models, now.W),
        steps=history(steps, now.U),
    )


def best_start(result: PATOMResult) -> PATOMResult:
    """Of a batch whose first dimension is different starts, the start of highest utility."""
    xp = array_namespace(result.utility)
    chosen = xp.argmax(result.utility, axis=0)

    def pick(array: Array, axis: int = 0) -> Array:
        shape = (1,) * axis + (1, *chosen.shape) + (1,) * (array.ndim - axis - 1 - chosen.ndim)
        index = xp.broadcast_to(
            xp.reshape(chosen, shape), (*array.shape[:axis], 1, *array.shape[axis + 1 :])
        )
        return xp.squeeze(xp.take_along_axis(array, index, axis=axis), axis=axis)

    poison = result.poison
    return PATOMResult(
        Poison(pick(poison.X), pick(poison.y), pick(poison.mask)),
        pick(result.W), pick(result.utility), pick(result.best),
        pick(result.utilities, 1), pick(result.models, 1), pick(result.steps, 1),
    )  # fmt: skip


@dataclass(frozen=True)
class _Iterate:
    """Poison ``X`` (b, m, k, f), what is learned with it, its utility ``U``, ``v`` = ∂U/∂W."""

    X: Array
    W: Array
    U: Array
    v: Array

    def where(self, chosen: Bool[Array, "b"], other: "_Iterate") -> "_Iterate":
        """This in the ``chosen`` problems, the ``other`` elsewhere."""
        xp = array_namespace(self.U)
        return _Iterate(
            xp.where(chosen[:, None, None, None], self.X, other.X),
            xp.where(chosen[:, None, None], self.W, other.W),
            xp.where(chosen, self.U, other.U),
            xp.where(chosen[:, None, None], self.v, other.v),
        )

    def take(self, places: Int[Array, "_"] | Bool[Array, "_"]) -> "_Iterate":
        """The problems at ``places``, or where ``places`` is true."""
        return _Iterate(self.X[places], self.W[places], self.U[places], self.v[places])

    def put(self, places: Int[Array, "_"], other: "_Iterate") -> "_Iterate":
        """This, but the ``other`` in its order at ``places``."""
        xp = array_namespace(self.U)
        new = _Iterate(*(xp.asarray(a, copy=True) for a in (self.X, self.W, self.U, self.v)))
        new.X[places], new.W[places] = other.X, other.W
        new.U[places], new.v[places] = other.U, other.v
        return new


@dataclass(frozen=True)
class _Problems:
    """b problems: what stays the same while their poison moves."""

    clean: TaskData
    targets: Array
    y: Array
    mask: Array
    settings: PATOMSettings

    def take(self, places: Int[Array, "_"]) -> "_Problems":
        """The problems at ``places``."""
        if len(places) == len(self.y):
            return self
        clean = self.clean
        return _Problems(
            TaskData(clean.X[places], clean.y[places], clean.weight[places]),
            self.targets[places], self.y[places], self.mask[places], self.settings,
        )  # fmt: skip

    def train(self, X: Float[Array, "b m k f"]) -> TaskData:
        """All the learner sees."""
        return poisoned_data(self.clean, Poison(X, self.y, self.mask))

    def learn(self, X: Float[Array, "b m k f"], start: Array | None = None) -> _Iterate:
        """Learn from poison ``X``, beginning with the weights ``start``."""
        s = self.settings
        W = solve_mtrl(self.train(X), s.loss, s.lambda1, s.lambda2, tol=s.tol, start=start).W
        return _Iterate(X, W, *attack_utility(self.clean, self.targets, W, s.loss))

    def gradient(self, now: _Iterate) -> Float[Array, "b m k f"]:
        """∂U/∂x̂ for every poisoned point."""
        s = self.settings
        return attack_gradient(
            self.train(now.X), now.X.shape[-2], now.W, now.v, s.loss, s.lambda1, s.lambda2,
            s.gradient, tol=s.tol,
        )  # fmt: skip


def _flattened(
    clean: TaskData, targets: Array, start: Poison, settings: PATOMSettings
) -> tuple[_Problems, Float[Array, "b m k f"]]:
    """One batch dimension for all, and the projected start."""
    xp = array_namespace(clean.X)

    def flat(array: Array, core: int) -> Array:
        return xp.reshape(array, (-1, *array.shape[array.ndim - core :]))

    data = TaskData(flat(clean.X, 3), flat(clean.y, 2), flat(clean.weight, 2))
    problems = _Problems(data, flat(targets, 1), flat(start.y, 2), flat(start.mask, 2), settings)
    return problems, project_to_ball(flat(start.X, 3), settings.radius)


def _ascent(problems: _Problems, now: _Iterate) -> Iterator[tuple[_Iterate, Array]]:
    """Eq. (4); yields iterates and their η.

    A search begins with the step that succeeded last, with twice that if it did so at once. Where
    none succeeds, a problem rests.
    """
    xp = array_namespace(now.U)
    active = xp.arange(len(now.U), device=device(now.U))
    eta = xp.zeros_like(now.U)
    for iteration in itertools.count():
        part, begin = problems.take(active), now.take(active)
        step = xp.zeros_like(now.U)
        if len(active) > 0:
            gradient = part.gradient(begin)
            if iteration == 0:
                longest = xp.max(xp.sum(gradient**2, axis=-1), axis=(-2, -1)) ** 0.5
                first = problems.settings.step * problems.settings.radius
                eta = first / xp.where(longest > 0.0, longest, 1.0)
            end, found = _line_search(part, begin, gradient, eta)
            now = now.put(active, end)
            step[active] = found
            moved = found > 0.0
            eta = xp.where(found == eta, 2.0 * found, found)[moved]
            active = active[moved]
        yield now, step


def _line_search(
    problems: _Problems, begin: _Iterate, gradient: Float[Array, "b m k f"], eta: Float[Array, "b"]
) -> tuple[_Iterate, Float[Array, "b"]]:
    """Quarter η until U, learned anew, rises by a little of what the gradient promises.

    It must also rise by more than what the learner's tolerance leaves open. Where it never does,
    the iterate stays ``begin`` and η is 0.
    """
    xp = array_namespace(eta)
    radius = problems.settings.radius
    end, found = begin, xp.zeros_like(eta)
    places = xp.arange(len(eta), device=device(eta))
    for _ in range(_TRIALS):
        old, slope = begin.take(places), gradient[places]
        X = project_to_ball(old.X + eta[places][:, None, None, None] * slope, radius)
        new = problems.take(places).learn(X, old.W)
        promised = xp.sum(slope * (X - old.X), axis=(-3, -2, -1))
        needed = xp.maximum(_SHARE * promised, problems.settings.tol * old.U)
        good = old.U + needed < new.U
        end = end.put(places[good], new.take(good))
        found[places[good]] = eta[places[good]]
        places = places[~good]
        if len(places) == 0:
            break
        eta = eta / 4.0
    return end, found


def _sweeps(
    problems: _Problems, now: _Iterate, rngs: Sequence[np.random.Generator]
) -> Iterator[tuple[_Iterate, Array]]:
    """Steps 7 to 12 of Algorithm 1; yields iterates and the constant η.

    The gradient of the example (x_q, y_q) of task p is α Φ_ip ℓ'(w_p·x_q, y_q) x_q for a poisoned
    point of task i: along the same direction for all, so that only projecting is left to do one
    example at a time.
    """
    xp = array_namespace(now.U)
    s, clean = problems.settings, problems.clean
    b, m, n, d = clean.X.shape
    each = xp.arange(b, device=device(now.U))[:, None]
    counted = xp.reshape(problems.targets[..., None] & (clean.weight > 0.0), (b, m * n))
    pools = [xp.nonzero(row)[0] for row in counted]
    sizes = [s.batch_factor * len(pool) for pool in pools]
    rows = xp.reshape(clean.X, (b, m * n, d))
    labels = xp.reshape(clean.y, (b, m * n))
    # As many points of every problem as any has; those that are absent come last.
    absent = xp.astype(xp.reshape(~problems.mask, (b, -1)), xp.int64)
    count = absent.shape[-1] - int(xp.min(xp.sum(absent, axis=-1)))
    points = xp.argsort(absent, axis=-1, stable=True)[:, :count]
    owners = points // problems.mask.shape[-1]
    step = xp.full_like(now.U, s.step)
    while True:
        drawn = xp.zeros((b, max(sizes)), dtype=xp.int64, device=device(now.U))
        present = xp.zeros(drawn.shape, dtype=now.U.dtype, device=device(now.U))
        for i, (pool, size, rng) in enumerate(zip(pools, sizes, rngs, strict=True)):
            chosen = xp.asarray(rng.integers(len(pool), size=size), device=device(now.U))
            drawn[i, :size], present[i, :size] = pool[chosen], 1.0
        tasks, x = drawn // n, rows[each, drawn]
        scores = xp.sum(x * now.W[each, tasks], axis=-1)
        pull = loss_slopes(scores, labels[each, drawn], s.loss) * present
        directions = s.step * pull[..., None] * x[..., :-1]
        Phi = phi(relationship(now.W), s.lambda1, s.lambda2)[each, tasks]

        train = problems.train(now.X)
        fitted = task_scores(train.X, now.W)
        alpha = -(train.weight * loss_slopes(fitted, train.y, s.loss))[..., n:]
        X, alpha = xp.reshape(now.X, (b, -1, d - 1)), xp.reshape(alpha, (b, -1))
        moved = xp.zeros_like(X)
        moved[each, points] = _walk(
            X[each, points], alpha[each, points], owners, Phi.mT, directions, s.radius
        )
        moved = xp.reshape(moved, now.X.shape)
        now = problems.learn(moved, now.W)
        yield now, step


def _walk(
    X: Float[Array, "b r f"],
    alpha: Float[Array, "b r"],
    owners: Int[Array, "b r"],
    Phi: Float[Array, "b m q"],
    directions: Float[Array, "b q f"],
    radius: float,
) -> Float[Array, "b r f"]:
    """x ← Proj(x + α Φ_iq direction_q) for q = 1, 2, …, all points abreast, i the task of each.

    In blocks: within one, a point is σ (x_0 + Σ γ_q direction_q), and its norm follows from inner
    products with x_0 and among the directions, so that a step costs a few numbers per point.
    """
    xp = array_namespace(X)
    each = xp.arange(len(X), device=device(X))[:, None]
    for first in range(0, directions.shape[1], _BLOCK):
        block = slice(first, first + _BLOCK)
        Z = directions[:, block]
        lengths = alpha[..., None] * Phi[..., block][each, owners]
        steps = Z @ Z.mT, X @ Z.mT, lengths, xp.sum(X * X, axis=-1), radius
        gamma, sigma = (_block_one_by_one if isinstance(X, ndarray) else _block_abreast)(*steps)
        X = project_to_ball(sigma[..., None] * (X + gamma @ Z), radius)
    return X


def _block_abreast(
    gram: Array, start: Array, lengths: Array, squared: Array, radius: float
) -> tuple[Array, Array]:
    """γ (b, r, q) and σ (b, r) of a block, for torch: all points of all problems in every call."""
    xp = array_namespace(start)
    gamma, sigma = xp.zeros_like(start), xp.ones_like(squared)
    for q in range(start.shape[-1]):
        length = lengths[..., q]
        along = sigma * (start[..., q] + (gamma @ gram[:, :, q, None])[..., 0])
        squared = squared + length * (2.0 * along + length * gram[:, q, q, None])
        shrink = radius / xp.maximum(squared, radius**2) ** 0.5
        gamma[..., q] = length / sigma
        sigma, squared = sigma * shrink, squared * shrink**2
    return gamma, sigma


def _block_one_by_one(
    gram: Array, start: Array, lengths: Array, squared: Array, radius: float
) -> tuple[Array, Array]:
    """The same for NumPy, compiled."""
    found = [
        walk(start[i], gram[i], np.ascontiguousarray(lengths[i]), squared[i], radius)
        for i in range(len(start))
    ]
    gamma, sigma = zip(*found, strict=True)
    return np.stack(gamma), np.stack(sigma)


def _in_ball(
    count: int, dimension: int, radius: float, rng: np.random.Generator
) -> Float[ndarray, "count dimension"]:
    """Points uniform in the ball."""
    directions = rng.normal(size=(count, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return radius * rng.random((count, 1)) ** (1.0 / dimension) * directions
