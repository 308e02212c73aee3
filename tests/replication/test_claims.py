import copy
import dataclasses
import itertools
import json
import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from replication import claims, paths

SETTLED = "an identity"


def claim(**rules):
    fixed = {"id": "c", "paper": "koh2021", "source": "Table 2", "statement": "s"}
    return claims.Claim(**fixed | {"notebook": "koh2021/kkt", "deterministic": SETTLED} | rules)


def metric(value, half=None, repeats=()):
    ends = None if half is None else [value - half, value + half]
    return {"value": value, "ci95": ends, "n": 1, "repeats": list(repeats)}


def run(variant="official", **values):
    metrics = {
        name: value if isinstance(value, dict) else metric(value) for name, value in values.items()
    }
    return {"data": {"enron": variant}, "profile": "quick", "metrics": metrics}


def verdict(values, **rules):
    row = claims.judge(claim(**rules), run(**values))
    assert row["reason"] == "; ".join(f"{r['text']}: {r['outcome']}" for r in row["rules"])
    return row["verdict"]


DIRECTION = [{"metric": "a", "than": "b", "by": 0.1}]
MAGNITUDE = [{"metric": "a", "at_least": 0.2, "at_most": 0.3}]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": 0.25, "b": 0.1}, "replicated"),
        ({"a": 0.45, "b": 0.1}, "partial"),
        ({"a": 0.25, "b": 0.2}, "partial"),
        ({"a": 0.1, "b": 0.2}, "not replicated"),
    ],
)
def test_verdicts_follow_the_rules(values, expected):
    assert verdict(values, direction=DIRECTION, magnitude=MAGNITUDE) == expected


@pytest.mark.parametrize(
    ("a", "half", "expected"),
    [
        (0.25, 0.04, "replicated"),
        (0.25, 0.06, "inconclusive"),
        (0.19, 0.02, "inconclusive"),  # noise may hide a success as it may hide a failure
        (0.15, 0.04, "not replicated"),
        (0.31, 0.02, "inconclusive"),
        (0.35, 0.04, "not replicated"),
    ],
)
def test_a_rule_is_tested_against_its_own_bound_with_the_interval(a, half, expected):
    assert verdict({"a": metric(a, half)}, magnitude=MAGNITUDE) == expected


def test_a_single_run_of_a_random_quantity_decides_nothing():
    for a in (0.25, 0.9):
        assert verdict({"a": a}, magnitude=MAGNITUDE, deterministic=None) == "inconclusive"
        assert verdict({"a": a}, magnitude=MAGNITUDE) != "inconclusive"
    row = claims.judge(claim(magnitude=MAGNITUDE, deterministic=None), run(a=0.25))
    assert "one run" in row["reason"]


@pytest.mark.parametrize(
    ("gap", "halves", "expected"),
    [
        (0.15, (0.03, 0.03), "replicated"),
        (0.15, (0.04, 0.04), "inconclusive"),  # sqrt(2) * 0.04 = 0.057
        (0.05, (0.04, 0.04), "inconclusive"),
        (0.05, (0.03, 0.03), "not replicated"),
        (0.15, (None, 0.03), "inconclusive"),
    ],
)
def test_the_interval_of_a_difference_is_that_of_both(gap, halves, expected):
    a, b = metric(0.1 + gap, halves[0]), metric(0.1, halves[1])
    assert verdict({"a": a, "b": b}, direction=DIRECTION, deterministic=None) == expected


def test_equally_many_repeats_are_compared_in_pairs():
    splits = [0.1, 0.2, 0.3, 0.4]
    b = metric(0.25, 0.2, splits)
    a = metric(0.37, 0.2, [0.22, 0.31, 0.42, 0.53])
    assert verdict({"a": a, "b": b}, direction=DIRECTION) == "replicated"
    assert verdict({"a": a, "b": b}, ordering=["a", "b"]) == "replicated"
    assert verdict({"a": a, "b": b}, ordering=["b", "a"]) == "not replicated"
    fewer = metric(0.25, 0.2, splits[:3])
    assert verdict({"a": a, "b": fewer}, direction=DIRECTION) == "inconclusive"


def test_no_effect_is_not_a_small_one():
    rule = [{"metric": "a", "than": "b"}]
    assert verdict({"a": 0.3, "b": 0.3}, direction=rule) == "not replicated"
    assert verdict({"a": 0.3, "b": 0.3}, ordering=["a", "b"]) == "not replicated"
    assert verdict({"a": 0.3, "b": 0.29}, direction=rule) == "replicated"
    assert verdict({"a": 0.3}, direction=[{"metric": "a", "than": 0.3}]) == "not replicated"


