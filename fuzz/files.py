"""Random damage to files that are read: archives, prepared data, records of units, results.

Each case takes a right file and damages it: bytes flipped, cut off, repeated, put in front;
members, arrays and entries left out, of another type or shape; headers that promise more than there
is, and bombs that unpack to gigabytes. A reader must refuse it in one sentence, or, where the
damage hits nothing that counts, give what the right file gives. It must do so within ten seconds
and without taking memory for what is only promised.
"""

import gzip
import io
import json
import random
import resource
import shutil
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.io import savemat

from fuzz.tally import Outcome, tally
from poisoning.datasets import archives, mnist, store
from poisoning.datasets.content import Content
from poisoning.datasets.enron import read_vocabulary
from poisoning.datasets.parse import sentence
from poisoning.errors import DataError
from replication import claims, records
from replication.claims import ClaimsError
from replication.reading import ReadingError, read_result
from replication.records import RecordError
from replication.units import COLUMNS, read_table

NAME = "files"
SLOW = 10.0
"""Seconds within which a file must be refused."""

MEMORY = 1 << 31
"""Bytes that reading damaged files of a few kilobytes may take at most, all in all."""

REFUSALS = (DataError, RecordError, ReadingError, ClaimsError)
RAW = ("Traceback", "object at 0x", "\n")


@dataclass(frozen=True)
class Kind:
    """A file or folder: ``write`` makes a right one, ``read`` reads it, as its users do."""

    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    files: tuple[str, ...] = ("",)
    """The files of a folder that are damaged; "" for a file itself."""


# Right files ----------------------------------------------------------------------------------


def _tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in {"a/1.txt": b"one" * 50, "a/2.txt": b"two" * 90, "b/3.txt": b"3"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))


def _gz(path: Path) -> None:
    raw = bytes([0, 0, 8, 1]) + (512).to_bytes(4, "big") + bytes(range(256)) * 2
    path.write_bytes(gzip.compress(raw, mtime=0))


