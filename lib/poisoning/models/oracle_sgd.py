"""Convex learning from a first-order oracle that may be poisoned; Wang, Mianjy & Arora 2021.

    min_{‖w‖ ≤ R} F(w),   w_{i+1} = Π_R(w_i − η (ĝ_i + ζ_i)),   E ĝ_i ∈ ∂F(w_i),   w̄ = (1/n) Σ w_i:

The learner takes one noisy subgradient a step, and an adversary adds ζ_i to it. Let E‖ĝ‖² ≤ G²,
w_1 = 0, and let ζ_i depend on nothing but the examples up to step i. Then

    E F(w̄) − F(w*) ≤ R²/(2ηn) + η/(2n) Σ (G + ‖ζ_i‖)² + (2R/n) Σ ‖ζ_i‖,              (upper)

which for η = R/(G√n) is the slides' O(1/√n + Σ‖ζ_i‖/n) with its constants. On one of the two
problems F_± of :class:`LinearPair`, every learner has an excess risk of at least R Σ‖ζ_i‖/n
(lower).

The population risk of both classes of problems is computed without sampling. Many independent
trials run side by side, one in each row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit

from poisoning import checks

_DRAWS = 256  # steps whose examples are drawn at once
_NODES = 80  # of the quadrature: E log(1 + e^{aZ}) to 1e-10 for a ≤ 2.5
_SMOOTH = 2.5  # the a up to which that holds
_TAIL = 40.0  # e^{-u} is rounding error beyond


@runtime_checkable
class ConvexProblem(Protocol):
    """min F over the ball ‖w‖ ≤ ``radius``, with a stochastic first-order oracle.

    ``minimiser`` (d,) is w*, and ``gradient_norm`` a bound G on (E‖ĝ‖²)^{1/2} over the ball.
    """

    radius: float

    @property
    def minimiser(self) -> Float[ndarray, "d"]:
        """w*."""

    @property
    def gradient_norm(self) -> float:
        """G."""

    def draw(
        self, shape: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Float[ndarray, "steps trials d"], Float[ndarray, "steps trials"]]:
        """Examples and labels ±1 for so many (steps, trials)."""

    def gradients(
        self,
        W: Float[ndarray, "trials d"],
        X: Float[ndarray, "trials d"],
        y: Float[ndarray, "trials"],
    ) -> Float[ndarray, "trials d"]:
        """ĝ at the iterates W, each on its own example."""

    def excess_risk(self, W: Float[ndarray, "trials d"]) -> Float[ndarray, "trials"]:
        """F(w) − F(w*)."""


@dataclass(frozen=True)
class GaussianLogistic:
    """x ~ N(0, I_d), P(y = 1 | x) = σ(w*·x), ℓ(w; x, y) = log(1 + e^{−y w·x}), ‖w*‖ ≤ ``radius``.

    F(w) = E log(1 + e^{‖w‖ Z}) − κ w·w* with Z ~ N(0, 1) and, by Stein's lemma, κ = E σ'(‖w*‖ Z):
    two one-dimensional integrals, by Gauss-Hermite quadrature where ‖w‖ ≤ 2.5. For larger norms a
    their integrands have a kink or a peak of width 1/a at 0, so that the part beside the kink,
    ``log(1 + e^t) = max(t, 0) + log(1 + e^{−|t|})``, is integrated in ``u = a|Z|``.
    """

    minimiser: Float[ndarray, "d"]
    radius: float

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if w* is outside the ball: it would not be the minimiser there."""
        object.__setattr__(self, "minimiser", checks.array(self.minimiser, "minimiser", (None,)))
        if not self.minimiser.size:
            raise ValueError("minimiser must have at least one entry.")
        checks.positive(self.radius, "radius")
        if not np.linalg.norm(self.minimiser) <= self.radius:
            raise ValueError(f"minimiser must lie in the ball of radius {self.radius:g}.")

    @property
    def gradient_norm(self) -> float:
        """E‖ĝ‖² ≤ E‖x‖² = d."""
        return float(np.sqrt(self.minimiser.size))

    def draw(
        self, shape: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Float[ndarray, "steps trials d"], Float[ndarray, "steps trials"]]:
        """Normal examples, labels from the logistic model."""
        X = rng.standard_normal((*shape, self.minimiser.size))
        return X, np.where(rng.random(shape) < expit(X @ self.minimiser), 1.0, -1.0)

    def gradients(
        self,
        W: Float[ndarray, "trials d"],
        X: Float[ndarray, "trials d"],
        y: Float[ndarray, "trials"],
    ) -> Float[ndarray, "trials d"]:
        """−y σ(−y w·x) x."""
        margins = y * np.einsum("td,td->t", W, X)
        return (-y * expit(-margins))[:, None] * X

    def excess_risk(self, W: Float[ndarray, "trials d"]) -> Float[ndarray, "trials"]:
        """F(w) − F(w*), to about 1e-10 of the larger of 1 and ‖w‖.

        Raises ``ValueError`` for iterates that do not fit or are not finite.
        """
        W = checks.array(W, "W", (None, self.minimiser.size))
        kappa = _mean_slope(float(np.linalg.norm(self.minimiser)))

        def risk(V: Float[ndarray, "k d"]) -> Float[ndarray, "k"]:
            return _mean_loss(np.linalg.norm(V, axis=1)) - kappa * (V @ self.minimiser)

        return risk(W) - risk(self.minimiser[None, :])


