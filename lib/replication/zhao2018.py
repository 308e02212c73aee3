"""What the notebooks of Zhao et al. 2018 share: draws of tasks, attacks on them, and measurements.

Targets and attacking tasks are boolean masks (m,), W (m, d) are the weights of m tasks.
"""

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from sklearn.metrics import roc_auc_score

from poisoning.attacks.attacked import Attacked
from poisoning.attacks.patom import PATOM, Iterate, draw_poison
from poisoning.attacks.patom_gradient import attack_gradient
from poisoning.datasets import Dataset
from poisoning.datasets.multitask import (
    MultiTaskDraw,
    draw_fields,
    draw_one_vs_rest,
    draw_torques,
    principal_components,
)
from poisoning.defenses.task_correlation import group_scores, keep, loss_scores, trim
from poisoning.games.multi_task import MultiTaskGame, MultiTaskOutcome, Poison
from poisoning.models.mtrl import (
    Loss,
    TaskData,
    correlations,
    objective,
    relationship,
    solve_mtrl,
    task_scores,
)
from poisoning.models.mtrl_alternating import solve_alternating
from replication.notebook import Notebook

SHARED = "zhao2018/setting"
"""The block of knobs that seeds the draws, which are the same in all notebooks."""

LOSS: dict[str, Loss] = {"sarcos": "square", "landmine": "hinge", "mnist": "hinge"}
MEASURE = {"sarcos": "nmse", "landmine": "auc", "mnist": "auc"}
NAMES = {"sarcos": "Sarcos", "landmine": "Landmine", "mnist": "MNIST"}
TASKS = {"sarcos": 7, "landmine": 29, "mnist": 10}

GRADIENTS = ("paper", "fixed", "total")

RANK = 1e-9
"""An eigenvalue of Ω, whose trace is 1, counts as zero below this value."""

Method = Literal["printed", "paper", "fixed", "total"]
"""PATOM as printed, or the ascent with a line search along one of three gradients."""

Key = TypeVar("Key", bound=Hashable)


# Draws ----------------------------------------------------------------------------------------


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
    units = {
        name: {
            "name": name,
            "dataset": notebook.load(name),
            "knobs": notebook.shared(SHARED),
            "rngs": [notebook.rng(name, "draw", i, section=SHARED) for i in range(count)],
        }
        for name in names
    }
    return notebook.map(draw_tasks, units, "draws")


def thinned(draw: MultiTaskDraw, step: int) -> MultiTaskDraw:
    """The draw with every ``step``-th training example of each task, in equal weights."""
    weight = draw.weight[:, ::step]
    weight = weight / weight.sum(axis=1, keepdims=True)
    return replace(draw, X=draw.X[:, ::step], y=draw.y[:, ::step], weight=weight)


def task_set(m: int, size: int, rng: np.random.Generator) -> Bool[ndarray, "m"]:
    """``size`` of ``m`` tasks at random, as a mask."""
    return np.isin(np.arange(m), rng.choice(m, size, replace=False))


def attacking_set(
    targets: Bool[ndarray, "m"], rng: np.random.Generator, *, among: Sequence[int] = ()
) -> Bool[ndarray, "m"]:
    """As many random tasks as are not targeted; drawn again until all of ``among`` are in."""
    size = int(np.sum(~targets))
    chosen = task_set(len(targets), size, rng)
    while not chosen[list(among)].all():
        chosen = task_set(len(targets), size, rng)
    return chosen


# Attacks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One attack on one draw: the outcome without poison, and what the attack made of it."""

    clean: MultiTaskOutcome
    attacked: Attacked[Iterate]

    @property
    def utilities(self) -> Float[ndarray, "t"]:
        """U of every iterate, the random start first."""
        return np.array([iterate.outcome.utility for iterate in self.attacked.history])

    @property
    def measures(self) -> Float[ndarray, "t"]:
        """The targets' NMSE or AUC of every iterate."""
        return np.array([iterate.outcome.measure for iterate in self.attacked.history])

    @property
    def best(self) -> int:
        """The number of the iterate of highest U, whose points are the poison."""
        return self.attacked.source.number

    def model(self, number: int) -> Float[ndarray, "m d"]:
        """What was learned from the poison of an iterate; −1 is the last."""
        return self.attacked.history[number].outcome.model


