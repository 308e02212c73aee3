"""Logistic regression in closed form: on a CPU by compiled passes, elsewhere by matrix products.

With x̃ = (x, 1), σ_i = σ(w·x̃_i) and shares s_i = c_i/N, a backward step of Alg. 1 needs

    z_i = x̃_i·p,  q_i = s_i σ_i(1 − σ_i) z_i,  Hp = Σ q_i x̃_i,  (∇_X∇_w)ᵀp = q w + s(σ − y) p,

with y in 0/1. The forward steps keep σ_i(1 − σ_i) s_i of every row, so that a step in either
direction reads the rows once. The last term is summed over all steps at the end, by one pair of
matrix products −η(QᵀW + RᵀP) with a row per step in Q (T × m), W (T × d), R (T × m), P (T × d).

On a CPU compiled passes read the clean rows once per step for every two problems, a byte per pixel,
and each problem's own poison, a byte per pixel where it is frozen. In float32, on a processor with
AVX-512 VNNI, bytes are multiplied as integers (``byte_kernels``). On a GPU everything is done by
matrix products (:class:`MLP` without hidden layers). The choice changes only rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from poisoning import checks
from poisoning.hypergradient import byte_kernels
from poisoning.hypergradient import logistic_kernels as kernels
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Linearisation, Problem, Rows, Tape

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
        super().__post_init__()
        if self.hidden:
            raise ValueError("hidden must be (): logistic regression has no hidden layers.")

    def initial(self, d: int, generator: torch.Generator) -> Float[Tensor, "1 p"]:
        """w^(0) = 0 (Section V-A); nothing is drawn."""
        return torch.zeros(1, d + 1, dtype=torch.float64)

    def curvature_point(self, problem: Problem) -> Float[Tensor, "K p"]:
        """The origin, where every σ(1 − σ) is 1/4."""
        return torch.zeros_like(problem.initial)

    def linearise(self, problem: Problem, w: Float[Tensor, "K p"]) -> Linearisation:
        """The data term at w by one pass over the rows."""
        if not _on_cpu(problem):
            return super().linearise(problem, w)
        w = _vectors(problem, w, "w")
        K, m, _ = problem.poison.shape
        n = len(problem.clean.y)
        w = w.contiguous()
        gradient, clean = torch.empty_like(w), w.new_empty(K, n)
        poison, pull = w.new_empty(K, m), w.new_empty(K, m)
        X, *affine = _raw(problem)
        y, share, poison_y, poison_share = _labels(problem)
        here = w.numpy(), gradient.numpy()
        kernels.raw_gradients(X, y, share, *affine, *here, clean.numpy(), _scratch(problem))
        kernels.poison_gradients(
            *_poison(problem), *affine[1:], poison_y, poison_share, *here,
            poison.numpy(), pull.numpy(),
        )  # fmt: skip

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
    ) -> tuple[Float[Tensor, "J K p"], tuple[Tensor, Tensor]]:
        """∇²v and the factors of (∇_X∇_w)ᵀv, by a pass over the rows for every vector."""
        if not _on_cpu(problem):
            return super().product(problem, state, v)
        v = _vectors(problem, v, "v", several=True)
        _fits(problem, state)
        J = len(v)
        m, free = problem.poison.shape[1], problem.frozen
        v = v.contiguous()
        Hv, q = torch.empty_like(v), v.new_empty(*v.shape[:2], m)
        X, *affine = _raw(problem)
        poison, scratch = _poison(problem), _scratch(problem)
        for j in range(J):
            vectors, sums = v[j].numpy(), Hv[j].numpy()
            kernels.raw_products(X, state.clean.numpy(), *affine, vectors, sums, scratch)
            kernels.poison_products(
                *poison, *affine[1:], state.poison.numpy(), vectors, sums, q[j].numpy()
            )
        pull, weights = state.pull[:, free:], state.w[:, :-1]
        left = torch.stack([q[..., free:], pull.expand(J, -1, -1)], dim=-1)
        right = torch.stack([weights.expand(J, -1, -1), v[..., :-1]], dim=-2)
        return Hv, (left, right)

    def hessian(self, problem: Problem, state: Any) -> Float[Tensor, "K p p"]:
        """Σ s σ(1 − σ) x̃x̃ᵀ, one matrix product per problem."""
        if not _on_cpu(problem):
            return super().hessian(problem, state)
        _fits(problem, state)
        clean = _extended(problem.clean.values(state.w.dtype))
        parts = []
        for k, poison in enumerate(map(_extended, problem.poison)):
            H = (clean.T * state.clean[k]) @ clean
            parts.append(H + (poison.T * state.poison[k]) @ poison)
        return torch.stack(parts)

    def bytes(self, state: Any) -> int:
        """The bytes of curvatures and pulls."""
        if not isinstance(state, _Point):
            return super().bytes(state)
        return state.clean.nbytes + state.poison.nbytes + state.pull.nbytes

    def train(self, problem: Problem, w: Float[Tensor, "K p"], steps: int) -> Tensor:
        """w after ``steps`` steps; √steps at a time are recorded, and only the last w is kept."""
        if not _on_cpu(problem):
            return super().train(problem, w, steps)
        w, steps = _vectors(problem, w, "w"), checks.whole(steps, "steps", 0)
        stretch = max(1, isqrt(steps))
        for start in range(0, steps, stretch):
            w = self._record(problem, w, min(stretch, steps - start)).w[-1]
        return w

    def record(self, problem: Problem, w: Float[Tensor, "K p"], steps: int) -> Tape:
        """All steps in one compiled call."""
        if not _on_cpu(problem):
            return super().record(problem, w, steps)
        return self._record(problem, _vectors(problem, w, "w"), checks.whole(steps, "steps"))

    def _record(self, problem: Problem, w: Float[Tensor, "K p"], steps: int) -> Tape:
        K, m, _ = problem.poison.shape
        way = w.new_empty(K, steps + 1, w.shape[1])
        way[:, 0] = w
        clean = w.new_empty(K, steps, len(problem.clean.y))
        poison, pull = w.new_empty(K, steps, m), w.new_empty(K, steps, m)
        X, *affine = _raw(problem)
        y, share, *of_poison = _labels(problem)
        filled = [array.numpy() for array in (way, clean, poison, pull)]
        own = [y, share], [*_poison(problem), *of_poison, *_step(problem), *filled]
        for now in _groups(K):
            labels, others = ([array[now] for array in arrays] for arrays in own)
            kernels.descend(X, *labels, *affine, *others)
        point = _Point(way, clean, poison, pull)
        return Tape(way.transpose(0, 1), point, way.nbytes + self.bytes(point))

    def pull(
        self, problem: Problem, tape: Tape, p: Float[Tensor, "J K p"]
    ) -> tuple[Float[Tensor, "J K p"], Float[Tensor, "J K free d"], Float[Tensor, "J K p"]]:
        """Lines 7–13 of Alg. 1 in one compiled call."""
        if not _on_cpu(problem):
            return super().pull(problem, tape, p)
        p = _vectors(problem, p, "p", several=True)
        _fits(problem, checks.instance(tape, "tape", Tape).states, steps=len(tape.w) - 1)
        point, free = tape.states, problem.frozen
        K, m, d = problem.poison.shape
        p = p.clone(memory_format=torch.contiguous_format)
        d_lam = torch.zeros_like(p)
        d_poison = p.new_empty(len(p), K, m - free, d)
        way, q = torch.empty_like(point.w[:, 1:]), torch.empty_like(point.poison)
        tape = [array.numpy() for array in (point.w, point.clean, point.poison)]
        rows, own = _raw(problem), [*_poison(problem), *_step(problem), *tape]
        for j in range(len(p)):
            every = [*own, *(array.numpy() for array in (p[j], way, q, d_lam[j]))]
            for now in _groups(K):
                kernels.ascend(*rows, *(array[now] for array in every))
            torch.bmm(q[..., free:].mT, point.w[:, :-1, :-1], out=d_poison[j])
            d_poison[j].baddbmm_(point.pull[..., free:].mT, way[..., :-1])
        return p, d_poison.mul_(-problem.eta.unsqueeze(-1)), d_lam


def _groups(K: int) -> Iterator[slice]:
    """The problems that a compiled call takes together."""
    return (slice(first, first + kernels.GROUP) for first in range(0, K, kernels.GROUP))


def _on_cpu(problem: Problem) -> bool:
    checks.instance(problem, "problem", Problem)
    return problem.poison.device.type == "cpu"


def _vectors(problem: Problem, w: Any, name: str, *, several: bool = False) -> Tensor:
    """Vectors of parameters (K, p), or (J, K, p), as the kernels take them for granted."""
    checks.instance(problem, "problem", Problem)
    shape = tuple(problem.initial.shape)
    return checks.tensor(w, name, (None, *shape) if several else shape, like=problem.poison)


def _fits(problem: Problem, state: Any, *, steps: int | None = None) -> None:
    """Raise ``ValueError`` for a state, or those of a tape, that is another problem's."""
    checks.instance(state, "state", _Point)
    (K, m, _), n = problem.poison.shape, len(problem.clean.y)
    axis = () if steps is None else (steps,)
    found = [tuple(part.shape) for part in (state.clean, state.poison, state.pull)]
    if found != [(K, *axis, n), (K, *axis, m), (K, *axis, m)]:
        raise ValueError("state must be of the same problem, it is of one with other rows.")


