"""What the notebooks of Wang et al. 2021 share: the poster's curves, and how a curve bends."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.metrics import Estimate, mean_interval

if TYPE_CHECKING:
    # Needs the pipeline's packages; units of work are made without them too.
    from replication.notebook import Notebook


@dataclass(frozen=True)
class PosterCurve:
    """Clean test accuracy (%) read off the poster, ± 1: at width 10, at its highest, at 10⁵.

    ``peak_width`` is where the curve is highest; None where that could not be read.
    """

    narrow: float
    peak: float
    wide: float
    peak_width: int | None = None


POSTER = {
    "mnist": {
        "clean": PosterCurve(98.5, 98.5, 98.5),
        "A": PosterCurve(76.0, 89.5, 82.0, 20_000),
        "B": PosterCurve(84.0, 92.0, 83.0),
        "C": PosterCurve(97.0, 97.7, 94.0, 20),
    },
    "cifar-10": {
        "clean": PosterCurve(62.0, 63.0, 63.0),
        "A": PosterCurve(57.5, 59.0, 56.7),
        "B": PosterCurve(57.2, 59.0, 56.5),
        "C": PosterCurve(56.0, 57.3, 56.6),
    },
}
"""The figure of the poster, by data set and attack."""

OVERALL = {"mnist": 800.0 / np.sqrt(60_000), "cifar-10": 300.0 / np.sqrt(50_000)}
"""Attack A's S = C √n per example at the authors' n: C = 800 and 300 on all training images."""

LARGEST = 3.0
"""Attack B's limit on every perturbation, both data sets."""


@dataclass(frozen=True)
class Bend:
    """Accuracy by width over repeats; ``rise`` and ``fall`` are negative where there is none.

    ``rise`` is the best of the wider widths minus the narrowest, ``fall`` the best of the narrower
    widths minus the widest.
    """

    narrowest: Estimate
    peak: Estimate
    widest: Estimate
    rise: Estimate
    fall: Estimate


def bend(accuracy: Float[ndarray, "repeats widths"]) -> Bend:
    """Rise and fall of a curve, ``accuracy`` by repeat and by width in increasing order.

    Each repeat is read at the width where the mean of the *other* repeats is highest. If a repeat
    determined its own best width, noise alone would make every curve rise and fall. A single repeat
    has no others, and no interval.
    """
    first, last = accuracy[:, 0], accuracy[:, -1]
    rise, fall = _best(accuracy[:, 1:]) - first, _best(accuracy[:, :-1]) - last
    return Bend(*map(mean_interval, (first, _best(accuracy), last, rise, fall)))


def _best(accuracy: Float[ndarray, "repeats widths"]) -> Float[ndarray, "repeats"]:
    """Every repeat at the width that is best for the others."""
    repeats = len(accuracy)
    others = accuracy if repeats == 1 else accuracy.sum(axis=0) - accuracy
    return accuracy[np.arange(repeats), others.argmax(axis=1)]


def record_bend(
    notebook: "Notebook", name: str, accuracy: Float[ndarray, "repeats widths"]
) -> Bend:
    """Metrics ``<name>.narrowest|peak|widest|rise|fall``, with intervals over repeats."""
    found = bend(accuracy)
    for part in ("narrowest", "peak", "widest", "rise", "fall"):
        notebook.metric(f"{name}.{part}", getattr(found, part))
    return found


def slope_interval(n: Float[ndarray, "sizes"], values: Float[ndarray, "repeats sizes"]) -> Estimate:
    """The exponent p of values ∝ n^p: least squares in logarithms, repeat by repeat."""
    return mean_interval(np.polyfit(np.log(n), np.log(values).T, 1)[0])
