"""The game of Koh et al. 2021: a linear classifier, a defender who discards, an attacker who adds.

Section 5.2: the defender fits an outlier detector to clean data and poison together, discards a
fraction p of each class, and trains on the rest. The attacker does not know the detector, so the
value of poison is the least test error over all detectors.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, get_args

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from sklearn.base import BaseEstimator, clone, is_classifier

from poisoning import checks
from poisoning.arrays import Matrix, vstack
from poisoning.datasets.dataset import Domain
from poisoning.defenses import FIVE, SlabDefense
from poisoning.defenses.data import CleanData, PoisonedData
from poisoning.defenses.detector import (
    as_defense,
    equipped,
    keep_mask,
    name_of,
    scored,
    scores_added,
    seeded,
)
from poisoning.defenses.filters import Together
from poisoning.errors import SolverError
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.learners import SVM, CrammerSingerSVM
from poisoning.models.linear import LinearModel
from poisoning.models.svm import SVMSolution

NONE = "none"
"""The name of the outcome without a defense."""

ROUGH = 3e-3
"""The duality gap, as a fraction of the objective, of :meth:`AttackedGame.rough_error`."""

Known = TypeVar("Known")


@dataclass(frozen=True)
class Outcome:
    """One defense against one attack; all but the model are fractions in [0, 1].

    ``poison_removed`` is NaN when there was no poison; ``clean_removed`` is of all clean points,
    ``clean_removed_by_label`` of those of each class. ``model`` is what the defender trained: a
    :class:`~poisoning.models.linear.LinearModel` if the learner is linear and there are two
    classes. ``residual`` bounds the relative error of the defense's scores, 0 if they are exact.
    """

    test_error: float
    poison_removed: float
    clean_removed: float
    clean_removed_by_label: dict[float, float]
    model: Any
    residual: float = 0.0


class LinearGame:
    """A linear classifier behind defenses: what attacker and defender both know.

    ``X`` (n, d), dense or sparse, and ``y`` (n,), −1 and +1 or 0 … k − 1, are the clean training
    data, ``X_test`` (m, d), ``y_test`` (m,) those that errors are measured on. ``domain`` says
    which values an example may take: "counts", "box01", "nonnegative", "real", or an
    :class:`~poisoning.feasible.sets.InputDomain`. ``learner`` is a scikit-learn classifier.
    ``defenses`` are objects (:class:`~poisoning.defenses.detector.Defense`, or outlier detectors of
    scikit-learn or pyod), with names of their own or as a mapping from names; each discards the
    fraction ``remove`` of every class.

    All evaluations of one game share cached quantities of the clean data. No result depends on
    earlier evaluations. Arrays, defenses and learner must not be changed afterwards.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument; the message names it.
    """

    def __init__(
        self,
        X: Matrix,
        y: Shaped[ndarray, "n"],
        X_test: Matrix,
        y_test: Shaped[ndarray, "m"],
        *,
        domain: Domain | InputDomain,
        learner: Any,
        defenses: Iterable[Any] | Mapping[str, Any] = FIVE,
        remove: float = 0.05,
    ) -> None:
        self.X = checks.matrix(X, "X", rows=2)
        self.y = checks.labels(y, "y", self.X.shape[0])
        self.X_test = checks.matrix(X_test, "X_test", columns=self.X.shape[1])
        self.y_test = checks.labels(y_test, "y_test", self.X_test.shape[0])
        self.labels = self._labels()
        self.y_test = self.y_test.astype(self.y.dtype, copy=False)
        self.domain = self._domain(domain)
        self.learner = _learner(learner)
        self.defenses = named(defenses)
        self.remove = checks.fraction(remove, "remove")
        self._check_classes()
        self.data = CleanData(self.X, self.y)
        self._learned: dict[Hashable, Any] = {}
        self._aimed: dict[Hashable, Any] = {}

    def _check_classes(self) -> None:
        parts = [
            part
            for one in self.defenses.values()
            for part in (one.defenses if isinstance(one, Together) else (one,))
        ]
        if not self.binary and any(isinstance(part, SlabDefense) for part in parts):
            raise ValueError("defenses: the slab defense is for two classes, -1 and +1.")

    def _labels(self) -> tuple[float, ...]:
        found = np.unique(self.y)
        if set(found) == {-1.0, 1.0}:
            expected = {-1.0, 1.0}
        else:
            expected = set(range(len(found)))
            if len(found) < 3 or set(found) != expected:
                raise ValueError(
                    "y must hold both of -1 and +1, or all of 0 to k - 1 with k of at least 3; it "
                    f"holds {', '.join(f'{label:g}' for label in found[:5])}."
                )
        strange = set(np.unique(self.y_test)) - expected
        if strange:
            raise ValueError(f"y_test holds the label {min(strange):g}, which y does not.")
        return tuple(float(label) for label in sorted(expected))

    def _domain(self, domain: Any) -> InputDomain:
        if not isinstance(domain, InputDomain):
            if not isinstance(domain, str) or domain not in get_args(Domain):
                raise ValueError(
                    f"domain must be an InputDomain or one of {', '.join(get_args(Domain))}, not "
                    f"{domain!r}."
                )
            return InputDomain.of(domain, self.X)
        if domain.lower.size != self.X.shape[1]:
            raise ValueError(f"domain has {domain.lower.size} features, X has {self.X.shape[1]}.")
        outside = np.flatnonzero(~domain.contains(self.X))
        if outside.size:
            raise ValueError(f"domain: row {outside[0]} of X lies outside it.")
        return domain

    # Other games on the same clean data -----------------------------------------------------------

    def with_defenses(self, defenses: Iterable[Any] | Mapping[str, Any]) -> "LinearGame":
        """The same game with other defenses.

        Raises ``ValueError`` for two of one name, one that is called "none", or the slab defense
        with more than two classes; ``TypeError`` for what is no defense.
        """
        other = self._like(defenses=named(defenses))
        other._check_classes()
        return other

    def with_defender(
        self,
        learner: Any,
        defenses: Iterable[Any] | Mapping[str, Any] = FIVE,
        remove: float = 0.05,
    ) -> "LinearGame":
        """The same data before another defender, as in a game made anew but for its cost.

        Quantities of the clean data that no learner enters, such as singular vectors, are shared.

        Raises ``TypeError`` for a learner that is no classifier of scikit-learn; ``ValueError`` for
        a fraction ``remove`` that is none; both as :meth:`with_defenses` does.
        """
        other = self._like(
            learner=_learner(learner), defenses=named(defenses),
            remove=checks.fraction(remove, "remove"), _learned={}, _aimed={},
        )  # fmt: skip
        other._check_classes()
        return other

    def blind(self) -> "LinearGame":
        """The game of an attacker who does not know the test data.

        The clean training data take their place (Section 6.1), also in evaluations.
        """
        return self._like(X_test=self.X, y_test=self.y, _aimed={})

    def with_test(self, X_test: Matrix, y_test: Shaped[ndarray, "m"]) -> "LinearGame":
        """The same game with other test data, (m, d) and (m,), of the same classes.

        Raises ``ValueError`` or ``TypeError`` for data of another kind.
        """
        X_test = checks.matrix(X_test, "X_test", columns=self.X.shape[1])
        y_test = checks.labels(y_test, "y_test", X_test.shape[0])
        other = self._like(X_test=X_test, y_test=y_test, _aimed={})
        other._labels()
        other.y_test = y_test.astype(self.y.dtype, copy=False)
        return other

    def against(self, poison: Any) -> "LinearGame":
        """The game of an attacker whose limits are those of clean data and ``poison`` together.

        Algorithm 1: the defender's detector has seen an attack, and its centroids have moved.
        ``poison`` has points ``X`` (r, d) and labels ``y`` (r,), as a
        :class:`~poisoning.attacks.poisoned_set.PoisonedSet` has.

        Raises ``ValueError`` or ``TypeError`` as :meth:`evaluate` does, ``TypeError`` for poison
        without ``X`` and ``y``.
        """
        if not (hasattr(poison, "X") and hasattr(poison, "y")):
            raise TypeError(f"poison must be a PoisonedSet, not {type(poison).__name__}.")
        return self._like(_modelled=self.checked(poison.X, poison.y))

    def _like(self, **changes: Any) -> "LinearGame":
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **changes)
        return other

    # Used by attacks -----------------------------------------------------------------------------

    def remember(self, key: Hashable, find: Callable[[], Known], *, tested: bool = False) -> Known:
        """The result of ``find()``, computed at the first call with this ``key``.

        For what follows from the clean data and the learner: games on the same data with the same
        learner share it. What follows from the test data too is ``tested``: then a game with other
        test data computes its own.
        """
        known = self._aimed if tested else self._learned
        if key not in known:
            known[key] = find()
        return known[key]

    @property
    def n(self) -> int:
        """The number of clean training examples."""
        return len(self.y)

    @property
    def binary(self) -> bool:
        """Whether the labels are −1 and +1."""
        return self.labels == (-1.0, 1.0)

    def poison_size(self, epsilon: float) -> int:
        """round(ε n), the number of poisoned points.

        Raises ``ValueError`` if that is none.
        """
        size = round(checks.positive(epsilon, "epsilon") * self.n)
        if size == 0:
            raise ValueError(f"epsilon {epsilon:g} of {self.n} points is not a single one.")
        return size

    def feasible(self, radius_percentile: float, slab_percentile: float) -> FeasibleSet:
        """F_β of two classes: where poison passes the L2 and the slab defense as modelled.

        See :meth:`poisoning.feasible.sets.FeasibleSet.fit`.
        """
        return FeasibleSet.fit(*self.modelled, self.domain, radius_percentile, slab_percentile)

    @property
    def modelled(self) -> tuple[Matrix, Shaped[ndarray, "k"]]:
        """The data that limit the attacker: the clean ones, and poison given to :meth:`against`."""
        if self._modelled is None:
            return self.X, self.y
        X, y = self._modelled
        return vstack([self.X, X]), np.concatenate([self.y, y])

    _modelled: tuple[Matrix, ndarray] | None = None

    @property
    def lam(self) -> float:
        """λ of a learner that solves Eq. (2).

        Raises ``TypeError`` for another learner: to attack it, run the attack on the game with an
        SVM and evaluate the poison in this game.
        """
        return self.svm("attacks that model the learner").lam

    @property
    def clean_svm(self) -> SVMSolution:
        """The solution of Eq. (2) on the clean data, for a learner that solves Eq. (2)."""
        self.svm("clean_svm")
        return self.clean_model.solution_

    def svm(self, who: str) -> SVM:
        """The learner, for ``who`` models an SVM of two classes.

        Raises ``TypeError`` for another learner or more classes.
        """
        if not (isinstance(self.learner, SVM) and self.binary):
            raise TypeError(
                f"{who}: the game's learner must be SVM with labels -1 and +1, not "
                f"{self.learner!r} with {len(self.labels)} classes; play that game, and evaluate "
                "its poison in this one."
            )
        return self.learner

    @property
    def clean_model(self) -> Any:
        """The learner, fitted to the clean data."""
        return self.remember("model", lambda: clone(self.learner).fit(self.X, self.y))

    # Evaluation ----------------------------------------------------------------------------------

    def evaluate(
        self,
        points: Matrix,
        labels: Shaped[ndarray, "r"],
        *,
        rng: int | np.random.Generator | None = None,
    ) -> dict[str, Outcome]:
        """The effect of any given poison: outcomes without a defense ("none") and behind each.

        ``points`` (r, d) may have no rows: then the outcomes show the cost of the defenses alone.
        Points need not lie in the domain. ``rng``, a seed or a generator, is for defenses that draw
        at random, and for learners with a ``random_state``; without it a learner uses its own
        ``random_state``, or seed 0 if that is None.

        Raises ``ValueError`` or ``TypeError`` for poison that is no matrix of the game's columns
        with a label of the game's classes for every row.
        """
        attacked = self.attacked(points, labels, rng=rng)
        return {name: attacked.outcome(name) for name in (NONE, *self.defenses)}

    def value(self, outcomes: Mapping[str, Outcome]) -> float:
        """The value of poison: the least test error over the defenses, or that without any.

        Raises ``ValueError`` for outcomes that lack the one without a defense.
        """
        if NONE not in outcomes:
            raise ValueError(f"outcomes must hold {NONE!r}, as those of evaluate do.")
        behind = [outcome.test_error for name, outcome in outcomes.items() if name != NONE]
        return min(behind, default=outcomes[NONE].test_error)

    def attacked(
        self,
        points: Matrix,
        labels: Shaped[ndarray, "r"],
        *,
        exact: bool = True,
        rng: int | np.random.Generator | None = None,
    ) -> "AttackedGame":
        """The clean data with this poison, to be measured behind one defense after another.

        Unless ``exact``, a defense may approximate its scores where exactness takes minutes.
        """
        stream = None if rng is None else checks.generator(rng, "rng")
        return AttackedGame(self, *self.checked(points, labels), exact, stream)

    def checked(
        self, points: Matrix, labels: Shaped[ndarray, "r"]
    ) -> tuple[Matrix, Shaped[ndarray, "r"]]:
        """Poison as arrays of the game's kind.

        Raises ``ValueError`` or ``TypeError`` as :meth:`evaluate` does.
        """
        X = checks.matrix(points, "points", columns=self.X.shape[1], rows=0)
        y = checks.labels(labels, "labels", X.shape[0])
        strange = set(np.unique(y)) - set(self.labels)
        if strange:
            raise ValueError(f"labels holds {min(strange):g}, which is no class of this game.")
        return X, y.astype(self.y.dtype)


class AttackedGame:
    """One poisoned training set, behind every defense; made by :meth:`LinearGame.attacked`."""

    def __init__(
        self,
        game: LinearGame,
        X_poison: Matrix,
        y_poison: Shaped[ndarray, "r"],
        exact: bool,
        rng: np.random.Generator | None,
    ) -> None:
        self.game = checks.instance(game, "game", LinearGame)
        rng = None if rng is None else checks.generator(rng)
        self.data = PoisonedData(
            game.data, X_poison, y_poison, lambda: self.undefended, exact=exact, rng=rng
        )
        self._kept: dict[int, Bool[ndarray, "m"]] = {}  # by a defense's id: names may repeat

    def outcome(self, name: str) -> Outcome:
        """Sanitise by the defense of that name, train, test.

        Raises ``ValueError`` for a name that is neither "none" nor one of the game's defenses.
        """
        keep = self.keep(name)
        left = np.unique(self.data.y[keep])
        if len(left) < 2:
            classes = "no points" if not len(left) else f"no points but those of class {left[0]:g}"
            raise ValueError(
                f"defense {name!r} leaves {classes}: nothing can be learned from them."
            )
        model = self.undefended if keep.all() else self._trained(keep)
        data, game = self.data, self.game

        def removed(members: Bool[ndarray, "m"]) -> float:
            return float(1.0 - keep[members].mean()) if members.any() else float("nan")

        return Outcome(
            test_error=self._test_error(model),
            poison_removed=removed(data.poisoned),
            clean_removed=removed(~data.poisoned),
            clean_removed_by_label={
                float(label): removed(~data.poisoned & (data.y == label)) for label in game.labels
            },
            model=model,
            residual=self._residual(name),
        )

    def rough_error(self, name: str) -> float | None:
        """The test error behind a defense of an SVM trained to the tolerance ``ROUGH`` only.

        None for another learner. Raises ``ValueError`` for an unknown name.
        """
        game, keep = self.game, self.keep(name)
        if not isinstance(game.learner, SVM) or not game.binary:
            return None
        learner = clone(game.learner).set_params(tol=max(ROUGH, game.learner.tol))
        return self._test_error(self._trained(keep, learner))

    def _test_error(self, model: Any) -> float:
        # A copy, since a learner may change what it is given.
        return float(np.mean(checks.predicted(model, self.game.X_test.copy()) != self.game.y_test))

    def keep(self, name: str) -> Bool[ndarray, "m"]:
        """The points that a defense keeps."""
        if name == NONE:
            return np.ones(len(self.data.y), dtype=bool)
        if name not in self.game.defenses:
            known = ", ".join((NONE, *self.game.defenses))
            raise ValueError(f"there is no defense {name!r} in this game; there are {known}.")
        return self._left(name, self.game.defenses[name])

    def _left(self, name: str, defense: Any) -> Bool[ndarray, "m"]:
        if id(defense) not in self._kept:
            if isinstance(defense, Together):
                parts = [self._left(name_of(part), part) for part in defense.defenses]
                self._kept[id(defense)] = np.logical_and.reduce(parts)
            else:
                scores = self._scores(name, defense)
                keep = keep_mask(scores, self.data.y, self.game.remove)
                if not keep.any():
                    raise ValueError(f"defense {name!r} leaves no points: all its scores are ∞.")
                self._kept[id(defense)] = keep
        return self._kept[id(defense)]

    def _scores(self, name: str, defense: Any) -> Float[ndarray, "m"]:
        data = self.data
        try:
            if scores_added(defense):
                scores = defense.score_added(data)
            else:
                fresh = equipped(defense, self.game.learner)
                scores = scored(fresh, data.X.copy(), data.y.copy())
            scores = np.asarray(scores, dtype=np.float64)
        except Exception as error:
            if isinstance(error, SolverError) or isinstance(defense, tuple(map(type, FIVE))):
                raise
            raise ValueError(f"defense {name!r} failed: {type(error).__name__}: {error}") from error
        if scores.shape != data.y.shape:
            raise ValueError(
                f"defense {name!r} must score each of {len(data.y)} points, its scores have the "
                f"shape {scores.shape}."
            )
        if np.isnan(scores).any():
            raise ValueError(
                f"defense {name!r} must score each of {len(data.y)} points, "
                f"{np.isnan(scores).sum()} of its scores are NaN."
            )
        return scores

    def _residual(self, name: str) -> float:
        """The bound on the relative error of the scores behind an outcome."""
        defense = self.game.defenses.get(name)
        parts = defense.defenses if isinstance(defense, Together) else (defense,)
        return max(self.data.residuals.get(id(part), 0.0) for part in parts)

    @cached_property
    def undefended(self) -> Any:
        """The learner trained on all points."""
        return self._trained(np.ones(len(self.data.y), dtype=bool))

    def _trained(self, keep: Bool[ndarray, "m"], learner: Any = None) -> Any:
        """The game's learner, or another of its kind, trained on the points kept."""
        data, game = self.data, self.game
        learner = clone(game.learner) if learner is None else learner
        if hasattr(learner, "fit_added"):
            if keep.all() and not data.poisoned.any():
                return _model(game.clean_model)
            # Weights instead of fewer rows allow a warm start from the clean solution. This start,
            # and so the model, does not depend on earlier evaluations.
            weights = keep.astype(np.float64)
            return _model(learner.fit_added(data.X, data.y, weights, game.clean_model))
        seed = None
        if data.rng is not None and any(
            key.endswith("random_state") for key in learner.get_params()
        ):
            takes_it = isinstance(learner, CrammerSingerSVM)
            seed = data.rng if takes_it else int(data.rng.integers(2**31))
        return _model(seeded(learner, seed).fit(data.X[keep], data.y[keep]))


