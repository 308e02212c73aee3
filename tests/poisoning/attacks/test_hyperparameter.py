"""The minimax attack on learned hyperparameters: budgets, optimality of steps, policies, draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from poisoning.attacks.hyperparameter import (
    NO_REGULARISATION,
    HyperparameterSettings,
    Policy,
    attack_hyperparameters,
    cross_validate,
    deploy,
)
from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Objective, Rows
from replication.hyperparameter_replay import run_replay
from replication.hyperparameter_trial import (
    FinalTraining,
    Pool,
    Sizes,
    balanced_draw,
    kuncheva,
    run_trial,
)

SMALL = HyperparameterSettings(
    batch=6, batches=2, steps=40, rate=0.5, hyperiterations=4, poison_step=0.3
)
ALL = {
    "none": Policy(fixed=NO_REGULARISATION),
    "large": Policy(fixed=0.0),
    "l2": Policy(),
    "l1": Policy("l1"),
}


def pixels(n, d=12, seed=0):
    """Two classes of bytes that a line separates up to some noise."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2 == 0, -1.0, 1.0)
    X = rng.normal(128.0, 40.0, (n, d))
    X[:, :4] += 35.0 * y[:, None]
    return np.clip(np.rint(X), 0, 255).astype(np.uint8), y


def board(as_bytes=True):
    X, y = pixels(110)
    labels = torch.from_numpy(y)
    values = torch.from_numpy(X).double() / 255.0
    clean = Rows(values[:60], labels[:60])
    if as_bytes:
        clean = Rows(torch.from_numpy(X[:60]), labels[:60], 1.0 / 255.0)
    return clean, Objective(values[60:80], labels[60:80]), Objective(values[80:], labels[80:])


EVERY = tuple(ALL.values())


def play(policies=EVERY, options=SMALL, model=None, seed=3, as_bytes=True, **more):
    clean, validation, _ = board(as_bytes)
    rng = np.random.default_rng(seed)
    return attack_hyperparameters(
        model or Logistic(), clean, validation, list(policies), options, rng, **more
    )


@pytest.mark.parametrize("rule", ["decayed", "adaptive"])
@pytest.mark.parametrize("method", ["rmd", "implicit"])
@pytest.mark.slow
def test_poison_stays_in_its_box_and_budget(rule, method):
    policies = [p for p in ALL.values() if method == "rmd" or p.fixed != NO_REGULARISATION]
    found = play(policies, replace(SMALL, rule=rule, method=method))
    assert found.poison.shape == (len(policies), 12, 12)
    assert float(found.poison.min()) >= 0.0 and float(found.poison.max()) <= 1.0
    assert len(found.replaced.unique()) == 12
    clean, *_ = board()
    for stage in range(3):
        left = found.remaining(clean, stage)
        assert len(left.y) == 60 - 6 * stage
        gone = clean.X[found.replaced[: 6 * stage]].tolist()
        assert sorted(left.X.tolist() + gone) == sorted(clean.X.tolist())
    ranges = (SMALL.l2.low, SMALL.l2.high), (SMALL.l1.low, SMALL.l1.high)
    for policy, lam in zip(policies, found.lam, strict=True):
        if policy.fixed is not None:
            assert bool((lam == policy.fixed).all())
        else:
            low, high = ranges[policy.penalty == "l1"]
            assert low <= float(lam.min()) and float(lam.max()) <= high


def test_clones_are_validation_points_with_the_other_label():
    _, validation, _ = board()
    found = play(options=replace(SMALL, poison_step=0.0))
    distance = torch.cdist(found.poison[0], validation.X)
    nearest = distance.argmin(dim=1)
    assert float(distance.amin(dim=1).max()) < 1e-7
    assert bool((found.poison_y[0] == -validation.y[nearest]).all())
    for first in (0, 6):
        assert len(nearest[first : first + 6].unique()) == 6
    assert bool((found.poison == found.poison[:1]).all())


@pytest.mark.slow
def test_finished_poison_is_bytes_where_the_data_are():
    levels = 255.0 * play().poison
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-10)
    fine = 255.0 * play(as_bytes=False).poison
    assert float((fine - fine.round()).abs().max()) > 0.1
    # Only the first batch: the second is optimised on top of it.
    assert float((fine - levels)[:, :6].abs().max()) <= 0.5 + 1e-9


def test_a_fixed_batch_is_not_touched_by_the_next():
    both, one = play(), play(options=replace(SMALL, batches=1))
    torch.testing.assert_close(both.poison[:, :6], one.poison)


def test_the_attacker_raises_and_the_defender_lowers_the_same_loss():
    policies = [ALL["none"], ALL["l2"]]
    found = play(policies, replace(SMALL, hyperiterations=8, poison_step=0.1))
    assert float(found.validation[0, 1, -1]) > float(found.validation[0, 1, 0])
    clean_path = found.validation[1, 0]
    assert float(clean_path[-1]) < float(clean_path[0])
    assert bool(found.validation[0, 0].isnan().all())  # nothing to learn without poison


