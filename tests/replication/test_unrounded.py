"""Points of attacks before they are rounded."""

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.attacks.influence import Influence
from poisoning.attacks.kkt import KKT
from poisoning.attacks.label_flips import RandomFlips
from poisoning.attacks.min_max import MinMax
from poisoning.datasets import Dataset
from replication.koh2021 import game_on_split
from replication.unrounded import (
    relative_spread,
    unaugmented_on_split,
    unrounded,
    whole_entries,
)

GRID = {"quantiles": (0.4,), "decoy_copies": (5,), "opening": (0.4, 5)}
ATTACKS = [
    Influence(0.05, iterations=3, positive_shares=(0.5,)), KKT(0.05, ratios=3, **GRID),
    MinMax(0.05, loss_cap=1.0, **GRID), MinMax(0.05, decoy=False),
]  # fmt: skip


@pytest.fixture(scope="module")
def mail():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(200) % 3 == 0, 1.0, -1.0)
    rates = 0.3 + (y[:, None] > 0) * np.linspace(0, 1.5, 12)
    X = rng.poisson(rates, size=(200, 12)).astype(float)
    return Dataset("enron", "test", "counts", sp.csr_array(X), y)


def unit(mail):
    return {"dataset": mail, "split_rng": np.random.default_rng(0), "lam": 0.1, "remove": 0.05}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_the_poison_is_what_its_unrounded_points_are_on_average(mail, attack):
    game = game_on_split(*unit(mail).values())
    attacked = attack(game, np.random.default_rng(1))
    X, y = unrounded(attack, game, attacked)
    assert X.shape == (len(attacked.poison.y), 12)
    assert np.sum(y > 0) == np.sum(attacked.poison.y > 0)
    assert np.abs(X.mean(axis=0) - attacked.poison.X.toarray().mean(axis=0)).max() < 1.0
    assert 0.0 <= whole_entries(attack, attacked, **unit(mail)) <= 1.0
    if isinstance(attack, Influence):
        assert relative_spread(attack, attacked, **unit(mail)) < 1e-9, "two points"


def test_label_flips_have_no_points_that_are_rounded(mail):
    game = game_on_split(*unit(mail).values())
    attack = RandomFlips(0.05)
    with pytest.raises(TypeError, match="RandomFlips has no points"):
        unrounded(attack, game, attack(game, np.random.default_rng(1)))


def test_the_unaugmented_attack_repeats_no_point_on_purpose(mail):
    found = unaugmented_on_split(MinMax(0.05), **unit(mail), rng=np.random.default_rng(1))
    assert len(found.poison.y) == 8
    assert found.source is None
    assert set(found.errors) == {"none", "l2", "slab", "loss", "svd", "knn"}
