"""What is written is read back, is the same every time, and is noticed when altered."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.datasets import load, prepare
from poisoning.datasets.content import Content, check, digest
from poisoning.datasets.store import save
from poisoning.errors import DataError

COUNTS = sp.csr_array(np.array([[0, 2, 0], [1, 0, 300]], dtype=np.int32))
TEXT = Content("counts", COUNTS, np.array([1.0, -1.0]), vocabulary=["a", "é", "ç"])
ABOUT = {"name": "tiny", "variant": "test"}


def test_text_survives(tmp_path):
    save(tmp_path / "tiny", TEXT, ABOUT)
    read = load(str(tmp_path / "tiny"))
    assert isinstance(read.X, sp.csr_array)
    assert read.X.dtype == np.float64
    assert np.array_equal(read.X.toarray(), COUNTS.toarray())
    assert (read.vocabulary, read.domain, read.X_test) == (["a", "é", "ç"], "counts", None)
    assert read.manifest["labels"] == {"-1": 1, "1": 1}


def test_pixels_fill_the_unit_box(tmp_path):
    pixels = np.arange(256, dtype=np.uint8).reshape(2, 128)
    save(tmp_path / "tiny", Content("box01", pixels, np.array([0, 9])), ABOUT)
    read = load(tmp_path / "tiny")
    assert (read.X.min(), read.X.max(), read.X.dtype) == (0.0, 1.0, np.float64)
    assert np.array_equal(np.rint(read.X * 255), pixels)
    assert read.y.dtype == np.int64


def test_tasks_and_outputs_survive(tmp_path):
    X, y, tasks = np.eye(3), np.array([1.0, -1.0, 1.0]), np.array([0, 1, 1])
    save(tmp_path / "tasks", Content("real", X, y, tasks=tasks), ABOUT)
    assert np.array_equal(load(tmp_path / "tasks").tasks, tasks)
    save(tmp_path / "outputs", Content("real", X, 2 * X), ABOUT)
    assert np.array_equal(load(tmp_path / "outputs").y, 2 * X)
    assert load(tmp_path / "outputs").manifest["labels"] is None


def test_two_runs_write_the_same_bytes_and_a_rerun_replaces(tmp_path):
    for folder in ("first", "second", "second"):
        save(tmp_path / folder / "tiny", TEXT, ABOUT)
    for path in (tmp_path / "first/tiny").iterdir():
        assert path.read_bytes() == (tmp_path / "second/tiny" / path.name).read_bytes()
    assert [path.name for path in (tmp_path / "second").iterdir()] == ["tiny"]


def test_the_manifest_holds_no_path(tmp_path):
    manifest = prepare("sarcos", "standin", tmp_path)
    assert str(tmp_path) not in json.dumps(manifest)
    assert json.loads((tmp_path / "standin/sarcos/manifest.json").read_text()) == manifest


def test_the_digest_sees_every_part():
    def of(**changed):
        fields = {"domain": "counts", "X": COUNTS, "y": TEXT.y, "vocabulary": TEXT.vocabulary}
        content = Content(**(fields | changed))
        return digest(content.arrays(), content.vocabulary)

    variants = [
        of(),
        of(X=COUNTS + COUNTS),
        of(X=COUNTS.toarray()),
        of(y=-TEXT.y),
        of(vocabulary=["a", "b", "c"]),
        of(X_test=COUNTS, y_test=TEXT.y),
    ]
    assert len(set(variants)) == len(variants)


@pytest.mark.parametrize("name", ["arrays.npz", "manifest.json"])
def test_a_missing_file(tmp_path, name):
    save(tmp_path / "tiny", TEXT, ABOUT)
    (tmp_path / "tiny" / name).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing.*prepare tiny"):
        load(tmp_path / "tiny")


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"no prepared data set .*prepare enron"):
        load(tmp_path / "enron")


@pytest.mark.parametrize("name", ["arrays.npz", "manifest.json", "vocabulary.json"])
def test_a_truncated_file(tmp_path, name):
    save(tmp_path / "tiny", TEXT, ABOUT)
    path = tmp_path / "tiny" / name
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "tiny")


def test_a_flipped_byte_is_noticed_wherever_it_is(tmp_path):
    """Either the archive's own check sums or the digest notice; nothing is loaded silently."""
    save(tmp_path / "tiny", TEXT, ABOUT)
    expected = load(tmp_path / "tiny")
    path = tmp_path / "tiny/arrays.npz"
    whole = path.read_bytes()
    noticed = 0
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            read = load(tmp_path / "tiny")
        except DataError:
            noticed += 1
        else:  # bytes of the container that carry nothing
            assert np.array_equal(read.X.toarray(), expected.X.toarray())
            assert np.array_equal(read.y, expected.y)
    assert noticed > 0.5 * len(range(0, len(whole), 7))


