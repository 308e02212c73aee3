"""The paper's game on one split, kept for all attacks on it."""

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.attacks.label_flips import RandomFlips
from poisoning.datasets import Dataset
from poisoning.defenses import FIVE
from poisoning.learners import SVM, LogisticRegression
from replication import paths
from replication.koh2021 import (
    attack_on_one_defense,
    game_on_split,
    repeats,
    shared_split,
    validated_on_split,
)
from replication.notebook import Notebook


@pytest.fixture
def mail():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(120) % 3 == 0, 1.0, -1.0)
    X = rng.poisson(1.0 + (y[:, None] > 0) * np.linspace(0, 2, 6), size=(120, 6)).astype(float)
    return Dataset("enron", "test", "counts", sp.csr_array(X), y)


def game(mail, seed=0, lam=0.1, remove=0.05, **others):
    return game_on_split(mail, np.random.default_rng(seed), lam, remove, **others)


def test_the_game_of_a_split_is_made_once(mail):
    first = game(mail)
    assert game(mail) is first
    assert game(mail, seed=1) is not first
    again = game(mail)
    assert again is not first, "only the last one is kept"
    np.testing.assert_array_equal(again.X.toarray(), first.X.toarray())
    assert game(mail, lam=0.2).lam == 0.2
    assert game(mail, remove=0.1).remove == 0.1
    other = Dataset("enron", "test", "counts", mail.X, -mail.y)
    assert not np.array_equal(game(other).y, game(mail).y)


def test_another_learner_or_defense_is_that_of_its_own_game(mail):
    assert isinstance(game(mail, learner=LogisticRegression(0.1)).learner, LogisticRegression)
    assert isinstance(game(mail).learner, SVM)
    assert list(game(mail, defenses=()).defenses) == []
    assert len(game(mail).defenses) == 5


def test_splits_are_repeated_and_on_a_published_one_seeds(mail, tmp_path, monkeypatch):
    monkeypatch.setenv(paths.RESULTS_VARIABLE, str(tmp_path))
    published = Dataset("mnist-1-7", "test", "counts", mail.X, mail.y, mail.X, mail.y)
    knobs = {"splits": 3, "seeds": 2}
    assert list(repeats(knobs, mail)) == [0, 1, 2]
    assert list(repeats(knobs, published)) == [0, 1]
    notebook = Notebook("koh2021/attacks", "demo")
    draws = [shared_split(notebook, mail, i).random() for i in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert shared_split(notebook, published, 1).random() == draws[0]


def test_an_attack_may_know_the_one_defense_that_it_meets(mail):
    unit = {"dataset": mail, "lam": 0.1, "remove": 0.05}
    l2 = FIVE[0]
    found = attack_on_one_defense(
        l2, RandomFlips(0.05), **unit, split_rng=np.random.default_rng(0),
        rng=np.random.default_rng(1),
    )  # fmt: skip
    assert set(found.outcomes) == {"none", l2.name}
    removed = validated_on_split(
        mail, np.random.default_rng(0), 0.1, found.poison, [0.0, 0.1], (l2,)
    )
    assert set(removed) == {l2.name}


@pytest.mark.parametrize("own_first", [True, False])
def test_games_on_one_split_share_its_clean_data_and_nothing_else(mail, own_first):
    def games():
        makers = [
            lambda: game(mail),
            lambda: game(mail, lam=0.2, remove=0.2),
            lambda: game(mail, learner=LogisticRegression(0.1), defenses=FIVE[3:]),
        ]
        found = [make() for make in (makers if own_first else makers[::-1])]
        return found if own_first else found[::-1]

    shared = games()
    assert all(one.data is shared[0].data for one in shared)
    assert game(mail) is shared[0] and game(mail, lam=0.2, remove=0.2) is shared[1]
    points, labels = shared[0].X[:9], -shared[0].y[:9]
    together = [one.evaluate(points, labels) for one in shared]
    for number, found in enumerate(together):
        game(mail, seed=1)  # forgets the split
        alone = games()[number].evaluate(points, labels)
        assert list(found) == list(alone)
        for name, outcome in found.items():
            assert outcome.test_error == alone[name].test_error
            assert outcome.poison_removed == alone[name].poison_removed
            assert np.array_equal(outcome.model.theta, alone[name].model.theta)
