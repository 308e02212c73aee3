"""What the theorems on two-layer networks of Wang, Mianjy & Arora 2021 assume and promise.

Data are separable with margin γ in the tangent space of the infinitely wide network at its start:
there is v̄ with ‖v̄(z)‖ ≤ 1 and, for every example, E_{z~N(0,I)}[y ⟨v̄(z), x⟩ 1[z·x ≥ 0]] ≥ γ. By
minimax duality the largest such γ on n examples is

    γ = min_p h(p),   h(p) = E_z ‖g_p(z)‖,   g_p(z) = Σ_i p_i y_i 1[z·x_i ≥ 0] x_i,

over probabilities p, and v̄ = g_p/‖g_p‖ at the best p. With ‖x‖ = 1, n examples, d features, width
m, S = Σ‖δ_i‖, B = max ‖δ_i‖, labels flipped with probability β, and probability 1 − δ:

    A  (1/n) Σ L(W_i) ≲ (ln²(√n/4) + ln(24n/δ))/(√n γ²)  if B ≲ γ/√d and γ⁻⁸ ≲ m ≲ n/(γ⁴ S²)
    B  (1/n) Σ L(W_i) ≲ (ln²(√n/4) + ln(24n/δ))/(n γ²)   if m ≳ γ⁻⁸ and
         B ≲ min{1/(√(md) + √(m ln(m/δ))), γ/(γ + √d + √ln(mn/δ))}
    C  as A with 16n/δ in place of 24n/δ                 if m ≳ γ⁻⁸ and
         β ≲ (ln(n/δ) + ln²n)/((√ln(n/δ) + γ³ √(m(1 + γ))) γ² √n)

The theorems leave out constants, and in A and in γ⁻⁸ logarithms; here they are taken as 1. So a
region shows how the conditions scale and how far an experiment is from them, not where exactly they
end.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from poisoning.errors import SolverError

Numbers: TypeAlias = float | int | ndarray
"""A number or an array of them: conditions are evaluated on grids."""

_CHUNK = 512  # fresh neurons at once


@dataclass(frozen=True)
class MarginEstimate:
    """γ of n examples, estimated from finitely many neurons.

    ``value`` is the minimum of h, its mean taken over the ``neurons`` drawn, to a relative duality
    gap ``gap``. Its expectation is at most γ, since the minimum of a sample mean is biased
    downwards. ``lower`` and ``upper`` evaluate its minimiser p on fresh neurons: the least margin
    of v̄, and h(p). In expectation they lie below and above γ. All three refer to these examples;
    the margin of the whole distribution is no larger.
    """

    value: float
    lower: float
    upper: float
    gap: float
    iterations: int
    neurons: int


def tangent_margin(
    X: Float[ndarray, "n d"],
    y: Float[ndarray, "n"],
    rng: np.random.Generator,
    *,
    neurons: int = 512,
    fresh: int = 16384,
    tol: float = 1e-2,
    max_iterations: int = 2000,
) -> MarginEstimate:
    """min_p h(p) on the simplex by accelerated projected gradient, with a certificate.

    ``X`` (n, d) of unit rows as in the theorems, ``y`` (n,) of ±1. h is convex and homogeneous of
    degree 1, so every p has min_i ∇h(p)_i ≤ γ ≤ h(p): iterations end when the two are within
    ``tol`` of each other, relative to h. The draws: ``neurons`` to solve on, ``fresh`` to check.

    Raises ``ValueError`` for rows that are not of unit length, labels other than ±1, or no
    iterations; ``SolverError`` if the gap stays open, as it does where the examples cannot be
    separated.
    """
    if not np.all(np.abs(y) == 1.0):
        raise ValueError("the margin needs labels of -1 or +1")
    if not np.allclose(np.einsum("ij,ij->i", X, X), 1.0, atol=1e-6):
        raise ValueError("the margin is defined for examples of unit length")
    signed = y[:, None] * X
    active = _active(X, neurons, rng)
    p, dual, mu, iterations = _minimise(signed, active, tol, max_iterations)
    lower = float(dual.margins.min())
    gap = (dual.value - lower) / max(dual.value, np.finfo(float).tiny)
    if not gap <= tol:
        raise SolverError(
            f"tangent margin of {len(y)} examples on {neurons} neurons: between {lower:.2e} and "
            f"{dual.value:.2e} after {iterations} iterations, relative gap {gap:.1e}, tolerance "
            f"{tol:.1e}; raise max_iterations, tol or neurons, or remove examples that contradict "
            f"each other"
        )
    sizes = [min(_CHUNK, fresh - first) for first in range(0, fresh, _CHUNK)]
    parts = [(size / fresh, _Dual.at(p, signed, _active(X, size, rng), mu)) for size in sizes]
    margins = sum(share * part.margins for share, part in parts)
    upper = sum(share * part.value for share, part in parts)
    return MarginEstimate(dual.value, float(margins.min()), upper, gap, iterations, neurons)


def risk_few_large(n: Numbers, gamma: float, delta: float) -> Numbers:
    """Theorem A's bound on (1/n) Σ L(W_i)."""
    return _risk(n, 24.0, delta) / (np.sqrt(n) * gamma**2)


