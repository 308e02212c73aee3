"""Storage of values: a digest of a unit's arguments, and one file with the unit's result.

Numbers, strings, lists, tuples, dicts, arrays, sparse matrices and dataclasses of these are kept to
the last bit, without pickle: a class is found by its name, also after it has moved to another
module.
"""

import dataclasses
import errno
import hashlib
import importlib
import io
import json
import math
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import scipy.sparse as sp

from poisoning.datasets import files
from poisoning.datasets.archives import UNREADABLE, read_array, read_member, reason
from replication.digests import digest

KIND = "#"
"""The key that marks values of types that JSON lacks."""

BEGINNING = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip archive can record."""

_SOURCES = Path(__file__).parents[1]

Tree = Any
"""What JSON can hold."""


class RecordError(TypeError):
    """A value whose type cannot be kept, or a file without a record; one sentence."""


class DamagedError(RecordError):
    """A file that no version of the code can read as a record."""


def pack(value: Any) -> tuple[Tree, list[np.ndarray]]:
    """``value`` as JSON, and the arrays that it refers to by number.

    Raises:
        RecordError: the value holds something else than numbers, text, arrays, sparse matrices,
            and lists, tuples, dicts, sets and dataclasses of these.
    """
    arrays: list[np.ndarray] = []
    return _pack(value, arrays), arrays


def _pack(value: Any, arrays: list[np.ndarray]) -> Tree:
    if value is None or (isinstance(value, bool | int | float | str) and type(value) in _JSON):
        return value
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype == object:
            raise RecordError("an array of Python objects cannot be kept: give it a dtype.")
        arrays.append(np.asarray(value))
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {KIND: kind, "at": len(arrays) - 1}
    if isinstance(value, list):
        return [_pack(item, arrays) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _pack(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        kind = type(value)
        return {KIND: "object", "class": kind.__qualname__, "in": kind.__module__, "of": fields}
    if isinstance(value, tuple):
        if type(value) is not tuple:
            raise RecordError(f"a {type(value).__name__} cannot be kept: make it a dataclass.")
        return {KIND: "tuple", "of": [_pack(item, arrays) for item in value]}
    if isinstance(value, dict):
        pairs = [[_pack(k, arrays), _pack(v, arrays)] for k, v in value.items()]
        return {KIND: "dict", "of": pairs}
    if isinstance(value, set | frozenset):
        items = sorted((_pack(item, arrays) for item in value), key=json.dumps)
        return {KIND: type(value).__name__, "of": items}
    if isinstance(value, sp.csr_array):
        parts = [_pack(part, arrays) for part in (value.data, value.indices, value.indptr)]
        return {KIND: "csr", "shape": list(value.shape), "of": parts}
    raise RecordError(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be kept: return numbers, "
        "text, arrays, and lists, tuples, dicts or dataclasses of these."
    )


_JSON = (bool, int, float, str)


def unpack(tree: Tree, arrays: list[np.ndarray], find: Callable[[str, str], type]) -> Any:
    """The value again; ``find`` gives the class of a name (and of the module it lay in)."""
    if isinstance(tree, list):
        return [unpack(item, arrays, find) for item in tree]
    if not isinstance(tree, dict):
        return tree
    match tree[KIND]:
        case "array":
            return arrays[tree["at"]]
        case "scalar":
            return arrays[tree["at"]][()]
        case "object":
            kind = find(tree["class"], tree["in"])
            made = object.__new__(kind)
            for name, item in tree["of"].items():
                if name.startswith("__"):
                    raise RecordError(f"{name} is no field of a dataclass.")
                object.__setattr__(made, name, unpack(item, arrays, find))
            return made
        case "csr":
            data, indices, indptr = (unpack(part, arrays, find) for part in tree["of"])
            return sp.csr_array((data, indices, indptr), shape=tuple(tree["shape"]))
    items = [unpack(item, arrays, find) for item in tree["of"]]
    makers: dict[str, Callable[[list[Any]], Any]] = {
        "tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict,
    }  # fmt: skip
    return makers[tree[KIND]](items)


def load_class(name: str, module: str) -> type:
    """The dataclass ``name`` of ``module``.

    A record may come from elsewhere, and importing a module runs it. So nothing is imported but
    files below ``lib/``; what is imported already, such as a notebook's own classes, is used.

    Raises:
        RecordError: it is no longer there, is no dataclass, or lies in a module that cannot be
            imported, or in another.
    """
    if module not in sys.modules and not _lies_here(module):
        raise RecordError(f"{module} is no module of this project: no record may import it.")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise RecordError(f"the class {name} is not in {module} any more.") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise RecordError(f"{module} cannot be imported ({reason(error)}).") from error
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        raise RecordError(f"{name} of {module} is no dataclass: no record may make one.")
    return found


def _lies_here(module: str) -> bool:
    """Whether a module, which is not imported for the answer, is a file below ``lib/``."""
    package, *rest = module.split(".")
    place = _SOURCES.joinpath(package, *rest)
    return all(part.isidentifier() for part in (package, *rest)) and (
        place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()
    )


# Files ----------------------------------------------------------------------------------------


def write(path: Path, about: dict[str, Any], result: Any) -> None:
    """Write ``about`` and ``result`` into one file, whole or not at all.

    Raises:
        RecordError: ``result`` cannot be kept.
        DataError: the file cannot be written.
    """
    tree, arrays = pack(result)
    with files.writing(path), files.replacing(path) as part:
        _save(part, about, tree, arrays)


def write_alone(path: Path, about: dict[str, Any], result: Any) -> None:
    """:func:`write` where no other process writes: without the lock, and the package it needs.

    Raises:
        RecordError: ``result`` cannot be kept.
    """
    tree, arrays = pack(result)
    part = files.part_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(part, about, tree, arrays)
    part.replace(path)


def _save(path: Path, about: dict[str, Any], tree: Tree, arrays: list[np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        _member(archive, "record.json", json.dumps(about | {"result": tree}).encode())
        for number, array in enumerate(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            _member(archive, f"{number}.npy", buffer.getvalue())


def _member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, BEGINNING)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)


def read(path: Path, find: Callable[[str, str], type] = load_class) -> tuple[dict[str, Any], Any]:
    """What :func:`write` wrote: ``about`` and ``result``.

    Raises:
        DamagedError: the file holds no record.
        RecordError: a class is gone.
        OSError: there is no such file, or the system does not give it.
        MemoryError: what it holds does not fit into memory.
    """
    with _or_damaged(path):
        with zipfile.ZipFile(path) as archive:
            about = json.loads(read_member(archive, "record.json"))
            if not isinstance(about, dict) or "result" not in about:
                raise ValueError("no result")
            arrays = []
            for number in range(len(archive.namelist()) - 1):
                arrays.append(read_array(archive, archive.getinfo(f"{number}.npy")))
        return about, unpack(about.pop("result"), arrays, find)


@contextmanager
def _or_damaged(path: Path) -> Iterator[None]:
    """Turn what readers raise on a file that is no record into ``DamagedError``, and only that."""
    try:
        yield
    except (RecordError, MemoryError):
        raise
    except UNREADABLE as error:
        # The system's own errors have a number; EINVAL is a seek to where a damaged header points.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DamagedError(f"{path.name} holds no record of a unit ({reason(error)}).") from error


# Digests --------------------------------------------------------------------------------------


class Digester:
    """Digests of arguments: equal values, equal digests, in every process.

    Beside what can be kept, arguments may be generators of random numbers (by their state),
    estimators of scikit-learn's kind (by class and parameters), other objects (by class and
    attributes) and functions (``name_function`` says by which text they count). ``classes``
    collects the classes of all objects that were met.
    """

    def __init__(self, name_function: Callable[[Any], str]) -> None:
        self.classes: set[type] = set()
        self._name_function = name_function
        self._arrays: dict[int, tuple[np.ndarray, str]] = {}

    def forget(self) -> None:
        """Digest arrays anew, which may have been changed in place."""
        self._arrays.clear()

    def digest(self, value: Any) -> str:
        """The digest of one value (:func:`replication.digests.digest`)."""
        return digest(self._texts(value))

    def _texts(self, value: Any) -> Iterator[str]:
        if isinstance(value, np.random.Generator):
            yield "generator"
            yield from self._texts(value.bit_generator.state)
            seeds = value.bit_generator.seed_seq
            for part in ("entropy", "spawn_key", "n_children_spawned", "pool_size"):
                yield from self._texts(getattr(seeds, part, None))
        elif isinstance(value, np.ndarray):
            yield self._array(value)
        elif isinstance(value, np.generic):
            yield f"{value.dtype.str} {value.tobytes().hex()}"
        elif isinstance(value, sp.csr_array):
            yield f"csr {value.shape}"
            for part in (value.data, value.indices, value.indptr):
                yield self._array(part)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            self.classes.add(type(value))
            yield f"object {type(value).__qualname__}"
            for field in dataclasses.fields(value):
                yield field.name
                yield from self._texts(getattr(value, field.name))
        elif hasattr(value, "get_params") and not isinstance(value, type):  # scikit-learn, pyod
            self.classes.add(type(value))
            yield f"estimator {type(value).__qualname__}"
            yield from self._texts(value.get_params(deep=False))
        elif isinstance(value, dict):
            yield f"dict {len(value)}"
            for key, item in value.items():
                yield from self._texts(key)
                yield from self._texts(item)
        elif isinstance(value, list | tuple):
            yield f"{'list' if isinstance(value, list) else 'tuple'} {len(value)}"
            for item in value:
                yield from self._texts(item)
        elif isinstance(value, set | frozenset):
            yield f"set {sorted(self.digest(item) for item in value)}"
        elif value is None or isinstance(value, bool | int | float | str | complex):
            yield f"{type(value).__name__} {value!r}"
        elif hasattr(value, "__dict__") and _is_own(value):  # for example a user's own defense
            self.classes.add(type(value))
            yield f"object {type(value).__qualname__}"
            yield from self._texts(vars(value))
        elif callable(value):
            yield self._name_function(value)
        else:
            raise RecordError(
                f"a {type(value).__module__}.{type(value).__qualname__} has no digest: give units "
                "of work numbers, text, arrays, generators, functions, and dataclasses of these."
            )

    def _array(self, array: np.ndarray) -> str:
        """Large arrays are digested once, however many units share them."""
        known = self._arrays.get(id(array))
        if known is None:
            if array.dtype == object:
                raise RecordError("an array of Python objects has no digest: give it a dtype.")
            content = hashlib.sha256(
                np.ascontiguousarray(array).data.cast("B") if array.size else b""
            )
            known = array, f"array {array.dtype.str} {array.shape} {content.hexdigest()}"
            self._arrays[id(array)] = known  # kept alive with the array, so that ids stay its own
        return known[1]


def _is_own(value: Any) -> bool:
    """Whether this is an object of a class, and neither Python's own nor a function of any kind."""
    functions = type | FunctionType | ModuleType | partial
    if isinstance(value, functions) or hasattr(value, "py_func"):
        return False
    return type(value).__module__.partition(".")[0] not in sys.stdlib_module_names


