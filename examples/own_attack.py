"""An attack of your own: a frozen dataclass of settings that plays a game.

python examples/own_attack.py
"""

from dataclasses import dataclass

import numpy as np

import poisoning as po


@dataclass(frozen=True)
class MeanShift:
    """Copies of the mean of one class, labelled as the other."""

    epsilon: float = 0.05

    def __call__(self, game, rng):
        label = np.random.default_rng(rng).choice(game.labels)
        size = game.poison_size(self.epsilon)
        mean = game.X[game.y != label].mean(axis=0)
        return po.measured(game, np.tile(mean, (size, 1)), np.full(size, label))


rng = np.random.default_rng(0)
y = np.where(rng.random(500) < 0.5, 1.0, -1.0)
X = rng.normal(y[:, None], 3.0, (500, 10))
game = po.LinearGame(X[:300], y[:300], X[300:], y[300:], domain="real", learner=po.SVM(lam=0.1))
print(MeanShift(0.05)(game, rng=0).errors)
