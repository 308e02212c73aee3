"""The feasible set F_β: where poison may lie and still pass the defenses that the attacker models.

Koh et al. 2021, Sections 3.2, 3.3 and 4.2.2. For each class y it is the intersection of

* the input domain: counts 0 … M_i, the box [0, 1], x ≥ 0, or all of R^d;
* an L2 ball, ‖x − μ_y‖² ≤ τ_y²; for counts its relaxation E‖x̂ − μ_y‖² ≤ τ_y² over the randomised
  rounding x̂ of x (Eq. 5-8), that is Σ f(x_i) − 2μ_y·x + ‖μ_y‖² ≤ τ_y² with the envelope f;
* a slab, |(μ_+ − μ_-)·(x − μ_y)| ≤ s_y;
* under decoy parameters (θ, b): 1 − cap ≤ y(θ·x + b) ≤ 1. The upper end makes the point a support
  vector (Eq. 17; its second constraint, misprinted in the paper, reads 1 + θ·x̃_- ≥ 0), the lower
  end keeps its loss within what the loss defense lets pass.
"""

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, column_mean, squared_distances
from poisoning.datasets.dataset import Domain


@dataclass(frozen=True)
class InputDomain:
    """The values a data point may take: lower_i ≤ x_i ≤ upper_i, whole numbers if ``integer``.

    ``lower`` and ``upper`` (d,) may be infinite. When ``integer``, ``lower`` is 0 and ``upper``
    whole.

    Raises ``ValueError`` or ``TypeError`` for limits that are not so, or upside down.
    """

    kind: Domain
    lower: Float[ndarray, "d"]
    upper: Float[ndarray, "d"]

    def __post_init__(self) -> None:
        checks.one_of(self.kind, "kind", get_args(Domain))
        lower = checks.bounds(self.lower, "lower", None)
        upper = checks.bounds(self.upper, "upper", lower.size)
        if not lower.size:
            raise ValueError("lower must hold a limit for at least one feature.")
        _ordered(lower, upper)
        if self.integer and (lower.any() or not np.isfinite(upper).all()):
            raise ValueError("lower must be 0, and upper finite, for counts.")
        if self.integer and np.any(upper != np.floor(upper)):
            raise ValueError("upper must hold whole numbers for counts.")
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    @classmethod
    def of(cls, kind: Domain, X: Matrix) -> "InputDomain":
        """The domain of the clean data ``X`` (n, d).

        Counts are capped, coordinate by coordinate, at the largest value that occurs in ``X``:
        Section 3.3 chooses the number of terms of f in this way, and f is not defined beyond it.

        Raises:
            ValueError: there is no such domain, or the data themselves lie outside it.
        """
        X = checks.matrix(X, "X")
        d = X.shape[1]
        zeros, infinite = np.zeros(d), np.full(d, np.inf)
        if kind == "counts":
            largest = X.max(axis=0)
            largest = largest.toarray() if sp.issparse(largest) else np.asarray(largest)
            # Where the largest is no whole number, the row that holds it lies outside.
            largest = np.floor(largest.astype(np.float64).ravel())
            domain = cls(kind, zeros, np.maximum(largest, 0.0))
        elif kind == "box01":
            domain = cls(kind, zeros, np.ones(d))
        elif kind == "nonnegative":
            domain = cls(kind, zeros, infinite)
        elif kind == "real":
            domain = cls(kind, -infinite, infinite)
        else:
            kinds = ", ".join(get_args(Domain))
            raise ValueError(f"domain must be one of {kinds}, not {kind!r}.")
        outside = np.flatnonzero(~domain.contains(X))
        if outside.size:
            raise ValueError(
                f"domain {kind!r}: row {outside[0]} of the clean data lies outside it."
            )
        return domain

    @property
    def integer(self) -> bool:
        """Whether only whole numbers are allowed."""
        return self.kind == "counts"

    def contains(self, X: Matrix) -> Bool[ndarray, "n"]:
        """For each row, whether it lies in the domain, exactly.

        Raises ``ValueError`` or ``TypeError`` for what is no matrix of as many columns.
        """
        X = checks.matrix(X, "X", columns=self.lower.size, rows=0)
        if not sp.issparse(X):
            inside = (self.lower <= X) & (self.upper >= X)
            if self.integer:
                inside &= np.floor(X) == X
            return np.asarray(inside.all(axis=1))
        # An entry that is not stored is 0.
        stored = (self.lower[X.indices] <= X.data) & (X.data <= self.upper[X.indices])
        if self.integer:
            stored &= np.floor(X.data) == X.data
        rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
        inside = np.ones(X.shape[0], dtype=bool)
        inside[rows[~stored]] = False
        if np.any(self.lower > 0.0) or np.any(self.upper < 0.0):
            raise ValueError("X must be dense for a domain that does not contain 0, it is sparse.")
        return inside


