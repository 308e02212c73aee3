"""Attacks, defenses, learners and data sets that a knob names: ``my_attack.Mine(epsilon=0.1)``.

A component is the path of a class or a function, called with keyword arguments that are literals.
It is an estimator (a class of scikit-learn's interface) of an installed package, or lies in a file
below ``lib/``. In the second case its code belongs to the fingerprint of every notebook whose knobs
name it. Nothing else can be named: a knob is data, and calls no function that is installed.
"""

import ast
import importlib.util
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from poisoning.defenses.detector import name_of
from replication import paths

PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(\(.*\))?")


class ComponentError(ValueError):
    """A component that cannot be made; one sentence."""


def place(text: str) -> tuple[str, str, dict[str, Any]]:
    """Module, name and arguments of a component.

    Raises:
        ComponentError: the text is not of the form ``package.module.Class(name=literal, …)``.
    """
    try:
        node = ast.parse(text, mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        module, _, name = ast.unparse(call.func).rpartition(".")
        if not PATTERN.fullmatch(f"{module}.{name}"):
            raise ValueError
        return module, name, {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ComponentError(
            f"{text!r} names no class or function: write its path, such as my_attack.Mine(k=3), "
            "with keyword arguments that are literals, or without any."
        ) from None


def missing(module: str, name: str) -> str | None:
    """What a knob names that is not there; None where all is, as far as files tell.

    Nothing is imported, which takes seconds and runs code. So a name counts as there if the file of
    its module holds the word, or may bind names in other ways.
    """
    spec, parts = None, module.split(".")
    for last in range(len(parts)):
        part = ".".join(parts[: last + 1])
        spec = _spec(part, spec)
        if spec is None:
            return f"there is no module {part}, installed or below lib/"
    if not (spec.origin or "").endswith(".py"):
        return None
    try:
        code = Path(spec.origin).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    if re.search(rf"\b{name}\b", code) or any(way in code for way in _BINDS_OTHERWISE):
        return None
    return f"there is no class or function {name} in {module}"


_BINDS_OTHERWISE = ("import *", "__getattr__", "globals()", "sys.modules", "exec(")


def _spec(module: str, package: ModuleSpec | None) -> ModuleSpec | None:
    """Where a module lies, in its package unless that is None."""
    if package is not None:
        return PathFinder.find_spec(module, package.submodule_search_locations or [])
    try:
        own = PathFinder.find_spec(module, [str(paths.ROOT / "lib")])
        return own or importlib.util.find_spec(module)
    except ValueError:  # of a module such as __main__, which was not found by its name
        return None


def all_made(texts: Sequence[str], taken: Collection[str] = ()) -> dict[str, Any]:
    """Several objects by the names that tables have for them: their ``name``, or their class's.

    Raises:
        ComponentError: two have one name, or one has a name that is ``taken``; or as :func:`made`.
    """
    found: dict[str, Any] = {}
    for text in texts:
        one = made(text)
        name = name_of(one)
        if name in found or name in taken:
            raise ComponentError(
                f"{text!r}: another is called {name!r} already; give the class an attribute name "
                "that differs."
            )
        found[name] = one
    return found


def made(text: str) -> Any:
    """The object that the class or function makes.

    Raises:
        ComponentError: there is no such module or name, it is no component, or it does not accept
            the arguments.
    """
    module, name, arguments = place(text)
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ComponentError(f"{text!r}: {module} is part of Python; {_WHAT}")
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise ComponentError(
            f"{text!r}: {module} cannot be imported ({_reason(error)})."
        ) from error
    if not callable(getattr(found, name, None)):
        raise ComponentError(f"{text!r}: there is no class or function {name} in {module}.")
    if not _is_component(getattr(found, name)):
        raise ComponentError(f"{text!r} may not be called; {_WHAT}")
    try:
        return getattr(found, name)(**arguments)
    except Exception as error:
        raise ComponentError(f"{text!r} cannot be made: {_reason(error)}.") from error


_WHAT = (
    "name an estimator of an installed package, or a class or a function in a file of your own "
    "below lib/."
)
_INSTALLED = {
    *(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")),
    *site.getsitepackages(), site.getusersitepackages(),
}  # fmt: skip
_OURS = ("poisoning", "replication")


def _is_component(thing: Any) -> bool:
    """Whether a knob may call it: by where it is defined, not by where it is imported."""
    home = getattr(thing, "__module__", None) or ""
    file = Path(getattr(sys.modules.get(home), "__file__", None) or "")
    if file.resolve().is_relative_to((paths.ROOT / "lib").resolve()):
        return isinstance(thing, type) or home.partition(".")[0] not in _OURS
    if not any(file.is_relative_to(folder) for folder in _INSTALLED):
        return False
    return isinstance(thing, type) and hasattr(thing, "fit") and hasattr(thing, "get_params")


def _reason(error: Exception) -> str:
    """What went wrong, and where in the file that was written last."""
    if isinstance(error, SyntaxError):
        return f"{error.msg}, {Path(str(error.filename)).name}, line {error.lineno}"
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen")
        and "importlib" not in Path(frame.filename).parts
    ]  # fmt: skip
    return f"{said}, {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else said
