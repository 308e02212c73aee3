"""Multilayer perceptrons with leaky ReLU and one logit, differentiated by hand.

    a_0 = x,  z_l = W_l a_{l−1} + b_l,  a_l = φ(z_l),  f = z_L;      φ(z) = max(z, slope·z).

Backward, δ_L = (σ(f) − y)c/N and δ_l = φ'(z_l) ∘ W_{l+1}ᵀδ_{l+1}, so that ∇W_l = Σ δ_l a_{l−1}ᵀ and
∇x = W_1ᵀδ_1. The R-operator (Pearlmutter 1994; Bishop 2006, 5.4.6) differentiates both sweeps along
a direction V of the weights. φ' is piecewise constant, hence

    R{z_l} = W_l R{a_{l−1}} + V_l a_{l−1},            R{δ_L} = σ(1 − σ)(c/N) R{f},
    R{δ_l} = φ'(z_l) ∘ (W_{l+1}ᵀ R{δ_{l+1}} + V_{l+1}ᵀ δ_{l+1}),
    R{∇W_l} = Σ R{δ_l} a_{l−1}ᵀ + δ_l R{a_{l−1}}ᵀ,    R{∇x} = W_1ᵀ R{δ_1} + V_1ᵀ δ_1.

By symmetry R{∇x} is the (∇_X∇_w)ᵀv of Alg. 1. Both of its terms are products of two thin factors,
which are kept until the end of the tape and multiplied out once. Without hidden layers this is
logistic regression.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from poisoning import checks
from poisoning.hypergradient.problem import Linearisation, Model, Problem


@dataclass(frozen=True)
class _State:
    """At one w: its matrices, activations a_0 … of hidden layers, φ', δ, and σ(1 − σ)c/N."""

    weights: list[Tensor]
    activations: list[Tensor]
    slopes: list[Tensor]
    deltas: list[Tensor]
    curvature: Tensor


