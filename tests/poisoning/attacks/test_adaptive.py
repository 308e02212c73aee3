"""An attacker who knows the defense: what it tries and finds, and what a faulty defense is told."""

import os
import subprocess
import sys
from dataclasses import dataclass

import jaxtyping
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD

import poisoning as po
from poisoning.arrays import distinct_rows, to_dense
from poisoning.attacks.adaptive import Adaptive, apart, assess_defense
from poisoning.attacks.kkt import KKT
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.datasets import fetch, load, prepare, split
from poisoning.errors import SolverError
from poisoning.feasible.sets import InputDomain
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import LinearGame

ATTACK = KKT(0.06, quantiles=(0.3,), decoy_copies=(3,), opening=(0.3, 3), ratios=3)
LINES = """
import numpy as np, poisoning as po
from mine import Farthest
rng = np.random.default_rng(0)
y = np.where(rng.random(150) < 0.5, 1.0, -1.0)
X = rng.normal(y[:, None], 1.5, (150, 2))
parts = X[:100], y[:100], X[100:], y[100:]
game = po.LinearGame(*parts, domain="real", learner=po.SVM(0.1), defenses=[po.L2Defense()])
print(po.assess_defense(game, Farthest(), [po.RandomFlips(0.05), po.KKT(
    0.05, quantiles=(0.3,), decoy_copies=(2,), opening=(0.3, 2), ratios=2)]).errors)
"""
MINE = """
class Farthest:
    def fit(self, X, y):
        self.mean = X.mean(axis=0)
        return self
    def score(self, X, y):
        return ((X - self.mean) ** 2).sum(axis=1)
"""


def game(domain="counts", defenses=(), n=200, d=25):
    rng = np.random.default_rng(0)
    y = np.where(rng.random(n + 60) < 0.4, 1.0, -1.0)
    if domain == "counts":
        X = rng.poisson(np.exp(0.4 * np.outer(y, rng.normal(size=d)) - 0.5)).astype(float)
        X = sp.csr_array(X)
    else:
        X = rng.normal(size=(n + 60, d)) + 0.3 * y[:, None]
    return LinearGame(
        X[:n], y[:n], X[n:], y[n:], domain=domain, learner=po.SVM(0.05), defenses=defenses
    )  # fmt: skip


class NoRepeats:
    """Infinite scores for rows that are repeated."""

    def fit(self, X, y):
        return self

    def score(self, X, y):
        _, copies, which = distinct_rows(X)
        return np.where(copies[which] > 1, np.inf, 0.0)


class Trusting:
    """Infinite scores outside 85 % of trusted data, along the line between the classes' means."""

    def __init__(self, X, y):
        self.means = {label: X[y == label].mean(axis=0) for label in (-1.0, 1.0)}
        far = self.far(X, y)
        self.limits = {label: np.quantile(far[y == label], 0.85) for label in self.means}

    def far(self, X, y):
        means = np.array([self.means[label] for label in y])
        return np.abs((X - means) @ (self.means[1.0] - self.means[-1.0]))

    def fit(self, X, y):
        return self

    def score(self, X, y):
        return np.where(self.far(X, y) > [self.limits[label] for label in y], np.inf, 0.0)


class Crowded:
    """Infinite scores for points with four others next to them."""

    fits = 0

    def fit(self, X, y):
        type(self).fits += 1
        return self

    def score(self, X, y):
        near = ((X[:, None] - X) ** 2).sum(axis=2) < 1.0
        return np.where(near.sum(axis=1) > 4, np.inf, 0.0)


@dataclass(frozen=True)
class Measures:
    """An attack that measures given poison, of which the first is its result."""

    poisons: tuple

    def __call__(self, game, rng):
        first, *_ = [po.measured(game, *poison) for poison in self.poisons]
        return first


@dataclass(frozen=True)
class Limited:
    """An attack without poison within limits below 80 %."""

    radius_percentile: float = 90.0

    def __call__(self, game, rng):
        if self.radius_percentile < 80.0:
            raise EmptySetError("no room")
        X = np.full((5, game.X.shape[1]), self.radius_percentile / 100.0)
        return po.measured(game, X, np.ones(5))


