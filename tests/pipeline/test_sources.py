import sys

import pytest

from lib.attacks.suite import launch_on_split
from lib.pipeline import paths, sources

SCALE = 2.0


def scaled(x):
    return SCALE * doubled(x)


def doubled(x):
    return 2 * x.real


def tripled(x):
    return 3 * x


real = "a global with the name of an attribute that doubled reads"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of four modules; a notebook of it has imported the first three."""
    texts = {
        "lib/__init__.py": "",
        "lib/a.py": "from lib.b import g",
        "lib/b.py": "import lib.c",
        "lib/c.py": "",
        "lib/d.py": "import lib.a",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def test_imports_are_followed(project):
    assert sources.imported("import lib.a") == {f"lib/{name}.py" for name in "abc"}
    assert sources.imported("from lib import c, nothing\nimport numpy") == {
        "lib/__init__.py",
        "lib/c.py",
    }


@pytest.fixture
def loaded(project, monkeypatch):
    for name in [name for name in sys.modules if name == "lib" or name.startswith("lib.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lib.a", sys)
    return project


@pytest.mark.parametrize(("module", "matters"), [("a", True), ("c", True), ("d", False)])
def test_only_code_in_reach_changes_the_fingerprint(loaded, module, matters):
    before = sources.fingerprint(scaled)
    with (loaded / f"lib/{module}.py").open("a") as file:
        file.write("\nx = 1\n")
    assert (sources.fingerprint(scaled) != before) == matters


def test_a_unit_of_the_library_is_filed_under_its_own_imports():
    files = sources.imported("import lib.attacks.suite")
    assert {"lib/attacks/kkt.py", "lib/feasible/solver.py", "lib/defenses/spectrum.py"} <= files
    assert "lib/attacks/certificate.py" not in files
    assert sources.fingerprint(launch_on_split) == sources.fingerprint(launch_on_split)


@pytest.mark.parametrize(("name", "other"), [("SCALE", 3.0), ("doubled", tripled)])
def test_functions_and_constants_beside_a_unit_are_part_of_it(name, other, monkeypatch):
    before = sources.fingerprint(scaled)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], name, other)
        assert sources.fingerprint(scaled) != before
    assert sources.fingerprint(scaled) == before


def test_a_global_that_only_shares_an_attributes_name_is_not(monkeypatch):
    before = sources.fingerprint(scaled)
    monkeypatch.setattr(sys.modules[__name__], "real", "another")
    assert sources.fingerprint(scaled) == before
