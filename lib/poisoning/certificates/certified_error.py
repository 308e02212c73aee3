"""A certified upper bound on the test error that any poison within a feasible set can cause.

The learner is the SVM of Eq. (2) of Koh et al. 2021; k points of poison lie anywhere in a fixed
feasible set F; the clean data are kept whole. With x̃ = (x, 1), w = (θ, b), ε = k/n, A = (1 + ε)λ,
C(w) the mean clean hinge loss, and μ̃±, τ± centres and radii of F, every w that poison can make
optimal minimises

    J_q(w) = A/2 ‖w‖² + C(w) − ε q·w,    q ∈ conv{0, x̃ (x ∈ F₊), −x̃ (x ∈ F₋)}:

a linear perturbation of the clean problem. So it lies in *regions* that are known beforehand:

* L2: for any q₀ let R be the largest ‖q − q₀‖. By optimality at q and strong convexity,
  J_{q₀}(w) − J_{q₀}(ω) + A/2 ‖w − ω‖² ≤ ε(q − q₀)·(w − ω) ≤ εR‖w − ω‖ for any ω. With r = εR/A,
  any ρ > 0 and κ = A(1 − r/ρ): J_{q₀}(w) + κ/2 ‖w − ω‖² ≤ J_{q₀}(ω) + εRρ/2.
* L1: A/2 ‖w‖² + C(w) + A/2 ‖w − ω‖² ≤ U(ω), the bound of Eq. (21) of Koh et al. 2021
  (:func:`~poisoning.certificates.loss.certify_loss`): the value of the game with the attacker.

Each is {w: a/2 ‖w − v‖² + C(w) ≤ level}. *One by one*: a test point is certified if no w of a
region misclassifies it, which a dual solution with one more constraint proves. *Together*: with U_t
above the margin m_t of test point t in the regions, and N those not certified, the errors are at
most |N| − min_w Σ_N max(0, m_t(w)/U_t), w in a region: one more SVM, whose dual proves the bound.

For counts, F's ball bounds the expected norm of a rounded point; here it bounds the norm itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import minimize
from sklearn.base import clone

from poisoning import checks
from poisoning.arrays import Matrix, squared_distances, squared_norms
from poisoning.attacks.attacked import played, several
from poisoning.attacks.kkt import KKT
from poisoning.certificates.certified_error_kernels import descend, exclude
from poisoning.certificates.loss import certify_loss
from poisoning.errors import SolverError
from poisoning.feasible.sets import FeasibleSet
from poisoning.games.linear import LinearGame

_RHOS = (1.0, 0.75)  # ρ/r of the L2 regions
_ROUNDS = 200  # passes over all rows, each with _INNER over the undecided ones
_INNER = 10
_GAP = 0.01  # of the room between a region's level and its least value: a gap that costs little
_EPOCHS = 50  # of one test point's proof
_FALL = 10.0**-0.5  # of a region's multiplier, from one trial to the next
_TRIALS = 14
_RIM = 1e-6  # an attack's points lie on the rim, to its solver's tolerance


@dataclass(frozen=True)
class Region:
    """{w: a/2 ‖w − v‖² + C(w) ≤ level}: no poison makes a w outside it optimal.

    ``kind`` is L1 or L2. The dual variables ``alpha`` (n,), in [0, 1/n], prove that the left-hand
    side is at least ``least`` everywhere; ``w`` (d + 1,) is the point that belongs to them.
    """

    kind: str
    a: float
    v: Float[ndarray, "d1"]
    level: float
    alpha: Float[ndarray, "n"]
    w: Float[ndarray, "d1"]
    least: float

    @property
    def radius(self) -> float:
        """The region lies in the ball of this radius round ``w``."""
        return float(np.sqrt(max(2.0 * (self.level - self.least) / self.a, 0.0)))


@dataclass(frozen=True)
class Proof:
    """``value`` > ``region.level``: no w of the region misclassifies one test point (x, y).

    With ``alpha`` (n,) in [0, 1/n], ``beta`` ≥ 0 and u = Σ αᵢyᵢx̃ᵢ − β y x̃, ``value`` =
    Σ αᵢ − u·v − ‖u‖²/2a is at most the least a/2 ‖w − v‖² + C(w) over y w·x̃ ≤ 0.
    """

    region: Region
    alpha: Float[ndarray, "n"]
    beta: float
    value: float


@dataclass(frozen=True)
class JointProof:
    """At most ``errors`` of the test points ``tests`` (k,) are misclassified at once.

    ``tests`` are those that are not certified one by one. In every region the margin m_t of a point
    is at most its margin at the region's ``w`` plus ‖x̃‖ times the region's radius; ``scales`` (k,)
    are the least of these bounds, U_t. With ``alpha`` (n,) in [0, 1/n], ``beta`` (k,) in
    [0, 1/``mu``], 0 where U_t ≤ 0, and u = Σ αᵢyᵢx̃ᵢ − Σ β_t y_t x̃_t/U_t, ``value`` =
    Σ αᵢ − u·v − ‖u‖²/2a is at most the least a/2 ‖w − v‖² + C(w) + (1/μ) Σ max(0, m_t/U_t), summed
    over U_t > 0. So in ``region`` that sum is at least μ(``value`` − level). Each of its terms is
    at most 1, and 0 for a misclassified point: ``errors`` = ⌊k − μ(``value`` − level)⌋.
    """

    region: Region
    tests: Int[ndarray, "k"]
    scales: Float[ndarray, "k"]
    mu: float
    alpha: Float[ndarray, "n"]
    beta: Float[ndarray, "k"]
    value: float
    errors: int


@dataclass(frozen=True)
class ErrorCertificate:
    """No ``points`` points of poison in ``feasible`` bring the test error above ``bound``.

    All but counts and arrays are fractions of the m test points. ``one_by_one`` is the fraction
    that is not certified, ``bound`` the smaller bound for all together. Beside it: the error
    without poison, ``clean``; that of the class most common in the training data, ``majority``,
    above which a bound says nothing; and that of the best attack found, ``attacked``, with
    ``attack_points`` of its points in the feasible set. If no attack has any, it is ``clean``.

    ``certified`` (m,) says which test points no poison flips. ``together`` proves ``bound``, or is
    None where ``bound`` is ``one_by_one``. ``radius`` is R of the module's docstring; ``regions``
    are what was proved about the models. ``lam`` is the learner's λ.
    """

    points: int
    lam: float
    bound: float
    one_by_one: float
    clean: float
    majority: float
    attacked: float
    attack_points: int
    certified: Bool[ndarray, "m"]
    together: JointProof | None
    feasible: FeasibleSet
    radius: float
    regions: tuple[Region, ...]
    _problem: "_Problem"

    def proof(self, i: int) -> Proof:
        """The dual variables that certify test point ``i``.

        Raises ``ValueError`` if it is not certified.
        """
        i = checks.whole(i, "i", 0, len(self.certified) - 1)
        for region in self.regions if self.certified[i] else ():
            values, beta, alpha = self._problem.excluded(region, np.array([i]))
            if values[0] > region.level:
                return Proof(region, alpha, float(beta[0]), float(values[0]))
        raise ValueError(f"i must be a certified test point, {i} is not.")


def certify_test_error(
    game: LinearGame,
    points: int,
    *,
    radius_percentile: float = 90.0,
    slab_percentile: float = 90.0,
    attacks: Sequence[Any] | None = None,
    rng: int | np.random.Generator = 0,
) -> ErrorCertificate:
    """An upper bound on the test error of an SVM on the clean data and ``points`` points of poison.

    The poison lies in the feasible set that the percentiles describe, see
    :meth:`poisoning.feasible.sets.FeasibleSet.fit`, which does not move with it; no defense
    discards clean data. ``attacks`` are those whose best result stands beside the bound, by
    default :class:`~poisoning.attacks.kkt.KKT` within the same percentiles; their points outside
    the set are left out.

    More than two classes have no such certificate;
    :func:`~poisoning.certificates.partition.partition_certificate` has one.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument, an attack of more than
    ``points`` points, without ``attacks`` more ``points`` than n/2, a learner other than
    :class:`~poisoning.learners.SVM`, or more than two classes; ``EmptySetError`` or ``SolverError``
    as :func:`certify_loss` does, ``SolverError`` too if an attack exceeds the bound, which a
    loosely trained SVM can.
    """
    checks.instance(game, "game", LinearGame)
    points = checks.whole(points, "points")
    lam = game.svm("certify_test_error").lam
    if attacks is not None:
        several(attacks)
    elif points > game.n // 2:
        raise ValueError(
            f"points must be at most {game.n // 2}, half of the {game.n} clean ones, not {points}: "
            "KKT, which is played unless attacks are given, adds no more."
        )
    feasible = game.feasible(radius_percentile, slab_percentile)
    rng = checks.generator(rng)
    epsilon = points / game.n
    if attacks is None:
        limits = {"radius_percentile": radius_percentile, "slab_percentile": slab_percentile}
        attacks = (KKT(epsilon, **limits),)
    problem = _Problem.of(game.X, game.y, game.X_test, game.y_test)
    regions, radius = _regions(game, problem, lam, epsilon, feasible)
    certified, largest = problem.one_by_one(regions)
    left = np.flatnonzero(~certified)
    proofs = [problem.together(region, left, largest[left]) for region in regions]
    found = [proof for proof in proofs if proof is not None]
    together = min(found, key=lambda proof: proof.errors, default=None)
    clean = float(np.mean(game.clean_model.predict(game.X_test) != game.y_test))
    attacked, size = _best_attack(game, feasible, attacks, points, rng)
    most_common = 1.0 if game.y.sum() >= 0.0 else -1.0
    m = len(game.y_test)
    bound = (len(left) if together is None else together.errors) / m
    if size and attacked > bound:
        raise SolverError(
            f"certificate ({points} points, lambda {lam:g}): an attack reaches {attacked:g}, above "
            f"the bound {bound:g}; lower tol of the SVM, {game.learner.tol:.1e}"
        )
    return ErrorCertificate(
        points=points,
        lam=lam,
        bound=bound,
        one_by_one=len(left) / m,
        clean=clean,
        majority=float(np.mean(game.y_test != most_common)),
        attacked=attacked if size else clean,
        attack_points=size,
        certified=certified,
        together=together,
        feasible=feasible,
        radius=radius,
        regions=regions,
        _problem=problem,
    )


@dataclass(frozen=True)
class LambdaSweep:
    """Certificates of one game at several λ: what each choice costs, and what it makes certain."""

    certificates: tuple[ErrorCertificate, ...]

    @property
    def best(self) -> ErrorCertificate:
        """The certificate of the least bound; of equal bounds that of the least clean error.

        The λ was chosen by the test data, which favours it a little.
        """
        return min(self.certificates, key=lambda one: (one.bound, one.clean))

    @property
    def table(self) -> dict[str, Float[ndarray, "k"]]:
        """Columns, a row for each λ, as ``pandas.DataFrame`` takes them."""
        names = ("lam", "clean", "attacked", "bound", "one_by_one", "majority")
        return {name: np.array([getattr(one, name) for one in self.certificates]) for name in names}


def certify_over_lambda(
    game: LinearGame, points: int, lams: Sequence[float], **options: Any
) -> LambdaSweep:
    """Clean, attacked and certified test error with every λ of ``lams`` in place of the learner's.

    A larger λ keeps poison from moving the model far, and fits the clean data worse. ``options``
    are those of :func:`certify_test_error`, which makes each certificate.

    Raises what ``certify_test_error`` raises, ``ValueError`` for a ``lams`` without numbers.
    """
    learner = checks.instance(game, "game", LinearGame).svm("certify_over_lambda")
    lams = checks.array(lams, "lams", (None,))
    if not lams.size or lams.min() <= 0.0:
        raise ValueError(f"lams must hold at least one number, all above 0, not {lams.tolist()}.")
    found = []
    for lam in lams:
        other = game.with_defender(clone(learner).set_params(lam=float(lam)), ())
        found.append(certify_test_error(other, points, **options))
    return LambdaSweep(tuple(found))


def _best_attack(
    game: LinearGame,
    feasible: FeasibleSet,
    attacks: Sequence[Any],
    points: int,
    rng: np.random.Generator,
) -> tuple[float, int]:
    """The highest undefended error of the attacks' points in the set, and their number.

    Where some lie outside, or there are fewer than ``points``, those inside are repeated: the
    bound is for just so many.
    """
    undefended = game.with_defenses(())
    best, size = 0.0, 0
    for attack in attacks:
        try:
            poison = played(attack, undefended, rng).poison
        except SolverError:  # it finds no poison, which says nothing about others
            continue
        if len(poison.y) > points:
            raise ValueError(
                f"attacks: {type(attack).__name__} adds {len(poison.y)} points, more than {points}."
            )
        inside = np.flatnonzero(_within(feasible, poison.X, poison.y))
        rows = np.resize(inside, points if inside.size else 0)
        outcome = undefended.evaluate(poison.X[rows], poison.y[rows])["none"]
        if inside.size and outcome.test_error >= best:
            best, size = outcome.test_error, inside.size
    return best, size


def _within(feasible: FeasibleSet, X: Matrix, y: Float[ndarray, "k"]) -> Bool[ndarray, "k"]:
    """Which points lie in the set's ball of their class, with plain norms, to rounding."""
    inside = np.zeros(len(y), dtype=bool)
    for label, part in ((1.0, feasible.positive), (-1.0, feasible.negative)):
        rows = np.flatnonzero(y == label)
        if rows.size:
            inside[rows] = squared_distances(X[rows], part.centre) <= (1.0 + _RIM) * part.radius**2
    return inside


