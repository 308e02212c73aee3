"""A learner of your own: any classifier of scikit-learn defends.

The attack models an SVM; what it does to other learners is measured afterwards.

python examples/own_learner.py
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

import poisoning as po

rng = np.random.default_rng(0)
y = np.where(rng.random(500) < 0.5, 1.0, -1.0)
X = rng.normal(y[:, None], 2.0, (500, 6))
data = X[:300], y[:300], X[300:], y[300:]
modelled = po.LinearGame(*data, domain="real", learner=po.SVM(lam=0.1))
poison = po.KKT(0.04, quantiles=(0.3,), decoy_copies=(2,))(modelled, rng=0).poison
for learner in (po.SVM(lam=0.1), LogisticRegression(), DecisionTreeClassifier(max_depth=4)):
    defenses = (po.L2Defense(), po.KNNDefense(k=5))
    game = po.LinearGame(*data, domain="real", learner=learner, defenses=defenses)
    outcomes = game.evaluate(poison.X, poison.y)
    print(learner, {name: outcome.test_error for name, outcome in outcomes.items()})
