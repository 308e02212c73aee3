"""Algorithm 5: the worst point, the poison, the search over decoys; and the attack on real mail."""

import os
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.attacks.decoy import find_decoys, likely_first
from poisoning.attacks.min_max import MinMaxSettings, min_max_attack, min_max_poison, well_fitted
from poisoning.attacks.worst_point import WorstPointSearch
from poisoning.datasets import fetch, load, prepare, split
from poisoning.defenses.evaluation import FIVE, Evaluator
from poisoning.errors import SolverError
from poisoning.feasible import reference
from poisoning.feasible.sets import FeasibleSet, InputDomain
from poisoning.feasible.solver import EmptySetError
from poisoning.models.linear import LinearModel

LAMBDA = 0.05
SETTINGS = MinMaxSettings(
    epsilon=0.06, burn_in=0.5, quantiles=(0.2, 0.4), decoy_repeats=(1, 4), opening=(0.4, 4)
)


def dataset(kind, seed=0, n=260, d=25):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    if kind == "integer":
        X = rng.poisson(np.exp(0.4 * np.outer(y, rng.normal(size=d)) - 0.5)).astype(float)
    else:
        X = 1.0 / (1.0 + np.exp(-rng.normal(size=(n, d)) - 0.5 * np.outer(y, rng.normal(size=d))))
    train, test = slice(0, 200), slice(200, None)
    X = sp.csr_array(X) if kind == "integer" else X
    return X[train], y[train], X[test], y[test]


def setting(kind):
    X, y, X_test, y_test = dataset(kind)
    evaluator = Evaluator(X, y, X_test, y_test, LAMBDA)
    domain = InputDomain.of(kind, X)
    (decoy,) = find_decoys(
        X, y, X_test, y_test, LAMBDA, [0.3], [3], clean=evaluator.clean_svm.model
    )
    return evaluator, domain, FeasibleSet.fit(X, y, domain), decoy.model


def poison(kind, decoy=None, seed=0, feasible=None, settings=SETTINGS):
    evaluator, domain, base, _ = setting(kind)
    return min_max_poison(
        evaluator.X, evaluator.y, LAMBDA, feasible or base, domain, settings,
        np.random.default_rng(seed), clean=evaluator.clean_svm.model, decoy=decoy,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["integer", "box01"])
@pytest.mark.parametrize("improved", [False, True])
def test_the_worst_point_is_that_of_cvxpy(kind, improved):
    evaluator, _, feasible, decoy = setting(kind)
    if improved:
        feasible = well_fitted(feasible, decoy, 0.25)
    search = WorstPointSearch(feasible, 1e-6)
    rng = np.random.default_rng(3)
    clean = evaluator.clean_svm.model
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
    evaluator, _, feasible, _ = setting("box01")
    far = feasible.positive.with_row(np.ones(25), 1e4, 2e4)
    model = evaluator.clean_svm.model
    assert WorstPointSearch(FeasibleSet(far, feasible.negative), 1e-4).find(model).label == -1.0
    with pytest.raises(EmptySetError, match="No class"):
        WorstPointSearch(FeasibleSet(far, far), 1e-4).find(model)


@pytest.mark.parametrize("kind", ["integer", "box01"])
def test_poison_is_a_legal_attack_in_copies(kind):
    _, domain, _, decoy = setting(kind)
    made = poison(kind, decoy)
    assert len(made.poisoned.y) == round(0.06 * 200)
    assert domain.contains(made.poisoned.X).all()
    assert made.steps == 3 + 6
    rows = made.poisoned.X.toarray() if kind == "integer" else made.poisoned.X
    assert np.array_equal(rows[0::2], rows[1::2])
    assert np.array_equal(made.poisoned.y[0::2], made.poisoned.y[1::2])


def test_points_under_a_decoy_obey_every_constraint():
    _, _, feasible, decoy = setting("box01")
    made = poison("box01", decoy)
    narrow = well_fitted(feasible, decoy, SETTINGS.loss_cap)
    for x, label in zip(made.poisoned.X, made.poisoned.y, strict=True):
        part = narrow.positive if label > 0.0 else narrow.negative
        assert part.violation(x) < 1e-8
    assert np.all(decoy.hinge(made.poisoned.X, made.poisoned.y) <= SETTINGS.loss_cap + 1e-6)


def test_without_a_decoy_the_poison_ignores_it():
    _, _, feasible, decoy = setting("box01")
    made = poison("box01")
    for x, label in zip(made.poisoned.X, made.poisoned.y, strict=True):
        part = feasible.positive if label > 0.0 else feasible.negative
        assert part.violation(x) < 1e-8
    assert decoy.hinge(made.poisoned.X, made.poisoned.y).max() > SETTINGS.loss_cap


def test_the_first_step_is_adagrad_on_equation_21():
    evaluator, domain, base, _ = setting("box01")
    clean = evaluator.clean_svm.model
    one = replace(SETTINGS, epsilon=0.005, repeats=1, burn_in=0.0)
    made = min_max_poison(
        evaluator.X, evaluator.y, LAMBDA, base, domain, one, np.random.default_rng(0), clean=clean
    )
    x, label = made.poisoned.X[0], made.poisoned.y[0]
    n = len(evaluator.y)

    def U(w):
        model = LinearModel(w[:-1], float(w[-1]))
        loss = max(0.0, 1.0 - label * (model.theta @ x + model.bias))
        clean_loss = model.hinge(evaluator.X, evaluator.y).mean()
        return 0.5 * (1.0 + 0.005) * LAMBDA * (w @ w) + clean_loss + round(0.005 * n) / n * loss

    w = np.append(clean.theta, clean.bias)
    moved = w - np.append(made.learner.theta, made.learner.bias)
    for i in np.flatnonzero(np.abs(moved) > 1e-5)[:10]:
        # Invert η g / √(1 + g²); the hinge's kinks are away from a random clean solution's sides.
        slope = moved[i] / one.step / np.sqrt(1.0 - (moved[i] / one.step) ** 2)
        step = 1e-7 * np.eye(26)[i]
        sides = sorted([(U(w + step) - U(w)) / 1e-7, (U(w) - U(w - step)) / 1e-7])
        assert sides[0] - 1e-5 <= slope <= sides[1] + 1e-5


