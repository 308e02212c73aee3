"""Every published format, from small files of that format."""

import gzip

import numpy as np
import pytest
from scipy.io import savemat

from poisoning.datasets import (
    cifar10,
    dogfish,
    enron,
    fetch,
    imdb,
    landmine,
    load,
    mnist,
    prepare,
    sarcos,
    sources,
)
from poisoning.datasets.text import bag_of_words
from poisoning.errors import DataError
from tests.poisoning.datasets.published import (
    IDX,
    enron_files,
    entry,
    idx,
    mnist_files,
    serving,
    tar_gz,
    whole,
    write,
)


class TestIdx:
    def test_pixels_and_classes(self, tmp_path):
        pixels = np.arange(24).reshape(2, 3, 4)
        write(tmp_path, mnist_files() | {IDX[0]: idx(pixels), IDX[1]: idx(np.array([9, 0]))})
        content = mnist.parse(tmp_path)
        assert np.array_equal(content.X, pixels.reshape(2, 12))
        assert np.array_equal(content.y, [9, 0])
        assert content.X_test.shape == (6, 16)

    def test_images_without_labels(self, tmp_path):
        write(tmp_path, mnist_files() | {IDX[1]: idx(np.array([1]))})
        with pytest.raises(DataError, match="train has 12 images but 1 labels"):
            mnist.parse(tmp_path)

    @pytest.mark.parametrize(
        "raw, reason",
        [
            (b"", "no IDX file"),
            (bytes([0, 0, 8, 1, 0, 0]), "no IDX file"),
            (bytes([0, 0, 9, 1, 0, 0, 0, 1, 5]), "no IDX file"),
            (bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 1, 5]), "no IDX file"),
            (bytes([0, 0, 8, 1, 0, 0, 0, 2, 5]), "holds 1 bytes for the shape"),
            (bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 5, 5]), "holds 3 bytes for the shape"),
        ],
    )
    def test_malformed(self, tmp_path, raw, reason):
        write(tmp_path, {"x.gz": gzip.compress(raw)})
        with pytest.raises(DataError, match=reason):
            mnist.read_idx(tmp_path / "x.gz", dimensions=1)


class TestCifar10:
    @staticmethod
    def archive(tmp_path, **changed):
        record = bytes([6]) + bytes(range(256)) * 12
        members = dict.fromkeys([*cifar10.TRAIN, cifar10.TEST], record) | changed
        return write(tmp_path, {"cifar-10-binary.tar.gz": tar_gz(members)})

    def test_batches_in_order(self, tmp_path):
        second = bytes([3]) + bytes(3072)
        content = cifar10.parse(self.archive(tmp_path, **{cifar10.TRAIN[1]: second * 2}))
        assert content.X.shape == (6, 3072)
        assert np.array_equal(content.y, [6, 3, 3, 6, 6, 6])
        assert np.array_equal(content.X[0, :256], np.arange(256))
        assert content.y_test.tolist() == [6]

    def test_broken_record(self, tmp_path):
        with pytest.raises(DataError, match="no whole number of CIFAR-10 records"):
            cifar10.parse(self.archive(tmp_path, **{cifar10.TEST: bytes(3072)}))

    def test_impossible_class(self, tmp_path):
        with pytest.raises(DataError, match="10 is no CIFAR-10 class"):
            cifar10.parse(self.archive(tmp_path, **{cifar10.TEST: bytes([10]) + bytes(3072)}))

    def test_missing_batch(self, tmp_path):
        write(tmp_path, {"cifar-10-binary.tar.gz": tar_gz({cifar10.TEST: b""})})
        with pytest.raises(DataError, match=r"no member .*data_batch_1\.bin"):
            cifar10.parse(tmp_path)


