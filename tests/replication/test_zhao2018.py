"""Draws, settings, attacks and measurements that the notebooks of Zhao et al. 2018 share."""

import numpy as np
import pytest

from poisoning.attacks.patom import PATOM
from poisoning.datasets import load, prepare
from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.games.multi_task import MultiTaskGame
from replication import params, zhao2018
from replication.notebook import Notebook, paths

TARGETS = np.array([True, True, False, False])
RULES = {"targets": TARGETS, "attacking": ~TARGETS}
LEARNER = {"loss": "square", "lambda1": 0.1, "lambda2": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in zhao2018.LOSS:
        prepare(name, "standin", folder)
    return folder


@pytest.fixture
def notebook(data, tmp_path, monkeypatch):
    monkeypatch.setenv(paths.RESULTS_VARIABLE, str(tmp_path))
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "units"))
    monkeypatch.setattr(paths, "dataset", lambda source, name: data / source / name)
    made = Notebook("zhao2018/quality", "demo")
    serial = made.params.workers.model_copy(update={"backend": "serial"})
    made.params = made.params.model_copy(update={"workers": serial})
    return made


def draw(seed, m=4, n=30, d=5, n_test=40):
    """Related regression tasks on inputs in the unit ball, with a bias."""
    rng = np.random.default_rng(seed)

    def inputs(count):
        X = rng.normal(size=(m, count, d - 1))
        X /= np.maximum(1.0, np.linalg.norm(X, axis=2, keepdims=True))
        return np.concatenate([X, np.ones((m, count, 1))], axis=2)

    W = rng.normal(size=(1, d)) + 0.3 * rng.normal(size=(m, d))
    X, X_test = inputs(n), inputs(n_test)
    y, y_test = (np.einsum("mnd,md->mn", part, W) for part in (X, X_test))
    return MultiTaskDraw(X, y, np.full((m, n), 1.0 / n), tuple(X_test), tuple(y_test))


# Draws ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_notebook_sees_the_same_draws(notebook):
    first = zhao2018.draw_all(notebook, list(zhao2018.LOSS), 2)
    again = zhao2018.draw_all(notebook, ["sarcos"], 1)
    np.testing.assert_array_equal(first["sarcos"][0].X, again["sarcos"][0].X)
    assert not np.array_equal(first["sarcos"][0].X, first["sarcos"][1].X)
    assert {name: len(draws[0].X) for name, draws in first.items()} == zhao2018.TASKS


def test_draws_have_the_sizes_that_the_knobs_ask_for(data):
    knobs = params.load("demo").section(zhao2018.SHARED)
    sarcos = load(data / "standin" / "sarcos")
    (drawn,) = zhao2018.draw_tasks("sarcos", sarcos, knobs, [np.random.default_rng(0)])
    assert drawn.X.shape == (7, knobs["sarcos_train"], 22)
    assert len(drawn.y_test[0]) == knobs["sarcos_test"]


def test_a_thinned_draw_has_every_third_example_and_no_padding_counts():
    whole = draw(0)
    whole.weight[0] = np.where(np.arange(30) < 20, 1.0 / 20, 0.0)
    thin = zhao2018.thinned(whole, 3)
    np.testing.assert_array_equal(thin.X, whole.X[:, ::3])
    np.testing.assert_allclose(thin.weight.sum(axis=1), 1.0)
    assert (thin.weight[0] > 0).sum() == 7


def test_a_task_set_has_its_size():
    chosen = zhao2018.task_set(10, 4, np.random.default_rng(0))
    assert chosen.sum() == 4
    assert chosen.shape == (10,)


def test_an_attacking_set_is_as_large_as_the_rest_and_holds_what_it_must():
    targets = np.arange(7) < 3
    for seed in range(20):
        chosen = zhao2018.attacking_set(targets, np.random.default_rng(seed), among=(1, 2))
        assert chosen.sum() == 4
        assert chosen[1] and chosen[2]
    free = zhao2018.attacking_set(targets, np.random.default_rng(0))
    np.testing.assert_array_equal(free, zhao2018.task_set(7, 4, np.random.default_rng(0)))


# Attacks --------------------------------------------------------------------------------------


def test_settings_are_the_knobs_and_the_method():
    knobs = params.load("paper").section(zhao2018.SHARED)
    printed = zhao2018.setting("sarcos", "printed", knobs, 0.2, 5)
    assert printed["attack"] == PATOM(
        0.2, "uniform", "sequential", "paper", 5, radius=1.0, step=100.0, batch_factor=3
    )
    assert printed["learner"] == LEARNER
    total = zhao2018.setting("mnist", "total", knobs, 0.1, 5, lambda1=0.01, radius=0.5)
    assert (total["attack"].update, total["attack"].gradient) == ("ascent", "total")
    assert total["attack"].radius == 0.5
    assert total["learner"] == {"loss": "hinge", "lambda1": 0.01, "lambda2": 0.1}
    with pytest.raises(TypeError, match="rounds"):
        zhao2018.setting("mnist", "total", knobs, 0.1, 5, rounds=3)


