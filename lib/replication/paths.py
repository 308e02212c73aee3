"""All paths of the project; no other module builds them."""

import os
from pathlib import Path


def _root() -> Path:
    """The project that this file lies in or, if it is installed elsewhere, the current folder."""
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
"""The file in which a notebook lists inputs that the runner adds to ``provenance.json``."""

RESULTS_VARIABLE = "POISON_RESULTS"
CACHE_VARIABLE = "POISON_CACHE"
PROGRESS_VARIABLE = "POISON_PROGRESS"
DATA_VARIABLE = "POISON_DATA"
"""The data sets that the runner's stage depends on, separated by commas."""

CHECK_VARIABLE = "POISON_CHECK"
"""A plan of units to compare with what is on record; see :mod:`replication.checking`."""


def shown(path: Path) -> Path:
    """As a reader is told of it: from the project's folder on, where it lies there."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def in_pipeline() -> bool:
    """Whether the runner has started this process; False for a notebook opened by hand."""
    return RESULTS_VARIABLE in os.environ


def results() -> Path:
    """Where results go: the runner's folder, or ``results/lab`` for a notebook opened by hand."""
    return Path(os.environ.get(RESULTS_VARIABLE, ROOT / "results" / "lab"))


def section_results(profile: str, name: str) -> Path:
    """Where results of one notebook, ``<paper>/<section>`` or ``scorecard``, go."""
    return results() / profile / name


def pipeline_results(profile: str, name: str) -> Path:
    """The folder of the pipeline's results of one notebook."""
    return ROOT / "results" / profile / name


def stage_name(name: str) -> str:
    """The DVC stage of a notebook: ``koh2021-kkt`` of ``koh2021/kkt``."""
    return name.replace("/", "-")


def dataset(source: str, name: str) -> Path:
    """A prepared data set; ``source`` is ``real`` or ``standin``."""
    return ROOT / "data" / source / name


def cache() -> Path:
    """The folder of files that can be computed again."""
    return ROOT / ".cache"


def audit(name: str) -> Path:
    """Where the report on a table of the user goes."""
    return ROOT / "audit" / name


def unit_cache() -> Path:
    """Finished units of work; ``POISON_CACHE`` redirects it."""
    return Path(os.environ.get(CACHE_VARIABLE, cache() / "units"))


def kept_units() -> Path:
    """Small units of the paper profile, which git keeps."""
    return ROOT / "results" / "paper" / "units"
