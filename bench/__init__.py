"""Solvers beside general-purpose formulations: ``python -m bench`` writes results/bench.json.

An entry is a module or an object of this package with ``NAME``, ``run(progress bar) -> record`` and
``summary(record) -> line``. What it compares it measures in one process, in alternation. To add
one, write it and name it in ``ENTRIES`` (``entries.py``). What needs a GPU is apart, in ``gpu``.
"""

import os

# One thread on both sides, and before numpy starts its own.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
