"""Table II's growth of time, and λ by hypergradients beside λ by grid search (Section III).

Data are those of :mod:`bench.hypergradient`: generated pixels, a tenth of the rows for validation,
and 350 more with flipped labels as poison that lies still. The grid has nine values of every λ,
each of which is trained as the models of the paper profile are; the peer's seconds are those of the
whole grid, of which nine values are timed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.hypergradient import POISON, STEPS, D, N, make_problem
from bench.timing import Race, one_core
from poisoning.games.bilevel import BilevelGame, FinalTraining, Policy
from poisoning.hypergradient.fmd import fmd
from poisoning.hypergradient.learning import HyperparameterLearning
from poisoning.hypergradient.rmd import rmd

PAIRS = 3
GRID = tuple(np.linspace(-9.0, -1.0, 9).tolist())
LONG = 4  # times the steps


@dataclass(frozen=True)
class Growth:
    """One reverse-mode hypergradient beside another way or number of steps."""

    NAME: str
    peer: str
    method: Callable[..., Any]
    steps: int

    def run(self, bar: tqdm) -> dict[str, Any]:
        """Pairs on one problem."""
        bar.reset(total=PAIRS)
        problem = make_problem()
        other = replace(problem, steps=self.steps)
        race = Race(repeats=2)
        with one_core():
            rmd(problem), self.method(other)  # compiles, warms up
            for _ in range(PAIRS):
                race.run(partial(rmd, problem), partial(self.method, other))
                bar.update()
        return {
            "data": f"generated pixels, n {N}, d {D}, {POISON} poison rows, T {STEPS}",
            "peer": self.peer,
            **race.record(),
            "n": PAIRS,
            "agreement": None,
        }

    def summary(self, record: dict[str, Any]) -> str:
        """One line for a reader."""
        return f"{self.peer}: {record['ratio']:.2f} times the seconds of reverse mode"


@dataclass(frozen=True)
class Search:
    """Every λ learned by H hypergradients beside a grid of nine values of each."""

    NAME: str
    hidden: tuple[int, ...]
    learning: HyperparameterLearning
    training: FinalTraining
    hyperiterations: int
    exponents: int
    pairs: int

    def run(self, bar: tqdm) -> dict[str, Any]:
        """Pairs on one game; ours is timed for fewer hyperiterations where it takes long."""
        bar.reset(total=self.pairs)
        game, poison, labels = self._game()
        grid = game.with_policies({str(k): Policy("l2", lam) for k, lam in enumerate(GRID)})
        ours = self.hyperiterations / self.learning.hyperiterations
        theirs = len(GRID) ** (self.exponents - 1)
        race = Race(repeats=1)
        with one_core():
            for _ in range(self.pairs):
                race.run(
                    partial(game.learn, poison, labels), partial(grid.evaluate, poison, labels)
                )
                bar.update()
        race.ours = [ours * seconds for seconds in race.ours]
        race.theirs = [theirs * seconds for seconds in race.theirs]
        return {
            "data": f"generated pixels, n {N}, d {D}, widths {self.hidden or 'none'}",
            "peer": f"a grid of {len(GRID)}^{self.exponents}, of which {len(GRID)} are timed",
            **race.record(),
            "n": self.pairs,
            "agreement": None,
        }

    def summary(self, record: dict[str, Any]) -> str:
        """One line for a reader."""
        return (
            f"{self.exponents} λ in {record['ours_s']:.1f} s by hypergradients, in "
            f"{record['peer_s']:.0f} s by {record['peer']}"
        )

    def _game(self) -> tuple[BilevelGame, np.ndarray, np.ndarray]:
        problem = make_problem()
        validation = problem.objectives[0]
        game = BilevelGame(
            problem.clean.X.numpy(), problem.clean.y.numpy(), validation.X.numpy(),
            validation.y.numpy(), box=(0.0, 1.0), scale=1.0 / 255.0, hidden=self.hidden,
            policies={"learned": Policy("l2", per_layer=self.exponents > 1)},
            learning=replace(self.learning, rate=problem.rate),
            training=replace(self.training, rate=problem.rate),
        )  # fmt: skip
        return game, problem.poison[0].numpy(), problem.poison_y[0].numpy()


ENTRIES = (
    Growth("carnerero2023.table_2_T", f"reverse mode, {LONG} times the steps", rmd, LONG * STEPS),
    Growth("carnerero2023.table_2_forward", "forward mode, one outer variable", fmd, STEPS),
    Search(
        "carnerero2023.grid_search", (), HyperparameterLearning(hyperiterations=20),
        FinalTraining(600), 20, 1, PAIRS,
    ),
    Search(
        "carnerero2023.grid_search_layers", (32, 8), HyperparameterLearning(200, hyperiterations=1),
        FinalTraining(400), 10, 3, 2,
    ),
)  # fmt: skip
