"""Tables of users: CSV, TSV, Parquet, NPZ (dense or sparse), SVMlight. Nothing is unpickled.

Of a long table a uniform sample of rows is kept; a CSV is never in memory as a whole.
"""

import csv
import difflib
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy import ndarray

from poisoning.datasets import archives
from poisoning.errors import DataError

ROWS = 2_000
"""Rows that are kept: KKT, min-max and influence attack them in seconds each."""

MOST_COLUMNS = 10_000
MOST_SPARSE_COLUMNS = 200_000
_CHUNK = 5_000_000  # cells of a CSV in memory at a time
_START = 1 << 20
_DELIMITERS = ",;\t|"
_MARK = "="  # before labels of a CSV: pandas takes NA, None and others for missing
_SPARSE = {"data", "indices", "indptr", "shape"}


@dataclass(frozen=True)
class Table:
    """At most ``ROWS`` rows of a file.

    ``features`` are the columns but the label, a sparse matrix or a frame. ``labels`` (n,) are
    texts, None where there is none. ``rows`` (n,) says which rows of the file these are, counted
    from 1 without the header; ``total`` is how many the file has. ``notes`` are the conversions
    made, one sentence each.
    """

    features: pd.DataFrame | sp.csr_array
    labels: ndarray
    rows: ndarray
    total: int
    notes: tuple[str, ...] = field(default=())


def read(path: Path, label: str, rng: np.random.Generator) -> Table:
    """The table in the file ``path``, whose column or array ``label`` holds the classes.

    Raises:
        DataError: there is no such file or label, or the file cannot be read as its name says.
    """
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise DataError(f"DATA: there is no file {path}: give the path of a table.") from None
    except OSError as error:
        raise DataError(
            f"DATA: the file {str(path)[:100]!r} cannot be read ({error.strerror}): give the path "
            "of a table."
        ) from None
    if not stat.S_ISREG(about.st_mode):
        raise DataError(f"DATA: {path} is no file: give the path of a table.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"DATA: {path.name} must end in one of {', '.join(_READERS)}, which says how to read "
            "it."
        )
    if about.st_size == 0:
        raise DataError(f"DATA: {path.name} is empty: a table needs a header and rows.")
    with _one_sentence(path):
        table = reader(path, label, rng)
    if not table.features.shape[1]:
        raise DataError(f"DATA: {path.name} has no column but the label.")
    if table.total > len(table.rows):
        note = f"A random sample of {len(table.rows):,} of the {table.total:,} rows is audited."
        table = replace(table, notes=(note, *table.notes))
    return table


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file into one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pandas warns of data that it drops
            yield
    except DataError:
        raise
    except (*archives.UNREADABLE, ImportError, csv.Error, Warning) as error:
        raise DataError(
            f"DATA: {path.name} cannot be read as {path.suffix[1:].upper()}: "
            f"{archives.reason(error).rstrip('.')}."
        ) from error


# Text -------------------------------------------------------------------------------------------


def _csv(path: Path, label: str, rng: np.random.Generator) -> Table:
    with path.open("rb") as stream:
        start = stream.read(_START)
    if any(byte < 9 for byte in start):
        raise DataError(f"DATA: {path.name} is no text: save the table as CSV in UTF-8.")
    try:
        return _decoded(path, label, rng, "utf-8-sig")
    except UnicodeDecodeError:
        table = _decoded(path, label, rng, "latin-1")
    note = "The file is not in UTF-8: it is read as Latin-1, and accented letters may be wrong."
    return replace(table, notes=(*table.notes, note))


