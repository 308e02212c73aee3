"""The settings of attacks as their files declare them, read without importing these files.

``params.yaml`` is checked before any stage runs, and importing an attack takes seconds. Its
settings are fields ``name: type = setting(default, KIND, "meaning")`` of a class in
``lib/poisoning/attacks``, and a name is looked up there: an attack that a user adds is found.
"""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

from poisoning import settings


class Declared(NamedTuple):
    """A field: its kind, whether it takes several values, and whether None is allowed."""

    kind: settings.Kind
    many: bool
    none: bool


def schema(name: str) -> dict[str, Declared]:
    """The settings of the class ``name``, its bases' first.

    Raises:
        KeyError: no file in ``lib/poisoning/attacks`` defines it.
    """
    found: dict[str, Declared] = {}
    node = _classes(Path(settings.__file__).with_name("attacks"))[name]
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id != settings.Settings.__name__:
            found |= schema(base.id)
    for statement in node.body:
        match statement:
            case ast.AnnAssign(
                target=ast.Name(id=field), value=ast.Call(func=ast.Name(id="setting")) as call
            ):
                flags = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
                many, none = flags.get("many", False), flags.get("none", False)
                found[field] = Declared(_kind(call.args[1]), many, none)
    return found


def _kind(node: ast.expr) -> settings.Kind:
    match node:
        case ast.Name(id=name):
            return _KINDS[name]
        case ast.Call(func=ast.Name(id="choice"), args=names):
            return settings.choice(*map(ast.literal_eval, names))
    raise KeyError(ast.unparse(node))


_KINDS = {name: kind for name, kind in vars(settings).items() if isinstance(kind, settings.Kind)}


@cache
def _classes(folder: Path) -> dict[str, ast.ClassDef]:
    return {
        node.name: node
        for file in sorted(folder.glob("*.py"))
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
