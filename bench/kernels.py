"""How near its limit the machine runs the kernels that cost most: FLOP peak and read bandwidth.

Counted is what the formula needs: multiplications and additions, and every number that is read,
once. Measured beside it, in the same run on the same core: a product of two square matrices in the
kernel's precision, and the sum of an array that is as large as what the kernel reads. A kernel far
from both limits waits: for entries that it fetches by index, for divisions, for branches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from bench.data import examples
from bench.lower_level import LAMBDA, tasks
from bench.timing import one_core, product_speed, read_speed, timed
from poisoning.arrays import squared_norms
from poisoning.feasible.bounds_kernels import lagrangian
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import _Constraints
from poisoning.feasible.solver_kernels import evaluate
from poisoning.models.mtrl import TaskData
from poisoning.models.mtrl_kernels import losses, minimise
from poisoning.models.small_cnn import small_cnn
from poisoning.models.svm_kernels import descend_csr
from replication.koh2021 import LAMBDA as PENALTY

NAME = "replication.kernels"
REAL, INDEX = 8, 4  # bytes
LEAST = 2**20  # bytes that are summed up at least: a shorter sum is mostly its call
BATCH, CHANNELS, SIDE, CLASSES = 128, 1, 28, 10  # of the notebook's networks on MNIST
STEPS = 200  # of proximal gradient descent in one call
REPEATS = 15


@dataclass(frozen=True)
class Kernel:
    """A kernel on data of a shape that users run.

    ``flop`` and ``read``, in bytes, are those of one of its ``passes``; 0 where it is no limit.
    """

    what: str
    data: str
    call: Callable[[], Any]
    flop: float
    read: float
    passes: int = 1
    single: bool = False


def kernels() -> Iterator[Kernel]:
    """The dearest kernels that no other entry measures."""
    for name in ("enron", "imdb"):
        split, source = examples(name)
        X, y = split.X, split.y
        n, d = X.shape
        entries = X.nnz
        lam, rows = PENALTY[name], entries * (REAL + INDEX)
        upper, diagonal = np.full(n, 1.0 / (lam * n)), squared_norms(X) + 1.0
        yield Kernel(
            "SVM, an epoch of coordinate descent over the dual", source,
            partial(_epoch, (X.data, X.indices, X.indptr), y, upper, diagonal, d),
            4.0 * entries, rows + n * 4 * REAL,
        )  # fmt: skip
        theta = np.random.default_rng(0).normal(size=d)
        product = partial(X.__matmul__, theta)
        yield Kernel("sparse rows times a vector (scipy)", source, product, 2.0 * entries, rows)
        for classes in (1, 2):
            yield _dual(X, y, theta, classes, source)
        yield _bound(X, y, theta, source)
    for name in ("sarcos", "mnist"):
        loss, (draw,), source = tasks(name, 1)
        data = TaskData.of(draw)
        (m, n, d), hinge = data.X.shape, loss == "hinge"
        H, c = data.moments
        W = np.zeros((m, d))
        yield Kernel(
            "multi-task learner, losses and their gradient", source,
            partial(losses, data.X, data.y, data.weight, W, hinge),
            4.0 * m * n * d, REAL * m * n * (d + 2),
        )  # fmt: skip
        yield Kernel(
            f"multi-task learner, {STEPS} proximal steps", source,
            partial(minimise, H, c, LAMBDA, LAMBDA, W, 0.0, STEPS),
            2.0 * m * d * d, REAL * m * d * (d + 1), passes=STEPS,
        )  # fmt: skip
    for width in (10, 100, 10_000):
        step, flop = _training(width)
        where = f"{BATCH} images of {SIDE} × {SIDE}, width {width:,}"
        yield Kernel("small CNN, a step of SGD (torch)", where, step, flop, 0.0, single=True)


def run(bar: tqdm) -> dict[str, Any]:
    """Every kernel, the least of some repeats, beside what the core can do."""
    bar.reset()
    rows = []
    with one_core():
        for kernel in kernels():
            real = np.float32 if kernel.single else np.float64
            kernel.call()  # compiles, or loads what was compiled
            seconds = min(timed(kernel.call)[0] for _ in range(REPEATS)) / kernel.passes
            peak, bandwidth = product_speed(real), read_speed(max(int(kernel.read), LEAST))
            rows.append(
                {
                    "what": kernel.what,
                    "data": kernel.data,
                    "seconds": seconds * kernel.passes,
                    "of_GFLOP": kernel.flop / seconds / peak,
                    "of_read": kernel.read / seconds / bandwidth if kernel.read else None,
                    "GFLOP_s": peak / 1e9,
                    "read_GB_s": bandwidth / 1e9,
                }
            )
            bar.update()
    nearest = [max(row["of_GFLOP"], row["of_read"] or 0.0) for row in rows]
    return {
        "data": "data sets and shapes of the notebooks",
        "ours_s": rows[0]["seconds"],
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "n": len(rows),
        "spread": [min(nearest), max(nearest)],
        "agreement": None,
        "rows": rows,
    }


def summary(record: dict[str, Any]) -> str:
    """A line for each kernel."""
    return "".join(
        f"\n  {row['what']}, {row['data']}: {row['of_GFLOP']:.0%} of the FLOP peak"
        + (f", {row['of_read']:.0%} of the read bandwidth" if row["of_read"] is not None else "")
        for row in record["rows"]
    )


def _epoch(
    rows: tuple[np.ndarray, ...], y: np.ndarray, upper: np.ndarray, diagonal: np.ndarray, d: int
) -> None:
    """One epoch from α = 0, where nearly every row takes a step."""
    alpha, w, active = np.zeros(len(y)), np.zeros(d + 1), np.arange(len(y))
    descend_csr(*rows, y, upper, diagonal, alpha, w, active, np.ones(1, np.uint64), 0.0, 1)


def _dual(X: Any, y: np.ndarray, theta: np.ndarray, classes: int, source: str) -> Kernel:
    """The dual function of the KKT attack's problem, or of a projection, at small multipliers."""
    feasible = FeasibleSet.fit(X, y, InputDomain.of("counts", X))
    constraints = _Constraints.of([feasible.positive, feasible.negative][:classes])
    domain = feasible.positive.domain
    d, K, m = constraints.G.shape
    rng = np.random.default_rng(1)
    g, s, c = 0.01 * theta, np.array([0.02, -0.01])[:K], np.zeros((K, d))
    y0 = tuple(np.abs(rng.normal(scale=1e-6, size=m)))
    x, w, gradient, hessian = np.empty((K, d)), g.copy(), np.empty((K, m)), np.empty((K * m,) * 2)
    call = partial(
        evaluate, constraints.G, c, g, s, domain.lower, domain.upper, domain.integer, 1e-5,
        np.zeros((K, d)), (y0, y0), constraints.below, constraints.above, x, w, gradient, hessian,
    )  # fmt: skip
    # Per class: a row of G, c and the old point; shared: g, both ends, the old residual.
    read = REAL * d * (K * (m + 2) + 4)
    what = f"feasible set's dual, {'one class' if K == 1 else 'two classes'}"
    return Kernel(what, source, call, d * K * (2.0 * m + 6.0), read)


def _bound(X: Any, y: np.ndarray, theta: np.ndarray, source: str) -> Kernel:
    part = FeasibleSet.fit(X, y, InputDomain.of("counts", X)).positive
    C = np.stack([theta, -theta])
    multipliers = np.full((len(C), 1 + len(part.rows)), 0.1)
    domain = part.domain
    call = partial(
        lagrangian, C, part.rows, part.centre, multipliers, domain.lower, domain.upper,
        domain.integer,
    )  # fmt: skip
    numbers = C.size + len(C) * len(theta) * (len(part.rows) + 3)
    flop = C.size * (2.0 * len(part.rows) + 6.0)
    return Kernel("min-max's lower bounds", source, call, flop, REAL * numbers)


def _training(width: int) -> tuple[Callable[[], None], float]:
    """A step of SGD on one batch, and its floating-point operations as torch counts them."""
    model = small_cnn(CHANNELS, SIDE, CLASSES, width, seed=0)
    X = torch.rand(BATCH, CHANNELS * SIDE * SIDE)
    y = torch.arange(BATCH) % CLASSES
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(X), y).backward()
        optimiser.step()

    with FlopCounterMode(display=False) as counted:
        step()
    return step, float(counted.get_total_flops())
