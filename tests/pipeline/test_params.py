import subprocess
import sys

import pytest
import yaml

from lib.pipeline import params, paths


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
        ("koh2021.kkt.epsilon", 3, "a fraction of the clean training set (not a percentage)"),
        ("koh2021.kkt.epsilon", 0, "above 0"),
        ("koh2021.kkt.epsilon", "3e-2", "write 1.0e-3|1.0e-3, not 1e-3"),
        ("koh2021.kkt.splits", 2.5, "a whole number"),
        ("koh2021.kkt.decoy_quantiles", [0.5, 1.5], "between 0 and 1"),
        ("koh2021.kkt.dataset", "enron2", "it must be enron"),
        ("koh2021.defenses.remove", True, "the fraction removed per class"),
        ("workers.backend", "threads", "serial, loky or dask"),
        ("workers.jobs", 0, "at least 1"),
        ("carnerero2023.networks.sensitivity_draws", 3, "1 to repeats"),
        ("device", "gpu", "auto, cpu or cuda"),
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
    with pytest.raises(params.ParameterError, match="holds no knobs"):
        params.load("demo", file)
    with pytest.raises(params.ParameterError, match="demo, quick, paper"):
        params.load("fast")


def test_the_command_prints_the_sentence_and_no_traceback(edited, monkeypatch, capsys):
    monkeypatch.setattr(paths, "PARAMS", edited("seed", -1))
    assert params.main() == 1
    assert "seed = -1" in capsys.readouterr().err


def test_every_knob_says_what_would_be_right():
    def walk(model, name):
        for field, info in model.model_fields.items():
            inner = info.annotation
            if hasattr(inner, "model_fields"):
                yield from walk(inner, f"{name}.{field}")
            elif "Profile" not in str(inner):
                yield f"{name}.{field}", info.description

    silent = [knob for knob, description in walk(params.Params, "") if not description]
    assert silent == []


def test_a_bad_knob_stops_a_notebook_before_it_starts(edited, tmp_path):
    script = (
        "import sys, pathlib; from lib.pipeline import paths, params, run;"
        f"file = pathlib.Path({str(edited('koh2021.kkt.epsilon', 3))!r});"
        "paths.PARAMS = file;"
        "sys.exit(run.main(['koh2021/kkt', '--profile', 'demo']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert "koh2021.kkt.epsilon = 3" in done.stderr