def setting(
    name: str, method: Method, knobs: dict[str, Any], budget: float, iterations: int, **changes: Any
) -> dict[str, Any]:
    """``attack`` and ``learner`` on a data set, from the block ``zhao2018.setting`` of knobs.

    ``learner`` are the arguments of :class:`~poisoning.games.multi_task.MultiTaskGame` that say how
    it learns. ``changes`` are other values for any setting of either.
    """
    learner = {"loss": LOSS[name], "lambda1": knobs["lambda1"], "lambda2": knobs["lambda2"]}
    attack = {
        "budget": budget,
        "labels": knobs["labels"],
        "iterations": iterations,
        "radius": knobs["radius"],
        "batch_factor": knobs["batch"],
    }
    if method == "printed":
        attack |= {"update": "sequential", "gradient": "paper", "step": knobs["step"]}
    else:
        attack |= {"update": "ascent", "gradient": method}
    others = {key: value for key, value in changes.items() if key not in learner}
    return {
        "attack": PATOM(**(attack | others)),
        "learner": {key: changes.get(key, value) for key, value in learner.items()},
    }


def attack_draw(
    attack: PATOM,
    learner: dict[str, Any],
    draw: MultiTaskDraw,
    targets: Bool[ndarray, "m"],
    attacking: Bool[ndarray, "m"],
    rng: np.random.Generator,
) -> Run:
    """One attack on one draw: the unit of work of most notebooks."""
    game = MultiTaskGame.from_draw(draw, targets=targets, attacking=attacking, **learner)
    return Run(game.clean, attack(game, rng))


def attack_all(
    notebook: Notebook, jobs: Mapping[Key, dict[str, Any]], label: str
) -> dict[Key, list[Run]]:
    """Attacks on several draws each.

    A job has the arguments of :func:`attack_draw`; of ``draws``, ``targets``, ``attacking`` and
    ``rngs`` it has a sequence, one for each draw.
    """
    units = {
        (key, i): {
            "attack": job["attack"],
            "learner": job["learner"],
            "draw": draw,
            "targets": job["targets"][i],
            "attacking": job["attacking"][i],
            "rng": job["rngs"][i],
        }
        for key, job in jobs.items()
        for i, draw in enumerate(job["draws"])
    }
    runs = notebook.map(attack_draw, units, label)
    return {key: [runs[key, i] for i in range(len(job["draws"]))] for key, job in jobs.items()}


# Convergence ----------------------------------------------------------------------------------


def settled(curve: Float[ndarray, "t"], tolerance: float = 0.02) -> float:
    """The first iteration from which ``curve`` stays within ``tolerance`` of its last value."""
    away = np.flatnonzero(np.abs(curve - curve[-1]) > tolerance * np.abs(curve[-1]))
    return 0.0 if away.size == 0 else float(away[-1] + 1)


def drift(curve: Float[ndarray, "t"]) -> float:
    """Mean of the second half of the iterations over that of the quarter before, minus one.

    ``curve`` has the start and at least two iterations. Near 0 where it bounces about a level that
    it has reached before half of the iterations.
    """
    iterations = len(curve) - 1
    quarter, half = iterations // 4, iterations // 2
    return float(curve[half + 1 :].mean() / curve[quarter + 1 : half + 1].mean() - 1.0)


def start_spread(runs: Sequence[Run]) -> tuple[float, float]:
    """Standard deviation over two or more starts, at the last iterate.

    Of U, relative to its mean; and of the measure.
    """
    utilities = [run.utilities[-1] for run in runs]
    measures = [run.measures[-1] for run in runs]
    return float(np.std(utilities, ddof=1) / np.mean(utilities)), float(np.std(measures, ddof=1))


def rising(utilities: Float[ndarray, "t"]) -> float:
    """The share of iterations in which U did not fall."""
    steps = np.diff(utilities)
    return float(np.mean(steps >= -1e-9 * np.abs(utilities[:-1])))


