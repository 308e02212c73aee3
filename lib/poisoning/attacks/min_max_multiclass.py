"""The min-max attack on a multi-class support vector machine.

Sections 4.3 and 5.7 of Koh et al. 2021. The loss of Crammer & Singer,

    ℓ(θ; x, y) = max(0, 1 − θ_y·x + max_{j≠y} θ_j·x),                                     (Eq. 34)

is a maximum over rivals j, so the worst feasible point is the best of the solutions of the linear
problems

    min (θ_y − θ_j)·x   over  x ∈ F_y                                          for each (y, j),

F_y being the input box, an L2 ball around the class centroid, and, under a decoy, the k − 1 rows
(θ'_y − θ'_l)·x ≥ 1 − τ that say ℓ(θ_decoy; x, y) ≤ τ. Of these k(k − 1) problems one or two need to
be solved: the multipliers of earlier steps bound the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import column_mean, squared_distances
from poisoning.attacks.kkt import ON_THE_HINGE
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.feasible.bounds import linear_lower_bounds
from poisoning.feasible.sets import ClassSet, InputDomain
from poisoning.feasible.solver import EmptySetError, LinearProblem
from poisoning.games.linear import LinearGame
from poisoning.learners import CrammerSingerSVM
from poisoning.models.multiclass_svm import MulticlassModel, train_multiclass_svm

_INNER_TOL = 1e-2  # relative gap of a linear problem


@runtime_checkable
class _Settings(Protocol):
    """The settings of :class:`poisoning.attacks.min_max.MinMax` that are read here."""

    epsilon: float
    radius_percentile: float
    loss_cap: float
    copies: int
    step: float
    burn_in: float
    decoy: bool
    quantiles: tuple[float, ...]
    decoy_copies: tuple[int, ...]
    batch: int


@dataclass(frozen=True)
class MulticlassPoison:
    """Poisoned points ``X`` (m, d) in the box, labels ``y`` (m,), m = round(ε·n); ``steps`` taken.

    ``solved`` counts the linear problems solved, of k(k − 1) per step.
    """

    X: Float[ndarray, "m d"]
    y: Int[ndarray, "m"]
    steps: int
    solved: int


@dataclass(frozen=True)
class ClassesSource:
    """The decoy of an attack, None for no decoy, with its settings, and the attack's poison."""

    decoy: MulticlassModel | None
    quantile: float
    copies: int
    poison: MulticlassPoison


def play_classes(
    game: LinearGame, settings: _Settings, rng: np.random.Generator
) -> Iterator[tuple[ClassesSource, PoisonedSet | None]]:
    """Algorithm 5 for every decoy of the grid, as candidates of one attack.

    Raises ``TypeError`` if the game's learner is not CrammerSingerSVM, ``ValueError`` for sparse
    data or counts.
    """
    if not isinstance(game.learner, CrammerSingerSVM):
        raise TypeError(
            "min-max with more than two classes models CrammerSingerSVM, not the game's learner "
            f"{game.learner!r}."
        )
    if sp.issparse(game.X):
        raise ValueError("X must be dense for min-max with more than two classes.")
    clean = MulticlassModel(game.clean_model.coef_)
    grid = [(0.0, 0)]
    if settings.decoy:
        grid = [(q, copies) for q in settings.quantiles for copies in settings.decoy_copies]
    for quantile, copies in grid:
        (made,) = refined_attacks(
            game, settings, clean, quantile, copies, 1, rng
        )  # fmt: skip
        source = ClassesSource(made.decoy, quantile, copies, made.poison)
        yield (
            source,
            PoisonedSet(made.poison.X, made.poison.y, game.n, settings.epsilon, game.domain),
        )


@dataclass(frozen=True)
class Refined:
    """One round: the poison, and the decoy it was made for, None for no decoy."""

    poison: MulticlassPoison
    decoy: MulticlassModel | None


def refined_attacks(
    game: LinearGame,
    settings: _Settings,
    clean: MulticlassModel,
    quantile: float,
    copies: int,
    rounds: int,
    rng: np.random.Generator,
) -> list[Refined]:
    """``rounds`` attacks in a row, each with a decoy from the model that the last one poisoned.

    The paper's decoy is that of the first round, drawn from the ``clean`` model; a poisoned model
    shows better which mistakes poison can cause. ``quantile`` 0 means no decoy.
    """
    X, y = game.X, game.y
    k = len(game.labels)
    balls = class_balls(*game.modelled, k, game.domain, settings.radius_percentile)
    decoy, reference, found = None, clean, []
    for number in range(1, rounds + 1):
        if quantile > 0.0:
            decoy = multiclass_decoy(
                X, y, game.X_test, game.y_test, reference, quantile, copies, rng
            )
        poison = min_max_multiclass(X, y, balls, clean, settings, rng, decoy=decoy)
        found.append(Refined(poison, decoy))
        if number == rounds:
            break
        reference = train_multiclass_svm(
            np.vstack([X, poison.X]), np.concatenate([y, poison.y]), k, rng
        )
    return found