class TestEnron:
    def test_counts_lemmas_and_order(self, tmp_path):
        content = enron.parse(write(tmp_path, enron_files()))
        assert content.vocabulary == ["buy", "gas", "meeting", "you"]
        # 1.ham, 2.ham, 1.spam: "meetings" counts as "meeting", other files do not count at all.
        assert content.X.toarray().tolist() == [[0, 1, 1, 0], [0, 0, 2, 1], [1, 1, 0, 0]]
        assert content.y.tolist() == [-1.0, -1.0, 1.0]

    @pytest.mark.parametrize(
        "mail, words",
        [
            ("I'm at gate 4b, re-send", ["gate", "send"]),
            ("A1c B2", []),
            ("UPPER lower", ["upper", "lower"]),
            ("caf\xe9s", ["caf"]),
        ],
    )
    def test_words_are_runs_of_two_letters(self, mail, words):
        found = list(enron.tokenise(mail.encode("latin-1"), frozenset()))
        assert [word for word in found if word not in ("at", "re")] == words

    def test_surface_form_where_the_lemma_is_unknown(self):
        assert list(enron.tokenise(b"mails", frozenset({"mail"}))) == ["mail"]
        assert list(enron.tokenise(b"mails", frozenset({"mails"}))) == ["mails"]

    def test_vocabulary_with_a_gap(self, tmp_path):
        write(tmp_path, {"v.json": b'{"a": 0, "b": 2}'})
        with pytest.raises(DataError, match="does not number its words 0 to 1"):
            enron.read_vocabulary(tmp_path / "v.json")


class TestImdb:
    tokenise = staticmethod(imdb.tokeniser(["film", "!", "?", ":)", ":d", "do:", "don't", "½"]))

    @pytest.mark.parametrize(
        "review, tokens",
        [
            ("Great film!<br /><br />Don't miss", ["great", "film", "!", "don't", "miss"]),
            ("the film's sci-fi -- so-so", ["the", "film", "sci-fi", "so-so"]),
            ("don’t `quote´", ["don't", "quote"]),
            ("what? :) :D", ["what", "?", ":)", ":d"]),
            ("her:dragonfly", ["her", "dragonfly"]),
            ("caf&eacute; 3½ of 10", ["café", "½", "of"]),
            ("office'-like beyond''the", ["office'-like", "beyond''the"]),
            ("snake_case, 1990s", ["snake", "case", "s"]),
        ],
    )
    def test_tokens(self, review, tokens):
        assert self.tokenise(review) == tokens

    def test_a_vocabulary_of_words_alone(self):
        assert imdb.tokeniser(["film"])("Film!") == ["film"]

    def test_reviews(self, tmp_path):
        members = {
            "aclImdb/imdb.vocab": b"good\nbad\n!",
            "aclImdb/train/pos/0_9.txt": b"good good!",
            "aclImdb/train/neg/1_1.txt": b"bad, unheard-of",
            "aclImdb/train/unsup/0_0.txt": b"good",
            "aclImdb/train/urls_pos.txt": b"good",
            "aclImdb/test/neg/0_2.txt": b"Bad bad",
        }
        content = imdb.parse(write(tmp_path, {"aclImdb_v1.tar.gz": tar_gz(members)}))
        assert content.X.toarray().tolist() == [[0, 1, 0], [2, 0, 1]]
        assert content.y.tolist() == [-1.0, 1.0]
        assert content.X_test.toarray().tolist() == [[0, 2, 0]]

    @pytest.mark.parametrize(
        "members, reason",
        [({"a": b""}, "imdb.vocab"), ({"aclImdb/imdb.vocab": b"a b"}, "no documents")],
    )
    def test_incomplete_archive(self, tmp_path, members, reason):
        write(tmp_path, {"aclImdb_v1.tar.gz": tar_gz(members)})
        with pytest.raises(DataError, match=reason):
            imdb.parse(tmp_path)


def test_bag_of_words_counts_like_a_loop():
    rng = np.random.default_rng(0)
    vocabulary = [f"w{j}" for j in range(30)]
    documents = [[f"w{j}" for j in rng.integers(0, 40, rng.integers(0, 60))] for _ in range(20)]
    X = bag_of_words(documents, vocabulary)
    expected = [[document.count(word) for word in vocabulary] for document in documents]
    assert np.array_equal(X.toarray(), expected)
    assert X.has_sorted_indices


