"""The benchmarks' bookkeeping: what a record says follows from what was measured."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from tqdm import tqdm

from bench import __main__ as command
from bench import dask_overhead, growth, hyperparameter_search, kernels, to_17pct
from bench.entries import ENTRIES
from bench.evaluation import behind_all, errors_from_scratch
from bench.kernels import Kernel
from bench.timing import Race, Resolved
from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.datasets import Split
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import minimise_linear
from poisoning.games.bilevel import FinalTraining
from poisoning.games.linear import LinearGame
from poisoning.hypergradient.learning import HyperparameterLearning
from poisoning.learners import SVM
from replication.koh2021 import LAMBDA

CONTRACT = {
    "koh2021.kkt_problem", "koh2021.kkt_to_17pct", "koh2021.minmax_lp",
    "koh2021.minmax_to_17pct", "koh2021.influence_to_17pct", "koh2021.evaluation",
}  # fmt: skip


@pytest.fixture(scope="module")
def mail():
    """Counts of 40 words in two topics."""
    rng = np.random.default_rng(0)
    y = np.where(rng.random(360) < 0.4, 1.0, -1.0)
    tilt = rng.normal(0.0, 0.8, 40)
    X = sp.csr_array(rng.poisson(np.exp(y[:, None] * tilt - 0.5)).astype(float))
    return Split(X[:240], y[:240], X[240:], y[240:])


def test_the_entries_have_the_names_that_others_read():
    names = [entry.NAME for entry in ENTRIES]
    assert len(set(names)) == len(names)
    assert set(names) >= CONTRACT


def test_every_record_says_its_machine_and_commit(monkeypatch, tmp_path):
    entry = SimpleNamespace(NAME="any", run=lambda bar: {"ours_s": 1.0}, summary=lambda record: "")
    monkeypatch.setattr(command, "ENTRIES", (entry,))
    monkeypatch.setattr(command.paths, "ROOT", tmp_path)
    monkeypatch.setattr(command, "tree_state", lambda: {"commit": "c" * 40, "dirty": False})
    monkeypatch.setattr("sys.argv", ["bench"])
    assert command.main() == 0
    row = json.loads((tmp_path / "results" / "bench.json").read_text())["any"]
    assert (row["ours_s"], row["commit"]) == (1.0, "c" * 40)
    assert row["machine"]["cores"] >= 1


def test_an_entry_whose_peer_is_not_installed_is_left_out(monkeypatch, tmp_path, capsys):
    def lacks(bar):
        raise ModuleNotFoundError("pip install primme")

    entries = (
        SimpleNamespace(NAME="first", run=lacks),
        SimpleNamespace(NAME="second", run=lambda bar: {"ours_s": 1.0}, summary=lambda record: ""),
    )
    monkeypatch.setattr(command, "ENTRIES", entries)
    monkeypatch.setattr(command.paths, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench"])
    assert command.main() == 0
    assert list(json.loads((tmp_path / "results" / "bench.json").read_text())) == ["second"]
    assert "first: left out: pip install primme" in capsys.readouterr().err


def test_a_race_pairs_the_seconds_of_both_sides(monkeypatch):
    seconds = iter([1.0, 3.0, 20.0, 1.0, 1.0, 2.0, 2.0, 10.0, 2.0, 2.0])
    monkeypatch.setattr("bench.timing.timed", lambda side: (next(seconds), side()))
    race = Race(repeats=2)
    assert race.run(lambda: "ours", lambda: "theirs") == ("ours", "theirs")
    race.run(lambda: None, lambda: None)
    record = race.record("warm_")
    assert record["warm_ours_s"] == 1.5
    assert record["warm_peer_s"] == 15.0
    assert record["warm_ratio"] == pytest.approx(10.0)  # geometric mean of 20 and 5
    assert record["warm_spread"] == [5.0, 20.0]


def test_a_problem_solved_again_has_the_optimum_of_the_new_parameter(mail):
    part = FeasibleSet.fit(mail.X, mail.y, InputDomain.of("counts", mail.X)).positive
    first, second = np.random.default_rng(1).normal(size=(2, 40))
    again = Resolved(lambda x, c: c @ x, part, first)
    assert again(second) == pytest.approx(minimise_linear(second, part).objective, rel=1e-5)


def attack_of(l2_error, minimum):
    """An attack whose second and third candidate do this damage, after 2 and 3 seconds."""

    def attack(game, _rng, *, enough):
        assert (game.lam, enough) == (LAMBDA["enron"], to_17pct.TARGET)
        tried = zip((0.5, 2.0, 3.0), (0.1, l2_error, l2_error), strict=True)
        history = [SimpleNamespace(seconds=s, first_error=error, exact=True) for s, error in tried]
        return SimpleNamespace(history=history, value=minimum)

    return attack


def seventeen(monkeypatch, mail, attack):
    monkeypatch.setattr(to_17pct, "examples", lambda name: (mail, f"{name}, test"))
    entry = to_17pct.To17Percent("any", attack, 27.0)
    with tqdm(disable=True) as bar:
        record = entry.run(bar)
    json.dumps(record, allow_nan=False)
    return record, entry.summary(record)


def test_seconds_to_the_target_are_those_of_the_first_candidate_that_reaches_it(monkeypatch, mail):
    record, line = seventeen(monkeypatch, mail, attack_of(0.18, 0.175))
    assert record["ours_s"] == pytest.approx(2.0, abs=0.2)  # and what was prepared before
    assert record["ours_s"] > 2.0
    assert record["five_defenses_s"] < 2.0  # what really passed here
    assert record["ratio"] == pytest.approx(27.0 / record["ours_s"])
    assert "17% behind L2 after 2." in line
    assert line.endswith("s behind all five")


@pytest.mark.parametrize(
    ("l2_error", "minimum", "expected"),
    [(0.18, 0.16, "not reached behind all five"), (0.16, 0.16, "the attack does not reach 17%")],
)
def test_what_is_not_reached_is_null(monkeypatch, mail, l2_error, minimum, expected):
    record, line = seventeen(monkeypatch, mail, attack_of(l2_error, minimum))
    assert record["five_defenses_s"] is None
    assert (record["ours_s"] is None) == (l2_error < to_17pct.TARGET)
    assert expected in line


def test_a_spread_is_of_runs_that_all_reach_the_target(monkeypatch, mail):
    errors = iter([0.18, 0.18, 0.16, 0.18, 0.18, 0.18])

    def attack(game, rng, *, enough):
        error = next(errors)
        return attack_of(error, error)(game, rng, enough=enough)

    record, _ = seventeen(monkeypatch, mail, attack)
    assert record["ours_s"] is not None
    assert record["spread"] is None


def test_from_scratch_is_what_the_game_answers(mail):
    data = mail.X, mail.y, mail.X_test, mail.y_test
    game = LinearGame(*data, domain="counts", learner=SVM(0.05))
    poison = PoisonedSet(mail.X[mail.y > 0.0][:6], -np.ones(6), 240, 0.025, game.domain)
    scratch = errors_from_scratch(game, poison)
    assert len(scratch) == 5
    assert scratch == behind_all(game, poison.X, poison.y)
    outcomes = game.evaluate(poison.X, poison.y)
    assert scratch == {name: outcomes[name].test_error for name in game.defenses}


def test_thinned_mails_lose_rows_columns_or_entries(mail):
    rows, columns, entries = (growth.thinned(mail, way, 0.25) for way in growth.WAYS)
    assert rows.X.shape == (60, 40)
    assert len(rows.y) == 60
    assert rows.X_test is mail.X_test
    assert columns.X.shape == (240, 10)
    assert columns.X_test.shape == (120, 10)
    assert entries.X.shape == mail.X.shape
    assert entries.X.nnz == pytest.approx(mail.X.nnz / 4, rel=0.1)
    assert np.all((entries.X.toarray() == 0.0) | (entries.X.toarray() == mail.X.toarray()))


def test_an_exponent_is_found_along_its_own_way():
    rows = [
        {"what": "step", "along": way, "n": n, "d": d, "seconds": 2.0 * n**1.5 * d**0.5}
        for way, n, d in [(None, 8, 8), ("n", 4, 8), ("n", 2, 8), ("d", 8, 4), ("d", 8, 2)]
    ]
    other = [{"what": "other", "along": "n", "n": 2, "d": 2, "seconds": 9.0}]
    assert growth.exponent(rows + other, "step", "n") == pytest.approx((1.5, 0.0), abs=1e-6)
    assert growth.exponent(rows + other, "step", "d") == pytest.approx((0.5, 0.0), abs=1e-6)


def test_units_a_second_are_counted_from_the_first_result_to_the_last(monkeypatch):
    clock = iter([10.0, 10.0, 11.0, 11.0, 12.0, 12.0])  # of two workers, side by side
    monkeypatch.setattr(dask_overhead.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(dask_overhead, "results", lambda calls, settings: iter([3] * len(calls)))
    call = dask_overhead._unit(1.0, np.zeros(3))
    assert dask_overhead._rate([call] * 6, workers=2, settings=None) == 2.0


def test_efficiency_is_told_by_length_and_workers():
    record = {"ours_s": 0.012, "efficiency": {"0.1": {"1": 0.9, "2": 0.75}, "10": {"1": 1.0}}}
    line = dask_overhead.summary(record)
    assert line.startswith("12 ms a unit")
    assert "0.1 s: 90.0% of 1, 75.0% of 2; 10 s: 100.0% of 1" in line


def test_a_search_is_timed_in_part_and_counted_whole(monkeypatch):
    clock = iter([2.0, 5.0, 2.0])  # ours, the peer, ours
    monkeypatch.setattr("bench.timing.timed", lambda side: (next(clock), None))
    search = hyperparameter_search.Search(
        "any", (3,), HyperparameterLearning(hyperiterations=1), FinalTraining(5), 10, 3, 1
    )
    with tqdm(disable=True) as bar:
        record = search.run(bar)
    assert record["ours_s"] == 20.0  # ten hyperiterations, of which one is timed
    assert record["peer_s"] == 5.0 * 9**2  # nine values of three exponents
    assert record["ratio"] == pytest.approx(record["peer_s"] / record["ours_s"])
    assert "3 λ in 20.0 s" in search.summary(record)


def test_a_kernel_is_measured_pass_by_pass_against_the_core(monkeypatch):
    double = Kernel("double", "none", lambda: None, flop=5e6, read=2e6, passes=4)
    single = Kernel("single", "none", lambda: None, flop=1e7, read=0.0, single=True)
    monkeypatch.setattr(kernels, "kernels", lambda: iter((double, single)))
    monkeypatch.setattr(kernels, "timed", lambda call: (0.02, call()))
    monkeypatch.setattr(kernels, "product_speed", {np.float64: 1e10, np.float32: 2e10}.__getitem__)
    monkeypatch.setattr(kernels, "read_speed", {2_000_000: 1e9, kernels.LEAST: 1e9}.__getitem__)
    record = kernels.run(tqdm(disable=True))
    first, second = record["rows"]
    assert first["seconds"] == pytest.approx(0.02)
    assert first["of_GFLOP"] == pytest.approx(0.1)  # 5e6 in 5 ms, of 1e10 a second
    assert first["of_read"] == pytest.approx(0.4)
    assert second["of_GFLOP"] == pytest.approx(0.025)
    assert second["of_read"] is None
    assert "double, none: 10% of the FLOP peak, 40% of the read" in kernels.summary(record)


def test_a_step_of_the_small_cnn_has_the_operations_of_its_layers():
    step, flop = kernels._training(width=100)
    step()
    side, pooled = 24, 12  # after 5 x 5 kernels, after pooling
    first = side**2 * 8 * 25
    second = (pooled - 4) ** 2 * 16 * 8 * 25
    dense = 16 * 16 * 100 + 100 * 10
    # Forward once, backward twice, but for the gradient in the pixels, which nobody needs.
    assert flop == 2.0 * kernels.BATCH * (2 * first + 3 * (second + dense))
