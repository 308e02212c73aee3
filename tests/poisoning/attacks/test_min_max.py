"""Algorithm 5: the worst point, the poison, the search over decoys; and the attack on real mail."""

import os
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.arrays import vstack
from poisoning.attacks.decoy import find_decoys, likely_first
from poisoning.attacks.min_max import MinMax, min_max_poison, well_fitted
from poisoning.attacks.worst_point import WorstPointSearch
from poisoning.datasets import fetch, load, prepare, split
from poisoning.errors import SolverError
from poisoning.feasible import reference
from poisoning.feasible.sets import FeasibleSet
from poisoning.feasible.solver import EmptySetError
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM
from poisoning.models.linear import LinearModel

COUNTS = "counts"
LAMBDA = 0.05
ATTACK = MinMax(
    epsilon=0.06, burn_in=0.5, quantiles=(0.2, 0.4), decoy_copies=(1, 4), opening=(0.4, 4)
)


def dataset(kind, seed=0, n=260, d=25):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    if kind == COUNTS:
        X = rng.poisson(np.exp(0.4 * np.outer(y, rng.normal(size=d)) - 0.5)).astype(float)
    else:
        X = 1.0 / (1.0 + np.exp(-rng.normal(size=(n, d)) - 0.5 * np.outer(y, rng.normal(size=d))))
    train, test = slice(0, 200), slice(200, None)
    X = sp.csr_array(X) if kind == COUNTS else X
    return X[train], y[train], X[test], y[test]


def setting(kind):
    X, y, X_test, y_test = dataset(kind)
    game = LinearGame(X, y, X_test, y_test, domain=kind, learner=SVM(LAMBDA))
    clean = game.clean_svm.model
    (decoy,) = find_decoys(X, y, X_test, y_test, LAMBDA, [0.3], [3], clean=clean)
    return game, FeasibleSet.fit(X, y, game.domain), decoy.model


def poison(kind, decoy=None, seed=0, feasible=None, settings=ATTACK):
    game, base, _ = setting(kind)
    return min_max_poison(
        game.X, game.y, LAMBDA, feasible or base, game.domain, settings,
        np.random.default_rng(seed), clean=game.clean_svm.model, decoy=decoy,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [COUNTS, "box01"])
@pytest.mark.parametrize("improved", [False, True])
def test_the_worst_point_is_that_of_cvxpy(kind, improved):
    game, feasible, decoy = setting(kind)
    if improved:
        feasible = well_fitted(feasible, decoy, 0.25)
    search = WorstPointSearch(feasible, 1e-6)
    rng = np.random.default_rng(3)
    clean = game.clean_svm.model
    for _ in range(6):  # a sequence: from the second on, bounds and warm starts are in play
        model = LinearModel(clean.theta + 0.1 * rng.normal(size=25), float(rng.normal()))
        found = search.find(model)
        losses = {
            label: 1.0
            - reference.minimise_linear(label * model.theta, part)[0]
            - label * model.bias
            for label, part in ((1.0, feasible.positive), (-1.0, feasible.negative))
        }
        assert found.loss == pytest.approx(max(losses.values()), abs=2e-5)
        assert found.label == max(losses, key=losses.__getitem__)
        assert found.bound >= max(losses.values()) - 1e-5
        own = 1.0 - found.label * (model.theta @ found.x + model.bias)
        assert own == pytest.approx(found.loss)


def test_a_class_without_feasible_points_is_left_out():
    game, feasible, _ = setting("box01")
    far = feasible.positive.with_row(np.ones(25), 1e4, 2e4)
    model = game.clean_svm.model
    assert WorstPointSearch(FeasibleSet(far, feasible.negative), 1e-4).find(model).label == -1.0
    with pytest.raises(EmptySetError, match="No class"):
        WorstPointSearch(FeasibleSet(far, far), 1e-4).find(model)


@pytest.mark.parametrize("kind", [COUNTS, "box01"])
def test_poison_is_a_legal_attack_in_copies(kind):
    game, _, decoy = setting(kind)
    made = poison(kind, decoy)
    assert len(made.poisoned.y) == round(0.06 * 200)
    assert game.domain.contains(made.poisoned.X).all()
    assert made.steps == 3 + 6
    rows = made.poisoned.X.toarray() if kind == COUNTS else made.poisoned.X
    assert np.array_equal(rows[0::2], rows[1::2])
    assert np.array_equal(made.poisoned.y[0::2], made.poisoned.y[1::2])


