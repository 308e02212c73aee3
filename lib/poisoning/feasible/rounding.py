"""From a relaxed point and a fraction of poison to whole points: Section 3.3 of Koh et al. 2021."""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix
from poisoning.feasible.sets import InputDomain

_WHOLE = 1e-9  # an entry this near an integer is that integer


def expected_square(x: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """f(x) = E x̂² = x(⌈x⌉ + ⌊x⌋) − ⌈x⌉⌊x⌋ over the randomised rounding x̂ of x; Eq. (6)."""
    ceiling, floor = np.ceil(x), np.floor(x)
    return x * (ceiling + floor) - ceiling * floor


def budget(epsilon: float, n: int, share: float) -> tuple[int, int]:
    """How many poisoned points of class +1 and of −1 an attack may add to ``n`` clean ones.

    Together exactly round(εn), ties to even; of these the fraction ``share`` = ε_+/ε, rounded the
    same way, is positive. Raises ``ValueError`` for a share outside [0, 1], ε < 0 or n < 0.
    """
    share = checks.between(share, "share", 0.0, 1.0)
    epsilon, n = checks.positive(epsilon, "epsilon", zero=True), checks.whole(n, "n", 0)
    total = round(epsilon * n)
    positive = round(share * total)
    return positive, total - positive


def randomised_rounding(
    x: Float[ndarray, "d"], size: int, rng: np.random.Generator
) -> sp.csr_array:
    """``size`` independent roundings x̂ of x (d,), each with E x̂ = x, as sparse rows (size, d).

    x̂_i is ⌈x_i⌉ with probability x_i − ⌊x_i⌋, else ⌊x_i⌋. A random number is drawn for every entry,
    also where x_i is whole: then a small change of x changes few entries of x̂. Raises
    ``ValueError`` or ``TypeError`` for an x that is no finite vector, or a negative ``size``.
    """
    x, size = checks.array(x, "x", (None,)), checks.whole(size, "size", 0)
    rng = checks.generator(rng)
    nearest = np.rint(x)
    whole = np.where(np.abs(x - nearest) <= _WHOLE, nearest, np.floor(x))
    fraction = np.where(np.abs(x - nearest) <= _WHOLE, 0.0, x - whole)
    columns = np.flatnonzero((whole != 0.0) | (fraction != 0.0))
    base, fraction = whole[columns], fraction[columns]
    rows = np.empty((size, columns.size))
    for row in rows:
        row[:] = base + (rng.random(x.size, dtype=np.float32)[columns] < fraction)
    places = np.flatnonzero(rows)
    counts = np.count_nonzero(rows, axis=1)
    return sp.csr_array(
        (rows.ravel()[places], columns[places % columns.size], np.append(0, np.cumsum(counts))),
        shape=(size, x.size),
    )


def repeated_roundings(
    x: Float[ndarray, "d"], size: int, copies: int, rng: np.random.Generator
) -> sp.csr_array:
    """⌈size/r⌉ roundings of x, each r = ``copies`` times in a row, as sparse rows (size, d).

    The last group is cut short where r does not divide ``size``. Repetition keeps the poison
    concentrated and changes no expectation. Raises ``ValueError`` for r < 1.
    """
    copies, size = checks.whole(copies, "copies"), checks.whole(size, "size", 0)
    return randomised_rounding(x, -(-size // copies), rng)[np.arange(size) // copies]


def realise(
    x: Float[ndarray, "d"],
    size: int,
    copies: int,
    domain: InputDomain,
    rng: np.random.Generator,
) -> Matrix:
    """``size`` points of the domain for the relaxed point x: rows (size, d).

    Whole numbers are drawn by :func:`repeated_roundings`. In other domains every row is x itself,
    clipped to bounds that rounding errors may have crossed, as a dense array.
    """
    x = checks.array(x, "x", checks.instance(domain, "domain", InputDomain).lower.shape)
    size = checks.whole(size, "size", 0)
    if domain.integer:
        return repeated_roundings(x, size, copies, rng)
    return np.tile(np.clip(x, domain.lower, domain.upper), (size, 1))