@dataclass(frozen=True)
class MLP(Model):
    """f: x → logit with ``hidden`` layer widths; parameters in the order W_1, b_1, W_2, …

    ``slope`` is φ's below zero, 0 for ReLU; the paper's networks are leaky, (32, 8) on MNIST.
    """

    hidden: tuple[int, ...] = ()
    slope: float = 0.01

    def __post_init__(self) -> None:
        """Raise ``ValueError`` or ``TypeError`` for widths below 1 or a slope outside [0, 1]."""
        for width in checks.instance(self.hidden, "hidden", tuple):
            checks.whole(width, "hidden")
        checks.between(self.slope, "slope", 0.0, 1.0)

    def shapes(self, d: int) -> list[tuple[int, int]]:
        """(outputs, inputs) of every W_l."""
        return [(after, before) for before, after in pairwise((d, *self.hidden, 1))]

    def layers(self, d: int) -> Int[Tensor, "p"]:
        """The layer of each parameter."""
        sizes = torch.tensor([out * (inputs + 1) for out, inputs in self.shapes(d)])
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    def initial(self, d: int, generator: torch.Generator) -> Float[Tensor, "1 p"]:
        """w^(0): Xavier-uniform with biases 0 (Glorot and Bengio 2010; Section V-C), float64.

        It is drawn on the CPU, so that training starts from the same w on every device.
        """
        parts = []
        for out, inputs in self.shapes(d):
            bound = (6.0 / (out + inputs)) ** 0.5
            W = torch.rand(1, out * inputs, generator=generator, dtype=torch.float64)
            parts += [bound * (2.0 * W - 1.0), W.new_zeros(1, out)]
        return torch.cat(parts, dim=1)

    def _matrices(self, w: Float[Tensor, "*k p"], d: int) -> tuple[list[Tensor], list[Tensor]]:
        """Views of the W_l (*k, out, in) and the b_l (*k, 1, out)."""
        weights, biases, at = [], [], 0
        for out, inputs in self.shapes(d):
            weights.append(w[..., at : at + out * inputs].unflatten(-1, (out, inputs)))
            at += out * inputs
            biases.append(w[..., None, at : at + out])
            at += out
        return weights, biases

    def scores(self, w: Float[Tensor, "K p"], X: Float[Tensor, "*K v d"]) -> Float[Tensor, "K v"]:
        """f_w(x)."""
        weights, biases = self._matrices(w, X.shape[-1])
        z = X @ weights[0].mT + biases[0]
        for W, b in zip(weights[1:], biases[1:], strict=True):
            z = torch.nn.functional.leaky_relu(z, self.slope) @ W.mT + b
        return z.squeeze(-1)

    def linearise(self, problem: Problem, w: Float[Tensor, "K p"]) -> Linearisation:
        """One forward and one backward sweep."""
        weights, biases = self._matrices(w, problem.poison.shape[-1])
        z = _first(problem, weights[0]) + biases[0]
        activations, slopes = [], []
        for W, b in zip(weights[1:], biases[1:], strict=True):
            slopes.append((z > 0).to(z.dtype).mul_(1.0 - self.slope).add_(self.slope))
            activations.append(z * slopes[-1])
            z = activations[-1] @ W.mT + b
        f = z.squeeze(-1)
        s = torch.sigmoid(f)
        deltas = [(problem.shares * (s - problem.targets)).unsqueeze(-1)]
        for W, slope in zip(reversed(weights[1:]), reversed(slopes), strict=True):
            deltas.insert(0, (deltas[0] @ W) * slope)
        parts = [_first_adjoint(problem, deltas[0]), deltas[0].sum(-2)]
        for delta, a in zip(deltas[1:], activations, strict=True):
            parts += [(delta.mT @ a).flatten(-2), delta.sum(-2)]
        curvature = (problem.shares * s * (1.0 - s)).unsqueeze(-1)
        state = _State(weights, activations, slopes, deltas, curvature)
        return Linearisation(torch.cat(parts, dim=-1), lambda: problem.data_loss(f), state)

    def product(
        self,
        problem: Problem,
        state: _State,
        v: Float[Tensor, "J K p"],
    ) -> tuple[Float[Tensor, "J K p"], tuple[Tensor, Tensor]]:
        """The R-operator: one forward and one backward sweep of derivatives."""
        free = len(problem.clean.y) + problem.frozen
        V, v_bias = self._matrices(v, problem.poison.shape[-1])
        W = state.weights
        Rz = _first(problem, V[0]) + v_bias[0]
        Ras = []
        for layer, slope in enumerate(state.slopes, start=1):
            Ras.append(Rz * slope)
            a = state.activations[layer - 1]
            Rz = Ras[-1] @ W[layer].mT + a @ V[layer].mT + v_bias[layer]
        Rdeltas = [state.curvature * Rz]
        for layer in range(len(W) - 1, 0, -1):
            back = Rdeltas[0] @ W[layer] + state.deltas[layer] @ V[layer]
            Rdeltas.insert(0, back * state.slopes[layer - 1])
        parts = [_first_adjoint(problem, Rdeltas[0]), Rdeltas[0].sum(-2)]
        for layer, Ra in enumerate(Ras, start=1):
            a, delta = state.activations[layer - 1], state.deltas[layer]
            parts += [(Rdeltas[layer].mT @ a + delta.mT @ Ra).flatten(-2), Rdeltas[layer].sum(-2)]
        delta = state.deltas[0][:, free:].expand(len(v), -1, -1, -1)
        left = torch.cat([Rdeltas[0][..., free:, :], delta], dim=-1)
        right = torch.cat([W[0].expand(len(v), -1, -1, -1), V[0]], dim=-2)
        return torch.cat(parts, dim=-1), (left, right)

    def gather(self, crosses: list[tuple[Tensor, Tensor]]) -> Float[Tensor, "J K free d"]:
        """Σ left @ right over the steps, as one matrix product."""
        left = torch.cat([left for left, _right in crosses], dim=-1)
        return left @ torch.cat([right for _left, right in crosses], dim=-2)

    def bytes(self, state: _State) -> int:
        """The bytes of activations, slopes, δ and curvatures.

        The matrices are views of the tape's w and take none.
        """
        kept = [*state.activations, *state.slopes, *state.deltas, state.curvature]
        return sum(tensor.nbytes for tensor in kept)


def _used(problem: Problem, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The features that are not 0 on all clean rows (c,), and these columns of theirs (n, c)."""

    def found() -> tuple[Tensor, Tensor]:
        X = problem.clean.values(dtype)
        used = torch.nonzero((X != 0).any(dim=0)).squeeze(1)
        return used, X[:, used]

    return problem.clean.keep(("used", dtype), found)


def _first(problem: Problem, W: Float[Tensor, "*k h d"]) -> Float[Tensor, "*k n_m h"]:
    """All rows times Wᵀ; the clean rows for all problems in one product."""
    used, X = _used(problem, W.dtype)
    clean = (X @ W.flatten(0, -2).T[used]).unflatten(1, W.shape[:-1])
    return torch.cat([clean.movedim(0, -2), problem.poison @ W.mT], dim=-2)


def _first_adjoint(problem: Problem, delta: Float[Tensor, "*k n_m h"]) -> Tensor:
    """Σ δ x over all rows, (…, h·d)."""
    used, X = _used(problem, delta.dtype)
    n, d = len(X), problem.poison.shape[2]
    found = X.T @ delta[..., :n, :].movedim(-2, 0).flatten(1)
    sums = found.new_zeros(d, found.shape[1])
    sums[used] = found
    clean = sums.T.unflatten(0, (*delta.shape[:-2], delta.shape[-1]))
    return (clean + delta[..., n:, :].mT @ problem.poison).flatten(-2)