def _extended(X: Float[Tensor, "n d"]) -> Float[Tensor, "n d1"]:
    """The rows (x, 1)."""
    return torch.nn.functional.pad(X, (0, 1), value=1.0)


def _numpy(tensor: Tensor) -> ndarray:
    """As a C-contiguous array: the kernels are compiled once for each memory layout."""
    return tensor.contiguous().numpy()


def _packed(clean: Rows, dtype: torch.dtype) -> tuple[ndarray, ndarray]:
    """The raw columns that are not all 0, and their indices.

    Pixels stay bytes, packed for integer products where the processor has them; other rows take the
    problem's ``dtype`` and are filled up to full lanes.
    """
    used = (clean.X != 0).any(dim=0)
    columns = torch.nonzero(used).squeeze(1)
    if _in_integers(clean.X, dtype):
        return byte_kernels.packed(_numpy(clean.X[:, columns])), columns.numpy()
    unused = torch.nonzero(~used).squeeze(1)[: -len(columns) % _LANES]
    columns = torch.cat([columns, unused]).sort().values
    X = clean.X[:, columns]
    return _numpy(X if X.dtype == torch.uint8 else X.to(dtype)), columns.numpy()


def _in_integers(X: Tensor, dtype: torch.dtype) -> bool:
    return X.dtype == torch.uint8 and dtype == torch.float32 and byte_kernels.available()


