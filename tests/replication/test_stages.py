"""The pipeline in DVC's own hands: stale is what must be computed again, and nothing else."""

import ast
import json
import re
import subprocess
import sys

import pytest

from poisoning.datasets.sources import source
from replication import params, paths, stages
from replication.conventions import whole_set
from replication.project import Project
from tests.replication.conftest import SETUP, call, git, write_notebook


@pytest.fixture(scope="module")
def pipeline():
    return stages.Pipeline()


@pytest.mark.slow
def test_dvc_yaml_is_what_the_notebooks_ask_for(pipeline):
    remedy = "dvc.yaml is older than the notebooks: run `python -m replication.stages`"
    assert paths.PIPELINE.read_text(encoding="utf-8") == pipeline.dvc_yaml(), remedy


def test_fingerprints_are_those_of_the_tree(pipeline):
    remedy = "run `dvc repro fingerprints`"
    assert json.loads(paths.FINGERPRINTS.read_text()) == pipeline.fingerprints(), remedy


def test_a_stage_depends_on_the_knobs_of_its_profile_alone(pipeline):
    needs = pipeline.needs("koh2021/attacks")
    assert needs.knobs["demo"]["own"] == params.load("demo").section("koh2021/attacks")
    assert set(needs.knobs["demo"]["shared"]) == {"koh2021/suite"}
    assert needs.knobs_digest("demo") != needs.knobs_digest("paper")


@pytest.mark.parametrize("profile", params.PROFILES)
def test_what_a_notebook_loaded_its_stage_depends_on(pipeline, profile):
    checked = 0
    for name in pipeline.notebooks:
        file = paths.pipeline_results(profile, name) / "provenance.json"
        if file.is_file():
            used = set(map(whole_set, json.loads(file.read_text())["data"]))
            checkable = {data for data in used if source(data).verifiable}
            assert checkable <= set(pipeline.needs(name).data[profile]), name
            checked += 1
    assert checked or profile != "paper"


@pytest.mark.slow
@pytest.mark.parametrize("name", stages.Pipeline().notebooks)
def test_every_headline_of_the_demo_is_whole(name):
    file = paths.pipeline_results("demo", name) / "headline.json"
    assert file.is_file(), "run `make repro` first"
    (finish,) = (
        node
        for cell in Project.of_tree().cells(name)
        for node in ast.walk(ast.parse(cell.code))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "notebook.finish"
    )
    found = set(json.loads(file.read_text()))
    assert {keyword.arg for keyword in finish.keywords if keyword.arg} <= found
    assert 3 <= len(found) <= 6


def test_what_nobody_can_verify_is_no_dependency(pipeline):
    assert not source("dogfish").verifiable
    assert "dogfish" not in pipeline.dvc_yaml()


def test_the_lock_stays_short():
    lines = (paths.ROOT / "dvc.lock").read_text(encoding="utf-8").count("\n")
    assert lines < 5000


# In the small project ----------------------------------------------------------------------


