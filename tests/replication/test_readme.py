import json
import re
import shutil

import pytest

from replication import paths, readme
from replication.reading import ReadingError
from replication.units import COLUMNS, write_table


def test_the_readme_shows_what_lies_in_results():
    text = (paths.ROOT / "README.md").read_text()
    assert readme.with_results(text, readme.results_section()) == text
    for place, page in readme.pages().items():
        assert (paths.ROOT / place).read_text() == page, place


def test_the_readme_is_short_enough_to_be_read():
    assert len((paths.ROOT / "README.md").read_bytes()) <= 12 * 1024


def test_every_picture_of_the_readme_exists():
    for picture in (readme.PICTURE, readme.BARS):
        assert (paths.ROOT / "results" / "paper" / picture).is_file()
    for paper, pictures in readme.GALLERY.items():
        for picture, _ in pictures:
            assert (paths.ROOT / "results" / "paper" / paper / picture).is_file()


def test_only_the_part_between_the_markers_changes(tmp_path, monkeypatch):
    (tmp_path / "results" / "paper").mkdir(parents=True)
    row = {
        "id": "a", "paper": "koh2021", "origin": "ours", "asked_after": True,
        "statement": "s", "source": "Table 2", "verdict": "partial",
        "notebooks": [], "metrics": [], "paper_value": 0.225, "unit": "%", "ours": 0.2345,
        "ci95": [0.23, 0.24], "n": 6, "region": None, "rules": [], "reason": "r",
    }  # fmt: skip
    (tmp_path / "results/paper/scorecard.json").write_text(json.dumps([row]))
    bench = {
        "koh2021.growth": {"ours_s": 1.0, "data": "official"},
        "koh2021.kkt_problem": {
            "ours_s": 0.0123,
            "peer": "cvxpy",
            "peer_s": 2.5,
            "ratio": 203.2,
            "data": "official",
        },
    }
    (tmp_path / "results/bench.json").write_text(json.dumps(bench))
    (tmp_path / "README.md").write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    readme.main([])
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{readme.END}\nafter\n")
    assert "old" not in text
    assert f"| {readme.TITLES['koh2021']}, our own claims | 1 | 1 | – |" in text
    page = (tmp_path / "results/paper/SCORECARD.md").read_text()
    assert "| s *(ours, asked after)* | Table 2 |" in page
    assert "| 22.5 % | 23.4 % (23 to 24) |" in page
    page = (tmp_path / "results/BENCHMARKS.md").read_text()
    assert "problem (17) | 0.0123 s | cvxpy | 2.5 s | 203× | official |" in page
    assert page.endswith("Without a peer, in `results/bench.json`: `koh2021.growth`.\n")


def test_a_disk_that_is_full_is_one_sentence(full_disk, monkeypatch, capsys):
    monkeypatch.setattr(readme, "results_section", lambda: "new")
    monkeypatch.setattr(readme, "pages", dict)
    assert readme.main([]) == 1
    told = capsys.readouterr().err
    assert "README.md cannot be written (disk full)" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    ["", readme.BEGIN, readme.END, f"{readme.END}\n{readme.BEGIN}",
     f"{readme.BEGIN}\n{readme.END}\n{readme.END}", f"{readme.BEGIN}{readme.BEGIN}{readme.END}"],
)  # fmt: skip
def test_a_readme_without_its_markers_is_one_sentence(text):
    with pytest.raises(ReadingError, match=r"must have the lines .* once each") as refused:
        readme.with_results(text, "new")
    assert "\n" not in str(refused.value)


