import copy
import json
import os

import pytest
import yaml

from replication import claims, paths


def claim(**rules):
    return claims.Claim(
        id="c", paper="koh2021", source="Table 2", statement="s", notebook="koh2021/kkt", **rules
    )


def run(variant="official", **values):
    metrics = {
        name.replace("__", "."): {"value": value, "ci95": None, "n": 1}
        for name, value in values.items()
    }
    return {"data": {"enron": variant}, "profile": "quick", "metrics": metrics}


DIRECTION = [{"metric": "a", "than": "b", "by": 0.1}]
MAGNITUDE = [{"metric": "a", "at_least": 0.2, "at_most": 0.3}]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"a": 0.25, "b": 0.1}, "replicated"),
        ({"a": 0.45, "b": 0.1}, "partial"),
        ({"a": 0.25, "b": 0.2}, "partial"),
        ({"a": 0.1, "b": 0.2}, "not replicated"),
    ],
)
def test_verdicts_follow_the_rules(values, verdict):
    row = claims.judge(claim(direction=DIRECTION, magnitude=MAGNITUDE, metric="a"), run(**values))
    assert row["verdict"] == verdict
    assert row["ours"] == values["a"]
    assert row["reason"]


@pytest.mark.parametrize(
    ("a", "worst", "verdict"),
    [
        (0.25, 0.1, "replicated"),
        (0.25, 0.0, "partial"),
        (0.45, 0.1, "not replicated"),
        (0.45, 0.0, "not replicated"),
    ],
)
def test_sensitivity_takes_away_and_never_adds(a, worst, verdict):
    rules = claim(magnitude=MAGNITUDE, sensitivity=[{"metric": "worst", "at_least": 0.05}])
    row = claims.judge(rules, run(a=a, worst=worst))
    assert row["verdict"] == verdict
    assert row["sensitivity"] is (worst >= 0.05)
    assert "worst" in row["reason"]


@pytest.mark.parametrize(
    ("rules", "intervals", "verdict"),
    [
        ({"direction": DIRECTION}, {}, "replicated"),
        ({"direction": DIRECTION}, {"a": 0.14}, "replicated"),
        ({"direction": DIRECTION}, {"a": 0.14, "b": 0.14}, "partial"),
        ({"direction": DIRECTION}, {"b": 0.16}, "partial"),
        ({"ordering": ["a", "b"]}, {"a": 0.16}, "partial"),
        ({"ordering": ["b", "a"]}, {"a": 0.16}, "not replicated"),
        ({"magnitude": MAGNITUDE}, {"a": 0.9}, "replicated"),
    ],
)
def test_a_difference_within_its_interval_is_no_replication(rules, intervals, verdict):
    found = run(a=0.25, b=0.1)
    for name, half in intervals.items():
        value = found["metrics"][name]["value"]
        found["metrics"][name]["ci95"] = [value - half, value + half]
    row = claims.judge(claim(**rules), found)
    assert row["verdict"] == verdict
    assert (row["beyond_noise"] is False) is ("within its interval" in row["reason"])


@pytest.mark.parametrize(("values", "holds"), [((3, 2, 1), True), ((3, 1, 2), False)])
def test_ordering_is_largest_first(values, holds):
    a, b, c = map(float, values)
    row = claims.judge(claim(ordering=["a", "b", "c"]), run(a=a, b=b, c=c))
    assert row["ordering"] is holds


def test_standins_missing_runs_and_missing_metrics_are_not_run():
    rules = claim(magnitude=MAGNITUDE)
    assert claims.judge(rules, run("standin", a=0.25))["verdict"] == "not run"
    assert claims.judge(rules, None)["verdict"] == "not run"
    row = claims.judge(rules, run(b=0.25))
    assert row["verdict"] == "not run"
    assert "gives no a" in row["reason"]


def test_out_of_scope_says_why():
    row = claims.judge(claim(out_of_scope="needs humans"), run(a=1.0))
    assert (row["verdict"], row["reason"]) == ("out of scope", "needs humans")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"magnitude": []}, "has no rule"),
        ({"paper": "koh2020"}, "koh2020"),
        ({"magnitud": MAGNITUDE}, "magnitud"),
    ],
)
def test_a_bad_claims_file_is_refused_in_one_sentence(tmp_path, change, told):
    content = claim(magnitude=MAGNITUDE).model_dump(exclude_defaults=True) | change
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump([content]))
    with pytest.raises(claims.ClaimsError, match=told) as refusal:
        claims.load_claims(file)
    assert "\n" not in str(refusal.value)


