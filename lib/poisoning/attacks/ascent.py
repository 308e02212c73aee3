"""Clean-label attacks on examples, within a budget; regimes A and B of Wang, Mianjy & Arora 2021.

An example x_i becomes x_i + δ_i and keeps its label y_i. In the experiments of the paper δ ascends

    Σ_i ℓ₋₋(z_i),   ℓ₋₋(z) = −ℓ(−z),   z_i = y_i f(x_i + δ_i; w*),

with w* a fixed model trained on clean data. So w* assigns x_i + δ_i to the other class, and a
learner that fits the label y_i to x_i + δ_i learns to confuse the two classes. Regime A bounds the
overall perturbation, Σ‖δ_i‖₂ ≤ S, a ball in ℓ2,1; regime B each of them, ‖δ_i‖₂ ≤ B, a ball in
ℓ2,∞.

Functions take NumPy arrays or torch tensors, one example per row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from array_api_compat import array_namespace
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning import checks
from poisoning.errors import SolverError
from poisoning.models.two_layer import Array, TwoLayerNets

InputGradient: TypeAlias = Callable[[Array, Array], Array]
"""(X, y) → ∂ℓ₋₋(z_i)/∂x_i, a row for every example."""

_BATCH = 1000  # examples that a torch model differentiates at once


@runtime_checkable
class Budget(Protocol):
    """A ball of perturbations δ, one per row."""

    def project(self, delta: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The nearest δ in the ball, Σ‖δ_i − δ'_i‖² being the distance."""

    def step(self, gradients: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """A move along the gradients with the full size of the ball."""


@dataclass(frozen=True)
class OverallBudget:
    """Regime A: Σ_i ‖δ_i‖₂ ≤ ``total`` S."""

    total: float

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a negative budget."""
        checks.positive(self.total, "total", zero=True)

    def project(self, delta: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """‖δ_i‖ shrinks to max(0, ‖δ_i‖ − τ), with the τ at which the sum is S; exact, by sorting.

        Sums of many norms are taken in float64.
        """
        xp = array_namespace(delta)
        norms = xp.astype(_norms(delta), xp.float64)
        if float(xp.sum(norms)) <= self.total:
            return delta
        falling = xp.sort(norms, descending=True)
        # τ_k removes the excess from the k largest norms; the last k with a norm > τ_k is right.
        counts = xp.astype(xp.cumulative_sum(xp.ones_like(falling)), xp.float64)
        thresholds = (xp.cumulative_sum(falling) - self.total) / counts
        chosen = int(xp.count_nonzero(falling > thresholds)) - 1
        kept = xp.clip(norms - thresholds[chosen], 0.0, None)
        return delta * xp.astype(_ratio(kept, norms), delta.dtype)[:, None]

    def step(self, gradients: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The gradients, scaled to Σ‖·‖ = S: examples with long gradients move most."""
        xp = array_namespace(gradients)
        length = float(xp.sum(_norms(gradients)))
        return gradients * (self.total / length if length > 0.0 else 0.0)


@dataclass(frozen=True)
class PerSampleBudget:
    """Regime B: ‖δ_i‖₂ ≤ ``largest`` B for every i."""

    largest: float

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a negative budget."""
        checks.positive(self.largest, "largest", zero=True)

    def project(self, delta: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Each δ_i that is too long is cut to length B."""
        xp = array_namespace(delta)
        norms = _norms(delta)
        return delta * _ratio(xp.clip(norms, None, self.largest), norms)[:, None]

    def step(self, gradients: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Each gradient, scaled to length B."""
        xp = array_namespace(gradients)
        norms = _norms(gradients)
        return gradients * _ratio(xp.full_like(norms, self.largest), norms)[:, None]


def ascend(
    gradient: InputGradient,
    X: Float[Array, "n d"],
    y: Array,
    budget: Budget,
    *,
    steps: int,
    rate: float,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Float[Array, "n d"]:
    """x + δ after ``steps`` of δ ← Π(clip(x + δ + rate·move) − x): projected ascent of Σ ℓ₋₋.

    ``gradient`` is that of :func:`reversed_logistic` or :func:`reversed_cross_entropy` at the
    reference model. A move has the full size of the ``budget``, so ``rate`` is a fraction of the
    budget. ``bounds`` are the least and the largest value of a feature, None for none; X must lie
    within them. The result satisfies the budget and the bounds: the projection only shortens each
    δ_i, and a box is convex. The poster reports 500 steps and no step size.

    Raises ``ValueError`` or ``TypeError`` if X is outside the bounds, or for another invalid
    argument, ``SolverError`` if the gradient is not finite.
    """
    X = checks.floats(X, "X", (None, None))
    if type(y) is not type(X) or tuple(y.shape) != (len(X),):
        raise TypeError(f"y must be a {type(X).__name__} of {len(X)} labels, like X.")
    if isinstance(X, ndarray):
        y = checks.vector(y, "y", len(X)).astype(X.dtype)  # the way stays in X's precision
    checks.instance(budget, "budget", Budget)
    steps, rate = checks.whole(steps, "steps", 0), checks.positive(rate, "rate")
    xp = array_namespace(X)
    if bounds is not None:
        low, high = (checks.between(end, "bounds", -1e30, 1e30) for end in bounds)
        if not (0 in X.shape or (float(xp.min(X)) >= low and float(xp.max(X)) <= high)):
            raise ValueError(f"X must lie within the bounds {low:g} to {high:g}.")
    delta = xp.zeros_like(X)
    for _ in range(steps):
        moved = X + delta + rate * budget.step(gradient(X + delta, y))
        if bounds is not None:
            moved = xp.clip(moved, low, high)
        delta = budget.project(moved - X)
    if not bool(xp.all(xp.isfinite(delta))):
        raise SolverError(
            f"ascent of {steps} steps: the gradient is not finite; lower rate or steps"
        )
    # x + δ is rounded once more: it may leave the box by one unit in the last place.
    return X + delta if bounds is None else xp.clip(X + delta, low, high)


def reversed_logistic(nets: TwoLayerNets) -> InputGradient:
    """∂/∂x of −log(1 + e^{z}), z = y f(x), f the mean of the networks: −σ(z) y ∇f(x)."""
    checks.instance(nets, "nets", TwoLayerNets)

    def gradient(X: Float[Array, "n d"], y: Float[Array, "n"]) -> Float[Array, "n d"]:
        xp = array_namespace(X)
        z = y * xp.mean(nets.scores(X), axis=0)
        weight = -y / (1.0 + xp.exp(xp.clip(-z, None, 80.0)))
        return weight[:, None] * xp.mean(nets.input_gradients(X), axis=0)

    return gradient


def reversed_cross_entropy(model: Callable[[Any], Any]) -> InputGradient:
    """∂/∂x of −CE(−model(x), y) for a torch classifier: ℓ₋₋ for any number of classes.

    CE is the cross entropy of the softmax. With two classes and logits ±f/2 this is
    :func:`reversed_logistic`. ``model`` maps (n, d) to logits (n, k); labels are 0 … k−1.
    """
    import torch  # takes seconds; binary experiments do not need it

    def gradient(X: Float[Array, "n d"], y: Int[Array, "n"]) -> Float[Array, "n d"]:
        parts = []
        for rows, labels in zip(X.split(_BATCH), y.split(_BATCH), strict=True):
            inputs = rows.detach().requires_grad_()
            loss = -torch.nn.functional.cross_entropy(-model(inputs), labels, reduction="sum")
            parts.append(torch.autograd.grad(loss, inputs)[0])
        return torch.cat(parts)

    return gradient


def _norms(delta: Float[Array, "n d"]) -> Float[Array, "n"]:
    xp = array_namespace(delta)
    return xp.sqrt(xp.sum(delta * delta, axis=1))


def _ratio(lengths: Float[Array, "n"], norms: Float[Array, "n"]) -> Float[Array, "n"]:
    """lengths/norms, 0 where the norm is 0: a zero row stays zero."""
    xp = array_namespace(norms)
    return xp.where(norms > 0.0, lengths / xp.where(norms > 0.0, norms, 1.0), 0.0)
