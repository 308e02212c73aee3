"""All entries of ``python -m bench``, in the order in which they run."""

from bench import (
    dask_overhead,
    growth,
    hypergradient_networks,
    influence_projection,
    kernels,
    kkt_problem,
    min_max_lp,
    online_sgd,
    patom_growth,
    spectrum,
    svm_poisoning,
    table_detection,
)
from bench.evaluation import ENRON, IMDB
from bench.hypergradient import AgainstPeers, Batched, Growth, Sizes
from bench.hyperparameter_search import ENTRIES as HYPERPARAMETER_SEARCH
from bench.lower_level import ENTRIES as LOWER_LEVEL
from bench.patom_iteration import ENTRIES as PATOM_ITERATION
from bench.to_17pct import INFLUENCE, KKT, MINMAX

ENTRIES = (
    kkt_problem, min_max_lp, influence_projection, KKT, MINMAX, INFLUENCE, ENRON, growth, IMDB,
    spectrum, *LOWER_LEVEL, *PATOM_ITERATION, patom_growth, AgainstPeers, Sizes, Batched,
    hypergradient_networks, Growth, *HYPERPARAMETER_SEARCH, online_sgd, dask_overhead,
    svm_poisoning, table_detection, kernels,
)  # fmt: skip