@pytest.mark.parametrize("domain", ["counts", "real"])
def test_who_knows_that_repeated_points_are_dropped_repeats_none(domain):
    before = game(domain, [NoRepeats()])
    fixed = ATTACK(game(domain, [po.L2Defense()]), 0).poison
    behind = before.evaluate(fixed.X, fixed.y)["no-repeats"]
    assert behind.poison_removed == 1.0
    found = Adaptive(ATTACK)(before, 0)
    assert found.value >= behind.test_error + 0.03
    assert found.outcomes["no-repeats"].poison_removed == 0.0
    assert len(distinct_rows(found.poison.X)[1]) == len(found.poison.y) == 12
    again = before.evaluate(found.poison.X, found.poison.y)
    assert found.errors == {name: outcome.test_error for name, outcome in again.items()}
    assert found.value == before.value(again)


def test_it_finds_the_limits_within_which_poison_passes():
    played = game("real", [po.L2Defense(), po.SlabDefense()])
    known = played.with_defenses([Trusting(played.X, played.y)])
    fixed = ATTACK(played, 0).poison
    behind = known.evaluate(fixed.X, fixed.y)["trusting"]
    assert behind.poison_removed == 1.0
    found = Adaptive(ATTACK)(known, 0)
    assert found.value > behind.test_error
    assert found.source.attack.radius_percentile == 80.0
    assert found.value == max(one.minimum_error for one in found.history if one.complete)


def test_the_defense_runs_no_more_often_than_it_must():
    known = game("real", [Crowded()])
    for tries in (1, 4):
        Crowded.fits = 0
        found = Adaptive(ATTACK, tries=tries)(known, 0)
        assert len(found.history) == tries
        assert Crowded.fits <= tries + 1  # the winner once more
        groups = [(one.source.attack, one.source.sizes) for one in found.history]
        assert len(set(groups)) == tries
    whole = Adaptive(ATTACK)(known, 0).history
    best = max(one.minimum_error for one in whole)
    assert 4 < len(whole) < 15  # of 15 candidates some do no harm even without a defense
    assert all(one.source.undefended > best for one in whole[1:])
    assert len(Adaptive(ATTACK)(known, 0, enough=0.01).history) == 1


def test_an_attack_of_ones_own_is_tried_as_it_is():
    played = game("real")
    rng = np.random.default_rng(1)
    weak = played.X[:4], -played.y[:4]
    strong = 0.3 * rng.normal(size=(4, 25)) - 3.0, np.ones(4)
    # Too many points, points outside the domain, and no points are not an attacker's to use.
    poisons = weak, (played.X[:9], -played.y[:9]), strong, (weak[0][:0], weak[1][:0])
    found = Adaptive(Measures(poisons))(played, 0)
    assert {len(one.source.sizes) for one in found.history} == {2}
    assert all(sum(one.source.sizes) == 4 for one in found.history)
    assert 1 <= len(found.history) <= 2
    assert found.value == max(played.value(played.evaluate(*one)) for one in (weak, strong))


class Careless:
    """An attack that is no dataclass, though it names its limits."""

    radius_percentile = 90.0

    def __call__(self, game, rng):
        return po.measured(game, game.X[:4], -game.y[:4])


@dataclass(frozen=True)
class Constant(Careless):
    """One whose limits are no fields."""


@pytest.mark.parametrize("attack", [Careless(), Constant()])
def test_an_attack_whose_limits_cannot_be_set_is_tried_as_it_is(attack):
    found = Adaptive(attack)(game("real"), 0)
    assert [one.source.attack for one in found.history] == [attack]


def test_poison_before_rounding_is_left_out():
    played = game("counts", [NoRepeats()])
    rounded, halves = played.X[:4], sp.csr_array(played.X[:4] * 0.5)

    @dataclass(frozen=True)
    class Relaxed:
        def __call__(self, game, rng):
            game.evaluate(halves, -game.y[:4])
            return po.measured(game, rounded, -game.y[:4])

    found = Adaptive(Relaxed())(played, 0)
    assert len(found.history) == 1
    assert (rounded != found.poison.X).nnz == 0


