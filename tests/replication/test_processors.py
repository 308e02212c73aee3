"""Numbers on other processors: what moved is found, and held against the intervals."""

import json
import sys

import pytest

from replication import processors
from tests.replication.conftest import COMPUTE, FINISH, SETUP, call, write_notebook


def metric(value, ci95=None):
    return {"value": value, "ci95": ci95, "n": 1 if ci95 is None else 4}


def test_a_difference_is_held_against_half_the_interval():
    here = {
        "a": metric(0.5, [0.4, 0.6]),
        "b": metric(0.5, [0.4, 0.6]),
        "c": metric(0.5, [0.4, 0.6]),
    }
    there = {"a": metric(0.55), "b": metric(0.3), "c": metric(0.5)}
    found = processors.differences(here, there)
    assert found["moved"] == 2
    assert [row["metric"] for row in found["beyond"]] == ["b"]
    assert found["worst"]["metric"] == "b"
    assert found["worst"]["ratio"] == pytest.approx(2.0)
    assert found["no_interval"] == []
    assert "2 of 3 metrics moved, at worst by 2 of its interval" in processors.summary(found)


def test_without_an_interval_only_rounding_is_the_same():
    here = {"a": metric(0.5), "b": metric(1000.0), "c": metric(0.0, [0.0, 0.0]), "d": metric(0.0)}
    there = {"a": metric(0.5 + 1e-9), "b": metric(999.0), "c": metric(0.1), "d": metric(0.0)}
    found = processors.differences(here, there)
    assert [row["metric"] for row in found["no_interval"]] == ["b", "c"]
    assert found["moved"] == 3
    assert found["worst"] is None
    assert "without an interval 2, at worst by 1 (b)" in processors.summary(found)


def test_other_metrics_are_no_difference_of_rounding():
    with pytest.raises(processors.ProcessorError, match="the metric b is missing"):
        processors.differences({"a": metric(0.0)}, {"a": metric(0.0), "b": metric(0.0)})


def test_a_disk_that_is_full_is_one_sentence(full_disk, monkeypatch, capsys):
    monkeypatch.setattr(processors, "metrics", lambda name, processor: {"a": metric(0.5)})
    assert processors.main(["toy/one", "--as", "sse"]) == 1
    told = capsys.readouterr().err
    assert "processors.json cannot be written (disk full)" in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_a_notebook_runs_as_on_another_processor_and_what_moves_is_told(project):
    cell = (
        "import os\n"
        "from numpy._core._multiarray_umath import __cpu_features__ as features\n"
        "notebook.metric('toy.wide', float(features['X86_V3']))\n"
        "notebook.metric('toy.other', float('NUMBA_CPU_NAME' in os.environ))"
    )
    write_notebook(project, cells=(SETUP, COMPUTE, cell, FINISH))
    command = (sys.executable, "-m", "replication.processors", "toy/one", "--as", "sse")
    done = call(project, *command)
    assert "without an interval" in done.stdout
    found = json.loads((project / "results" / "processors.json").read_text())["toy/one"]["sse"]
    moved = {row["metric"] for row in found["no_interval"]}
    assert {"toy.other"} <= moved <= {"toy.other", "toy.wide"}
    assert found["metrics"] == 4
