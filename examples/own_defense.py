"""A defense of your own, and a detector of scikit-learn, fixed attacks and adaptive ones.

python examples/own_defense.py
"""

import numpy as np
from sklearn.ensemble import IsolationForest

import poisoning as po


class LabelVote:
    """The share of a point's ten nearest neighbours that have another label."""

    def fit(self, X, y):
        self.X, self.y = X, y
        return self

    def score(self, X, y):
        nearest = np.argsort(((X[:, None] - self.X) ** 2).sum(axis=2), axis=1)[:, 1:11]
        return np.mean(self.y[nearest] != y[:, None], axis=1)


rng = np.random.default_rng(0)
y = np.where(rng.random(400) < 0.5, 1.0, -1.0)
X = rng.normal(y[:, None], 2.0, (400, 5))
game = po.LinearGame(X[:250], y[:250], X[250:], y[250:], domain="real", learner=po.SVM(lam=0.1))
attack = po.KKT(0.04, quantiles=(0.3,), decoy_copies=(2,))
for defense in (LabelVote(), IsolationForest()):
    print(defense, po.assess_defense(game, defense, [attack]).errors)
