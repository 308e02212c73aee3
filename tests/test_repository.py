"""What the repository promises about itself: pins, stages, stripped sources, honest commands."""

import json
import os
import re
import subprocess
import sys
import tomllib

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from replication import params, paths
from replication.provenance import tracked_notebooks

ROOT = paths.ROOT
NOTEBOOKS = [params.notebook_file(name) for name in sorted(tracked_notebooks())]


def tracked(*patterns):
    listing = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listing.stdout.split()


def test_requirements_are_exact_pins_within_the_declared_ranges():
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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"python{project['requires-python']}" in conda
    assert {re.split("[=<>]", package)[0] for package in conda} <= {"python", "pip", "git", "make"}


def test_the_same_versions_of_python_are_named_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = SpecifierSet(project["requires-python"])
    *first, last = [f"3.{minor}" for minor in range(100) if f"3.{minor}.1" in declared]
    named = f"{', '.join(first)} or {last}"
    assert f"PYTHONS  := {named}\n" in (ROOT / "Makefile").read_text()
    assert f"You need Python {named}, make and git" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("file", "asked"), [("mine.py", False), ("lib/poisoning/mine.py", True)])
def test_docstrings_are_asked_of_the_projects_own_code_only(file, asked):
    lint = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", file, "-"],
        cwd=ROOT, input="def attack():\n    return 1\n", capture_output=True, text=True,
    )  # fmt: skip
    assert ("Missing docstring" in lint.stdout) == asked


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_drawing_is_folded_away(source):
    for number, cell in enumerate(nbformat.read(source, 4).cells):
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 40, f"cell {number}"
            draws = "figure" in cell.metadata.get("tags", [])
            folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            assert draws == folded, f"cell {number}: cells tagged figure have source_hidden"


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
    values.pop("__annotations__", None)
    assert values == {"profile": "demo", **params.load("demo").section(name)}


def test_large_files_data_and_caches_are_not_in_git():
    for name in tracked():
        assert not re.match(r"data/(raw|real|standin)/", name), name
        assert (ROOT / name).stat().st_size < 1_500_000, name


def test_the_commands_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.M))
    for text in ("README.md", "CONTRIBUTING.md", "docs/running.md"):
        used = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / text).read_text(), flags=re.M))
        assert used
        assert used <= targets


def test_names_of_files_and_columns_reach_the_audit_as_they_are(tmp_path):
    given = {"DATA": "a$b c.csv", "LABEL": "price ($)", "NAME": "it's \"x\" `id` $(id)",
             "CLASS": f"$(shell touch {tmp_path}/run)"}  # fmt: skip
    show = "show: ; @printf '%s\\n' $(call given,DATA LABEL NAME CLASS)"
    run = subprocess.run(
        ["make", "--eval", show, "show", *(f"{name}={value}" for name, value in given.items())],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
    )  # fmt: skip
    assert run.stdout.splitlines() == [f"--{name}={value}" for name, value in given.items()]
    assert list(tmp_path.iterdir()) == []


def test_the_index_of_equations_names_code_that_exists():
    text = (ROOT / "docs/equations.md").read_text()
    found = 0
    for line in filter(lambda line: line.startswith("|"), text.splitlines()):
        folder = source = ""
        for word in re.findall(r"`([^`]+)`", line):
            if word.endswith(".py"):
                folder = word.rpartition("/")[0] or folder
                place = ROOT if folder == "bench" else ROOT / "lib"
                source = (place / folder / word.rpartition("/")[2]).read_text()
            else:
                found += 1
                assert re.search(rf"\b(def|class) {word.rpartition('.')[2]}\b", source), word
    assert found > 40


def test_one_name_has_one_number():
    """A metric that several notebooks record is the same quantity, on the same draws."""
    values = {}
    for file in sorted((ROOT / "results/demo").glob("*/*/metrics.json")):
        for name, metric in json.loads(file.read_text("utf-8"))["metrics"].items():
            values.setdefault(name, {})[f"{file.parts[-3]}/{file.parts[-2]}"] = metric["value"]
    shared = {name: found for name, found in values.items() if len(found) > 1}
    assert len(shared) > 20
    assert {name: found for name, found in shared.items() if len(set(found.values())) > 1} == {}