@pytest.mark.parametrize(
    "attack",
    [
        po.RandomFlips(0.06), po.Alfa(0.06), po.Iterated(ATTACK, 2),
        po.MinMax(0.06, quantiles=(0.3,), decoy_copies=(3,), opening=(0.3, 3)),
        po.Influence(0.06, positive_shares=(0.5,), step_sizes=(1.0,), iterations=4, check_every=2),
    ],
    ids=lambda attack: type(attack).__name__,
)  # fmt: skip
def test_every_attack_of_the_library_may_know_the_defense(attack):
    known = game("counts", [NoRepeats()])
    found = Adaptive(attack, percentiles=(80.0,))(known, 0)
    assert found.outcomes["no-repeats"].poison_removed == 0.0
    assert len(found.poison.y) == 12
    assert all(sum(one.source.sizes) == 12 for one in found.history)


def test_it_plays_games_of_three_classes_and_other_learners():
    rng, y = np.random.default_rng(0), np.arange(150) % 3
    X = rng.normal(size=(150, 4)) + 2.0 * np.eye(4)[y]
    played = LinearGame(
        X[:100], y[:100], X[100:], y[100:], domain="real", learner=po.CrammerSingerSVM(),
        defenses=[NoRepeats()],
    )  # fmt: skip
    attack = po.MinMax(0.1, quantiles=(0.3,), decoy_copies=(3,), batch=50)
    found = Adaptive(attack, percentiles=(80.0,))(played, 0)
    assert found.outcomes["no-repeats"].poison_removed == 0.0
    assert len(found.source.sizes) == 3
    assert found.value > played.evaluate(X[:0], y[:0])["no-repeats"].test_error


def test_a_pool_filled_once_serves_many_defenders():
    played, attack = game("counts", [NoRepeats()]), Adaptive(ATTACK, percentiles=(80.0,))
    filling, moving = np.random.default_rng(0).spawn(2)
    pool = attack.pool(game("counts", [po.L2Defense()]), filling)
    found, alone = attack.search(played, pool, moving), attack(played, 0)
    assert (found.poison.X != alone.poison.X).nnz == 0
    assert found.errors == alone.errors
    other = played.with_defender(po.LogisticRegression(0.05), [NoRepeats()])
    found = attack.search(other, pool, 0)
    again = other.evaluate(found.poison.X, found.poison.y)
    assert found.errors == {name: outcome.test_error for name, outcome in again.items()}


def test_limits_without_poison_are_counted():
    played = game("real", [po.L2Defense()])
    found = Adaptive(Limited(), percentiles=(95.0, 70.0, 50.0))(played, 0)
    assert found.skipped == 2
    assert {one.source.attack.radius_percentile for one in found.history} <= {90.0, 95.0}
    with pytest.raises(SolverError, match="no room"):
        Adaptive(Limited(70.0), percentiles=(50.0,))(played, 0)


def test_same_seed_same_poison_and_the_game_stays_as_it_was():
    played = game("counts", [NoRepeats()])
    before = vars(played).copy()
    one, other = (Adaptive(ATTACK)(played, rng) for rng in (3, np.random.default_rng(3)))
    assert (one.poison.X != other.poison.X).nnz == 0
    assert one.errors == other.errors
    assert vars(played) == before


@pytest.mark.parametrize("kind", ["counts", "real", "box01", "nonnegative"])
@pytest.mark.parametrize("sparse", [True, False])
def test_repeated_rows_move_apart_within_the_domain_and_others_stay(kind, sparse):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, size=(3, 8)).astype(float)
    rows[:, 0] = 1.0  # the largest value there is
    X = rows[[0, 1, 0, 0, 2, 2]]
    domain = InputDomain.of(kind, rows)
    poison = PoisonedSet(sp.csr_array(X) if sparse else X, np.ones(6), 6, 1.0, domain)
    moved = apart(poison, 0.01, rng)
    assert sp.issparse(moved.X) == sparse
    found = to_dense(moved.X)
    np.testing.assert_array_equal(found[[0, 1, 4]], rows)
    assert len(np.unique(found, axis=0)) == 6
    change = np.abs(found - X)[[2, 3, 5]]
    if kind == "counts":
        np.testing.assert_array_equal(change.sum(axis=1), 1.0)
    else:
        assert 0.0 < change.max() <= 0.01
    np.testing.assert_array_equal(to_dense(poison.X), X)


