"""A repeat of Figure 2: balanced draws, Kuncheva's index, and what a trial holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.games.bilevel import NO_REGULARISATION, FinalTraining, Policy
from replication.hyperparameter_trial import Pool, Sizes, balanced_draw, kuncheva, run_trial

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
