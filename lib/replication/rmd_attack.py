"""The attack of Carnerero-Cano et al. 2023 on the game of Koh et al. 2021.

Its surrogate is logistic regression trained by gradient descent, and its validation data are the
test data, which attackers of that game know. Poison is added, where the paper replaces rows by it.
It models no defense.
"""

from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import squared_norms, to_dense
from poisoning.attacks.attacked import Attacked, playing
from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.attacks.selection import measured
from poisoning.games.bilevel import BilevelGame, Policy
from poisoning.games.linear import LinearGame
from poisoning.settings import COUNT, FRACTION, Settings, setting

_NORM = 10.0  # mean square of a row's norm, for which gradient descent of step 0.1 is stable


@dataclass(frozen=True)
class RMD(Settings):
    """Alg. 2 with one batch: ``RMD(0.03, learned=True)(game, rng)`` on two classes.

    ``learned``: whether the attacker expects a defender who learns λ, or one who keeps the λ of the
    game's SVM.
    """

    epsilon: float = setting(0.03, FRACTION, "poison, as a fraction of the clean training set")
    learned: bool = False
    steps: int = setting(100, COUNT, "T, steps of the inner training")
    hyperiterations: int = setting(20, COUNT, "H, the number of outer steps")

    def __call__(self, game: LinearGame, rng: int | np.random.Generator) -> Attacked:
        """Poison that lies in the game's domain: clipped, and rounded where features are counts.

        Raises ``TypeError`` for a game whose learner is no SVM of two classes.
        """
        playing(self, game, LinearGame)
        begun = perf_counter()
        lam, rng = game.lam, checks.generator(rng)
        scale = np.sqrt(squared_norms(game.X).mean() / _NORM)
        X, X_val = to_dense(game.X) / scale, to_dense(game.X_test) / scale
        low, high = min(X.min(), X_val.min()), max(X.max(), X_val.max())
        policy = Policy("l2") if self.learned else Policy("l2", float(np.log(lam)))
        surrogate = BilevelGame(
            X, game.y, X_val, game.y_test, box=(low, high), policies={"surrogate": policy}
        )
        attack = MinimaxBilevel(
            batch=game.poison_size(self.epsilon), batches=1, steps=self.steps, rule="adaptive",
            hyperiterations=self.hyperiterations,
        )  # fmt: skip
        points, labels, _ = attack.play(surrogate, rng).at(1)
        points, labels = self._inside(scale * points[0], game), labels[0].astype(np.float64)
        return replace(measured(game, points, labels), seconds=perf_counter() - begun)

    def _inside(self, points: Float[ndarray, "r d"], game: LinearGame) -> Float[ndarray, "r d"]:
        domain = game.domain
        points = np.clip(points.astype(np.float64), domain.lower, domain.upper)
        return np.rint(points) if domain.integer else points
