"""Each defense against a naive dense one, and the cut they share."""

from copy import deepcopy

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from poisoning.arrays import squared_norms
from poisoning.defenses.centroid import L2Defense, SlabDefense
from poisoning.defenses.data import CleanData, PoisonedData
from poisoning.defenses.detector import keep_mask, sanitize, threshold
from poisoning.defenses.filters import OracleFilter, RandomFilter
from poisoning.defenses.knn import KNNDefense
from poisoning.defenses.knn_kernels import add_products, merge_smallest
from poisoning.defenses.loss import LossDefense, signed_losses
from poisoning.defenses.products import InnerProducts
from poisoning.defenses.spectrum import leading_spectrum
from poisoning.defenses.svd import SVDDefense, distance_outside
from poisoning.learners import SVM, CrammerSingerSVM


def words(seed=0, n=150, d=300):
    """A bag of words with frequent and rare columns, and some copies of rows."""
    rng = np.random.default_rng(seed)
    rates = 3.0 / np.arange(1, d + 1) ** 0.8
    counts = rng.poisson(rates * rng.gamma(1.0, 1.0, (n, 1)), (n, d)).astype(float)
    counts[-9:] = counts[0]
    return counts, rng.permutation(np.where(np.arange(n) % 3, -1.0, 1.0))


def naive_l2(X, y):
    return np.array(
        [np.linalg.norm(x - X[y == label].mean(0)) for x, label in zip(X, y, strict=True)]
    )


def naive_slab(X, y):
    centre = {label: X[y == label].mean(0) for label in (1.0, -1.0)}
    axis = centre[1.0] - centre[-1.0]
    return np.array([abs(axis @ (x - centre[label])) for x, label in zip(X, y, strict=True)])


def naive_loss(X, y, lam=0.05):
    model = LinearSVC(loss="hinge", C=1.0 / (lam * len(y)), tol=1e-10, max_iter=1_000_000)
    return 1.0 - y * model.fit(X, y).decision_function(X)


def naive_svd(X, y):
    _, sigma, Vt = scipy.linalg.svd(X, full_matrices=False)
    error = [(sigma[k:] ** 2).sum() / (sigma**2).sum() for k in range(len(sigma) + 1)]
    beta = Vt[: next(k for k, e in enumerate(error) if e < 0.05)]
    return np.linalg.norm(X - X @ beta.T @ beta, axis=1)


def naive_knn(X, y):
    scores = []
    for i, x in enumerate(X):
        others = np.delete(X, i, axis=0)
        scores.append(np.sort(np.linalg.norm(others - x, axis=1))[4])
    return np.array(scores)


DEFENSES = {
    "l2": (L2Defense(), naive_l2),
    "slab": (SlabDefense(), naive_slab),
    "loss": (LossDefense(SVM(0.05)), naive_loss),
    "svd": (SVDDefense(), naive_svd),
    "knn": (KNNDefense(), naive_knn),
}


@pytest.mark.parametrize("name", DEFENSES)
@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_scores_are_those_of_the_naive_defense(name, layout):
    X, y = words()
    defense, naive = DEFENSES[name]
    data = sp.csr_array(X) if layout == "sparse" else X
    tolerance = 2e-3 if name == "loss" else 1e-6
    assert np.allclose(defense.fit(data, y).score(data, y), naive(X, y), atol=tolerance)


@pytest.mark.parametrize("name", DEFENSES)
def test_scores_of_images_are_those_of_the_naive_defense(name):
    rng = np.random.default_rng(1)
    X, y = rng.random((80, 20)) ** 3, np.where(np.arange(80) % 2, 1.0, -1.0)
    defense, naive = DEFENSES[name]
    tolerance = 2e-3 if name == "loss" else 1e-7
    assert np.allclose(defense.fit(X, y).score(X, y), naive(X, y), atol=tolerance)


