"""Min-max's linear problem: the specialised solver beside cvxpy with Clarabel.

min y θ·x over the feasible set under a decoy, for models on the way of the attack's learner. Warm,
ours starts from the multipliers of the model before, which the attack met one step earlier; cvxpy
solves one parametrised problem again.
"""

from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.data import examples
from bench.timing import ColdAndWarm, Resolved
from poisoning.attacks.decoy import find_decoys
from poisoning.attacks.min_max import MinMax, well_fitted
from poisoning.feasible import reference
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import minimise_linear
from poisoning.models.svm import train_svm
from replication.koh2021 import LAMBDA

NAME = "koh2021.minmax_lp"
MODELS = 6  # per class, from the clean model towards the decoy


def run(bar: tqdm) -> dict[str, Any]:
    """Every class along a path of models."""
    data, source = examples("enron")
    X, y, lam = data.X, data.y, LAMBDA["enron"]
    base = FeasibleSet.fit(X, y, InputDomain.of("counts", X))
    clean = train_svm(X, y, lam).model
    (decoy,) = find_decoys(X, y, data.X_test, data.y_test, lam, (0.4,), (8,), clean=clean)
    feasible = well_fitted(base, decoy.model, MinMax().loss_cap)
    path = np.linspace(clean.theta, decoy.model.theta, MODELS + 1)[:-1]
    # Neighbouring models of the attack differ by about one AdaGrad step.
    before = path - 0.01 * (decoy.model.theta - clean.theta)
    bar.reset(total=2 * MODELS)

    comparison = ColdAndWarm()
    for label, part in ((1.0, feasible.positive), (-1.0, feasible.negative)):
        again = Resolved(lambda x, c: c @ x, part, label * clean.theta)
        for c, previous in zip(label * path, label * before, strict=True):
            start = minimise_linear(previous, part).multipliers  # and compiles, the first time
            comparison.run(
                partial(minimise_linear, c, part),
                partial(reference.minimise_linear, c, part),
                partial(minimise_linear, c, part, start=start),
                partial(again, c),
            )
            bar.update()
    return comparison.record(source)


summary = ColdAndWarm.summary