def test_a_run_is_an_attack_and_the_outcome_without():
    one = draw(0)
    run = zhao2018.attack_draw(
        PATOM(0.2, iterations=3), LEARNER, one, rng=np.random.default_rng(1), **RULES
    )
    game = MultiTaskGame.from_draw(one, **RULES, **LEARNER)
    assert run.clean.utility == game.clean.utility
    assert len(run.measures) == len(run.utilities) == 4
    assert run.utilities.argmax() == run.best
    assert run.measures[run.best] == run.attacked.outcomes["none"].measure
    np.testing.assert_array_equal(run.model(run.best), run.attacked.source.outcome.model)
    assert run.measures[-1] == pytest.approx(game.measure(run.model(-1)))


@pytest.mark.slow
def test_attacks_on_several_draws_come_back_by_job_and_in_order(notebook):
    knobs = notebook.shared(zhao2018.SHARED)
    drawn = zhao2018.draw_all(notebook, ["sarcos"], 2)["sarcos"]
    targets = [np.arange(7) < 3, np.arange(7) > 3]
    jobs = {
        method: {
            "draws": drawn,
            "targets": targets,
            "attacking": [~mask for mask in targets],
            "rngs": [np.random.default_rng(i) for i in range(2)],
            **zhao2018.setting("sarcos", method, knobs, 0.1, 1),
        }
        for method in ("printed", "total")
    }
    found = zhao2018.attack_all(notebook, jobs, "attacks")
    assert list(found) == ["printed", "total"]
    for method, runs in found.items():
        for i, run in enumerate(runs):
            alone = zhao2018.attack_draw(
                jobs[method]["attack"], jobs[method]["learner"], drawn[i], targets[i], ~targets[i],
                np.random.default_rng(i),
            )  # fmt: skip
            np.testing.assert_array_equal(run.measures, alone.measures)


# Measurements ---------------------------------------------------------------------------------


def test_a_curve_has_settled_when_it_no_longer_leaves_the_last_value():
    assert zhao2018.settled(np.array([1.0, 1.0, 1.0])) == 0.0
    assert zhao2018.settled(np.array([3.0, 1.01, 0.99, 1.0])) == 1.0
    assert zhao2018.settled(np.array([1.0, 1.0, 2.0, 1.0])) == 3.0


def test_a_level_reached_early_does_not_drift():
    bouncing = np.array([0.0, 0.0, 2.0, 1.0, 1.5, 2.0, 1.0, 1.5, 1.5])  # 8 iterations
    assert zhao2018.drift(bouncing) == pytest.approx(0.2)
    assert zhao2018.drift(np.full(21, 3.0)) == 0.0
    assert zhao2018.drift(np.array([9.0, 1.0, 2.0])) == 1.0


def test_starts_that_end_alike_have_no_spread():
    def run(seed):
        rng = np.random.default_rng(seed)
        return zhao2018.attack_draw(PATOM(0.2, iterations=1), LEARNER, draw(0), rng=rng, **RULES)

    assert zhao2018.start_spread([run(0), run(0)]) == (0.0, 0.0)
    first, second = run(0), run(1)
    of_loss, of_measure = zhao2018.start_spread([first, second])
    ends = first.measures[-1], second.measures[-1]
    assert of_measure == pytest.approx(abs(ends[0] - ends[1]) / np.sqrt(2.0))
    assert of_loss > 0.0


def test_rising_counts_iterations_that_do_not_fall():
    assert zhao2018.rising(np.array([1.0, 2.0, 2.0, 1.5, 3.0])) == 0.75


def test_what_is_largest_is_chosen_on_the_other_repeats():
    clear = np.array([[0.0, 0.1, 0.2], [3.0, 2.0, 4.0]])
    np.testing.assert_array_equal(zhao2018.of_largest(clear), clear[1])
    # Of two settings that differ by noise alone, the chosen one is not larger in the mean.
    noise = np.random.default_rng(0).normal(size=(2, 2000, 10))
    chosen = [zhao2018.of_largest(values).mean() for values in noise.transpose(1, 0, 2)]
    assert abs(np.mean(chosen)) < 3 * np.std(chosen) / np.sqrt(len(chosen))
    assert noise.mean(axis=2).max(axis=0).mean() > 0.1
    np.testing.assert_array_equal(zhao2018.of_largest(np.array([[1.0], [2.0]])), [2.0])


