"""What the notebooks of Zhao et al. 2018 share: draws of tasks, settings, and how results read."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from poisoning.attacks.patom import PATOMSettings
from poisoning.datasets import Dataset
from poisoning.datasets.multitask import (
    MultiTaskDraw,
    draw_fields,
    draw_one_vs_rest,
    draw_torques,
    principal_components,
)
from poisoning.models.mtrl import Loss
from replication.notebook import Notebook
from replication.patom_suite import AttackOutcome, launch

SHARED = "zhao2018/setting"
"""The block of knobs whose randomness the draws belong to: all notebooks see the same ones."""

LOSS: dict[str, Loss] = {"sarcos": "square", "landmine": "hinge", "mnist": "hinge"}
MEASURE = {"sarcos": "nmse", "landmine": "auc", "mnist": "auc"}
GROUP = 5
"""Draws attacked side by side: more save little time and cost memory, a gigabyte on MNIST."""

NAMES = {"sarcos": "Sarcos", "landmine": "Landmine", "mnist": "MNIST"}
TASKS = {"sarcos": 7, "landmine": 29, "mnist": 10}

Method = Literal["printed", "paper", "total"]
"""PATOM as printed; or a full-batch line search along the paper's gradient, or the total one."""

METHODS: dict[Method, str] = {
    "printed": "PATOM as printed",
    "paper": "line search, paper's gradient",
    "total": "line search, total gradient",
}
"""Names of the methods as pictures show them."""


def draw_tasks(
    name: str, dataset: Dataset, knobs: dict[str, Any], rngs: Sequence[np.random.Generator]
) -> list[MultiTaskDraw]:
    """One draw per generator, as ``zhao2018.setting`` asks for."""
    if name == "sarcos":
        sizes = knobs["sarcos_train"], knobs["sarcos_test"]
        return [draw_torques(dataset, rng, *sizes) for rng in rngs]
    if name == "landmine":
        return [draw_fields(dataset, rng, knobs["landmine_fraction"]) for rng in rngs]
    reduced = principal_components(dataset, knobs["mnist_components"])
    return [draw_one_vs_rest(reduced, rng, knobs["mnist_per_class"]) for rng in rngs]


def draw_all(
    notebook: Notebook, names: Sequence[str], count: int
) -> dict[str, list[MultiTaskDraw]]:
    """``count`` draws of each data set, the same in every notebook that asks for as many."""
    units = [
        {
            "name": name,
            "dataset": notebook.load(name),
            "knobs": notebook.shared(SHARED),
            "rngs": [notebook.rng(name, "draw", i, section=SHARED) for i in range(count)],
        }
        for name in names
    ]
    return dict(zip(names, notebook.map(draw_tasks, units, "draws"), strict=True))


def launch_all(
    notebook: Notebook, jobs: Sequence[dict[str, Any]], label: str
) -> list[list[AttackOutcome]]:
    """``launch(**job)`` for every job, its draws spread over units of at most ``GROUP``."""
    per_draw = ("draws", "targets", "attacking", "rngs")
    parts = [
        (number, slice(first, first + GROUP))
        for number, job in enumerate(jobs)
        for first in range(0, len(job["draws"]), GROUP)
    ]
    units = [
        jobs[number] | {key: jobs[number][key][part] for key in per_draw} for number, part in parts
    ]
    outcomes: list[list[AttackOutcome]] = [[] for _ in jobs]
    for (number, _), found in zip(parts, notebook.map(launch, units, label), strict=True):
        outcomes[number] += found
    return outcomes


def settings(
    name: str, method: Method, knobs: dict[str, Any], iterations: int, **changes: Any
) -> PATOMSettings:
    """Learner and attack on a data set, from the block ``zhao2018.setting`` of ``params.yaml``."""
    climb: dict[str, Any] = {"update": "ascent", "gradient": method}
    if method == "printed":
        climb = {"update": "sequential", "gradient": "paper", "step": knobs["step"]}
    learner = {"loss": LOSS[name], "lambda1": knobs["lambda1"], "lambda2": knobs["lambda2"]}
    common = {
        "iterations": iterations, "radius": knobs["radius"], "batch_factor": knobs["batch"],
    }  # fmt: skip
    return PATOMSettings(**(learner | climb | common | changes))


def task_set(m: int, size: int, rng: np.random.Generator) -> Bool[ndarray, "m"]:
    """``size`` of ``m`` tasks at random, as a mask."""
    return np.isin(np.arange(m), rng.choice(m, size, replace=False))
