"""How the three attacks of Koh et al. 2021 grow with examples, features and nonzeros.

Timed on thinner and thinner mails: one problem (17) of the KKT attack; one step of min-max, which
solves its linear problem and moves the learner; one step of the influence attack, which
differentiates, projects and trains, with its share of the check of every tenth. Mails or words left
out at random take their nonzeros with them; occurrences left out at random leave n and d alone.

An exponent is the slope of log seconds over log size along one of these three ways, with its
standard error: where that is large no power describes the growth, and the table has to be read.
Seconds are the least over a few passes through all sizes: a busy machine only ever adds to them,
and not to all sizes alike.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.stats import linregress
from tqdm import tqdm

from bench.data import examples
from bench.timing import timed
from poisoning.attacks.decoy import find_decoys
from poisoning.attacks.influence import Influence
from poisoning.attacks.kkt import KKT, clean_gradient, loss_caps
from poisoning.attacks.min_max import MinMax, min_max_poison
from poisoning.datasets import Split
from poisoning.feasible.sets import FeasibleSet
from poisoning.feasible.solver import match_gradient
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM
from replication.koh2021 import LAMBDA

NAME = "koh2021.growth"
SHARES = (0.125, 0.25, 0.5)  # beside the whole
WAYS = ("n", "d", "nonzeros")
STEPS = ("kkt_problem", "minmax_step", "influence_step")
RATIOS = (0.25, 0.5, 0.75)  # of the KKT problems, ε_+/ε
PASSES = 3


def run(bar: tqdm) -> dict[str, Any]:
    """The whole, then what is left of it along every way."""
    data, source = examples("enron")
    parts = [(None, data)]
    parts += [(way, thinned(data, way, share)) for way in WAYS for share in SHARES]
    bar.reset(total=PASSES * len(parts))
    clocks = [_clock(part) for _, part in parts]
    clocks[1]()  # compiles, or loads what was compiled
    passes = np.full((PASSES, len(parts), len(STEPS)), np.inf)
    for one in passes:
        for place, clock in enumerate(clocks):
            one[place] = clock()
            bar.update()
    least = passes.min(axis=0)
    growth = [
        {"what": step, "n": part.X.shape[0], "d": part.X.shape[1], "nonzeros": int(part.X.nnz),
         "along": way, "seconds": float(seconds)}
        for (way, part), row in zip(parts, least, strict=True)
        for step, seconds in zip(STEPS, row, strict=True)
    ]  # fmt: skip
    return {
        "data": source,
        "ours_s": float(least[0].sum()),
        **{f"{step}_s": float(s) for step, s in zip(STEPS, least[0], strict=True)},
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "n": len(parts),
        "spread": None,
        "agreement": None,
        "growth": growth,
        "exponents": {step: {way: exponent(growth, step, way) for way in WAYS} for step in STEPS},
    }


def summary(record: dict[str, Any]) -> str:
    """One line for a reader."""
    parts = []
    for step in STEPS:
        powers = ", ".join(
            f"{way}^({power:.2f} ± {error:.2f})"
            for way, (power, error) in record["exponents"][step].items()
        )
        parts.append(f"{step} {1e3 * record[f'{step}_s']:.1f} ms, growing as {powers}")
    return f"{record['data']}: " + "; ".join(parts)


def thinned(data: Split, way: str, share: float) -> Split:
    """A random ``share`` of the training rows ("n"), the columns ("d") or the stored entries."""
    rng = np.random.default_rng(0)
    if way == "nonzeros":
        return replace(
            data, X=_some_entries(data.X, share, rng), X_test=_some_entries(data.X_test, share, rng)
        )
    size = data.X.shape[WAYS.index(way)]
    kept = np.sort(rng.choice(size, round(share * size), replace=False))
    if way == "n":
        return replace(data, X=data.X[kept], y=data.y[kept])
    return replace(data, X=data.X[:, kept], X_test=data.X_test[:, kept])


def exponent(growth: list[dict[str, Any]], what: str, way: str) -> tuple[float, float]:
    """The slope of log seconds over log size, the whole included, and its standard error."""
    rows = [row for row in growth if row["what"] == what and row["along"] in (way, None)]
    sizes, seconds = ([np.log(row[key]) for row in rows] for key in (way, "seconds"))
    fit = linregress(sizes, seconds)
    return float(fit.slope), float(fit.stderr)


def _some_entries(X: sp.csr_array, share: float, rng: np.random.Generator) -> sp.csr_array:
    thin = X.copy()
    thin.data = np.where(rng.random(X.nnz) < share, X.data, 0.0)
    thin.eliminate_zeros()
    return thin


def _clock(data: Split) -> Callable[[], tuple[float, float, float]]:
    """What times ``STEPS`` on these data, in their order; all else is computed before."""
    X, y, lam = data.X, data.y, LAMBDA["enron"]
    game = LinearGame(X, y, data.X_test, data.y_test, domain="counts", learner=SVM(lam))
    clean = game.clean_svm.model
    base = FeasibleSet.fit(X, y, game.domain)
    (found,) = find_decoys(X, y, data.X_test, data.y_test, lam, (0.4,), (8,), clean=clean)
    decoy = found.model
    kkt = KKT()
    caps = loss_caps(decoy, X, y, kkt.loss_percentile)
    feasible = base.under_decoy(decoy.theta, decoy.bias, caps)
    g, _ = clean_gradient(decoy, X, y, lam, kkt.epsilon)
    min_max = partial(
        min_max_poison, X, y, lam, base, game.domain, MinMax(), clean=clean, decoy=decoy
    )
    influence = Influence(positive_shares=(0.5,), iterations=40)

    def clock() -> tuple[float, float, float]:
        problems = [
            timed(match_gradient, g, ratio * kkt.epsilon, (1.0 - ratio) * kkt.epsilon, feasible)[0]
            for ratio in RATIOS
        ]
        minmax_s, poison = timed(min_max, np.random.default_rng(0))
        checks = np.diff([check.seconds for check in influence(game, 0).history])
        return (
            float(np.mean(problems)),
            minmax_s / poison.steps,
            float(np.median(checks)) / influence.check_every,
        )

    return clock
