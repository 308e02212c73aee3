"""The public surface is what ``surface.txt`` says: a change of it is a decision.

``UPDATE=1 python -m pytest tests/poisoning/test_surface.py`` writes the file anew.
"""

import inspect
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import poisoning as po
from replication.reading import is_set

GOLDEN = Path(__file__).with_name("surface.txt")


def described(name):
    """Name, signature and the first line of the docstring; of a class its methods too."""
    thing = getattr(po, name)
    if not callable(thing):
        return [f"{name}: {', '.join(map(repr, thing))}"]
    lines = [f"{name}{signature(thing)}: {first_line(thing)}"]
    if inspect.isclass(thing):
        for key, member in vars(thing).items():
            if key.startswith("_") and key != "__call__":
                continue
            member = getattr(member, "__func__", getattr(member, "fget", member))
            if inspect.isfunction(member):
                lines.append(f"    .{key}{signature(member)}: {first_line(member)}")
    return lines


def signature(thing):
    """Names and defaults, without types."""
    try:
        found = inspect.signature(thing)
    except ValueError:
        return ""
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    text = str(inspect.Signature(plain))
    return text if len(text) < 400 else "(...)"


def first_line(thing):
    return (inspect.getdoc(thing) or "").split("\n")[0]


def test_the_surface_is_the_golden_one():
    command = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_surface as t; "
        "print('\\n'.join(line for name in t.po.__all__ for line in t.described(name)))"
    )
    # In a process of its own: the import hook of the tests wraps functions.
    found = subprocess.run(
        [sys.executable, "-c", command, str(GOLDEN.parent)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if is_set("UPDATE"):
        GOLDEN.write_text(found, "utf-8")
    assert found == GOLDEN.read_text("utf-8")


def test_importing_the_library_imports_nothing_heavy():
    command = (
        "import sys; before = set(sys.modules)\n"
        "import poisoning\n"
        "heavy = {'numpy', 'numba', 'sklearn', 'torch', 'cvxpy', 'scipy', 'pandas', 'yaml'}\n"
        "assert not heavy & (set(sys.modules) - before), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", command], check=True)


def test_the_surface_has_what_its_own_doors_take_and_raise():
    X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [1.0, 3.0]])
    domain = po.InputDomain("counts", np.zeros(2), np.full(2, 3.0))
    y = np.array([1.0, -1.0, 1.0, -1.0])
    game = po.LinearGame(X, y, X, y, domain=domain, learner=po.SVM(), defenses=())
    assert isinstance(game.feasible(90.0, 90.0), po.FeasibleSet)
    learned = po.HyperparameterLearning(steps=2, l2=po.LamRange(-3.0, -4.0, 1.0))
    bilevel = po.BilevelGame(
        X, y, X, y, box=(0.0, 3.0), learning=learned, training=po.FinalTraining(5, 0.1)
    )
    assert bilevel.learning is learned
    assert issubclass(po.EmptySetError, po.SolverError)

    @dataclass(frozen=True)
    class Mine(po.Settings):
        epsilon: float = po.setting(0.03, po.FRACTION, "poison per clean point")
        rounds: int = po.setting(5, po.COUNT, "rounds")

    with pytest.raises(ValueError, match="Mine: epsilon must be a fraction"):
        Mine(epsilon=3.0)


def test_every_name_is_documented_and_listed():
    assert dir(po) == sorted(po.__all__)
    for name in po.__all__:
        thing = getattr(po, name)
        if callable(thing):
            assert first_line(thing), name
