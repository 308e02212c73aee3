"""The paper's game on one split, kept for all attacks on it."""

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.datasets import Dataset
from poisoning.learners import SVM, LogisticRegression
from replication.koh2021 import game_on_split


@pytest.fixture
def mail():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(120) % 3 == 0, 1.0, -1.0)
    X = rng.poisson(1.0 + (y[:, None] > 0) * np.linspace(0, 2, 6), size=(120, 6)).astype(float)
    return Dataset("enron", "test", "counts", sp.csr_array(X), y)


def game(mail, seed=0, lam=0.1, remove=0.05, **others):
    return game_on_split(mail, np.random.default_rng(seed), lam, remove, **others)


def test_the_game_of_a_split_is_made_once_and_any_other_anew(mail):
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
