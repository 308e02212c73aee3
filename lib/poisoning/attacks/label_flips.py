"""Label flips: real points with the wrong label; Appendix D of Koh et al. 2021.

The attacker owns a pool of real points, in the paper the test set, and adds copies of some of them
with the label flipped: chosen at random, or by alfa (Xiao et al. 2012), which looks for points that
the clean model θ* fits badly and the poisoned model θ̂ fits well:

    min  L(θ̂; D_p) − L(θ*; D_p)   over D_p in the flipped pool,   θ̂ = argmin L(θ; D_c ∪ D_p).

(Appendix D prints "maximize", which contradicts its own text and Xiao et al.) The constrained form
uses only flipped points inside the feasible set F_β of their new class.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, squared_distances, vstack
from poisoning.attacks.attacked import Attacked, playing
from poisoning.attacks.limits import WithinLimits
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.attacks.selection import select
from poisoning.checks import generator
from poisoning.errors import SolverError
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import LinearGame
from poisoning.models.linear import LinearModel
from poisoning.models.svm import train_svm
from poisoning.settings import COUNT, FLAG, setting

_SLACK = 1e-9  # relative: a point that lies on the boundary is inside


def flippable(X: Matrix, y: Float[ndarray, "n"], feasible: FeasibleSet) -> Bool[ndarray, "n"]:
    """Which points of (X, y), all of them in the input domain, lie in F_{−y} once flipped.

    ``X`` (n, d), ``y`` (n,) of ±1. For whole numbers the relaxed L2 constraint equals the plain
    one. Raises ``ValueError`` or ``TypeError`` for data that do not fit.
    """
    d = checks.instance(feasible, "feasible", FeasibleSet).positive.centre.size
    X = checks.matrix(X, "X", columns=d)
    y = checks.signs(y, "y", X.shape[0])
    inside = np.zeros(len(y), dtype=bool)
    for label, part in ((-1.0, feasible.positive), (1.0, feasible.negative)):
        mine = np.flatnonzero(y == label)
        points = X[mine]
        near = squared_distances(points, part.centre) <= part.radius**2 * (1.0 + _SLACK)
        products = np.asarray(points @ part.rows.T, dtype=np.float64)
        slack = _SLACK * np.linalg.norm(part.rows, axis=1) * part.radius
        within = (products >= part.lower - slack) & (products <= part.upper + slack)
        inside[mine] = near & within.all(axis=1)
    return inside


def random_flips(
    X_pool: Matrix,
    y_pool: Float[ndarray, "p"],
    clean_size: int,
    epsilon: float,
    domain: InputDomain,
    rng: np.random.Generator,
    *,
    feasible: FeasibleSet | None = None,
) -> PoisonedSet:
    """round(ε·``clean_size``) points drawn uniformly from the pool, with replacement, and flipped.

    ``X_pool`` (p, d), ``y_pool`` (p,) of ±1. Only points in ``domain`` are drawn, and with
    ``feasible`` only those that lie in it after the flip. Raises ``ValueError`` if there are none,
    ``ValueError`` or ``TypeError`` for an invalid argument.
    """
    X_pool, y_pool = _pool(X_pool, y_pool, domain)
    clean_size, epsilon = (
        checks.whole(clean_size, "clean_size"),
        checks.positive(epsilon, "epsilon"),
    )
    rng = checks.generator(rng)
    allowed = _allowed(X_pool, y_pool, domain, feasible)
    chosen = rng.choice(allowed, size=round(epsilon * clean_size))
    return PoisonedSet(X_pool[chosen], -y_pool[chosen], clean_size, epsilon, domain)


def alfa(
    X: Matrix,
    y: Float[ndarray, "n"],
    X_pool: Matrix,
    y_pool: Float[ndarray, "p"],
    lam: float,
    epsilon: float,
    domain: InputDomain,
    *,
    clean: LinearModel,
    feasible: FeasibleSet | None = None,
    max_copies: int | None = None,
    max_rounds: int = 100,
) -> PoisonedSet:
    """Adversarial label flips by alternating minimisation; Appendix D, after Xiao et al. 2012.

    With q_i ≥ 0 copies of the flipped pool point i, Σq_i = εn, and N = (1 + ε)n, both steps
    minimise the same function, exactly:

        J(θ, q) = Nλ/2 ‖θ‖² + Σ_{D_c} ℓ(θ) + Σ_i q_i [ℓ_i(θ) − ℓ_i(θ*)].

    In θ that is the SVM's training with weights q; in q it is a linear program whose solution takes
    the points in the order of ℓ_i(θ) − ℓ_i(θ*), each ``max_copies`` times. Without that limit
    ("possibly repeated", as in the paper) all copies are of one point. The start is q uniform. J
    never rises and q has finitely many values, so the rounds end when q repeats.

    ``X`` (n, d), ``y`` (n,) are the clean data and ``clean`` is θ*; ``X_pool`` (p, d), ``y_pool``
    (p,) the pool before the flip. Only points in ``domain`` are added, and with ``feasible`` only
    those that lie in it after the flip. The attack uses no randomness.

    Raises ``EmptySetError`` if no point may be added, ``ValueError`` if too few may,
    ``SolverError`` if q still moves after ``max_rounds``, ``ValueError`` or ``TypeError`` for
    another invalid argument.
    """
    X_pool, y_pool = _pool(X_pool, y_pool, domain)
    X = checks.matrix(X, "X", columns=X_pool.shape[1])
    y, lam = checks.signs(y, "y", X.shape[0]), checks.positive(lam, "lam")
    epsilon, max_rounds = (
        checks.positive(epsilon, "epsilon"),
        checks.whole(max_rounds, "max_rounds"),
    )
    if max_copies is not None:
        max_copies = checks.whole(max_copies, "max_copies")
    checks.instance(clean, "clean", LinearModel)
    n = len(y)
    total = round(epsilon * n)
    allowed = _allowed(X_pool, y_pool, domain, feasible)
    most = total if max_copies is None else max_copies
    if most * len(allowed) < total:
        raise ValueError(
            f"{len(allowed)} points of the pool, {most} times each, are fewer than the {total} of "
            f"the budget; raise max_copies or widen the feasible set."
        )
    X_flipped, y_flipped = X_pool[allowed], -y_pool[allowed]
    everything, labels = vstack([X, X_flipped]), np.concatenate([y, y_flipped])
    before = clean.hinge(X_flipped, y_flipped)
    q = np.full(len(allowed), total / len(allowed))
    alpha = None
    for _ in range(max_rounds):
        weights = np.concatenate([np.ones(n), q])
        solution = train_svm(everything, labels, lam, weights=weights, alpha0=alpha)
        alpha = solution.alpha
        change = solution.model.hinge(X_flipped, y_flipped) - before
        following = cheapest(change, total, most)
        if np.array_equal(following, q):
            chosen = np.repeat(np.arange(len(q)), following)
            return PoisonedSet(X_flipped[chosen], y_flipped[chosen], n, epsilon, domain)
        q = following
    raise SolverError(
        f"alfa ({n} examples, {len(allowed)} in the pool): the choice still moves after "
        f"{max_rounds} rounds; raise max_rounds"
    )


def cheapest(cost: Float[ndarray, "p"], total: int, most: int) -> Int[ndarray, "p"]:
    """min cost·q over 0 ≤ q ≤ ``most``, Σq = ``total``: an integral vertex of the linear program.

    Of equal costs the first comes first. Raises ``ValueError`` unless ``most``·p is at least
    ``total``.
    """
    cost = checks.array(cost, "cost", (None,))
    total, most = checks.whole(total, "total", 0), checks.whole(most, "most")
    if most * len(cost) < total:
        raise ValueError(f"total must be at most {most * len(cost)}, not {total}.")
    q = np.zeros(len(cost), dtype=np.int64)
    order = np.argsort(cost, kind="stable")
    whole, rest = divmod(total, most)
    q[order[:whole]] = most
    if rest:
        q[order[whole]] = rest
    return q


@dataclass(frozen=True)
class _Flips(WithinLimits):
    """Label flips from a pool: the test data, within the feasible set if ``constrained``."""

    constrained: bool = setting(
        True, FLAG, "whether flipped points must lie in the feasible set of their new class"
    )

    def _feasible(self, game: LinearGame) -> FeasibleSet | None:
        playing(self, game, LinearGame)
        if not game.binary:
            raise TypeError(f"{type(self).__name__} needs labels -1 and +1, not more classes.")
        game.poison_size(self.epsilon)
        limits = self.radius_percentile, self.slab_percentile
        return game.feasible(*limits) if self.constrained else None


@dataclass(frozen=True)
class RandomFlips(_Flips):
    """Test points drawn at random and flipped: ``RandomFlips(0.03)(game, rng)``."""

    def __call__(self, game: LinearGame, rng: int | np.random.Generator) -> Attacked:
        """See :func:`random_flips`, which says what it raises."""
        begun, rng, feasible = perf_counter(), generator(rng), self._feasible(game)
        poisoned = random_flips(
            game.X_test, game.y_test, game.n, self.epsilon, game.domain, rng, feasible=feasible
        )
        return select(game, [("flip", poisoned)], begun)


@dataclass(frozen=True)
class Alfa(_Flips):
    """Adversarial label flips of test points: ``Alfa(0.03)(game, rng)``; ``rng`` is not used."""

    max_copies: int | None = setting(
        None, COUNT, "how often the same point may be added; None, as in the paper, is no limit",
        none=True,
    )  # fmt: skip

    def __call__(self, game: LinearGame, rng: int | np.random.Generator) -> Attacked:
        """See :func:`alfa`, which says what it raises."""
        begun, feasible = perf_counter(), self._feasible(game)
        generator(rng)  # refused like everywhere, though nothing is drawn
        poisoned = alfa(
            game.X, game.y, game.X_test, game.y_test, game.lam, self.epsilon, game.domain,
            feasible=feasible, clean=game.clean_svm.model, max_copies=self.max_copies,
        )  # fmt: skip
        return select(game, [("alfa", poisoned)], begun)


def _pool(X: Any, y: Any, domain: Any) -> tuple[Matrix, Float[ndarray, "p"]]:
    """A pool of points, checked."""
    d = checks.instance(domain, "domain", InputDomain).lower.size
    X = checks.matrix(X, "X_pool", columns=d)
    return X, checks.signs(y, "y_pool", X.shape[0])


def _allowed(
    X_pool: Matrix, y_pool: Float[ndarray, "p"], domain: InputDomain, feasible: FeasibleSet | None
) -> Int[ndarray, "a"]:
    """Indices of the pool's points that may be flipped; test points may lie outside the domain."""
    legal = domain.contains(X_pool)
    if feasible is not None:
        legal &= flippable(X_pool, y_pool, feasible)
    if not legal.any():
        raise EmptySetError(
            "label flips: no point of the pool is feasible once its label is turned round"
        )
    return np.flatnonzero(legal)