def test_the_first_step_is_the_normalised_hypergradient():
    """Against central differences of the validation loss after training, by scikit-learn."""
    clean, validation, _ = board(as_bytes=False)
    options = replace(SMALL, batches=1, hyperiterations=1, method="implicit", poison_step=0.02)
    flips = play([Policy(fixed=-2.0)], replace(options, poison_step=0.0), as_bytes=False)
    moved = play([Policy(fixed=-2.0)], options, as_bytes=False)
    kept = torch.ones(60, dtype=torch.bool)
    kept[flips.replaced] = False
    base = torch.cat([clean.values(torch.float64)[kept], flips.poison[0]]).numpy()
    y = torch.cat([clean.y[kept], flips.poison_y[0]]).numpy()

    def loss(X):
        # scikit-learn's C sums losses; the intercept is regularised as one more column of ones.
        sk = LogisticRegression(C=1.0 / (60 * np.exp(-2.0)), fit_intercept=False, tol=1e-12)
        sk.fit(np.c_[X, np.ones(60)], y)
        margins = validation.y.numpy() * (np.c_[validation.X, np.ones(20)] @ sk.coef_[0])
        return np.logaddexp(0.0, -margins).mean()

    gradient = np.zeros((6, 12))
    for i, j in np.ndindex(gradient.shape):
        ends = []
        for size in (1e-3, -1e-3):
            X = base.copy()
            X[54 + i, j] += size
            ends.append(loss(X))
        gradient[i, j] = (ends[0] - ends[1]) / 2e-3
    step = (moved.poison - flips.poison)[0].numpy()
    wanted = 0.02 * gradient / np.linalg.norm(gradient) * np.sqrt(6)
    inside = (moved.poison[0] > 0).numpy() & (moved.poison[0] < 1).numpy()
    np.testing.assert_allclose(step[inside], wanted[inside], atol=2e-5)


@pytest.mark.slow
def test_a_targeted_attack_hurts_its_target_more():
    _, validation, _ = board()
    first = validation.y > 0
    target = Objective(validation.X[first], validation.y[first])
    options = replace(SMALL, hyperiterations=10, poison_step=0.3)
    policies = [ALL["none"], ALL["l2"]]
    aimed, broad = play(policies, options, target=target), play(policies, options)

    def harm(found, k):
        clean, _, _ = board()
        w = deploy(
            Logistic(), clean, found, 2, policies, target, 200, 0.5, np.random.default_rng(0)
        ).w
        scores = Logistic().scores(w, target.X)[k]
        return float(torch.nn.functional.softplus(-scores * target.y).mean())

    assert harm(aimed, 0) > harm(broad, 0)
    assert not torch.equal(aimed.target, aimed.validation)


@pytest.mark.slow
def test_networks_learn_an_exponent_per_layer_or_a_tied_one():
    model = MLP((4, 3))
    policies = [Policy(per_layer=True), Policy(), Policy(fixed=NO_REGULARISATION)]
    found = play(policies, model=model)
    assert found.lam.shape == (3, 3, 3)
    tied = found.lam[1]
    assert bool((tied == tied[:, :1]).all())
    again = play(policies, model=model)
    assert torch.equal(again.poison, found.poison)
    other = play(policies, model=model, seed=4)
    assert not torch.equal(other.poison, found.poison)
    clean, _, test = board()
    rng = np.random.default_rng(0)
    tested = deploy(
        model, clean, found, 2, policies, test, 60, 0.5, rng, starts=2, checkpoints=3
    )  # fmt: skip
    assert tested.error.shape == (3,)
    assert bool(((tested.error >= 0) & (tested.error <= 1)).all())


def test_adaptive_steps_grow_on_a_straight_way():
    """From the same start, a rule that may lengthen its steps goes further than its first step."""
    start = play([ALL["large"]], replace(SMALL, poison_step=0.0)).poison
    options = replace(SMALL, rule="adaptive", hyperiterations=6)
    end = play([ALL["large"]], options).poison
    first = 0.006 * 12**0.5
    length = (end - start).flatten(1).norm() / 12**0.5
    assert float(length) > 2.0 * first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 21}, "cannot be cloned"),
        ({"batch": 20, "batches": 4}, "cannot replace"),
        ({"box": (1.0, 1.0)}, "no width"),
        ({"method": "implicit"}, "finite lambda"),
    ],
)
def test_what_cannot_be_played_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        play(options=replace(SMALL, **change))


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_cross_validation_is_that_of_models_fitted_one_by_one(penalty):
    clean, _, _ = board()
    grid = (-5.0, -4.0, -2.0)
    found = cross_validate(
        Logistic(), clean, penalty, grid, 4000, 1.0, np.random.default_rng(5),
        dtype=torch.float64,
    )  # fmt: skip
    fold = np.random.default_rng(5).permutation(60) % 5
    X, y = np.c_[clean.values(torch.float64), np.ones(60)], clean.y.numpy()
    ratio = {"l2": 0.0, "l1": 1.0}[penalty]
    losses = []
    for lam in grid:
        held = []
        for f in range(5):
            kept = fold != f
            sk = LogisticRegression(
                C=1.0 / (kept.sum() * np.exp(lam)), l1_ratio=ratio, fit_intercept=False,
                solver="saga", tol=1e-9, max_iter=100_000,
            )  # fmt: skip
            sk.fit(X[kept], y[kept])
            held.append(np.logaddexp(0.0, -y[~kept] * (X[~kept] @ sk.coef_[0])).mean())
        losses.append(np.mean(held))
    np.testing.assert_allclose(found.losses.numpy(), losses, atol=2e-3)
    assert found.lam == grid[int(np.argmin(losses))]
    with pytest.raises(ValueError, match="two folds"):
        cross_validate(Logistic(), clean, penalty, grid, 1, 1.0, np.random.default_rng(0), folds=1)


