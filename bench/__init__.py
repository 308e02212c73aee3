"""Solvers beside general-purpose formulations: ``python -m bench`` writes results/bench.json.

An entry is a module of this package with ``NAME``, ``run(progress bar) -> record`` and
``summary(record) -> line``. It measures both sides in one process, in alternation. To add one,
write the module and name it in ``ENTRIES``.
"""

from bench import kkt_problem, kkt_to_17pct

ENTRIES = (kkt_problem, kkt_to_17pct)