@dataclass(frozen=True)
class _Problem:
    """Clean rows Z = yᵢx̃ᵢ (n, d + 1), and test rows −yᵢx̃ᵢ (m, d + 1), CSR, with their ‖·‖²."""

    Z: sp.csr_array
    squares: Float[ndarray, "n"]
    tests: sp.csr_array
    test_squares: Float[ndarray, "m"]

    @classmethod
    def of(cls, X: Matrix, y: ndarray, X_test: Matrix, y_test: ndarray) -> "_Problem":
        def signed(X: Matrix, y: ndarray) -> sp.csr_array:
            rows = sp.diags_array(y) @ sp.csr_array(X)
            return sp.csr_array(sp.hstack([rows, y[:, None]], format="csr"))

        Z, tests = signed(X, y), signed(X_test, -y_test)
        return cls(Z, squared_norms(Z), tests, squared_norms(tests))

    def loss(self, w: Float[ndarray, "d1"]) -> float:
        """C(w)."""
        return float(np.maximum(0.0, 1.0 - self.Z @ w).mean())

    def least(
        self, a: float, v: Float[ndarray, "d1"], room: float, alpha: Float[ndarray, "n"]
    ) -> tuple[Float[ndarray, "n"], Float[ndarray, "d1"], float]:
        """α, w and dual value of min a/2 ‖w − v‖² + C(w), to a gap of ``room`` if it can be."""
        n = self.Z.shape[0]
        return _minimum(self.Z, np.ones(n), np.full(n, 1.0 / n), self.squares, a, v, room, alpha)

    def one_by_one(
        self, regions: Sequence[Region]
    ) -> tuple[Bool[ndarray, "m"], Float[ndarray, "m"]]:
        """Which test points are certified, and a bound on the margin of each in all regions."""
        certified = np.zeros(self.tests.shape[0], dtype=bool)
        largest = np.full(len(certified), np.inf)
        norms = np.sqrt(self.test_squares)
        for region in regions:
            margins = -(self.tests @ region.w)
            largest = np.minimum(largest, margins + region.radius * norms)
            open_ = np.flatnonzero(~certified & (margins > 0.0))
            values, _, _ = self.excluded(region, open_)
            certified[open_[values > region.level]] = True
        return certified, largest

    def excluded(
        self, region: Region, tests: ndarray
    ) -> tuple[Float[ndarray, "k"], Float[ndarray, "k"], Float[ndarray, "n"]]:
        """For each test row: a bound on the region's function where it is misclassified, its β; α.

        The α is that of the last row.
        """
        n = self.Z.shape[0]
        # Within the region no other example's margin gets to the hinge, or over it.
        near = np.flatnonzero(
            np.abs(self.Z @ region.w - 1.0) <= region.radius * np.sqrt(self.squares)
        )
        return exclude(
            *_parts(self.Z), np.ones(n), np.full(n, 1.0 / n), self.squares, region.a, region.alpha,
            region.w, near, region.least, region.level + _rounding(region), *_parts(self.tests),
            self.test_squares, tests, _EPOCHS,
        )  # fmt: skip

    def together(
        self, region: Region, left: ndarray, largest: Float[ndarray, "k"]
    ) -> JointProof | None:
        """How many of the test points ``left`` may be misclassified at once, by margins' bounds.

        None where nothing less than all of them can be proved.
        By Lagrange's multiplier μ ≥ 0 of the region: min_w Σ max(0, m_t/U_t) over it is at least
        μ(min_w [a/2 ‖w − v‖² + C(w) + (1/μ) Σ max(0, m_t/U_t)] − level).
        """
        open_ = largest > 0.0
        rows, scales = left[open_], largest[open_]
        if not rows.size or not region.level > region.least:
            return None
        n, k = self.Z.shape[0], rows.size
        extra = sp.diags_array(1.0 / scales) @ self.tests[rows]
        Z = sp.csr_array(sp.vstack([self.Z, extra], format="csr"))
        squares = np.append(self.squares, self.test_squares[rows] / scales**2)
        targets = np.append(np.ones(n), np.zeros(k))
        alpha, best, falls, proof = np.append(region.alpha, np.zeros(k)), 0.0, 0, None
        room = region.level - region.least
        mu = k / room
        for _ in range(_TRIALS):
            upper = np.append(np.full(n, 1.0 / n), np.full(k, 1.0 / mu))
            alpha, _, value = _minimum(
                Z, targets, upper, squares, region.a, region.v, _GAP * room,
                np.minimum(alpha, upper),
            )  # fmt: skip
            found = mu * (value - region.level - _rounding(region))
            falls = falls + 1 if found <= best else 0
            if found > best:
                beta = np.zeros(len(left))
                beta[open_] = alpha[n:]
                errors = int(np.floor(len(left) - found + 1e-9))
                best, proof = found, JointProof(
                    region, left, largest, mu, alpha[:n], beta, value, errors
                )  # fmt: skip
            if falls == 2 and best > 0.0:
                break
            mu *= _FALL
        return proof if proof is not None and proof.errors < len(left) else None