def risk_many_small(n: Numbers, gamma: float, delta: float) -> Numbers:
    """Theorem B's bound on (1/n) Σ L(W_i)."""
    return _risk(n, 24.0, delta) / (n * gamma**2)


def risk_label_flips(n: Numbers, gamma: float, delta: float) -> Numbers:
    """Theorem C's bound on (1/n) Σ L(W_i)."""
    return _risk(n, 16.0, delta) / (np.sqrt(n) * gamma**2)


def least_width(gamma: Numbers) -> Numbers:
    """γ⁻⁸, the least m in all three theorems."""
    return gamma**-8.0


def largest_total(m: Numbers, n: Numbers, gamma: float) -> Numbers:
    """The S up to which theorem A's m ≤ n/(γ⁴S²) holds: √(n/m)/γ²."""
    return np.sqrt(n / m) / gamma**2


def largest_single(d: int, gamma: float) -> float:
    """Theorem A's limit on B: γ/√d."""
    return gamma / float(np.sqrt(d))


def largest_of_many(m: Numbers, n: Numbers, d: int, gamma: float, delta: float) -> Numbers:
    """Theorem B's limit on B."""
    by_width = 1.0 / (np.sqrt(m * d) + np.sqrt(m * np.log(m / delta)))
    by_margin = gamma / (gamma + np.sqrt(d) + np.sqrt(np.log(m * n / delta)))
    return np.minimum(by_width, by_margin)


def largest_flip_rate(m: Numbers, n: Numbers, gamma: float, delta: float) -> Numbers:
    """Theorem C's limit on β."""
    logs = np.log(n / delta)
    spread = np.sqrt(logs) + gamma**3 * np.sqrt(m * (1.0 + gamma))
    return (logs + np.log(n) ** 2) / (spread * gamma**2 * np.sqrt(n))


def few_large_holds(
    m: Numbers, n: Numbers, d: int, gamma: float, total: Numbers, largest: Numbers
) -> Bool[ndarray, "..."] | bool | np.bool:
    """Theorem A's conditions for Σ‖δ_i‖ = ``total`` and max ‖δ_i‖ = ``largest``."""
    fits = (m >= least_width(gamma)) & (total <= largest_total(m, n, gamma))
    return fits & (largest <= largest_single(d, gamma))


def many_small_holds(
    m: Numbers, n: Numbers, d: int, gamma: float, largest: Numbers, delta: float
) -> Bool[ndarray, "..."] | bool | np.bool:
    """Theorem B's conditions for max ‖δ_i‖ = ``largest``."""
    return (m >= least_width(gamma)) & (largest <= largest_of_many(m, n, d, gamma, delta))


