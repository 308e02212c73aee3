"""An attacker who knows the defense, whatever it is, and what a defense is worth against one.

The attacks of Koh et al. 2021 model two defenses and hope for the rest. Whoever knows the defense
needs no model of it: add a candidate to the clean data, run the defense, train, and look. That may
take seconds. The test error without a defense takes milliseconds, and few candidates exceed it
behind the defense.

*Pool.* Any attack is played without defenses, as it is and within several other limits: points that
lie nearer the centroids do less harm and look more usual. Every poison that the attack measures on
its way is kept.

*Copies.* A defense may drop repeated points. So rows that repeat others are moved apart: by one
count, or by a small fraction of their entries.

*Search.* Candidates of one limit with as many points per class form a group: a defense removes all
of a group or nothing, as a rule. First the best of each group is measured behind the defense, then
the second of each, in order of the undefended error. A candidate whose undefended error is no
larger than the best error found is passed over; that is a heuristic, since a defense that discards
clean points can also raise the error.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Shaped
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, first_rows
from poisoning.attacks.attacked import Attack, Attacked, an_attack, played, playing, several
from poisoning.attacks.kkt import KKT
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.attacks.selection import BestFirst, measured
from poisoning.errors import SolverError
from poisoning.feasible.sets import InputDomain
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import NONE, AttackedGame, LinearGame
from poisoning.settings import COUNT, PERCENTILE, SHARE, Settings, setting

_LIMITS = ("radius_percentile", "slab_percentile")


@dataclass(frozen=True)
class AdaptiveSource:
    """Where poison came from.

    ``attack`` found it; it has ``sizes`` points of each class. ``undefended`` is its test error
    without a defense, before repeated rows were moved apart.
    """

    attack: Attack
    sizes: tuple[int, ...]
    undefended: float


@dataclass(frozen=True)
class Adaptive(Settings):
    """An attacker who knows the defenses of the game: ``Adaptive(KKT(0.03))(game, rng)``.

    Against one known defense, play ``game.with_defenses([defense])``. ``attack`` is any attack on a
    :class:`~poisoning.games.linear.LinearGame`; its settings ``radius_percentile`` and
    ``slab_percentile``, where it is a dataclass and has them, take the values ``percentiles``
    beside its own. The time is that of playing the attack so often, and of measuring ``tries``
    candidates behind the defenses. For KKT and min-max a coarse grid of decoys does nearly as much
    as the full one.
    """

    attack: Attack
    percentiles: tuple[float, ...] = setting(
        (95.0, 80.0, 70.0, 50.0), PERCENTILE, "further limits of the poison", many=True
    )
    tries: int = setting(30, COUNT, "how many candidates are measured behind the defenses at most")
    jitter: float = setting(
        0.01, SHARE,
        "how far repeated rows move apart, as a fraction of their entries; counts by 1, unless 0",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check ``attack`` too."""
        super().__post_init__()
        an_attack(self.attack, "Adaptive: attack")

    def __call__(
        self, game: LinearGame, rng: int | np.random.Generator, *, enough: float = np.inf
    ) -> Attacked[AdaptiveSource]:
        """The best poison found behind the game's defenses; ``history`` holds all that were tried.

        The search ends early when a value reaches ``enough``. ``skipped`` counts limits within
        which the attack finds no poison.

        Raises what the attack raises, ``SolverError`` only if it does within all limits;
        ``ValueError`` if a defense fails, or its scores are not one number for every point.
        """
        playing(self, game, LinearGame)
        streams, moving = checks.generator(rng).spawn(2)
        return self.search(game, self.pool(game, streams), moving, enough=enough)

    def search(
        self,
        game: LinearGame,
        pool: "Pool",
        rng: int | np.random.Generator,
        *,
        enough: float = np.inf,
    ) -> Attacked[AdaptiveSource]:
        """The same from a ``pool`` that was filled before.

        Many defenders can be tried with one pool, and ``game`` may have another learner than the
        game that it was filled in.
        """
        playing(self, game, LinearGame)
        begun, moving = perf_counter(), checks.generator(rng)
        search, tried, best = BestFirst(game), [], None
        for source, poison in _in_turn(checks.instance(pool, "pool", Pool).candidates):
            if best is not None and source.undefended <= search.bound(best):
                continue
            poison = apart(poison, self.jitter, moving) if self.jitter else poison
            search.offer(poison)
            tried.append((source, pool.seconds + perf_counter() - begun))
            best = search.settle()
            if len(tried) == self.tries or search.bound(best) >= enough:
                break
        outcomes = search.evaluation(best)
        history = tuple(search.tried(k, *one) for k, one in enumerate(tried))
        return Attacked(
            search.candidates[best], game.value(outcomes), outcomes, tried[best][0], history,
            pool.skipped, pool.seconds + perf_counter() - begun,
        )  # fmt: skip

    def pool(self, game: LinearGame, rng: int | np.random.Generator) -> "Pool":
        """All poison that the attack measures within any limits; no defense plays a part."""
        playing(self, game, LinearGame)
        begun, bare = perf_counter(), game.with_defenses(())
        attacks = self._within_limits()
        found, failures = [], []
        streams = checks.generator(rng).spawn(len(attacks))
        for attack, stream in zip(attacks, streams, strict=True):
            watched = _Watched(bare)
            try:
                size = len(played(attack, watched, stream).poison.y)
            except SolverError as error:
                failures.append(error)
                continue
            for poison in watched.distinct(size):
                error = _undefended(bare.attacked(poison.X, poison.y))
                sizes = tuple(int(np.sum(poison.y == label)) for label in game.labels)
                found.append((AdaptiveSource(attack, sizes, error), poison))
        if not found:
            none = EmptySetError("Adaptive: the attack measured no poison in the game's domain")
            raise (failures or [none])[0]
        return Pool(tuple(found), len(failures), perf_counter() - begun)

    def _within_limits(self) -> list[Attack]:
        """The attack, as it is and with other percentiles."""
        own = fields(self.attack) if is_dataclass(self.attack) else ()  # those of others stay
        known = [one.name for one in own if one.init and one.name in _LIMITS]
        others = [p for p in self.percentiles if any(getattr(self.attack, k) != p for k in known)]
        return [self.attack, *(replace(self.attack, **dict.fromkeys(known, p)) for p in others)]


