"""A two-class problem of numbers from a table, every conversion stated in a sentence.

Numbers are standardised, because an SVM's λ weighs all features alike. Words and other sparse
counts stay as they are: poison has to be whole numbers, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy import ndarray
from pandas.api import types
from sklearn.feature_extraction.text import CountVectorizer

from poisoning.arrays import Matrix
from poisoning.errors import DataError
from poisoning.feasible.sets import InputDomain
from replication.audit.tables import Table

KINDS = ("auto", "real", "box", "counts")
"""What features may be told to be; see :func:`prepare`."""

LEAST = 20
"""Rows that each of the two classes must have: 14 to train on, 6 to test on."""

CATEGORIES = 20
"""Different values up to which a column of texts is a category."""

WORDS = 500
WORDS_BESIDE = 200
"""Most frequent words that are counted, alone and beside other columns."""

_NUMERIC = 0.8  # of a column's texts, from which on the others count as missing
_SPARSE = 0.8  # of zeros, from which on whole numbers are counts like words
_MOST_COUNTED = 10_000  # up to which whole numbers are counts like words, and no amounts
_BOX = 0.8  # of [0, 1] that a column covers to be bounded by it
_LARGEST = 1e100  # as in poisoning.checks
_NOTES = {
    "index": "Left out, because they number the rows: {}.",
    "nested": "Left out, because they hold lists or other things of several parts: {}.",
    "identifier": "Left out, because they hold names or other texts that hardly repeat: {}.",
    "constant": "Left out, because they hold one value or none: {}.",
    "date": "Dates become days since the earliest: {}.",
    "duration": "Durations become days: {}.",
    "category": "Categories become one column of 0 and 1 for each value: {}.",
    "text": "Texts become counts of their most frequent words: {}.",
    "mixed": "Entries that are no numbers count as missing: {}.",
    "infinite": "Infinite values count as missing: {}.",
    "missing": "Missing numbers are replaced by the column's median: {}.",
}


@dataclass(frozen=True)
class Problem:
    """What is audited: ``X`` (n, d) and ``y`` (n,), −1 and +1, and what they mean.

    A value of the table is ``centre`` + ``scale`` · value of ``X``, both (d,). ``names`` (d,) are
    the columns, ``positive`` and ``negative`` the classes; ``classes`` counts the rows of each
    class of the table, ``kinds`` the features of each kind. ``rows`` (n,) are their numbers in the
    file, which has ``total``.
    """

    X: Matrix
    y: ndarray
    names: tuple[str, ...]
    domain: InputDomain
    centre: ndarray
    scale: ndarray
    positive: str
    negative: str
    classes: dict[str, int]
    kinds: dict[str, int]
    rows: ndarray
    total: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """Columns ``values`` (n, k) of one kind, and the limits of what they can hold."""

    kind: str
    names: tuple[str, ...]
    values: Matrix
    lower: ndarray
    upper: ndarray


def prepare(table: Table, told: str = "auto", against: str | None = None) -> Problem:
    """The problem in a table: one class against the rest, features of the kind that is ``told``.

    "real" features may take any value, "box" those between the least and largest of the table,
    "counts" whole numbers from 0 to the largest. "auto" recognises each column: from 0 to 1 a box;
    whole numbers from 0 counts; others real. Only if nearly all are zeros, or all are told to be,
    are counts kept whole; beside other features they may be any number in their range.
    ``against`` is the class of the two that is +1, by default the most common of three or more.

    Raises:
        DataError: the label has one class or too few rows of one, no column varies, or the
            features are not of the kind that is told.
    """
    labelled = np.array([label is not None for label in table.labels])
    y, negative, positive, classes = _classes(table.labels[labelled], against)
    notes = list(table.notes)
    if not labelled.all():
        notes.append(f"{(~labelled).sum():,} rows without a label are left out.")
    if len(classes) > 2:
        notes.append(
            f"The label has {len(classes)} classes: the audit is of {positive!r} against the rest."
        )
    rows, numbers = table.rows[labelled], np.flatnonzero(labelled)
    if isinstance(table.features, pd.DataFrame):
        parts, more = _columns(table.features.iloc[numbers], rows)
    else:
        parts, more = _matrix(table.features[numbers])
    part = _joined(parts)
    kinds = {kind: sum(len(one.names) for one in parts if one.kind == kind) for kind in _ORDER}
    X, domain, centre, scale, how = _scaled(part, told)
    return Problem(
        X, y, part.names, domain, centre, scale, positive, negative, classes,
        {kind: number for kind, number in kinds.items() if number},
        rows, table.total, (*notes, *more, *how),
    )  # fmt: skip


_ORDER = ("real", "box", "counts", "date", "category", "text")


def _classes(labels: ndarray, against: str | None) -> tuple[ndarray, str, str, dict[str, int]]:
    """Labels ±1, the class of −1, that of +1, and how many rows each class has."""
    found, counts = np.unique(labels.astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    classes = {str(found[i]): int(counts[i]) for i in order}
    if len(classes) < 2:
        holds = f"holds {next(iter(classes))[:40]!r} only" if classes else "is empty"
        raise DataError(f"LABEL: the label must have two classes or more, it {holds}.")
    if against is not None and against not in classes:
        some = ", ".join(repr(name[:40]) for name in list(classes)[:5])
        raise DataError(f"CLASS: the label has no class {against!r}; it has {some}.")
    default = max(classes) if len(classes) == 2 else next(iter(classes))
    positive = default if against is None else against
    others = [name for name in classes if name != positive]
    negative = others[0] if len(others) == 1 else "the rest"
    y = np.where(labels.astype(str) == positive, 1.0, -1.0)
    for label, name in ((1.0, positive), (-1.0, negative)):
        size = int((y == label).sum())
        if size < LEAST:
            raise DataError(
                f"LABEL: the class {name[:40]!r}, one of {len(classes)}, has {size} of {len(y)} "
                f"rows: an audit needs {LEAST} of each of its two classes, so choose the column of "
                "classes, another class, or a table with more rows."
            )
    return y, negative, positive, classes


# Columns of a frame -----------------------------------------------------------------------------


def _columns(frame: pd.DataFrame, rows: ndarray) -> tuple[list[_Part], list[str]]:
    noted: dict[str, list[str]] = {what: [] for what in _NOTES}
    parts, texts = [], []
    # pandas' own categories accept no value beside those that they have.
    own = [name for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)]
    frame = frame.astype(dict.fromkeys(own, object))
    for name in frame.columns:
        values = frame[name]
        if types.is_object_dtype(values) and not values.map(types.is_hashable).all():
            noted["nested"].append(name)
            continue
        numbers = _numbers(name, values, noted)
        if numbers is None:
            if _is_text(values):
                texts.append(name)
            elif values.nunique() <= CATEGORIES and len(values) > CATEGORIES:
                parts.append(_categories(name, values))
                noted["category"].append(name)
            else:
                noted["identifier"].append(name)
        elif not name or len(np.unique(numbers - rows)) == 1:
            noted["index"].append(name or "a column without a name")
        else:
            kind = "date" if name in noted["date"] else _kind(numbers)
            parts.append(_part(kind, name, numbers))
    parts = [part for part in (_varying(part, noted) for part in parts) if part.names]
    if texts:
        words = _words(frame[texts], WORDS_BESIDE if parts else WORDS)
        noted["text" if words else "identifier"] += texts
        parts += [words] if words else []
    return parts, [_NOTES[what].format(_listed(names)) for what, names in noted.items() if names]


def _listed(names: Iterable[str], most: int = 8) -> str:
    names = [name if len(name) <= 40 else f"{name[:39]}…" for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _numbers(name: str, values: pd.Series, noted: dict[str, list[str]]) -> ndarray | None:
    """A column as numbers, missing ones replaced; None if it holds texts or other things."""
    if types.is_datetime64_any_dtype(values):
        found = _days(values)
        noted["date"].append(name)
    elif types.is_timedelta64_dtype(values):
        found = (values / pd.Timedelta(days=1)).to_numpy(np.float64)
        noted["duration"].append(name)
    elif types.is_numeric_dtype(values) and not types.is_complex_dtype(values):
        found = values.to_numpy(np.float64, na_value=np.nan)
    else:
        found = _parsed(name, values, noted)
        if found is None:
            return None
    known = found[np.isfinite(found)]
    for what, strange in (("infinite", np.isinf(found)), ("missing", ~np.isfinite(found))):
        if strange.any() and known.size:
            noted[what].append(name)
    if known.size and np.abs(known).max() > _LARGEST:
        raise DataError(
            f"DATA: the column {name!r} must lie within 1e100 of 0, it holds "
            f"{known[np.abs(known).argmax()]:g}: rescale it."
        )
    return np.where(np.isfinite(found), found, np.median(known) if known.size else 0.0)


def _parsed(name: str, values: pd.Series, noted: dict[str, list[str]]) -> ndarray | None:
    """Texts as numbers or days, NaN where they are missing; None if most are neither."""
    known = values.dropna()
    if not len(known):
        return np.full(len(values), np.nan)
    numbers = pd.to_numeric(known.map(str), errors="coerce").astype(np.float64)
    if numbers.notna().mean() >= _NUMERIC:
        if numbers.isna().any():
            noted["mixed"].append(name)
        return numbers.reindex(values.index).to_numpy()
    dates = pd.to_datetime(known.map(str), errors="coerce", format="ISO8601", utc=True)
    if dates.notna().all():
        noted["date"].append(name)
        return _days(dates.reindex(values.index))
    return None


def _days(dates: pd.Series) -> ndarray:
    return ((dates - dates.min()) / pd.Timedelta(days=1)).to_numpy(np.float64)


def _kind(values: ndarray) -> str:
    if values.min() >= 0.0 and values.max() <= 1.0 and np.ptp(values) > _BOX:
        return "box"
    return "counts" if values.min() >= 0.0 and (values == np.floor(values)).all() else "real"


def _part(kind: str, name: str, values: ndarray) -> _Part:
    upper = {"box": 1.0, "counts": values.max()}.get(kind, np.inf)
    lower = 0.0 if np.isfinite(upper) else -np.inf
    return _Part(kind, (name,), values[:, None], np.array([lower]), np.array([upper]))


def _is_text(values: pd.Series) -> bool:
    """Whether the entries have three words or more, most of them."""
    known = values.dropna().map(str)
    return bool(len(known) and (known.str.count(r"\S+") >= 3).mean() > 0.5)


def _categories(name: str, values: pd.Series) -> _Part:
    """One column of 0 and 1 for each value; a row without a value has 0 in all of them."""
    dummies = pd.get_dummies(values.where(values.isna(), values.map(str)), dtype=np.float64)
    k = dummies.shape[1]
    names = tuple(f"{name} = {value}" for value in dummies.columns)
    return _Part("category", names, dummies.to_numpy(), np.zeros(k), np.ones(k))


def _words(texts: pd.DataFrame, most: int) -> _Part | None:
    """Counts of words, or None if no word occurs in two rows."""
    joined = texts.fillna("").astype(str).agg(" ".join, axis=1)
    vectorizer = CountVectorizer(min_df=2, max_features=most)
    try:
        counts = sp.csr_array(vectorizer.fit_transform(joined)).astype(np.float64)
    except ValueError:
        return None
    least, largest = _range(counts)
    keep = np.flatnonzero(least < largest)
    names = tuple(f"“{word}”" for word in vectorizer.get_feature_names_out()[keep])
    return _Part("text", names, counts[:, keep], np.zeros(len(keep)), largest[keep])


def _varying(part: _Part, noted: dict[str, list[str]]) -> _Part:
    """The columns of a part that hold more than one value."""
    keep = np.flatnonzero(np.ptp(part.values, axis=0))
    noted["constant"] += [name for j, name in enumerate(part.names) if j not in set(keep)]
    names = tuple(part.names[j] for j in keep)
    return _Part(part.kind, names, part.values[:, keep], part.lower[keep], part.upper[keep])


# Matrices ---------------------------------------------------------------------------------------


def _matrix(X: sp.csr_array) -> tuple[list[_Part], list[str]]:
    """A sparse matrix as one part, without columns that hold one value."""
    if X.dtype.kind not in "fiub":
        raise DataError(f"DATA: the matrix must hold real numbers, its type is {X.dtype}.")
    X = X.astype(np.float64)
    if X.nnz and not np.abs(X.data).max() <= _LARGEST:  # false for NaN, too
        raise DataError("DATA: the matrix must hold finite numbers within 1e100 of 0.")
    least, largest = _range(X)
    keep = np.flatnonzero(least < largest)
    left = X.shape[1] - len(keep)
    notes = [f"Left out, because they hold one value: {left:,} columns."] if left else []
    X = sp.csr_array(X[:, keep])
    kind = _kind(X.data) if X.nnz else "real"
    names = tuple(f"feature {j}" for j in keep)
    infinite = np.full(len(keep), np.inf)
    if kind == "real":
        return [_Part(kind, names, X, -infinite, infinite)], notes
    upper = largest[keep] if kind == "counts" else np.ones(len(keep))
    return [_Part(kind, names, X, np.zeros(len(keep)), upper)], notes


def _range(X: Matrix) -> tuple[ndarray, ndarray]:
    if not sp.issparse(X):
        return X.min(axis=0), X.max(axis=0)
    return tuple(np.asarray(end.toarray()).ravel() for end in (X.min(axis=0), X.max(axis=0)))


def _joined(parts: list[_Part]) -> _Part:
    if not sum(len(part.names) for part in parts):
        raise DataError(
            "DATA: no column but the label varies in a way that a model could use: an audit needs "
            "one at least."
        )
    if len(parts) == 1:
        return parts[0]
    values = [
        part.values.toarray() if sp.issparse(part.values) else part.values for part in parts
    ]  # fmt: skip
    names = tuple(name for part in parts for name in part.names)
    limits = (np.concatenate([getattr(part, end) for part in parts]) for end in ("lower", "upper"))
    return _Part("mixed", names, np.hstack(values), *limits)


# Scales -----------------------------------------------------------------------------------------


def _scaled(
    part: _Part, told: str
) -> tuple[Matrix, InputDomain, ndarray, ndarray, tuple[str, ...]]:
    """The features as they are learned from, their domain, centre and scale; what was done."""
    values = part.values
    d = len(part.names)
    if told == "counts" or (told == "auto" and _like_words(values)):
        bad = np.flatnonzero(~_whole(values))
        if bad.size:
            raise DataError(
                f"FEATURES: counts must be whole numbers from 0, and the column "
                f"{part.names[bad[0]]!r} holds others."
            )
        X = sp.csr_array(values)
        note = "Features are counts and stay as they are; poison is whole numbers."
        return X, InputDomain.of("counts", X), np.zeros(d), np.ones(d), (note,)
    lower, upper = part.lower, part.upper
    if told == "box":
        lower, upper = _range(values)
    elif told == "real":
        lower, upper = np.full(d, -np.inf), np.full(d, np.inf)
    if sp.issparse(values):
        centre, length = np.zeros(d), float(np.sqrt(values.multiply(values).sum(axis=1).mean()))
        scale = np.full(d, length / np.sqrt(d))
        note = "Features are sparse: all are divided by one number, so that zeros stay zeros."
        X = sp.csr_array(values / scale[0])
    else:
        centre, span = values.mean(axis=0), np.ptp(values, axis=0)
        scale = span * ((values - centre) / span).std(axis=0)  # squares of tiny numbers would be 0
        X = (values - centre) / scale
        note = "Features are standardised: mean 0, standard deviation 1."
    limits = (lower - centre) / scale, (upper - centre) / scale
    return X, InputDomain("real", *limits), centre, scale, (note,)


def _whole(values: Matrix) -> ndarray:
    """For each column, whether it holds whole numbers from 0 only."""
    rows = sp.csr_array(values)
    strange = (rows.data < 0.0) | (rows.data != np.floor(rows.data))
    return ~np.bincount(rows.indices, strange, rows.shape[1]).astype(bool)


def _like_words(values: Matrix) -> bool:
    zeros = 1.0 - sp.csr_array(values).nnz / (values.shape[0] * values.shape[1])
    return bool(zeros >= _SPARSE and values.max() <= _MOST_COUNTED and _whole(values).all())
