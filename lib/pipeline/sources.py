"""Which code decides a result: what a cached unit of work is filed under."""

import ast
import dis
import hashlib
import inspect
import sys
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType
from typing import Any

import joblib

from lib.pipeline import paths

_NOT_RESULTS = ("lib/pipeline/", "lib/plotting.py")
"""Runs and draws; what it computes is an argument of the unit."""


def imported(code: str) -> set[str]:
    """The files of ``lib`` that Python ``code`` imports, directly or not, relative to the root."""
    found: set[str] = set()
    queue = [code]
    while queue:
        names = set()
        for node in ast.walk(ast.parse(queue.pop())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        for name in names:
            base = name.replace(".", "/")
            for file in (f"{base}.py", f"{base}/__init__.py"):
                if name.startswith("lib") and file not in found and (paths.ROOT / file).is_file():
                    found.add(file)
                    queue.append((paths.ROOT / file).read_text())
    return found


def fingerprint(function: Callable[..., Any]) -> str:
    """SHA-256 of all that ``function`` computes with, its arguments aside.

    For a function of ``lib``: its module and what that imports, so that notebooks share its
    results. For one of a notebook: its source, the functions and constants beside it that it
    names, and the modules of ``lib`` that the notebook has imported.
    """
    digest = hashlib.sha256(inspect.getsource(function).encode())
    if function.__module__.startswith("lib."):
        files = imported(f"import {function.__module__}")
    else:
        digest.update(_beside(function).encode())
        loaded = (name for name in sys.modules if name == "lib" or name.startswith("lib."))
        files = imported("\n".join(f"import {name}" for name in sorted(loaded)))
    digest.update(_texts(files).encode())
    return digest.hexdigest()


def _texts(files: set[str]) -> str:
    """SHA-256 of the files that can shape a result."""
    digest = hashlib.sha256()
    for file in sorted(files):
        if not file.startswith(_NOT_RESULTS):
            digest.update(file.encode() + b"\0" + (paths.ROOT / file).read_bytes())
    return digest.hexdigest()


def _beside(function: Callable[..., Any]) -> str:
    """Sources and values of the globals that a function of a notebook names."""
    parts, queue, seen = [], [function], {function}
    while queue:
        current = queue.pop()
        parts.append(inspect.getsource(current))
        for name in sorted(_names(current.__code__)):
            value = current.__globals__.get(name)
            if isinstance(value, FunctionType) and value.__module__ == function.__module__:
                if value not in seen:
                    seen.add(value)
                    queue.append(value)
            elif not (value is None or callable(value) or isinstance(value, ModuleType)):
                parts.append(f"{name} = {joblib.hash(value)}")
    return "\n".join(parts)


def _names(code: CodeType) -> set[str]:
    """The global names of a function and of the functions inside it; not its attributes' names."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return own.union(*(_names(part) for part in inner))