def test_points_under_a_decoy_obey_every_constraint():
    _, feasible, decoy = setting("box01")
    made = poison("box01", decoy)
    narrow = well_fitted(feasible, decoy, ATTACK.loss_cap)
    for x, label in zip(made.poisoned.X, made.poisoned.y, strict=True):
        part = narrow.positive if label > 0.0 else narrow.negative
        assert reference.violation(x, part) < 1e-8
    assert np.all(decoy.hinge(made.poisoned.X, made.poisoned.y) <= ATTACK.loss_cap + 1e-6)


def test_without_a_decoy_the_poison_ignores_it():
    _, feasible, decoy = setting("box01")
    made = poison("box01")
    for x, label in zip(made.poisoned.X, made.poisoned.y, strict=True):
        part = feasible.positive if label > 0.0 else feasible.negative
        assert reference.violation(x, part) < 1e-8
    assert decoy.hinge(made.poisoned.X, made.poisoned.y).max() > ATTACK.loss_cap


def test_the_first_step_is_adagrad_on_equation_21():
    game, base, _ = setting("box01")
    # The trained model has points on the hinge itself, which count as beyond it.
    clean = LinearModel(0.9 * game.clean_svm.model.theta, game.clean_svm.model.bias)
    one = replace(ATTACK, epsilon=0.005, copies=1, burn_in=0.0)
    made = min_max_poison(
        game.X, game.y, LAMBDA, base, game.domain, one, np.random.default_rng(0), clean=clean
    )
    x, label = made.poisoned.X[0], made.poisoned.y[0]
    n = len(game.y)

    def U(w):
        model = LinearModel(w[:-1], float(w[-1]))
        loss = max(0.0, 1.0 - label * (model.theta @ x + model.bias))
        clean_loss = model.hinge(game.X, game.y).mean()
        return 0.5 * (1.0 + 0.005) * LAMBDA * (w @ w) + clean_loss + round(0.005 * n) / n * loss

    w = np.append(clean.theta, clean.bias)
    moved = w - np.append(made.learner.theta, made.learner.bias)
    for i in np.flatnonzero(np.abs(moved) > 1e-5)[:10]:
        # Invert η g / √(1 + g²); no margin lies within 1e-7 of a kink.
        slope = moved[i] / one.step / np.sqrt(1.0 - (moved[i] / one.step) ** 2)
        step = 1e-7 * np.eye(26)[i]
        sides = sorted([(U(w + step) - U(w)) / 1e-7, (U(w) - U(w - step)) / 1e-7])
        assert sides[0] - 1e-5 <= slope <= sides[1] + 1e-5


def test_rounding_of_the_original_attack_is_a_choice_of_set():
    game, _, _ = setting(COUNTS)
    relaxed = FeasibleSet.fit(game.X, game.y, replace(game.domain, kind="nonnegative"))
    made = poison(COUNTS, feasible=relaxed, settings=replace(ATTACK, copies=1))
    assert game.domain.contains(made.poisoned.X).all()
    assert made.steps == 6 + 12


@pytest.mark.slow
def test_same_seed_same_poison():
    _, _, decoy = setting(COUNTS)
    one, two, other = (poison(COUNTS, decoy, seed).poisoned.X for seed in (4, 4, 5))
    assert (one != two).nnz == 0
    assert (one != other).nnz > 0


@pytest.fixture(scope="module")
def attacked():
    game, _, _ = setting(COUNTS)
    return game, ATTACK(game, np.random.default_rng(5))


@pytest.mark.slow
def test_the_attack_reports_what_it_does(attacked):
    game, result = attacked
    again = game.evaluate(result.poison.X, result.poison.y)
    assert game.value(again) == result.value == game.value(result.outcomes)
    assert set(result.outcomes) == {"none", *game.defenses}
    assert result.value > game.clean_svm.model.error(game.X_test, game.y_test)


