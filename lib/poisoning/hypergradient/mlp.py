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

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from poisoning import checks
from poisoning.hypergradient.problem import Linearisation, Model, Problem


@dataclass(frozen=True)
class _State:
    """At one w: its matrices, and activations, φ', δ and σ(1 − σ)c/N as (…, units, rows)."""

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
        """w^(0): Xavier-uniform with biases 0 (Glorot and Bengio 2010; Section V-A), float64.

        It is drawn on the CPU, so that training starts from the same w on every device.
        """
        parts = []
        for out, inputs in self.shapes(d):
            bound = (6.0 / (out + inputs)) ** 0.5
            W = torch.rand(1, out * inputs, generator=generator, dtype=torch.float64)
            parts += [bound * (2.0 * W - 1.0), W.new_zeros(1, out)]
        return torch.cat(parts, dim=1)

    def _matrices(self, w: Float[Tensor, "*k p"], d: int) -> tuple[list[Tensor], list[Tensor]]:
        """Views of the W_l (*k, out, in) and the b_l (*k, out, 1)."""
        weights, biases, at = [], [], 0
        for out, inputs in self.shapes(d):
            weights.append(w[..., at : at + out * inputs].unflatten(-1, (out, inputs)))
            at += out * inputs
            biases.append(w[..., at : at + out, None])
            at += out
        return weights, biases

    def scores(self, w: Float[Tensor, "K p"], X: Float[Tensor, "*K v d"]) -> Float[Tensor, "K v"]:
        """f_w(x)."""
        weights, biases = self._matrices(w, X.shape[-1])
        z = weights[0] @ X.mT + biases[0]
        for W, b in zip(weights[1:], biases[1:], strict=True):
            z = W @ torch.nn.functional.leaky_relu(z, self.slope) + b
        return z.squeeze(-2)

    def linearise(self, problem: Problem, w: Float[Tensor, "K p"]) -> Linearisation:
        """One forward and one backward sweep."""
        weights, biases = self._matrices(w, problem.poison.shape[-1])
        z = _first(problem, weights[0]).add_(biases[0])
        one, below = z.new_tensor(1.0), z.new_tensor(self.slope)
        activations, slopes = [], []
        for W, b in zip(weights[1:], biases[1:], strict=True):
            slopes.append(torch.where(z > 0, one, below))
            activations.append(z.mul_(slopes[-1]))
            z = _product(W, activations[-1]).add_(b)
        f = z.squeeze(-2)
        s = torch.sigmoid(f)
        deltas = [(problem.shares * (s - problem.targets)).unsqueeze(-2)]
        for W, slope in zip(reversed(weights[1:]), reversed(slopes), strict=True):
            deltas.insert(0, _product(W.mT, deltas[0]).mul_(slope))
        parts = [_first_adjoint(problem, deltas[0]), deltas[0].sum(-1)]
        for delta, a in zip(deltas[1:], activations, strict=True):
            parts += [_product(delta, a.mT).flatten(-2), delta.sum(-1)]
        curvature = (problem.shares * s * (1.0 - s)).unsqueeze(-2)
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
        Rz = _first(problem, V[0]).add_(v_bias[0])
        Ras = []
        for layer, slope in enumerate(state.slopes, start=1):
            Ras.append(Rz.mul_(slope))
            a = state.activations[layer - 1]
            Rz = _product(W[layer], Ras[-1]).add_(_product(V[layer], a)).add_(v_bias[layer])
        Rdeltas = [Rz.mul_(state.curvature)]
        for layer in range(len(W) - 1, 0, -1):
            back = _product(W[layer].mT, Rdeltas[0])
            back.add_(_product(V[layer].mT, state.deltas[layer]))
            Rdeltas.insert(0, back.mul_(state.slopes[layer - 1]))
        parts = [_first_adjoint(problem, Rdeltas[0]), Rdeltas[0].sum(-1)]
        for layer, Ra in enumerate(Ras, start=1):
            a, delta = state.activations[layer - 1], state.deltas[layer]
            found = _product(Rdeltas[layer], a.mT).add_(_product(delta, Ra.mT))
            parts += [found.flatten(-2), Rdeltas[layer].sum(-1)]
        delta = state.deltas[0][..., free:].expand(len(v), -1, -1, -1)
        left = torch.cat([Rdeltas[0][..., free:], delta], dim=-2)
        right = torch.cat([W[0].expand(len(v), -1, -1, -1), V[0]], dim=-2)
        return torch.cat(parts, dim=-1), (left, right)

    def gather(self, crosses: list[tuple[Tensor, Tensor]]) -> Float[Tensor, "J K free d"]:
        """Σ leftᵀ right over the steps, as one matrix product."""
        left = torch.cat([left for left, _right in crosses], dim=-2)
        return _product(left.mT, torch.cat([right for _left, right in crosses], dim=-2))

    def bytes(self, state: _State) -> int:
        """The bytes of activations, slopes, δ and curvatures.

        The matrices are views of the tape's w and take none.
        """
        kept = [*state.activations, *state.slopes, *state.deltas, state.curvature]
        return sum(tensor.nbytes for tensor in kept)


def _product(A: Tensor, B: Tensor, out: Tensor | None = None) -> Tensor:
    """A @ B, on a CPU by NumPy.

    The BLAS of NumPy's wheels is up to 1.4 times as fast as torch's for thin factors, where the
    processor is not Intel's (`python -m bench carnerero2023.rmd_networks`).
    """
    if A.device.type != "cpu":
        return torch.matmul(A, B, out=out)
    room = None if out is None else out.numpy()
    with np.errstate(all="ignore"):  # what has diverged is refused at the end
        return torch.from_numpy(np.matmul(A.numpy(), B.numpy(), out=room))


def _used(problem: Problem, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The features that are not 0 on all clean rows (c,), these columns of theirs, and those of Xᵀ.

    Each is contiguous: a product reads (c, n) faster than the (n, c) transposed, and the reverse.
    """

    def found() -> tuple[Tensor, Tensor, Tensor]:
        X = problem.clean.values(dtype)
        used = torch.nonzero((X != 0).any(dim=0)).squeeze(1)
        return used, X[:, used], X.T[used]

    return problem.clean.keep(("used", dtype), found)


def _first(problem: Problem, W: Float[Tensor, "*k h d"]) -> Float[Tensor, "*k h n_m"]:
    """W times all rows; the clean rows for all problems in one product."""
    used, X, transposed = _used(problem, W.dtype)
    n, m = len(X), problem.poison.shape[1]
    z = W.new_empty(*W.shape[:-1], n + m)
    _product(W.flatten(0, -2)[:, used], transposed, out=z.flatten(0, -2)[:, :n])
    _product(W, problem.poison.mT, out=z[..., n:])
    return z


def _first_adjoint(problem: Problem, delta: Float[Tensor, "*k h n_m"]) -> Tensor:
    """Σ δ xᵀ over all rows, (…, h·d)."""
    used, X, _ = _used(problem, delta.dtype)
    n, rows = len(X), delta.flatten(0, -2)
    sums = rows.new_zeros(len(rows), problem.poison.shape[2])
    sums[:, used] = _product(rows[:, :n], X)
    poison = _product(delta[..., n:], problem.poison)
    return poison.add_(sums.view_as(poison)).flatten(-2)
