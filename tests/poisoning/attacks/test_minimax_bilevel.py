"""The minimax bilevel attack: budgets, optimality of steps, policies, draws."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression

from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.games.bilevel import NO_REGULARISATION, BilevelGame, FinalTraining, Policy

SMALL = MinimaxBilevel(batch=6, batches=2, steps=40, rate=0.5, hyperiterations=4, poison_step=0.3)
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


def game_of(policies=ALL, as_bytes=True, target=None, **more):
    """60 training, 20 validation and 30 test rows in float64; ``target``: a class."""
    X, y = pixels(110)
    values = X / 255.0
    aimed = y[60:80] == target
    return BilevelGame(
        X[:60] if as_bytes else values[:60], y[:60], values[60:80], y[60:80], values[80:], y[80:],
        box=(0.0, 1.0), policies=policies, scale=1.0 / 255.0, dtype="float64",
        target=None if target is None else (values[60:80][aimed], y[60:80][aimed]), **more,
    )  # fmt: skip


def play(policies=ALL, attack=SMALL, seed=3, **more):
    return attack.play(game_of(policies, **more), seed)


@pytest.mark.parametrize("rule", ["decayed", "adaptive"])
@pytest.mark.parametrize("method", ["rmd", "implicit"])
@pytest.mark.slow
def test_poison_stays_in_its_box_and_budget(rule, method):
    policies = {
        name: policy for name, policy in ALL.items()
        if method == "rmd" or policy.fixed != NO_REGULARISATION
    }  # fmt: skip
    found = play(policies, replace(SMALL, rule=rule, method=method))
    assert found.points.shape == (len(policies), 12, 12)
    assert found.points.min() >= 0.0 and found.points.max() <= 1.0
    assert len(np.unique(found.replaced)) == 12
    ranges = (SMALL.l2.low, SMALL.l2.high), (SMALL.l1.low, SMALL.l1.high)
    for policy, lam in zip(policies.values(), found.lam, strict=True):
        if policy.fixed is not None:
            assert np.all(lam == policy.fixed)
        else:
            low, high = ranges[policy.penalty == "l1"]
            assert low <= lam.min() and lam.max() <= high


def test_clones_are_validation_points_with_the_other_label():
    validation = game_of().validation
    found = play(attack=replace(SMALL, poison_step=0.0))
    distance = cdist(found.points[0], validation.X.numpy())
    nearest = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 1e-7
    assert np.array_equal(found.labels[0], -validation.y.numpy()[nearest])
    for first in (0, 6):
        assert len(np.unique(nearest[first : first + 6])) == 6
    assert np.all(found.points == found.points[:1])


@pytest.mark.slow
def test_finished_poison_is_bytes_where_the_data_are():
    levels = 255.0 * play().points
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-10)
    fine = 255.0 * play(as_bytes=False).points
    assert np.abs(fine - np.rint(fine)).max() > 0.1
    # Only the first batch: the second is optimised on top of it.
    assert np.abs(fine - levels)[:, :6].max() <= 0.5 + 1e-9


def test_a_finished_batch_is_not_changed_by_the_next():
    both, one = play(), play(attack=replace(SMALL, batches=1))
    np.testing.assert_allclose(both.points[:, :6], one.points)


def test_the_attacker_raises_and_the_defender_lowers_the_same_loss():
    policies = {name: ALL[name] for name in ("none", "l2")}
    found = play(policies, replace(SMALL, hyperiterations=8, poison_step=0.1))
    assert found.validation[0, 1, -1] > found.validation[0, 1, 0]
    clean_path = found.validation[1, 0]
    assert clean_path[-1] < clean_path[0]
    assert np.isnan(found.validation[0, 0]).all()  # nothing to learn without poison


def test_the_first_step_is_the_normalised_hypergradient():
    """Against central differences of the validation loss after training, by scikit-learn."""
    game = game_of({"fixed": Policy(fixed=-2.0)}, as_bytes=False)
    validation = game.validation
    attack = replace(SMALL, batches=1, hyperiterations=1, method="implicit", poison_step=0.02)
    flips = replace(attack, poison_step=0.0).play(game, 3)
    moved = attack.play(game, 3)
    clean = game.remaining(flips.replaced)
    base = np.concatenate([clean.X.numpy(), flips.points[0]])
    y = np.concatenate([clean.y.numpy(), flips.labels[0]])

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
    step = (moved.points - flips.points)[0]
    wanted = 0.02 * gradient / np.linalg.norm(gradient) * np.sqrt(6)
    inside = (moved.points[0] > 0) & (moved.points[0] < 1)
    np.testing.assert_allclose(step[inside], wanted[inside], atol=2e-5)


@pytest.mark.slow
def test_a_targeted_attack_hurts_its_target_more():
    policies = {name: ALL[name] for name in ("none", "l2")}
    attack = replace(SMALL, hyperiterations=10, poison_step=0.3)
    training = FinalTraining(200, 0.5)
    aimed, broad = (
        attack(game_of(policies, target=target, training=training), 3) for target in (1.0, None)
    )
    target = game_of(target=1.0).target

    def harm(found):
        w = found.outcomes["none"].w
        scores = target.X.numpy() @ w[:-1] + w[-1]
        return np.logaddexp(0.0, -scores * target.y.numpy()).mean()

    assert harm(aimed) > harm(broad)
    assert not np.array_equal(aimed.poison.target, aimed.poison.validation, equal_nan=True)
    assert np.array_equal(broad.poison.target, broad.poison.validation, equal_nan=True)


@pytest.mark.slow
def test_networks_learn_an_exponent_per_layer_or_a_tied_one():
    policies = {
        "layers": Policy(per_layer=True), "one": Policy(), "none": Policy(fixed=NO_REGULARISATION)
    }  # fmt: skip
    training = FinalTraining(60, 0.5, starts=2, checkpoints=3)
    game = game_of(policies, hidden=(4, 3), training=training)
    found = SMALL(game, 3)
    assert found.poison.lam.shape == (3, 3, 3)
    tied = found.poison.lam[1]
    assert np.all(tied == tied[:, :1])
    assert np.array_equal(SMALL.play(game, 3).points, found.poison.points)
    assert not np.array_equal(SMALL.play(game, 4).points, found.poison.points)
    assert found.outcomes["layers"].lam.shape == (3,)


def test_an_attack_is_worth_the_least_error_of_a_policy_that_regularises():
    found = SMALL(game_of(training=FinalTraining(100, 0.5)), 0)
    assert list(found.outcomes) == list(ALL)
    assert found.value == min(found.errors[name] for name in ("large", "l2", "l1"))
    assert found.seconds > 0.0
    lam = found.poison.lam[:, -1]
    for k, outcome in enumerate(found.outcomes.values()):
        assert np.array_equal(outcome.lam, lam[k])


def test_adaptive_steps_grow_on_a_straight_way():
    """From the same start, a rule that may lengthen its steps goes further than its first step."""
    policies = {"large": ALL["large"]}
    start = play(policies, replace(SMALL, poison_step=0.0)).points
    attack = replace(SMALL, rule="adaptive", hyperiterations=6)
    end = play(policies, attack).points
    first = 0.006 * 12**0.5
    assert np.linalg.norm(end - start) / 12**0.5 > 2.0 * first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 21}, "cannot be cloned"),
        ({"batch": 20, "batches": 4}, "cannot replace"),
        ({"method": "implicit"}, "finite lambda"),
    ],
)
def test_what_cannot_be_played_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        play(attack=replace(SMALL, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be"),
        ({"rate": 0.0}, "rate must be"),
        ({"poison_step": -1.0}, "poison_step must be"),
    ],
)
def test_settings_outside_their_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_a_stage_that_there_is_not_is_refused():
    found = play({"none": ALL["none"]}, replace(SMALL, poison_step=0.0))
    assert [len(found.at(stage)[2]) for stage in range(3)] == [0, 6, 12]
    for stage in (-1, 3, 9):
        with pytest.raises(
            ValueError, match=f"stage must be a whole number from 0 to 2, not {stage}"
        ):
            found.at(stage)