# Choice ---------------------------------------------------------------------------------------


def of_largest(values: Float[ndarray, "s n"]) -> Float[ndarray, "n"]:
    """For every repeat, the value of the setting that is largest in the mean over the others.

    ``values`` has a row for each of s settings, a column for each of n repeats. Choosing and
    measuring use different repeats, so that noise does not make the chosen one look larger. A
    single repeat chooses for itself.
    """
    repeats = np.arange(values.shape[1])
    others = values.sum(axis=1, keepdims=True) - values if len(repeats) > 1 else values
    return values[np.argmax(others, axis=0), repeats]


# Gradients ------------------------------------------------------------------------------------


def check_gradients(
    attack: PATOM,
    learner: dict[str, Any],
    draw: MultiTaskDraw,
    targets: Bool[ndarray, "m"],
    attacking: Bool[ndarray, "m"],
    rng: np.random.Generator,
    probes: int,
    h: float,
) -> dict[str, dict[str, float]]:
    """Each gradient at a random poison, beside differences of U over ±``h``.

    By gradient: ``cosine`` with the true one and relative ``error``. For "paper" and "fixed" both
    come from differences along the three gradients' own directions; the error of "total" is
    measured along ``probes`` random ones, for all coordinates together. ``crossed`` is the mean
    share in the loss of the examples whose margin passes 1 within the step (hinge).
    """
    game = MultiTaskGame.from_draw(draw, targets=targets, attacking=attacking, **learner)
    rates = game.loss, game.lambda1, game.lambda2
    solve = partial(
        solve_mtrl, loss=game.loss, lambda1=game.lambda1, lambda2=game.lambda2, tol=1e-12,
        max_iterations=100_000,
    )  # fmt: skip
    # Within the ball by more than h, so that no difference leaves it.
    poison = draw_poison(game, attack.budget, attack.labels, attack.radius / 2, rng)
    train = game.poisoned(poison)
    W = solve(train).W
    v = game.utility(W)[1]
    gradients = [
        attack_gradient(train, poison.mask.shape[1], W, v, *rates, method, tol=1e-11)
        for method in GRADIENTS
    ]
    free = poison.mask[..., None] * np.ones(poison.X.shape[-1])
    directions = np.stack(gradients + [free * rng.normal(size=free.shape) for _ in range(probes)])
    directions /= np.sqrt(np.sum(directions**2, axis=(1, 2, 3), keepdims=True))
    slopes, crossed = [], []
    for e in directions:
        ends = [game.poisoned(replace(poison, X=poison.X + sign * h * e)) for sign in (1.0, -1.0)]
        models = [solve(end, start=W).W for end in ends]
        up, down = (game.utility(model)[0] for model in models)
        slopes.append((up - down) / (2.0 * h))
        inside = [end.y * task_scores(end.X, w) < 1.0 for end, w in zip(ends, models, strict=True)]
        changed = (inside[0] != inside[1]) & (game.loss == "hinge")
        crossed.append(np.sum(train.weight * changed))
    length = slopes[2]  # the true gradient's norm, if the total gradient is right
    outcome = {}
    for k, method in enumerate(GRADIENTS):
        size = np.linalg.norm(gradients[k])
        error = np.sqrt(max(size**2 - 2.0 * size * slopes[k] + length**2, 0.0)) / length
        outcome[method] = {
            "cosine": float(slopes[k] / length),
            "error": float(error),
            "crossed": float(np.mean(crossed)),
        }
    expected = np.sum(directions[3:] * gradients[2], axis=(1, 2, 3))
    misfit = np.sqrt(free.sum() * np.mean((expected - np.array(slopes[3:])) ** 2)) / length
    outcome["total"]["error"] = float(misfit)
    return outcome


# The learner ----------------------------------------------------------------------------------