def _raw(problem: Problem) -> tuple:
    """The clean rows as the kernels read them: raw rows, their columns, scale and offset."""
    clean, dtype = problem.clean, problem.poison.dtype
    X, columns = clean.keep(("packed", dtype), lambda: _packed(clean, dtype))
    real = torch.empty(0, dtype=dtype).numpy().dtype.type
    return X, columns, real(clean.scale), real(clean.offset)


def _poison(problem: Problem) -> tuple[ndarray, ndarray]:
    """The poison's rows that are bytes, F, and the others, P; F is empty where there are none."""
    pixels, (K, _, d) = problem.frozen_pixels, problem.poison.shape
    if pixels is None:
        return np.empty((K, 0, d), np.uint8), _numpy(problem.poison)
    others = problem.poison[:, problem.frozen :].numpy().copy()  # in larger pages than torch's
    if _in_integers(pixels.X, problem.poison.dtype):
        return pixels.keep("packed", lambda: byte_kernels.packed(_numpy(pixels.X))), others
    return _numpy(pixels.X), others


def _labels(problem: Problem) -> tuple[ndarray, ...]:
    """Targets 0/1 and shares of clean rows, (K, n), and of poison, (K, m)."""
    n = len(problem.clean.y)
    y, share = problem.targets, problem.shares
    return tuple(map(_numpy, (y[:, :n], share[:, :n], y[:, n:], share[:, n:])))


def _step(problem: Problem) -> tuple[ndarray, ...]:
    """η, and e^λ of every parameter under L2 and under L1."""
    return tuple(map(_numpy, (problem.eta[:, 0], problem.decay, problem.shrinkage)))


def _scratch(problem: Problem) -> ndarray:
    """A scratch array for the products of passes over the clean rows."""
    dtype = problem.poison.numpy().dtype
    return np.empty((kernels.GROUP, len(problem.clean.y)), dtype)
