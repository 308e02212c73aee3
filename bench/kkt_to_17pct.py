"""Fig. 4 of Koh et al. 2021: how soon after loading the data the KKT attack does 17 % damage.

The paper's KKT attack needs 27 s, measured against the L2 defense. Timed here: the clean model, one
decoy, the poison for it, and the measurement of the attack behind L2 (or behind all five defenses)
until a test error of 17 % is seen. The decoy (q = 0.4, r = 8) is one of the paper's grid, of the
kind that a search in order of test error tries first. On another machine, or another split, the
attack may fall short; then the record holds null.
"""

from time import perf_counter

import numpy as np
from tqdm import tqdm

from bench.enron import LAMBDA, enron
from lib.attacks.decoy import find_decoys
from lib.attacks.kkt import KKTSettings, attempts
from lib.defenses.evaluation import Evaluator
from lib.feasible.sets import FeasibleSet, InputDomain

NAME = "koh2021.kkt_to_17pct"
PAPER_SECONDS = 27.0
TARGET = 0.17
RUNS = 5
SETTINGS = KKTSettings(quantiles=(0.4,), decoy_repeats=(8,))


def run(bar: tqdm) -> dict:
    """Medians over a few runs, each from loaded data with nothing kept from the run before."""
    data, variant = enron()
    bar.reset(total=2 * RUNS + 1)
    _seconds(data, ("l2",))  # compiles, or loads what was compiled
    bar.update()
    behind_l2, behind_five = [], []
    for _ in range(RUNS):
        behind_l2.append(_seconds(data, ("l2",)))
        bar.update()
        behind_five.append(_seconds(data, ("l2", "slab", "loss", "knn", "svd")))
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


def _seconds(data, defenses: tuple[str, ...]) -> float | None:
    """Seconds until an attack of 17 % behind every one of ``defenses``; None if there is none."""
    begun = perf_counter()
    X, y = data.X, data.y
    evaluator = Evaluator(X, y, data.X_test, data.y_test, LAMBDA)
    base = FeasibleSet.fit(X, y, InputDomain.of("integer", X))
    (decoy,) = find_decoys(
        X, y, data.X_test, data.y_test, LAMBDA, SETTINGS.quantiles, SETTINGS.decoy_repeats,
        clean=evaluator.clean_svm.model,
    )  # fmt: skip
    for attempt in attempts(X, y, LAMBDA, base, decoy, SETTINGS, np.random.default_rng(0)):
        outcomes = evaluator.evaluate(attempt.poisoned.X, attempt.poisoned.y, defenses).outcomes
        if min(outcome.test_error for outcome in outcomes.values()) >= TARGET:
            return perf_counter() - begun
    return None
