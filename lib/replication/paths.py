"""Where everything lies; no other module builds these paths."""

import os
from pathlib import Path


def _root() -> Path:
    """The project that this file lies in; installed elsewhere, the one we are called from."""
    own = Path(__file__).parents[2]
    return own if (own / "params.yaml").is_file() else Path.cwd()


ROOT = _root()
PARAMS = ROOT / "params.yaml"
CLAIMS = ROOT / "claims.yaml"
REQUIREMENTS = ROOT / "requirements.txt"
NOTEBOOKS = ROOT / "notebooks"
FINGERPRINTS = ROOT / "results" / "fingerprints.json"
PIPELINE = ROOT / "dvc.yaml"

USED = "used.json"
"""What only the notebook knows of its inputs, on its way to ``provenance.json``."""

RESULTS_VARIABLE = "POISON_RESULTS"
CACHE_VARIABLE = "POISON_CACHE"
PROGRESS_VARIABLE = "POISON_PROGRESS"
DATA_VARIABLE = "POISON_DATA"
"""The data sets that the runner's stage depends on, by commas."""

CHECK_VARIABLE = "POISON_CHECK"
"""A plan of units to compare with what is on record; see :mod:`replication.checking`."""


def in_pipeline() -> bool:
    """Whether the runner has started this process, and not a person who opened a notebook."""
    return RESULTS_VARIABLE in os.environ


def results() -> Path:
    """Where results go: the runner's folder, or ``results/lab`` for a notebook opened by hand."""
    return Path(os.environ.get(RESULTS_VARIABLE, ROOT / "results" / "lab"))


def section_results(profile: str, name: str) -> Path:
    """Where results of one notebook, ``<paper>/<section>`` or ``scorecard``, go."""
    return results() / profile / name


def pipeline_results(profile: str, name: str) -> Path:
    """What the pipeline has computed of one notebook."""
    return ROOT / "results" / profile / name


def dataset(source: str, name: str) -> Path:
    """A prepared data set; ``source`` is ``real`` or ``standin``."""
    return ROOT / "data" / source / name


def cache() -> Path:
    """What can be computed again."""
    return ROOT / ".cache"


def unit_cache() -> Path:
    """Finished units of work; ``POISON_CACHE`` redirects it."""
    return Path(os.environ.get(CACHE_VARIABLE, cache() / "units"))


def kept_units() -> Path:
    """Small units of the paper profile, which git keeps."""
    return ROOT / "results" / "paper" / "units"