def _rounding(region: Region) -> float:
    """What a value may be off by rounding; a proof has to exceed the level by more."""
    return 1e-10 * (abs(region.level) + region.a * float(region.v @ region.v))


def _parts(Z: sp.csr_array) -> tuple[ndarray, ndarray, ndarray]:
    return Z.data, Z.indices, Z.indptr


def _minimum(
    Z: sp.csr_array,
    targets: Float[ndarray, "r"],
    upper: Float[ndarray, "r"],
    squares: Float[ndarray, "r"],
    a: float,
    v: Float[ndarray, "d1"],
    room: float,
    alpha: Float[ndarray, "r"],
) -> tuple[Float[ndarray, "r"], Float[ndarray, "d1"], float]:
    """α, w and dual value of min a/2 ‖w − v‖² + Σ uᵢ max(0, tᵢ − zᵢ·w), from ``alpha``.

    It ends at a duality gap of ``room``, or after ``_ROUNDS``: any α proves its dual value.
    """
    alpha = alpha.copy()
    order = np.random.default_rng(0)
    w = v + Z.T @ alpha / a
    for _ in range(_ROUNDS):
        rows = order.permutation(len(alpha))
        descend(*_parts(Z), targets, upper, squares, a, alpha, w, rows, 1)
        undecided = order.permutation(np.flatnonzero((alpha > 0.0) & (alpha < upper)))
        descend(*_parts(Z), targets, upper, squares, a, alpha, w, undecided, _INNER)
        w = v + Z.T @ alpha / a
        dual = float(alpha @ targets - 0.5 * a * (w @ w - v @ v))
        primal = 0.5 * a * float((w - v) @ (w - v))
        primal += float(upper @ np.maximum(0.0, targets - Z @ w))
        if primal - dual <= room:
            break
    return alpha, w, dual