def _npz(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez_compressed(stream, X=np.arange(60.0).reshape(20, 3), y=np.arange(20))


def _mat(path: Path) -> None:
    savemat(path, {"t": np.arange(60.0).reshape(20, 3), "s": np.ones((4, 4))}, do_compression=True)


def _counts(path: Path) -> None:
    X = sp.csr_array(np.array([[1, 0, 2], [0, 3, 0], [0, 0, 1]], dtype=np.int32))
    content = Content("counts", X, np.array([1.0, -1.0, 1.0]), X[:2], np.array([1.0, -1.0]),
                      ["a", "b", "c"])  # fmt: skip
    store.save(path, content, {"name": "toy", "variant": "tiny"})


def _pixels(path: Path) -> None:
    X = np.arange(24, dtype=np.uint8).reshape(6, 4)
    store.save(path, Content("box01", X, np.arange(6)), {"name": "toy", "variant": "tiny"})


def _record(path: Path) -> None:
    result = {"error": 0.25, "w": np.arange(30.0), "X": sp.csr_array(np.eye(3)), "t": (1, "a")}
    records.write(path, {"key": "0" * 32, "cpu_seconds": 1.5}, result)


def _metrics(path: Path) -> None:
    item = {"value": 0.5, "ci95": [0.4, 0.6], "n": 3}
    content = {"data": {"toy": "tiny"}, "profile": "demo", "metrics": {"a": item, "b": item}}
    path.write_text(json.dumps(content, indent=1, sort_keys=True), "utf-8")


def _table(path: Path) -> None:
    path.mkdir()
    row = ["draws", "0", "0" * 32, "f", "1" * 32, "2" * 32, "3" * 40, "False", "0.5", "cpu", ""]
    lines = [",".join(COLUMNS), *(",".join([row[0], str(k), *row[2:]]) for k in range(4))]
    (path / "units.csv").write_text("\n".join(lines) + "\n", "utf-8")


def _vocabulary(path: Path) -> None:
    path.write_text(json.dumps({"alpha": 0, "beta": 1, "gamma": 2}), "utf-8")


def _through(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader of a published file, as ``parse_checked`` calls it."""

    def reading(path: Path) -> Any:
        try:
            return read(path)
        except DataError:
            raise
        except archives.UNREADABLE as error:
            raise sentence("toy", [path.name], error) from error

    return reading


def _loaded(path: Path) -> Any:
    found = store.load(path)
    X = found.X.toarray() if sp.issparse(found.X) else found.X
    return X, found.y, found.domain, found.vocabulary, found.manifest


KINDS = {
    "tar": Kind(_tar, _through(lambda path: archives.read_tar(path, lambda name: True))),
    "gzip": Kind(_gz, _through(lambda path: mnist.read_idx(path, dimensions=1))),
    "npz": Kind(_npz, _through(archives.read_npz)),
    "mat": Kind(_mat, _through(lambda path: {k: v for k, v in archives.read_mat(path).items()
                                             if not k.startswith("_")})),
    "counts": Kind(_counts, _loaded, ("arrays.npz", "manifest.json", "vocabulary.json")),
    "pixels": Kind(_pixels, _loaded, ("arrays.npz", "manifest.json")),
    "record": Kind(_record, records.read),
    "metrics": Kind(_metrics, lambda path: read_result(path, claims.checked, "run it again")),
    "table": Kind(_table, read_table, ("units.csv",)),
    "vocabulary": Kind(_vocabulary, _through(read_vocabulary)),
}  # fmt: skip


# Damage ---------------------------------------------------------------------------------------


def _bytes_changed(raw: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(raw) + 1), rng.randrange(1, 40)
    return rng.choice([
        raw[:at],
        raw[at:],
        raw[:at] + rng.randbytes(size) + raw[at + size :],
        raw[:at] + bytes(size) + raw[at + size :],
        raw[:at] + raw[at + size :],
        raw[:at] + rng.randbytes(size) + raw[at:],
        raw[:at] + raw[max(0, at - size) :],
        bytes(b ^ (1 << rng.randrange(8)) if i == at else b for i, b in enumerate(raw)),
        b"", b"\0" * len(raw), rng.randbytes(len(raw)), b"<!doctype html><html></html>",
    ])  # fmt: skip


def _json_changed(raw: bytes, rng: random.Random) -> bytes:
    """An entry of another type, or none, somewhere."""
    content = json.loads(raw)
    block, where = content, content
    while True:
        keys = list(block) if isinstance(block, dict) else list(range(len(block)))
        if not keys:
            return b"[]"
        where, key = block, rng.choice(keys)
        if not isinstance(block[key], dict | list) or rng.random() < 0.4:
            break
        block = block[key]
    wrong = [None, 1, -1, 1.5, "x", True, [], {}, [None], {"a": None}, 10**30, "\ud800", [[[]]]]
    if rng.random() < 0.2:
        del where[key]
    else:
        where[key] = rng.choice(wrong)
    if rng.random() < 0.05:
        return b"[" * 100_000
    return json.dumps(content).encode()


def _header(shape: str, descr: str, order: str = "False", magic: bytes = b"\x93NUMPY") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return magic + b"\1\0" + len(text).to_bytes(2, "little") + text.encode()


def _npz_changed(raw: bytes, rng: random.Random) -> bytes:
    """A member with another header, of objects, missing, twice or a bomb."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice([n for n in members if n.endswith(".npy")])
    data = members[name][128:]
    huge = rng.choice(["(1000000000000,)", "(99999999, 99999999)", "(18446744073709551617,)",
                       "(-1,)", "(7,)", "(1, 1, 1, 1)", "()", "(10,) * 10", "(1.5,)"])  # fmt: skip
    kind = rng.choice(["'<f8'", "'|O'", "'<i4'", "'|V0'", "'<U100000000'", "'x'", "['a']",
                       "[('a', '|O')]", "'>f8'", "'<M8[s]'", "None", "print(1)"])  # fmt: skip
    choice = rng.randrange(6)
    if choice == 0:
        members[name] = _header(huge, "'<f8'") + data
    elif choice == 1:
        members[name] = _header("(3,)", kind) + data
    elif choice == 2:
        del members[name]
    elif choice == 3:
        members[name] = rng.choice([b"", b"\x93NUMPY", b"\x93NUMPY\3\0", b"\x93NUMPY\1\0\xff\xff"])
    elif choice == 4:
        members[f"{name}.txt"] = b"text"
    else:
        members[name] = members[name][: rng.randrange(len(members[name]))]
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, content in members.items():
            archive.writestr(key, content)
    return target.getvalue()


def _bomb(kind: str, rng: random.Random) -> bytes:
    """A small file that unpacks to more than a reader may take."""
    size = 300 << 20  # enough to show that it is refused, and quick to make
    target = io.BytesIO()
    if kind == "gzip":
        with gzip.open(target, "wb", compresslevel=1) as stream:
            for _ in range(size >> 20):
                stream.write(bytes(1 << 20))
        return target.getvalue()
    if kind == "tar":  # the header of a member says so; its bytes need not be there
        info = tarfile.TarInfo("a/1.txt")
        info.size = rng.choice([10 << 30, 1 << 33, (1 << 28) + 1])
        types = [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE]
        info.type = rng.choice(types)
        return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        inner = "record.json" if kind == "record" else "X.npy"
        with archive.open(inner, "w", force_zip64=True) as stream:
            stream.write(_header(f"({size // 8},)", "'<f8'") if inner == "X.npy" else b'"')
            for _ in range((2 if kind == "npz" else 1) * size >> 20):
                stream.write(bytes(1 << 20))
    return target.getvalue()


BOMBS = ("gzip", "tar", "record")


def damaged(kind: str, file: str, raw: bytes, rng: random.Random) -> bytes:
    """What is left of a right file."""
    if rng.random() < 0.4:
        if file.endswith(".json") or kind in ("metrics", "vocabulary"):
            return _json_changed(raw, rng)
        if file.endswith(".npz") or kind in ("npz", "record"):
            return _npz_changed(raw, rng)
    if kind in BOMBS and rng.random() < 0.01:
        return _bomb(kind, rng)
    return _bytes_changed(raw, rng)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal to the last bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    return records.compare(one, other).equal


UNSEALED = ("npz", "record", "metrics", "table", "vocabulary", "tar", "mat")
"""Kinds without a digest of their own: other content of the right form is read as it is."""


def verdict(name: str, path: Path, right: Any) -> tuple[str, str, float]:
    """What a user sees of a damaged file: the verdict, the sentence, the seconds."""
    begun = time.process_time()
    try:
        found, said = KINDS[name].read(path), "read as something else"
        result = "right" if name in UNSEALED or same(found, right) else "wrong"
    except REFUSALS as error:
        said = str(error)
        result = "wrong" if any(word in said for word in RAW) or len(said) > 2000 else "refused"
    except Exception as error:
        result, said = "crashed", f"{type(error).__name__}: {error}"
    seconds = time.process_time() - begun
    return "wrong" if seconds > SLOW else result, said, seconds


def run(seed: int, count: int | None = None, budget_seconds: float = 600.0) -> dict[str, Any]:
    """Try ``count`` files, or as many as the seconds allow; what happened, by kind."""
    with tempfile.TemporaryDirectory() as folder:
        originals = {}
        for name, kind in KINDS.items():
            kind.write(Path(folder) / name)
            originals[name] = kind.read(Path(folder) / name)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcomes = _outcomes(Path(folder), originals, random.Random(seed))
        found = tally(outcomes, KINDS, seed, count, budget_seconds)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["memory_mb"] = (after - before) // 1024
    if after - before > MEMORY // 1024:
        found["wrong"] += 1
        found["samples"].append(f"reading took {found['memory_mb']} MB")
    return found


def _outcomes(folder: Path, originals: dict[str, Any], rng: random.Random) -> Iterator[Outcome]:
    path = folder / "damaged"
    while True:
        name = rng.choice(list(KINDS))
        original = folder / name
        copy = shutil.copytree if original.is_dir() else shutil.copyfile
        copy(original, path)
        file = rng.choice(KINDS[name].files)
        target = path / file if file else path
        target.write_bytes(damaged(name, file, target.read_bytes(), rng))
        yield Outcome(name, f"{name} {file}", *verdict(name, path, originals[name]))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
