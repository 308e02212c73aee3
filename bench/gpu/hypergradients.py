"""Hypergradients of many problems at once, on a GPU and on two CPU cores.

The problems are those of Carnerero-Cano et al. 2023 in shape and in pixels: logistic regression and
the paper's networks, on MNIST's digits 0 and 8 and on CIFAR-10's airplanes and frogs. K problems
share their clean rows; each has a batch of flipped clones of its own and all have L2 with λ = −4.

Timed is Alg. 1 without the checks around it (:func:`bench.gpu.graphs.sweep`).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.gpu.graphs import Replay, sweep
from bench.gpu.ledger import Part
from bench.gpu.pack import Pack
from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Objective, Problem, Rows
from replication.carnerero2023 import even, load_pool
from replication.hyperparameter_trial import Pool, balanced_draw

LAM = -4.0
CORES = 2
"""Of the CPU that stands beside the GPU."""


@dataclass(frozen=True)
class Plan:
    """How many problems at once, up to how many also as a CUDA graph, and sizes of two yardsticks.

    ``cpu_steps`` are the steps T of a network on the CPU, whose time grows with T. ``copied`` are
    the floats of the copy, ``square`` the side of the matrices of the product.
    """

    sizes: tuple[int, ...]
    largest_graph: int
    cpu_steps: int
    copied: int
    square: int


PLANS = {
    "paper": Plan((1, 4, 16, 64, 256, 1024, 4096), 64, 20, 2**28, 8192),
    "demo": Plan((1, 4), 4, 10, 2**18, 128),
}


@dataclass(frozen=True)
class Task:
    """One inner problem: its network, rows to train and to validate on, poison, T and η."""

    hidden: tuple[int, ...]
    train: int
    poison: int
    validation: int
    steps: int
    rate: float


def tasks(pack: Pack) -> dict[tuple[str, str], Task]:
    """The four problems, by data set and model."""
    shared, networks = (pack.knobs[f"carnerero2023/{block}"] for block in ("attack", "networks"))
    found = {}
    for name, widths in (("mnist", (32, 8)), ("cifar-10", (64, 32))):
        recipe = shared["recipes"][name]
        for model, hidden, knobs, steps, rate in (
            ("logistic regression", (), shared, recipe["steps"], recipe["rate"]),
            ("network", widths, networks, networks["steps"], networks["rate"][name]),
        ):
            n = knobs["n_train"]
            found[name, model] = Task(
                hidden, n, round(shared["batch"] * n), even(recipe["validation"] * n), steps, rate
            )
    return found


def problems(
    pool: Pool,
    task: Task,
    K: int,
    device: str,
    dtype: torch.dtype = torch.float32,
    *,
    compiled: bool = False,
) -> Problem:
    """K problems on one draw.

    Logistic regression is the network without hidden layers, by whose matrix products the library
    computes it on a GPU; with ``compiled`` it is what the library takes on a CPU.
    """
    rng = np.random.default_rng(2023)
    train, held = balanced_draw(pool.y, (task.train, task.validation), rng)
    clean = train[task.poison :]
    y = torch.tensor(pool.y, dtype=dtype, device=device)
    X = torch.tensor(pool.X[held], device=device).to(dtype) * pool.scale + pool.offset
    clones = torch.tensor(rng.integers(len(held), size=(K, task.poison)), device=device)
    rows = torch.tensor(pool.X[clean], device=device)
    network = MLP(task.hidden)
    whole = network if task.hidden else Logistic()  # which starts from zero
    w = whole.initial(pool.X.shape[1], torch.Generator().manual_seed(2023))
    return Problem(
        model=whole if compiled else network,
        clean=Rows(rows, y[clean], pool.scale, pool.offset),
        poison=X[clones],
        poison_y=-y[held][clones],
        objectives=(Objective(X, y[held]),),
        lam=torch.full((K, 1), LAM, dtype=dtype, device=device),
        rate=task.rate,
        steps=task.steps,
        initial=w.to(X).repeat(K, 1),
    )


def demands(problem: Problem) -> dict[str, float]:
    """FLOP of the matrix products, and bytes of examples that they read at least.

    A step and its way back read all examples four times; pixels that are always black are skipped.
    Every multiplication and addition counts.
    """
    K, m, d = problem.poison.shape
    values = problem.clean.values(problem.poison.dtype)
    n, used = len(values), int((values != 0).any(dim=0).sum())
    (h, _), *later = problem.model.shapes(d)
    cells = n * used + m * d
    a_step = 8 * h * cells + 18 * (n + m) * sum(out * inputs for out, inputs in later)
    gathered = 4 * m * h * d
    return {
        "flop": float(problem.steps * K * (a_step + gathered)),
        "bytes": float(problem.steps * 4 * values.element_size() * (n * used + K * m * d)),
    }


def seconds_of(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """The least of three runs after one that warms up, of one where that took over a second.

    Also what the last run returned.
    """

    def timed() -> tuple[float, Any]:
        _wait(device)
        begun = time.perf_counter()
        found = run()
        _wait(device)
        return time.perf_counter() - begun, found

    first, _ = timed()
    runs = [timed() for _ in range(3 if first < 1.0 else 1)]
    return min(seconds for seconds, _ in runs), runs[-1][1]


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


# Units ------------------------------------------------------------------------------------------


def yardsticks(device: str, copied: int, square: int) -> dict[str, float]:
    """What a device can do: GB/s of a copy, TFLOP/s of a float32 product without TF32."""
    source = torch.ones(copied, device=device)
    target = torch.empty_like(source)
    copy, _ = seconds_of(lambda: target.copy_(source), device)
    del source, target
    matrix = torch.ones(square, square, device=device)
    product, _ = seconds_of(lambda: matrix @ matrix, device)
    return {"GB_s": 8.0 * copied / copy / 1e9, "TFLOP_s": 2.0 * square**3 / product / 1e12}


def speed(pool: Pool, task: Task, K: int, way: str, device: str) -> dict[str, float] | None:
    """Seconds of K hypergradients at once; None if they do not fit the device's memory.

    ``way``: "eager", operation by operation, or "graph".
    """
    try:
        problem = problems(pool, task, K, device)
        run = partial(sweep, problem)
        prepared = 0.0
        if way == "graph":
            begun = time.perf_counter()
            replay = Replay(problem)
            prepared = time.perf_counter() - begun
            run = partial(replay, problem.poison, problem.lam, problem.initial)
        seconds, _ = seconds_of(run, device)
        return {"seconds": seconds, "prepared_seconds": prepared, **demands(problem)}
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def beside_cpu(pool: Pool, task: Task, device: str) -> dict[str, float]:
    """Seconds of one hypergradient on the CPU, and by how much the device's differs from it.

    PyTorch has two threads. The compiled passes of logistic regression run in one, as in a unit of
    work, of which two run side by side: their seconds are halved.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    try:
        problem = problems(pool, task, 1, "cpu", compiled=True)
        seconds, found = seconds_of(partial(sweep, problem), "cpu")
    finally:
        torch.set_num_threads(before)
    there = sweep(problems(pool, task, 1, device))
    return {
        "seconds": seconds if task.hidden else seconds / CORES,
        "steps": task.steps,
        "difference": _difference(found, there),
    }