def _mean_loss(lengths: Float[ndarray, "k"]) -> Float[ndarray, "k"]:
    """E log(1 + e^{aZ}) for every a."""
    nodes, weights = _normal_nodes()
    small = np.minimum(lengths, _SMOOTH)
    mean = np.logaddexp(0.0, small[:, None] * nodes) @ weights
    large = np.flatnonzero(lengths > _SMOOTH)
    if large.size:
        a = lengths[large]
        u, weights = _half_line_nodes(a)
        rest = (np.log1p(np.exp(-u)) * weights).sum(axis=1)
        mean[large] = a / np.sqrt(2.0 * np.pi) + rest
    return mean


def _mean_slope(a: float) -> float:
    """κ = E σ'(aZ)."""
    if a <= _SMOOTH:
        nodes, weights = _normal_nodes()
        slope = expit(a * nodes)
        return float((slope * (1.0 - slope)) @ weights)
    u, weights = _half_line_nodes(np.array([a]))
    return float((expit(u) * expit(-u) * weights).sum())


def _normal_nodes() -> tuple[Float[ndarray, "q"], Float[ndarray, "q"]]:
    """Nodes and weights of E f(Z)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    return nodes, weights / weights.sum()


def _half_line_nodes(
    a: Float[ndarray, "k"],
) -> tuple[Float[ndarray, "q"], Float[ndarray, "k q"]]:
    """Nodes u and weights of E f(a|Z|) = 2/a ∫ f(u) φ(u/a) du, for f that falls like e^{−u}."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    u = 0.5 * _TAIL * (nodes + 1.0)
    density = np.exp(-0.5 * (u / a[:, None]) ** 2) / np.sqrt(2.0 * np.pi)
    return u, _TAIL * weights * density / a[:, None]


