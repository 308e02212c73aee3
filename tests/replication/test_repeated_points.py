"""A defender who throws out repeated points."""

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.datasets import Dataset
from poisoning.feasible.sets import InputDomain
from replication.repeated_points import first_of_each, least, repeats_dropped

DOMAIN = InputDomain("counts", np.zeros(6), np.array([9.0, 9.0, 9.0, 9.0, 1.0, 0.0]))


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array])
def test_the_first_of_equal_points_stays_and_labels_tell_points_apart(kind):
    X = kind(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    y = np.array([1.0, 1.0, 1.0, -1.0, 1.0])
    np.testing.assert_array_equal(first_of_each(X, y), [True, False, True, True, True])


def test_a_defender_who_drops_repeats_sees_each_point_once():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(150) % 3 == 0, 1.0, -1.0)
    X = rng.poisson(1.0 + (y[:, None] > 0) * np.linspace(0, 2, 6), size=(150, 6)).astype(float)
    X[:, 4:] = 0.0
    mail = Dataset("enron", "test", "counts", sp.csr_array(X), y)
    one = PoisonedSet(sp.csr_array([[9.0, 0, 9, 0, 0, 0]]), np.array([-1.0]), 120, 1 / 120, DOMAIN)
    many = PoisonedSet(
        sp.csr_array(np.tile([[9.0, 0, 9, 0, 0, 0]], (12, 1))), -np.ones(12), 120, 0.1, DOMAIN
    )
    found = repeats_dropped(mail, np.random.default_rng(0), 0.1, 0.05, {"one": one, "many": many})
    assert found["one"] == found["many"]
    assert set(found) == {"no-attack", "one", "many"}
    errors = found["no-attack"]
    assert least(errors) == min(errors[name] for name in ("l2", "slab", "loss", "svd", "knn"))
