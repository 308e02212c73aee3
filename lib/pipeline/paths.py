"""Where everything lies; no other module builds these paths."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"
CLAIMS = ROOT / "claims.yaml"
REQUIREMENTS = ROOT / "requirements.txt"
NOTEBOOKS = ROOT / "notebooks"

RESULTS_VARIABLE = "POISON_RESULTS"
CACHE_VARIABLE = "POISON_CACHE"
PROGRESS_VARIABLE = "POISON_PROGRESS"


def results() -> Path:
    """The folder of all results; ``POISON_RESULTS`` redirects it (nbval must not overwrite)."""
    return Path(os.environ.get(RESULTS_VARIABLE, ROOT / "results"))


def section_results(profile: str, name: str) -> Path:
    """Results of one notebook, ``name`` being ``<paper>/<section>`` or ``scorecard``."""
    return results() / profile / name


def dataset(source: str, name: str) -> Path:
    """A prepared data set; ``source`` is ``real`` or ``standin``."""
    return ROOT / "data" / source / name


def unit_cache() -> Path:
    """Finished units of work; ``POISON_CACHE`` redirects it."""
    return Path(os.environ.get(CACHE_VARIABLE, ROOT / ".cache" / "units"))
