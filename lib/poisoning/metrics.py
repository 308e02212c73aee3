"""Summaries over repeats."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import stdtrit


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` repeats and the ends of its 95 % interval; None for a single repeat.

    ``repeats``: what was averaged, in order, where the interval comes from that.
    """

    value: float
    ci95: tuple[float, float] | None
    n: int
    repeats: tuple[float, ...] = ()

    @property
    def half_width(self) -> float:
        """Half the interval's length; NaN, for which plots draw no bar, for a single repeat."""
        return float("nan") if self.ci95 is None else (self.ci95[1] - self.ci95[0]) / 2.0


def mean_interval(values: Sequence[float] | Float[ndarray, "n"]) -> Estimate:
    """x̄ ± t_{0.975, n−1} s/√n: the mean of independent repeats, by Student's t.

    Raises ``ValueError`` for no values or values that are not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = sample.size
    if n == 0 or not np.all(np.isfinite(sample)):
        raise ValueError(f"a mean needs finite values, got {sample.tolist()}")
    mean = float(sample.mean())
    if n == 1:
        return Estimate(mean, None, 1)
    half = float(stdtrit(n - 1, 0.975) * sample.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, (mean - half, mean + half), n, tuple(sample.tolist()))
