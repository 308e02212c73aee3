"""The multi-class worst point against cvxpy, and what the attack promises."""

from dataclasses import replace

import numpy as np
import pytest

from poisoning.attacks.min_max import MinMax
from poisoning.attacks.min_max_multiclass import (
    WorstMulticlassPoints,
    class_balls,
    min_max_multiclass,
    multiclass_decoy,
    well_fitted_classes,
)
from poisoning.feasible import reference
from poisoning.feasible.sets import InputDomain
from poisoning.feasible.solver import EmptySetError
from poisoning.models.multiclass_svm import MulticlassModel, train_multiclass_svm

CLASSES, D = 4, 9
COUNTS = "counts"
SETTINGS = MinMax(epsilon=0.1, copies=4, burn_in=1.0, batch=50)


def blobs(seed=0, n=240):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % CLASSES
    centres = 0.5 + 0.25 * np.random.default_rng(9).normal(size=(CLASSES, D))
    return np.clip(centres[y] + 0.15 * rng.normal(size=(n, D)), 0.0, 1.0), y


@pytest.fixture(scope="module")
def setting():
    X, y = blobs()
    X_test, y_test = blobs(1, 120)
    clean = train_multiclass_svm(X, y, CLASSES, np.random.default_rng(0), step=0.2, passes=20)
    decoy = multiclass_decoy(
        X, y, X_test, y_test, clean, 0.3, 2, np.random.default_rng(1)
    )  # fmt: skip
    domain = InputDomain.of("box01", X)
    return X, y, class_balls(X, y, CLASSES, domain, 95.0), clean, decoy


@pytest.mark.parametrize("cap", [None, 1.0])
def test_the_worst_point_is_the_best_over_all_pairs_of_cvxpy(setting, cap):
    _, _, sets, clean, decoy = setting
    if cap is not None:
        sets = well_fitted_classes(sets, decoy, cap)
    search = WorstMulticlassPoints(sets)
    rng = np.random.default_rng(2)
    for _ in range(3):
        theta = clean.theta + 0.1 * rng.normal(size=clean.theta.shape)
        x, label, loss = search.find(theta)
        pairs = [(y, j) for y in range(CLASSES) for j in range(CLASSES) if j != y]
        greatest = max(
            1.0 - reference.minimise_linear(theta[y] - theta[j], sets[y])[0] for y, j in pairs
        )
        assert greatest * 0.98 - 1e-6 <= loss <= greatest + 1e-6
        assert reference.violation(x, sets[label]) < 1e-7
        own = MulticlassModel(theta).losses(x[None, :], np.array([label]))[0]
        assert own == pytest.approx(max(loss, 0.0))
    assert search.solved < 3 * len(pairs)


def test_poison_is_feasible_in_copies_and_as_much_as_allowed(setting):
    X, y, sets, clean, decoy = setting
    loose = replace(SETTINGS, loss_cap=1.0)
    made = min_max_multiclass(X, y, sets, clean, loose, np.random.default_rng(0), decoy=decoy)
    assert len(made.y) == len(made.X) == 24
    assert made.steps == 12
    assert made.X.min() >= 0.0 and made.X.max() <= 1.0
    assert decoy.losses(made.X, made.y).max() <= 1.0 + 1e-6
    for x, label in zip(made.X, made.y, strict=True):
        assert reference.violation(x, sets[label]) < 1e-7
    assert np.array_equal(made.X[0::4], made.X[3::4])


def test_poison_does_harm_and_the_seed_decides_it(setting):
    X, y, sets, clean, _ = setting
    more = replace(SETTINGS, epsilon=0.3)
    one, two = (
        min_max_multiclass(X, y, sets, clean, more, np.random.default_rng(3)) for _ in range(2)
    )
    assert one.X.tobytes() == two.X.tobytes() and np.array_equal(one.y, two.y)
    poisoned = train_multiclass_svm(
        np.vstack([X, one.X]), np.concatenate([y, one.y]), CLASSES, np.random.default_rng(0),
        step=0.2, passes=20,
    )  # fmt: skip
    assert poisoned.losses(X, y).mean() > clean.losses(X, y).mean()


def test_a_decoy_learns_the_runner_up_of_what_it_was_shown(setting):
    X, y, _, clean, decoy = setting
    X_test, y_test = blobs(1, 120)
    assert decoy.error(X_test, y_test) > clean.error(X_test, y_test)
    many = multiclass_decoy(X, y, X_test, y_test, clean, 0.3, 10, np.random.default_rng(1))
    assert many.error(X_test, y_test) >= decoy.error(X_test, y_test)


def test_the_ball_reaches_the_percentile_of_its_class():
    X, y = blobs()
    part = class_balls(X, y, CLASSES, InputDomain.of("box01", X), 95.0)[2]
    distances = np.linalg.norm(X[y == 2] - part.centre, axis=1)
    assert np.mean(distances <= part.radius) == pytest.approx(0.95, abs=0.02)


def test_classes_without_feasible_points_are_left_out(setting):
    _, _, sets, clean, _ = setting
    row = np.ones(D)
    nowhere = [part.with_row(row, 1e3, 2e3) for part in sets]
    somewhere = [*nowhere[:-1], sets[-1].with_row(row, -np.inf, np.inf)]
    assert WorstMulticlassPoints(somewhere).find(clean.theta)[1] == CLASSES - 1
    with pytest.raises(EmptySetError, match="No class"):
        WorstMulticlassPoints(nowhere).find(clean.theta)


def test_errors_name_the_cause(setting):
    X, y, sets, clean, _ = setting
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="not a single one"):
        min_max_multiclass(X, y, sets, clean, replace(SETTINGS, epsilon=1e-4), rng)
    with pytest.raises(ValueError, match="no point of class 4"):
        class_balls(X, y, 5, sets[0].domain, 95.0)
    counts = InputDomain(COUNTS, np.zeros(D), np.ones(D))
    with pytest.raises(ValueError, match="counts need rounding"):
        min_max_multiclass(
            X, y, [replace(part, domain=counts) for part in sets], clean, SETTINGS, rng
        )
