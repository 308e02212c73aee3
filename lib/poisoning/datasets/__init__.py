"""The papers' data sets: fetched, verified, prepared and loaded the same way every time.

``fetch`` brings the published files to ``data/raw/<set>``, ``prepare`` turns them (or an embedded
stand-in) into ``data/<source>/<set>``, and ``load`` reads that folder as a :class:`Dataset`.
``sources.yaml``, beside this file, says where the files come from and how each variant is
recognised.

The names in ``__all__`` are imported at first use: fetching and preparing need packages that
reading a prepared set does not.
"""

from poisoning.lazy import at_first_use

_HOMES = {
    "Dataset": "poisoning.datasets.dataset",
    "Source": "poisoning.datasets.sources",
    "Split": "poisoning.datasets.dataset",
    "binary": "poisoning.datasets.dataset",
    "fetch": "poisoning.datasets.download",
    "load": "poisoning.datasets.store",
    "prepare": "poisoning.datasets.preparation",
    "registry": "poisoning.datasets.sources",
    "split": "poisoning.datasets.dataset",
}
"""The package's surface: every name, and the module that defines it."""

__all__ = list(_HOMES)
__getattr__ = at_first_use(__name__, _HOMES)
