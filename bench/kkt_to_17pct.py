"""Fig. 4 of Koh et al. 2021: how soon after loading the data the KKT attack does 17 % damage.

The paper's KKT attack needs 27 s, measured against the L2 defense. Timed here: the search with its
default settings, from the clean model to the first candidate that does so, and further until one
is known to do so behind all five defenses. On another machine, or another split, the attack may
fall short; then the record holds null.
"""

from time import perf_counter

import numpy as np
from tqdm import tqdm

from bench.enron import LAMBDA, enron
from lib.attacks.kkt import KKTSettings, kkt_attack
from lib.defenses.evaluation import Evaluator
from lib.feasible.sets import InputDomain

NAME = "koh2021.kkt_to_17pct"
PAPER_SECONDS = 27.0
TARGET = 0.17
RUNS = 5
SETTINGS = KKTSettings()


def run(bar: tqdm) -> dict:
    """Medians over a few runs, each from loaded data with nothing kept from the run before."""
    data, variant = enron()
    bar.reset(total=RUNS + 1)
    _seconds(data)  # compiles, or loads what was compiled
    bar.update()
    behind_l2, behind_five = [], []
    for _ in range(RUNS):
        for times, seconds in zip((behind_l2, behind_five), _seconds(data), strict=True):
            times.append(seconds)
        bar.update()
    median, five = (
        None if None in times else float(np.median(times)) for times in (behind_l2, behind_five)
    )
    return {
        "data": f"enron, {variant}",
        "ours_s": median,
        "five_defenses_s": five,
        "peer": "paper, Fig. 4 (2 cores of a Xeon E5)",
        "peer_s": PAPER_SECONDS,
        "ratio": None if median is None else PAPER_SECONDS / median,
        "n": RUNS,
        "spread": None if median is None else [min(behind_l2), max(behind_l2)],
        "agreement": None,
    }


def summary(record: dict) -> str:
    """One line for a reader."""
    if record["ours_s"] is None:
        return f"{record['data']}: the attack does not reach 17 %"
    five = record["five_defenses_s"]
    return (
        f"{record['data']}: 17 % behind L2 after {record['ours_s']:.2f} s "
        f"(paper {PAPER_SECONDS:g} s), "
        + ("not reached behind all five" if five is None else f"{five:.1f} s behind all five")
    )


def _seconds(data) -> tuple[float | None, float | None]:
    """Seconds until an attack of 17 % behind L2, and behind all five; None where there is none."""
    begun = perf_counter()
    evaluator = Evaluator(data.X, data.y, data.X_test, data.y_test, LAMBDA)
    domain = InputDomain.of("integer", data.X)
    result = kkt_attack(evaluator, domain, SETTINGS, np.random.default_rng(0), enough=TARGET)
    seconds = perf_counter() - begun
    behind_l2 = [c.seconds for c in result.history if c.l2_error >= TARGET]
    return (
        min(behind_l2, default=None),
        seconds if result.evaluation.minimum >= TARGET else None,
    )