def test_another_word_is_noticed(tmp_path):
    save(tmp_path / "tiny", TEXT, ABOUT)
    (tmp_path / "tiny/vocabulary.json").write_text('["a", "b", "c"]')
    with pytest.raises(DataError, match="was altered after it was prepared"):
        load(tmp_path / "tiny")


def test_an_array_is_missing(tmp_path):
    save(tmp_path / "tiny", TEXT, ABOUT)
    np.savez(tmp_path / "tiny/arrays.npz", y=TEXT.y)
    with pytest.raises(DataError, match="was altered after it was prepared"):
        load(tmp_path / "tiny")


def test_pickled_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "made",))

    save(tmp_path / "tiny", TEXT, ABOUT)
    np.savez(tmp_path / "tiny/arrays.npz", X=np.array([Bomb()], dtype=object), y=TEXT.y)
    with pytest.raises(DataError, match="pickle"):
        load(tmp_path / "tiny")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("entry", "value"),
    [("domain", "real"), ("name", "other"), ("variant", "official"), ("n", 7), ("licence", "none")],
)
def test_what_the_manifest_says_is_covered_by_its_digest(tmp_path, entry, value):
    """A domain that is changed by hand would let an attack use values that it must not."""
    save(tmp_path / "tiny", TEXT, ABOUT)
    file = tmp_path / "tiny/manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {entry: value}))
    with pytest.raises(DataError, match="was altered after it was prepared"):
        load(tmp_path / "tiny")


@pytest.mark.parametrize("text", ["null", "[]", "{}", "[1, 2]", '"abc"', "3"])
def test_a_vocabulary_that_is_none_is_refused(tmp_path, text):
    save(tmp_path / "tiny", TEXT, ABOUT)
    (tmp_path / "tiny/vocabulary.json").write_text(text)
    with pytest.raises(DataError, match="prepare tiny"):
        load(tmp_path / "tiny")


@pytest.mark.parametrize("changed", [
    {"X": np.array([[0.0, np.nan]])}, {"X": np.array([[0.0, np.inf]])},
    {"X": np.zeros((2, 2))}, {"X": np.zeros((0, 2))}, {"X": np.zeros((1, 2), np.float32)},
    {"y": np.array(["a"])}, {"y": np.array([np.nan])}, {"tasks": np.zeros(3, int)},
    {"X_test": np.zeros((1, 3)), "y_test": np.ones(1)}, {"y_test": np.ones(1)},
    {"vocabulary": ["a", "a"]}, {"vocabulary": ["a"]},
    {"domain": "nonnegative", "X": np.array([[-1.0, 0.0]])},
])  # fmt: skip
def test_no_content_but_a_data_set_passes(changed):
    right = {"domain": "real", "X": np.ones((1, 2)), "y": np.ones(1)}
    check(Content(**right))
    with pytest.raises(DataError):
        check(Content(**(right | changed)))


def test_what_is_no_path_is_refused(unchecked):
    with pytest.raises(TypeError, match="path must be the folder of a data set, not 3"):
        load(3)
