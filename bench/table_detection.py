"""Poison found in a table: the five defenses of Koh et al. 2021 beside the package ``rpfnet``.

That package scores the rows of a CSV by a network that its authors trained on other tables and
attacks. An AUC of 1/2 is that of chance, and of 0 of a score that takes poison for the most normal.
"""

import contextlib
import io
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from bench.timing import Race
from poisoning.attacks.influence import Influence
from poisoning.attacks.kkt import KKT
from poisoning.attacks.label_flips import RandomFlips
from poisoning.attacks.min_max import MinMax
from poisoning.defenses import (
    KNNDefense,
    L2Defense,
    LossDefense,
    SlabDefense,
    SVDDefense,
)
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM

NAME = "crossing.table_detection"
TRAIN, LAM, DRAWS, EPSILON = 400, 0.01, 5, 0.05
ATTACKS = {"flip": RandomFlips(EPSILON), "influence": Influence(EPSILON), "kkt": KKT(EPSILON),
           "minmax": MinMax(EPSILON)}  # fmt: skip
FIVE = (L2Defense(), SlabDefense(), LossDefense(SVM(LAM)), SVDDefense(), KNNDefense())


def run(bar: tqdm) -> dict[str, Any]:
    """Every attack on random halves of one table, scored by both sides."""
    for module in ("RPFNet", "datasets"):  # the second it needs and does not ask for
        if find_spec(module) is None:
            raise ModuleNotFoundError("the peer is not installed: pip install rpfnet datasets")
    bar.reset(total=DRAWS * len(ATTACKS))
    data = load_breast_cancer()
    X, y = StandardScaler().fit_transform(data.data), 2.0 * data.target - 1.0
    race, found, caught = Race(repeats=1), [], []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(y))
        train, test = order[:TRAIN], order[TRAIN:]
        game = LinearGame(X[train], y[train], X[test], y[test], domain="real", learner=SVM(LAM))
        for name, attack in ATTACKS.items():
            poison = attack(game, draw).poison
            rows = np.vstack([game.X, poison.X]), np.concatenate([game.y, poison.y])
            ours, (scores, flagged) = race.run(partial(_five, *rows), partial(_rpfnet, *rows))
            poisoned = np.arange(len(rows[1])) >= game.n
            found += [(name, key, roc_auc_score(poisoned, one)) for key, one in ours.items()]
            found.append((name, "rpfnet", roc_auc_score(poisoned, scores)))
            caught.append(flagged[poisoned].mean())
            bar.update()
    means = pd.DataFrame(found, columns=["attack", "by", "auc"]).groupby(["attack", "by"]).mean()
    return {
        "data": f"breast cancer of scikit-learn, {TRAIN} rows and {EPSILON:.0%} of poison",
        "peer": "rpfnet",
        "n": DRAWS,
        "flagged_by_peer": float(np.mean(caught)),  # of the poison
        "auc": {name: means.loc[name]["auc"].to_dict() for name in ATTACKS},
        **race.record(),
    }


def _five(X: Float[ndarray, "n d"], y: Float[ndarray, "n"]) -> dict[str, Float[ndarray, "n"]]:
    return {defense.name: defense.fit(X, y).score(X, y) for defense in FIVE}


def _rpfnet(X: Float[ndarray, "n d"], y: Float[ndarray, "n"]) -> tuple[ndarray, ndarray]:
    """Its scores of all rows, and what it flags; what it prints is dropped."""
    from RPFNet import api

    table = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
    table["target"] = (y > 0.0).astype(int)
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "table.csv")
        table.to_csv(path, index=False)
        report = api.analyze("csv", str(path)).raw()
    if report["mode"] != "rpfnet_hybrid":
        raise RuntimeError(f"rpfnet fell back to {report['mode']}: its network could not be loaded")
    return np.asarray(report["scores"]), np.asarray(report["flags"], dtype=bool)


def summary(record: dict[str, Any]) -> str:
    """The two sides for a reader."""
    said = [
        f"{name} {one['rpfnet']:.2f} beside {max(one[defense.name] for defense in FIVE):.2f}"
        for name, one in record["auc"].items()
    ]
    flagged = f"; it flags {record['flagged_by_peer']:.0%} of the poison"
    return f"AUC of rpfnet beside the best of five: {', '.join(said)}{flagged}"