def label_flips_hold(
    m: Numbers, n: Numbers, gamma: float, beta: Numbers, delta: float
) -> Bool[ndarray, "..."] | bool | np.bool:
    """Theorem C's conditions for labels flipped with probability ``beta``."""
    return (m >= least_width(gamma)) & (beta <= largest_flip_rate(m, n, gamma, delta))


def _risk(n: Numbers, factor: float, delta: float) -> Numbers:
    return np.log(np.sqrt(n) / 4.0) ** 2 + np.log(factor * n / delta)


def _active(
    X: Float[ndarray, "n d"], neurons: int, rng: np.random.Generator
) -> Float[ndarray, "neurons n"]:
    """1[z·x_i ≥ 0] for normal z."""
    return (rng.standard_normal((neurons, X.shape[1])) @ X.T >= 0.0).astype(np.float64)


@dataclass(frozen=True)
class _Dual:
    """h at p, and the margin of v = g_p/max(‖g_p‖, μ), which is feasible, on every example.

    ``smooth`` is h with ‖g‖ replaced by ‖g‖²/(2μ) + μ/2 where ‖g‖ < μ; ``margins`` its gradient.
    """

    value: float
    smooth: float
    margins: Float[ndarray, "n"]

    @classmethod
    def at(
        cls,
        p: Float[ndarray, "n"],
        signed: Float[ndarray, "n d"],
        active: Float[ndarray, "neurons n"],
        mu: float,
    ) -> "_Dual":
        g = (active * p) @ signed
        norms = np.sqrt(np.einsum("ij,ij->i", g, g))
        longer = np.maximum(norms, mu)
        smooth = np.mean(0.5 * (norms**2 / longer + longer))
        margins = np.mean(((g / longer[:, None]) @ signed.T) * active, axis=0)
        return cls(float(norms.mean()), float(smooth), margins)


def _minimise(
    signed: Float[ndarray, "n d"],
    active: Float[ndarray, "neurons n"],
    tol: float,
    max_iterations: int,
) -> tuple[Float[ndarray, "n"], _Dual, float, int]:
    """p, the dual there, μ, and the number of iterations; step sizes by backtracking.

    Some neurons are inactive on the examples with p_i > 0, and there ‖g‖ has a kink. Rounding it
    off with μ = tol·h costs at most μ/4 of the gap.
    """
    n = len(signed)
    p = extrapolated = np.full(n, 1.0 / n)
    momentum, curvature = 1.0, 1.0
    mu = tol * _Dual.at(p, signed, active, 1.0).value
    for iteration in range(1, max_iterations + 1):
        here = _Dual.at(extrapolated, signed, active, mu)
        while True:
            new = _to_simplex(extrapolated - here.margins / curvature)
            dual = _Dual.at(new, signed, active, mu)
            move = new - extrapolated
            model = here.smooth + here.margins @ move + 0.5 * curvature * (move @ move)
            if dual.smooth <= model + 1e-15:  # h is of order 1 at most: rounding
                break
            curvature *= 2.0
        if dual.value - dual.margins.min() <= tol * dual.value or iteration == max_iterations:
            return new, dual, mu, iteration
        if (extrapolated - new) @ (new - p) > 0.0:  # the momentum points uphill
            momentum = 1.0
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        extrapolated = new + (momentum - 1.0) / following * (new - p)
        p, momentum = new, following
        curvature *= 0.9
        if tol * dual.value < 0.5 * mu:
            mu, momentum, extrapolated = tol * dual.value, 1.0, new
    raise ValueError(f"max_iterations has to be at least 1, got {max_iterations}")


def _to_simplex(v: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    """The nearest point with entries ≥ 0 that sum to 1."""
    falling = np.sort(v)[::-1]
    thresholds = (np.cumsum(falling) - 1.0) / np.arange(1, len(v) + 1)
    return np.maximum(v - thresholds[np.count_nonzero(falling > thresholds) - 1], 0.0)