def class_balls(
    X: Float[ndarray, "n d"],
    y: Int[ndarray, "n"],
    classes: int,
    domain: InputDomain,
    percentile: float,
) -> list[ClassSet]:
    """Box and L2 ball of every class: the ``percentile`` (0 to 100) of clean distances.

    Raises ``ValueError`` or ``TypeError`` if a class has no points, or for an invalid argument.
    """
    d = checks.instance(domain, "domain", InputDomain).lower.size
    X, classes = checks.array(X, "X", (None, d)), checks.whole(classes, "classes", 2)
    y = checks.classes(y, "y", len(X), classes)
    if checks.between(percentile, "percentile", 0.0, 100.0) == 0.0:
        raise ValueError("percentile must be above 0.")
    sets = []
    for label in range(classes):
        points = X[y == label]
        if not len(points):
            raise ValueError(f"y must hold every class, it has no point of class {label}.")
        centre = column_mean(points)
        radius = float(np.percentile(np.sqrt(squared_distances(points, centre)), percentile))
        none = np.zeros((0, X.shape[1])), np.zeros(0), np.zeros(0)
        sets.append(ClassSet(domain, centre, radius, *none))
    return sets


def well_fitted_classes(sets: list[ClassSet], decoy: MulticlassModel, cap: float) -> list[ClassSet]:
    """The sets with ℓ(θ_decoy; x, y) ≤ ``cap`` added: (θ_y − θ_j)·x ≥ 1 − cap for every j ≠ y."""
    fitted = []
    for label, part in enumerate(sets):
        for rival in range(len(sets)):
            if rival != label:
                part = part.with_row(decoy.theta[label] - decoy.theta[rival], 1.0 - cap, np.inf)
        fitted.append(part)
    return fitted


def multiclass_decoy(
    X: Float[ndarray, "n d"],
    y: Int[ndarray, "n"],
    X_test: Float[ndarray, "m d"],
    y_test: Int[ndarray, "m"],
    reference: MulticlassModel,
    quantile: float,
    copies: int,
    rng: np.random.Generator,
) -> MulticlassModel:
    """Algorithm 3 with more than two classes: train on some test data with wrong labels.

    Every test point gets its most likely wrong label, the j ≠ y of highest θ_j·x under the
    ``reference``; the fraction ``quantile`` of them with the lowest loss under that label joins the
    clean data ``copies`` times. The paper defines decoys for two classes only, and its reference is
    the clean model; a model that an earlier attack has poisoned shows better which mistakes poison
    can cause.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument.
    """
    k, d = checks.instance(reference, "reference", MulticlassModel).theta.shape
    X, X_test = checks.array(X, "X", (None, d)), checks.array(X_test, "X_test", (None, d))
    y, y_test = checks.classes(y, "y", len(X), k), checks.classes(y_test, "y_test", len(X_test), k)
    quantile, copies = checks.share(quantile, "quantile"), checks.whole(copies, "copies")
    scores = X_test @ reference.theta.T
    scores[np.arange(len(y_test)), y_test] = -np.inf
    flipped = np.argmax(scores, axis=1)
    losses = reference.losses(X_test, flipped)
    chosen = np.flatnonzero(losses <= np.quantile(losses, quantile))
    rows = np.repeat(chosen, copies)
    return train_multiclass_svm(
        np.vstack([X, X_test[rows]]), np.concatenate([y, flipped[rows]]), len(reference.theta), rng
    )


class WorstMulticlassPoints:
    """argmax of ℓ(θ; x, y) over x ∈ F_y and y, for one model after another."""

    def __init__(self, sets: list[ClassSet]) -> None:
        k = len(sets)
        self.problems = [LinearProblem(part) for part in sets]
        self.possible = [True] * k
        self.multipliers = np.zeros((k, k, 1 + len(sets[0].rows)))
        self.known = np.zeros((k, k), dtype=bool)
        self.solved = 0

    def find(self, theta: Float[ndarray, "k d"]) -> tuple[Float[ndarray, "d"], int, float]:
        """The point, its label, and its signed loss, within ``_INNER_TOL`` of the greatest.

        Raises ``EmptySetError`` if no class has a feasible point.
        """
        d = self.problems[0].feasible.centre.size
        theta = checks.array(theta, "theta", (len(self.problems), d))
        limits = self._limits(theta)
        best: tuple[Float[ndarray, "d"], int, float] | None = None
        while best is None or limits.max() > best[2] + _INNER_TOL * abs(best[2]):
            label, rival = np.unravel_index(np.argmax(limits), limits.shape)
            if limits[label, rival] == -np.inf:
                raise EmptySetError("No class has a point in the feasible set; widen it.")
            x = self._solve(int(label), int(rival), theta)
            if x is None:
                limits[label] = -np.inf
                continue
            limits[label, rival] = -np.inf
            scores = theta @ x
            scores[label] = -np.inf
            loss = float(1.0 - theta[label] @ x + scores.max())
            if best is None or loss > best[2]:
                best = x, int(label), loss
        return best

    def _limits(self, theta: Float[ndarray, "k d"]) -> Float[ndarray, "k k"]:
        """No x ∈ F_y has a greater loss against rival j than entry (y, j); −∞ where y = j."""
        k = len(theta)
        limits = np.full((k, k), np.inf)
        for label in range(k):
            if not self.possible[label]:
                limits[label] = -np.inf
                continue
            known = np.flatnonzero(self.known[label])
            least = linear_lower_bounds(
                theta[label] - theta[known],
                self.problems[label].feasible,
                self.multipliers[label, known],
            )
            limits[label, known] = 1.0 - least
        np.fill_diagonal(limits, -np.inf)
        return limits

    def _solve(
        self, label: int, rival: int, theta: Float[ndarray, "k d"]
    ) -> Float[ndarray, "d"] | None:
        """The minimiser of (θ_label − θ_rival)·x; None if the class has no feasible point."""
        start = self.multipliers[label, rival] if self.known[label, rival] else None
        try:
            solution = self.problems[label].minimise(
                theta[label] - theta[rival], tol=_INNER_TOL,
                start=None if start is None else start[None, :],
            )  # fmt: skip
        except EmptySetError:
            self.possible[label] = False
            return None
        self.solved += 1
        self.multipliers[label, rival] = solution.multipliers[0]
        self.known[label, rival] = True
        return solution.points[0]