def precision(pool: Pool, task: Task, device: str) -> float:
    """By how much a hypergradient in float32 differs from that in float64, on one device."""
    exact, found = (
        sweep(problems(pool, task, 1, device, dtype)) for dtype in (torch.float64, torch.float32)
    )
    return _difference(exact, found)


def _difference(exact: Any, found: Any) -> float:
    """‖difference‖/‖exact‖, the larger of poison's and λ's."""
    pairs = (exact.poison, found.poison), (exact.lam, found.lam)
    return max(float((a.cpu() - b.cpu()).norm() / a.norm().cpu()) for a, b in pairs)


# The part ---------------------------------------------------------------------------------------


def rows(part: Part, pack: Pack, device: str) -> Iterator[dict[str, Any]]:
    """A row of results/bench.json for every problem, after every number of problems at once."""
    plan = PLANS[pack.profile]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    limits = part(yardsticks, {"device": device, "copied": plan.copied, "square": plan.square})
    if limits is None:
        return
    pools = {name: load_pool(pack, name) for name in ("mnist", "cifar-10")}
    every = tasks(pack)
    for (name, model), task in every.items():
        shorter = replace(task, steps=min(plan.cpu_steps, task.steps)) if task.hidden else task
        beside = part(beside_cpu, {"pool": pools[name], "task": shorter, "device": device})
        error = part(precision, {"pool": pools[name], "task": task, "device": device})
        if beside is not None and error is not None:
            cpu = beside[0]
            found[name, model] = {
                "data": f"{pack.source(name)}, {model}, n {task.train}, T {task.steps}",
                "peer": f"{CORES} CPU cores",
                "peer_s": cpu["seconds"] * task.steps / cpu["steps"],
                "agreement": cpu["difference"],
                "float32_error": error[0],
                **limits[0],
                "sizes": [],
            }
    full = set()
    for K in plan.sizes:
        for (name, model), row in found.items():
            if (name, model) in full:
                continue
            task = every[name, model]
            ways = ("eager", "graph") if plan.largest_graph >= K else ("eager",)
            measured = {}
            for way in ways:
                done = part(speed, {
                    "pool": pools[name], "task": task, "K": K, "way": way, "device": device
                })  # fmt: skip
                if done is not None:
                    measured[way] = done[0]
            if not any(measured.values()):
                full.add((name, model))  # more will not fit either, or no time is left
            if measured:
                row["sizes"].append(_size(row, K, measured))
                yield {f"gpu.{name}.{model.replace(' ', '_')}": _best(row)}


def _size(row: dict[str, Any], K: int, measured: dict[str, Any]) -> dict[str, Any]:
    """One number of problems: seconds of either way, and the faster beside what there can be."""
    ways = {f"{way}_s": one and one["seconds"] for way, one in measured.items()}
    fitting = [one for one in measured.values() if one is not None]
    if not fitting:
        return {"K": K, **ways, "fits": False}
    best = min(fitting, key=lambda one: one["seconds"])
    seconds = best["seconds"]
    if measured.get("graph") is not None:
        ways["capture_s"] = measured["graph"]["prepared_seconds"]
    return {
        "K": K,
        **ways,
        "fits": True,
        "problems_per_s": K / seconds,
        "of_bandwidth": best["bytes"] / seconds / 1e9 / row["GB_s"],
        "of_FLOP": best["flop"] / seconds / 1e12 / row["TFLOP_s"],
        "ratio": K * row["peer_s"] / seconds,
    }


def _best(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the numbers of its fastest size."""
    fitting = [size for size in row["sizes"] if size["fits"]]
    best = max(fitting, key=lambda size: size["problems_per_s"], default=None)
    return row | {
        "ours_s": best and 1.0 / best["problems_per_s"],
        "ratio": best and best["ratio"],
        "spread": None,
        "n": len(fitting),
    }