def _regions(
    game: LinearGame, problem: _Problem, lam: float, epsilon: float, feasible: FeasibleSet
) -> tuple[tuple[Region, ...], float]:
    """Where the models lie that poison can bring about; and R."""
    A = (1.0 + epsilon) * lam
    none = np.zeros(game.n)

    def region(
        kind: str, a: float, v: Float[ndarray, "d1"], level: float, alpha: Float[ndarray, "n"]
    ) -> Region:
        room = max(level - problem.least(a, v, np.inf, alpha)[2], 0.0)
        alpha, w, least = problem.least(a, v, _GAP * room, alpha)
        return Region(kind, a, v, level, alpha, w, least)

    q0, R = _centre(feasible)
    r = epsilon * R / A
    alpha, omega, _ = problem.least(A, epsilon * q0 / A, _GAP * 0.5 * A * r * r, none)
    reached = 0.5 * A * float(omega @ omega) - epsilon * float(q0 @ omega) + problem.loss(omega)
    found = []
    for rho in _RHOS:
        kappa = A * (1.0 - 1.0 / rho)
        a = A + kappa
        v = (epsilon * q0 + kappa * omega) / a
        level = reached + 0.5 * A * r * r * rho
        level += 0.5 * a * float(v @ v) - 0.5 * kappa * float(omega @ omega)
        found.append(region("L2", a, v, level, alpha))
    game_value = certify_loss(game.X, game.y, lam, epsilon, feasible)
    omega = np.append(game_value.model.theta, game_value.model.bias)
    level = game_value.bound - 0.25 * A * float(omega @ omega)
    found.append(region("L1", 2.0 * A, 0.5 * omega, level, none))
    return tuple(found), R


def _centre(feasible: FeasibleSet) -> tuple[Float[ndarray, "d1"], float]:
    """The q₀ = bμ̃₊ − cμ̃₋ with the least bound R on ‖q − q₀‖, and R."""
    plus, minus = (np.append(part.centre, 1.0) for part in (feasible.positive, feasible.negative))
    G = np.array([[plus @ plus, -(plus @ minus)], [-(plus @ minus), minus @ minus]])
    corners = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])  # μ̃₊, −μ̃₋ and 0
    reach = np.array([feasible.positive.radius, feasible.negative.radius, 0.0])

    def farthest(coefficients: Float[ndarray, "2"]) -> float:
        off = corners - coefficients
        lengths = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", off, G, off), 0.0))
        return float(np.max(lengths + reach))

    b, c = minimize(farthest, [0.5, 0.5], method="Nelder-Mead").x
    return b * plus - c * minus, farthest(np.array([b, c]))