def _everyone(draw: MultiTaskDraw, loss: Loss, lambda1: float, lambda2: float) -> MultiTaskGame:
    """The game in which all tasks are targets: its measure is the mean over all."""
    everyone = np.ones(len(draw.X), dtype=bool)
    return MultiTaskGame.from_draw(
        draw, targets=everyone, attacking=everyone, loss=loss, lambda1=lambda1, lambda2=lambda2
    )


def compare_solvers(
    draw: MultiTaskDraw,
    loss: Loss,
    lambda1: float,
    lambda2: float,
    stops: Sequence[float],
    floors: Sequence[float],
) -> dict[str, Any]:
    """The exact solution, and alternation to every stop and (at the last stop) every floor.

    Relative to the exact solution, each of the ``runs`` of alternation has its ``gap`` in the
    objective, the ``distance`` of W, and ``gaps`` after every turn; ``measure`` is the mean NMSE or
    AUC of all tasks. ``spectrum`` are the eigenvalues of the exact Ω, largest first.
    """
    game = _everyone(draw, loss, lambda1, lambda2)
    exact = solve_mtrl(game.data, loss, lambda1, lambda2, tol=1e-10)

    def alternate(stop: float, floor: float) -> dict[str, Any]:
        run = solve_alternating(game.data, loss, lambda1, lambda2, tol=stop, floor=floor)
        return {
            "stop": stop,
            "floor": floor,
            "turns": len(run.objectives),
            "gap": objective(game.data, loss, lambda1, lambda2, run.W) / exact.objective - 1,
            "distance": float(np.linalg.norm(run.W - exact.W) / np.linalg.norm(exact.W)),
            "measure": game.measure(run.W),
            "gaps": run.objectives / exact.objective - 1,
            "spectra": run.spectra,
        }

    runs = [alternate(stop, 0.0) for stop in stops]
    runs += [alternate(stops[-1], floor) for floor in floors if floor > 0]
    return {
        "runs": runs,
        "residual": exact.residual,
        "iterations": exact.iterations,
        "measure": game.measure(exact.W),
        "spectrum": np.linalg.eigvalsh(relationship(exact.W))[::-1],
    }


def regularisation_path(
    draw: MultiTaskDraw, loss: Loss, lambdas: Sequence[float]
) -> list[tuple[float, float, float, float, float]]:
    """The learner along λ1 = λ2, from the largest on, without poison.

    Each row: λ, the rank of Ω, mean absolute and least correlation of two tasks, and the mean NMSE
    or AUC of all tasks.
    """
    rows, W = [], None
    for value in sorted(lambdas, reverse=True):
        game = _everyone(draw, loss, value, value)
        W = solve_mtrl(game.data, loss, value, value, tol=1e-8, start=W).W
        Omega = relationship(W)
        pairs = _pairs(correlations(Omega))
        rank = float(np.sum(np.linalg.eigvalsh(Omega) > RANK))
        rows.append((value, rank, float(np.abs(pairs).mean()), float(pairs.min()), game.measure(W)))
    return rows


def swap_learners(
    attack: PATOM,
    learner: dict[str, Any],
    draw: MultiTaskDraw,
    targets: Bool[ndarray, "m"],
    attacking: Bool[ndarray, "m"],
    rng: np.random.Generator,
    stops: Sequence[float],
) -> list[tuple[str, str, float]]:
    """The effect of poison if the learner alternates instead of solving its problem exactly.

    Rows: no poison, random poison or poison moved by ``attack``; the solver, alternation with each
    of ``stops``; the targets' measure.
    """
    game = MultiTaskGame.from_draw(draw, targets=targets, attacking=attacking, **learner)
    start = replace(attack, iterations=0)(game, deepcopy(rng)).poison
    moved = attack(game, rng).poison
    rows = []
    for label, data in (
        ("no poison", game.data),
        ("random poison", game.poisoned(start)),
        ("moved poison", game.poisoned(moved)),
    ):
        rows.append((label, "exact", game.measure(game.learn(data))))
        for stop in stops:
            W = solve_alternating(data, game.loss, game.lambda1, game.lambda2, tol=stop).W
            rows.append((label, f"alternating, {stop:g}", game.measure(W)))
    return rows


# Relationships --------------------------------------------------------------------------------


