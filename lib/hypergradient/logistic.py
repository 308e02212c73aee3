"""Logistic regression in closed form: on a CPU by compiled passes, elsewhere by matrix products.

With x̃ = (x, 1), σ_i = σ(w·x̃_i) and shares s_i = c_i/N, a step of Alg. 1 backwards needs

    z_i = x̃_i·p,  q_i = s_i σ_i(1 − σ_i) z_i,  Hp = Σ q_i x̃_i,  (∇_X∇_w)ᵀp = q w + s(σ − y) p,

with y in 0/1. Going forward keeps σ_i(1 − σ_i) s_i of every row, so that each step reads the rows
once either way, and the last term waits for the end, where it is one pair of matrix products
−η(QᵀW + RᵀP) with a line per step in Q (T × m), W (T × d), R (T × m) and P (T × d).

A few problems on a CPU are limited by the reading of the clean rows, which the compiled passes do
once per step, a byte per pixel. For many, one matrix product with the clean rows is limited by
arithmetic and wins, while every problem's own poison stays with the compiled passes. On a GPU all
is matrix products (:class:`MLP` without hidden layers). The choice changes only rounding.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from lib.hypergradient import logistic_kernels as kernels
from lib.hypergradient.mlp import MLP
from lib.hypergradient.problem import Linearisation, Problem, Rows, Tape

COMPILED_PROBLEMS = 8  # up to so many, or columns of a product, are passed over one by one
_LANES = 32  # columns are kept in multiples: a row then fills vector registers


@dataclass(frozen=True)
class _Point:
    """At w: s σ(1 − σ) of clean rows (K, n) and of poison (K, m), and poison's pulls s(σ − y).

    A tape holds the same with an axis of steps after the first.
    """

    w: Tensor
    clean: Tensor
    poison: Tensor
    pull: Tensor


@dataclass(frozen=True)
class Logistic(MLP):
    """f_w(x) = w·(x, 1): d weights and an intercept that is regularised like them.

    Its Hessian is largest at w = 0, whatever the data.
    """

    curvature_is_bound = True

    def __post_init__(self) -> None:
        if self.hidden:
            raise ValueError("logistic regression has no hidden layers")

    def curvature_point(self, problem: Problem) -> Float[Tensor, "K p"]:
        """The origin, where every σ(1 − σ) is 1/4."""
        return torch.zeros_like(problem.initial)

    def linearise(self, problem: Problem, w: Float[Tensor, "K p"]) -> Linearisation:
        """A pass over the rows, or one matrix product for many problems."""
        if not _on_cpu(problem):
            return super().linearise(problem, w)
        K, m, _ = problem.poison.shape
        n = len(problem.clean.y)
        w = w.contiguous()
        gradient = torch.empty_like(w)
        if K <= COMPILED_PROBLEMS:
            clean, scratch = w.new_empty(K, n), np.empty(n, w.numpy().dtype)
            for k in range(K):
                X, columns, scale, offset = _raw(problem)
                kernels.clean_gradient(
                    X, *_labels(problem, k)[:2], columns, scale, offset,
                    w[k].numpy(), gradient[k].numpy(), clean[k].numpy(), scratch,
                )  # fmt: skip
        else:
            shares, targets = problem.shares[:, :n].T, problem.targets[:1, :n].T
            z = problem.clean.values(w.dtype) @ w[:, :-1].T.contiguous() + w[:, -1]
            s = z.sigmoid_()
            pull = (s - targets).mul_(shares)
            gradient[:, :-1] = (problem.clean.transposed(w.dtype) @ pull).T
            gradient[:, -1] = pull.sum(0)
            clean = s.sub_(s * s).mul_(shares).T
        poison, pull = w.new_empty(K, m), w.new_empty(K, m)
        kernels.poison_gradients(
            problem.poison.contiguous().numpy(),
            problem.targets[:, n:].numpy(),
            problem.shares[:, n:].numpy(),
            *(array.numpy() for array in (w, gradient, poison, pull)),
        )

        def loss() -> Tensor:
            clean = w[:, :-1] @ problem.clean.transposed(w.dtype)
            poison = (problem.poison @ w[:, :-1, None]).squeeze(-1)
            return problem.data_loss(torch.cat([clean, poison], dim=1) + w[:, -1:])

        return Linearisation(gradient, loss, _Point(w, clean, poison, pull))

    def product(
        self,
        problem: Problem,
        state: Any,
        v: Float[Tensor, "J K p"],
        moved: Float[Tensor, "J K free d"] | None = None,
    ) -> tuple[Float[Tensor, "J K p"], tuple[Tensor, Tensor]]:
        """A pass over the rows for every vector, or one matrix product for many."""
        if not _on_cpu(problem):
            return super().product(problem, state, v, moved)
        J, K, _ = v.shape
        m, free = problem.poison.shape[1], problem.frozen
        v = v.contiguous()
        Hv, q = torch.empty_like(v), v.new_empty(J, K, m)
        if J * K <= COMPILED_PROBLEMS:
            X, *affine = _raw(problem)
            scratch = np.empty(len(X), v.numpy().dtype)
            for j, k in np.ndindex(J, K):
                vector, out = v[j, k].numpy(), Hv[j, k].numpy()
                kernels.clean_product(X, state.clean[k].numpy(), *affine, vector, out, scratch)
        else:
            z = problem.clean.values(v.dtype) @ v[..., :-1].flatten(0, 1).T.contiguous()
            z = z.unflatten(1, (J, K)).add_(v[..., -1]).mul_(state.clean.T.unsqueeze(1))
            sums = problem.clean.transposed(v.dtype) @ z.flatten(1)
            Hv[..., :-1] = sums.T.unflatten(0, (J, K))
            Hv[..., -1] = z.sum(0)
        kernels.poison_products(
            problem.poison.contiguous().numpy(),
            *(array.numpy() for array in (state.poison, v, Hv, q)),
        )
        pull, weights = state.pull[:, free:], state.w[:, :-1]
        if moved is not None:
            bent = state.poison[:, free:] * (moved @ weights.unsqueeze(-1)).squeeze(-1)
            rows = problem.poison[:, free:]
            Hv[..., :-1] += (pull.unsqueeze(-1) * moved + bent.unsqueeze(-1) * rows).sum(-2)
            Hv[..., -1] += bent.sum(-1)
        left = torch.stack([q[..., free:], pull.expand(J, -1, -1)], dim=-1)
        right = torch.stack([weights.expand(J, -1, -1), v[..., :-1]], dim=-2)
        return Hv, (left, right)

    def hessian(self, problem: Problem, state: Any) -> Float[Tensor, "K p p"]:
        """Σ s σ(1 − σ) x̃x̃ᵀ, one matrix product per problem."""
        if not _on_cpu(problem):
            return super().hessian(problem, state)
        clean = _extended(problem.clean.values(state.w.dtype))
        parts = []
        for k, poison in enumerate(map(_extended, problem.poison)):
            H = (clean.T * state.clean[k]) @ clean
            parts.append(H + (poison.T * state.poison[k]) @ poison)
        return torch.stack(parts)

    def bytes(self, state: Any) -> int:
        """Curvatures and pulls."""
        if not isinstance(state, _Point):
            return super().bytes(state)
        return state.clean.nbytes + state.poison.nbytes + state.pull.nbytes

    def train(self, problem: Problem, w: Float[Tensor, "K p"], steps: int) -> Tensor:
        """In stretches of √steps, whose record is small."""
        if not _stepped_in_one_call(problem):
            return super().train(problem, w, steps)
        stretch = max(1, isqrt(steps))
        for start in range(0, steps, stretch):
            w = self.record(problem, w, min(stretch, steps - start)).w[-1]
        return w

    def record(self, problem: Problem, w: Float[Tensor, "K p"], steps: int) -> Tape:
        """All steps in one compiled call per problem."""
        if not _stepped_in_one_call(problem):
            return super().record(problem, w, steps)
        K, m, _ = problem.poison.shape
        way = w.new_empty(K, steps + 1, w.shape[1])
        way[:, 0] = w
        clean = w.new_empty(K, steps, len(problem.clean.y))
        poison, pull = w.new_empty(K, steps, m), w.new_empty(K, steps, m)
        for k in range(K):
            X, columns, scale, offset = _raw(problem)
            y, share, poison_y, poison_share = _labels(problem, k)
            kernels.descend(
                X, y, share, columns, scale, offset, _numpy(problem.poison[k]),
                poison_y, poison_share, *_step(problem, k),
                *(array[k].numpy() for array in (way, clean, poison, pull)),
            )  # fmt: skip
        point = _Point(way, clean, poison, pull)
        return Tape(way.transpose(0, 1), point, way.nbytes + self.bytes(point))

    def pull(
        self, problem: Problem, tape: Tape, p: Float[Tensor, "J K p"]
    ) -> tuple[Float[Tensor, "J K p"], Float[Tensor, "J K free d"], Float[Tensor, "J K p"]]:
        """The same backwards."""
        if not _stepped_in_one_call(problem):
            return super().pull(problem, tape, p)
        point, free = tape.states, problem.frozen
        _, m, d = problem.poison.shape
        steps = len(tape.w) - 1
        p = p.clone(memory_format=torch.contiguous_format)
        d_lam = torch.zeros_like(p)
        d_poison = p.new_empty(*p.shape[:2], m - free, d)
        way, q = p.new_empty(steps, d + 1), p.new_empty(steps, m)
        for k in range(p.shape[1]):
            trajectory = [array[k].numpy() for array in (point.w, point.clean, point.poison)]
            for j in range(p.shape[0]):
                kernels.ascend(
                    *_raw(problem), _numpy(problem.poison[k]), *_step(problem, k), *trajectory,
                    p[j, k].numpy(), way.numpy(), q.numpy(), d_lam[j, k].numpy(),
                )  # fmt: skip
                torch.mm(q[:, free:].T, point.w[k, :-1, :-1], out=d_poison[j, k])
                d_poison[j, k].addmm_(point.pull[k][:, free:].T, way[:, :-1])
        return p, d_poison.mul_(-problem.eta.unsqueeze(-1)), d_lam


def _on_cpu(problem: Problem) -> bool:
    return problem.poison.device.type == "cpu"


def _stepped_in_one_call(problem: Problem) -> bool:
    return _on_cpu(problem) and len(problem.poison) <= COMPILED_PROBLEMS


def _extended(X: Float[Tensor, "n d"]) -> Float[Tensor, "n d1"]:
    """The rows (x, 1)."""
    return torch.nn.functional.pad(X, (0, 1), value=1.0)


def _numpy(tensor: Tensor) -> ndarray:
    return tensor.contiguous().numpy()


def _packed(clean: Rows, dtype: torch.dtype) -> tuple[ndarray, ndarray]:
    """The raw columns that are not 0 throughout, filled up to full lanes, and their numbers.

    Pixels stay bytes, other rows take the problem's ``dtype``.
    """
    used = (clean.X != 0).any(dim=0)
    columns = torch.nonzero(used).squeeze(1)
    unused = torch.nonzero(~used).squeeze(1)[: -len(columns) % _LANES]
    columns = torch.cat([columns, unused]).sort().values
    X = clean.X[:, columns]
    return _numpy(X if X.dtype == torch.uint8 else X.to(dtype)), columns.numpy()


def _raw(problem: Problem) -> tuple:
    """The clean rows as the kernels read them: raw rows, their columns, scale and offset."""
    clean, dtype = problem.clean, problem.poison.dtype
    X, columns = clean.keep(("packed", dtype), lambda: _packed(clean, dtype))
    real = torch.empty(0, dtype=dtype).numpy().dtype.type
    return X, columns, real(clean.scale), real(clean.offset)


def _labels(problem: Problem, k: int) -> tuple[ndarray, ...]:
    """Targets 0/1 and shares of problem k's clean rows, and of its poison."""
    n = len(problem.clean.y)
    y, share = problem.targets[k].numpy(), problem.shares[k].numpy()
    return y[:n], share[:n], y[n:], share[n:]


def _step(problem: Problem, k: int) -> tuple:
    """η, and e^λ of every parameter under L2 and under L1."""
    return problem.eta[k].numpy()[0], problem.decay[k].numpy(), problem.shrinkage[k].numpy()