def test_a_domain_of_zeros_leaves_rows_where_they_are():
    domain = InputDomain("counts", np.zeros(2), np.zeros(2))
    poison = PoisonedSet(np.zeros((2, 2)), np.ones(2), 2, 1.0, domain)
    np.testing.assert_array_equal(apart(poison, 0.01, np.random.default_rng(0)).X, np.zeros((2, 2)))


def test_a_report_has_both_numbers():
    played = game("counts", [po.L2Defense()])
    report = assess_defense(played, NoRepeats(), [ATTACK, Adaptive(ATTACK, tries=2)])
    assert report.name == "no-repeats"
    known = played.with_defenses([NoRepeats()])
    clean = known.evaluate(played.X[:0], played.y[:0])
    assert report.undefended == clean["none"].test_error
    assert report.clean == clean["no-repeats"].test_error
    for fixed, adaptive in zip(report.fixed, report.adaptive, strict=True):
        assert fixed.outcomes["no-repeats"].poison_removed > 0.8
        assert adaptive.value > fixed.value
        outcome = known.evaluate(adaptive.poison.X, adaptive.poison.y)["no-repeats"]
        assert outcome.test_error == adaptive.value
    assert len(report.adaptive[1].history) == 2
    assert report.errors == {
        "none": report.undefended, "clean": report.clean,
        "fixed": max(one.value for one in report.fixed),
        "adaptive": max(one.value for one in report.adaptive),
    }  # fmt: skip


def test_who_knows_may_use_what_others_use():
    played = game("real", [po.L2Defense()])
    report = assess_defense(
        played, po.RandomFilter(), [Adaptive(ATTACK, tries=1, percentiles=(50.0,))]
    )
    assert report.errors["adaptive"] >= report.errors["fixed"]


class Faulty:
    """A scorer with one fault, on poisoned data only if ``late``."""

    def __init__(self, fault, late=False):
        self.fault, self.late, self.seen = fault, late, []

    def fit(self, X, y):
        return self

    def score(self, X, y):
        self.seen.append((X.shape, np.unique(y).tolist()))
        scores = np.zeros(len(y))
        if self.late and len(y) == 200:
            return scores
        if self.fault == "raises":
            raise ZeroDivisionError("no spread")
        if self.fault == "NaN":
            scores[3] = np.nan
        if self.fault == "infinite":
            scores[:] = np.inf
        return scores[:-1] if self.fault == "short" else scores


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raises", "defense 'faulty' failed: ZeroDivisionError: no spread"),
        ("NaN", "defense 'faulty' must score each of .* NaN"),
        ("short", r"defense 'faulty' must score each of 2\d\d points, its scores have the shape"),
        ("infinite", "defense 'faulty' leaves no points"),
    ],
)
def test_a_faulty_scorer_is_named_in_one_sentence(fault, told, late):
    played = game("real", [po.L2Defense()])
    with pytest.raises(ValueError, match=told) as caught:
        assess_defense(
            played, Faulty(fault, late), [Adaptive(ATTACK, tries=1, percentiles=(80.0,))]
        )
    assert "\n" not in str(caught.value)
    # Where it fails before anything is kept, the SVM may be the one to notice.
    late = played.with_defenses([Faulty(fault, late=True)])
    with pytest.raises(ValueError, match=r"^defense 'faulty' "):
        Adaptive(ATTACK, tries=1, percentiles=(80.0,))(late, 0)


def test_a_scorer_is_never_handed_an_empty_class():
    seen = []

    class Watching:
        def fit(self, X, y):
            seen.append(np.unique(y).tolist())
            return self

        def score(self, X, y):
            seen.append(np.unique(y).tolist())
            return X[:, 0] ** 2

    played = game("real", [po.L2Defense()])
    one_class = Measures(((np.zeros((3, 25)), np.ones(3)),))
    report = assess_defense(played, Watching(), [one_class, ATTACK])
    assert report.adaptive[0].poison.y.tolist() == [1.0] * 3
    assert len(seen) > 6 and all(labels == [-1.0, 1.0] for labels in seen)