def _decoded(path: Path, label: str, rng: np.random.Generator, encoding: str) -> Table:
    with path.open(encoding=encoding, newline="") as stream:
        first = stream.readline(_START)
        delimiter = max(_DELIMITERS, key=first.count) if path.suffix.lower() != ".tsv" else "\t"
        stream.seek(0)
        header = next(csv.reader(stream, delimiter=delimiter), [])
    names = [name.strip() for name in header]
    _check_columns(path, names, label)
    chunks = pd.read_csv(
        path, sep=delimiter, encoding=encoding, names=names, header=0, index_col=False,
        converters={label: _MARK.__add__}, low_memory=False, skip_blank_lines=True,
        chunksize=max(100, _CHUNK // len(names)),
    )  # fmt: skip
    with chunks:
        frame, rows, total = _sample(chunks, rng)
    notes = () if delimiter == "," else (f"Columns are separated by {delimiter!r}.",)
    labels = frame[label].str.removeprefix(_MARK)
    return Table(frame.drop(columns=label), _texts(labels), rows, total, notes)


def _check_columns(path: Path, names: list[str], label: str) -> None:
    if not any(names):
        raise DataError(f"DATA: the first line of {path.name} must name the columns, it is blank.")
    twice = sorted({name for name in names if names.count(name) > 1}, key=names.index)
    if twice:
        raise DataError(
            f"DATA: the header of {path.name} names the column {twice[0]!r} twice: rename one."
        )
    if len(names) > MOST_COLUMNS:
        raise DataError(
            f"DATA: {path.name} has {len(names):,} columns, at most {MOST_COLUMNS:,} are read: "
            "select some, or use a sparse NPZ."
        )
    if label not in names:
        near = difflib.get_close_matches(label, names, 3, 0.0) or names[:3]
        raise DataError(
            f"LABEL: {path.name} has no column {label!r}; it has, among others, "
            f"{', '.join(f'{name[:40]!r}' for name in near)}."
        )


def _sample(
    chunks: Iterable[pd.DataFrame], rng: np.random.Generator
) -> tuple[pd.DataFrame, ndarray, int]:
    """``ROWS`` rows, each as likely as any other: those with the least of random keys."""
    kept, keys, total = None, np.zeros(0), 0
    for chunk in chunks:
        chunk.index = pd.RangeIndex(total + 1, total + 1 + len(chunk))
        total += len(chunk)
        new = rng.random(len(chunk))
        least = np.sort(np.argsort(new)[:ROWS])
        kept = chunk.iloc[least] if kept is None else pd.concat([kept, chunk.iloc[least]])
        keys = np.append(keys, new[least])
        least = np.sort(np.argsort(keys)[:ROWS])
        kept, keys = kept.iloc[least], keys[least]
    if kept is None or not total:
        raise DataError("DATA: the table has a header and no rows.")
    return kept.reset_index(drop=True), kept.index.to_numpy(), total


def _parquet(path: Path, label: str, rng: np.random.Generator) -> Table:
    frame = pd.read_parquet(path)
    frame.columns = [str(name) for name in frame.columns]
    _check_columns(path, list(frame.columns), label)
    frame, rows, total = _sample([frame], rng)
    return Table(frame.drop(columns=label), _texts(frame[label]), rows, total)


# Arrays -----------------------------------------------------------------------------------------


def _npz(path: Path, label: str, rng: np.random.Generator) -> Table:
    arrays = archives.read_npz(path)
    if label not in arrays:
        raise DataError(
            f"LABEL: {path.name} has no array {label!r}; it has "
            f"{', '.join(f'{name[:40]!r}' for name in list(arrays)[:5]) or 'none'}."
        )
    labels = arrays.pop(label)
    if labels.ndim != 1:
        raise DataError(
            f"LABEL: the array {label!r} must have one dimension, its shape is {labels.shape}."
        )
    if set(arrays) >= _SPARSE:
        parts = (arrays[name] for name in ("data", "indices", "indptr"))
        form = str(arrays.get("format", np.array(b"csr")).astype(str))
        if form not in ("csr", "csc"):
            raise DataError(f"DATA: {path.name} is sparse as {form!r}: save it as CSR or CSC.")
        make = sp.csr_array if form == "csr" else sp.csc_array
        matrix = make(tuple(parts), shape=tuple(arrays["shape"].tolist()))
        matrix.check_format(full_check=True)
        return _of_matrix(path, sp.csr_array(matrix), labels, rng)
    labels, columns = _decoded_bytes(labels), {}
    for name, array in arrays.items():
        if array.ndim not in (1, 2) or len(array) != len(labels):
            raise DataError(
                f"DATA: the array {name!r} of {path.name} has the shape {array.shape}: it must "
                f"have a row for each of the {len(labels)} labels, and one or two dimensions."
            )
        array = _decoded_bytes(array)
        parts = {name: array} if array.ndim == 1 else {
            f"{name}[{j}]": array[:, j] for j in range(array.shape[1])
        }  # fmt: skip
        columns |= parts
    _check_columns(path, [*columns, label], label)
    frame, rows, total = _sample([pd.DataFrame(columns | {label: labels})], rng)
    return Table(frame.drop(columns=label), _texts(frame[label]), rows, total)


def _decoded_bytes(array: ndarray) -> ndarray:
    """Texts that were saved as bytes."""
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


def _svmlight(path: Path, label: str, rng: np.random.Generator) -> Table:
    from sklearn.datasets import load_svmlight_file

    matrix, labels = load_svmlight_file(str(path))
    return _of_matrix(path, sp.csr_array(matrix), labels, rng)


def _of_matrix(
    path: Path, matrix: sp.csr_array, labels: ndarray, rng: np.random.Generator
) -> Table:
    if matrix.shape[0] != len(labels):
        raise DataError(
            f"DATA: {path.name} has {matrix.shape[0]} rows and {len(labels)} labels: give one "
            "label for each row."
        )
    if matrix.shape[1] > MOST_SPARSE_COLUMNS:
        raise DataError(
            f"DATA: {path.name} has {matrix.shape[1]:,} columns, at most "
            f"{MOST_SPARSE_COLUMNS:,} are read."
        )
    frame, rows, total = _sample([pd.DataFrame({"label": labels})], rng)
    return Table(matrix[rows - 1], _texts(frame["label"]), rows, total)


def _texts(labels: pd.Series) -> ndarray:
    """Labels as texts without blanks around them, None where there is none; 1.0 is "1"."""
    if pd.api.types.is_float_dtype(labels) and (labels.dropna() % 1 == 0).all():
        labels = labels.astype("Int64")
    known = labels.notna()
    texts = [
        str(label).strip() if there else "" for label, there in zip(labels, known, strict=True)
    ]
    return np.array([text or None for text in texts], dtype=object)


_READERS: dict[str, Callable[[Path, str, np.random.Generator], Table]] = {
    ".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".npz": _npz,
    ".svm": _svmlight, ".svmlight": _svmlight, ".libsvm": _svmlight,
}  # fmt: skip
