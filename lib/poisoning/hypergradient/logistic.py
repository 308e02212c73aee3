"""Logistic regression in closed form: on a CPU by compiled passes, elsewhere by matrix products.

With x̃ = (x, 1), σ_i = σ(w·x̃_i) and shares s_i = c_i/N, a backward step of Alg. 1 needs

    z_i = x̃_i·p,  q_i = s_i σ_i(1 − σ_i) z_i,  Hp = Σ q_i x̃_i,  (∇_X∇_w)ᵀp = q w + s(σ − y) p,

with y in 0/1. The forward steps keep σ_i(1 − σ_i) s_i of every row, so that a step in either
direction reads the rows once. The last term is summed over all steps at the end, by one pair of
matrix products −η(QᵀW + RᵀP) with a row per step in Q (T × m), W (T × d), R (T × m), P (T × d).

On a CPU compiled passes read the clean rows once per step for every two problems, a byte per pixel,
and each problem's own poison, a byte per pixel where it is frozen. In float32, on a processor with
AVX-512 VNNI, bytes are multiplied as integers (``docs/byte-kernels.md``). Where the clean rows are
few (:attr:`Problem.compiled`), NumPy does the same without compiling anything. On a GPU everything
is done by matrix products (:class:`MLP` without hidden layers). The choice changes only rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from poisoning import checks
from poisoning.hypergradient import byte_kernels
from poisoning.hypergradient import logistic_kernels as kernels
from poisoning.hypergradient import logistic_plain as plain
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Linearisation, Problem, Tape


@dataclass(frozen=True)
class _Point:
    """At w: s σ(1 − σ) of clean rows (K, n) and of poison (K, m), and poison's pulls s(σ − y).

    A tape holds the same with an axis of steps after the first.
    """

    w: Tensor
    clean: Tensor
    poison: Tensor
    pull: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """All but w, in the kernels' order."""
        return self.clean, self.poison, self.pull


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
        w = _vectors(problem, w, "w").contiguous()
        gradient, state = torch.empty_like(w), _Point(w, *_room(problem))
        data_term = kernels.data_term if problem.compiled else plain.data_term
        for data, _, states, v, out in _calls(problem, state.parts, w, gradient):
            data_term(*data, False, states, v, out)

        def loss() -> Tensor:
            clean = w[:, :-1] @ problem.clean.transposed(w.dtype)
            poison = (problem.poison @ w[:, :-1, None]).squeeze(-1)
            return problem.data_loss(torch.cat([clean, poison], dim=1) + w[:, -1:])

        return Linearisation(gradient, loss, state)

    def product(
        self,
        problem: Problem,
        state: Any,
        v: Float[Tensor, "J K p"],
    ) -> tuple[Float[Tensor, "J K p"], tuple[Tensor, Tensor]]:
        """∇²v and the factors of (∇_X∇_w)ᵀv, by a pass over the rows for every vector."""
        if not _on_cpu(problem):
            return super().product(problem, state, v)
        v = _vectors(problem, v, "v", several=True).contiguous()
        _fits(problem, state)
        J, free = len(v), problem.frozen
        Hv, q = torch.empty_like(v), v.new_empty(J, *state.pull.shape)
        data_term = kernels.data_term if problem.compiled else plain.data_term
        for j in range(J):
            here = state.clean, state.poison, q[j]
            for data, _, states, vectors, out in _calls(problem, here, v[j], Hv[j]):
                data_term(*data, True, states, vectors, out)
        pull, weights = state.pull[:, free:], state.w[:, :-1]
        left = torch.stack([q[..., free:], pull.expand(J, -1, -1)], dim=-2)
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
        return sum(part.nbytes for part in state.parts)

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
        way = w.new_empty(len(w), steps + 1, w.shape[1])
        way[:, 0] = w
        point = _Point(way, *_room(problem, steps))
        descend = kernels.descend if problem.compiled else plain.descend
        for data, step, here, states in _calls(problem, way, point.parts):
            descend(*data, step, here, states)
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
        ascend = kernels.ascend if problem.compiled else plain.ascend
        for j in range(len(p)):
            every = point.w, point.parts, p[j], way, q, d_lam[j]
            for data, step, *own in _calls(problem, *every):
                ascend(*data, step, *own)
            torch.bmm(q[..., free:].mT, point.w[:, :-1, :-1], out=d_poison[j])
            d_poison[j].baddbmm_(point.pull[..., free:].mT, way[..., :-1])
        return p, d_poison.mul_(-problem.eta.unsqueeze(-1)), d_lam


