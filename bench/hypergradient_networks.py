"""Hypergradients of multilayer perceptrons beside automatic differentiation, and the FLOP peak."""

from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from bench.hypergradient import capability, distance, make_problem
from bench.network_peers import installed
from bench.timing import Race, one_core, timed
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Problem
from poisoning.hypergradient.rmd import largest_stable_step, rmd

NAME = "carnerero2023.rmd_networks"
SHAPES = {
    "mnist": {"hidden": (32, 8), "d": 784, "steps": 100},
    "cifar-10": {"hidden": (64, 32), "d": 3072, "steps": 60},
}
"""The paper's networks (Section V-C), and steps of training: fewer than the notebook's 200."""

TOGETHER = 7  # problems in a call, where the fraction of the peak is measured
PAIRS = 2
RATE = 0.05


def network_problem(
    hidden: tuple[int, ...], K: int = 1, *, d: int = 784, steps: int = 40, **sizes: int
) -> Problem:
    """K problems as in :func:`make_problem`, of networks with weights of their own."""
    model, generator = MLP(hidden), torch.Generator().manual_seed(2023)
    initial = torch.cat([model.initial(d, generator) for _ in range(K)]).float()
    problem = make_problem(K, d=d, steps=steps, **sizes)
    return replace(problem, model=model, initial=initial, rate=RATE)


def flop(problem: Problem) -> float:
    """Multiplications and additions: four products with every matrix a step, for every row."""
    K, m, d = problem.poison.shape
    entries = sum(out * inputs for out, inputs in problem.model.shapes(d))
    return 8.0 * K * problem.steps * (len(problem.clean.y) + m) * entries


def run(bar: tqdm) -> dict[str, Any]:
    """One problem beside every peer, shape by shape; several beside the FLOP peak."""
    peers = installed()
    bar.reset(total=len(SHAPES) * (PAIRS * len(peers) + 1))
    shapes = {}
    for name, shape in SHAPES.items():
        problem = network_problem(**shape)
        rows, found = {}, rmd(problem)
        with one_core():
            for peer, answer in peers.items():
                expected = answer(problem)  # compiles, warms up
                race = Race(repeats=1)
                for _ in range(PAIRS):
                    race.run(lambda p=problem: rmd(p), lambda a=answer, p=problem: a(p))
                    bar.update()
                rows[peer] = {**race.record(), "agreement": distance(expected, found)}
            together = network_problem(K=TOGETHER, **shape)
            seconds = min(timed(rmd, together)[0] for _ in range(3))
            seconds -= min(timed(largest_stable_step, together)[0] for _ in range(3))
            can = capability(together)
            bar.update()
        best = min(rows, key=lambda peer: rows[peer]["ratio"])
        speed = flop(together) / seconds / 1e9
        shapes[name] = {
            "peer": best, **rows[best], "peers": rows, "K": TOGETHER, "GFLOP_s": speed,
            "of_GFLOP": speed / can["GFLOP_s"], "peak_GFLOP_s": can["GFLOP_s"],
        }  # fmt: skip
    first = shapes["mnist"]
    return {
        "data": "generated pixels, n 5000, of which 350 poison, networks of MNIST and CIFAR-10",
        **{key: first[key] for key in ("peer", "ours_s", "peer_s", "ratio", "spread")},
        "n": PAIRS,
        "agreement": max(
            row["agreement"] for of in shapes.values() for row in of["peers"].values()
        ),
        "shapes": shapes,
    }  # fmt: skip


def summary(record: dict[str, Any]) -> str:
    """One line for a reader."""
    return "; ".join(
        f"{name}: {row['ratio']:.1f} times as fast as {row['peer']}, {row['of_GFLOP']:.0%} of the "
        f"FLOP peak with {row['K']} at once"
        for name, row in record["shapes"].items()
    )
