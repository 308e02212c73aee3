"""Verification: equal is said of what is equal, and a refactoring is adopted only on evidence."""

import json

import pytest

from replication import records, run, units, verify

pytestmark = pytest.mark.slow


@pytest.fixture
def computed(inside_with_results):
    """The small project with its demo's units on record."""
    return inside_with_results


def edit(root, old, new, file="notebooks/toy/one.ipynb"):
    path = root / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def rows(root):
    return units.read_table(root / "results" / "demo" / "toy" / "one")


def test_units_computed_again_are_equal(computed):
    assert verify.main(["--profile", "demo", "--sample", "2", "--seed", "1"]) == 0
    found = json.loads((computed / "results" / "verify.json").read_text())
    assert found["counts"] == {"equal": 2}
    assert found["on_record"] == 2
    assert found["skipped"] == []
    assert {line["key"] for line in found["units"]} == {row["key"] for row in rows(computed)}


def test_a_record_that_was_tampered_with_is_found(computed, capsys):
    file = units.unit_file(rows(computed)[0]["key"])
    about, result = records.read(file)
    records.write(file, about, result * 1.001)
    assert verify.main(["--profile", "demo", "--sample", "2"]) == 1
    found = json.loads((computed / "results" / "verify.json").read_text())
    assert found["counts"] == {"equal": 1, "different": 1}
    told = capsys.readouterr().out
    assert "different by 0.001 at result" in told
    records.write(file, about, result * (1 + 1e-9))
    assert verify.main(["--profile", "demo", "--sample", "2"]) == 0
    assert "within tolerance by 1e-09" in capsys.readouterr().out


def test_code_or_knobs_that_have_changed_since_are_not_called_equal(computed, capsys):
    edit(computed, "scale * rng", "2 * scale * rng")
    assert verify.main(["--profile", "demo", "--sample", "1"]) == 1
    assert "not compared: its code has changed" in capsys.readouterr().out
    edit(computed, "2 * scale * rng", "scale * rng")
    edit(computed, "scale: 0.1", "scale: 0.2", "params.yaml")
    assert verify.main(["--profile", "demo", "--sample", "1"]) == 1
    assert "not compared: scale is 0.2 now and was 0.1" in capsys.readouterr().out


def test_units_that_a_clone_lacks_are_computed(computed, capsys):
    """Git keeps some records only; a unit that is verified may come after others."""
    lost = units.unit_file(rows(computed)[0]["key"])
    lost.unlink()
    assert verify.main(["--profile", "demo", "--sample", "2"]) == 0
    found = json.loads((computed / "results" / "verify.json").read_text())
    assert found["counts"] == {"equal": 1}
    assert found["on_record"] == 1
    assert "1 others are not in this clone" in capsys.readouterr().out
    assert lost.is_file()


def test_a_unit_that_occurs_twice_is_compared_once(inside, capsys):
    again = "notebook.map(draw, {0: units[0]}, 'first')"
    edit(inside, "range(repeats)}", f"range(repeats)}}\\n{again}")
    run.run_notebook("toy/one", "demo")
    assert len(rows(inside)) == 3
    assert verify.main(["--profile", "demo", "--sample", "3"]) == 0
    found = json.loads((inside / "results" / "verify.json").read_text())
    assert found["counts"] == {"equal": 2}
    assert found["skipped"] == []


def test_a_notebook_that_does_not_exist_is_said_so(inside, capsys):
    assert verify.main(["--notebook", "toy/won"]) == 1
    assert "there is no notebook 'toy/won'" in capsys.readouterr().err


def test_an_interrupt_is_one_sentence(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "verify", interrupted)
    assert verify.main(["--profile", "demo"]) == 130
    assert capsys.readouterr().err.startswith("interrupted: finished units are kept")


def test_without_records_there_is_one_sentence(inside, capsys):
    assert verify.main(["--profile", "paper"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: no units of any notebook in the profile paper are on record")
    assert told.count("\n") == 1


def test_a_disk_that_is_full_is_one_sentence(full_disk, monkeypatch, capsys):
    monkeypatch.setattr(verify, "verify", lambda *_: {})
    assert verify.main([]) == 1
    told = capsys.readouterr().err
    assert "verify.json cannot be written (disk full)" in told
    assert told.count("\n") == 1


def test_a_refactoring_that_changes_no_number_keeps_its_records(computed, capsys):
    before = rows(computed)
    edit(
        computed,
        "return scale * rng.normal(size=3)",
        "return rng.normal(size=3) * scale",
    )
    assert verify.main(["--adopt", "toy/one", "--profile", "demo", "--sample", "1"]) == 0
    assert "1 units computed anew, all equal; 2 filed" in capsys.readouterr().out
    run.run_notebook("toy/one", "demo")
    after = rows(computed)
    assert {row["key"] for row in after}.isdisjoint(row["key"] for row in before)
    assert [row["cpu_seconds"] for row in after] == [row["cpu_seconds"] for row in before]
    for old, new in zip(before, after, strict=True):
        story = new["adopted"]
        assert story["from"] == old["fingerprint"]
        assert story["computed_at"] == old["commit"]
        assert len(story["equal"]) == 1
    record = json.loads(
        (computed / "results/demo/toy/one/provenance.json").read_text(encoding="utf-8")
    )
    assert record["units_adopted"] == 2


def test_a_refactoring_that_changes_a_number_is_not_adopted(computed, capsys):
    edit(
        computed,
        "return scale * rng.normal(size=3)",
        "return scale * rng.normal(size=3) + 1e-15",
    )
    assert verify.main(["--adopt", "toy/one", "--profile", "demo", "--sample", "2"]) == 1
    told = capsys.readouterr().err
    assert "is not what it was" in told
    assert "nothing was filed" in told
    assert len(list((computed / ".cache" / "units").glob("*/*.npz"))) == 2


def test_other_knobs_are_nothing_to_adopt(computed, capsys):
    edit(computed, "scale: 0.1", "scale: 0.2", "params.yaml")
    edit(computed, "scale * rng", "rng.normal() * scale * rng")
    assert verify.main(["--adopt", "toy/one", "--profile", "demo"]) == 1
    assert "scale is 0.2 now and was 0.1" in capsys.readouterr().err
