"""The scripts for outsiders run as they stand, from another folder, and are short."""

import os
import subprocess
import sys

import pytest

from replication import paths

EXAMPLES = sorted((paths.ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_says_what_it_found(script, tmp_path):
    env = os.environ | {"PYTHONPATH": str(paths.ROOT / "lib")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'none': 0." in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_needs_the_public_surface_alone(script):
    text = script.read_text("utf-8")
    assert len(text.splitlines()) <= 30
    assert "import poisoning as po" in text
    assert "from poisoning" not in text


def test_there_is_an_example_for_data_attack_defense_and_learner():
    assert [script.stem for script in EXAMPLES] == [
        "own_attack", "own_data", "own_defense", "own_learner",
    ]  # fmt: skip