def edit(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def ran(done):
    """The stages that a call of DVC ran."""
    return re.findall(r"Running stage '([^']+)'", done.stdout)


def repro(root, *more):
    return ran(call(root, "dvc", "repro", "--glob", "*@demo", *more))


@pytest.mark.slow
def test_only_what_reaches_an_edit_is_run_again(with_results):
    project = with_results
    assert repro(project) == []
    file = project / "notebooks" / "toy" / "one.ipynb"
    metrics = project / "lib" / "poisoning" / "metrics.py"
    with metrics.open("a", encoding="utf-8") as stream:
        stream.write("\n# a comment\n\n\ndef unused():\n    return 1\n")
    edit(project / "params.yaml", "paper: 4", "paper: 5")
    edit(file, 'color=\\"red\\"', 'color=\\"blue\\"')
    assert repro(project) == ["fingerprints"]
    edit(project / "params.yaml", "demo: 2", "demo: 3")
    assert repro(project) == ["fingerprints", "toy-one@demo"]
    edit(project / "lib" / "replication" / "conventions.py", ":.12g", ":.11g")
    assert repro(project) == ["fingerprints", "toy-one@demo"]
    edit(file, "scale * rng", "2 * scale * rng")
    assert repro(project) == ["fingerprints", "toy-one@demo"]


@pytest.mark.slow
def test_adding_a_notebook_is_the_notebook_and_its_block(with_results):
    project = with_results
    write_notebook(
        project,
        "toy/two",
        (SETUP.replace("toy/one", "toy/two"), 'notebook.metric("a", size)',
         'notebook.finish(clean="a", attacked="a", paper=1.0)'),
        'profile = "demo"\nsize: "Count" = 5',
    )  # fmt: skip
    with (project / "params.yaml").open("a", encoding="utf-8") as stream:
        stream.write("  two:\n    size: 5\n")
    done = call(project, "dvc", "repro", "--glob", "*@demo", check=False)
    assert "dvc.yaml is older than the notebooks" in done.stderr
    call(project, sys.executable, "-m", "replication.stages")
    assert repro(project) == ["fingerprints", "toy-two@demo"]
    changed = git(project, "status", "--porcelain", "--", ".", ":!results", ":!dvc.lock").split(
        "\n"
    )
    assert {line[3:] for line in changed if line} == {
        "dvc.yaml", "params.yaml", "notebooks/toy/two.ipynb"
    }  # fmt: skip


@pytest.mark.slow
def test_a_bad_knob_is_refused_before_anything_is_computed(project):
    done = call(project, "dvc", "exp", "run", "-S", "toy.one.scale=7", "toy-one@demo", check=False)
    assert done.returncode != 0
    told = done.stdout + done.stderr
    assert "toy.one.scale = 7 (profile demo) is not valid: it must be a fraction" in told
    assert "git checkout params.yaml" in told
    assert "replication.run" not in told


@pytest.mark.slow
def test_experiments_take_any_number_and_can_be_compared(with_results):
    project = with_results
    call(project, "dvc", "exp", "run", "-S", "toy.one.scale=3e-05", "toy-one@demo")
    knobs = json.loads(call(project, "dvc", "params", "diff", "--json").stdout)
    difference = {"old": 0.1, "new": 3e-05, "diff": pytest.approx(3e-05 - 0.1)}
    assert knobs["params.yaml"]["toy.one.scale"] == difference
    changed = git(project, "diff", "--unified=0", "params.yaml").splitlines()
    assert [line for line in changed if line[0] in "+-" and line[:3] not in ("+++", "---")] == [
        "-    scale: 0.1 # of what is drawn", "+    scale: 3e-05 # of what is drawn"
    ]  # fmt: skip
    different = json.loads(call(project, "dvc", "metrics", "diff", "--json").stdout)
    (file,) = different
    assert file == "results/demo/toy/one/headline.json"
    assert different[file]["attacked"]["new"] == 3e-05
    git(project, "checkout", "-q", "params.yaml")
    call(project, "dvc", "exp", "run", "--queue", "-S", "toy.one.scale=0.2,0.3", "toy-one@demo")
    run_all = "dvc", "exp", "run", "--run-all", "--jobs", "1"
    try:
        call(project, *run_all, timeout=200)
    except subprocess.TimeoutExpired:  # DVC's worker was once seen to wait without an end
        call(project, "dvc", "queue", "stop", "--kill")
        call(project, *run_all, timeout=200)
    rows = call(project, "dvc", "exp", "show", "--only-changed", "--csv").stdout.splitlines()
    head = rows[0].split(",")
    scale = next(i for i, name in enumerate(head) if name.endswith("toy.one.scale"))
    attacked = next(i for i, name in enumerate(head) if name.endswith("attacked"))
    found = {row.split(",")[scale]: row.split(",")[attacked] for row in rows[1:]}
    assert {"0.2", "0.3"} <= set(found)
    assert all(float(found[value]) == float(value) for value in ("0.2", "0.3"))
    assert len(head) < 25


@pytest.mark.slow
def test_an_experiment_in_a_copy_leaves_the_workspace_alone(with_results):
    project = with_results
    done = call(
        project, "dvc", "exp", "run", "--temp", "-n", "other", "-S", "toy.one.scale=0.2",
        "toy-one@demo",
    )  # fmt: skip
    assert "other" in done.stdout
    assert git(project, "status", "--porcelain") == ""
    different = call(project, "dvc", "metrics", "diff", "HEAD", "other", "--json").stdout
    file = "results/demo/toy/one/headline.json"
    assert json.loads(different)[file]["attacked"]["new"] == 0.2
    experiment = json.loads(call(project, "dvc", "exp", "diff", "HEAD", "other", "--json").stdout)
    assert experiment["metrics"][file]["attacked"]["new"] == 0.2


@pytest.mark.slow
def test_figures_before_and_after_are_shown_and_compared(with_results):
    project = with_results
    edit(project / ".gitignore", "/results/quick/**", "/results/other/**")
    call(project, "dvc", "repro", "toy-one@quick")
    folder = "results/quick/toy/one/figures"
    call(project, "dvc", "plots", "show", folder, "-o", "shown")
    assert list((project / "shown").rglob("*.png"))
    assert ".png" in (project / "shown" / "index.html").read_text(encoding="utf-8")
    git(project, "add", "-A", "--", ".", ":!shown")
    git(project, "commit", "-qm", "results")
    call(project, "dvc", "exp", "run", "-S", "toy.one.scale=0.2", "toy-one@quick")
    call(project, "dvc", "plots", "diff", "HEAD", "--targets", folder, "-o", "page")
    page = (project / "page" / "index.html").read_text(encoding="utf-8")
    pictures = list((project / "page").rglob("*.png"))
    assert len(pictures) == 2
    assert len({picture.read_bytes() for picture in pictures}) == 2
    assert page.count(".png") >= 2


# In this one -------------------------------------------------------------------------------


@pytest.mark.slow
def test_metrics_fit_a_terminal():
    lines = call(paths.ROOT, "dvc", "metrics", "show", COLUMNS="160").stdout.splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) <= 160


def test_every_dvc_command_of_the_readme_is_run_by_a_test():
    text = "".join(
        (paths.ROOT / name).read_text("utf-8")
        for name in (
            "README.md", "CONTRIBUTING.md", "docs/running.md", "docs/how-to.md", "docs/ablations.md"
        )
    )  # fmt: skip
    used = set(re.findall(r"dvc (?:exp |metrics |plots |params )?[a-z]+", text))
    here = (paths.ROOT / "tests/replication/test_stages.py").read_text("utf-8")
    for command in used:
        words = ", ".join(f'"{word}"' for word in command.split())
        assert words in re.sub(r"\s+", " ", here), f"no test runs `{command}`"