def test_hours_are_those_of_the_units_on_record(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    folder = tmp_path / "results/paper/koh2021/kkt"
    folder.mkdir(parents=True)
    unit = dict.fromkeys(COLUMNS, "") | {
        "index": 0,
        "key": "0" * 32,
        "dirty": False,
        "adopted": None,
    }
    write_table(
        folder, [unit | {"cpu_seconds": 5400.0}, unit | {"index": 1, "cpu_seconds": 1800.0}]
    )
    assert readme.cost(["koh2021/kkt"]) == "2.0"
    assert readme.cost({"koh2021/kkt", "koh2021/attacks"}) == "2.0 (1 of 2 notebooks)"
    assert readme.cost(["koh2021/attacks"]) == "–"


def test_every_time_beside_a_peer_has_words():
    bench = json.loads((paths.ROOT / "results" / "bench.json").read_text(encoding="utf-8"))
    assert {name for name, row in bench.items() if row.get("ratio") is not None} <= set(
        readme.TIMED
    )


def test_who_asks_for_a_defense_is_told_the_best_against_either_attacker(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert readme.which_defense() == []  # not run yet
    errors = {
        "no-attack": {"none": 0.02, "l2": 0.01, "roni": 0.03, "oracle": 0.02},
        "fixed": {"none": 0.2, "l2": 0.05, "roni": 0.07},
        "adaptive": {"none": 0.21, "l2": 0.12, "roni": 0.085},
    }
    metrics = {
        f"enron.crossing.{attacker}.{defender}.test_error": {"value": value}
        for attacker, of in errors.items()
        for defender, value in of.items()
    }
    folder = tmp_path / "results" / "paper" / readme.MATRIX
    folder.mkdir(parents=True)
    imdb = {"imdb.crossing.fixed.none.test_error": {"value": 0.5}}  # nobody who knows was run
    (folder / "metrics.json").write_text(json.dumps({"metrics": metrics | imdb}))
    text = "\n".join(readme.which_defense())
    assert "Of 2 ([all" in text
    assert "not know the defense: Enron L2, 5 % (without a defense 20 %).\n" in text
    assert "one who does: Enron RONI, 8.5 % (without a defense 21 %).\n" in text
    assert "without an attack: Enron +1.0." in text


def test_quantities_carry_their_unit():
    assert readme.quantity(0.2345, "%") == "23.4 %"
    assert readme.quantity(-0.015, "points") == "−1.5 points"
    assert readme.quantity(27.0, "s") == "27 s"
    assert readme.quantity(25000.0, "") == "25,000"
    assert readme.quantity(None, "%") == "–"
    assert readme.interval([0.01, 0.02], "points") == " (1 to 2)"
    assert readme.interval([-0.5, 0.25], "") == " (−0.5 to 0.25)"
    assert readme.interval(None, "s") == ""


def test_the_page_of_a_notebook_leads_to_what_belongs_to_it():
    folder = paths.ROOT / "results" / "paper" / "koh2021" / "attacks"
    page = readme.section_page(folder, readme.scorecard_rows())
    assert "# Three attacks against five defenses" in page
    places = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page)
    assert {"attacks.ipynb", "figures/figure-3-enron.png", "../../koh2021/kkt/README.md"} <= {
        *places
    }
    assert [place for place in places if not (folder / place).is_file()] == []
    own = [row for row in readme.scorecard_rows() if "koh2021/attacks" in row["notebooks"]]
    assert all(f"| {row['statement']}" in page for row in own)


def test_the_deviations_of_every_paper_are_found():
    lines = (paths.ROOT / "DEVIATIONS.md").read_text().splitlines()
    assert [f"## {said}" for said in readme.DEVIATIONS.values() if f"## {said}" not in lines] == []
    folder = paths.ROOT / "results" / "paper" / "koh2021" / "attacks"
    page = readme.section_page(folder, readme.scorecard_rows())
    assert "DEVIATIONS.md#koh-steinhardt--liang-2021)" in page


@pytest.mark.parametrize("name", ["own_attack", "own_defense"])
def test_examples_in_the_how_to_are_the_files(name):
    code = (paths.ROOT / "examples" / f"{name}.py").read_text().partition('"""\n\n')[2]
    assert f"```python\n{code}```\n" in (paths.ROOT / "docs" / "how-to.md").read_text()


def test_a_run_of_earlier_code_says_so():
    run = {"commit": "0123456789ab", "dirty": True, "cpu_hours": 1.25, "changed": "git diff a"}
    run |= {"command": "dvc repro --force a@paper", "drawn": False}
    text = readme.told(run)
    assert text.startswith("Computed at commit 0123456789ab with uncommitted changes in 1.25 CPU")
    assert "have changed since; `git diff a` shows how." in text
    assert "pictures" not in text
    run |= {"dirty": False, "cpu_hours": None, "changed": None}
    old = "Computed at commit 0123456789ab. Its pictures are older than the cells that draw them. `"
    assert readme.told(run).startswith(old)
    present = readme.told(run | {"drawn": True})
    assert present.startswith("Computed at commit 0123456789ab. `dvc repro --force a@paper`")


def test_a_notebook_of_a_new_folder_has_a_page(tmp_path):
    """It has no part in DEVIATIONS.md, and its run may be of no commit and of no fingerprint."""
    source = paths.ROOT / "results" / "paper" / "zhao2018" / "gradients"
    folder = tmp_path / "mine" / "gradients"
    shutil.copytree(source, folder)
    record = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(record | {"commit": None}))
    page = readme.section_page(folder, [])
    assert "DEVIATIONS" not in page
    assert "Computed at commit unknown" in page


def test_first_paragraphs_end_with_a_whole_sentence():
    assert (
        readme._beginning("*Source, 2021.*\n\nWhy? It asks:\n\nMore.") == "*Source, 2021.*\n\nWhy?"
    )
    assert readme._beginning("*Source.*\n\nBy Xiao et al. 2012. It\nis so.") == (
        "*Source.*\n\nBy Xiao et al. 2012. It\nis so."
    )
    assert readme._beginning("*Source.*\n\n$$x,$$\n\nMore.") == "*Source.*"