@dataclass(frozen=True)
class ClassSet:
    """Where the points of one class may lie.

    {x in ``domain``: E‖x̂ − centre‖² ≤ radius², lower ≤ rows @ x ≤ upper}, x̂ being the randomised
    rounding of x for counts and x itself otherwise. ``rows`` (R, d); ``lower`` and ``upper`` (R,)
    may be infinite.

    Raises ``ValueError`` or ``TypeError`` for arrays that do not fit together or are not finite, a
    radius that is not above 0, and limits upside down.
    """

    domain: InputDomain
    centre: Float[ndarray, "d"]
    radius: float
    rows: Float[ndarray, "R d"]
    lower: Float[ndarray, "R"]
    upper: Float[ndarray, "R"]

    def __post_init__(self) -> None:
        d = checks.instance(self.domain, "domain", InputDomain).lower.size
        checks.positive(self.radius, "radius")
        rows = checks.array(self.rows, "rows", (None, d))
        lower = checks.bounds(self.lower, "lower", len(rows))
        upper = checks.bounds(self.upper, "upper", len(rows))
        _ordered(lower, upper)
        object.__setattr__(self, "centre", checks.array(self.centre, "centre", (d,)))
        for name, values in (("rows", rows), ("lower", lower), ("upper", upper)):
            object.__setattr__(self, name, values)

    def with_row(self, row: Float[ndarray, "d"], lower: float, upper: float) -> "ClassSet":
        """The set with lower ≤ row·x ≤ upper added."""
        return replace(
            self,
            rows=np.vstack([self.rows, checks.array(row, "row", self.centre.shape)]),
            lower=np.append(self.lower, lower),
            upper=np.append(self.upper, upper),
        )


@dataclass(frozen=True)
class FeasibleSet:
    """F_β, one :class:`ClassSet` per class."""

    positive: ClassSet
    negative: ClassSet

    def __post_init__(self) -> None:
        """Raise ``ValueError`` or ``TypeError`` unless both are sets of the same space."""
        shape = checks.instance(self.positive, "positive", ClassSet).centre.shape
        checks.array(checks.instance(self.negative, "negative", ClassSet).centre, "negative", shape)

    @classmethod
    def fit(
        cls,
        X: Matrix,
        y: Float[ndarray, "n"],
        domain: InputDomain,
        radius_percentile: float = 90.0,
        slab_percentile: float = 90.0,
    ) -> "FeasibleSet":
        """L2 ball and slab around each clean class centroid, fitted on the clean data (β = B(D_c)).

        τ_y and s_y are percentiles (0 to 100) of the class's clean distances ‖x − μ_y‖ and
        ``|(μ_+ − μ_-)·(x − μ_y)|``. The defender cuts 5 %; the authors' code stays within the 90th
        percentile to leave a margin for rounding and for the centroids that the poison shifts.

        Raises:
            ValueError: a percentile is outside (0, 100], or a class has no points.
        """
        X = checks.matrix(X, "X")
        y = checks.signs(y, "y", X.shape[0])
        d = checks.instance(domain, "domain", InputDomain).lower.size
        if d != X.shape[1]:
            raise ValueError(f"domain must have the {X.shape[1]} features of X, it has {d}.")
        radius_percentile = _percentile(radius_percentile, "radius_percentile")
        slab_percentile = _percentile(slab_percentile, "slab_percentile")
        if not (np.any(y == 1.0) and np.any(y == -1.0)):
            raise ValueError("y must hold both classes, -1 and +1.")
        centres = {label: column_mean(X[y == label]) for label in (1.0, -1.0)}
        axis = centres[1.0] - centres[-1.0]

        def class_set(label: float) -> ClassSet:
            points, centre = X[y == label], centres[label]
            distances = np.sqrt(squared_distances(points, centre))
            middle = float(axis @ centre)
            width = float(np.percentile(np.abs(points @ axis - middle), slab_percentile))
            radius = float(np.percentile(distances, radius_percentile))
            if radius == 0.0:
                raise ValueError(
                    f"The points of class {label:g} are equal, all or nearly all: a ball of radius "
                    "0 leaves an attacker no room."
                )
            empty = ClassSet(
                domain, centre, radius, np.zeros((0, len(axis))), np.zeros(0), np.zeros(0)
            )
            return empty.with_row(axis, middle - width, middle + width)

        return cls(class_set(1.0), class_set(-1.0))

    def under_decoy(
        self, theta: Float[ndarray, "d"], bias: float, caps: tuple[float, float]
    ) -> "FeasibleSet":
        """The set with 1 − cap_y ≤ y(θ·x + b) ≤ 1 added: a support vector of loss at most cap_y.

        ``theta`` (d,) and ``bias`` are decoy parameters: if the attack works, the defender's are
        near them, and so are the losses it sees. ``caps`` ≥ 0 are those of the classes +1 and −1.
        """
        bias = checks.between(bias, "bias", -np.inf, np.inf)
        theta = checks.array(theta, "theta", self.positive.centre.shape)

        def add(part: ClassSet, label: float, cap: float) -> ClassSet:
            cap = checks.positive(cap, "caps", zero=True)
            lower, upper = sorted((label - bias, label * (1.0 - cap) - bias))
            return part.with_row(theta, lower, upper)

        positive, negative = caps
        return FeasibleSet(add(self.positive, 1.0, positive), add(self.negative, -1.0, negative))


def _ordered(lower: Float[ndarray, "k"], upper: Float[ndarray, "k"]) -> None:
    wrong = np.flatnonzero((lower > upper) | (lower == np.inf) | (upper == -np.inf))
    if wrong.size:
        i = wrong[0]
        raise ValueError(f"lower must not be above upper: [{lower[i]:g}, {upper[i]:g}] at {i}.")


def _percentile(value: float, name: str) -> float:
    if checks.between(value, name, 0.0, 100.0) == 0.0:
        raise ValueError(f"{name} must be above 0.")
    return value
