"""Your own data: a CSV of measurements and a sparse matrix of counts, attacked and defended.

python examples/own_data.py
"""

import tempfile
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import poisoning as po

rng, folder = np.random.default_rng(0), Path(tempfile.mkdtemp())
y = np.where(rng.random(600) < 0.5, 1.0, -1.0)
table = np.column_stack([y, rng.normal(y[:, None], 4.0, (600, 10))])
np.savetxt(folder / "mine.csv", table, delimiter=",")
words = rng.poisson(0.3 * np.exp(np.outer(y, rng.normal(0.0, 0.4, 80))))
sp.save_npz(folder / "words.npz", sp.csr_array(words))

table, words = np.loadtxt(folder / "mine.csv", delimiter=","), sp.load_npz(folder / "words.npz")
for X, y, domain in ((table[:, 1:], table[:, 0], "real"), (words, table[:, 0], "counts")):
    data = X[:400], y[:400], X[400:], y[400:]
    game = po.LinearGame(*data, domain=domain, learner=po.SVM(lam=0.1))
    attacked = po.KKT(0.05, quantiles=(0.3,), decoy_copies=(5,))(game, rng=0)
    print(domain, {name: round(error, 3) for name, error in attacked.errors.items()})
