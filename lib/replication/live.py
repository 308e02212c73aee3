"""Fingerprints of imported functions: the code of a unit, in the library or in a notebook.

A function of the library is identified by its module's text. A function of a notebook may have been
edited since the file was saved. It is identified by the source that was run, the functions of the
notebook that it names, and the values of the constants that it reads.
"""

import ast
import inspect
import symtable
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from functools import partial
from types import FunctionType, LambdaType, ModuleType
from typing import Any

from replication.digests import digest
from replication.fingerprint import Reader
from replication.project import Project
from replication.records import Digester, RecordError
from replication.syntax import Reference, Table


class Coder:
    """Digests of units' arguments and fingerprints of their functions.

    What was found is kept until :meth:`forget`: arrays and functions must not change before.
    """

    def __init__(self) -> None:
        self._reader = Reader(Project.of_tree())
        self._digester = Digester(self.fingerprint)
        self._known: dict[Any, str] = {}

    def forget(self) -> None:
        """Look anew at arrays, and at what functions read, which a notebook may have changed."""
        self._known.clear()
        self._digester.forget()

    def identify(self, function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[str, str]:
        """The digest of a unit's arguments, and the fingerprint of what it computes with.

        To the latter belong the classes of its arguments, whose methods the function may call.
        """
        self._digester.classes.clear()
        asked = self._digester.digest(arguments)
        kinds = sorted(self._digester.classes, key=lambda kind: kind.__qualname__)
        texts = [self.fingerprint(function), *(self.fingerprint(kind) for kind in kinds)]
        return asked, digest(texts)

    def fingerprint(self, thing: Any) -> str:
        """What a function or a class computes with, itself and all that it reaches."""
        if isinstance(thing, partial):
            given = self._digester.digest([list(thing.args), thing.keywords])
            return digest([self.fingerprint(thing.func), given])
        thing = getattr(thing, "py_func", thing)  # what numba compiles
        try:
            known = self._known.get(thing)
        except TypeError:
            raise RecordError(f"{thing!r} has no fingerprint: give units functions.") from None
        if known is None:
            known = self._fingerprint(thing)
            self._known[thing] = known
        return known

    def _fingerprint(self, thing: Any) -> str:
        module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
        if not module or not name:
            raise RecordError(f"{thing!r} has no fingerprint: give units functions.")
        if module in self._reader.project.modules and "<" not in name:
            return self._reader.references([Reference(module, name.partition(".")[0])]).value
        if not isinstance(thing, FunctionType | type) or _is_installed(thing):
            return f"{module}.{name}"  # of a package: its version is in the record
        return self._beside(thing)

    def _beside(self, thing: Any) -> str:
        """A function or class of a notebook, with the notebook's definitions that it names."""
        table, values = Table("__main__"), {}
        namespace = _namespace(thing)
        queue: list[tuple[str, Any]] = [(thing.__name__, thing)]
        seen = set()
        while queue:
            name, item = queue.pop()
            if name in seen:
                continue
            seen.add(name)
            if isinstance(item, LambdaType) and item.__name__ == "<lambda>":
                values[name] = self._lambda(item)
                continue
            node = _source(item, namespace)
            table.definitions[name] = [node]
            for used in sorted(_globals_read(node)):
                if used in namespace:
                    self._enter(used, namespace[used], thing.__module__, table, values, queue)
        closure = getattr(thing, "__closure__", None) or ()
        given = [self._digester.digest(cell.cell_contents) for cell in closure]
        texts = [f"{name} {value}" for name, value in sorted(values.items())]
        return digest([self._reader.beside(table).value, *texts, *given])

    def _enter(
        self,
        name: str,
        value: Any,
        home: str,
        table: Table,
        values: dict[str, str],
        queue: list[tuple[str, Any]],
    ) -> None:
        """Record what a name of a notebook stands for."""
        if isinstance(value, ModuleType):
            table.imports[name] = value.__name__
        elif isinstance(value, FunctionType | type) and value.__module__ == home:
            queue.append((name, value))
        elif callable(value) and hasattr(value, "__qualname__") and hasattr(value, "__module__"):
            table.imports[name] = f"{value.__module__}.{value.__qualname__}"
        else:
            try:
                values[name] = self._digester.digest(value)
            except RecordError:
                raise RecordError(
                    f"a unit of work reads {name}, a {type(value).__name__} beside it: pass it as "
                    "an argument."
                ) from None

    def _lambda(self, function: LambdaType) -> str:
        """A lambda by its bytecode: its source cannot be separated from the rest of the line."""
        code, beside = function.__code__, function.__globals__
        values = [beside[name] for name in code.co_names if name in beside]
        values += [cell.cell_contents for cell in function.__closure__ or ()]
        values += function.__defaults__ or ()
        text = code.co_code.hex(), repr(code.co_consts), repr(code.co_names)
        return digest([*text, *(self._digester.digest(value) for value in values)])


def _is_installed(thing: Any) -> bool:
    """Whether a function or class comes from Python itself or an installed package."""
    file = (
        thing.__code__.co_filename
        if isinstance(thing, FunctionType)
        else getattr(sys.modules[thing.__module__], "__file__", None) or ""
    )
    return "site-packages" in file or file.startswith((_STANDARD, "<frozen"))


_STANDARD = sysconfig.get_paths()["stdlib"]


def _globals_read(node: ast.stmt) -> set[str]:
    """The names that a definition reads from its surroundings, without its own locals."""
    found: set[str] = set()
    tables = [symtable.symtable(ast.unparse(node), "unit", "exec")]
    while tables:
        table = tables.pop()
        top = table.get_type() == "module"
        found |= {
            s.get_name()
            for s in table.get_symbols()
            if s.is_referenced() and (top or s.is_global())
        }
        tables += table.get_children()
    return found


def _namespace(thing: Any) -> dict[str, Any]:
    if isinstance(thing, FunctionType):
        return thing.__globals__
    return vars(sys.modules[thing.__module__])


def _source(item: Any, namespace: dict[str, Any]) -> ast.stmt:
    """The statement that defines a function or a class, as it was run."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(item))).body[0]
    except (OSError, TypeError, SyntaxError):
        pass
    for cell in reversed(namespace.get("In", [])):  # what IPython has run
        try:
            body = ast.parse(cell).body
        except SyntaxError:
            continue
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == item.__name__:
                return node
    raise RecordError(f"the source of {item.__name__} cannot be found: define it in a notebook.")
