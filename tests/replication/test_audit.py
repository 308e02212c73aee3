"""An audit's measurements, and its report: one file, whole, and true to its numbers."""

import json
import os
import re
import signal
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from replication import paths, plotting, words
from replication.audit import features, figures, measuring, report, summary, tables
from replication.audit.__main__ import audit

N = 90
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def toy():
    """Few splits, attacks on a grid of one decoy, and one vote: seconds instead of minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "SPLITS", 2)
        patch.setattr(measuring, "MOST_SPLITS", 2)
        patch.setattr(measuring, "PARTS", (5,))
        patch.setattr(measuring, "POINTS", (1,))
        patch.setattr(measuring, "_SMALL", 0)
        patch.setattr(measuring, "_FEWER", {"quantiles": (0.3,), "decoy_copies": (2,)})
        yield patch


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(1)
    y = np.arange(N) % 2
    values = rng.normal(size=(N, 4)) + 0.8 * y[:, None]
    frame = pd.DataFrame(values, columns=[HOSTILE, "width", "height", "depth"])
    file = tmp_path_factory.mktemp("audit") / "my table.csv"
    frame.assign(label=np.where(y, HOSTILE, "plain")).to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def problem(table):
    return features.prepare(tables.read(table, "label", np.random.default_rng(0)))


@pytest.fixture(scope="module")
def findings(problem, toy):
    return measuring.measure(problem, 600.0, lambda what: None)


@pytest.fixture(scope="module")
def made(problem, findings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    about = {"name": "toy", "file": "my table.csv", "label": "label", "minutes": 10.0, "seed": 0}
    report.write(folder, about | summary.summarise(problem, findings))
    page = (folder / report.HTML).read_text(encoding="utf-8")
    return folder, page, json.loads((folder / report.JSON).read_text(encoding="utf-8"))


def test_attacks_and_defenses_are_called_as_everywhere():
    defenses = ["no defense", "L2", "slab", "loss", "SVD", "k-NN", "least of 5"]
    assert list(summary.DEFENSE_NAMES.values()) == defenses
    assert list(summary.DEFENSE_NAMES)[:-1] == list(plotting.BEHIND)[:6]
    known = {key: words.ATTACKS.get(key, "none") for key in summary.ATTACK_NAMES}
    assert known == summary.ATTACK_NAMES


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, *names):
        return [attrs for tag, attrs in self.tags if tag in names]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


# Measurements -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_everything_is_measured_when_there_is_time(findings):
    assert findings.ended == "done"
    errors = pd.DataFrame([vars(one) for one in findings.errors])
    poisoned = errors[(errors.lam == findings.lam) & (errors.points > 0)]
    assert set(findings.points) == {1, 2, 6}  # 3 % and 10 % of 63 rows are 2 and 6
    for split in (0, 1):
        for points in findings.points:
            rows = poisoned[(poisoned.split == split) & (poisoned.points == points)]
            assert set(rows.attack) == set(measuring.ATTACKS)
            assert set(rows.defense) == {"none", "l2", "slab", "loss", "svd", "knn"}
    assert set(errors.lam) == set(measuring.LAMBDAS)


@pytest.mark.slow
def test_poison_harms_and_no_attack_exceeds_its_bound(findings):
    errors = pd.DataFrame([vars(one) for one in findings.errors])
    errors = errors[(errors.lam == findings.lam) & (errors.defense == "none")]
    clean = errors[errors.points == 0].error.mean()
    most = errors[errors.points == 6].groupby("split").error.max().mean()
    assert most > clean
    bounds = [one for one in findings.bounds if one.method == "svm"]
    assert bounds
    assert all(one.attacked is None or one.attacked <= one.bound + 1e-9 for one in bounds)
    assert any(one.attacked is not None for one in bounds)


@pytest.mark.slow
def test_the_strongest_attack_is_that_of_the_records(findings, made):
    errors = pd.DataFrame([vars(one) for one in findings.errors if one.knows == "fixed"])
    (row,) = [r for r in made[2]["worst"] if (r["points"], r["defense"]) == (6, "l2")]
    mine = errors[(errors.lam == findings.lam) & (errors.points == 6) & (errors.defense == "l2")]
    assert row["error"]["value"] == pytest.approx(mine.groupby("attack").error.mean().max())
    five = errors[(errors.lam == findings.lam) & (errors.points == 6) & (errors.defense != "none")]
    least = five.groupby(["attack", "split"]).error.min().groupby("attack").mean()
    (row,) = [r for r in made[2]["worst"] if (r["points"], r["defense"]) == (6, "min5")]
    assert row["error"]["value"] == pytest.approx(least.max())


@pytest.mark.slow
def test_an_attacker_who_knows_the_defense_does_no_less(findings, made):
    knowing = [one for one in findings.errors if one.knows == "adaptive"]
    for points in findings.points:
        mine = [(one.split, one.defense) for one in knowing if one.points == points]
        assert sorted(mine) == sorted(
            (split, defense) for split in (0, 1) for defense in ("l2", "slab", "loss", "svd", "knn")
        )
    for row in made[2]["worst"]:
        if row["defense"] in ("none", "min5"):
            assert row["adaptive"] is None
        else:
            assert row["adaptive"]["value"] >= row["error"]["value"]
            mean = np.mean([
                one.error for one in knowing
                if (one.points, one.defense) == (row["points"], row["defense"])
            ])  # fmt: skip
            assert row["adaptive"]["value"] >= mean


@pytest.mark.slow
def test_without_the_rows_that_carry_it_an_attack_does_less(findings):
    found = findings.explanation
    assert sum(one.copies for one in found.carriers) <= found.points
    assert found.distinct >= len(found.carriers)
    if found.distinct == 1:
        (carrier,) = found.carriers
        clean = [one for one in findings.errors if not one.points and one.split == 0]
        (bare,) = [one for one in clean if (one.defense, one.lam) == ("none", findings.lam)]
        assert carrier.error_without == bare.error
    assert min(one.error_without for one in found.carriers) <= found.error
    assert sum(one.share for one in found.shifts) == pytest.approx(1.0)  # all four features


class Interrupting:
    """Interrupts at the given report of progress."""

    def __init__(self, at):
        self.left = at

    def __call__(self, what):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_done_and_that_is_what_a_whole_run_finds(
    problem, toy, findings, tmp_path
):
    part = measuring.measure(problem, 600.0, Interrupting(9))
    assert part.ended == "interrupted"
    whole = list(map(repr, findings.errors))
    kept = list(map(repr, part.errors))
    assert 0 < len(kept) < len(whole)
    assert kept == whole[: len(kept)]
    about = {"name": "toy", "file": "t.csv", "label": "label", "minutes": 1.0, "seed": 0}
    report.write(tmp_path, about | summary.summarise(problem, part))
    assert "was interrupted" in Page((tmp_path / report.HTML).read_text(encoding="utf-8")).text


@pytest.mark.parametrize("drop", [True, False])
def test_time_ends_an_audit_though_the_first_stop_is_dropped_or_changed(problem, toy, drop):
    stopped = []

    def tell(what):
        try:
            while not stopped:
                pass
        except measuring.Stop:
            stopped.append(what)
            if not drop:
                raise RuntimeError("compiled code failed") from None

    measuring.choose_lam(problem, 0)  # what it needs is compiled before the time begins
    found = measuring.measure(problem, 0.5, tell)
    assert found.ended == "time"
    assert len(stopped) == 1


@pytest.mark.parametrize("where", ["__enter__", "__exit__"])
def test_no_stop_reaches_what_follows_the_measurements(where, problem, monkeypatch):
    """The time may also end while the timer is being set or ended."""
    method, before = getattr(measuring._Stopping, where), signal.getsignal(signal.SIGINT)

    def slow(self, *given):
        if where == "__exit__":
            time.sleep(0.05)
        found = method(self, *given)
        time.sleep(0.05)
        return found

    monkeypatch.setattr(measuring._Stopping, where, slow)
    monkeypatch.setattr(measuring, "_AGAIN", 0.02)
    monkeypatch.setattr(measuring, "_measure_splits", lambda *given: None)
    assert measuring.measure(problem, 0.01, lambda what: None).ended == "done"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_that_is_no_stop_is_raised(problem, toy):
    def tell(what):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        measuring.measure(problem, 600.0, tell)


def test_an_audit_without_time_says_so(table, toy, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    folder = audit(str(table), "label", "1e-5", "", "auto", "")
    assert folder == tmp_path / "audit" / "my-table"
    assert sorted(file.name for file in folder.iterdir()) == ["report.html", "report.json"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "report.html", "report.json",
    ]  # fmt: skip
    page = Page((folder / report.HTML).read_text(encoding="utf-8"))
    assert "before anything was measured" in page.text
    assert json.loads((folder / report.JSON).read_text(encoding="utf-8"))["ended"] == "time"


def test_a_file_may_have_a_name_that_is_no_text(table, toy, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    file = tmp_path / os.fsdecode(b"caf\xe9.csv")
    file.write_bytes(table.read_bytes())
    folder = audit(str(file), "label", "1e-5", "", "auto", "")
    assert json.loads((folder / report.JSON).read_text(encoding="utf-8"))["file"] == "caf\ufffd.csv"


# Estimates --------------------------------------------------------------------------------------


def test_intervals_allow_for_splits_that_share_rows():
    values = np.array([0.1, 0.2, 0.3, 0.2])
    found = summary.estimate(values)
    half = 3.182446305 * values.std(ddof=1) * np.sqrt(1 / 4 + 0.3 / 0.7)
    assert found["value"] == pytest.approx(0.2)
    assert found["ci95"] == pytest.approx([max(0.2 - half, 0.0), 0.2 + half])
    assert summary.estimate(values, error=False)["ci95"][0] == pytest.approx(0.2 - half)
    assert summary.estimate([0.1])["ci95"] is None


@pytest.mark.parametrize(("gain", "clear"), [(0.1, True), (0.0, False)])
def test_a_defense_is_recommended_only_when_it_clearly_helps(gain, clear):
    found = measuring.Findings(lam=0.1, points={2: 0.03}, train_rows=63, test_rows=27)
    for split, noise in enumerate((0.0, 0.01, -0.01)):
        for points, attack, bare in ((0, "none", 0.1), (2, "kkt", 0.3)):
            for defense in ("none", "l2", "slab", "loss", "svd", "knn"):
                saved = gain + noise if defense == "svd" and points else 0.0
                found.errors.append(measuring.Measured(
                    split, 0.1, attack, "fixed", points, defense, bare - saved, 0.5, 0.05,
                ))  # fmt: skip
    choice = summary._defense(summary.Tables(found), 2)
    assert choice["clear"] == clear
    if clear:
        assert choice["best"] == "svd"
        assert choice["gain"]["value"] == pytest.approx(gain)


def test_lambda_is_chosen_by_its_bound_where_attacks_do_not_tell():
    found = measuring.Findings(lam=0.01, points={2: 0.03}, train_rows=63, test_rows=27)
    for split in range(3):
        for lam, bound in ((0.01, 0.3), (0.1, 0.31), (1.0, 0.1)):
            found.bounds.append(measuring.Bound(split, lam, "svm", 1, bound, 0.5))
            for points, attack, error in ((0, "none", 0.1), (2, "kkt", 0.2)):
                found.errors.append(
                    measuring.Measured(split, lam, attack, "fixed", points, "none", error, 0.0, 0.0)
                )
    choice = summary._lam(summary.Tables(found), 2, found)
    assert (choice["best"], choice["by"], choice["clear"]) == (1.0, "certified", True)
    assert choice["gain"]["value"] == pytest.approx(0.2)


def test_what_was_measured_on_different_splits_is_not_compared():
    """An attacker who knows found poison for each defense, but on no split for both."""
    found = measuring.Findings(lam=0.01, points={2: 0.03}, train_rows=63, test_rows=27)
    for split, defense in enumerate(("none", "l2")):
        found.bounds.append(
            measuring.Bound(split, (0.01, 0.1)[split], "svm", 1, 0.3 - 0.1 * split, 0.5)
        )
        for lam in (0.01, 0.1):
            for points, attack, knows in ((0, "none", "fixed"), (2, "kkt", "fixed")):
                found.errors += [
                    measuring.Measured(k, lam, attack, knows, points, one, 0.2, 0.0, 0.0)
                    for k in range(2)
                    for one in ("none", "l2")
                ]
        found.errors.append(
            measuring.Measured(split, 0.01, "kkt", "adaptive", 2, defense, 0.3, 0.0, 0.0)
        )
    tables = summary.Tables(found)
    assert summary._defense(tables, 2) is None
    assert summary._lam(tables, 2, found)["by"] == "attacked"
    found.errors = [one for one in found.errors if one.knows == "fixed"]
    lone = measuring.Measured(7, 0.01, "kkt", "adaptive", 2, "l2", 0.3, 0.0, 0.0)
    found.errors.append(lone)
    assert summary.Tables(found).known(2, "l2") is None


# The report -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_is_whole_in_itself(made):
    _, page, _ = made
    parsed = Page(page)
    for attrs in (attrs for _, attrs in parsed.tags):
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith("#"), attrs
    assert "://" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert not parsed.all("script", "link", "iframe", "img")
    names = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', page)) <= set(names)


@pytest.mark.slow
def test_pictures_and_tables_can_be_read_aloud(made):
    parsed = Page(made[1])
    pictures = parsed.all("figure")
    assert len(pictures) == 4 == len(parsed.all("svg"))
    assert all(len(one["aria-label"]) > 20 for one in pictures)
    assert len(parsed.all("caption")) == len(parsed.all("table")) > 3
    assert all(one.get("scope") in ("row", "col") for one in parsed.all("th"))
    assert parsed.all("html")[0]["lang"] == "en"
    assert parsed.all("meta")[1]["name"] == "viewport"
    assert "prefers-color-scheme: dark" in made[1]


@pytest.mark.slow
def test_the_numbers_of_the_json_are_on_the_page(made):
    _, page, content = made
    text = Page(page).text
    single = [row for row in content["certified"] if row["lam"] == content["settings"]["lam"]]
    estimates = [
        *(row["error"] for row in content["clean"] + content["worst"] + content["attacks"]),
        *(row["adaptive"] for row in content["worst"] if row["points"] == 2),
        *(row[field] for row in content["lams"] for field in ("clean", "attacked", "certified_1")),
        *(row["bound"] for row in single if row["method"] == "svm"),
    ]
    for one in filter(None, estimates):
        assert summary.percent(one["value"]) in text
        assert report.interval(one) in text
    for sentence in content["sentences"]:
        assert sentence in text
    for carrier in content["explanation"]["carriers"]:
        assert summary.percent(carrier["error_without"]) in text


@pytest.mark.slow
def test_texts_of_the_table_are_shown_and_never_run(made):
    _, page, content = made
    assert content["data"]["positive"] == "plain"
    assert HOSTILE in content["data"]["classes"]
    assert HOSTILE not in page
    assert HOSTILE in Page(page).text


def test_names_of_features_are_no_formulas():
    """matplotlib reads what stands between two dollars as one, and fails on most."""
    shifts = [{"name": name, "before": 0.0, "after": 1.0} for name in ("price = $$", "$a_$ − b_$")]
    drawn = figures.draw(figures.weights({"explanation": {"shifts": shifts}}), "weights")
    assert "price = $$" in drawn


@pytest.mark.slow
def test_every_field_of_the_json_is_documented(made):
    documented = (paths.ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    for field, content in made[2].items():
        assert f"`{field}`" in documented
        rows = content if isinstance(content, list) else [content]
        for row in rows:
            for name in row if isinstance(row, dict) else ():
                assert f"`{name}`" in documented, f"{field}: {name}"