@pytest.mark.slow
def test_the_total_gradient_is_the_true_one_and_the_others_are_not():
    found = zhao2018.check_gradients(
        PATOM(0.2), LEARNER, draw(0), rng=np.random.default_rng(0), probes=6, h=1e-3, **RULES
    )
    assert found["total"]["cosine"] == pytest.approx(1.0, abs=1e-6)
    assert found["total"]["error"] < 1e-3
    assert found["paper"]["error"] > 0.05
    assert found["paper"]["cosine"] < 1.0
    assert found["total"]["crossed"] == 0.0


@pytest.mark.slow
def test_alternation_is_measured_against_the_exact_solution():
    found = zhao2018.compare_solvers(draw(0), "square", 0.1, 0.1, [1e-2, 1e-6], [0.0, 1e-3])
    assert [(run["stop"], run["floor"]) for run in found["runs"]] == [
        (1e-2, 0.0), (1e-6, 0.0), (1e-6, 1e-3)
    ]  # fmt: skip
    early, late, _ = found["runs"]
    assert early["gap"] > late["gap"] > -1e-9
    assert late["gap"] == pytest.approx(late["gaps"][-1], abs=1e-9)
    assert late["turns"] == len(late["gaps"]) == len(late["spectra"])
    assert found["spectrum"].sum() == pytest.approx(1.0)
    assert found["residual"] <= 1e-10


def test_rank_does_not_fall_as_lambda_does():
    rows = zhao2018.regularisation_path(draw(0), "square", [0.001, 0.3, 0.03])
    assert [row[0] for row in rows] == [0.3, 0.03, 0.001]
    ranks = [row[1] for row in rows]
    assert ranks == sorted(ranks)
    assert all(-1.0 <= least <= mean <= 1.0 for _, _, mean, least, _ in rows)


@pytest.mark.slow
def test_swapped_learners_see_the_same_poison():
    rows = zhao2018.swap_learners(
        PATOM(0.2, iterations=2), LEARNER, draw(0), rng=np.random.default_rng(0), stops=[1e-8],
        **RULES,
    )  # fmt: skip
    assert [row[:2] for row in rows] == [
        (poison, solver)
        for poison in ("no poison", "random poison", "moved poison")
        for solver in ("exact", "alternating, 1e-08")
    ]
    measures = [row[2] for row in rows]
    np.testing.assert_allclose(measures[::2], measures[1::2], rtol=0.05)
    assert measures[2] != measures[4] != measures[0]


def test_pairs_inside_and_outside_and_their_change():
    C = np.array([[1.0, 0.8, 0.1], [0.8, 1.0, -0.3], [0.1, -0.3, 1.0]])
    inside, outside = zhao2018.inside_outside(C, np.array([True, True, False]))
    assert inside == 0.8
    assert outside == pytest.approx(-0.1)
    assert zhao2018.correlation_change(C, np.eye(3)) == pytest.approx(0.4)


def test_correlations_of_rank_one_tie_exactly():
    W = np.outer([1.0, -2.0, 0.3], np.random.default_rng(0).normal(size=5))
    np.testing.assert_array_equal(
        zhao2018.correlation_matrix(W), np.outer([1.0, -1.0, 1.0], [1.0, -1.0, 1.0])
    )


def test_a_group_of_like_tasks_is_detected():
    rng = np.random.default_rng(0)
    attacking = np.arange(6) < 3
    W = np.where(attacking[:, None], rng.normal(size=8), rng.normal(size=(6, 8)))
    assert zhao2018.detect(W, attacking) == {"group": 1.0, "neighbours": 1.0}


def test_a_perfect_examiner_who_is_told_the_tasks_undoes_the_attack():
    one = draw(0)
    run = zhao2018.attack_draw(
        PATOM(0.3, iterations=2), LEARNER, one, rng=np.random.default_rng(0), **RULES
    )
    found = zhao2018.recover(
        LEARNER, one, poison=run.attacked.poison, model=run.model(run.best), examined=0.23, **RULES
    )
    assert set(found) == {"group", "loss", "oracle", "everyone"}
    for flagged in ("oracle", "everyone"):
        assert found[flagged]["by hand"] == pytest.approx(run.clean.measure, rel=1e-3)
    assert all(0.0 <= numbers["poison removed"] <= 1.0 for numbers in found.values())

    game = MultiTaskGame.from_draw(one, **RULES, **LEARNER)
    received = game.poisoned(run.attacked.poison)
    auc = zhao2018.detect_by_loss(received, run.model(run.best), ~TARGETS, "square")
    assert 0.0 <= auc["loss"] <= 1.0