@dataclass(frozen=True)
class LinearPair:
    """F_s(w) = −s ε w on [−1, 1], s = ±1; ℓ(w; x) = −w x with x ~ N(s ε, 1).

    An adversary that adds ζ = s ε to every subgradient makes it −N(0, 1) for either sign. So the
    learner sees the same distribution, w̄ has the same distribution, and one of the two excess
    risks ε(1 ∓ E w̄) is at least ε = Σ‖ζ_i‖/n. Two-point noise would reveal the shift; normal noise
    does not.
    """

    epsilon: float
    sign: float
    radius: float = 1.0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a shift below 0, a radius not above, or a sign but −1 and +1."""
        checks.positive(self.epsilon, "epsilon", zero=True)
        checks.positive(self.radius, "radius")
        if self.sign not in (-1.0, 1.0):
            raise ValueError(f"sign must be -1 or +1, not {self.sign!r}.")

    @property
    def minimiser(self) -> Float[ndarray, "1"]:
        """w* = s, times the radius."""
        return np.array([self.sign * self.radius])

    @property
    def gradient_norm(self) -> float:
        """E ĝ² = 1 + ε²."""
        return float(np.hypot(1.0, self.epsilon))

    def draw(
        self, shape: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Float[ndarray, "steps trials 1"], Float[ndarray, "steps trials"]]:
        """x ~ N(s ε, 1); every label is 1."""
        return rng.normal(self.sign * self.epsilon, 1.0, (*shape, 1)), np.ones(shape)

    def gradients(
        self,
        W: Float[ndarray, "trials 1"],
        X: Float[ndarray, "trials 1"],
        y: Float[ndarray, "trials"],
    ) -> Float[ndarray, "trials 1"]:
        """−x, wherever w is."""
        return -X

    def excess_risk(self, W: Float[ndarray, "trials 1"]) -> Float[ndarray, "trials"]:
        """ε (R − s w)."""
        W = checks.array(W, "W", (None, 1))
        return self.epsilon * (self.radius - self.sign * W[:, 0])


@dataclass(frozen=True)
class OracleCall:
    """What the adversary knows at step ``index`` (from 0): the trials' iterates and draws.

    Its arrays cannot be written to: the adversary may only add ζ.

    ``W`` (T, d), ``X`` (T, d), ``y`` (T,) and the honest subgradients ``gradients`` (T, d).
    """

    index: int
    problem: ConvexProblem
    W: Float[ndarray, "trials d"]
    X: Float[ndarray, "trials d"]
    y: Float[ndarray, "trials"]
    gradients: Float[ndarray, "trials d"]


OraclePoison: TypeAlias = Callable[[OracleCall], ndarray]
"""ζ (T, d) for one oracle call."""


@dataclass(frozen=True)
class OracleRun:
    """``excess_risk`` (T,) of the average iterates w̄, ``average`` (T, d), and the poison's norms.

    ``poison_norms`` (n, T) are ‖ζ_i‖, step by step; their column sums are the budget S used.
    """

    excess_risk: Float[ndarray, "trials"]
    average: Float[ndarray, "trials d"]
    poison_norms: Float[ndarray, "n trials"]


def poisoned_sgd(
    problem: ConvexProblem,
    n: int,
    step: float,
    trials: int,
    rng: np.random.Generator,
    poison: OraclePoison | None = None,
) -> OracleRun:
    """n steps of projected SGD from w = 0 with subgradients ĝ_i + ζ_i, in ``trials`` trials.

    ``step`` is η, the same at every step. Two runs with the same ``rng`` state see the same draws,
    whatever the poison.

    Raises:
        ValueError: n < 1, trials < 1, η not above 0, or a ζ of another shape or that is not finite.
        TypeError: ``problem`` is no :class:`ConvexProblem`, ``poison`` cannot be called.
    """
    checks.instance(problem, "problem", ConvexProblem)
    n, trials = checks.whole(n, "n"), checks.whole(trials, "trials")
    step, rng = checks.positive(step, "step"), checks.generator(rng)
    if poison is not None and not callable(poison):
        raise TypeError(f"poison must be a function of an OracleCall, not {poison!r}.")
    W = np.zeros((trials, problem.minimiser.size))
    total = np.zeros_like(W)
    norms = np.zeros((n, trials))
    for first in range(0, n, _DRAWS):
        X, y = (part.view() for part in problem.draw((min(_DRAWS, n - first), trials), rng))
        X.flags.writeable = y.flags.writeable = False
        for offset in range(len(X)):
            total += W
            g = problem.gradients(W, X[offset], y[offset])
            if poison is not None:
                g = g.view()
                W.flags.writeable = g.flags.writeable = False
                call = OracleCall(first + offset, problem, W, X[offset], y[offset], g)
                zeta = np.asarray(poison(call), dtype=np.float64)
                if zeta.shape != W.shape:
                    raise ValueError(
                        f"poison must give an array of shape {W.shape}, it gives {zeta.shape}."
                    )
                norms[call.index] = np.sqrt(np.einsum("td,td->t", zeta, zeta))
                g = g + zeta
            W = W - step * g
            lengths = np.sqrt(np.einsum("td,td->t", W, W))
            W *= (problem.radius / np.maximum(lengths, problem.radius))[:, None]
    if not np.isfinite(norms).all():
        raise ValueError("poison must give finite numbers, it gives NaN or infinity.")
    average = total / n
    return OracleRun(problem.excess_risk(average), average, norms)


def balanced_step(problem: ConvexProblem, n: int) -> float:
    """η = R/(G√n), which balances the upper bound's terms without poison: G R/√n."""
    checks.instance(problem, "problem", ConvexProblem)
    n = checks.whole(n, "n")
    return problem.radius / (problem.gradient_norm * np.sqrt(n))


def risk_upper_bound(problem: ConvexProblem, step: float, norms: Float[ndarray, "n"]) -> float:
    """R²/(2ηn) + η/(2n) Σ (G + ‖ζ_i‖)² + (2R/n) Σ‖ζ_i‖, of E F(w̄) − F(w*); ``norms`` are ‖ζ_i‖.

    From ‖w_{i+1} − w*‖² ≤ ‖w_i − w* − η(ĝ_i + ζ_i)‖², summed; (E‖ĝ_i + ζ_i‖²)^{1/2} ≤ G + ‖ζ_i‖,
    and ‖w_i − w*‖ ≤ 2R. Raises ``ValueError`` for a step or norms that are not so.
    """
    checks.instance(problem, "problem", ConvexProblem)
    step, norms = checks.positive(step, "step"), checks.array(norms, "norms", (None,))
    if not norms.size or norms.min() < 0.0:
        raise ValueError("norms must hold at least one number, all of them at least 0.")
    n, R = len(norms), problem.radius
    noise = np.sum((problem.gradient_norm + norms) ** 2)
    return float(R**2 / (2 * step * n) + step * noise / (2 * n) + 2 * R * norms.sum() / n)


def risk_lower_bound(radius: float, total: float, n: int) -> float:
    """R S/n: no learner has a smaller excess risk on both F_± against a budget ``total`` = S."""
    radius, total = checks.positive(radius, "radius"), checks.positive(total, "total", zero=True)
    n = checks.whole(n, "n")
    return radius * total / n
