"""What units return comes back to the last bit; equal arguments have equal digests."""

import io
import json
import math
import zipfile
from collections import namedtuple
from dataclasses import dataclass, replace
from pathlib import Path
from pprint import pformat

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given
from hypothesis import strategies as st

from replication import records
from replication.records import DamagedError, Digester, RecordError, compare


@dataclass(frozen=True)
class Outcome:
    errors: np.ndarray
    label: str
    seconds: float = 0.0


NUMBERS = st.floats(allow_nan=True) | st.integers() | st.booleans() | st.none() | st.text()
ARRAYS = st.sampled_from(["<f8", "<f4", "<i8", "|b1", "|u1", "<U3"]).flatmap(
    lambda kind: st.lists(st.integers(0, 1), max_size=4).map(lambda v: np.array(v).astype(kind))
)
LEAVES = NUMBERS | ARRAYS | st.just(np.float64(0.1)) | st.just(np.array(3.5))
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(
            st.text(max_size=3) | st.integers() | st.tuples(st.text()), inner, max_size=3
        )
        | st.frozensets(st.integers(), max_size=3)
        | inner.map(lambda v: Outcome(np.arange(2.0), repr(type(v))))
    ),
    max_leaves=8,
)


@given(VALUES)
@example(frozenset([187, 147]))
def test_values_come_back_to_the_last_bit(tmp_path_factory, value):
    file = tmp_path_factory.mktemp("records") / "a.npz"
    records.write(file, {"key": "k"}, value)
    about, back = records.read(file)
    assert about == {"key": "k"}
    # Like repr, but that the elements of sets are sorted.
    assert pformat(back, width=1, sort_dicts=False) == pformat(value, width=1, sort_dicts=False)
    assert compare(back, value).equal
    assert Digester(repr).digest(back) == Digester(repr).digest(value)


def test_a_record_written_without_the_lock_is_the_same(tmp_path):
    about, result = {"key": "k"}, Outcome(np.arange(3.0), "a")
    records.write(tmp_path / "one.npz", about, result)
    records.write_alone(tmp_path / "folder" / "other.npz", about, result)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "folder/other.npz").read_bytes()
    assert len(list((tmp_path / "folder").iterdir())) == 1


def test_sparse_matrices_and_classes_of_other_modules_come_back(tmp_path):
    X = sp.csr_array(np.array([[0.0, 2.0], [3.0, 0.0]]))
    records.write(tmp_path / "a.npz", {}, {"X": X, "o": Outcome(np.arange(3), "x")})
    _, back = records.read(tmp_path / "a.npz")
    np.testing.assert_array_equal(back["X"].toarray(), X.toarray())
    assert type(back["o"]) is Outcome