@pytest.mark.parametrize(
    ("number", "paper", "values", "expected"),
    [
        # the paper: from 3 to 23 %, an effect of 20 points; the region is ± 3 points
        ({"over": 0.03}, 0.23, (0.255, 0.004), "replicated"),
        ({"over": 0.03}, 0.23, (0.255, 0.010), "inconclusive"),
        ({"over": 0.03}, 0.23, (0.275, 0.010), "stronger"),
        ({"over": 0.03}, 0.23, (0.150, 0.010), "weaker"),
        ({"over": 0.03}, 0.23, (0.035, 0.010), "not replicated"),
        ({"over": 0.03, "within": 0.05}, 0.23, (0.275, 0.004), "replicated"),
        # an effect downwards, from .9 to .5: ± 6 points
        ({"over": 0.9}, 0.5, (0.55, 0.005), "replicated"),
        ({"over": 0.9}, 0.5, (0.3, 0.01), "stronger"),
        ({"over": 0.9}, 0.5, (0.7, 0.01), "weaker"),
        ({"over": 0.9}, 0.5, (0.9, 0.01), "not replicated"),
        # a number that measures no effect
        ({"within": 0.01}, 0.03, (0.035, 0.004), "replicated"),
        ({"within": 0.01}, 0.03, (0.055, 0.004), "not replicated"),
        ({"within": 0.0}, 4137, (4137, 0.0), "replicated"),
        # seconds on another machine
        ({"factor": 10.0}, 27.0, (5.0, 1.0), "replicated"),
        ({"factor": 10.0}, 27.0, (0.5, 0.1), "stronger"),
        ({"factor": 10.0}, 27.0, (900.0, 10.0), "weaker"),
        ({"factor": 10.0}, 27.0, (2.7, 0.2), "inconclusive"),
    ],
)
def test_a_number_of_the_paper_is_compared_on_both_sides(number, paper, values, expected):
    rules = {"number": number, "paper_value": paper, "metric": "a"}
    assert verdict({"a": metric(*values)}, **rules) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"), [(0.3, 0.1, "stronger"), (0.3, 0.25, "not replicated")]
)
def test_a_number_is_stronger_only_where_all_else_holds(a, b, expected):
    rules = {"number": {"over": 0.0}, "paper_value": 0.2, "metric": "a", "direction": DIRECTION}
    assert verdict({"a": metric(a, 0.01), "b": b}, **rules) == expected


@pytest.mark.parametrize(
    ("worst", "half", "expected"),
    [
        (0.1, 0.01, "replicated"),
        (0.05, 0.01, "inconclusive"),
        (0.0, 0.01, "partial"),
    ],
)
def test_sensitivity_takes_away_and_never_adds(worst, half, expected):
    rules = {"magnitude": MAGNITUDE, "sensitivity": [{"metric": "worst", "at_least": 0.05}]}
    assert verdict({"a": 0.25, "worst": metric(worst, half)}, **rules) == expected
    assert verdict({"a": 0.45, "worst": metric(worst, half)}, **rules) == "not replicated"


@pytest.mark.parametrize(("worst", "expected"), [(0.25, "replicated"), (0.15, "partial")])
def test_sensitivity_may_compare_the_worst_with_another_metric(worst, expected):
    rules = {"magnitude": MAGNITUDE, "sensitivity": [{"metric": "worst", "than": "other"}]}
    values = {"a": 0.25, "worst": metric(worst, 0.01), "other": metric(0.2, 0.01)}
    assert verdict(values, **rules) == expected
    assert "other" in claims.judge(claim(**rules), run(**values))["metrics"]


@pytest.mark.parametrize(
    ("a", "expected"),
    [(0.28, "replicated"), (0.22, "replicated"), (0.35, "not replicated"), (0.1, "not replicated")],
)
def test_similar_is_asked_of_both_sides(a, expected):
    similar = [{"metric": "a", "than": "b", "by": -0.05, "at_most": 0.05}]
    assert verdict({"a": metric(a, 0.01), "b": metric(0.25, 0.01)}, direction=similar) == expected
    to_a_number = [{"metric": "a", "than": 0.25, "by": -0.05, "at_most": 0.05}]
    assert verdict({"a": metric(a, 0.01)}, direction=to_a_number) == expected


def test_levels_are_judged_before_shapes():
    rules = {"magnitude": MAGNITUDE, "level": [{"metric": "accuracy", "at_least": 0.5}]}
    assert verdict({"a": 0.25, "accuracy": 0.6}, **rules) == "replicated"
    assert verdict({"a": 0.25, "accuracy": 0.1}, **rules) == "not replicated"
    assert verdict({"a": 0.25, "accuracy": metric(0.5, 0.1)}, **rules) == "inconclusive"
    assert verdict({"a": 0.9, "accuracy": metric(0.5, 0.1)}, **rules) == "not replicated"


