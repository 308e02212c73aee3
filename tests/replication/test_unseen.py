"""An attacker who has half of the test data."""

import numpy as np
import scipy.sparse as sp

from poisoning.attacks.kkt import KKT
from poisoning.datasets import Dataset
from replication.koh2021 import game_on_split
from replication.unseen import attack_with_half, halves, value_on_unseen


def test_halves_share_no_row_and_hold_all():
    first, second = halves(11, np.random.default_rng(0))
    assert (len(first), len(second)) == (5, 6)
    assert sorted([*first, *second]) == list(range(11))


def test_an_attack_is_made_for_one_half_and_judged_by_the_other():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(300) % 3 == 0, 1.0, -1.0)
    X = rng.poisson(0.5 + (y[:, None] > 0) * np.linspace(0, 1.5, 8), size=(300, 8)).astype(float)
    mail = Dataset("enron", "test", "counts", sp.csr_array(X), y)
    attack = KKT(0.1, ratios=3, quantiles=(0.4,), decoy_copies=(5,), opening=(0.4, 5))

    def unit():
        return {"dataset": mail, "split_rng": np.random.default_rng(0), "lam": 0.1, "remove": 0.05}

    found = attack_with_half(
        attack, **unit(), rng=np.random.default_rng(1), half_rng=np.random.default_rng(2)
    )
    game = game_on_split(*unit().values())
    seen, _ = halves(60, np.random.default_rng(2))
    mine = game.with_test(game.X_test[seen], game.y_test[seen])
    poison = attack(mine, np.random.default_rng(1)).poison
    assert found.seen == mine.value(mine.evaluate(poison.X, poison.y))
    given = value_on_unseen(**unit(), poisoned=poison, half_rng=np.random.default_rng(2))
    assert found.unseen == given