@dataclass(frozen=True)
class Pool:
    """The candidates of an :class:`Adaptive` attacker, who has not looked at a defense yet.

    ``skipped`` counts limits within which the attack found no poison; ``seconds`` is what it took.
    """

    candidates: tuple[tuple[AdaptiveSource, PoisonedSet], ...]
    skipped: int
    seconds: float


@dataclass(frozen=True)
class DefenseReport:
    """What a defense is worth: test errors behind it, as fractions.

    ``clean`` is the error on clean data behind the defense ``name``, ``undefended`` without it.
    ``fixed`` holds, for each attack, its poison as found against the game's own defenses, measured
    behind this one; ``adaptive`` the best poison of an attacker who knows this one.
    """

    name: str
    undefended: float
    clean: float
    fixed: tuple[Attacked, ...]
    adaptive: tuple[Attacked, ...]

    @property
    def errors(self) -> dict[str, float]:
        """Clean test error without ("none") and behind the defense ("clean"); under attack.

        "fixed" and "adaptive" are those of the strongest attack of either kind.
        """
        fixed, adaptive = (max(one.value for one in all_) for all_ in (self.fixed, self.adaptive))
        return {
            "none": self.undefended, "clean": self.clean, "fixed": fixed, "adaptive": adaptive
        }  # fmt: skip


def assess_defense(
    game: LinearGame,
    defense: Any,
    attacks: Sequence[Attack] = (
        KKT(0.03, quantiles=(0.1, 0.2, 0.3, 0.4, 0.5), decoy_copies=(3, 8, 18)),
    ),
    *,
    rng: int | np.random.Generator = 0,
) -> DefenseReport:
    """A defense against attackers who do not know it, and against those who do.

    ``defense`` is any object with ``fit(X, y)`` and ``score(X, y)``, or an outlier detector of
    scikit-learn or pyod. The attackers who do not know it expect the defenses of ``game``. Each of
    ``attacks`` is an attack, or :class:`Adaptive` around one, to choose how its attacker searches.
    One who knows the defense may also use the poison of one who does not.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument, and what :class:`Adaptive`
    raises.
    """
    checks.instance(game, "game", LinearGame)
    if not several(attacks):
        raise ValueError("attacks must hold at least one attack, it is empty.")
    knowing = [one if isinstance(one, Adaptive) else Adaptive(one) for one in attacks]
    known = game.with_defenses([defense])
    (name,) = known.defenses
    streams = checks.generator(rng).spawn(len(knowing))
    fixed, adaptive = [], []
    clean = known.evaluate(game.X[:0], game.y[:0])
    for attack, stream in zip(knowing, streams, strict=True):
        unaware, aware = stream.spawn(2)
        poison = played(attack.attack, game, unaware).poison
        fixed.append(measured(known, poison.X, poison.y))
        adaptive.append(max(attack(known, aware), fixed[-1], key=lambda found: found.value))
    errors = clean[NONE].test_error, clean[name].test_error
    return DefenseReport(name, *errors, tuple(fixed), tuple(adaptive))


