"""Best-first selection: the same winner as measuring everything, for less."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.attacks.selection import MARGIN, BestFirst, select
from poisoning.defenses import FIVE, spectrum
from poisoning.defenses.detector import name_of
from poisoning.feasible.sets import InputDomain
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import AttackedGame, LinearGame, Outcome
from poisoning.learners import SVM, LogisticRegression
from poisoning.models.linear import LinearModel

COUNTS = "counts"
CHEAPEST_FIRST = ["l2", "slab", "loss", "knn", "svd"]
TABLES = st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=8)


class Scripted(LinearGame):
    """A game whose errors stand in a table, and which counts what it is asked."""

    def __init__(self, table, defenses=FIVE, rough=None):
        self.table, self.asked, self.rough = table, [], rough
        self.defenses = {name_of(defense): defense for defense in defenses}

    def attacked(self, X, y, *, exact=True, rng=None):
        return _ScriptedGame(self, int(X[0, 0]))


class _ScriptedGame(AttackedGame):
    def __init__(self, parent, number):
        self.parent, self.number = parent, number

    def outcome(self, name):
        self.parent.asked.append((self.number, name))
        error = (
            self.parent.table[self.number][CHEAPEST_FIRST.index(name)] if name != "none" else 0.0
        )
        return Outcome(float(error), 0.0, 0.0, {}, LinearModel(np.zeros(1), 0.0))

    def rough_error(self, name):
        return None if self.parent.rough is None else self.parent.rough[self.number]


def candidate(number):
    X = np.array([[float(number)]])
    domain = InputDomain(COUNTS, np.array([0.0]), np.array([100.0]))
    return PoisonedSet(X, np.ones(1), 1, 1.0, domain)


@given(TABLES)
def test_the_winner_has_the_highest_minimum_and_is_the_first_of_equals(table):
    scripted = Scripted(table)
    search = BestFirst(scripted)
    assert search.cheapest_first == CHEAPEST_FIRST
    for number in range(len(table)):
        search.offer(candidate(number))
        assert search.first_error(number) == table[number][0]
    worth = [min(row) for row in table]
    winner = search.settle()
    assert winner == worth.index(max(worth))
    assert search.complete(winner)
    assert search.first_error(winner) == table[winner][0]
    assert len(scripted.asked) == len(set(scripted.asked)), "nothing is measured twice"
    for number, row in enumerate(table):
        measured = len(search.outcomes[number])
        assert search.bound(number) == min(row[:measured])
        # A defense is only asked while the candidate's bound was still the highest.
        assert measured == 1 or min(row[: measured - 1]) >= worth[winner]


@given(TABLES, st.integers(0, 2**32 - 1))
def test_rough_errors_save_measurements_and_change_no_winner(table, seed):
    table = (0.01 * np.array(table)).tolist()
    off = np.random.default_rng(seed).uniform(-MARGIN, MARGIN, len(table))
    scripted = Scripted(table, rough=[row[0] + e for row, e in zip(table, off, strict=True)])
    search = BestFirst(scripted)
    for number in range(len(table)):
        search.offer(candidate(number))
        assert not search.exact(number)
        assert search.bound(number) >= table[number][0]
    assert not scripted.asked
    worth = [min(row) for row in table]
    winner = search.settle()
    assert worth[winner] == max(worth)
    assert search.exact(winner)
    for number in range(len(table)):
        # A model is trained to the end only while the candidate could still win.
        assert search.exact(number) == bool(search.outcomes[number])
        assert search.exact(number) or search.first_error(number) + MARGIN <= worth[winner]


def test_a_rough_error_is_that_of_a_looser_tolerance():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(300) % 3 == 0, 1.0, -1.0)
    X = rng.normal(size=(300, 8)) + 0.7 * y[:, None]
    game = LinearGame(X[:200], y[:200], X[200:], y[200:], domain="real", learner=SVM(0.01))
    attacked = game.attacked(3.0 * rng.normal(size=(9, 8)), np.ones(9))
    exact = attacked.outcome("l2")
    assert attacked.rough_error("l2") == pytest.approx(exact.test_error, abs=MARGIN)
    other = LinearGame(
        X[:200], y[:200], X[200:], y[200:], domain="real", learner=LogisticRegression(0.01)
    )
    assert other.attacked(X[:2], y[:2]).rough_error("l2") is None
    with pytest.raises(ValueError, match="no defense 'l3'"):
        attacked.rough_error("l3")


def test_settling_for_enough_leaves_weaker_candidates_alone():
    search = BestFirst(Scripted([[1, 1, 1, 1, 1], [3, 3, 2, 3, 3], [4, 4, 4, 4, 3]]))
    search.offer(candidate(0))
    search.offer(candidate(1))
    assert search.settle(3.0) is None
    assert len(search.outcomes[1]) == 3
    search.offer(candidate(2))
    assert search.settle(3.0) == 2
    assert len(search.outcomes[0]) == 1


def test_nothing_offered_nothing_chosen():
    assert BestFirst(Scripted([])).settle() is None


def test_a_source_without_poison_is_counted_and_none_at_all_is_an_error():
    table = [[1, 1, 1, 1, 1], [3, 3, 2, 3, 3]]
    sources = [("a", candidate(0)), ("b", None), ("c", candidate(1)), ("d", None)]
    result = select(Scripted(table), sources, 0.0)
    assert (result.source, result.value, result.skipped) == ("c", 2.0, 2)
    assert [tried.source for tried in result.history] == ["a", "c"]
    assert [tried.first_error for tried in result.history] == [1.0, 3.0]
    assert set(result.outcomes) == {"none", *CHEAPEST_FIRST}
    early = select(Scripted(table), sources, 0.0, enough=1.0)
    assert (early.source, early.value, len(early.history)) == ("a", 1.0, 1)
    with pytest.raises(EmptySetError, match="none of 2 problems"):
        select(Scripted(table), [("b", None), ("d", None)], 0.0)


def test_in_a_game_without_defenses_a_candidate_is_worth_its_undefended_error():
    game = Scripted([], defenses=())
    game.table = [[0.0], [0.0]]
    result = select(game, [("a", candidate(0)), ("b", candidate(1))], 0.0)
    assert (result.source, result.value, set(result.outcomes)) == ("a", 0.0, {"none"})


def test_a_defense_that_names_no_cost_comes_last():
    class Own:
        def fit(self, X, y):
            return self

        def score(self, X, y):
            return np.zeros(len(y))

    assert BestFirst(Scripted([], (Own(), *FIVE))).cheapest_first == [*CHEAPEST_FIRST, "own"]


def test_the_evaluation_is_that_of_the_game():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(90) % 3 == 0, 1.0, -1.0)
    X = rng.poisson(1.0 + (y[:, None] > 0) * np.linspace(0, 2, 6), size=(90, 6)).astype(float)
    game = LinearGame(X[:60], y[:60], X[60:], y[60:], domain=COUNTS, learner=SVM(0.05))
    search = BestFirst(game)
    for label in (1.0, -1.0):
        rows = np.repeat(X[:60][y[:60] == -label][:1], 3, axis=0)
        search.offer(PoisonedSet(rows, np.full(3, label), 60, 0.05, game.domain))
    winner = search.settle()
    ours = search.evaluation(winner)
    poisoned = search.candidates[winner]
    theirs = game.evaluate(poisoned.X, poisoned.y)
    assert set(ours) == set(theirs)
    for name, outcome in theirs.items():
        assert ours[name].test_error == outcome.test_error
        assert ours[name].poison_removed == pytest.approx(outcome.poison_removed, nan_ok=True)


def test_the_winner_is_reported_behind_the_exact_svd(monkeypatch):
    rng = np.random.default_rng(1)
    y = np.where(np.arange(400) % 2, 1.0, -1.0)
    rates = 2.0 / np.arange(1, 501) ** 0.7
    X = rng.poisson(rates * rng.gamma(1.0, 1.0, (400, 1)), (400, 500)).astype(float)
    monkeypatch.setattr(spectrum, "_SMALL_BASIS", 0)
    monkeypatch.setattr(spectrum, "_MINUTES", 0.0)  # as if the data were as large as IMDB
    game = LinearGame(X, y, X[:50], y[:50], domain=COUNTS, learner=SVM(0.05))
    search = BestFirst(game)
    rows = X[y < 0][:20]
    search.offer(PoisonedSet(rows, np.ones(20), 400, 0.05, game.domain))
    winner = search.settle()
    assert search.outcomes[winner]["svd"].residual > spectrum.EXACT
    assert search.evaluation(winner)["svd"].residual <= spectrum.EXACT