@pytest.mark.slow
def test_the_winner_is_the_best_of_all_candidates_measured_in_full(attacked):
    game, result = attacked
    base = FeasibleSet.fit(game.X, game.y, game.domain)
    tried = likely_first(
        game, ATTACK.quantiles, ATTACK.decoy_copies, ATTACK.opening, np.random.default_rng(5)
    )
    values = []
    for decoy, stream in tried:
        made = min_max_poison(
            game.X, game.y, LAMBDA, base, game.domain, ATTACK, stream,
            clean=game.clean_svm.model, decoy=decoy.model,
        ).poisoned  # fmt: skip
        values.append(game.value(game.evaluate(made.X, made.y)))
    assert result.value == max(values)
    assert len(result.history) == len(values)
    winner = result.history[values.index(max(values))]
    assert winner.source == result.source


def test_the_search_ends_when_enough_is_reached(attacked):
    game, _ = attacked
    assert len(ATTACK(game, np.random.default_rng(5), enough=0.01).history) == 1


@pytest.mark.slow
def test_the_feasible_set_follows_the_percentiles_and_the_poison_known(attacked):
    game, result = attacked
    tight = replace(ATTACK, radius_percentile=60.0, slab_percentile=60.0)

    def first(attack, game):
        return attack(game, np.random.default_rng(5), enough=0.01).poison.X

    usual = first(ATTACK, game)
    assert (first(ATTACK, game) != usual).nnz == 0
    assert (first(tight, game) != usual).nnz > 0
    moved = first(ATTACK, game.against(result.poison))
    assert (moved != usual).nnz > 0
    known = vstack([game.X, result.poison.X]), np.append(game.y, result.poison.y)
    refitted = FeasibleSet.fit(*known, game.domain)
    assert np.array_equal(
        game.against(result.poison).feasible(90.0, 90.0).positive.centre, refitted.positive.centre
    )


def test_an_epsilon_of_no_point_is_an_error():
    with pytest.raises(ValueError, match="not a single one"):
        poison(COUNTS, settings=replace(ATTACK, epsilon=0.001))


def test_a_set_without_points_is_an_error():
    # Only points next to the centroids, which two clouds this near do not fit with a margin of 1.
    rng = np.random.default_rng(3)
    y = np.where(np.arange(260) % 2 == 0, 1.0, -1.0)
    X = rng.normal(size=(260, 2)) + 0.1 * y[:, None]
    game = LinearGame(X[:200], y[:200], X[200:], y[200:], domain="real", learner=SVM(LAMBDA))
    narrow = replace(ATTACK, radius_percentile=1e-3, loss_cap=0.0)
    with pytest.raises(SolverError, match="none of"):
        narrow(game, rng)


def test_the_basic_attack_tries_no_decoy(attacked):
    game, _ = attacked
    result = replace(ATTACK, decoy=False)(game, 5)
    assert len(result.history) == 1
    assert result.source.decoy is None
    made = poison(COUNTS, seed=5)
    assert (result.poison.X != made.poisoned.X).nnz == 0


@pytest.mark.real
@pytest.mark.skipif("DATA_MIRROR" not in os.environ, reason="needs the real mails")
def test_three_percent_of_poison_does_20_percent_damage_to_real_mail(tmp_path):
    fetch("enron", tmp_path)
    prepare("enron", "real", tmp_path)
    part = split(load(tmp_path / "real" / "enron"), np.random.default_rng(0))
    data = part.X, part.y, part.X_test, part.y_test
    game = LinearGame(*data, domain=COUNTS, learner=SVM(0.09))
    result = MinMax(quantiles=(0.4,), decoy_copies=(8,))(game, np.random.default_rng(0))
    assert len(result.poison.y) == 124
    assert result.value >= 0.20


def test_dense_and_sparse_data_give_the_same_poison():
    _, feasible, decoy = setting(COUNTS)
    X, y, X_test, y_test = dataset(COUNTS)
    found = []
    for make in (sp.csr_array, lambda X: X.toarray()):
        game = LinearGame(
            make(X), y, make(X_test), y_test, domain=COUNTS, learner=SVM(LAMBDA)
        )  # fmt: skip
        made = min_max_poison(
            game.X, game.y, LAMBDA, feasible, game.domain, ATTACK, np.random.default_rng(0),
            clean=game.clean_svm.model, decoy=decoy,
        )  # fmt: skip
        rows = made.poisoned.X
        found.append(rows.toarray() if sp.issparse(rows) else rows)
    assert np.array_equal(*found)
