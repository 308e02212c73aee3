"""Solvers beside general-purpose formulations: ``python -m bench`` writes results/bench.json.

An entry is a module of this package with ``NAME``, ``run(progress bar) -> record`` and
``summary(record) -> line``. It measures both sides in one process, in alternation. To add one,
write the module and name it in ``ENTRIES``.
"""

import os

# One thread on both sides, and before numpy starts its own.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from bench import kkt_problem, kkt_to_17pct  # noqa: E402

ENTRIES = (kkt_problem, kkt_to_17pct)