# Comparison -----------------------------------------------------------------------------------

TOLERANCE = 1e-6
"""Results within this, relative to the largest entry of an array, count as the same but for
rounding: another processor adds in another order."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """``equal`` to the last bit; or the ``worst`` relative difference, and ``where`` it lies."""

    equal: bool
    worst: float
    where: str

    @property
    def verdict(self) -> str:
        """equal, within tolerance, or different."""
        if self.equal:
            return "equal"
        return "within tolerance" if self.worst <= TOLERANCE else "different"


def compare(one: Any, other: Any) -> Comparison:
    """Two results of one unit; fields named "seconds" are ignored."""
    gaps = list(_gaps(one, other, "result"))
    if not gaps:
        return Comparison(True, 0.0, "")
    worst, where = max(gaps, key=lambda gap: gap[0])
    return Comparison(False, worst, where)


def _gaps(one: Any, other: Any, where: str) -> Iterator[tuple[float, str]]:
    if dataclasses.is_dataclass(one) and type(one).__qualname__ == type(other).__qualname__:
        for field in dataclasses.fields(one):
            if not _is_time(field.name):
                name = field.name
                yield from _gaps(getattr(one, name), getattr(other, name), f"{where}.{name}")
    elif isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        for key in one:
            if not _is_time(str(key)):
                yield from _gaps(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _gaps(a, b, f"{where}[{number}]")
    elif isinstance(one, sp.csr_array) and isinstance(other, sp.csr_array):
        for part in ("shape", "data", "indices", "indptr"):
            yield from _gaps(getattr(one, part), getattr(other, part), f"{where}.{part}")
    elif isinstance(one, np.ndarray | np.generic | float) and isinstance(
        other, np.ndarray | np.generic | float
    ):
        yield from _number_gaps(np.asarray(one), np.asarray(other), where)
    elif type(one) is not type(other) or one != other:
        yield math.inf, where


def _number_gaps(one: np.ndarray, other: np.ndarray, where: str) -> Iterator[tuple[float, str]]:
    if one.shape != other.shape or one.dtype != other.dtype:
        yield math.inf, where
    elif np.ascontiguousarray(one).tobytes() != np.ascontiguousarray(other).tobytes():
        if one.dtype.kind not in "fc" or not np.array_equal(np.isfinite(one), np.isfinite(other)):
            yield math.inf, where
            return
        finite = np.isfinite(one)
        size = np.abs(one[finite]).max(initial=0.0)
        gap = np.abs(one[finite] - other[finite]).max(initial=0.0)
        yield float(gap / size) if size else float(gap), where


def _is_time(name: str) -> bool:
    return name == "seconds" or name.endswith(("_seconds", " seconds"))
