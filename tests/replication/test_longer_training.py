"""The poison of a trial, met by models that are trained for longer."""

import numpy as np
import pytest

from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.games.bilevel import NO_REGULARISATION, FinalTraining, Policy
from replication import carnerero2023
from replication.hyperparameter_trial import Pool, Sizes, run_trial
from replication.longer_training import run_longer

SMALL = MinimaxBilevel(batch=6, batches=2, steps=40, rate=0.5, hyperiterations=4, poison_step=0.3)
POLICIES = {
    "none": Policy(fixed=NO_REGULARISATION),
    "l2-cv": Policy(fixed=0.0),
    "l2-learned": Policy(),
    "l1-cv": Policy("l1", 0.0),
    "l1-learned": Policy("l1"),
}


@pytest.fixture(scope="module")
def setting():
    """Two classes of bytes that a line separates, and what is done with them."""
    rng = np.random.default_rng(0)
    y = np.where(np.arange(160) % 2 == 0, -1.0, 1.0)
    X = rng.normal(128.0, 20.0, (160, 12))
    X[:, :4] += 35.0 * y[:, None]
    pool = Pool(np.clip(np.rint(X), 0, 255).astype(np.uint8), y)
    return pool, Sizes(60, 20, 40), POLICIES, SMALL, FinalTraining(60, 0.5)


@pytest.fixture(scope="module")
def longer(setting):
    cv = dict.fromkeys(("l2-cv", "l1-cv"), (-6.0, -4.0, -2.0))
    return run_longer(*setting, np.random.default_rng(0), cv=cv, epochs=(60, 600))


def test_the_first_models_are_those_of_the_trial(setting, longer):
    trial = run_trial(*setting, np.random.default_rng(0))
    for name in ("none", "l2-learned", "l1-learned"):
        one, other = longer.row(name), trial.row(name)
        np.testing.assert_allclose(longer.error[one, :, 0], trial.error[other], atol=1e-6)
        np.testing.assert_allclose(longer.norm[one, :, 0], trial.norm[other], rtol=1e-6)
        np.testing.assert_array_equal(longer.lam[one], trial.lam[other, :, 0])


def test_without_regularisation_norms_go_on_growing(longer):
    none = longer.row("none")
    assert np.all(longer.norm[none, :, 1] > longer.norm[none, :, 0])


def test_cross_validation_is_that_of_the_longest_training(setting, longer):
    lam = longer.lam[longer.row("l2-cv")]
    assert len(set(lam)) == 1 and lam[0] in (-6.0, -4.0, -2.0)
    assert ("l2-cv" in longer.cv_at_edge) == (lam[0] != -4.0)


def test_quantities_compare_lengths_of_training_and_policies(longer):
    found = carnerero2023.longer_quantities([longer, longer])
    none, cv, learned = (longer.row(name) for name in ("none", "l2-cv", "l2-learned"))
    ratio = longer.norm[none, -1] / longer.norm[none, 0]
    np.testing.assert_allclose(found["none.norm-ratio-gained"], ratio[1] - ratio[0])
    np.testing.assert_allclose(
        found["l2.cv-over-learned"], longer.error[cv, -1, 1] - longer.error[learned, -1, 1]
    )
    assert found["l1.cv-at-edge"].tolist() == 2 * [float("l1-cv" in longer.cv_at_edge)]
