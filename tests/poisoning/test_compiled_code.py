"""Compiled code that several processes keep on disk for each other."""

import ast
import os
import re
import subprocess
import sys
from textwrap import dedent

import pytest

from poisoning.compiled import njit
from replication import paths

MODULE = """
    import numpy as np
    from poisoning.compiled import njit


    def multiply_by(factor):
        @njit(cache=True, name=f"multiply_by_{factor:g}")
        def multiply(x):
            total = 0.0
            for row in np.sort(x.reshape(-1, 3).T.copy().ravel()).reshape(-1, 3):
                total += factor * np.sqrt(np.sort(row)).sum()  # too long to be inlined
            return total

        return multiply


    once, twice = multiply_by(1.0), multiply_by(2.0)


    @njit(cache=True)
    def by_one(x):
        return once(x)


    @njit(cache=True)
    def by_two(x):
        return twice(x)
"""


@pytest.fixture
def run(tmp_path):
    """Runs code in a process of its own, in which ``kernels`` can be imported."""
    (tmp_path / "kernels.py").write_text(dedent(MODULE))
    python_path = os.pathsep.join([str(tmp_path), str(paths.ROOT / "lib")])

    def run(code):
        code = f"import numpy as np, kernels\nx = np.ones(3)\n{code}"
        return subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": python_path},
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip

    return run


@pytest.mark.slow
def test_closures_kept_by_different_processes_are_not_taken_for_each_other(run):
    assert run("print(kernels.by_one(x))") == ["3.0"]
    assert run("print(kernels.by_two(x))") == ["6.0"]
    both = "print(kernels.by_one(x), kernels.by_two(x))"
    assert run(both) == ["3.0", "6.0"]
    hits = "print(*(sum(f.stats.cache_hits.values()) for f in (kernels.by_one, kernels.by_two)))"
    assert run(f"{both}\n{hits}") == ["3.0", "6.0", "1", "1"]


@pytest.mark.slow
def test_what_is_announced_is_written_already(run, tmp_path):
    """A process that dies while it writes code leaves nothing that another would load."""
    killed = """
        import os
        from poisoning import compiled
        compiled._File._save_data = lambda *arguments: os._exit(1)
        kernels.by_one(x)
    """
    with pytest.raises(subprocess.CalledProcessError):
        run(dedent(killed))
    assert not list(tmp_path.rglob("*.nbi"))
    assert run("print(kernels.by_one(x))") == ["3.0"]


def decorated():
    """Every function with an ``njit``: its file, its decorator, whether it is a closure."""
    for folder in ("lib", "bench"):
        for file in (paths.ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text("utf-8"))
            top = set(tree.body)
            for node in ast.walk(tree):
                for decorator in getattr(node, "decorator_list", ()):
                    if "njit" in ast.unparse(decorator):
                        yield file, decorator, node not in top


def test_every_kernel_takes_njit_from_there():
    own = paths.ROOT / "lib" / "poisoning" / "compiled.py"
    for folder in ("lib", "bench"):
        for file in (paths.ROOT / folder).rglob("*.py"):
            if file != own:
                text = file.read_text("utf-8")
                assert not re.search(r"from numba import .*njit|numba\.njit", text), file


def test_every_closure_has_a_name_of_its_own():
    names = []
    for file, decorator, closure in decorated():
        given = [k.value for k in decorator.keywords if k.arg == "name"]
        assert bool(given) == closure, (file, ast.unparse(decorator))
        names += map(ast.unparse, given)
    assert len(names) == len(set(names)) == 0  # none is left


def test_nothing_of_numba_is_changed():
    code = (
        "from numba.core import caching, bytecode\n"
        "before = caching.IndexDataCacheFile, bytecode.FunctionIdentity._unique_ids\n"
        "import poisoning.hypergradient.logistic_kernels, poisoning.models.svm_kernels\n"
        "assert before == (caching.IndexDataCacheFile, bytecode.FunctionIdentity._unique_ids)\n"
    )
    env = os.environ | {"PYTHONPATH": str(paths.ROOT / "lib")}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_kernels_are_compiled_where_no_folder_can_keep_them(monkeypatch):
    """A read-only checkout of a user without a home."""
    from numba.core.caching import CompileResultCacheImpl

    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])

    @njit()
    def twice(x):
        return 2 * x

    assert twice(21) == 42


def test_kernels_are_compiled_where_the_disk_is_full(monkeypatch, tmp_path):
    from numba.core.caching import IndexDataCacheFile

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "_save_data", full)

    @njit()
    def thrice(x):
        return 3 * x

    assert thrice(14) == 42