def min_max_multiclass(
    X: Float[ndarray, "n d"],
    y: Int[ndarray, "n"],
    sets: list[ClassSet],
    clean: MulticlassModel,
    settings: _Settings,
    rng: np.random.Generator,
    *,
    decoy: MulticlassModel | None = None,
) -> MulticlassPoison:
    """Algorithm 5 for the multi-class hinge: improved with a ``decoy``, basic without.

    ``sets`` holds one feasible set per class, without decoy constraint; ``clean`` is where θ
    starts. There is no regulariser (Table 1). ``rng`` shuffles the clean data once; a step's
    gradient is that of the next ``batch`` of them. Points are not rounded, so the domain has to be
    real-valued. Raises ``EmptySetError`` if no class has a feasible point, ``ValueError`` for
    counts or if ε leaves no poisoned point, ``ValueError`` or ``TypeError`` for another invalid
    argument.
    """
    k, d = checks.instance(clean, "clean", MulticlassModel).theta.shape
    X = checks.array(X, "X", (None, d))
    y = checks.classes(y, "y", len(X), k)
    rng = checks.generator(rng)
    n, epsilon = len(y), settings.epsilon
    size = round(epsilon * n)
    if size == 0:
        raise ValueError(f"epsilon {epsilon:g} of {n} points is not a single one.")
    domain = sets[0].domain
    if domain.integer:
        raise ValueError("The multi-class attack plays points as they are: counts need rounding.")
    if decoy is not None:
        sets = well_fitted_classes(sets, decoy, settings.loss_cap)
    attack_steps = -(-size // settings.copies)
    burn_in = round(settings.burn_in * attack_steps)

    search = WorstMulticlassPoints(sets)
    theta = clean.theta.copy()
    accumulator = np.ones_like(theta)
    # The pass over clean points takes nearly all of the time; single precision halves it.
    order = rng.permutation(n)
    shuffled, classes = X[order].astype(np.float32), y[order]
    batches = [slice(i, i + settings.batch) for i in range(0, n, settings.batch)]
    points, labels = [], []
    for step in range(burn_in + attack_steps):
        x, label, loss = search.find(theta)
        if step >= burn_in:
            points.append(np.clip(x, domain.lower, domain.upper))
            labels.append(label)
        batch = batches[step % len(batches)]
        gradient = _clean_gradient(theta, shuffled[batch], classes[batch])
        if loss > 0.0:
            scores = theta @ x
            scores[label] = -np.inf
            gradient[label] -= epsilon * x
            gradient[np.argmax(scores)] += epsilon * x
        accumulator += gradient**2
        theta -= settings.step * gradient / np.sqrt(accumulator)
    rows = np.arange(size) // settings.copies
    return MulticlassPoison(
        np.array(points)[rows], np.array(labels)[rows], burn_in + attack_steps, search.solved
    )


def _clean_gradient(
    theta: Float[ndarray, "k d"], X: ndarray, y: Int[ndarray, "n"]
) -> Float[ndarray, "k d"]:
    """∂/∂θ of the mean of ℓ over the clean data."""
    n = len(y)
    rows = np.arange(n)
    scores = X @ theta.T.astype(X.dtype)
    own = scores[rows, y]
    scores[rows, y] = -np.inf
    rivals = np.argmax(scores, axis=1)
    pulling = np.flatnonzero(1.0 - own + scores[rows, rivals] > ON_THE_HINGE)
    weights = np.zeros((len(theta), n), dtype=X.dtype)
    weights[y[pulling], pulling] = -1.0 / n
    weights[rivals[pulling], pulling] += 1.0 / n
    return (weights @ X).astype(np.float64)
