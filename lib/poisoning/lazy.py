"""Names of a package that are imported when they are first used."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def at_first_use(package: str, homes: dict[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package; ``homes`` says which module defines each name."""

    def imported(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return imported
