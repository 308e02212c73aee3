"""Poisoned points for an SVM: KKT beside the attack of the adversarial-robustness-toolbox.

That attack is Biggio et al. 2012's, a point at a time by gradient steps, from clean points with
flipped labels. Both sides know training and test data and may use the whole box. The toolbox is
asked for ten steps a point, each of which takes it seconds; its documentation's example takes 100.
"""

from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC
from tqdm import tqdm

from bench.timing import Race
from poisoning.attacks.kkt import KKT
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM

NAME = "crossing.svm_poisoning"
POINTS, TRAIN, LAM, DRAWS, STEPS = 2, 300, 0.01, 3, 10


def run(bar: tqdm) -> dict[str, Any]:
    """Pairs on random halves of one data set."""
    if find_spec("art") is None:
        raise ModuleNotFoundError(
            "the peer is not installed: pip install adversarial-robustness-toolbox"
        )
    bar.reset(total=DRAWS)
    data = load_breast_cancer()
    X, y = MinMaxScaler(clip=True).fit_transform(data.data), 2.0 * data.target - 1.0
    attack = KKT(POINTS / TRAIN, radius_percentile=100.0, slab_percentile=100.0, copies=1)
    race, errors = Race(repeats=2), []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(y))
        train, test = order[:TRAIN], order[TRAIN:]
        game = LinearGame(
            X[train], y[train], X[test], y[test], domain="box01", learner=SVM(LAM), defenses=()
        )
        start = np.arange(POINTS)
        found, theirs = race.run(partial(attack, game, draw), partial(_toolbox, game, start))
        flipped = -game.y[start]
        poisons = {
            "clean": (game.X[:0], game.y[:0]), "flips": (game.X[start], flipped),
            "peer": (theirs, flipped), "ours": (found.poison.X, found.poison.y),
        }  # fmt: skip
        errors.append(
            {k: game.evaluate(*poison)["none"].test_error for k, poison in poisons.items()}
        )
        bar.update()
    return {
        "data": f"breast cancer of scikit-learn, {TRAIN} to train on, {POINTS} poisoned points",
        "peer": "adversarial-robustness-toolbox, PoisoningAttackSVM",
        "n": DRAWS,
        "errors": {key: float(np.mean([one[key] for one in errors])) for key in errors[0]},
        **race.record(),
    }


def _toolbox(game: LinearGame, start: ndarray) -> Float[ndarray, "r d"]:
    from art.attacks.poisoning import PoisoningAttackSVM
    from art.estimators.classification.scikitlearn import ScikitlearnSVC

    def coded(y: ndarray) -> ndarray:
        return np.eye(2)[(y > 0.0).astype(int)]

    # scikit-learn's C is 1/(λn); the toolbox asks for probabilities.
    svc = SVC(C=1.0 / (LAM * game.n), kernel="linear", probability=True)
    classifier = ScikitlearnSVC(svc, clip_values=(0.0, 1.0))
    classifier.fit(game.X, coded(game.y))
    attack = PoisoningAttackSVM(
        classifier, step=0.1, eps=1.0, x_train=game.X, y_train=coded(game.y), x_val=game.X_test,
        y_val=coded(game.y_test), max_iter=STEPS, verbose=False,
    )  # fmt: skip
    return attack.poison(game.X[start].copy(), y=coded(-game.y[start]))[0]


def summary(record: dict[str, Any]) -> str:
    """The two sides for a reader."""
    error = record["errors"]
    return (
        f"{record['ours_s']:.2f} s, {record['peer_s']:.0f} s by the toolbox; test error "
        f"{error['ours']:.1%}, {error['peer']:.1%} by the toolbox, {error['flips']:.1%} where it "
        f"began, {error['clean']:.1%} clean"
    )
