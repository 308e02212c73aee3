"""Two-layer ReLU networks trained by online SGD; Section 4 of Wang, Mianjy & Arora 2021.

    f(x; a, W) = m^{-1/2} Σ_s a_s relu(w_s·x),   a_s = ±1 fixed,   W₁ ~ N(0, I),
    W_{t+1} = W_t − η ∇_W ℓ(y_t f(x_t; a, W_t)),   ℓ(z) = log(1 + e^{−z}),   one example a step.

A step changes w_s by a multiple of its example, w_s += c_t a_s 1[w_s·x_t > 0] x_t with
c_t = η y_t m^{-1/2} σ(−y_t f(x_t)). So K steps need only the pre-activations Z = X Wᵀ at the start
of the block and the Gram matrix G = X Xᵀ: z_t gains Σ_{k<t} G_tk c_k a 1[z_k > 0], and W is brought
up to date once, by a second matrix product. The iterates are those of one example at a time, up to
rounding, at the cost of matrix products.

Several runs of one width share the order of the examples: one matrix product serves them all. Every
function takes NumPy arrays or torch tensors and works on their device and in their precision.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, device
from jaxtyping import Float
from numpy import ndarray
from scipy.linalg.blas import get_blas_funcs

from poisoning import checks
from poisoning.errors import SolverError
from poisoning.models.two_layer_kernels import take_steps

Array: TypeAlias = Any
"""``numpy.ndarray`` or ``torch.Tensor``; not named as types, since importing torch is slow."""

_INNER = 16  # steps whose pre-activations are brought up one by one, not by a matrix product
_TOGETHER = 2**14  # neurons of all runs in one product: a block of them fits the last-level cache
_CHUNK = 2**24  # pre-activations held at once


@dataclass(frozen=True)
class TwoLayerNets:
    """R networks of width m on d features: weights ``W`` (R, m, d), output signs ``a`` (R, m).

    Raises ``ValueError`` or ``TypeError`` for arrays that are not so or not finite.
    """

    W: Float[Array, "runs m d"]
    a: Float[Array, "runs m"]

    def __post_init__(self) -> None:
        W = checks.floats(self.W, "W", (None, None, None))
        if 0 in W.shape:
            raise ValueError(f"W must have networks, neurons and features, its shape is {W.shape}.")
        a = checks.floats(self.a, "a", tuple(W.shape[:2]), like=W)
        if not bool((a * a == 1.0).all()):
            raise ValueError("a must be -1 and +1.")
        object.__setattr__(self, "W", W)
        object.__setattr__(self, "a", a)

    @classmethod
    def draw(
        cls, runs: int, m: int, d: int, rng: np.random.Generator, dtype: Any = np.float32
    ) -> "TwoLayerNets":
        """Weights from N(0, 1) and signs ±1 with equal probability, as NumPy arrays.

        The draws are made in float64: a network is the same in either precision.
        """
        runs, m, d = (checks.whole(n, f) for n, f in ((runs, "runs"), (m, "m"), (d, "d")))
        rng = checks.generator(rng)
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, not {dtype!r}.")
        W, a = np.empty((runs, m, d), dtype), np.empty((runs, m), dtype)
        for run in range(runs):
            W[run] = rng.standard_normal((m, d))
            a[run] = rng.choice([-1.0, 1.0], m)
        return cls(W, a)

    def scores(self, X: Float[Array, "n d"]) -> Float[Array, "runs n"]:
        """f(x; a, W) of every example under every network."""
        return self._outputs(self._rows(X, "X"))[0]

    def _rows(self, X: Any, name: str) -> Array:
        """Examples for these networks, checked."""
        return checks.floats(X, name, (None, self.W.shape[2]), like=self.W)

    def input_gradients(self, X: Float[Array, "n d"]) -> Float[Array, "runs n d"]:
        """∇_x f(x) = m^{-1/2} Σ_s a_s 1[w_s·x > 0] w_s for every example and network."""
        X = self._rows(X, "X")
        xp = array_namespace(self.W)
        runs, m, d = self.W.shape
        gradients = xp.empty((runs, X.shape[0], d), dtype=self.W.dtype, device=device(self.W))
        for run, rows, z in self._pre_activations(X):
            signs = xp.where(z > 0.0, self.a[run], 0.0)
            gradients[run, rows] = signs @ self.W[run] / math.sqrt(m)
        return gradients

    def _pre_activations(
        self, X: Float[Array, "n d"]
    ) -> Iterator[tuple[int, slice, Float[Array, "_ m"]]]:
        """w_s·x of one network on some rows, a few million at a time."""
        runs, m, _ = self.W.shape
        size = max(1, _CHUNK // m)
        for run in range(runs):
            for first in range(0, X.shape[0], size):
                rows = slice(first, first + size)
                yield run, rows, X[rows] @ self.W[run].T

    def _outputs(
        self, X: Float[Array, "n d"]
    ) -> tuple[Float[Array, "runs n"], Float[Array, "runs"]]:
        """Scores and active fractions."""
        xp = array_namespace(self.W)
        runs, m, _ = self.W.shape
        n = X.shape[0]
        scores = xp.empty((runs, n), dtype=self.W.dtype, device=device(self.W))
        active = xp.zeros(runs, dtype=xp.float64, device=device(self.W))
        for run, rows, z in self._pre_activations(X):
            active[run] += xp.count_nonzero(z > 0.0) / (n * m)
            scores[run, rows] = xp.clip(z, 0.0, None) @ self.a[run]
        return scores / math.sqrt(m), active


@dataclass(frozen=True)
class Checkpoint:
    """Measurements of R networks after ``examples`` steps.

    ``accuracy`` (R,): share of the probe that they classify correctly, y f(x) > 0.
    ``active_fraction`` (R,): of the pairs (neuron, probe example), those with w_s·x > 0.
    ``distance`` (R,): ‖W − W₁‖_F.
    """

    examples: int
    accuracy: Float[ndarray, "runs"]
    active_fraction: Float[ndarray, "runs"]
    distance: Float[ndarray, "runs"]


@dataclass(frozen=True)
class OnlineRun:
    """The networks after a pass, and what was measured on the way.

    ``scores`` (R, n) are f(x_t; a, W_t), each example's before its own step.

    ``scores`` of examples that were drawn independently, undisturbed in x, estimate the average
    risk of the iterates (1/n) Σ_t L(W_t) without bias: L counts y f(x) ≤ 0 under the true label.
    """

    nets: TwoLayerNets
    scores: Float[Array, "runs n"]
    checkpoints: list[Checkpoint]


def train_online(
    nets: TwoLayerNets,
    X: Float[Array, "n d"],
    y: Float[Array, "runs n"],
    steps: Float[Array, "runs"],
    *,
    probe: tuple[Float[Array, "p d"], Float[Array, "p"]] | None = None,
    checkpoints: Sequence[int] = (),
    block: int = 128,
) -> OnlineRun:
    """One pass of SGD over (X, y) in the order given, an example a step.

    ``X`` (n, d) is shared by the R runs; ``y`` (R, n) of ±1 and the step sizes η, ``steps`` (R,),
    are each run's own. After every number of examples in ``checkpoints`` the networks are measured
    on the ``probe``: its examples and labels. ``block`` is the number of steps between updates of
    W: it changes the time, and the iterates by rounding only. ``nets`` is left as it is.

    Raises:
        ValueError: labels other than ±1, step sizes ≤ 0, shapes that do not fit, or checkpoints
            without a probe or outside 0 … n.
        TypeError: arrays of another kind, precision or device than the networks'.
        SolverError: training diverges.
    """
    W = checks.instance(nets, "nets", TwoLayerNets).W
    xp, runs = array_namespace(W), len(W)
    X = nets._rows(X, "X")
    n = X.shape[0]
    y = _signs(y, "y", (runs, n), W)
    steps = checks.floats(steps, "steps", (runs,), like=W)
    if not bool(xp.all(steps > 0.0)):
        raise ValueError(f"steps must be above 0, the least is {float(xp.min(steps)):g}.")
    block = checks.whole(block, "block")
    stops = sorted({checks.whole(stop, "checkpoints", 0, n) for stop in checkpoints})
    if stops and probe is None:
        raise ValueError("probe must be examples and labels where there are checkpoints, not None.")
    if probe is not None:
        rows = nets._rows(probe[0], "X of probe")
        if not len(rows):
            raise ValueError("X of probe must have at least one row, it has none.")
        probe = rows, _signs(probe[1], "y of probe", (len(rows),), W)
    take = _compiled_block if isinstance(nets.W, ndarray) else block_of_steps

    W = xp.empty(nets.W.shape, dtype=X.dtype, device=device(X))  # contiguous: updated in place
    W[...] = nets.W
    current = TwoLayerNets(W, nets.a)
    scores = xp.empty((len(y), n), dtype=X.dtype, device=device(X))
    record = []
    edges = sorted({*range(0, n, block), *stops, n})
    for first, last in zip(edges, [*edges[1:], None], strict=True):
        if first in stops:
            record.append(_measure(first, current, nets.W, *probe))
        if last is not None:
            part = slice(first, last)
            scores[:, part] = take(current.W, current.a, X[part], y[:, part], steps)
    if not bool(xp.all(xp.isfinite(W))):
        raise SolverError(
            f"online SGD on {n} examples: weights overflow with step sizes up to "
            f"{float(xp.max(steps)):g}; lower them"
        )
    return OnlineRun(current, scores, record)


def _signs(y: Any, name: str, shape: tuple[int, ...], like: Array) -> Array:
    y = checks.floats(y, name, shape, like=like)
    if not bool((y * y == 1.0).all()):
        raise ValueError(f"{name} must be -1 and +1.")
    return y


def block_of_steps(
    W: Float[Array, "runs m d"],
    a: Float[Array, "runs m"],
    X: Float[Array, "k d"],
    y: Float[Array, "runs k"],
    steps: Float[Array, "runs"],
) -> Float[Array, "runs k"]:
    """k steps of SGD on W, in place, by matrix products; the outputs before each step."""
    xp = array_namespace(W)
    root = math.sqrt(W.shape[1])
    gram = X @ X.T
    Z = xp.matmul(X, xp.matrix_transpose(W))
    D = xp.empty_like(Z)
    scores = xp.empty_like(y, dtype=W.dtype)
    for t in range(X.shape[0]):
        z = Z[:, t, :]
        if t:
            z = z + xp.matmul(gram[t, :t], D[:, :t, :])
        scores[:, t] = xp.sum(a * xp.clip(z, 0.0, None), axis=-1) / root
        pull = steps * y[:, t] / (root * (1.0 + xp.exp(y[:, t] * scores[:, t])))
        D[:, t, :] = xp.where(z > 0.0, pull[:, None] * a, 0.0)
    W += xp.matmul(xp.matrix_transpose(D), X)
    return scores


def _compiled_block(
    W: Float[ndarray, "runs m d"],
    a: Float[ndarray, "runs m"],
    X: Float[ndarray, "k d"],
    y: Float[ndarray, "runs k"],
    steps: Float[ndarray, "runs"],
) -> Float[ndarray, "runs k"]:
    """The same on a CPU: ``_INNER`` steps at a time are compiled, all else is done by BLAS.

    The effect of a block's first half on the pre-activations of its second half is added by one
    matrix product, and so on within each half, until ``_INNER`` steps are left. Their arrays stay
    in the caches.
    """
    gram = X @ X.T
    scores = np.empty(y.shape, W.dtype)
    together = max(1, _TOGETHER // W.shape[1])
    for start in range(0, len(W), together):
        part = slice(start, start + together)
        _compiled_runs(W[part], a[part], X, gram, y[part], steps[part], scores[part])
    return scores


def _compiled_runs(
    W: Float[ndarray, "runs m d"],
    a: Float[ndarray, "runs m"],
    X: Float[ndarray, "k d"],
    gram: Float[ndarray, "k k"],
    y: Float[ndarray, "runs k"],
    steps: Float[ndarray, "runs"],
    scores: Float[ndarray, "runs k"],
) -> None:
    """A block for as many runs as one matrix product takes; W and ``scores`` in place."""
    flat = W.reshape(-1, W.shape[2])
    signs = np.ascontiguousarray(a).reshape(-1)
    (gemm,) = get_blas_funcs(("gemm",), (flat,))
    Z = X @ flat.T
    D = np.empty_like(Z)

    def take(first: int, last: int) -> None:
        if last - first <= _INNER:
            take_steps(Z, D, signs, gram, y, steps, scores, first, last)
            return
        half = (first + last) // 2
        take(first, half)
        # Rows of C order are columns of BLAS: Zᵀ[:, later] += Dᵀ[:, earlier] G[earlier, later].
        gemm(1.0, D[first:half].T, gram[half:last, first:half].T, beta=1.0, c=Z[half:last].T,
             overwrite_c=1)  # fmt: skip
        take(half, last)

    take(0, len(X))
    gemm(1.0, X.T, D.T, beta=1.0, c=flat.T, trans_b=1, overwrite_c=1)


def _measure(
    examples: int,
    nets: TwoLayerNets,
    start: Float[Array, "runs m d"],
    X: Float[Array, "p d"],
    y: Float[Array, "p"],
) -> Checkpoint:
    xp = array_namespace(start)
    scores, active = nets._outputs(X)
    correct = xp.mean(xp.astype(y * scores > 0.0, nets.W.dtype), axis=-1)
    squares = [xp.sum((now - then) ** 2) for now, then in zip(nets.W, start, strict=True)]
    distance = xp.sqrt(xp.stack(squares))
    return Checkpoint(examples, *(_to_numpy(values) for values in (correct, active, distance)))


def _to_numpy(values: Float[Array, "runs"]) -> Float[ndarray, "runs"]:
    return np.asarray([float(value) for value in values])