def test_rounding_of_the_original_attack_is_a_choice_of_set():
    evaluator, domain, _, _ = setting("integer")
    relaxed = FeasibleSet.fit(evaluator.X, evaluator.y, replace(domain, kind="nonnegative"))
    made = poison("integer", feasible=relaxed, settings=replace(SETTINGS, repeats=1))
    assert domain.contains(made.poisoned.X).all()
    assert made.steps == 6 + 12


@pytest.mark.slow
def test_same_seed_same_poison():
    _, _, _, decoy = setting("integer")
    one, two, other = (poison("integer", decoy, seed).poisoned.X for seed in (4, 4, 5))
    assert (one != two).nnz == 0
    assert (one != other).nnz > 0


@pytest.fixture(scope="module")
def attacked():
    evaluator, domain, _, _ = setting("integer")
    seen = []
    result = min_max_attack(
        evaluator, domain, SETTINGS, np.random.default_rng(5),
        progress=seen.append,
    )  # fmt: skip
    return evaluator, domain, result, seen


@pytest.mark.slow
def test_the_attack_reports_what_it_does(attacked):
    evaluator, _, result, seen = attacked
    again = evaluator.evaluate(result.poisoned.X, result.poisoned.y)
    assert again.minimum == result.evaluation.minimum
    assert set(FIVE) <= set(result.evaluation.outcomes)
    assert len(seen) == len(result.history)
    clean = evaluator.clean_svm.model.error(evaluator.X_test, evaluator.y_test)
    assert result.evaluation.minimum > clean


@pytest.mark.slow
def test_the_winner_is_the_best_of_all_candidates_measured_in_full(attacked):
    evaluator, domain, result, _ = attacked
    base = FeasibleSet.fit(evaluator.X, evaluator.y, domain)
    tried = likely_first(
        evaluator, SETTINGS.quantiles, SETTINGS.decoy_repeats, SETTINGS.opening,
        np.random.default_rng(5),
    )  # fmt: skip
    values = []
    for decoy, stream in tried:
        made = min_max_poison(
            evaluator.X, evaluator.y, LAMBDA, base, domain, SETTINGS, stream,
            clean=evaluator.clean_svm.model, decoy=decoy.model,
        ).poisoned  # fmt: skip
        values.append(evaluator.evaluate(made.X, made.y).minimum)
    assert result.evaluation.minimum == max(values)
    assert len(result.history) == len(values)
    winner = result.history[values.index(max(values))]
    assert winner.source == result.source


def test_the_search_ends_when_enough_is_reached(attacked):
    evaluator, domain, _, _ = attacked
    result = min_max_attack(evaluator, domain, SETTINGS, np.random.default_rng(5), enough=0.01)
    assert len(result.history) == 1


@pytest.mark.slow
def test_a_feasible_set_may_come_from_outside(attacked):
    evaluator, domain, _, _ = attacked

    def first(feasible):
        rng = np.random.default_rng(5)
        found = min_max_attack(evaluator, domain, SETTINGS, rng, feasible=feasible, enough=0.01)
        return found.poisoned.X

    fitted, tight = (
        FeasibleSet.fit(evaluator.X, evaluator.y, domain, percentile, percentile)
        for percentile in (90.0, 60.0)
    )
    assert (first(fitted) != first(None)).nnz == 0
    assert (first(tight) != first(None)).nnz > 0


def test_an_epsilon_of_no_point_is_an_error():
    with pytest.raises(ValueError, match="not a single one"):
        poison("integer", settings=replace(SETTINGS, epsilon=0.001))


def test_a_set_without_points_is_an_error(attacked):
    evaluator, domain, _, _ = attacked
    base = FeasibleSet.fit(evaluator.X, evaluator.y, domain)
    row = np.ones(25)
    nowhere = FeasibleSet(
        base.positive.with_row(row, 1e4, 2e4), base.negative.with_row(row, 1e4, 2e4)
    )
    with pytest.raises(SolverError, match="none of"):
        min_max_attack(evaluator, domain, SETTINGS, np.random.default_rng(5), feasible=nowhere)


@pytest.mark.real
@pytest.mark.skipif("DATA_MIRROR" not in os.environ, reason="needs the real mails")
def test_three_percent_of_poison_does_20_percent_damage_to_real_mail(tmp_path):
    fetch("enron", tmp_path)
    prepare("enron", "real", tmp_path)
    part = split(load(tmp_path / "real" / "enron"), np.random.default_rng(0))
    evaluator = Evaluator(part.X, part.y, part.X_test, part.y_test, 0.09)
    settings = MinMaxSettings(quantiles=(0.4,), decoy_repeats=(8,))
    domain = InputDomain.of("integer", part.X)
    result = min_max_attack(evaluator, domain, settings, np.random.default_rng(0))
    assert len(result.poisoned.y) == 124
    assert result.evaluation.minimum >= 0.20
