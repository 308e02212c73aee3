"""Damaged files, nonsense in the environment: one sentence, never a traceback."""

import json
import shutil
import subprocess
import sys

import pytest

from fuzz import files
from replication import claims, params, paths, verify
from replication.claims import ClaimsError
from replication.reading import ReadingError, is_set, read_result
from replication.units import read_table, write_table

ROOT = paths.ROOT


@pytest.mark.slow
def test_damaged_files_are_refused_or_read_as_what_they_were():
    """`make fuzz` tries as many as its time allows; each of these kinds is among them."""
    found = files.run(seed=11, count=600)
    assert found["samples"] == []
    assert found["refused"] + found["right"] == found["tried"] == 600
    assert all(found["by_kind"].values())
    assert found["memory_mb"] < 700


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"metrics": {"a": {"value": "x"}}}'])
def test_damaged_metrics_are_told_with_the_way_to_renew_them(inside, text):
    file = inside / "results/quick/toy/one/metrics.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(ReadingError, match=r"metrics.json is damaged.*dvc repro toy-one@quick"):
        claims.metrics("quick", "toy/one")


def test_a_table_of_units_that_was_cut_off_is_refused(tmp_path):
    row = dict.fromkeys(
        ("label", "function", "fingerprint", "arguments", "commit", "cpu"), "x"
    )  # fmt: skip
    row |= {"index": 0, "key": "0" * 32, "dirty": False, "cpu_seconds": 0.5, "adopted": None}
    write_table(tmp_path, [row, row | {"index": 1}])
    whole = (tmp_path / "units.csv").read_text()
    assert [found["index"] for found in read_table(tmp_path)] == [0, 1]
    for cut in (whole[:-20], whole.replace("index", "number"), "\0" * 9, whole + '"'):
        (tmp_path / "units.csv").write_text(cut)
        with pytest.raises(ReadingError, match="no whole table of units"):
            read_table(tmp_path)


@pytest.mark.parametrize("text", ["", "a: 1", "- [1, 2", "- &a {id: 1}", "- 3", "- {id: 1}"])
def test_a_broken_list_of_claims_is_one_sentence(tmp_path, text):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(ClaimsError, match=r"claims\.yaml") as refusal:
        claims.load_claims(tmp_path / "claims.yaml")
    assert "\n" not in str(refusal.value)


def test_a_flag_is_1_or_not_set(monkeypatch):
    for value, said in (("1", True), ("0", False), ("", False), (" 1 ", True)):
        monkeypatch.setenv("FLAG", value)
        assert is_set("FLAG") is said
    for value in ("no", "true", "2", "yes", "-1"):
        monkeypatch.setenv("FLAG", value)
        with pytest.raises(ReadingError, match=f"FLAG = '{value}' must be 1"):
            is_set("FLAG")


def test_a_result_is_read_into_a_form(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": 3}))
    assert read_result(tmp_path / "a.json", lambda found: found["a"], "again") == 3
    with pytest.raises(ReadingError, match=r"b\.json is damaged.*FileNotFoundError.*: again\."):
        read_result(tmp_path / "b.json", dict, "again")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("JOBS=x", 'JOBS="x" must be a whole number'), ("JOBS=0", "must be 1 or more"),
        ("JOBS=1.5", "must be a whole number"), ("SAMPLE=-3", "must be a whole number"),
        ("SEED=1 2", "must be a whole number"), ("PROFILE=demo quick", "There is no profile"),
        ("PROFILE=%", "There is no profile"), ("PROFILE=", "There is no profile"),
        ("PYTHON=", "3.11, 3.12 or 3.13 is needed, none was found"),
    ],
)  # fmt: skip
def test_make_refuses_nonsense_before_it_does_anything(tmp_path, setting, told):
    done = subprocess.run(
        ["make", f"VENV={tmp_path / 'none'}", setting, "setup"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "none").exists()


def make_setup(tmp_path, found, *options):
    """``make setup`` where no other interpreters are found than these: name → version."""
    (tmp_path / "bin").mkdir()
    for name, version in found.items():
        file = tmp_path / "bin" / name
        file.write_text(
            f"""#!/bin/sh
exec {sys.executable} -c 'import platform, sys
sys.version_info, platform.python_version = {version}, lambda: "{".".join(map(str, version))}"
exec(sys.argv[1])' "$2"
"""
        )
        file.chmod(0o755)
    return subprocess.run(
        [shutil.which("make"), *options, f"VENV={tmp_path / 'none'}", "setup"],
        cwd=ROOT, env={"PATH": str(tmp_path / "bin")}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        ({"python3": (3, 14, 0), "python3.13": (3, 13, 1)}, "python3.13"),
        ({"python3": (3, 12, 3)}, "python3"),
        ({"python3.13": (3, 13, 0), "python3.12": (3, 12, 0)}, "python3.12"),
        ({"python3.11": (2, 7, 0), "python3.12": (3, 12, 0)}, "python3.12"),  # does not run
    ],
)
def test_make_takes_the_first_python_that_the_pins_are_for(tmp_path, found, taken):
    planned = make_setup(tmp_path, found, "-n")
    assert planned.returncode == 0, planned.stderr
    assert f"\n{taken} -m venv " in planned.stdout


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0)])
def test_make_refuses_another_python_in_one_sentence(tmp_path, version):
    done = make_setup(tmp_path, {"python3": version})
    assert done.returncode == 2
    assert done.stdout == (
        f"Python 3.11, 3.12 or 3.13 is needed, and {tmp_path / 'bin' / 'python3'} is "
        f"{'.'.join(map(str, version))}: install one, or say where it is by "
        "make PYTHON=/path/to/python3\n"
    )
    assert not (tmp_path / "none").exists()


def test_commands_refuse_what_they_do_not_know(capsys):
    asked = {params.main: ["more"], verify.main: ["--sample", "0"]}
    for command, arguments in asked.items():
        with pytest.raises(SystemExit) as refusal:
            command(arguments)
        assert refusal.value.code == 2
        assert arguments[-1] in capsys.readouterr().err.splitlines()[-1]