@pytest.mark.parametrize("name", DEFENSES)
def test_sanitizing_removes_the_fraction_of_each_class(name):
    X, y = words(2, n=200)
    X = X[:-9]
    y = y[:-9]
    data = sp.csr_array(X)
    before = data.copy()
    keep = sanitize(DEFENSES[name][0], data, y, 0.05)
    for label in (1.0, -1.0):
        members = y == label
        expected = int(0.05 * members.sum())
        ties = 2 if name == "knn" else 0  # integer data: equal distances stay together
        assert expected - ties <= (~keep[members]).sum() <= expected
    assert (data != before).nnz == 0, "a defense must not touch the data"


@pytest.mark.parametrize("name", ["l2", "slab", "loss", "svd", "knn"])
def test_copies_of_a_point_share_its_fate(name):
    X, y = words(3)
    y[-9:] = y[0]
    for data in (X, sp.csr_array(X)):
        for remove in (0.05, 0.2, 0.5, 0.8):
            keep = sanitize(DEFENSES[name][0], data, y, remove)
            assert len(set(keep[-9:]) | {keep[0]}) == 1


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    scores=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    remove=st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 0.99]),
)
def test_the_cut(scores, remove):
    scores = np.array(scores, dtype=float)
    y = np.where(np.arange(len(scores)) % 3, 1.0, -1.0)
    keep = keep_mask(scores, y, remove)
    for label in np.unique(y):
        ours, theirs = scores[y == label], keep[y == label]
        removed = (~theirs).sum()
        assert removed <= remove * len(ours) + 1e-9
        if removed:
            assert ours[~theirs].min() > ours[theirs].max()
        # One more would have been too many, ties included.
        next_value = ours[theirs].max()
        assert removed + (ours == next_value).sum() > remove * len(ours) - 1e-9
    if remove == 0.0:
        assert keep.all()


def test_threshold_is_the_quantile():
    assert threshold(np.arange(1.0, 101.0), 0.05) == 95.0
    assert threshold(np.array([3.0]), 0.5) == 3.0


@pytest.mark.parametrize("remove", [-0.1, 1.0])
def test_impossible_fractions_are_refused(remove):
    with pytest.raises(ValueError, match="remove must be"):
        keep_mask(np.ones(3), np.ones(3), remove)


def test_filters():
    X, y = words(4)
    poisoned = np.arange(150) >= 120

    def keep(defense, rng=None):
        data = PoisonedData(
            CleanData(X[~poisoned], y[~poisoned]), X[poisoned], y[poisoned], lambda: None, rng=rng
        )
        assert np.array_equal(data.poisoned, poisoned)
        return keep_mask(defense.score_added(data), y, 0.05)

    assert np.array_equal(keep(OracleFilter()), ~poisoned)
    first, again = (keep(RandomFilter(), np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(keep(RandomFilter()), keep(RandomFilter()))
    assert [(~first[y == label]).sum() for label in (1.0, -1.0)] == [2, 5]


def test_slab_needs_both_classes():
    X, _ = words()
    with pytest.raises(ValueError, match="both classes"):
        SlabDefense().fit(X, np.ones(150))


def test_points_inside_the_subspace_score_exactly_zero():
    rng = np.random.default_rng(6)
    X = rng.random((40, 3)) @ rng.random((3, 30))
    assert np.all(distance_outside((X**2).sum(1), (X**2).sum(1) * (1 - 1e-13)) == 0.0)
    assert np.all(distance_outside(np.ones(1), np.full(1, 1.0 + 1e-9)) == 0.0)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6])
def test_knn_of_few_points_scores_by_the_farthest_and_discards_no_more_than_asked(n):
    X, y = np.arange(n, dtype=np.float64)[:, None] ** 2, np.ones(n)
    far = np.abs(X - X.T).max(axis=1) if n <= 5 else naive_knn(X, y)
    assert np.allclose(KNNDefense(5).fit(X, y).score(X, y), far)
    for remove in (0.0, 0.05, 0.5):
        assert np.sum(~sanitize(KNNDefense(5), X, y, remove)) <= int(remove * n + 1e-9)


