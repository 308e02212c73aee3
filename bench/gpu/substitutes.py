"""Substitutes for two small packages, where they are not installed.

``array_api_compat`` is part of scikit-learn too. Of ``annotated_types`` the library uses five
bounds, which hold a number each.
"""

import sys
from dataclasses import make_dataclass
from importlib import import_module
from types import ModuleType

BOUNDS = {"Gt": "gt", "Ge": "ge", "Lt": "lt", "Le": "le", "MultipleOf": "multiple_of"}


def install() -> None:
    """Enter them where the packages' own names would be looked up."""
    try:
        import array_api_compat  # noqa: F401
    except ImportError:
        sys.modules["array_api_compat"] = import_module("sklearn.externals.array_api_compat")
    try:
        import annotated_types  # noqa: F401
    except ImportError:
        bounds = ModuleType("annotated_types")
        for name, field in BOUNDS.items():
            setattr(bounds, name, make_dataclass(name, [field], frozen=True))
        sys.modules["annotated_types"] = bounds
