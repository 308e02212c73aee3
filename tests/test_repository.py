"""What the repository promises about itself: pins, stages, stripped sources, honest commands."""

import re
import subprocess
import sys

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from lib.pipeline import params, paths
from lib.pipeline.sources import imported

ROOT = paths.ROOT
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
NOTEBOOKS = sorted(ROOT.glob("notebooks/**/*.ipynb"))


def tracked(*patterns):
    listing = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listing.stdout.split()


def test_requirements_are_exact_pins_within_the_declared_ranges():
    import tomllib

    pins = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        name, version = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line).groups()
        pins[re.sub(r"[-_.]+", "-", name).lower()] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in map(Requirement, declared):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert requirement.specifier.contains(pins[name]), requirement


def test_conda_users_get_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, last = environment["dependencies"]
    assert last == {"pip": ["-r requirements.txt", "-e ."]}
    assert "python=3.11" in conda
    assert {re.split("[=<>]", package)[0] for package in conda} <= {"python", "pip", "git", "make"}


def test_source_notebooks_hold_no_outputs():
    for source in NOTEBOOKS:
        for cell in nbformat.read(source, 4).cells:
            assert not cell.get("outputs"), source
            assert cell.get("execution_count") is None, source


def covers(dependencies, module):
    return any(module == d or module.startswith(f"{d.rstrip('/')}/") for d in dependencies)


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stage_depends_on_what_its_notebook_uses_and_nothing_else(source):
    name = str(source.relative_to(ROOT / "notebooks").with_suffix(""))
    stage = STAGES[name.replace("/", "-")]["do"]
    notebook = nbformat.read(source, 4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    # The runner and the parameter models serve all notebooks: a new knob elsewhere, or a clearer
    # message, must not make every result stale. What shapes a result is named: a paper's module.
    exempt = ("lib/pipeline/", "lib/errors.py")
    of_paper = f"lib/pipeline/{source.parent.name}.py"
    needed = {
        module
        for module in imported(code)
        if module == of_paper or not module.startswith(exempt)
        if not module.endswith("__init__.py")
        # Their effect is the prepared data; but who trains on what is drawn by the notebook.
        and (not module.startswith("lib/datasets/") or module == "lib/datasets/multitask.py")
    }  # fmt: skip
    named = [item for item in stage["deps"] if item.startswith("lib/")]
    assert [module for module in sorted(needed) if not covers(named, module)] == []
    for item in named:
        used = {*needed, "lib/pipeline/notebook.py", "lib/pipeline/claims.py"}
        assert any(covers([item], module) for module in used), f"{item} is not used by {name}"
    assert str(source.relative_to(ROOT)) in stage["deps"]
    if "/" in name:
        knobs = name.replace("/", ".").replace("-", "_")
        has_its_own = bool(params.load("demo").section(name))
        assert (knobs in stage["params"]) == has_its_own


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opened_by_hand_has_the_knobs_of_the_demo(source):
    name = str(source.relative_to(ROOT / "notebooks").with_suffix(""))
    (cell,) = (
        cell
        for cell in nbformat.read(source, 4).cells
        if "parameters" in cell.metadata.get("tags", [])
    )
    values = {}
    exec(cell.source, values)
    del values["__builtins__"]
    assert values == {"profile": "demo", **params.load("demo").section(name)}


def test_every_stage_of_a_profile_is_found_by_its_glob():
    for name, stage in STAGES.items():
        if name.startswith(("koh2021", "zhao2018", "carnerero2023", "wang2021", "scorecard")):
            assert stage["foreach"] == "${profiles}", name


def test_large_files_data_and_caches_are_not_in_git():
    for name in tracked():
        assert not re.match(r"data/(raw|real|standin)/", name), name
        assert (ROOT / name).stat().st_size < 1_500_000, name


def test_the_commands_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.M))
    for text in ("README.md", "CONTRIBUTING.md"):
        used = set(re.findall(r"`?make ([a-z]+)", (ROOT / text).read_text()))
        assert used & targets
        assert {word for word in used if f"`make {word}" in (ROOT / text).read_text()} <= targets


def test_the_layers_hold():
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as l; l()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
