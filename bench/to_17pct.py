"""Table 2 of Koh et al. 2021: how soon after loading the data each attack does 17 % damage.

The paper measures against the L2 defense (Fig. 4). Timed here: the attack with its default
settings, from loaded data to the first candidate that does so, and further until one is known to do
so behind all five defenses. Every run starts afresh, with randomness of its own; an attack that
falls short in most runs has null for its seconds.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.data import examples
from poisoning.attacks.attacked import Attack
from poisoning.attacks.influence import Influence
from poisoning.attacks.kkt import KKT as KKTAttack
from poisoning.attacks.min_max import MinMax
from poisoning.datasets import Split
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM
from replication.koh2021 import LAMBDA

TARGET = 0.17
RUNS = 5


@dataclass(frozen=True)
class To17Percent:
    """One attack's entry; ``paper_seconds`` on ``paper_machine``."""

    NAME: str
    attack: Attack
    paper_seconds: float
    paper_machine: str = "2 cores of a Xeon E5"

    def run(self, bar: tqdm) -> dict[str, Any]:
        """Medians over a few runs."""
        data, source = examples("enron")
        bar.reset(total=RUNS + 1)
        self._seconds(data, 0)  # compiles, or loads what was compiled
        bar.update()
        runs = []
        for seed in range(RUNS):
            runs.append(self._seconds(data, seed))
            bar.update()
        behind_l2, behind_five = zip(*runs, strict=True)
        median = _finite(float(np.median(behind_l2)))
        return {
            "data": source,
            "ours_s": median,
            "five_defenses_s": _finite(float(np.median(behind_five))),
            "peer": f"paper, Table 2 ({self.paper_machine})",
            "peer_s": self.paper_seconds,
            "ratio": None if median is None else self.paper_seconds / median,
            "n": RUNS,
            "spread": [min(behind_l2), max(behind_l2)] if np.isfinite(max(behind_l2)) else None,
            "agreement": None,
        }

    def summary(self, record: dict[str, Any]) -> str:
        """One line for a reader."""
        if record["ours_s"] is None:
            return f"{record['data']}: the attack does not reach {TARGET:.0%}"
        five = record["five_defenses_s"]
        return (
            f"{record['data']}: {TARGET:.0%} behind L2 after {record['ours_s']:.2f} s "
            f"(paper {record['peer_s']:g} s), "
            + ("not reached behind all five" if five is None else f"{five:.1f} s behind all five")
        )

    def _seconds(self, data: Split, seed: int) -> tuple[float, float]:
        """Seconds to the target behind L2, and behind all five; infinite if not reached."""
        begun = perf_counter()
        game = LinearGame(
            data.X, data.y, data.X_test, data.y_test, domain="counts", learner=SVM(LAMBDA["enron"])
        )
        prepared = perf_counter() - begun  # an attack's own clock starts when it is called
        result = self.attack(game, seed, enough=TARGET)
        everything = perf_counter() - begun
        behind_l2 = [c.seconds for c in result.history if c.exact and c.first_error >= TARGET]
        return (
            prepared + min(behind_l2, default=np.inf),
            everything if result.value >= TARGET else np.inf,
        )


KKT = To17Percent("koh2021.kkt_to_17pct", KKTAttack(), 27.0)
MINMAX = To17Percent("koh2021.minmax_to_17pct", MinMax(), 1_700.0)
INFLUENCE = To17Percent(
    "koh2021.influence_to_17pct", Influence(), 17_000.0, "2 cores of a Xeon E5 and a GTX Titan X"
)


def _finite(seconds: float) -> float | None:
    """JSON has no infinity."""
    return seconds if np.isfinite(seconds) else None