def test_an_id_stands_once(tmp_path):
    content = claim(magnitude=MAGNITUDE).model_dump(exclude_defaults=True)
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump([content, copy.deepcopy(content)]))
    with pytest.raises(claims.ClaimsError, match="stands twice"):
        claims.load_claims(file)


def test_every_claim_names_a_notebook_that_exists():
    for item in claims.load_claims():
        for notebook in {item.notebook, *item.besides} - {claims.BENCH}:
            assert (paths.NOTEBOOKS / f"{notebook}.ipynb").is_file(), item.id


def test_the_scorecard_reads_each_notebooks_metrics(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    known = claims.load_claims()
    monkeypatch.setattr(claims, "load_claims", lambda: known)
    decided = next(c for c in known if c.magnitude)
    values = {name: {"value": 0.2, "ci95": None, "n": 3} for name in claims._names(decided)}
    folder = tmp_path / "results" / "quick" / decided.notebook
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(
        json.dumps({"data": {"enron": "official"}, "profile": "quick", "metrics": values})
    )
    assert claims.main(["--profile", "quick"]) == 0
    rows = json.loads((tmp_path / "results" / "quick" / "scorecard.json").read_text())
    assert [row["id"] for row in rows] == [c.id for c in known]
    row = next(row for row in rows if row["id"] == decided.id)
    assert row["verdict"] != "not run"
    assert f"{len(known)} claims" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variant", "verdict"), [("repacked", "replicated"), ("standin", "not run")]
)
def test_a_claim_may_compare_two_notebooks(tmp_path, monkeypatch, variant, verdict):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    compared = claim(besides=["koh2021/matrix"], direction=[{"metric": "mine", "than": "theirs"}])
    monkeypatch.setattr(claims, "load_claims", lambda: [compared])
    runs = {"koh2021/kkt": run(mine=0.3), "koh2021/matrix": run(variant, theirs=0.2)}
    for name, content in runs.items():
        row = claims.scorecard("quick")[0]
        assert row["verdict"] == "not run"
        assert "koh2021/kkt or koh2021/matrix" in row["reason"]
        folder = tmp_path / "results" / "quick" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(content))
    assert claims.scorecard("quick")[0]["verdict"] == verdict


@pytest.mark.parametrize(
    ("variant", "verdict"), [("repacked", "replicated"), ("standin", "not run")]
)
def test_benchmarks_decide_claims_about_seconds(tmp_path, monkeypatch, variant, verdict):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    timed = claims.Claim(
        id="c", paper="koh2021", source="Fig. 4", statement="s", notebook="bench",
        metric="kkt.ours_s", magnitude=[{"metric": "kkt.ours_s", "at_most": 27}],
    )  # fmt: skip
    monkeypatch.setattr(claims, "load_claims", lambda: [timed])
    (tmp_path / "results").mkdir()
    assert claims.scorecard("quick")[0]["verdict"] == "not run"
    record = {"kkt": {"ours_s": 0.5, "n": 5, "data": f"enron, {variant}", "machine": {}}}
    (tmp_path / "results" / "bench.json").write_text(json.dumps(record))
    assert claims.scorecard("quick")[0]["verdict"] == verdict
    assert claims.scorecard("demo")[0]["verdict"] == "not run"


def full(descriptor):
    raise OSError(28, "disk full")


def test_a_scorecard_is_written_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(claims, "load_claims", list)
    assert claims.main(["--profile", "demo"]) == 0
    file = claims.scorecard_path("demo")
    assert json.loads(file.read_text()) == []
    monkeypatch.setattr(claims, "load_claims", lambda: [claim(direction=DIRECTION)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert claims.main(["--profile", "demo"]) == 1
    assert "scorecard.json cannot be written (disk full)" in capsys.readouterr().err
    assert json.loads(file.read_text()) == []
    assert list(file.parent.iterdir()) == [file]


def test_metrics_that_cannot_be_read_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(claims, "load_claims", lambda: [claim(direction=DIRECTION)])
    (tmp_path / "results/demo/koh2021/kkt").mkdir(parents=True)
    (tmp_path / "results/demo/koh2021/kkt/metrics.json").write_text('{"data"')
    assert claims.main(["--profile", "demo"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "results/demo/koh2021/kkt/metrics.json" in told
    assert told.count("\n") == 1
