"""Min-max's linear problem: the specialised solver beside cvxpy with Clarabel.

min y θ·x over the feasible set under a decoy, for models on the way of the attack's learner. Cold
against cold: each side starts from nothing, and ours from no multipliers. Warm against warm: the
models come in the order in which the attack meets them; ours starts from the multipliers of the one
before, cvxpy re-solves one parametrised problem (Clarabel has no warm start of its own, so that
saves the canonicalisation).
"""

from time import perf_counter

import cvxpy as cp
import numpy as np
from tqdm import tqdm

from bench.enron import LAMBDA, enron
from lib.attacks.decoy import find_decoys
from lib.attacks.min_max import MinMaxSettings, well_fitted
from lib.feasible import reference
from lib.feasible.sets import FeasibleSet, InputDomain
from lib.feasible.solver import minimise_linear
from lib.models.svm import train_svm

NAME = "koh2021.minmax_lp"
MODELS = 6  # per class, from the clean model towards the decoy
OURS_REPEATS = 5


def run(bar: tqdm) -> dict:
    """Every class along a path of models; ours is the median of a few runs around theirs."""
    data, variant = enron()
    X, y = data.X, data.y
    base = FeasibleSet.fit(X, y, InputDomain.of("integer", X))
    clean = train_svm(X, y, LAMBDA).model
    (decoy,) = find_decoys(X, y, data.X_test, data.y_test, LAMBDA, (0.4,), (8,), clean=clean)
    feasible = well_fitted(base, decoy.model, MinMaxSettings().loss_cap)
    bar.reset(total=2 * MODELS)
    path = np.linspace(clean.theta, decoy.model.theta, MODELS + 1)[:-1]
    # Neighbouring models of the attack differ by about one AdaGrad step.
    before = path - 0.01 * (decoy.model.theta - clean.theta)

    cold, warm, agreement = ([], []), ([], []), []
    minimise_linear(clean.theta, feasible.positive)  # compiles, or loads what was compiled
    for label, part in ((1.0, feasible.positive), (-1.0, feasible.negative)):
        c = cp.Parameter(X.shape[1])
        x = cp.Variable(X.shape[1])
        problem = cp.Problem(cp.Minimize(c @ x), reference.constraints(x, part))
        c.value = label * clean.theta
        problem.solve(solver=cp.CLARABEL)
        for theta, previous in zip(label * path, label * before, strict=True):
            start = minimise_linear(previous, part).multipliers

            def ours(theta=theta, part=part):
                return minimise_linear(theta, part)

            def ours_warm(theta=theta, part=part, start=start):
                return minimise_linear(theta, part, start=start)

            times = [(_timed(ours)[0], _timed(ours_warm)[0]) for _ in range(OURS_REPEATS)]
            theirs, (optimum, _) = _timed(reference.minimise_linear, theta, part)
            c.value = theta
            theirs_warm, _ = _timed(problem.solve, solver=cp.CLARABEL)
            times += [(_timed(ours)[0], _timed(ours_warm)[0]) for _ in range(OURS_REPEATS)]
            mine = np.median(times, axis=0)
            for record, pair in ((cold, (mine[0], theirs)), (warm, (mine[1], theirs_warm))):
                record[0].append(float(pair[0]))
                record[1].append(pair[1])
            agreement.append(abs(ours_warm().objective / optimum - 1.0))
            bar.update()
    ratios = np.array(cold[1]) / np.array(cold[0])
    warm_ratios = np.array(warm[1]) / np.array(warm[0])
    return {
        "data": f"enron, {variant}",
        "ours_s": float(np.median(cold[0])),
        "peer": "cvxpy/CLARABEL",
        "peer_s": float(np.median(cold[1])),
        "ratio": float(np.exp(np.log(ratios).mean())),
        "n": len(ratios),
        "spread": [float(ratios.min()), float(ratios.max())],
        "agreement": float(max(agreement)),
        "warm_ours_s": float(np.median(warm[0])),
        "warm_peer_s": float(np.median(warm[1])),
        "warm_ratio": float(np.exp(np.log(warm_ratios).mean())),
        "warm_spread": [float(warm_ratios.min()), float(warm_ratios.max())],
    }


def summary(record: dict) -> str:
    """One line for a reader."""
    return (
        f"{record['data']}: cold {1e3 * record['ours_s']:.0f} ms beside {record['peer_s']:.1f} s "
        f"of {record['peer']} ({record['ratio']:.0f} times as fast, geometric mean of "
        f"{record['n']}), warm {1e3 * record['warm_ours_s']:.0f} ms beside "
        f"{record['warm_peer_s']:.1f} s ({record['warm_ratio']:.0f} times), objectives equal to "
        f"{record['agreement']:.0e}"
    )


def _timed(function, *arguments, **options):
    begun = perf_counter()
    result = function(*arguments, **options)
    return perf_counter() - begun, result