class _Watched(LinearGame):
    """A game that keeps all poison measured in it."""

    def __init__(self, game: LinearGame) -> None:
        self.__dict__.update(game.__dict__)  # what was checked, and what is known of the data
        self.seen: list[tuple[Matrix, ndarray]] = []

    def attacked(
        self,
        points: Matrix,
        labels: Shaped[ndarray, "r"],
        *,
        exact: bool = True,
        rng: int | np.random.Generator | None = None,
    ) -> AttackedGame:
        """As in any game."""
        found = super().attacked(points, labels, exact=exact, rng=rng)
        self.seen.append((found.data.X_poison, found.data.y_poison))
        return found

    def distinct(self, most: int) -> Iterator[PoisonedSet]:
        """What was measured, once each, if it lies in the domain and has at most ``most`` points.

        An attack may also measure what it could not use, such as points before rounding.
        """
        known = set()
        for X, y in self.seen:
            content = (X.data, X.indices, X.indptr) if sp.issparse(X) else (X,)
            key = tuple(part.tobytes() for part in (*content, y))
            if key not in known and 0 < len(y) <= most and self.domain.contains(X).all():
                known.add(key)
                yield PoisonedSet(X, y, self.n, len(y) / self.n, self.domain)


def _undefended(attacked: AttackedGame) -> float:
    """The test error without a defense, roughly if it can be."""
    rough = attacked.rough_error(NONE)
    return attacked.outcome(NONE).test_error if rough is None else rough


def _in_turn(
    pool: Sequence[tuple[AdaptiveSource, PoisonedSet]],
) -> list[tuple[AdaptiveSource, PoisonedSet]]:
    """The best of each group by its undefended error, then the second of each, and so on."""
    ranks: Counter = Counter()
    ranked = []
    for source, poison in sorted(pool, key=lambda one: -one[0].undefended):
        group = id(source.attack), source.sizes  # an attack may hold arrays
        ranked.append((ranks[group], source, poison))
        ranks[group] += 1
    return [tuple(rest) for _, *rest in sorted(ranked, key=lambda one: one[0])]


def apart(poison: PoisonedSet, spread: float, rng: np.random.Generator) -> PoisonedSet:
    """The poison with every row that repeats an earlier one moved a little within the domain.

    Counts: one entry, another for each row while there are enough, goes up by one, or down by one
    where it is at its largest. Otherwise every entry shrinks by up to the fraction ``spread``;
    zeros stay.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument.
    """
    checks.instance(poison, "poison", PoisonedSet)
    spread, rng = checks.between(spread, "spread", 0.0, 1.0), checks.generator(rng)
    X, domain = poison.X.copy(), poison.domain
    again = np.setdiff1d(np.arange(X.shape[0]), first_rows(X))
    if domain.integer:
        X = _by_one(X, again, domain, rng)
    elif sp.issparse(X):
        entries = np.isin(np.repeat(np.arange(X.shape[0]), np.diff(X.indptr)), again)
        X.data[entries] *= 1.0 - spread * rng.random(int(entries.sum()))
    else:
        X[again] *= 1.0 - spread * rng.random((len(again), X.shape[1]))
        X = np.clip(X, domain.lower, domain.upper)
    return replace(poison, X=X)


def _by_one(
    X: Matrix, rows: Shaped[ndarray, "k"], domain: InputDomain, rng: np.random.Generator
) -> Matrix:
    columns = np.flatnonzero(domain.upper >= 1.0)
    if not columns.size:
        return X
    columns = rng.choice(columns, size=len(rows), replace=len(rows) > len(columns))
    steps = np.where(np.asarray(X[rows, columns]) < domain.upper[columns], 1.0, -1.0)
    moves = sp.csr_array((steps, (rows, columns)), shape=X.shape)
    return sp.csr_array(X + moves) if sp.issparse(X) else X + moves.toarray()
