"""What is left of an attack after each defense: the measurement behind every bar and curve.

Section 5.2 of Koh et al. 2021: the defender fits a detector to clean and poisoned data together,
discards a fraction p of each class, and trains on the rest. An attacker does not know which of the
five detectors it will meet, so an attack is worth the least test error over the five.

An attacker who chooses among hundreds of candidates against the same clean data repeats most of
the work: ``Evaluator`` keeps, exactly, what the clean data contribute to each detector and model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from poisoning.arrays import Matrix, squared_norms, to_dense, vstack
from poisoning.defenses.centroid import fit_l2, fit_slab
from poisoning.defenses.detector import keep_mask
from poisoning.defenses.filters import fit_oracle, fit_random
from poisoning.defenses.knn import NEIGHBOURS, InnerProducts, nearest
from poisoning.defenses.knn_kernels import merge_smallest
from poisoning.defenses.loss import LossDetector
from poisoning.defenses.spectrum import (
    EXACT,
    ROUGH,
    Spectrum,
    captured_with_rows,
    leading_spectrum,
    update_pays,
)
from poisoning.defenses.svd import TAIL, distance_outside
from poisoning.models.linear import LinearModel
from poisoning.models.svm import SVMSolution, train_svm

FIVE = ("l2", "slab", "loss", "svd", "knn")
"""The defenses of the paper, in its order."""

_REACH = 0.55  # of λ_k: how far beyond the top k the clean singular vectors are worth keeping
_FILTERS = ("none", "all", "random", "oracle")


@dataclass(frozen=True)
class DefenseOutcome:
    """One defense against one attack; all but the model are fractions in [0, 1].

    ``poison_removed`` is NaN when there was no poison, ``clean_removed_*`` when the class was
    empty. ``svd_residual`` is that of :class:`AttackedData` where it matters, else 0.
    """

    test_error: float
    poison_removed: float
    clean_removed_positive: float
    clean_removed_negative: float
    model: LinearModel
    svd_residual: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """The outcome of every defense asked for, by name."""

    outcomes: dict[str, DefenseOutcome]

    def __getitem__(self, defense: str) -> DefenseOutcome:
        return self.outcomes[defense]

    @property
    def minimum(self) -> float:
        """The least test error over the five defenses: what an attack is worth.

        Raises ``ValueError`` if one of the five was not evaluated.
        """
        missing = [name for name in FIVE if name not in self.outcomes]
        if missing:
            raise ValueError(f"minimum over five defenses, but {', '.join(missing)} did not run")
        return min(self.outcomes[name].test_error for name in FIVE)


Learner: TypeAlias = Callable[[Matrix, Float[ndarray, "n"], float], LinearModel]
"""How a defender trains: from data, labels and λ to a model."""


class Evaluator:
    """Measures attacks against one clean data set.

    ``X`` (n, d), ``y`` (n,) in ±1 are the clean training data, ``lam`` the defender's λ, and
    ``remove`` the fraction p of each class that every defense discards. ``learner`` is how the
    defender trains, before the loss defense and after every defense; by default Eq. (2), solved.
    """

    def __init__(
        self,
        X: Matrix,
        y: Float[ndarray, "n"],
        X_test: Matrix,
        y_test: Float[ndarray, "m"],
        lam: float,
        remove: float = 0.05,
        *,
        learner: Learner | None = None,
    ) -> None:
        self.X, self.y, self.X_test, self.y_test = X, y, X_test, y_test
        self.lam, self.remove, self.learner = lam, remove, learner

    def evaluate(
        self,
        X_poison: Matrix,
        y_poison: Float[ndarray, "r"],
        defenses: Sequence[str] = ("none", *FIVE),
        *,
        rng: np.random.Generator | None = None,
    ) -> Evaluation:
        """Train behind each of ``defenses`` on clean data and poison together.

        ``X_poison`` (r, d) may have no rows: then this is the price of the defenses alone. Beside
        the five there are "none", "all" (discards what any of the five would), "oracle" (removes
        all the poison and nothing else) and "random" (removes the fraction blindly; needs
        ``rng``). Raises ``ValueError`` for other names.
        """
        unknown = set(defenses) - {*_FILTERS, *FIVE}
        if unknown:
            raise ValueError(
                f"unknown defenses {sorted(unknown)}; there are {', '.join((*_FILTERS, *FIVE))}"
            )
        if "random" in defenses and rng is None:
            raise ValueError("the random filter needs rng")
        attacked = self.attacked(X_poison, y_poison)
        return Evaluation({name: attacked.outcome(name, rng) for name in defenses})

    def attacked(
        self, X_poison: Matrix, y_poison: Float[ndarray, "r"], *, exact: bool = False
    ) -> "AttackedData":
        """The clean data with this poison, to be measured behind one defense after another.

        On data as large as IMDB the SVD defense takes minutes if it has to be ``exact``, else half
        a minute and its scores have the error that ``svd_residual`` says.
        """
        return AttackedData(self, X_poison, y_poison, exact)

    @cached_property
    def clean_svm(self) -> SVMSolution:
        """Eq. (2) in a world without poison."""
        return train_svm(self.X, self.y, self.lam)

    @cached_property
    def _products(self) -> InnerProducts:
        return InnerProducts(self.X)

    @cached_property
    def _clean_nearest(self) -> Float[ndarray, "n w"]:
        """Squared distances of each clean point to itself and its nearest clean neighbours."""
        best = np.full((self.X.shape[0], NEIGHBOURS + 1), np.inf)
        nearest(self.X, self._products, np.ones(self.X.shape[0], dtype=np.int64), best)
        return best

    @cached_property
    def _clean_spectrum(self) -> Spectrum:
        return leading_spectrum(self.X, TAIL, reach=_REACH)


class AttackedData:
    """One poisoned training set, as every defense sees it; made by :meth:`Evaluator.attacked`."""

    def __init__(
        self, clean: Evaluator, X_poison: Matrix, y_poison: Float[ndarray, "r"], exact: bool
    ) -> None:
        self.clean = clean
        self._svd_tolerances = (EXACT,) if exact else (EXACT, ROUGH)
        self.X_poison = X_poison
        self.X = vstack([clean.X, X_poison]) if X_poison.shape[0] else clean.X
        self.y = np.concatenate([clean.y, y_poison])
        self.poisoned = np.arange(len(self.y)) >= len(clean.y)
        self._kept: dict[str, Bool[ndarray, "n"]] = {}

    def outcome(self, name: str, rng: np.random.Generator | None = None) -> DefenseOutcome:
        """Sanitise by the defense of that name, train, test; ``rng`` is for "random" alone."""
        keep = self.keep(name, rng)
        model = self.undefended if keep.all() else self.model(keep)

        def removed(members: Bool[ndarray, "n"]) -> float:
            return float(1.0 - keep[members].mean()) if members.any() else float("nan")

        return DefenseOutcome(
            test_error=model.error(self.clean.X_test, self.clean.y_test),
            poison_removed=removed(self.poisoned),
            clean_removed_positive=removed(~self.poisoned & (self.y > 0.0)),
            clean_removed_negative=removed(~self.poisoned & (self.y < 0.0)),
            model=model,
            svd_residual=self.svd_residual if name in ("svd", "all") else 0.0,
        )

    def keep(self, name: str, rng: np.random.Generator | None = None) -> Bool[ndarray, "n"]:
        """The points a defense leaves."""
        if name == "none":
            return np.ones(len(self.y), dtype=bool)
        if name == "all":
            return np.logical_and.reduce([self.keep(one) for one in FIVE])
        if name in self._kept:
            return self._kept[name]
        keep = keep_mask(self._scores(name, rng), self.y, self.clean.remove)
        if name in FIVE:  # "random" draws anew
            self._kept[name] = keep
        return keep

    def _scores(self, name: str, rng: np.random.Generator | None) -> Float[ndarray, "n"]:
        match name:
            case "l2":
                return fit_l2(self.X, self.y).score(self.X, self.y)
            case "slab":
                return fit_slab(self.X, self.y).score(self.X, self.y)
            case "loss":
                return LossDetector(self.undefended).score(self.X, self.y)
            case "svd":
                return self._svd_scores()
            case "knn":
                return self._knn_scores()
            case "random":
                return fit_random(self.X, self.y, rng=rng).scores
            case _:
                return fit_oracle(self.X, self.y, poisoned=self.poisoned).scores

    @cached_property
    def undefended(self) -> LinearModel:
        """What the defender learns from everything."""
        return self.model(np.ones(len(self.y), dtype=bool))

    def model(self, keep: Bool[ndarray, "n"]) -> LinearModel:
        """What the defender learns from the points kept."""
        if keep.all() and not self.poisoned.any() and self.clean.learner is None:
            return self.clean.clean_svm.model
        if self.clean.learner is not None:
            return self.clean.learner(self.X[keep], self.y[keep], self.clean.lam)
        # Weights, not fewer rows: then α of the clean solution is a start. It is the same start
        # whatever was evaluated before, and so is the model, to the last bit.
        weights = keep.astype(np.float64)
        start = np.zeros(len(keep))
        start[~self.poisoned] = self.clean.clean_svm.alpha * (len(self.clean.y) / weights.sum())
        return train_svm(self.X, self.y, self.clean.lam, weights=weights, alpha0=start).model

    @cached_property
    def _distinct(self) -> tuple[Matrix, Int[ndarray, "u"], Int[ndarray, "r"]]:
        """The distinct poisoned rows, their copies, and which of them each row is."""
        return _distinct_rows(vstack([self.clean.X[:0], self.X_poison]))

    @cached_property
    def _cross(self) -> Float[ndarray, "n u"]:
        """x·p for every clean row and every distinct poisoned row."""
        return np.ascontiguousarray(self.clean._products(self._distinct[0]).T)

    @cached_property
    def _inner(self) -> Float[ndarray, "u u"]:
        P = self._distinct[0]
        return to_dense(P @ P.T)

    def _knn_scores(self) -> Float[ndarray, "n"]:
        best = self.clean._clean_nearest
        if self.X_poison.shape[0]:
            P, copies, which = self._distinct
            norms, clean_norms = squared_norms(P), self.clean._products.norms
            best = best.copy()
            merge_smallest(self._cross, clean_norms, norms, copies, best)
            of_poison = np.full((P.shape[0], best.shape[1]), np.inf)
            once = np.ones(len(clean_norms), dtype=np.int64)
            merge_smallest(np.ascontiguousarray(self._cross.T), norms, clean_norms, once, of_poison)
            merge_smallest(self._inner, norms, norms, copies, of_poison)
            best = np.vstack([best, of_poison[which]])
        return np.sqrt(np.maximum(best[:, -1], 0.0))

    @property
    def svd_residual(self) -> float:
        """max ‖XᵀXv − λv‖ / λ over the k singular vectors behind the SVD defense's scores.

        At most ``EXACT`` of :mod:`poisoning.defenses.spectrum` unless only a rougher update of the
        clean ones is quick and ``exact`` was not asked for, then at most ``ROUGH``.
        :func:`poisoning.defenses.svd.fit_svd` is always exact.
        """
        return self._svd[1]

    def _svd_scores(self) -> Float[ndarray, "n"]:
        return self._svd[0]

    @cached_property
    def _svd(self) -> tuple[Float[ndarray, "n"], float]:
        """The scores of the SVD defense, and their ``svd_residual``."""
        spectrum = self.clean._clean_spectrum
        norms = self.clean._products.norms
        if not self.X_poison.shape[0]:
            return distance_outside(norms, spectrum.captured), spectrum.residual
        P, copies, which = self._distinct
        scale = np.sqrt(copies)
        for tol in self._svd_tolerances:
            if not update_pays(spectrum, P.shape[0], tol):
                continue
            inner = self._inner * np.outer(scale, scale)
            update = captured_with_rows(
                spectrum, self.clean.X, self._cross * scale, inner, TAIL, tol=tol
            )
            if update is None:
                break
            captured = np.concatenate([update.clean, (update.added / copies)[which]])
            norms = np.concatenate([norms, squared_norms(P)[which]])
            residual = max(update.residual, spectrum.residual)
            return distance_outside(norms, captured), residual
        fresh = leading_spectrum(self.X, TAIL)
        return distance_outside(squared_norms(self.X), fresh.captured), fresh.residual


def _distinct_rows(X: Matrix) -> tuple[Matrix, Int[ndarray, "u"], Int[ndarray, "r"]]:
    """The distinct rows in order of appearance, their copies, and the place of every row."""
    if sp.issparse(X):
        X = X.copy()
        X.sum_duplicates()
        X.eliminate_zeros()
        bounds = [slice(a, b) for a, b in zip(X.indptr[:-1], X.indptr[1:], strict=True)]
        keys = [(X.indices[s].tobytes(), X.data[s].tobytes()) for s in bounds]
    else:
        keys = [row.tobytes() for row in X + 0.0]  # + 0.0: minus zero is zero
    places: dict = {}
    which = np.array([places.setdefault(key, len(places)) for key in keys], dtype=np.int64)
    first = np.unique(which, return_index=True)[1]
    return X[first], np.bincount(which), which