def correlation_matrix(W: Float[ndarray, "m d"]) -> Float[ndarray, "m m"]:
    """Correlations of the tasks that W was learned for, to nine digits.

    At rank one they are ±1 but for rounding; rounded, equal ones tie in every ranking.
    """
    return np.round(correlations(relationship(W)), 9)


def inside_outside(C: Float[ndarray, "m m"], attacking: Bool[ndarray, "m"]) -> tuple[float, float]:
    """Mean correlation among attacking tasks, and among all other pairs."""
    both, pairs = _pairs(np.outer(attacking, attacking)), _pairs(C)
    return float(pairs[both].mean()), float(pairs[~both].mean())


def correlation_change(C: Float[ndarray, "m m"], D: Float[ndarray, "m m"]) -> float:
    """Mean absolute difference over pairs of tasks."""
    return float(_pairs(np.abs(C - D)).mean())


def _pairs(C: ndarray) -> ndarray:
    return C[np.triu_indices(len(C), 1)]


def detect(W: Float[ndarray, "m d"], attacking: Bool[ndarray, "m"]) -> dict[str, float]:
    """How well correlations identify the attacking tasks: AUC over tasks; 0.5 is chance.

    ``group`` scores every task by :func:`~poisoning.defenses.task_correlation.group_scores`, with
    the size of the group known; ``neighbours`` ranks the others by their correlation with one
    attacking task that is known, in the mean over these.
    """
    C = correlation_matrix(W)
    neighbours = []
    for k in np.flatnonzero(attacking):
        others = np.arange(len(C)) != k
        neighbours.append(roc_auc_score(attacking[others], C[k, others]))
    group = roc_auc_score(attacking, group_scores(C, int(attacking.sum())))
    return {"group": float(group), "neighbours": float(np.mean(neighbours))}


def detect_by_loss(
    data: TaskData, W: Float[ndarray, "m d"], attacking: Bool[ndarray, "m"], loss: Loss
) -> dict[str, float]:
    """As :func:`detect`, for the baseline score: a task's mean training loss."""
    return {"loss": float(roc_auc_score(attacking, loss_scores(data, W, loss)))}


def recover(
    learner: dict[str, Any],
    draw: MultiTaskDraw,
    targets: Bool[ndarray, "m"],
    attacking: Bool[ndarray, "m"],
    poison: Poison,
    model: Float[ndarray, "m d"],
    examined: float,
) -> dict[str, dict[str, float]]:
    """The targets' measure after the tasks that a score flags have been examined.

    ``model`` was learned from clean data and ``poison`` together. As many tasks are flagged as
    there are attacking ones: by their correlations (``group``), by their training ``loss``, by an
    ``oracle``; or all of them (``everyone``). Examined ``by hand`` a flagged task loses all its
    poison. ``trimmed`` it loses the fraction ``examined`` of its examples that a model of the task
    alone explains worst; ``poison removed`` is the share of all poison that this removes.
    """
    game = MultiTaskGame.from_draw(draw, targets=targets, attacking=attacking, **learner)
    data = game.poisoned(poison)
    injected = np.concatenate([np.zeros(game.data.y.shape, bool), poison.mask], axis=1)
    count = int(attacking.sum())
    scores = {
        "group": group_scores(correlation_matrix(model), count),
        "loss": loss_scores(data, model, game.loss),
        "oracle": attacking.astype(float),
        "everyone": None,
    }

    def after(kept: Bool[ndarray, "m n"]) -> float:
        return game.measure(game.learn(keep(data, kept), model))

    outcome = {}
    for score, values in scores.items():
        flagged = np.ones(len(attacking), dtype=bool)
        if values is not None:
            flagged = np.isin(np.arange(len(values)), np.argsort(-values, kind="stable")[:count])
        trimmed = trim(data, flagged, examined, game.loss, game.lambda1)
        removed = injected & ~trimmed
        outcome[score] = {
            "by hand": after(~(injected & flagged[:, None])),
            "trimmed": after(trimmed),
            "poison removed": float(removed.sum() / injected.sum()),
        }
    return outcome
