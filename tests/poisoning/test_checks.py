"""What is accepted from outside, and in which form it goes on; refusals are in test_linear too."""

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning import checks

pytestmark = pytest.mark.usefixtures("unchecked")

X = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])


def test_arrays_that_are_right_are_returned_as_they_are():
    assert checks.matrix(X, "X") is X
    sparse = sp.csr_array(X)
    assert checks.matrix(sparse, "X") is sparse
    y = np.array([1.0, -1.0])
    assert checks.labels(y, "y", 2) is y


@pytest.mark.parametrize(
    "dtype", [bool, np.int8, np.uint16, np.int64, np.float16, np.float32, ">f8"]
)
def test_real_numbers_of_every_type_become_float64(dtype):
    taken = checks.matrix((X != 0).astype(dtype), "X")
    assert taken.dtype == np.float64 and taken.dtype.isnative
    assert np.array_equal(taken, X != 0)


def test_rows_lie_one_after_another():
    for array in (np.asfortranarray(X), X.repeat(2, axis=0)[::2], X[:, ::-1]):
        taken = checks.matrix(array, "X")
        assert taken.flags.c_contiguous
        assert np.array_equal(taken, array)


def test_sparse_matrices_become_canonical_with_short_indices_and_the_caller_keeps_his():
    rough = sp.csr_array(
        (np.array([1.0, 2.0, 1.0, 3.0]), np.array([2, 1, 2, 0]), np.array([0, 3, 4])), (2, 3)
    )
    rough.indices, rough.indptr = rough.indices.astype(np.int64), rough.indptr.astype(np.int64)
    before = [part.copy() for part in (rough.data, rough.indices, rough.indptr)]
    taken = checks.matrix(rough, "X")
    assert isinstance(taken, sp.csr_array)
    assert taken.has_canonical_format and taken.indices.dtype == taken.indptr.dtype == np.int32
    assert np.array_equal(taken.toarray(), [[0, 2, 2], [3, 0, 0]])
    after = (rough.data, rough.indices, rough.indptr)
    assert all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(after, before, strict=True)
    )


def test_labels_are_signs_or_numbers_of_classes():
    signs = checks.labels([1, -1, 1], "y", 3)
    assert signs.dtype == np.float64
    numbers = checks.labels(np.array([0.0, 2.0, 1.0]), "y", 3)
    assert numbers.dtype == np.int64 and numbers.tolist() == [0, 2, 1]
    assert len(checks.labels([], "y", 0)) == 0


@pytest.mark.parametrize("y", [[0.5, 1], [-1, 0], [-2, 1], [1e300, 1], [2.0**40, 1]])
def test_other_labels_are_refused(y):
    with pytest.raises(ValueError, match=r"^y must be -1 and \+1 for two classes, or 0 to k - 1"):
        checks.labels(y, "y", 2)


def test_as_many_rows_and_columns_as_asked_for():
    with pytest.raises(ValueError, match=r"^A must have at least 3 rows, it has 2\.$"):
        checks.matrix(X, "A", rows=3)
    with pytest.raises(
        ValueError, match=r"^A must have 4 columns like the clean data, it has 3\.$"
    ):
        checks.matrix(sp.csr_array(X), "A", columns=4)
    assert checks.matrix(X[:0], "A", rows=0).shape == (0, 3)


@pytest.mark.parametrize("value", [0, 0.0, 0.05, np.float32(0.5), np.int64(0), 0.999])
def test_a_fraction(value):
    found = checks.fraction(value, "remove")
    assert type(found) is float and found == value


@pytest.mark.parametrize("value", [1, -0.1, np.nan, np.inf, "0.1", None, True, np.True_, [0.1], 1j])
def test_no_fraction(value):
    with pytest.raises(ValueError, match=r"^remove must be a number in \[0, 1\), not .*\.$"):
        checks.fraction(value, "remove")


def test_a_generator_is_itself_and_a_seed_makes_one():
    rng = np.random.default_rng(0)
    assert checks.generator(rng, "rng") is rng
    assert checks.generator(3, "rng").random() == np.random.default_rng(3).random()