@pytest.mark.parametrize(
    "value",
    [
        np.array([None, 1]), object(), sp.coo_array((2, 2)), namedtuple("P", "x")(1), len,
        np.random.default_rng(0), {"a": [b"bytes"]},
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_and_nothing_is_written(tmp_path, value):
    with pytest.raises(RecordError, match="cannot be kept"):
        records.write(tmp_path / "a.npz", {}, value)
    assert list(tmp_path.iterdir()) == []


def damaged(tmp_path):
    file = tmp_path / "a.npz"
    records.write(file, {"key": "k"}, np.arange(100.0))
    whole = file.read_bytes()
    yield b""
    yield whole[: len(whole) // 2]
    yield b"no archive"
    yield whole.replace(b"record.json", b"recard.json")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("record.json", json.dumps([1]))
    yield buffer.getvalue()


def test_a_damaged_record_is_an_error_of_ours(tmp_path):
    for content in damaged(tmp_path):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(DamagedError):
            records.read(tmp_path / "b.npz")


def test_a_record_with_any_byte_changed_is_damaged_or_still_right(tmp_path):
    value = {"x": np.arange(20.0), "name": "a", "parts": [1, (2.5, None)]}
    records.write(tmp_path / "a.npz", {"key": "k"}, value)
    whole = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(0)
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= int(rng.integers(1, 256))
        (tmp_path / "b.npz").write_bytes(content)
        try:
            _, found = records.read(tmp_path / "b.npz")
        except DamagedError:
            continue
        assert records.compare(value, found).equal, position


def digest(value):
    return Digester(lambda f: f.__name__).digest(value)


def test_digests_tell_apart_what_differs():
    rng = np.random.default_rng(1)
    spawned = np.random.default_rng(1)
    spawned.spawn(1)
    different = [
        1, 1.0, True, "1", None, [1], (1,), {"a": 1}, {"b": 1}, np.array([1]), np.array([1.0]),
        np.array([[1.0]]), np.float32(1), rng, spawned, np.random.default_rng(2),
        sp.csr_array(np.eye(2)), Outcome(np.arange(2), "a"), Outcome(np.arange(2), "b"),
        [[1], 2], [[1, 2]], len, max, {1, 2},
    ]  # fmt: skip
    assert len({digest(value) for value in different}) == len(different)


def test_digests_do_not_hang_on_memory_layout_or_order_of_sets():
    X = np.arange(12.0).reshape(3, 4)
    assert digest(X) == digest(np.asfortranarray(X)) == digest(X[:, ::1].copy())
    assert digest(X[:, ::2]) == digest(X[:, ::2].copy())
    assert digest({1, 2, 3}) == digest({3, 2, 1})


def test_arguments_without_a_digest_are_named():
    with pytest.raises(RecordError, match=r"builtins\.bytes has no digest"):
        digest([b"x"])


def test_seconds_are_no_part_of_a_result():
    one = {"error": 0.1, "seconds": 1.0, "of": [Outcome(np.ones(2), "a", 2.0)]}
    other = {"error": 0.1, "seconds": 9.0, "of": [Outcome(np.ones(2), "a", 3.0)]}
    assert compare(one, other).verdict == "equal"


@pytest.mark.parametrize(
    ("change", "verdict", "where"),
    [
        (1e-9, "within tolerance", "result.errors"),
        (1e-3, "different", "result.errors"),
    ],
)
def test_differences_are_measured_and_placed(change, verdict, where):
    one = Outcome(np.array([1.0, 2.0]), "a")
    found = compare(one, replace(one, errors=one.errors + np.array([0.0, 2.0 * change])))
    assert (found.verdict, found.where) == (verdict, where)
    assert found.worst == pytest.approx(change, rel=1e-3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.ones(2), np.ones(3)), (np.ones(2), np.ones(2, np.float32)), ([1], [1, 2]),
        ({"a": 1}, {"b": 1}), (1, 1.0), ("a", "b"), (np.array([1.0, np.nan]), np.ones(2)),
        (np.array([1]), np.array([2])), (None, 0),
    ],
)  # fmt: skip
def test_other_shapes_types_and_labels_are_different(one, other):
    found = compare(one, other)
    assert found.verdict == "different"
    assert found.worst == math.inf


def test_the_sign_of_zero_and_the_place_of_a_nan_count():
    assert not compare(np.array([0.0]), np.array([-0.0])).equal
    assert compare(np.array([np.nan]), np.array([np.nan])).equal


class OwnDefense:
    """An object that neither is a dataclass nor lists its parameters."""

    def __init__(self, k):
        self.k = k


def test_objects_of_ones_own_count_by_class_and_state():
    digester = Digester(lambda thing: "code")
    assert digester.digest(OwnDefense(3)) == digester.digest(OwnDefense(3))
    assert digester.digest(OwnDefense(3)) != digester.digest(OwnDefense(4))
    assert digester.classes == {OwnDefense}
    with pytest.raises(RecordError, match="StringIO has no digest"):
        digester.digest(io.StringIO())


def test_estimators_count_by_class_and_parameters():
    from sklearn.svm import LinearSVC

    digester = Digester(lambda thing: "code")
    assert digester.digest(LinearSVC()) == digester.digest(LinearSVC())
    assert digester.digest(LinearSVC()) != digester.digest(LinearSVC(C=2.0))
    assert digester.classes == {LinearSVC}


@pytest.mark.parametrize(
    ("name", "module", "told"),
    [
        ("Evil", "evil_module", "evil_module is no module of this project"),
        ("Popen", "subprocess", "is no dataclass"),
        ("system", "os", "is no dataclass"),
        ("main", "replication.run", "is no dataclass"),
        ("Popen", "replication.project.subprocess", "is no module of this project"),
        ("x", "../evil_module", "is no module of this project"),
    ],
)
def test_a_record_imports_and_makes_nothing_but_our_dataclasses(
    name, module, told, tmp_path, monkeypatch
):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    tree = {"#": "object", "class": name, "in": module, "of": {"args": "touch x"}}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("record.json", json.dumps({"key": "k", "result": tree}))
    with pytest.raises(records.RecordError, match=told):
        records.read(tmp_path / "a.npz")


def test_a_record_with_a_pickle_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "made",))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("record.json", json.dumps({"result": {"#": "array", "at": 0}}))
        archive.writestr("0.npy", buffer.getvalue())
    with pytest.raises(records.DamagedError):
        records.read(tmp_path / "a.npz")
    assert not (tmp_path / "made").exists()
