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


    @njit(cache=True)
    def total(x):
        return np.sqrt(x).sum()
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
def test_what_one_process_has_compiled_another_loads(run):
    code = "print(kernels.total(x), sum(kernels.total.stats.cache_hits.values()))"
    assert run(code) == ["3.0", "0"]
    assert run(code) == ["3.0", "1"]


@pytest.mark.slow
def test_what_is_announced_is_written_already(run, tmp_path):
    """A process that dies while it writes code leaves nothing that another would load."""
    killed = """
        import os
        from poisoning import compiled
        compiled._File._save_data = lambda *arguments: os._exit(1)
        kernels.total(x)
    """
    with pytest.raises(subprocess.CalledProcessError):
        run(dedent(killed))
    assert not list(tmp_path.rglob("*.nbi"))
    assert run("print(kernels.total(x))") == ["3.0"]


def test_every_kernel_takes_njit_from_there():
    own = paths.ROOT / "lib" / "poisoning" / "compiled.py"
    for folder in ("lib", "bench"):
        for file in (paths.ROOT / folder).rglob("*.py"):
            if file != own:
                text = file.read_text("utf-8")
                assert not re.search(r"from numba import .*njit|numba\.njit", text), file


def test_no_kernel_is_a_closure():
    kernels = 0
    for folder in ("lib", "bench"):
        for file in (paths.ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text("utf-8"))
            for node in ast.walk(tree):
                if any("njit" in ast.unparse(one) for one in getattr(node, "decorator_list", ())):
                    assert node in tree.body, (file, node.name)
                    kernels += 1
    assert kernels > 50


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
