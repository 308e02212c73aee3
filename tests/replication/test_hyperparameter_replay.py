"""λ learned once more on finished poison."""

import numpy as np
import pytest

from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.games.bilevel import NO_REGULARISATION, FinalTraining, Policy
from replication.hyperparameter_replay import run_replay
from replication.hyperparameter_trial import Pool, Sizes, run_trial

SMALL = MinimaxBilevel(batch=6, batches=2, steps=40, rate=0.5, hyperiterations=4, poison_step=0.3)
ALL = {
    "none": Policy(fixed=NO_REGULARISATION),
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


@pytest.fixture(scope="module", params=["l2", "l1"])
def tried_and_replayed(request):
    """A trial, and a replay of its poison with λ learned again and as the trial had it."""
    penalty = request.param
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


@pytest.mark.slow
def test_a_replay_has_the_poison_and_the_tests_of_the_trial(tried_and_replayed):
    trial, replay = tried_and_replayed
    assert replay["none"].error[-1] == trial.error[trial.row("none"), -1]
    assert replay["learned"].error[2] == trial.error[trial.row("learned"), -1]
    assert np.array_equal(replay["none"].lam[2:], replay["learned"].lam[2:])


def test_learners_on_finished_poison_lower_their_loss(tried_and_replayed):
    for found in tried_and_replayed[1].values():
        assert np.all(found.loss[:2] < found.loss[3])
