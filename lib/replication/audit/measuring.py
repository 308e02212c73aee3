"""Attacks, defenses and certificates on a table, until the time is up.

Each split draws its own training and test rows. What matters most is measured first, on all splits,
so that an audit that ends early lacks what matters least, and has intervals for the rest.
"""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from types import FrameType
from typing import Any

import numpy as np
from numpy import ndarray
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, cross_val_score

import poisoning as po
from poisoning.errors import DataError, SolverError
from poisoning.games.linear import NONE, LinearGame, Outcome
from replication.audit.explaining import Explanation, explain
from replication.audit.features import Problem

LAMBDAS = (0.01, 0.1, 1.0)
SPLITS = 5
"""Splits that are measured alongside; where time is left, as many more follow, and again."""

MOST_SPLITS = 20
TEST = 0.3
"""Share of the rows of a split that are tested on."""

SHARES = (0.03, 0.1)
POINTS = (1, 2, 4)
MAIN = 0.03
"""The share of poison that λ and defenses are compared at."""

PARTS = (5, 10, 25, 50, 100)
PERCENTILE = 95.0
"""Of clean distances, within which attacks stay: 100 would be the radius of one outlier."""

_INNER = 90.0  # of another KKT attack: farther from where defenses cut
_ROWS_PER_PART = 5
_SMALL = 20_000  # numbers in the training data, up to which the whole grid of decoys is tried
_FEWER = {"quantiles": (0.1, 0.2, 0.3, 0.4, 0.5), "decoy_copies": (1, 3, 8, 25)}

ATTACKS = ("flip", "alfa", "kkt", "minmax", "influence")


@dataclass(frozen=True)
class Measured:
    """The test error of one attack behind one defense, and the poison that it discards.

    ``points`` of poison, 0 for none; ``lam`` is λ. ``knows`` says what the attacker knows of the
    defense: "fixed" poison is made without knowledge of it.
    """

    split: int
    lam: float
    attack: str
    knows: str
    points: int
    defense: str
    error: float
    poison_removed: float
    clean_removed: float


@dataclass(frozen=True)
class Bound:
    """No poison of ``points`` rows brings the test error above ``bound``; of one split.

    ``method`` is "svm", :func:`poisoning.certify_test_error`, with ``attacked``, the error of the
    best attack within its set, or "vote", :func:`poisoning.partition_certificate`, with ``parts``.
    """

    split: int
    lam: float
    method: str
    points: int
    bound: float
    majority: float
    parts: int = 0
    attacked: float | None = None


@dataclass
class Findings:
    """All that an audit measured; ``failed`` counts why an attack or a proof gave nothing.

    ``ended`` is "done", "time" or "interrupted"; everything was measured on the first ``complete``
    splits. ``explanation`` is of the attack that harms most
    at the share ``MAIN`` on the first split, without a defense.
    """

    lam: float = 0.0
    points: dict[int, float] = field(default_factory=dict)
    train_rows: int = 0
    test_rows: int = 0
    errors: list[Measured] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)
    failed: dict[tuple[str, str], int] = field(default_factory=dict)
    explanation: Explanation | None = None
    ended: str = "done"
    complete: int = 0
    seconds: float = 0.0


class Stop(BaseException):
    """Measuring has to end; no ``Exception``, which an attack could take for its own failure."""


class _Stopping:
    """Raise :class:`Stop` in :func:`_measure_splits`, after ``seconds`` and again, or at Ctrl-C.

    Again, because code that is called back by compiled code cannot raise: Python drops what it
    raises, or makes another error of it. Only there, so that what sets the timer also ends it.
    ``why`` is "time", "interrupted", or None so far.
    """

    def __init__(self, seconds: float) -> None:
        self.why: str | None = None
        self._seconds = max(seconds, 1e-3)

    def __enter__(self) -> None:
        self._before = {one: signal.signal(one, self._stop) for one in _STOPS}
        signal.setitimer(signal.ITIMER_REAL, self._seconds, _AGAIN)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.why = self.why or _STOPS[number]
        while frame is not None:
            if frame.f_code is _measure_splits.__code__:
                raise Stop
            frame = frame.f_back