def test_knn_of_more_neighbours_than_points_asks_for_no_more_memory_than_the_points_need():
    clean, poison = np.random.default_rng(2).normal(size=(2, 8, 3))
    X, y = np.vstack([clean, poison]), np.ones(16)
    farthest = np.linalg.norm(X[:, None] - X[None], axis=2).max(axis=1)
    huge = KNNDefense(10**12)
    assert np.allclose(huge.fit(X, y).score(X, y), farthest)
    added = PoisonedData(CleanData(clean, np.ones(8)), poison, np.ones(8), lambda: None)
    assert np.allclose(huge.score_added(added), farthest)


@pytest.mark.parametrize("kind", [np.array, sp.csr_array])
def test_an_offset_of_the_data_changes_no_decision(kind):
    rng = np.random.default_rng(20)
    X, y = rng.normal(size=(60, 5)), np.where(np.arange(60) < 30, 1.0, -1.0)
    # Multiples of 1/1024, so that adding the offset rounds nothing.
    X = np.rint(X * 1024) / 1024
    far = X + 1e8
    for defense in (L2Defense(), KNNDefense(3)):
        here = deepcopy(defense).fit(X, y).score(X, y)
        there = deepcopy(defense).fit(kind(far), y).score(kind(far), y)
        assert np.allclose(here, there, rtol=1e-6), defense
    clean, poison = CleanData(kind(far), y), far[:4] + 1.0
    data = PoisonedData(clean, kind(poison), np.ones(4), lambda: None)
    whole = kind(np.vstack([far, poison])), np.append(y, np.ones(4))
    for defense in (L2Defense(), KNNDefense(3)):
        alone = deepcopy(defense).fit(*whole).score(*whole)
        assert np.allclose(defense.score_added(data), alone, rtol=1e-6), defense


def test_integers_of_any_width_do_not_overflow():
    X, y = words(21)
    X[0, 0] = 16.0
    for kind in (np.uint8, np.int8, np.int16):
        for form in (sp.csr_array(X.astype(kind)), X.astype(kind)):
            assert np.array_equal(squared_norms(form), squared_norms(X))
            for defense in (L2Defense(), KNNDefense(3), SVDDefense(0.2)):
                scores = deepcopy(defense).fit(form, y).score(form, y)
                assert np.allclose(scores, deepcopy(defense).fit(X, y).score(X, y))


@pytest.mark.parametrize(
    "defense", [L2Defense(), SlabDefense(), KNNDefense(), SVDDefense(), LossDefense(SVM())]
)
def test_a_score_needs_a_fit_and_a_known_label(defense):
    X, y = words(22)
    with pytest.raises(NotFittedError, match="call fit before score"):
        deepcopy(defense).score(X, y)
    if not isinstance(defense, KNNDefense | SVDDefense):
        with pytest.raises(ValueError, match=r"label|y must be"):
            deepcopy(defense).fit(X, y).score(X, np.full(len(y), 5))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("tail", [0.0, 1.0, -0.1, np.nan, "x", None])
def test_a_tail_between_0_and_1_is_asked_for(tail):
    with pytest.raises(ValueError, match="tail must be between 0 and 1"):
        SVDDefense(tail)
    with pytest.raises(ValueError, match="tail must be between 0 and 1"):
        leading_spectrum(np.eye(3), tail)


def test_knn_survives_data_too_large_for_exact_float32():
    X, y = words(7)
    X[3, 0], X[4, 0] = 5001.0, 5000.0
    data = sp.csr_array(X)
    assert np.allclose(KNNDefense().fit(data, y).score(data, y), naive_knn(X, y), atol=1e-6)
    fractional = sp.csr_array(X / 7.0)
    assert np.allclose(
        KNNDefense().fit(fractional, y).score(fractional, y), naive_knn(X / 7.0, y), atol=1e-6
    )


def test_inner_products_are_exact_integers():
    X, _ = words(8)
    products = InnerProducts(sp.csr_array(X))(sp.csr_array(X[:20]))
    assert np.array_equal(products, X[:20] @ X.T)