def named(defenses: Iterable[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Defenses by name.

    Raises ``ValueError`` for two of one name, or one that is called "none"; ``TypeError`` for what
    is no defense.
    """
    if isinstance(defenses, str) or not isinstance(defenses, Iterable):
        raise TypeError(f"defenses must be several defenses, such as FIVE, not {defenses!r}.")
    found: dict[str, Any] = {}
    pairs = defenses.items() if isinstance(defenses, Mapping) else ((None, d) for d in defenses)
    for given, one in pairs:
        if isinstance(one, str):
            raise TypeError(f"defenses must be defense objects, such as KNNDefense(), not {one!r}.")
        if isinstance(one, Together):
            defense = replace(one, defenses=tuple(named(one.defenses).values()))
            if not defense.defenses:
                raise ValueError("defenses: Together needs at least one.")
        else:
            known = hasattr(one, "score_added") and not isinstance(one, type)
            defense = one if known else as_defense(one)
        name = name_of(defense) if given is None else given
        if not isinstance(name, str) or not name:
            raise TypeError(f"defenses: a name must be a string, not {name!r}.")
        if name == NONE or name in found:
            raise ValueError(f"defenses: the name {name!r} is taken; give a mapping of names.")
        found[name] = defense
    return found


def _learner(learner: Any) -> Any:
    """A copy of the classifier, so that the game's stays as it is."""
    own = isinstance(learner, BaseEstimator)
    if not own or not hasattr(learner, "fit") or not is_classifier(learner):
        raise TypeError(
            f"learner must be a scikit-learn classifier such as SVM(), not {learner!r}."
        )
    return clone(learner)


def _model(fitted: Any) -> Any:
    """The linear model of a fitted classifier of −1 and +1 where it has one, else itself."""
    coefficients = getattr(fitted, "coef_", None)
    two = np.array_equal(getattr(fitted, "classes_", ()), [-1.0, 1.0])
    if coefficients is None or not two:
        return fitted
    if sp.issparse(coefficients):
        coefficients = coefficients.toarray()
    theta = np.atleast_2d(coefficients).astype(np.float64)
    if len(theta) != 1:
        return fitted
    return LinearModel(theta[0], float(np.ravel(fitted.intercept_)[0]))