_STOPS = {signal.SIGALRM: "time", signal.SIGINT: "interrupted"}
_AGAIN = 1.0  # seconds


def measure(
    problem: Problem, seconds: float, tell: Callable[[str], None], seed: int = 0
) -> Findings:
    """All measurements that fit into ``seconds``; ``tell`` hears what is being done.

    A keyboard interrupt ends them early. What is kept of a split that was not finished is whole
    measurements.

    Raises:
        DataError: no SVM can be trained on these features.
    """
    findings, begun, stopping = Findings(), time.monotonic(), _Stopping(seconds)
    try:
        with stopping:
            _measure_splits(problem, findings, tell, seed)
    except (Stop, KeyboardInterrupt):
        findings.ended = stopping.why or "interrupted"
    except Exception:
        if stopping.why is None:
            raise
        findings.ended = stopping.why
    findings.seconds = time.monotonic() - begun
    return findings


def _measure_splits(
    problem: Problem, findings: Findings, tell: Callable[[str], None], seed: int
) -> None:
    findings.lam = choose_lam(problem, seed)
    draw = StratifiedShuffleSplit(MOST_SPLITS, test_size=TEST, random_state=seed)
    rows = list(draw.split(problem.y, problem.y))
    for first in range(0, MOST_SPLITS, SPLITS):
        numbers = range(first, first + SPLITS)
        splits = [_Split(problem, findings, k, *rows[k], tell, seed) for k in numbers]
        for stage in stages(splits[0].game.n):
            for split in splits:
                split.play(stage)
        findings.complete = first + SPLITS


def choose_lam(problem: Problem, seed: int) -> float:
    """The λ with the least error in a cross-validation of five folds; of equals the largest.

    Raises:
        DataError: with no λ can an SVM be trained on all folds.
    """
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    accuracy = {}
    for lam in sorted(LAMBDAS, reverse=True):
        svm = po.SVM(lam=lam)
        with suppress(SolverError):
            accuracy[lam] = cross_val_score(
                svm, problem.X, problem.y, cv=folds, error_score="raise"
            ).mean()
    if not accuracy:
        raise DataError(
            "DATA: no model can be trained on these features, whose largest is "
            f"{abs(problem.X).max():.2g}: rescale them, or say FEATURES=real."
        )
    return max(accuracy, key=accuracy.__getitem__)


def numbers_of_points(n: int) -> dict[int, float]:
    """Numbers of poisoned points in ascending order, with their share of ``n`` clean ones."""
    found = {*POINTS, *(max(1, round(share * n)) for share in SHARES)}
    return {points: points / n for points in sorted(found)}


def main_points(n: int) -> int:
    """How many points of poison λ and defenses are compared at."""
    return max(1, round(MAIN * n))


def stages(n: int) -> list[Callable[["_Split"], None]]:
    """What is measured on every split of ``n`` training rows, what matters most first."""
    main, points = main_points(n), list(numbers_of_points(n))
    first = [_Split.clean, partial(_Split.attack, points=main)]
    lams = [partial(_Split.other, lam=lam) for lam in LAMBDAS]
    one, *more = [
        [partial(_Split.attack, points=p), partial(_Split.certify, points=p)]
        for p in sorted(points, key=lambda p: (p > 1, p < max(points), p))
        if p != main
    ]
    adapted = [partial(_Split.adapt, points=p) for p in dict.fromkeys((main, *points))]
    last = partial(_Split.certify, points=main)
    return [*first, *one, *lams, adapted[0], *chain(*more), last, *adapted[1:]]