def test_a_defense_in_a_file_outside_the_repository_takes_a_few_lines(tmp_path):
    (tmp_path / "mine.py").write_text(MINE, "utf-8")
    (tmp_path / "run.py").write_text(LINES, "utf-8")
    library = str(po.__path__[0]).removesuffix("poisoning")
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path, env={"PYTHONPATH": library},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'fixed': 0." in done.stdout and "'adaptive': 0." in done.stdout


def test_settings_and_arguments_are_checked(monkeypatch):
    # As users have it: no type checker refuses a value before the library does.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for attack in (KKT, 3, None, "kkt"):
        with pytest.raises(ValueError, match="Adaptive: attack must be an attack such as KKT"):
            Adaptive(attack)
    for wrong, told in (
        ({"percentiles": (101.0,)}, "percentiles must be"), ({"tries": 0}, "tries must be"),
        ({"jitter": -0.1}, "jitter must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            Adaptive(ATTACK, **wrong)
    with pytest.raises(ValueError, match="attacks must hold at least one attack"):
        assess_defense(game(), NoRepeats(), ())
    for attacks in ("kkt", ATTACK, None):
        with pytest.raises(ValueError, match="attacks must be a sequence of attacks"):
            assess_defense(game(), NoRepeats(), attacks)
    with pytest.raises(ValueError, match="attacks: each must be an attack such as KKT"):
        assess_defense(game(), NoRepeats(), ["kkt"])
    with pytest.raises(TypeError, match="is no defense"):
        assess_defense(game(), object())
    with pytest.raises(TypeError, match="game must be a LinearGame"):
        assess_defense(None, NoRepeats())


class Mahalanobis:
    """Squared distance on 20 components, by mean and covariance of the nearer nine tenths."""

    def fit(self, X, y):
        self.components = TruncatedSVD(20, random_state=0).fit(X)
        Z, self.mean, self.inverse = self.components.transform(X), 0.0, np.eye(20)
        for kept in (1.0, 0.9, 0.9):
            far = self.far(Z)
            near = Z[far <= np.quantile(far, kept)]
            self.mean, self.inverse = near.mean(axis=0), np.linalg.pinv(np.cov(near.T))
        return self

    def far(self, Z):
        return np.einsum("ij,jk,ik->i", Z - self.mean, self.inverse, Z - self.mean)

    def score(self, X, y):
        return self.far(self.components.transform(X))


class DistinctSVD:
    """Infinite scores for rows that are repeated, those of the SVD defense for the rest."""

    def fit(self, X, y):
        return self

    def score(self, X, y):
        _, copies, which = distinct_rows(X)
        alone = np.flatnonzero(copies[which] == 1)
        scores = np.full(len(y), np.inf)
        svd = po.SVDDefense().fit(X[alone], y[alone])
        scores[alone] = svd.score(X[alone], y[alone])
        return scores


@pytest.mark.real
@pytest.mark.skipif("DATA_MIRROR" not in os.environ, reason="needs the real mails")
def test_defenses_that_stop_fixed_attacks_on_real_mail_fall_to_who_knows_them(tmp_path):
    fetch("enron", tmp_path)
    prepare("enron", "real", tmp_path)
    part = split(load(tmp_path / "real" / "enron"), np.random.default_rng(0))
    played = LinearGame(
        part.X, part.y, part.X_test, part.y_test, domain="counts", learner=po.SVM(0.09)
    )  # fmt: skip
    attack = KKT(quantiles=(0.4,), decoy_copies=(8,))
    fixed = attack(played, 0, enough=0.17).poison
    for defense, least in ((Mahalanobis(), 0.13), (DistinctSVD(), 0.25)):
        known = played.with_defenses([defense])
        assert known.value(known.evaluate(fixed.X, fixed.y)) < 0.06
        assert Adaptive(attack)(known, 0).value >= least
