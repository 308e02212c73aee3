"""Online SGD on a two-layer net: exact blocks beside autograd and beside an unblocked loop.

All three take the same steps on the same examples, one example a step, in single precision: blocks
of ``poisoning.models.two_layer``; a compiled loop of a matrix-vector product and a rank-one update
per example; PyTorch's autograd with its SGD. The limit is that of the two matrix products that
every block needs, timed in the same shapes. Seconds are per example.

The loop reads and writes all weights at every example, so what blocks gain over it depends on where
those weights lie: at 4096 neurons they may stay in a large shared cache, at 32768 they come from
memory. Both are measured.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.linalg.blas import sgemm
from tqdm import tqdm

from bench.data import examples
from bench.timing import ratio, timed
from poisoning.compiled import njit
from poisoning.models.two_layer import TwoLayerNets, train_online

NAME = "wang2021.online_sgd"
WIDTH = 4096
WIDTHS = tuple(2**k for k in range(4, 16))
BEYOND_CACHE = WIDTHS[-1]  # 100 MB of weights
STEP = 1.0
BLOCK = 128  # train_online's own
SMALL_WIDTH, RUNS = 16, 16  # what sharing the examples gains where one net is small
ROUNDS = 7
OURS, LOOP, AUTOGRAD = 1024, 128, 128  # examples: each side long enough to time
# Sooner or later a pre-activation lies within rounding of zero, and two sides disagree on whether
# that neuron takes the step, half of η m^{-1/2}: compared before that, all agree to rounding.
COMPARED = 64


def run(bar: tqdm) -> dict[str, Any]:
    """Rounds of all sides at one width; then ours at all widths; then many small nets."""
    X, y, source = _digits()
    nets = _nets(WIDTH, X.shape[1])
    bar.reset(total=2 * ROUNDS + len(WIDTHS) + 2)
    few = X[:COMPARED], y[:COMPARED]
    ours, loop, autograd = _blocks(nets, *few), _loop(nets, *few), _autograd(nets, *few)
    # Weights are about 1 in size: differences are relative and absolute alike.
    agreement = max(np.abs(ours - other).max() for other in (loop, autograd))

    sides = _rounds(nets, X, y, bar)
    beyond = _rounds(_nets(BEYOND_CACHE, X.shape[1]), X, y, bar)
    growth = []
    for m in WIDTHS:
        seconds = _least(partial(_blocks, _nets(m, X.shape[1]), X[:OURS], y[:OURS])) / OURS
        growth.append({"m": m, "seconds": seconds, "ns_per_neuron": 1e9 * seconds / m})
        bar.update()
    alone, together = (
        _least(partial(_blocks, _nets(SMALL_WIDTH, X.shape[1], runs), X[:OURS], y[:OURS])) / OURS
        for runs in (1, RUNS)
    )
    bar.update(2)
    return {
        "data": f"{source}, {X.shape[1]} features",
        "m": WIDTH,
        "n": ROUNDS,
        "peer": "torch autograd",
        "agreement": float(agreement),
        **sides,
        "beyond_cache": {"m": BEYOND_CACHE, **beyond},
        "growth": growth,
        "many_runs": {
            "m": SMALL_WIDTH, "runs": RUNS, "alone_s": alone, "together_s": together,
            "ratio": RUNS * alone / together,
        },
    }  # fmt: skip


def summary(record: dict[str, Any]) -> str:
    """One line for a reader."""
    per_neuron = 1e9 / record["m"]
    many, beyond = record["many_runs"], record["beyond_cache"]
    return (
        f"{record['data']}, m = {record['m']}: {per_neuron * record['ours_s']:.0f} ns per example "
        f"and neuron beside {per_neuron * record['peer_s']:.0f} of {record['peer']} "
        f"({record['ratio']:.0f} times as fast) and {per_neuron * record['loop_s']:.0f} of an "
        f"unblocked compiled loop ({record['loop_ratio']:.1f} times), "
        f"{100 * record['gemm_fraction']:.0f} % of the speed of its matrix products alone; "
        f"at m = {beyond['m']} {1e9 * beyond['ours_s'] / beyond['m']:.0f} ns, "
        f"{beyond['ratio']:.0f} and {beyond['loop_ratio']:.1f} times; "
        f"{many['runs']} nets of {many['m']} neurons together "
        f"{many['ratio']:.1f} times as fast as one by one; weights equal to "
        f"{record['agreement']:.0e}"
    )


def _rounds(nets: TwoLayerNets, X: np.ndarray, y: np.ndarray, bar: tqdm) -> dict[str, Any]:
    """All sides one after the other, several times over; ratios are of one round each."""
    rounds = []
    for _ in range(ROUNDS):
        rounds.append(
            [
                _per_example(_blocks, nets, X[:OURS], y[:OURS]),
                _per_example(_products, nets, X[:OURS], y[:OURS]),
                _per_example(_loop, nets, X[:LOOP], y[:LOOP]),
                _per_example(_autograd, nets, X[:AUTOGRAD], y[:AUTOGRAD]),
            ]
        )
        bar.update()
    blocks, products, loops, autograds = np.array(rounds).T
    return {
        "ours_s": float(np.median(blocks)),
        "peer_s": float(np.median(autograds)),
        **ratio(autograds / blocks),
        "loop_s": float(np.median(loops)),
        **ratio(loops / blocks, "loop_"),
        "gemm_fraction": float(np.median(products / blocks)),
    }


def _digits() -> tuple[np.ndarray, np.ndarray, str]:
    """Fours and nines, of unit length, as many as ours takes; cycled where there are fewer."""
    data, source = examples("mnist")
    rows = np.resize(np.flatnonzero(np.isin(data.y, (4, 9))), OURS)
    X = data.X[rows] / np.linalg.norm(data.X[rows], axis=1, keepdims=True)
    return X.astype(np.float32), np.where(data.y[rows] == 4, 1, -1).astype(np.float32), source


def _nets(m: int, d: int, runs: int = 1) -> TwoLayerNets:
    return TwoLayerNets.draw(runs, m, d, np.random.default_rng(2021))


def _per_example(side: Callable, nets: TwoLayerNets, X: np.ndarray, y: np.ndarray) -> float:
    return timed(side, nets, X, y)[0] / len(X)


def _least(call: Callable[[], Any]) -> float:
    """The least of a few runs: a busy machine only ever adds to them."""
    return min(timed(call)[0] for _ in range(3))


def _blocks(nets: TwoLayerNets, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    runs = len(nets.W)
    steps = np.full(runs, STEP, np.float32)
    return train_online(nets, X, np.tile(y, (runs, 1)), steps, block=BLOCK).nets.W[0]


def _products(nets: TwoLayerNets, X: np.ndarray, _y: np.ndarray) -> None:
    """The products X Wᵀ and W += Dᵀ X of every block, and nothing else."""
    W, D = nets.W[0].copy(), np.zeros((BLOCK, nets.W.shape[1]), np.float32)
    for first in range(0, len(X), BLOCK):
        part = X[first : first + BLOCK]
        part @ W.T
        sgemm(1.0, part.T, D[: len(part)].T, beta=1.0, c=W.T, trans_b=1, overwrite_c=1)


def _loop(nets: TwoLayerNets, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    W = nets.W[0].copy()
    unblocked(W, nets.a[0], X, y, np.float32(STEP))
    return W


@njit(cache=True, fastmath=True)
def unblocked(W, a, X, y, step):
    """A matrix-vector product and a rank-one update per example, in place."""
    m, d = W.shape
    root = np.float32(np.sqrt(m))
    z = np.empty(m, W.dtype)
    for t in range(len(X)):
        x = X[t]
        total = np.float32(0.0)
        for s in range(m):
            product = np.float32(0.0)
            for j in range(d):
                product += W[s, j] * x[j]
            z[s] = product
            total += a[s] * max(product, np.float32(0.0))
        pull = step * y[t] / (root * (np.float32(1.0) + np.exp(y[t] * total / root)))
        for s in range(m):
            if z[s] > 0.0:
                change = pull * a[s]
                for j in range(d):
                    W[s, j] += change * x[j]


def _autograd(nets: TwoLayerNets, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    W = torch.tensor(nets.W[0], requires_grad=True)
    a = torch.tensor(nets.a[0]) / len(nets.a[0]) ** 0.5
    optimiser = torch.optim.SGD([W], lr=STEP)
    for x, label in zip(torch.tensor(X), torch.tensor(y), strict=True):
        optimiser.zero_grad()
        torch.nn.functional.softplus(-label * (a @ torch.relu(W @ x))).backward()
        optimiser.step()
    return W.detach().numpy()