def attacks(epsilon: float, size: int) -> dict[str, tuple[Any, ...]]:
    """Every attack at the fraction ``epsilon``, in variants of which the best counts.

    ``size`` is how many numbers the training data have: if they are many, fewer variants are tried.
    Flips that fit the limits of their new class may not exist; others are always there.
    """
    limits = {"radius_percentile": PERCENTILE, "slab_percentile": PERCENTILE}
    inner = {"radius_percentile": _INNER, "slab_percentile": _INNER}
    small = size <= _SMALL
    grid = {} if small else _FEWER
    return {
        "flip": (po.RandomFlips(epsilon, **limits), po.RandomFlips(epsilon, constrained=False)),
        "alfa": (po.Alfa(epsilon, **limits), po.Alfa(epsilon, constrained=False)),
        "kkt": tuple(
            po.KKT(epsilon, **within, ratios=3, **grid)
            for within in ((limits, inner) if small else (limits,))
        ),
        "minmax": (po.MinMax(epsilon, **limits, **grid),),
        "influence": (po.Influence(epsilon, **limits, iterations=50),),
    }


class _Split:
    """One split's games: of the chosen λ behind five defenses and none, of other λ behind none."""

    def __init__(
        self, problem: Problem, findings: Findings, number: int, train: ndarray, test: ndarray,
        tell: Callable[[str], None], seed: int,
    ) -> None:  # fmt: skip
        self.problem, self.findings = problem, findings
        self.number, self.tell = number, tell
        X, y = problem.X, problem.y
        self.game = LinearGame(
            X[train], y[train], X[test], y[test], domain=problem.domain,
            learner=po.SVM(lam=findings.lam),
        )  # fmt: skip
        self.undefended = self.game.with_defenses(())
        self.size = X[train].size
        self.rng = np.random.default_rng([seed, number])
        findings.points = numbers_of_points(len(train))
        findings.train_rows, findings.test_rows = len(train), len(test)
        self.main = main_points(len(train))
        self.vacuous = len(train)  # points from which on a bound says nothing
        self.bare: dict[int, dict[str, Any]] = {}  # undefended, by points and attack

    def play(self, stage: Callable[["_Split"], None]) -> None:
        """One stage; if a model or a defense fails on these data, that is noted."""
        try:
            stage(self)
        except (SolverError, ValueError) as error:
            self._failed("a stage of a split", error)

    def _say(self, what: str) -> None:
        self.tell(f"split {self.number + 1}: {what}")

    def _measured(
        self, attack: str, points: int, outcomes: dict[str, Outcome], lam: float | None = None,
        knows: str = "fixed",
    ) -> list[Measured]:  # fmt: skip
        return [
            Measured(
                self.number, lam or self.findings.lam, attack, knows, points, defense,
                one.test_error, one.poison_removed, one.clean_removed,
            )
            for defense, one in outcomes.items()
        ]  # fmt: skip

    def _failed(self, what: str, error: Exception) -> None:
        key = what, " ".join(str(error).split())
        self.findings.failed[key] = self.findings.failed.get(key, 0) + 1

    def clean(self) -> None:
        """The model, the cost of the defenses, and a vote of models, without poison."""
        self._say("clean data")
        outcomes = self.game.evaluate(self.game.X[:0], self.game.y[:0])
        self.findings.errors += self._measured(NONE, 0, outcomes)
        self._votes()

    def _votes(self) -> None:
        for parts in PARTS:
            if self.game.n >= parts * _ROWS_PER_PART:
                vote = po.partition_certificate(self.undefended, parts)
                self.findings.bounds += [
                    Bound(
                        self.number, self.findings.lam, "vote", points, vote.bound(points),
                        vote.majority, parts,
                    )
                    for points in (0, *self.findings.points)
                ]  # fmt: skip

    def attack(self, points: int) -> None:
        """Every attack: made without knowledge of the defense, and made for no defense."""
        found = []
        for name, variants in attacks(points / self.game.n, self.size).items():
            self._say(f"{name}, {points} rows of poison")
            known = self._best_of(name, variants, self.game)
            bare = self._best_of(name, variants, self.undefended)
            if known is None or bare is None:
                continue
            if known.outcomes[NONE].test_error > bare.value:
                bare = known
            found += self._measured(name, points, known.outcomes | {NONE: bare.outcomes[NONE]})
            self.bare.setdefault(points, {})[name] = bare
        self.findings.errors += found  # all attacks or none: else the strongest might be missing
        if self.number == 0 and points == self.main and points in self.bare:
            self._explain(self.bare[points])

    def _best_of(self, name: str, variants: tuple[Any, ...], game: LinearGame) -> Any:
        """The variant of greatest value; None if none of them finds poison."""
        best = None
        for variant in variants:
            try:
                attacked = variant(game, self.rng)
            except (SolverError, ValueError) as error:
                self._failed(name, error)
                continue
            if best is None or attacked.value > best.value:
                best = attacked
        return best

    def adapt(self, points: int) -> None:
        """For each defense an attacker who knows it, and searches by KKT."""
        epsilon = points / self.game.n
        limits = {"radius_percentile": PERCENTILE, "slab_percentile": PERCENTILE}
        knowing = po.Adaptive(po.KKT(epsilon, **limits, ratios=3, **_FEWER), percentiles=(70.0,))
        found = []
        for name, defense in self.game.defenses.items():
            self._say(f"an attacker who knows {name}, {points} rows of poison")
            game = self.game.with_defenses({name: defense})
            attacked = self._best_of("kkt", (knowing,), game)
            if attacked is not None:
                outcomes = {name: attacked.outcomes[name]}
                found += self._measured("kkt", points, outcomes, knows="adaptive")
        self.findings.errors += found

    def _explain(self, found: dict[str, Any]) -> None:
        """Look at the poison that does most harm."""
        self._say("what carries the attack")
        # Of equals the last, which is optimised the most.
        name = max(found, key=lambda k: (found[k].outcomes[NONE].test_error, ATTACKS.index(k)))
        self.findings.explanation = explain(self.problem, self.undefended, name, found[name].poison)

    def certify(self, points: int) -> None:
        """A bound for the SVM, unless one for fewer points already says nothing."""
        if points >= self.vacuous:
            return
        self._say(f"what {points} rows of poison cannot do")
        replayed = [_Replay(one.poison) for one in self.bare.get(points, {}).values()]
        bound = self._bound(self.undefended, points, replayed, self.findings.lam)
        if bound is None or bound.bound >= bound.majority:
            self.vacuous = points

    def _bound(
        self, game: LinearGame, points: int, replayed: list["_Replay"], lam: float
    ) -> Bound | None:
        try:
            found = po.certify_test_error(
                game, points, radius_percentile=PERCENTILE, slab_percentile=PERCENTILE,
                attacks=replayed, rng=self.rng,
            )  # fmt: skip
        except (SolverError, ValueError) as error:
            self._failed("certificate", error)
            return None
        bound = Bound(
            self.number, lam, "svm", points, found.bound, found.majority,
            attacked=found.attacked if found.attack_points else None,
        )  # fmt: skip
        self.findings.bounds.append(bound)
        return bound

    def other(self, lam: float) -> None:
        """Another λ without defenses: clean, attacked at the main share, certified for 1 point."""
        if lam == self.findings.lam:
            return
        self._say(f"lambda {lam:g}")
        game = self.undefended.with_defender(po.SVM(lam=lam), ())
        found = self._measured(NONE, 0, game.evaluate(game.X[:0], game.y[:0]), lam)
        for name, variants in attacks(self.main / game.n, self.size).items():
            attacked = self._best_of(name, variants, game)
            if attacked is not None:
                found += self._measured(name, self.main, attacked.outcomes, lam)
        self.findings.errors += found
        self._bound(game, 1, [], lam)


@dataclass(frozen=True)
class _Replay:
    """An attack whose poison is known."""

    poison: Any

    def __call__(self, game: LinearGame, rng: Any) -> Any:
        return po.measured(game, self.poison.X, self.poison.y)
