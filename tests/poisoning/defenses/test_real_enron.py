"""The defenses on real mail, where the spectrum decays slowly and words are many."""

import os

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.datasets import fetch, load, prepare, split
from poisoning.defenses.detector import sanitize
from poisoning.defenses.svd import SVDDefense
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("DATA_MIRROR"), reason="DATA_MIRROR is not set"),
]


@pytest.fixture(scope="module")
def mail(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    fetch("enron", data)
    prepare("enron", "real", data)
    return split(load(data / "real" / "enron"), np.random.default_rng(0))


def test_defenses_cost_little_and_the_svd_update_is_exact(mail):
    """Clean error 2.9 % (Table 1 of Koh et al. 2021); 124 poisoned rows, 62 of them distinct."""
    data = mail.X, mail.y, mail.X_test, mail.y_test
    game = LinearGame(*data, domain="counts", learner=SVM(0.09))
    clean = game.evaluate(mail.X[:0], mail.y[:0])
    assert len(clean) == 6
    for outcome in clean.values():
        assert 0.015 < outcome.test_error < 0.05

    rng = np.random.default_rng(0)
    rate = mail.X.mean(axis=0)
    distinct = np.floor(2.0 * rate) + (rng.random((62, len(rate))) < (2.0 * rate) % 1.0)
    P, labels = sp.csr_array(np.repeat(distinct, 2, axis=0)), np.repeat([1.0, -1.0], 62)
    found = game.attacked(P, labels).outcome("svd")
    X, y = sp.vstack([mail.X, P], format="csr"), np.r_[mail.y, labels]
    keep = sanitize(SVDDefense(), X, y)
    removed = 1.0 - keep[: len(mail.y)][mail.y > 0.0].mean()
    assert found.poison_removed == pytest.approx(1.0 - keep[len(mail.y) :].mean())
    assert found.clean_removed_by_label[1.0] == pytest.approx(removed)