def _room(problem: Problem, *steps: int) -> list[Tensor]:
    """Room for the parts of a point, or of a tape of so many steps."""
    K, m, _ = problem.poison.shape
    return [problem.poison.new_empty(K, *steps, rows) for rows in (len(problem.clean.y), m, m)]


def _calls(problem: Problem, *own: Tensor | tuple[Tensor, ...]) -> Iterator[tuple]:
    """The arguments of compiled calls, each for a few problems.

    A tuple of the rows, the clean rows' and poison's labels and shares; another of η and e^λ; and
    those problems' part of what is their ``own``, with a first axis of K.
    """
    raw, (F, P) = _raw(problem), _poison(problem)
    every = *map(_arrays, (*problem.split_labels, *own)), _step(problem)
    size = kernels.GROUP if problem.compiled else len(P)
    for first in range(0, len(P), size):
        now = slice(first, first + size)
        clean, poison, *rest, step = (
            tuple(part[now] for part in parts) if isinstance(parts, tuple) else parts[now]
            for parts in every
        )
        yield ((*raw, F[now], P[now]), clean, poison), step, *rest


def _arrays(tensors: Tensor | tuple[Tensor, ...]) -> ndarray | tuple[ndarray, ...]:
    return tensors.numpy() if isinstance(tensors, Tensor) else tuple(map(Tensor.numpy, tensors))


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
    if [tuple(part.shape) for part in state.parts] != [(K, *axis, rows) for rows in (n, m, m)]:
        raise ValueError("state must be of the same problem, it is of one with other rows.")


def _extended(X: Float[Tensor, "n d"]) -> Float[Tensor, "n d1"]:
    """The rows (x, 1)."""
    return torch.nn.functional.pad(X, (0, 1), value=1.0)


def _numpy(tensor: Tensor) -> ndarray:
    """As a C-contiguous array: the kernels are compiled once for each memory layout."""
    return tensor.contiguous().numpy()


def _laid_out(X: Tensor, dtype: torch.dtype) -> ndarray:
    """Raw rows as the kernels read them.

    Pixels stay bytes, packed for integer products where the processor has them; other numbers take
    the problem's ``dtype``.
    """
    if _in_integers(X, dtype):
        return byte_kernels.packed(_numpy(X))
    return _numpy(X if X.dtype == torch.uint8 else X.to(dtype))


def _in_integers(X: Tensor, dtype: torch.dtype) -> bool:
    return X.dtype == torch.uint8 and dtype == torch.float32 and byte_kernels.available()


def _raw(problem: Problem) -> tuple:
    """The clean rows' columns that are not all 0, which those are, scale and offset."""
    clean, dtype = problem.clean, problem.poison.dtype

    def found() -> tuple[ndarray, ndarray]:
        columns = torch.nonzero((clean.X != 0).any(dim=0)).squeeze(1)
        X = clean.X[:, columns]
        X = _laid_out(X, dtype) if problem.compiled else _numpy(X.to(dtype))
        return X, columns.numpy()

    real = torch.empty(0, dtype=dtype).numpy().dtype.type
    rows = clean.keep(("raw", dtype, problem.compiled), found)
    return *rows, real(clean.scale), real(clean.offset)


def _poison(problem: Problem) -> tuple[ndarray, ndarray]:
    """The poison's rows that are bytes, F, and the others, P.

    Where there are no bytes, F has no rows, and the clean rows' layout: kernels are compiled for
    one.
    """
    pixels, dtype = problem.frozen_pixels, problem.poison.dtype
    if pixels is None or not problem.compiled:
        none = problem.poison[:, :0].to(problem.clean.X.dtype)
        return _laid_out(none, dtype), _numpy(problem.poison)
    others = problem.poison[:, problem.frozen :].numpy().copy()  # in larger pages than torch's
    return pixels.keep(dtype, lambda: _laid_out(pixels.X, dtype)), others


def _step(problem: Problem) -> tuple[ndarray, ...]:
    """η, and e^λ of every parameter under L2 and under L1."""
    return tuple(map(_numpy, (problem.eta[:, 0], problem.decay, problem.shrinkage)))
