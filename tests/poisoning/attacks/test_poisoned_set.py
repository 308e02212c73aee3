import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.attacks.poisoned_set import PoisonedSet
from poisoning.feasible.sets import InputDomain

COUNT_KIND = "counts"
COUNTS = InputDomain.of(COUNT_KIND, np.array([[3.0, 1.0], [0.0, 2.0]]))
BOX = InputDomain.of("box01", np.zeros((1, 2)))


def poisoned(X, y, domain=COUNTS, n=100, epsilon=0.02):
    return PoisonedSet(X, np.array(y), n, epsilon, domain)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array])
def test_points_of_the_domain_within_the_budget_are_taken(kind):
    made = poisoned(kind(np.array([[3.0, 0.0], [0.0, 2.0]])), [1.0, -1.0])
    assert made.X.shape == (2, 2)


@pytest.mark.parametrize(
    ("X", "domain"),
    [
        ([[0.5, 0.0], [0.0, 0.0]], COUNTS),
        ([[-1.0, 0.0], [0.0, 0.0]], COUNTS),
        ([[4.0, 0.0], [0.0, 0.0]], COUNTS),
        ([[1.2, 0.0], [0.0, 0.0]], BOX),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array])
def test_a_point_outside_the_domain_is_refused(X, domain, kind):
    with pytest.raises(ValueError, match=r"1 of 2 poisoned points, the first in row 0"):
        poisoned(kind(np.array(X)), [1.0, -1.0], domain)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_budget_is_exact(rows):
    with pytest.raises(ValueError, match="exactly 2"):
        poisoned(np.zeros((rows, 2)), np.ones(rows))


def test_labels_are_plus_or_minus_one():
    with pytest.raises(ValueError, match="labels"):
        poisoned(np.zeros((2, 2)), [1.0, 0.0])


@pytest.mark.parametrize("label", [0, 3])
def test_labels_of_more_classes_are_whole_numbers(label):
    assert poisoned(np.zeros((2, 2)), [label, 1]).y.dtype.kind == "i"


def test_rows_labels_and_features_must_fit():
    with pytest.raises(ValueError, match="one label for each of 3 rows"):
        poisoned(np.zeros((3, 2)), [1.0, -1.0])
    with pytest.raises(ValueError, match="3 features"):
        poisoned(np.zeros((2, 3)), [1.0, -1.0])
