"""Solvers beside general-purpose formulations: ``python -m bench`` writes results/bench.json.

An entry is a module or an object of this package with ``NAME``, ``run(progress bar) -> record`` and
``summary(record) -> line``. What it compares it measures in one process, in alternation. To add
one, write it and name it in ``ENTRIES``.
"""

import os

# One thread on both sides, and before numpy starts its own.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from bench import (  # noqa: E402
    dask_overhead,
    growth,
    influence_projection,
    kkt_problem,
    min_max_lp,
    online_sgd,
    patom_growth,
)
from bench.evaluation import ENRON, IMDB  # noqa: E402
from bench.hypergradient import AgainstPeers, Batched, Growth  # noqa: E402
from bench.lower_level import ENTRIES as LOWER_LEVEL  # noqa: E402
from bench.patom_iteration import ENTRIES as PATOM_ITERATION  # noqa: E402
from bench.to_17pct import INFLUENCE, KKT, MINMAX  # noqa: E402

ENTRIES = (
    kkt_problem, min_max_lp, influence_projection, KKT, MINMAX, INFLUENCE, ENRON, growth, IMDB,
    *LOWER_LEVEL, *PATOM_ITERATION, patom_growth, AgainstPeers, Batched, Growth, online_sgd,
    dask_overhead,
)  # fmt: skip
