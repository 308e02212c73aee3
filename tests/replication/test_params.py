import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from ruamel.yaml import YAML

from fuzz import params as fuzz_params
from poisoning.datasets import registry
from poisoning.datasets.standins import STANDINS
from replication import params, paths
from replication.contradictions import SIZES
from tests.replication.conftest import write_notebook


@pytest.fixture
def edited(tmp_path):
    """A copy of params.yaml with one knob changed: edited("koh2021.kkt.epsilon", 3)."""

    def edit(knob, value, remove=False):
        content = yaml.safe_load(paths.PARAMS.read_text())
        *path, last = knob.split(".")
        block = content
        for part in path:
            block = block[part]
        if remove:
            del block[last]
        else:
            block[last] = value
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return edit


@pytest.mark.parametrize("profile", params.PROFILES)
def test_the_file_in_the_repository_is_valid(profile):
    params.load(profile)


@pytest.mark.parametrize(
    ("knob", "value", "told"),
    [
        ("koh2021.kkt.epsilon", 3, "a fraction (not a percentage), above 0, at most 0.5"),
        ("koh2021.kkt.epsilon", 0, "above 0"),
        ("koh2021.kkt.epsilon", "three", "a number and not text (no quotes)"),
        ("koh2021.kkt.splits", 2.5, "a whole number"),
        ("koh2021.kkt.quantiles", [0.5, 1.5], "between 0 and 1"),
        ("koh2021.kkt.dataset", "enron2", "it must be enron"),
        ("koh2021.defenses.remove", True, "a fraction"),
        ("workers.backend", "threads", "serial, loky or dask"),
        ("workers.jobs", 0, "1 to 1024"),
        ("carnerero2023.networks.sensitivity_draws", 3, "must be at most repeats"),
        ("device", "gpu", "auto, cpu or cuda"),
        (
            "koh2021.matrix.more_attacks",
            ["poisoning.KKT", "my_typo.Mine(epsilon=3)"],
            "there is no module my_typo, installed or below lib/.",
        ),
        (
            "koh2021.matrix.more_defenses",
            ["sklearn.svm.SVC", "sklearn.ensemble.NoSuchThing"],
            "there is no class or function NoSuchThing in sklearn.ensemble.",
        ),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence(edited, knob, value, told):
    with pytest.raises(params.ParameterError) as refusal:
        params.load("quick", edited(knob, value))
    message = str(refusal.value)
    assert knob in message
    shown = value[1] if isinstance(value, list) else value
    assert repr(shown) in message
    assert any(part in message for part in told.split("|"))
    assert "\n" not in message


def test_an_unknown_knob_is_refused_and_the_near_one_named(edited):
    with pytest.raises(params.ParameterError, match=r"koh2021\.kkt\.epsilom.*mean epsilon"):
        params.load("demo", edited("koh2021.kkt.epsilom", 0.03))


def test_a_missing_knob_is_named(edited):
    with pytest.raises(params.ParameterError, match=r"koh2021\.kkt\.epsilon is missing"):
        params.load("demo", edited("koh2021.kkt.epsilon", None, remove=True))


def test_a_profile_that_is_wrong_only_in_one_profile_is_named(edited):
    file = edited("koh2021.kkt.splits", {"quick": 2, "paper": 0})
    params.load("demo", file)
    with pytest.raises(params.ParameterError, match="profile paper"):
        params.load("paper", file)


def test_demo_falls_back_to_quick_and_scalars_hold_everywhere():
    knob = {"a": {"quick": 1, "paper": 2}, "b": {"demo": 0, "quick": 1, "paper": 2}, "c": 7}
    assert params.resolve(knob, "demo") == {"a": 1, "b": 0, "c": 7}
    assert params.resolve(knob, "paper") == {"a": 2, "b": 2, "c": 7}


def test_broken_yaml_and_unknown_profiles_are_one_sentence(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("a: [1\nb: 2")
    with pytest.raises(params.ParameterError, match="not valid YAML"):
        params.load("demo", file)
    file.write_text("")
    with pytest.raises(params.ParameterError, match="holds None and no knobs"):
        params.load("demo", file)
    with pytest.raises(params.ParameterError, match="demo, quick, paper"):
        params.load("fast")


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-05", 3e-5), ("1e-3", 1e-3), ("1.0e-3", 1e-3), ("0.03", 0.03), ("1E-2", 0.01)],
)
@pytest.mark.slow
def test_numbers_are_read_as_dvc_writes_them(tmp_path, text, value):
    file = tmp_path / "params.yaml"
    file.write_text(paths.PARAMS.read_text().replace("more_lambda: 0.01", f"more_lambda: {text}"))
    assert params.load("demo", file).section("koh2021/matrix")["more_lambda"] == value
    assert YAML(typ="safe", pure=True).load(file) == params.read_yaml(file)


@pytest.mark.parametrize("word", ["010", "20:21", "1_000", "0o17", "0x1F", "yes", "Off", "-007"])
def test_what_readers_of_yaml_disagree_on_is_refused(tmp_path, word):
    """``seed: 010`` was 8 for the code and 10 for ``dvc params diff``."""
    file = tmp_path / "params.yaml"
    file.write_text(paths.PARAMS.read_text().replace("seed: 2021", f"seed: {word}"))
    with pytest.raises(
        params.ParameterError, match=f"line 6, has the word {word}, which means different"
    ):
        params.load("demo", file)


def test_readers_agree_on_every_word_of_the_file():
    with paths.PARAMS.open(encoding="utf-8") as stream:
        old = yaml.safe_load(stream)
    assert old == params.read_yaml(paths.PARAMS)
    assert old == YAML(typ="safe", pure=True).load(paths.PARAMS)  # as DVC reads it


def test_a_knob_that_stands_twice_is_refused(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(paths.PARAMS.read_text() + "seed: 3\n")
    with pytest.raises(params.ParameterError, match=r"line [0-9]+, has the key 'seed' again"):
        params.load("demo", file)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("seed: 1 # λ is å".encode().replace("å".encode(), b"\xe5"))
    for file, told in (
        (latin, "is not a text in UTF-8"),
        (tmp_path, "cannot be read"),
        (tmp_path / "missing.yaml", "cannot be read"),
    ):
        with pytest.raises(params.ParameterError, match=told):
            params.load("demo", file)


@pytest.mark.slow
def test_a_notebook_brings_the_kinds_of_its_knobs(inside):
    """Nothing but the notebook and its block says what a knob may be."""
    assert params.load("quick").section("toy/one") == {"scale": 0.1, "repeats": 3}
    text = (inside / "params.yaml").read_text()
    (inside / "params.yaml").write_text(text.replace("scale: 0.1", "scale: 7"))
    with pytest.raises(params.ParameterError, match=r"toy\.one\.scale = 7 .*a fraction"):
        params.load("quick")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ('x: "Fractoin" = 0.1', "no kind of knob: use one of Fraction"),
        ("x = 0.1", "must give a knob its kind"),
        ('x: "list[Count" = 1', "no kind of knob"),
        ('x: "set[Count]" = 1', "no kind of knob"),
        ("print(1)", "must give a knob its kind"),
        ('x: "Count" = print(1)', "must give a knob its kind"),
        ('x: "Count"', "must give a knob its kind"),
        ('x: "list[Count, 1]" = {[1]: 2}', "must give a knob its kind"),
        ('x: "Literal[{[1]: 2}]" = 1', "no kind of knob"),
        ("assert 1 < 2, 'so'", "must compare knobs and say"),
        ('x: "Count" = 1\nassert x < 2', "must compare knobs and say"),
        ('x: "Count" = 1\nassert exit(x), "so"', "must compare knobs and say"),
        ('x: "Count" = 1\nassert x.real < 2, "so"', "must compare knobs and say"),
        ('x: "Count" = (', "is no Python"),
    ],
)
def test_a_cell_of_parameters_that_says_no_kind_is_refused(inside, source, told):
    file = params.notebook_file("toy/one")
    notebook = json.loads(file.read_text())
    cell = next(c for c in notebook["cells"] if c["metadata"].get("tags") == ["parameters"])
    cell["source"] = f'profile = "demo"\n{source}'
    file.write_text(json.dumps(notebook))
    with pytest.raises(params.ParameterError, match=told):
        params.load("demo")


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("list[Count]", [1], []),
        ("list[Count, 0]", [], [0]),
        ("list[Digit, 2, 2]", [1, 7], [1, 2, 3]),
        ("Literal['a', 'b']", "b", "c"),
        ("list[Literal['a', 'b']]", ["a"], ["c"]),
        ("Flag", True, 1),
        ("Examples", 10, 11),
        ("Range", {"start": 0.0, "low": -1.0, "high": 1.0}, {"start": 0.0}),
    ],
)
def test_kinds_take_what_they_say(kind, right, wrong):
    model = params.block("Toy", {"x": kind})
    assert model.model_validate({"x": right}).model_dump()["x"] == right
    with pytest.raises(ValueError, match="x"):
        model.model_validate({"x": wrong})
    assert params.knob(kind)[1].description