@pytest.mark.parametrize(
    "row", [[0.9e100] * 4, [-1e100, 0.0], [1e-300, 1.0], [1e-100] * 3, [0.0, 0.0]]
)
def test_numbers_whose_squares_can_be_computed(row):
    for matrix in (np.array([row]), sp.csr_array([row])):
        assert checks.matrix(matrix, "X") is matrix
    assert checks.bounded(np.array(row))


@pytest.mark.parametrize(
    "row", [[1.1e100], [1.0, -1e200], [np.inf, -np.inf], [1.0, np.nan], [1e-101] * 999, [0, 1e-200]]
)
def test_numbers_whose_squares_cannot(row):
    for matrix in (np.array([row]), sp.csr_array([row])):
        with pytest.raises(ValueError, match=r"^X must "):
            checks.matrix(matrix, "X")
    assert checks.bounded(np.array(row)) == (abs(row[-1]) < 1.0)


def test_signs_weights_and_vectors():
    assert checks.signs([1, -1], "y", 2).tolist() == [1.0, -1.0]
    assert checks.weights([0, 2], "w", 2).tolist() == [0.0, 2.0]
    assert checks.vector([0.5, -2], "v", 2).dtype == np.float64


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: checks.signs([0, 1], "y", 2), "y must be -1 and +1, it holds 0."),
        (lambda: checks.signs([np.nan, 1], "y", 2), "y must be -1 and +1, it holds nan."),
        (lambda: checks.weights([-1, 1], "w", 2), "w must be at least 0, it holds -1."),
        (lambda: checks.weights([0, 0], "w", 2), "w must not all be 0."),
        (
            lambda: checks.vector([1.0], "v", 2, per="columns"),
            "v must have one value for each of 2 columns, it has 1.",
        ),
        (lambda: checks.vector([np.inf], "v", 1), "v must be finite, it holds NaN or infinity."),
        (
            lambda: checks.vector([-1e160], "v", 1),
            "v must lie within 1e100 of 0, it holds 1e+160: rescale it.",
        ),
        (
            lambda: checks.vector(np.ma.masked_array([1.0], [True]), "v", 1),
            "v must have no masked entries: fill or drop them first.",
        ),
        (
            lambda: checks.vector(sp.csr_array([[1.0]]), "v", 1),
            "v must be a dense array, it is sparse: use v.toarray().",
        ),
        (lambda: checks.positive(0, "lam"), "lam must be a finite number above 0, not 0."),
        (lambda: checks.positive(np.nan, "tol"), "tol must be a finite number above 0, not nan."),
        (
            lambda: checks.positive(-1.0, "tau", zero=True),
            "tau must be a finite number at least 0, not -1.0.",
        ),
        (lambda: checks.whole(0, "T"), "T must be a whole number of at least 1, not 0."),
        (lambda: checks.whole(2.0, "T"), "T must be a whole number of at least 1, not 2.0."),
        (lambda: checks.whole(True, "T", 0, 3), "T must be a whole number from 0 to 3, not True."),
        (
            lambda: checks.one_of("L1", "penalty", ("l1", "l2")),
            "penalty must be one of l1, l2, not 'L1'.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError)) as refusal:
        call()
    assert str(refusal.value) == sentence


@pytest.mark.parametrize("change", ["indices", "indptr", "end", "length"])
def test_a_sparse_matrix_that_points_outside_itself_is_refused(change):
    broken = sp.csr_array(np.eye(3))
    if change == "indices":
        broken.indices[0] = 99
    elif change == "indptr":
        broken.indptr[1] = 50
    elif change == "end":
        broken.indptr[-1] = 50
    else:
        broken.indices = broken.indices[:1]
    with pytest.raises(ValueError, match="X is no valid sparse matrix"):
        checks.matrix(broken, "X")


def test_a_sparse_matrix_that_says_it_is_sorted_is_not_believed():
    shuffled = sp.csr_array([[1.0, 2.0, 3.0]])
    assert shuffled.has_canonical_format
    shuffled.indices[:] = [2, 1, 0]
    assert checks.matrix(shuffled, "X").indices.tolist() == [0, 1, 2]


def test_an_array_mapped_from_a_file_is_an_array(tmp_path):
    np.save(tmp_path / "X.npy", X)
    taken = checks.floats(np.load(tmp_path / "X.npy", mmap_mode="r"), "X", (2, 3))
    assert type(taken) is np.ndarray and taken.flags.writeable
    assert np.array_equal(taken, X)
