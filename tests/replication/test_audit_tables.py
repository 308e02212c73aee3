"""Tables of users: bad ones are refused in one sentence, others converted, and that is said."""

import io
import zipfile

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.datasets import dump_svmlight_file

from poisoning.errors import DataError
from replication import paths
from replication.audit import features, measuring, tables
from replication.audit.__main__ import audit, main

N = 60
RNG = np.random.default_rng(0)
Y = np.repeat(["bad", "good"], N // 2)
X = RNG.normal(size=(N, 3)) + (Y == "good")[:, None]
FRAME = pd.DataFrame(X, columns=["a", "b", "c"]).assign(label=Y)


def csv(frame=FRAME, **changes):
    return frame.assign(**changes).to_csv(index=False).encode()


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def bomb():
    """An NPZ of a few bytes that says it unpacks to 2 GB."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("y.npy", b"")
        archive.infolist()[0].file_size = 1 << 31
    return stream.getvalue()


SPARSE = sp.csr_array(np.abs(np.round(X)))  # its stored entries are above 0
PARTS = {"data": SPARSE.data, "indices": SPARSE.indices, "indptr": SPARSE.indptr,
         "shape": np.array(SPARSE.shape), "y": Y}  # fmt: skip

BAD = {
    "empty": ("t.csv", b"", "is empty"),
    "blank first line": ("t.csv", b"\n1,2\n", "must name the columns"),
    "binary": ("t.csv", bytes(range(256)) * 9, "is no text"),
    "header only": ("t.csv", b"a,label\n", "no rows"),
    "duplicate header": ("t.csv", b"a,a,label\n1,2,x\n", "'a' twice"),
    "wrong label": ("t.csv", csv(FRAME.rename(columns={"label": "lable"})), "no column 'label'"),
    "no header": ("t.csv", csv().split(b"\n", 1)[1], "no column 'label'"),
    "too many fields": ("t.csv", csv() + b"1,2,3,4,5,6\n", "cannot be read as CSV"),
    "open quote": ("t.csv", csv() + b'"', "cannot be read as CSV"),
    "one class": ("t.csv", csv(label="x"), "two classes or more"),
    "no labels": ("t.csv", csv(label=""), "is empty"),
    "class of one row": ("t.csv", csv(label=["z"] + ["x"] * (N - 1)), "has 1 of 60 rows"),
    "five rows": ("t.csv", csv(FRAME[27:32]), "needs 20 of each"),
    "numbers as label": ("t.csv", csv(label=X[:, 0]), "column of classes"),
    "label alone": ("t.csv", csv(FRAME[["label"]]), "no column but the label"),
    "constant columns": ("t.csv", csv(a=1, b=2, c="x"), "no column but the label varies"),
    "names only": ("t.csv", csv(FRAME[["label"]], name=[f"n{i}" for i in range(N)]), "varies"),
    "beyond 1e100": ("t.csv", csv(a=[1e200] + [1.0] * (N - 1)), "within 1e100"),
    "too many columns": ("t.csv", ",".join(map(str, range(10_001))).encode(), "10,001 columns"),
    "unknown ending": ("t.pkl", b"cos\nsystem\n", "must end in one of"),
    "no parquet": ("t.parquet", b"PAR1", "cannot be read as PARQUET"),
    "no zip": ("t.npz", b"PK garbage", "cannot be read as NPZ"),
    "objects": ("t.npz", npz(y=np.array([{}, 1], dtype=object)), "Python objects"),
    "zip bomb": ("t.npz", bomb(), "unpacks to"),
    "no label array": ("t.npz", npz(X=X), "no array 'label'"),
    "lengths": ("t.npz", npz(X=X[1:], label=Y), "a row for each of the 60 labels"),
    "three dimensions": ("t.npz", npz(X=X[:, None], label=Y), "one or two dimensions"),
    "labels of two dimensions": ("t.npz", npz(X=X, label=X), "must have one dimension"),
    "complex": ("t.npz", npz(**PARTS | {"data": SPARSE.data * 1j, "label": Y}), "real numbers"),
    "index outside": (
        "t.npz", npz(**PARTS | {"indices": SPARSE.indices + 9, "label": Y}), "cannot be read as NPZ"
    ),
    "sparse infinity": (
        "t.npz", npz(**PARTS | {"data": SPARSE.data * np.inf, "label": Y}), "finite numbers"
    ),
    "no svmlight": ("t.svm", b"a b c\n", "cannot be read as SVM"),
    "two labels a row": ("t.svm", b"1,2 1:1\n", "cannot be read as SVM"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch, tmp_path):
    def computed(*_):
        raise AssertionError("something was computed")

    monkeypatch.setattr(measuring, "measure", computed)
    monkeypatch.setattr(paths, "ROOT", tmp_path / "project")
    yield
    assert not (tmp_path / "project").exists()


def sentence(call, match):
    with pytest.raises(DataError, match=match) as refused:
        call()
    said = str(refused.value)
    assert said.endswith(".")
    assert "\n" not in said
    assert len(said) < 400


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_is_refused_in_one_sentence(name, tmp_path):
    file, content, match = BAD[name]
    (tmp_path / file).write_bytes(content)
    sentence(lambda: audit(str(tmp_path / file), "label", "1", "", "auto", ""), match)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"data": ""}, "say which file"),
        ({"data": "/no/such.csv"}, "there is no file"),
        ({"data": "."}, "is no file"),
        ({"data": "a" * 5000 + ".csv"}, "cannot be read"),
        ({"data": "a\0b.csv"}, "there is no file"),
        ({"label": ""}, "say which column"),
        ({"minutes": "two"}, "MINUTES"),
        ({"minutes": "0"}, "MINUTES"),
        ({"minutes": "nan"}, "MINUTES"),
        ({"minutes": "1e9"}, "MINUTES"),
        ({"name": "../elsewhere"}, "NAME"),
        ({"name": ".."}, "NAME"),
        ({"name": "😀" * 99}, "NAME"),
        ({"name": "ॐ" * 99}, "NAME"),
        ({"told": "floats"}, "FEATURES"),
        ({"told": "counts"}, "whole numbers from 0"),
        ({"against": "ugly"}, "no class 'ugly'"),
    ],
)
def test_a_bad_argument_is_refused_in_one_sentence(wrong, match, tmp_path):
    (tmp_path / "t.csv").write_bytes(csv())
    given = {"data": str(tmp_path / "t.csv"), "label": "label", "minutes": "1", "name": "",
             "told": "auto", "against": ""}  # fmt: skip
    sentence(lambda: audit(**given | wrong), match)


def test_amounts_are_no_counts_and_told_to_be_so_are_refused(tmp_path):
    """Whole numbers up to 10¹⁵, mostly zeros: as they are, no SVM can be trained on them."""
    amounts = np.where(RNG.random((N, 3)) < 0.1, RNG.integers(1, 10**15, (N, 3)), 0)
    file = tmp_path / "t.csv"
    pd.DataFrame(amounts, columns=["a", "b", "c"]).assign(label=Y).to_csv(file, index=False)
    assert not prepared(file).domain.integer
    assert abs(prepared(file).X).max() < N
    told = prepared(file, told="counts")
    sentence(lambda: measuring.choose_lam(told, 0), "rescale")


def test_the_command_says_why_and_fails(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["audit", "--DATA=/no/such.csv"])
    assert main() == 1
    assert capsys.readouterr().err.count("\n") == 1


def prepared(path, label="label", **told):
    return features.prepare(tables.read(path, label, np.random.default_rng(0)), **told)


def noted(problem, begins):
    (note,) = [note for note in problem.notes if note.startswith(begins)]
    return note


def test_faults_are_converted_and_said(tmp_path):
    frame = FRAME.assign(
        number=np.arange(1, N + 1), when=pd.date_range("2020-01-01", periods=N, freq="3D"),
        city=["Bern", "Zürich", "Genf"] * (N // 3), who=[f"p{i}" for i in range(N)], one=7,
        missing=[np.nan, *X[1:, 0]], infinite=[np.inf, *X[1:, 1]],
        mixed=["unknown", *map(str, X[1:, 2])], wild=X[:, 0] * 1e60, flag=X[:, 0] > 0,
        text=["all is well", "nothing is well", "all is nothing"] * (N // 3),
    )  # fmt: skip
    frame.loc[0, "label"] = None
    file = tmp_path / "t.csv"
    file.write_bytes(frame.to_csv(index=False, sep=";").encode("latin-1"))
    problem = prepared(file)
    assert "';'" in noted(problem, "Columns are separated")
    assert noted(problem, "The file is not in UTF-8")
    assert "number" in noted(problem, "Left out, because they number")
    assert "who" in noted(problem, "Left out, because they hold names")
    assert "one" in noted(problem, "Left out, because they hold one value")
    assert "when" in noted(problem, "Dates")
    assert "city" in noted(problem, "Categories")
    assert "text" in noted(problem, "Texts")
    assert noted(problem, "1 rows without a label")
    assert problem.kinds == {"real": 7, "box": 1, "date": 1, "category": 3, "text": 3}
    assert len(problem.y) == N - 1
    assert np.isfinite(problem.X).all()
    assert np.allclose(problem.X.std(axis=0), 1.0)
    assert problem.domain.contains(problem.X).all()
    # Values of the table come back.
    wild = problem.names.index("wild")
    assert np.allclose(
        problem.centre[wild] + problem.scale[wild] * problem.X[:, wild], X[1:, 0] * 1e60
    )


def test_missing_infinite_and_mixed_entries_become_the_median(tmp_path):
    hole = pd.DataFrame({
        "a": [np.nan, *X[1:, 0]], "b": [np.inf, *X[1:, 1]], "c": ["?", *map(str, X[1:, 2])],
        "label": Y,
    })  # fmt: skip
    (tmp_path / "t.csv").write_bytes(csv(hole))
    problem = prepared(tmp_path / "t.csv")
    first = problem.centre + problem.scale * problem.X[0]
    assert np.allclose(first, np.median(X[1:], axis=0))
    assert noted(problem, "Missing numbers").endswith(": a, b, c.")
    assert noted(problem, "Infinite").endswith(": b.")
    assert noted(problem, "Entries that are no numbers").endswith(": c.")


def of_frame(frame):
    rows = np.arange(1, N + 1)
    labels = tables._texts(frame["label"])
    return features.prepare(tables.Table(frame.drop(columns="label"), labels, rows, N))


@pytest.mark.parametrize(
    "value", [[1, 2], {"a": 1}, np.arange(3), {1, 2}], ids=["list", "dict", "array", "set"]
)
def test_columns_of_several_parts_are_left_out_and_that_is_said(value):
    problem = of_frame(FRAME.assign(nested=[*[value] * (N - 1), None]))
    assert noted(problem, "Left out, because they hold lists").endswith(": nested.")
    assert problem.names == ("a", "b", "c")


def test_a_label_of_several_parts_is_a_text():
    problem = of_frame(FRAME.assign(label=[[0, 1], [1, 0]] * (N // 2)))
    assert set(problem.classes) == {"[0, 1]", "[1, 0]"}


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([True, False] * (N // 2), {"category": 2}),
        (["good old day", "bad old day"] * (N // 2), {"text": 2}),
        (["x", "y", None] * (N // 3), {"category": 2}),
        ([1, 2, 7] * (N // 3), {"counts": 1}),
        (list(pd.date_range("2020-01-01", periods=N, freq="3D")), {"date": 1}),
    ],
)
def test_categories_of_pandas_are_what_their_values_are(values, kinds):
    """Of a Parquet table, for example."""
    problem = of_frame(FRAME[["label"]].assign(kind=pd.Categorical(values)))
    assert problem.kinds == kinds


def test_a_hundred_classes_are_one_against_the_rest(tmp_path):
    rows = 2_000
    labels = np.append(np.arange(rows - 50) % 100, np.full(50, 42))
    pd.DataFrame({"a": RNG.normal(size=rows), "label": labels}).to_csv(
        tmp_path / "t.csv", index=False
    )
    problem = prepared(tmp_path / "t.csv")
    assert len(problem.classes) == 100
    assert (problem.positive, problem.negative) == ("42", "the rest")
    assert (problem.y > 0).sum() == problem.classes["42"]
    assert noted(problem, "The label has 100 classes")
    with pytest.raises(DataError, match="'77', one of 100, has 19 of 2000"):
        prepared(tmp_path / "t.csv", against="77")


def test_texts_alone_are_counts(tmp_path):
    words = ["good good film", "bad old film", "a good old plot"] * 20
    pd.DataFrame({"review": words, "label": Y}).to_csv(tmp_path / "t.csv", index=False)
    problem = prepared(tmp_path / "t.csv", told="counts")
    assert problem.domain.kind == "counts"
    counts = dict(zip(problem.names, problem.X.toarray()[0], strict=True))
    assert counts["“good”"] == 2
    assert counts["“plot”"] == 0


@pytest.mark.parametrize("told", ["real", "box", "counts"])
def test_features_are_what_they_are_told_to_be(told, tmp_path):
    counts = pd.DataFrame(RNG.poisson(2.0, size=(N, 3)), columns=["a", "b", "c"]).assign(label=Y)
    counts.to_csv(tmp_path / "t.csv", index=False)
    problem = prepared(tmp_path / "t.csv", told=told)
    top = problem.centre + problem.scale * problem.domain.upper
    if told == "real":
        assert np.isinf(top).all()
    else:
        assert np.allclose(top, counts[["a", "b", "c"]].max())
    assert problem.domain.integer == (told == "counts")


def test_formats_hold_the_same_table(tmp_path):
    exact = FRAME.round(6)
    exact.to_csv(tmp_path / "t.csv", index=False)
    exact.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    values = exact[["a", "b", "c"]].to_numpy()
    np.savez(tmp_path / "t.npz", X=values, label=Y)
    sparse = sp.csr_array(values)
    dump_svmlight_file(values, (Y == "good").astype(int), str(tmp_path / "t.svm"))
    np.savez(
        tmp_path / "sparse.npz", data=sparse.data, indices=sparse.indices, indptr=sparse.indptr,
        shape=sparse.shape, format=b"csr", label=Y,
    )  # fmt: skip
    wanted = prepared(tmp_path / "t.csv")
    for name in ("t.tsv", "t.npz"):
        found = prepared(tmp_path / name)
        assert np.array_equal(found.X, wanted.X)
        assert np.array_equal(found.y, wanted.y)
    for name in ("t.svm", "sparse.npz"):
        found = prepared(tmp_path / name)
        assert np.allclose(found.X.toarray() * found.scale, values)
        assert np.array_equal(found.y, wanted.y)


def test_classes_may_have_the_names_of_missing_values(tmp_path):
    for name in ("NA", "None", "nan", "null"):
        (tmp_path / "t.csv").write_bytes(csv(label=np.where(Y == "bad", name, "else")))
        assert prepared(tmp_path / "t.csv").classes == {name: N // 2, "else": N // 2}
    lines = csv().splitlines()
    (tmp_path / "t.csv").write_bytes(b"\n".join([*lines, b"1,2,3,", b"1,2,3"]))
    assert "2 rows without a label" in noted(prepared(tmp_path / "t.csv"), "2 rows")


def test_an_ending_in_capitals_is_the_same_format(tmp_path):
    FRAME.rename(columns={"a": "a, in cm, at 20 °C, mean"}).to_csv(
        tmp_path / "t.TSV", index=False, sep="\t"
    )
    assert prepared(tmp_path / "t.TSV").names == ("a, in cm, at 20 °C, mean", "b", "c")


def test_texts_and_durations_of_arrays_are_what_they_say(tmp_path):
    days = np.arange(N) * np.timedelta64(36, "h")
    city = np.array([b"Bern", b"Z\xc3\xbcrich"] * (N // 2))
    np.savez(tmp_path / "t.npz", since=days[::-1], city=city, label=np.char.encode(Y))
    problem = prepared(tmp_path / "t.npz", against="good")
    assert problem.positive == "good"
    assert set(problem.names) == {"since", "city = Bern", "city = Zürich"}
    assert "since" in noted(problem, "Durations")
    column = problem.names.index("since")
    since = problem.centre[column] + problem.scale[column] * problem.X[:, column]
    assert np.allclose(since, 1.5 * np.arange(N)[::-1])


def test_of_a_long_table_a_uniform_sample_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_CHUNK", 3_000)
    rows = 10_000
    frame = pd.DataFrame({"a": np.arange(rows) * 0.5, "label": np.arange(rows) % 2})
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = tables.read(tmp_path / "t.csv", "label", np.random.default_rng(0))
    assert table.total == rows
    assert len(table.rows) == tables.ROWS == len(np.unique(table.rows))
    assert np.array_equal(table.features["a"], (table.rows - 1) * 0.5)
    assert [int(label) for label in table.labels] == ((table.rows - 1) % 2).tolist()
    # A tenth of the rows has about a tenth of the sample: ten standard deviations.
    shares = np.bincount((table.rows - 1) // 1_000, minlength=10) / tables.ROWS
    assert np.all(np.abs(shares - 0.1) < 0.07)
    assert "2,000 of the 10,000 rows" in table.notes[0]
