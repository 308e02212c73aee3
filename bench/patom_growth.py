"""How the lower level and one iteration of PATOM grow with tasks and with examples.

Tasks: Landmine's fields over and over, each time with other training examples. Examples: of Sarcos
and of MNIST. The learner begins at W = 0; the iteration is the second one of a direct attack on
half of the tasks with 20 % poison, along the total gradient. Seconds are the least of a few passes
through all sizes, as in ``bench.growth``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.data import whole
from bench.growth import exponent
from bench.lower_level import LAMBDA
from bench.patom_iteration import after_one_iteration, half, iteration
from bench.timing import timed
from poisoning.datasets.multitask import (
    MultiTaskDraw,
    draw_fields,
    draw_one_vs_rest,
    draw_torques,
    principal_components,
)
from poisoning.games.multi_task import MultiTaskGame
from poisoning.models.mtrl import Loss, solve_mtrl

NAME = "zhao2018.growth"
PASSES = 3
COPIES = (1, 2, 4, 8, 17)  # of 29 fields: to 493 tasks
TRAINING = (250, 500, 1000, 2000, 4000)  # of Sarcos
PER_CLASS = (75, 150, 300, 600, 1200)  # of MNIST
STEPS = ("learner", "iteration")


def run(bar: tqdm) -> dict[str, Any]:
    """Every size, every pass."""
    found = problems()
    clocks = [clock for _, _, loss, draw in found for clock in _clocks(loss, draw)]
    bar.reset(total=PASSES * len(clocks))
    seconds = np.full((PASSES, len(clocks)), np.inf)
    for one in seconds:
        for place, clock in enumerate(clocks):
            one[place], _ = timed(clock)
            bar.update()
    growth = [
        {"what": f"{name}, {step}", "along": way, "tasks": draw.X.shape[0],
         "examples": draw.X.shape[1], "features": draw.X.shape[2], "seconds": float(least)}
        for (name, way, _, draw), pair in zip(
            found, seconds.min(axis=0).reshape(-1, len(STEPS)), strict=True
        )
        for step, least in zip(STEPS, pair, strict=True)
    ]  # fmt: skip
    ways = dict.fromkeys((row["what"], row["along"]) for row in growth)
    return {
        "data": "sarcos, landmine and mnist",
        "ours_s": max(row["seconds"] for row in growth if row["along"] == "tasks"),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "n": len(clocks),
        "spread": None,
        "agreement": None,
        "growth": growth,
        "exponents": {what: {way: exponent(growth, what, way)} for what, way in ways},
    }


def problems() -> list[tuple[str, str, Loss, MultiTaskDraw]]:
    """Data set, what grows, loss and draw, the sizes of one data set in ascending order."""
    rng = np.random.default_rng(0)
    dataset, _ = whole("landmine")
    fields = [draw_fields(dataset, rng) for _ in range(max(COPIES))]
    found: list[tuple[str, str, Loss, MultiTaskDraw]] = []
    for copies in COPIES:
        X, y, weight = (
            np.concatenate([getattr(draw, name) for draw in fields[:copies]])
            for name in ("X", "y", "weight")
        )
        X_test, y_test = (
            tuple(part for draw in fields[:copies] for part in getattr(draw, name))
            for name in ("X_test", "y_test")
        )
        found.append(("landmine", "tasks", "hinge", MultiTaskDraw(X, y, weight, X_test, y_test)))
    dataset, _ = whole("sarcos")
    for n in TRAINING:
        if n < len(dataset.y) - 1:
            found.append(("sarcos", "examples", "square", draw_torques(dataset, rng, n, 2)))
    dataset = principal_components(whole("mnist")[0])
    for n in PER_CLASS:
        found.append(("mnist", "examples", "hinge", draw_one_vs_rest(dataset, rng, n)))
    return found


def _clocks(loss: Loss, draw: MultiTaskDraw) -> tuple[Callable[[], Any], ...]:
    """What times ``STEPS``, in their order."""
    rng = np.random.default_rng(0)
    targets = half(len(draw.y), rng)
    game = MultiTaskGame.from_draw(
        draw, targets=targets, attacking=targets, loss=loss, lambda1=LAMBDA, lambda2=LAMBDA
    )
    there, W, size = after_one_iteration(game, rng)
    return (
        partial(solve_mtrl, game.data, loss, LAMBDA, LAMBDA),
        partial(iteration, game, there, W, size),
    )


def summary(record: dict[str, Any]) -> str:
    """One line for a reader."""
    powers = [
        f"{what} {way}^({power:.2f} ± {error:.2f})"
        for what, ways in record["exponents"].items()
        for way, (power, error) in ways.items()
    ]
    most = max(row["tasks"] for row in record["growth"])
    return f"{most} tasks in {1e3 * record['ours_s']:.0f} ms at most; {', '.join(powers)}"