def test_outside_the_papers_range_a_claim_is_not_run():
    rules = claim(magnitude=MAGNITUDE, requires=[{"metric": "width", "at_least": 20000}])
    row = claims.judge(rules, run(a=0.25, width=10000))
    assert row["verdict"] == "not run"
    assert "width ≥ 20000; here it is 10000" in row["reason"]
    assert claims.judge(rules, run(a=0.25, width=30000))["verdict"] == "replicated"


KINDS = ("level", "direction", "ordering", "magnitude", "sensitivity", "number")
tests = st.lists(
    st.builds(
        claims.Test, st.sampled_from(KINDS), st.just(""), st.sampled_from([True, False, None])
    ),
    min_size=1,
    max_size=7,
).filter(lambda drawn: sum(test.kind == "number" for test in drawn) <= 1)


@given(tests.filter(lambda drawn: {t.kind for t in drawn} - {"level", "sensitivity"}))
def test_a_verdict_is_what_every_way_of_deciding_gives(drawn):
    undecided = [i for i, test in enumerate(drawn) if test.outcome is None]
    found = set()
    for outcomes in itertools.product([True, False], repeat=len(undecided)):
        way = list(drawn)
        for i, outcome in zip(undecided, outcomes, strict=True):
            way[i] = dataclasses.replace(drawn[i], outcome=outcome)
        found.add(claims.verdict(way))
    assert "inconclusive" not in found
    expected = found.pop() if len(found) == 1 else "inconclusive"
    assert claims.verdict(drawn) == expected


@given(tests.filter(lambda drawn: {t.kind for t in drawn} - {"level", "sensitivity"}), st.data())
def test_a_rule_that_comes_to_hold_lowers_no_verdict(drawn, data):
    rank = ["not replicated", "partial", "replicated"]
    decided = [dataclasses.replace(test, outcome=bool(test.outcome)) for test in drawn]
    i = data.draw(st.integers(0, len(drawn) - 1))
    better = [*decided[:i], dataclasses.replace(decided[i], outcome=True), *decided[i + 1 :]]
    assert rank.index(claims.verdict(better)) >= rank.index(claims.verdict(decided))


def family(**content):
    return {
        "id": "{data}.falls", "paper": "koh2021", "source": "Table 2",
        "statement": "On {title} it falls.", "notebook": "koh2021/kkt", "metric": "{data}.a",
        "paper_value": "{value}", "number": {"within": 0.1},
        "magnitude": [{"metric": "{data}.a", "at_most": 0.3}],
        "foreach": [
            {"data": "enron", "title": "Enron", "value": 0.25},
            {"data": "imdb", "title": "IMDB", "value": 0.29},
        ],
    } | content  # fmt: skip


def test_a_family_is_written_once(tmp_path):
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump([family()]))
    enron, imdb = claims.load_claims(file)
    assert (enron.id, enron.metric, enron.paper_value) == ("enron.falls", "enron.a", 0.25)
    assert (imdb.id, imdb.statement, imdb.paper_value) == ("imdb.falls", "On IMDB it falls.", 0.29)
    assert imdb.magnitude[0].metric == "imdb.a"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"foreach": "enron"}, "must be a list of mappings"),
        ({"foreach": [{"data": "enron", "title": "Enron"}]}, "lacks 'value'"),
        ({"id": "{data"}, "lacks expected '}'"),
        ({"id": "same"}, "stands twice"),
    ],
)
def test_a_bad_family_is_refused_in_one_sentence(tmp_path, change, told):
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump([family(**change)]))
    with pytest.raises(claims.ClaimsError, match=told) as refusal:
        claims.load_claims(file)
    assert "\n" not in str(refusal.value)


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
        ({"magnitude": [{"metric": "a"}]}, "no bound"),
        ({"number": {"within": 0.1}}, "needs metric and paper_value"),
        ({"number": {"factor": 10.0, "over": 0.1}}, "or factor alone"),
        ({"number": {}}, "or factor alone"),
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
        metric="kkt.ours_s", paper_value=2.7, number={"factor": 10},
        direction=[{"metric": "pdlp.ratio", "than": 20.0}],
    )  # fmt: skip
    monkeypatch.setattr(claims, "load_claims", lambda: [timed])
    (tmp_path / "results").mkdir()
    assert claims.scorecard("quick")[0]["verdict"] == "not run"
    common = {"n": 5, "data": f"enron, {variant}", "machine": {}}
    record = {
        "kkt": {"ours_s": 0.5, "peer": "paper, Table 2", "spread": [0.4, 0.6]} | common,
        "pdlp": {"ours_s": 0.5, "peer": "cvxpy", "ratio": 25.0, "spread": [22.0, 30.0]} | common,
    }
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
