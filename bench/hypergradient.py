"""Hypergradients by reverse mode: the compiled passes beside other libraries; batches; growth.

The data are generated pixels of which none is always black: black ones would only favour us. η is
half the largest stable step. Reading and arithmetic are compared with what this machine does, in
the same process, on an array of the clean rows' size and on a matrix product.
"""

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from scipy.stats import linregress
from tqdm import tqdm

from bench.hypergradient_peers import (
    Task,
    honest,
    naive_unroll,
    optax_together,
    torch_autograd,
)
from bench.timing import Race, one_core, product_speed, read_speed, timed
from poisoning.hypergradient.fmd import fmd
from poisoning.hypergradient.implicit import implicit
from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.problem import Objective, Problem, Rows
from poisoning.hypergradient.rmd import largest_stable_step, rmd

N, D, POISON, STEPS, VALIDATION = 5000, 784, 350, 140, 500
PAIRS = 3
NAIVE_PAIRS = 2


def make_problem(
    K: int = 1, *, n: int = N, d: int = D, m: int = POISON, steps: int = STEPS
) -> Problem:
    """K problems of n rows, m of them poison of their own: two classes of noisy images."""
    rng = np.random.default_rng(2023)
    faces = rng.random((2, d)) ** 3

    def draw(rows: int, flipped: bool = False) -> tuple[np.ndarray, torch.Tensor]:
        kind = rng.integers(0, 2, rows)
        X = np.clip(255.0 * (faces[kind] + 0.2 * rng.normal(size=(rows, d))), 0, 255)
        y = torch.from_numpy(2.0 * kind - 1.0).float()
        return X.astype(np.uint8), -y if flipped else y

    clean, validation = draw(n - m), draw(VALIDATION)
    poison = [draw(m, flipped=True) for _ in range(K)]

    def unit(X: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(X).float() / 255.0

    problem = Problem(
        model=Logistic(),
        clean=Rows(torch.from_numpy(clean[0]), clean[1], 1.0 / 255.0),
        poison=torch.stack([unit(X) for X, _ in poison]),
        poison_y=torch.stack([y for _, y in poison]),
        objectives=(Objective(unit(validation[0]), validation[1]),),
        lam=torch.full((K, 1), -3.0),
        rate=1.0,
        steps=steps,
        initial=torch.zeros(K, d + 1),
    )
    return replace(problem, rate=0.5 * float(largest_stable_step(problem).min()))


def distance(answer: tuple[torch.Tensor, torch.Tensor], ours: Any) -> float:
    """‖difference‖/‖peer's‖ of the hypergradient, the larger of poison's and λ's."""
    own = ours.poison[0, 0], ours.lam[0, 0]
    return max(float((a - b).norm() / a.norm()) for a, b in zip(answer, own, strict=True))


def capability(problem: Problem) -> dict[str, float]:
    """GB/s of reading an array as large as the clean rows, and a large one; GFLOP/s of sgemm."""
    return {
        "read_near_GB_s": read_speed(problem.clean.X.numel()) / 1e9,
        "read_far_GB_s": read_speed(2**28) / 1e9,
        "GFLOP_s": product_speed(np.float32) / 1e9,
    }


class AgainstPeers:
    """One hypergradient of one problem beside every installed peer."""

    NAME = "carnerero2023.rmd_lr"

    @staticmethod
    def run(bar: tqdm) -> dict[str, Any]:
        """Pairs with each peer in turn; the best honest one is *the* peer."""
        problem = make_problem()
        task = Task.of(problem)
        peers = honest()
        bar.reset(total=PAIRS * len(peers) + NAIVE_PAIRS)
        found = rmd(problem)
        exact = rmd(_double(problem))
        rows = {}
        with one_core():
            for name, peer in {**peers, "naive torch unroll": naive_unroll}.items():
                answer = peer(task)  # compiles, warms up
                race = Race(repeats=2)
                for _ in range(PAIRS if name in peers else NAIVE_PAIRS):
                    race.run(lambda: rmd(problem), lambda peer=peer: peer(task))
                    bar.update()
                rows[name] = {
                    **race.record(), "n": len(race.ours), "agreement": distance(answer, found)
                }  # fmt: skip
        best = min(peers, key=lambda name: rows[name]["ratio"])
        can = capability(problem)
        seconds = rows[best]["ours_s"]
        real = problem.poison.element_size()
        read = problem.clean.X.nbytes + problem.poison.nbytes + N * real  # and a curvature each
        passes = 2 * STEPS
        return {
            "data": f"generated pixels, n {N}, d {D}, {POISON} poison rows, T {STEPS}",
            "peer": best,
            **{key: rows[best][key] for key in ("ours_s", "peer_s", "ratio", "spread", "n")},
            "agreement": max(row["agreement"] for row in rows.values()),
            "float32_error": distance((exact.poison[0, 0], exact.lam[0, 0]), found),
            "naive_s": rows["naive torch unroll"]["peer_s"],
            "naive_ratio": rows["naive torch unroll"]["ratio"],
            "peers": rows,
            **can,
            "of_read_near": passes * read / seconds / 1e9 / can["read_near_GB_s"],
            "of_GFLOP": passes * 4.0 * N * D / seconds / 1e9 / can["GFLOP_s"],
            "kept_bytes": found.diagnostics.kept_bytes,
        }

    @staticmethod
    def summary(record: dict[str, Any]) -> str:
        """One line for a reader."""
        return (
            f"{1e3 * record['ours_s']:.0f} ms beside {record['peer_s']:.2f} s of "
            f"{record['peer']} ({record['ratio']:.1f} times as fast) and {record['naive_s']:.1f} s "
            f"of the naive unroll ({record['naive_ratio']:.0f} times), equal to "
            f"{record['agreement']:.0e}; {record['of_read_near']:.0%} of the read bandwidth, "
            f"{record['of_GFLOP']:.0%} of the FLOP peak"
        )


class Sizes:
    """Few and many rows, one problem and many in a call, beside the best peer at each.

    ``ratio_at_peak`` is what a program would reach that spends no time but on its products, at the
    speed of sgemm. The peer takes all problems of a call together too, by ``jax.vmap`` where jax is
    installed.
    """

    NAME = "carnerero2023.rmd_lr_sizes"
    CELLS = tuple((n, K) for n in (5_000, 50_000) for K in (1, 64))
    STEPS = 60

    @classmethod
    def run(cls, bar: tqdm) -> dict[str, Any]:
        """Seconds a problem, cell by cell."""
        bar.reset(total=PAIRS * len(cls.CELLS))
        rows = []
        for n, K in cls.CELLS:
            problem = make_problem(K, n=n, steps=cls.STEPS)
            task, found = Task.of(problem), rmd(problem)
            if find_spec("optax"):
                peer, share, name = partial(optax_together, problem), K, "optax scan, vmap and jit"
            else:
                peer, share, name = partial(torch_autograd, task), 1, "torch autograd"
            with one_core():
                answer, race = peer(), Race(repeats=1)
                for _ in range(PAIRS):
                    race.run(partial(rmd, problem), peer)
                    bar.update()
                peak = capability(problem)["GFLOP_s"]
            record, gain = race.record(), K / share
            ours, theirs = record["ours_s"] / K, record["peer_s"] / share
            shortest = 2 * cls.STEPS * 4.0 * n * D / 1e9 / peak
            rows.append({
                "rows": n, "K": K, "peer": name, "ours_s": ours, "peer_s": theirs,
                "ratio": gain * record["ratio"], "spread": [gain * end for end in record["spread"]],
                "agreement": distance(answer, found), "of_GFLOP": shortest / ours,
                "ratio_at_peak": theirs / shortest,
            })  # fmt: skip
        least = min(rows, key=lambda row: row["ratio"])
        return {
            "data": f"generated pixels, d {D}, {POISON} poison rows each, T {cls.STEPS}",
            **{key: least[key] for key in ("peer", "ours_s", "peer_s", "ratio", "spread")},
            "n": PAIRS,
            "agreement": max(row["agreement"] for row in rows),
            "cells": rows,
        }

    @staticmethod
    def summary(record: dict[str, Any]) -> str:
        """One line for a reader."""
        return ", ".join(
            f"{row['ratio']:.1f} times as fast at n {row['rows']}, K {row['K']} (at the FLOP peak "
            f"{row['ratio_at_peak']:.1f})"
            for row in record["cells"]
        )


class Batched:
    """Many problems in one call beside one call for each."""

    NAME = "carnerero2023.rmd_batched"
    SIZES = (1, 2, 4, 8, 16, 32)

    @classmethod
    def run(cls, bar: tqdm) -> dict[str, Any]:
        """Seconds per problem at every size."""
        bar.reset(total=len(cls.SIZES))
        rows = []
        for K in cls.SIZES:
            batch = make_problem(K)
            single = replace(
                batch,
                poison=batch.poison[:1],
                poison_y=batch.poison_y[:1],
                lam=batch.lam[:1],
                initial=batch.initial[:1],
            )
            alone = rmd(single)
            race = Race(repeats=1)
            for _ in range(PAIRS):
                together, _ = race.run(partial(rmd, batch), partial(rmd, single))
            first = together.poison[0, 0], together.lam[0, 0]
            record = race.record()
            rows.append(
                {
                    "K": K,
                    "seconds_per_problem": record["ours_s"] / K,
                    "gain": K * record["ratio"],
                    "gain_spread": [K * end for end in record["spread"]],
                    "kept_bytes": together.diagnostics.kept_bytes,
                    "agreement": distance(first, alone),
                    "alone_s": record["peer_s"],
                }
            )
            bar.update()
        largest = max(rows, key=lambda row: row["gain"])
        return {
            "data": f"generated pixels, n {N}, d {D}, {POISON} poison rows each, T {STEPS}",
            "peer": "the same, one problem a call",
            "ours_s": largest["seconds_per_problem"],
            "peer_s": largest["alone_s"],
            "ratio": largest["gain"],
            "spread": largest["gain_spread"],
            "n": PAIRS,
            "agreement": max(row["agreement"] for row in rows),
            "sizes": rows,
        }

    @staticmethod
    def summary(record: dict[str, Any]) -> str:
        """One line for a reader."""
        gains = ", ".join(f"{row['gain']:.1f} at {row['K']}" for row in record["sizes"])
        return f"problems per second gained by batching: {gains}"


def _double(problem: Problem) -> Problem:
    """The same in float64."""
    return replace(
        problem,
        poison=problem.poison.double(),
        poison_y=problem.poison_y.double(),
        lam=problem.lam.double(),
        initial=problem.initial.double(),
        objectives=tuple(replace(o, X=o.X.double(), y=o.y.double()) for o in problem.objectives),
    )


WAYS = {
    "T": [{"steps": T} for T in (35, 70, 140, 280)],
    "n": [{"n": n} for n in (1250, 2500, 5000, 10000)],
    "d": [{"d": d} for d in (196, 392, 784, 1568)],
    "K": [{"K": K} for K in (1, 2, 4, 8)],
}
METHODS = {
    "rmd": rmd,
    "rmd checkpointed": lambda problem: rmd(problem, trajectory="checkpointed"),
    "fmd, lambda only": fmd,
    "implicit cg": lambda problem: implicit(_double(problem)),
    "implicit exact": lambda problem: implicit(_double(problem), solver="exact"),
}


class Growth:
    """How time and kept memory grow with T, n, d and K, method by method (Table II)."""

    NAME = "carnerero2023.hypergradient_growth"

    @classmethod
    def run(cls, bar: tqdm) -> dict[str, Any]:
        """Least seconds of three, and what was kept."""
        bar.reset(total=sum(map(len, WAYS.values())))
        rows = []
        for way, sizes in WAYS.items():
            for size in sizes:
                problem = make_problem(**size)
                for name, method in METHODS.items():
                    runs = [timed(method, problem) for _ in range(3)]
                    kept = runs[0][1].diagnostics.kept_bytes
                    seconds = min(seconds for seconds, _ in runs)
                    rows.append({
                        "method": name, "along": way, "size": next(iter(size.values())),
                        "seconds": seconds, "kept_bytes": kept,
                    })  # fmt: skip
                bar.update()
        exponents = {
            name: {
                way: {
                    what: cls.exponent(rows, name, way, what) for what in ("seconds", "kept_bytes")
                }
                for way in WAYS
            }
            for name in METHODS
        }
        return {
            "data": f"generated pixels, n {N}, d {D}, {POISON} poison rows, T {STEPS}",
            "ours_s": next(row["seconds"] for row in rows if row["along"] == "T"
                           and row["method"] == "rmd" and row["size"] == STEPS),
            "n": 3,
            "rows": rows,
            "exponents": exponents,
        }  # fmt: skip

    @staticmethod
    def exponent(rows: list[dict[str, Any]], name: str, way: str, what: str) -> float:
        """Slope of log ``what`` over log size."""
        chosen = [row for row in rows if row["method"] == name and row["along"] == way]
        sizes, values = ([row[key] for row in chosen] for key in ("size", what))
        return float(linregress(np.log(sizes), np.log(values)).slope)

    @staticmethod
    def summary(record: dict[str, Any]) -> str:
        """One line for a reader."""
        parts = []
        for name, ways in record["exponents"].items():
            powers = ", ".join(f"{way}^{found['seconds']:.1f}" for way, found in ways.items())
            parts.append(f"{name}: {powers}")
        return "time grows as " + "; ".join(parts)