def test_kernels_do_what_plain_numpy_does():
    X, _ = words(10, n=30)
    A, B = sp.csr_array(X[:10]), sp.csr_array(X.T)
    out = np.ones((10, 30))
    add_products(A.data, A.indices, A.indptr, B.data, B.indices, B.indptr, out)
    assert np.array_equal(out, 1.0 + X[:10] @ X.T)

    rng = np.random.default_rng(10)
    rows, others, copies = rng.random((7, 4)), rng.random((9, 4)), rng.integers(1, 4, 9)
    best = np.sort(rng.random((7, 3)), axis=1)
    squared = ((rows[:, None] - others[None]) ** 2).sum(-1)
    expected = np.sort(np.hstack([best, np.repeat(squared, copies, axis=1)]), axis=1)[:, :3]
    merge_smallest(rows @ others.T, (rows**2).sum(1), (others**2).sum(1), copies, best)
    assert np.allclose(best, expected)


def test_equal_inputs_reach_equal_sparse_and_dense_masks():
    X, y = words(11)
    for defense, _ in DEFENSES.values():
        assert np.array_equal(sanitize(defense, X, y), sanitize(defense, sp.csr_array(X), y))


def test_l2_serves_more_than_two_classes():
    X, _ = words(12)
    y = (np.arange(150) % 4).astype(float)
    assert np.allclose(L2Defense().fit(X, y).score(X, y), naive_l2(X, y))


def test_sanitizing_leaves_the_defense_as_it_was():
    X, y = words(13)
    for defense in (L2Defense(), SlabDefense(), LossDefense(SVM(0.05)), SVDDefense(), KNNDefense()):
        before = dict(vars(defense))
        sanitize(defense, X, y)
        assert vars(defense) == before


@pytest.mark.parametrize("k", [1, 3])
def test_knn_counts_other_points_only(k):
    X, y = words(14, n=60)
    X = X[:-9]
    scores = KNNDefense(k).fit(X, y[:-9]).score(X, y[:-9])
    distances = np.linalg.norm(X[:, None] - X[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert np.allclose(scores, np.sort(distances, axis=1)[:, k - 1], atol=1e-6)


def test_the_tail_decides_how_many_singular_vectors_there_are():
    X, y = words(15)
    ranks = [SVDDefense(tail).fit(X, y).basis_.shape[1] for tail in (0.2, 0.05, 0.01)]
    assert ranks[0] < ranks[1] < ranks[2]
    assert np.allclose(SVDDefense().fit(X, y).score(X, y), naive_svd(X, y), atol=1e-6)


def test_the_loss_of_more_classes_is_that_of_the_nearest_rival():
    rng = np.random.default_rng(16)
    y = np.arange(90) % 3
    X = np.eye(3)[y] + 0.3 * rng.normal(size=(90, 3))
    scorer = LogisticRegression(C=10.0).fit(X, y)
    scores = scorer.decision_function(X)
    expected = []
    for own, row in zip(y, scores, strict=True):
        expected.append(1.0 - row[own] + max(np.delete(row, own)))
    assert np.allclose(signed_losses(scorer, X, y), expected)
    model = CrammerSingerSVM().fit(X, y)
    assert np.allclose(signed_losses(model, X, y), model.losses(X, y))


def test_the_loss_defense_needs_a_learner():
    X, y = words(17)
    with pytest.raises(ValueError, match=r"needs one, such as LossDefense\(SVM\(\)\)"):
        sanitize(LossDefense(), X, y)


def test_the_loss_defense_removes_points_that_a_nearest_neighbour_learner_finds_unlikely():
    X, y = words(17)
    learner = KNeighborsClassifier(9).fit(X, y)
    kept = sanitize(LossDefense(KNeighborsClassifier(9)), X, y)
    own = learner.predict_proba(X)[np.arange(len(y)), (y > 0).astype(int)]
    assert 0 < np.sum(~kept) < len(y)
    for label in (-1.0, 1.0):
        ours = y == label
        if np.any(ours & ~kept):
            assert own[ours & ~kept].max() <= own[ours & kept].min()