def test_the_file_is_in_the_form_that_dvc_writes(tmp_path):
    """``dvc exp run -S`` rewrites the file: it changes the line of the knob and no other."""
    from dvc.utils.hydra import apply_overrides

    file = tmp_path / "params.yaml"
    before = paths.PARAMS.read_text(encoding="utf-8")
    file.write_text(before, encoding="utf-8")
    apply_overrides(str(file), ["koh2021.kkt.epsilon=3e-5"])
    after = file.read_text(encoding="utf-8")
    different = [
        (a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b
    ]
    assert len(different) == 1
    assert YAML(typ="safe", pure=True).load(after)["koh2021"]["kkt"]["epsilon"] == 3e-5


def test_the_command_prints_the_sentence_and_no_traceback(edited, monkeypatch, capsys):
    monkeypatch.setattr(paths, "PARAMS", edited("seed", -1))
    assert params.main([]) == 1
    assert "seed = -1" in capsys.readouterr().err


def test_a_refused_value_is_told_how_to_get_rid_of(inside, capsys):
    text = (inside / "params.yaml").read_text()
    (inside / "params.yaml").write_text(text.replace("scale: 0.1", "scale: 7"))
    assert params.main([]) == 1
    assert "(`git checkout params.yaml` takes back" in capsys.readouterr().err


def test_a_file_that_is_gone_and_a_missing_git_are_one_sentence(inside, monkeypatch, capsys):
    text = (inside / "params.yaml").read_text()
    (inside / "params.yaml").unlink()
    assert params.main([]) == 1
    assert "(`git checkout params.yaml` takes back" in capsys.readouterr().err
    (inside / "params.yaml").write_text(text.replace("scale: 0.1", "scale: 7"))
    monkeypatch.setenv("PATH", str(inside))
    assert params.main([]) == 1
    told = capsys.readouterr().err
    assert "toy.one.scale = 7" in told
    assert told.count("\n") == 1


def test_a_folder_without_notebooks_needs_no_block(inside):
    (inside / "notebooks" / "scratch").mkdir()
    assert params.load("quick").section("toy/one") == {"scale": 0.1, "repeats": 3}


def test_every_knob_says_what_would_be_right():
    def walk(model, name):
        for field, info in model.model_fields.items():
            inner = info.annotation
            if hasattr(inner, "model_fields"):
                yield from walk(inner, f"{name}.{field}")
            elif "Profile" not in str(inner):
                yield f"{name}.{field}", info.description

    model = params._model(params.read_yaml(paths.PARAMS))
    silent = [knob for knob, description in walk(model, "") if not description]
    assert silent == []


@pytest.mark.slow
def test_a_bad_knob_stops_a_notebook_before_it_starts(edited, tmp_path):
    script = (
        "import sys, pathlib; from replication import paths, params, run;"
        f"file = pathlib.Path({str(edited('koh2021.kkt.epsilon', 3))!r});"
        "paths.PARAMS = file;"
        "sys.exit(run.main(['koh2021/kkt', '--profile', 'demo']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert "koh2021.kkt.epsilon = 3" in done.stderr


@pytest.mark.slow
def test_knobs_of_a_notebook_that_contradict_each_other_are_refused(inside):
    """An assertion in the cell of parameters says what knobs must fulfil together."""
    knobs = 'profile = "demo"\nscale: "Fraction" = 0.1\nrepeats: "Count" = 2\n'
    write_notebook(inside, knobs=knobs + 'assert repeats * scale < 0.35, "all must be little"')
    assert params.load("quick").section("toy/one") == {"scale": 0.1, "repeats": 3}
    with pytest.raises(
        params.ParameterError,
        match=r"toy\.one\.repeats = 4 and toy\.one\.scale = 0\.1 \(profile paper\).*must be little",
    ):
        params.load("paper")


def test_a_step_that_is_taken_anyway_is_no_other_step(edited):
    file = edited("wang2021.two_layer.step", 0.25)
    with pytest.raises(params.ParameterError, match="other_steps must not hold step"):
        params.load("demo", file)


def test_a_block_of_knobs_that_is_missing_is_named(edited):
    with pytest.raises(params.ParameterError, match=r"wang2021\.width is missing .*widths, seeds"):
        params.load("demo", edited("wang2021.width", None, remove=True))


@pytest.mark.parametrize(
    ("knob", "value", "told"),
    [
        ("carnerero2023.attack.recipes.mnist.steps", 0, "it must be a whole number, 1 to 1000"),
        ("carnerero2023.attack.recipes.mnist.stepz", 3, "did you mean steps"),
        ("carnerero2023.networks.rate.mnits", 0.1, "did you mean mnist"),
        ("wang2021.width.recipes.mnist.rate", -1, "a step length above 0"),
        ("wang2021.width", 3, "a mapping with the knobs datasets, test"),
        ("koh2021", None, "a mapping with the blocks"),
    ],
)
def test_what_is_wrong_inside_a_mapping_is_named(edited, knob, value, told):
    with pytest.raises(params.ParameterError, match=told) as refusal:
        params.load("demo", edited(knob, value))
    assert knob in str(refusal.value)


@pytest.mark.slow
def test_random_invalid_files_are_refused_in_one_sentence():
    """`make fuzz` tries as many as its time allows; each of these kinds is among them."""
    found = fuzz_params.run(seed=7, count=100)
    assert found["samples"] == []
    assert found["refused"] == found["tried"] == 100
    assert all(found["by_kind"].values())


@pytest.mark.slow
def test_every_known_contradiction_is_refused(tmp_path):
    file, source = tmp_path / "params.yaml", fuzz_params.Source()
    for named, changes in fuzz_params.PAIRS:
        mutation = fuzz_params.together(source, changes, named)
        file.write_bytes(mutation.raw)
        assert fuzz_params.fault(file, mutation.named)[0] == "refused", changes


def test_the_sizes_that_knobs_are_compared_with_are_those_of_the_data():
    for name, size in SIZES["real"].items():
        variants = registry()[name].variants.values()
        assert size.d == max(variant.d for variant in variants), name
        assert sum(size.train) == max(variant.n for variant in variants), name
        assert sum(size.test) == max(variant.n_test for variant in variants), name


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES["standin"])
def test_the_sizes_that_knobs_are_compared_with_are_those_of_the_standins(name):
    made, size = STANDINS[name].make(), SIZES["standin"][name]
    assert made.X.shape == (sum(size.train), size.d)
    if len(size.train) > 1:
        assert sorted(np.unique(made.y, return_counts=True)[1]) == sorted(size.train)
    if size.test:
        assert tuple(np.bincount(made.y_test)) == size.test


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "params.yaml")
    with pytest.raises(params.ParameterError, match="it is no file"):
        params.load("demo", tmp_path / "params.yaml")
