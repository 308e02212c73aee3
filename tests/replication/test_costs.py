"""The table of CPU hours."""

import json

import pytest

from replication import costs
from replication.units import write_table


@pytest.fixture
def computed(inside):
    """Two notebooks' worth of units in a copy of the small project."""
    spent = {"toy/one": {"draws": (360.0, 36.0), "fits": (7200.0,)}}
    for name, kinds in spent.items():
        rows = [
            {
                "label": label, "index": index, "key": f"{index:032x}", "function": "f",
                "fingerprint": "f", "arguments": "a", "commit": "c", "dirty": False,
                "cpu_seconds": seconds, "cpu": "one", "adopted": None,
            }
            for label, many in kinds.items()
            for index, seconds in enumerate(many)
        ]  # fmt: skip
        folder = inside / "results" / "paper" / name
        folder.mkdir(parents=True)
        write_table(folder, rows)
    return inside


def test_hours_add_up_by_notebook_and_kind_dearest_first(computed, capsys):
    assert costs.main([]) == 0
    written = json.loads((computed / "results" / "costs.json").read_text())
    assert written == {
        "toy/one": {
            "cpu_hours": 2.11,
            "units": 3,
            "machine": "one",
            "kinds": {
                "fits": {"cpu_hours": 2.0, "units": 1},
                "draws": {"cpu_hours": 0.11, "units": 2},
            },
        }
    }
    assert list(written["toy/one"]["kinds"]) == ["fits", "draws"]
    assert "2.110      3 in all" in capsys.readouterr().out


def test_another_profile_is_only_printed(computed, capsys):
    assert costs.main(["--profile", "quick"]) == 1
    assert "no units of the profile quick" in capsys.readouterr().out
    assert not (computed / "results" / "costs.json").exists()


def test_a_damaged_table_is_one_sentence(computed, capsys):
    table = computed / "results" / "paper" / "toy" / "one" / "units.csv"
    table.write_text(table.read_text()[:-30])
    assert costs.main([]) == 1
    assert "is no whole table of units" in capsys.readouterr().err


def test_a_disk_that_is_full_is_one_sentence(computed, full_disk, capsys):
    assert costs.main([]) == 1
    told = capsys.readouterr().err
    assert "costs.json cannot be written (disk full)" in told
    assert told.count("\n") == 1