class TestDogfish:
    """The form of the published files: arrays inception_features_val and labels."""

    @staticmethod
    def files(tmp_path, **changed):
        rng = np.random.default_rng(0)
        for part, n in (("train", 6), ("test", 4)):
            arrays = {
                "inception_features_val": rng.standard_normal((n, 5)).astype(np.float32),
                "labels": np.arange(n) % 2,
            }
            np.savez(
                tmp_path / f"dogfish_900_300_inception_features_{part}.npz", **(arrays | changed)
            )
        return tmp_path

    def test_features_and_labels(self, tmp_path):
        content = dogfish.parse(self.files(tmp_path))
        assert (content.X.shape, content.X_test.shape) == ((6, 5), (4, 5))
        assert content.X.dtype == np.float64
        assert content.y.tolist() == [-1.0, 1.0] * 3
        assert content.domain == "real"

    def test_the_whole_way_from_a_server(self, tmp_path, monkeypatch):
        """Without any published checksum, form and counts decide."""
        monkeypatch.delenv("DATA_MIRROR", raising=False)
        (tmp_path / "made").mkdir()
        paths = sorted(self.files(tmp_path / "made").iterdir())
        files = {path.name: path.read_bytes() for path in paths}
        with serving({f"/{file}": whole(raw) for file, raw in files.items()}) as url:
            known = entry("dogfish", files, tmp_path / "x", [url + "/{file}"], tuple(files))
            monkeypatch.setattr(sources, "registry", lambda: {"dogfish": known})
            manifest = fetch("dogfish", tmp_path)
        assert manifest["files"][paths[0].name]["origin"] == f"{url}/{paths[0].name}"
        prepare("dogfish", "real", tmp_path)
        assert load(tmp_path / "real/dogfish").X.shape == (6, 5)

    @pytest.mark.parametrize(
        "changed, error",
        [
            ({"labels": np.arange(3)}, DataError),
            ({"labels": np.full(6, 2)}, DataError),
            ({"inception_features_val": np.zeros(6)}, DataError),
            ({"labels": np.array([{}] * 6, dtype=object)}, DataError),  # would need pickle
        ],
    )
    def test_malformed(self, tmp_path, changed, error):
        with pytest.raises(error):
            dogfish.parse(self.files(tmp_path, **changed))

    def test_missing_array(self, tmp_path):
        np.savez(tmp_path / "dogfish_900_300_inception_features_train.npz", labels=np.ones(2))
        with pytest.raises(DataError, match="has no array inception_features_val"):
            dogfish.parse(tmp_path)


class TestSarcos:
    def test_inputs_and_torques(self, tmp_path):
        table = np.arange(56.0).reshape(2, 28)
        savemat(tmp_path / "sarcos_inv_test.mat", {"sarcos_inv_test": table})
        content = sarcos.parse(tmp_path)
        assert np.array_equal(content.X, table[:, :21])
        assert np.array_equal(content.y, table[:, 21:])

    def test_other_tables(self, tmp_path):
        savemat(tmp_path / "sarcos_inv_test.mat", {"sarcos_inv_test": np.ones((2, 27))})
        with pytest.raises(DataError, match="28 columns"):
            sarcos.parse(tmp_path)


class TestLandmine:
    @staticmethod
    def save(tmp_path, labels):
        features, cells = np.empty((1, 2), dtype=object), np.empty((1, 2), dtype=object)
        features[0, 0], features[0, 1] = np.ones((2, 9)), 2 * np.ones((3, 9))
        cells[0, 0], cells[0, 1] = labels
        savemat(tmp_path / "LandmineData.mat", {"feature": features, "label": cells})
        return tmp_path

    def test_tasks_one_after_the_other(self, tmp_path):
        labels = (np.array([[0], [1]], np.uint8), np.array([[1], [0], [0]], np.uint8))
        content = landmine.parse(self.save(tmp_path, labels))
        assert content.tasks.tolist() == [0, 0, 1, 1, 1]
        assert content.y.tolist() == [-1.0, 1.0, 1.0, -1.0, -1.0]
        assert content.X[:, 0].tolist() == [1.0, 1.0, 2.0, 2.0, 2.0]

    def test_missing_labels(self, tmp_path):
        short = (np.array([[0]], np.uint8), np.array([[1], [0], [0]], np.uint8))
        with pytest.raises(DataError, match="one label per example"):
            landmine.parse(self.save(tmp_path, short))
        savemat(tmp_path / "LandmineData.mat", {"feature": np.ones(2)})
        with pytest.raises(DataError, match="no cells feature and label"):
            landmine.parse(tmp_path)