def test_checkpoints_must_fit():
    clean, _, test = board()
    with pytest.raises(ValueError, match="exceed 20 epochs"):
        deploy(Logistic(), clean, play(), 1, list(ALL.values()), test, 20, 0.5,
               np.random.default_rng(0), checkpoints=3)  # fmt: skip


@given(seed=st.integers(0, 1000), halves=st.lists(st.integers(0, 8), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_draws_are_balanced_and_disjoint(seed, halves):
    y = np.where(np.random.default_rng(seed).random(200) < 0.4, -1.0, 1.0)
    parts = balanced_draw(y, [2 * half for half in halves], np.random.default_rng(seed))
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    assert all(y[part].sum() == 0 for part in parts)


def test_draws_that_cannot_be_had():
    y = np.array([-1.0, -1.0, 1.0])
    with pytest.raises(ValueError, match="smaller has 1"):
        balanced_draw(y, [4], np.random.default_rng(0))
    with pytest.raises(ValueError, match="even"):
        balanced_draw(y, [1], np.random.default_rng(0))


def test_kuncheva():
    assert kuncheva(np.arange(5), np.arange(5), 20) == 1.0
    assert kuncheva(np.arange(5), np.arange(5, 10), 20) == pytest.approx(-1.0 / 3.0)
    rng = np.random.default_rng(0)
    random = [kuncheva(rng.choice(20, 5, False), rng.choice(20, 5, False), 20) for _ in range(4000)]
    assert abs(np.mean(random)) < 0.02
    with pytest.raises(ValueError, match="1 to 19 features"):
        kuncheva(np.arange(20), np.arange(20), 20)


@pytest.mark.parametrize("hidden", [(), (3,)])
@pytest.mark.slow
def test_a_trial_holds_every_policy_and_its_flips(hidden):
    policies = ALL | {"cv": Policy(fixed=0.0)}
    if hidden:
        policies = {"none": ALL["none"], "layers": Policy(per_layer=True)}
    flips = tuple(policies)[:2]
    trial = run_trial(
        Pool(*pixels(160)), Sizes(60, 20, 40), policies, SMALL, FinalTraining(60, 0.5),
        np.random.default_rng(0), hidden=hidden, flips=flips, top=(3, 5),
        cv=None if hidden else {"cv": (-6.0, -4.0, -2.0)},
    )  # fmt: skip
    assert trial.names == (*policies, *(name + "-flips" for name in flips))
    K = len(trial.names)
    assert trial.error.shape == trial.norm.shape == (K, 3)
    assert trial.lam.shape == (K, 3, 2 if hidden else 1)
    # Without poison there is nothing to optimise: flips and attack are the same model.
    none = trial.row("none")
    assert trial.error[none, 0] == trial.error[trial.row("none-flips"), 0]
    if not hidden:
        assert trial.consistency.shape == (K, 3, 2)
        assert np.all(trial.consistency[:, 0] == 1.0)
        assert trial.lam[trial.row("cv"), 0, 0] in (-6.0, -4.0, -2.0)
        assert trial.error[none, 2] > trial.error[none, 0]


def replayed_and_tried(penalty="l2"):
    """A trial, and a replay of its poison with λ learned again and as the trial had it."""
    policies = {"none": ALL["none"], "learned": ALL[penalty]}
    setting = (Pool(*pixels(160)), Sizes(60, 20, 40), policies, SMALL, FinalTraining(60, 0.5))
    trial = run_trial(*setting, np.random.default_rng(0), flips=("none",))
    own = float(trial.lam[trial.row("learned"), -1, 0])
    start = (SMALL.l2 if penalty == "l2" else SMALL.l1).start
    replay = run_replay(
        *setting, np.random.default_rng(0), learners=("decayed", "adaptive"),
        grid=(own, start, NO_REGULARISATION),
    )  # fmt: skip
    return trial, replay


@pytest.mark.parametrize("penalty", ["l2", "l1"])
@pytest.mark.slow
def test_a_replay_has_the_poison_and_the_tests_of_the_trial(penalty):
    trial, replay = replayed_and_tried(penalty)
    assert replay["none"].error[-1] == trial.error[trial.row("none"), -1]
    assert replay["learned"].error[2] == trial.error[trial.row("learned"), -1]
    assert np.array_equal(replay["none"].lam[2:], replay["learned"].lam[2:])


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_learners_of_poison_that_lies_still_lower_their_loss(penalty):
    for found in replayed_and_tried(penalty)[1].values():
        assert np.all(found.loss[:2] < found.loss[3])
