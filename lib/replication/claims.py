"""From ``claims.yaml`` and every notebook's ``metrics.json`` to the scorecard.

**Tests.** Every rule of a claim is a test of an interval against a bound fixed before the run. It
*holds* if the whole 95 % interval is beyond the bound, *fails* if the whole interval is short of
it, and is *undecided* otherwise. A number from a single run has no interval and decides nothing,
unless the claim says why nothing in it is random (``deterministic``). Two metrics are compared
repeat by repeat where both have the same number of repeats; otherwise the ends of their intervals
are combined as the root of the sum of squares (Zou & Donner 2008).

**Verdicts.** All tests hold: replicated. None: not replicated. Some: partial. While tests are
undecided, the verdict is what every way of deciding them gives; if they give different ones, it is
inconclusive. Further:

- ``number``: ours lies in an acceptance region around the paper's. Where all else holds and ours
  is beyond the region, the verdict is stronger (a larger effect than the paper's) or weaker.
- ``level``: what has to be so before the other rules mean anything. Where it fails, the claim is
  not replicated, whatever the other rules say.
- ``sensitivity``: the claim survives the least favourable settings tried. It can only lower a
  verdict: where it fails, replicated, stronger and weaker become partial.
- ``requires``: the range in which the paper's effect lies was run. Where it was not: not run.
"""

import argparse
import json
import math
import sys
from collections import ChainMap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from poisoning.datasets import files
from poisoning.errors import DataError
from poisoning.metrics import mean_interval
from replication import params, paths
from replication.reading import ReadingError, read_result
from replication.strict_yaml import read_yaml

BENCH = "bench"

LARGEST = 1 << 20
"""Bytes of ``claims.yaml``."""

VERDICTS = (
    "replicated",
    "stronger",
    "weaker",
    "partial",
    "inconclusive",
    "not replicated",
    "not run",
    "out of scope",
)

SHARE = 0.15
"""Half the acceptance region's width, as a fraction of the paper's effect."""

_KINDS = ("level", "direction", "ordering", "magnitude", "number", "sensitivity")


class ClaimsError(ValueError):
    """``claims.yaml`` is not what it should be; one sentence."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Direction(_Strict):
    """``metric`` is at least ``than``, a metric or a number, plus ``by``; without it, above.

    With ``at_most`` it is also no more than that above ``than``: by −x and at most x, similar.
    """

    metric: str
    than: str | float
    by: float = 0.0
    at_most: float | None = None


class Magnitude(_Strict):
    """``metric`` lies in [``at_least``, ``at_most``]; either bound may be absent."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bounds(self) -> "Magnitude":
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"{self.metric} has no bound: give at_least, at_most or both")
        return self


class Number(_Strict):
    """The acceptance region around ``paper_value``, in which the claim's ``metric`` lies.

    Give ``over``, the value without the effect: the region's half width is :data:`SHARE` of the
    paper's effect, or ``within``. Give ``within`` alone for a number that measures no effect.
    Give ``factor`` for a cost, such as seconds on another machine: the region is an order of
    magnitude, and less is stronger.
    """

    over: float | None = None
    within: float | None = Field(default=None, ge=0.0)
    factor: float | None = Field(default=None, gt=1.0)

    @model_validator(mode="after")
    def _one_kind(self) -> "Number":
        effect = self.over is not None or self.within is not None
        if effect == (self.factor is not None):
            raise ValueError("give over, within or both, or factor alone")
        return self

    def region(self, paper: float) -> tuple[float, float]:
        """The ends of the acceptance region around the paper's number."""
        if self.factor is not None:
            return paper / self.factor, paper * self.factor
        half = self.within if self.within is not None else SHARE * abs(paper - (self.over or 0.0))
        return paper - half, paper + half


class Claim(_Strict):
    """One claim and the rules that decide on it."""

    id: str
    paper: Literal["koh2021", "zhao2018", "carnerero2023", "wang2021", "crossing"]
    origin: Literal["paper", "ours"] = "paper"
    asked_after: bool = Field(default=False, description="written when a run had been seen")
    source: str = Field(description="where the paper says so, or what in it ours stands beside")
    statement: str
    paper_value: float | None = None
    notebook: str = Field(description="whose metrics decide: <paper>/<section>, or bench")
    besides: list[str] = Field(default=[], description="notebooks whose metrics it is compared to")
    metric: str | None = Field(default=None, description="our number beside paper_value")
    unit: Literal["", "%", "points", "s"] = Field(default="", description="in which both are shown")
    deterministic: str | None = Field(default=None, description="why no number here is random")
    requires: list[Magnitude] = []
    level: list[Magnitude] = []
    direction: list[Direction] = []
    ordering: list[str] = Field(default=[], description="metrics, largest first")
    magnitude: list[Magnitude] = []
    number: Number | None = None
    sensitivity: list[Magnitude | Direction] = Field(
        default=[], description="of the worst settings"
    )
    out_of_scope: str | None = Field(default=None, description="why it is not tested")

    @property
    def notebooks(self) -> list[str]:
        """All whose metrics it needs."""
        return [self.notebook, *self.besides]

    @model_validator(mode="after")
    def _has_a_rule(self) -> "Claim":
        rules = self.direction or self.ordering or self.magnitude or self.number
        if self.out_of_scope is None and not rules:
            raise ValueError(
                f"claim {self.id} has no rule: give direction, ordering, magnitude or number"
            )
        if self.number and (self.metric is None or self.paper_value is None):
            raise ValueError(f"claim {self.id}: its number needs metric and paper_value")
        return self


def load_claims(path: Path | None = None) -> list[Claim]:
    """Read and check ``path`` (``claims.yaml`` unless given).

    An item with ``foreach``, a list of mappings, is a family: one claim for each mapping, with the
    mapping's values in place of ``{key}``.

    Raises:
        ClaimsError: one sentence naming the first claim that is wrong.
    """
    path = path or paths.CLAIMS
    try:
        items = read_yaml(path, LARGEST)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ClaimsError(f"{path.name} holds no list of claims.")
        claims = [Claim.model_validate(one) for item in items for one in _members(item)]
    except params.ParameterError as error:
        raise ClaimsError(str(error)) from None
    except _FamilyError as error:
        raise ClaimsError(f"{path.name}: {error}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ClaimsError(
            f"{path.name}: {where} {problem['msg']} ({problem['input']!r})."
        ) from None
    ids = [claim.id for claim in claims]
    for name in ids:
        if ids.count(name) > 1:
            raise ClaimsError(f"{path.name}: the id {name} stands twice.")
    return claims


class _FamilyError(ValueError):
    pass


def _members(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The claims of a family, or the claim itself."""
    if "foreach" not in item:
        yield item
        return
    family = {key: value for key, value in item.items() if key != "foreach"}
    members = item["foreach"]
    if not isinstance(members, list) or not all(isinstance(one, dict) for one in members):
        raise _FamilyError(f"foreach of {item.get('id')} must be a list of mappings.")
    for one in members:
        try:
            yield _filled(family, one)
        except (KeyError, IndexError, ValueError) as error:
            raise _FamilyError(f"{item.get('id')} with {one} lacks {error}.") from None


def _filled(value: Any, names: dict[str, Any]) -> Any:
    if isinstance(value, str):
        return value.format_map(names)
    if isinstance(value, dict):
        return {key: _filled(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, names) for part in value]
    return value


@dataclass(frozen=True)
class Test:
    """One rule's outcome: True (holds), False (fails), None (undecided).

    ``side``: of a number beyond its region, stronger or weaker.
    """

    kind: str
    text: str
    outcome: bool | None
    side: str | None = None


@dataclass(frozen=True)
class _Measured:
    """A number of ours with the interval that rules look at; infinite where nothing is known."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"{self.value:.4g} (one run)"
        if self.low == self.high:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"

    def within(self, low: float, high: float) -> bool | None:
        """Whether the interval lies in [low, high]; None if it crosses an end."""
        if low <= self.low and self.high <= high:
            return True
        return False if self.high < low or self.low > high else None


def judge(claim: Claim, run: dict[str, Any] | None) -> dict[str, Any]:
    """The scorecard's row for one claim, given its notebook's ``metrics.json`` (None: no run)."""
    row: dict[str, Any] = {
        "id": claim.id,
        "paper": claim.paper,
        "origin": claim.origin,
        "asked_after": claim.asked_after,
        "source": claim.source,
        "statement": " ".join(claim.statement.split()),
        "notebooks": claim.notebooks,
        "metrics": sorted(_names(claim)),
        "paper_value": claim.paper_value,
        "unit": claim.unit,
        "region": claim.number and claim.number.region(claim.paper_value),
        "ours": None,
        "ci95": None,
        "n": None,
        "rules": [],
    }
    if claim.out_of_scope is not None:
        return row | {"verdict": "out of scope", "reason": claim.out_of_scope}
    if run is None:
        return row | {
            "verdict": "not run",
            "reason": f"{' or '.join(claim.notebooks)} has no results here",
        }
    standins = [name for name, variant in run["data"].items() if variant == "standin"]
    if standins:
        reason = f"stand-in data ({', '.join(standins)}): no claim counts as tested from it"
        return row | {"verdict": "not run", "reason": reason}
    metrics = run["metrics"]
    missing = sorted(name for name in _names(claim) if name not in metrics)
    if missing:
        reason = f"{' or '.join(claim.notebooks)} gives no {', '.join(missing)} in this profile"
        return row | {"verdict": "not run", "reason": reason}
    if claim.metric is not None:
        ours = metrics[claim.metric]
        row |= {"ours": ours["value"], "ci95": ours["ci95"], "n": ours["n"]}
    for rule in claim.requires:
        value = float(metrics[rule.metric]["value"])
        if not _Measured(value, value, value).within(*_ends(rule)):
            reason = f"the paper's effect needs {_text(rule)}; here it is {value:g}"
            return row | {"verdict": "not run", "reason": reason}
    tests = list(_tests(claim, metrics))
    told = {True: "holds", False: "fails", None: "undecided"}
    row["rules"] = [
        {"kind": test.kind, "text": test.text, "outcome": told[test.outcome]} for test in tests
    ]
    reason = "; ".join(f"{rule['text']}: {rule['outcome']}" for rule in row["rules"])
    return row | {"verdict": verdict(tests), "reason": reason}


def _names(claim: Claim) -> set[str]:
    bounded = *claim.requires, *claim.level, *claim.magnitude
    compared = *claim.direction, *claim.sensitivity
    names = {rule.metric for rule in (*bounded, *compared)} | set(claim.ordering)
    directions = [rule for rule in compared if isinstance(rule, Direction)]
    names |= {rule.than for rule in directions if isinstance(rule.than, str)}
    return names | ({claim.metric} if claim.metric else set())


def _ends(rule: Magnitude) -> tuple[float, float]:
    low = -math.inf if rule.at_least is None else rule.at_least
    return low, math.inf if rule.at_most is None else rule.at_most


def _text(rule: Magnitude) -> str:
    if rule.at_least is None:
        return f"{rule.metric} ≤ {rule.at_most:g}"
    if rule.at_most is None:
        return f"{rule.metric} ≥ {rule.at_least:g}"
    return f"{rule.at_least:g} ≤ {rule.metric} ≤ {rule.at_most:g}"


def _tests(claim: Claim, metrics: dict[str, dict[str, Any]]) -> Iterator[Test]:
    """Every rule of a claim, tested."""

    def measured(name: str) -> _Measured:
        value, ends = float(metrics[name]["value"]), metrics[name]["ci95"]
        if ends is not None:
            return _Measured(value, float(ends[0]), float(ends[1]))
        return _Measured(value, *((value, value) if claim.deterministic else (-math.inf, math.inf)))

    def difference(more: str, less: str) -> _Measured:
        pairs = [metrics[name].get("repeats", ()) for name in (more, less)]
        if len(pairs[0]) == len(pairs[1]) > 1:
            found = mean_interval([a - b for a, b in zip(*pairs, strict=True)])
            assert found.ci95 is not None
            return _Measured(found.value, *found.ci95)
        a, b = measured(more), measured(less)
        gap = a.value - b.value
        down = math.hypot(a.value - a.low, b.high - b.value)
        return _Measured(gap, gap - down, gap + math.hypot(a.high - a.value, b.value - b.low))

    def tested(kind: str, rule: Magnitude | Direction) -> Test:
        if isinstance(rule, Magnitude):
            ours = measured(rule.metric)
            return Test(kind, f"{_text(rule)}, ours {ours}", ours.within(*_ends(rule)))
        if isinstance(rule.than, str):
            ours, zero, gap = difference(rule.metric, rule.than), 0.0, "difference"
        else:
            ours, zero, gap = measured(rule.metric), rule.than, "ours"
        sign = "≥" if rule.by else ">"
        text = f"{rule.metric} {sign} {rule.than}{f' {rule.by:+g}' if rule.by else ''}"
        low, high = zero + rule.by, math.inf
        if rule.at_most is not None:
            text, high = f"{text} and ≤ {rule.than} {rule.at_most:+g}", zero + rule.at_most
        least = low if rule.by else low + math.ulp(low)
        return Test(kind, f"{text}, {gap} {ours}", ours.within(least, high))

    for kind in ("level", "magnitude", "sensitivity", "direction"):
        yield from (tested(kind, rule) for rule in getattr(claim, kind))
    for more, less in pairwise(claim.ordering):
        ours = difference(more, less)
        outcome = ours.within(math.ulp(0.0), math.inf)
        yield Test("ordering", f"{more} > {less}, difference {ours}", outcome)
    if claim.number is not None and claim.metric is not None:
        yield _number(claim, claim.number, measured(claim.metric))


def _number(claim: Claim, number: Number, ours: _Measured) -> Test:
    paper = claim.paper_value
    assert paper is not None
    low, high = number.region(paper)
    outcome = ours.within(low, high)
    side = None
    if outcome is False and number.factor is not None:
        side = "stronger" if ours.value < low else "weaker"
    elif outcome is False and number.over is not None:
        rises = paper > number.over
        if rises == (ours.value > paper):
            side = "stronger"
        elif ours.low > number.over if rises else ours.high < number.over:
            side = "weaker"
    machine = ", on another machine" if number.factor is not None else ""
    text = f"{claim.metric} in [{low:.4g}, {high:.4g}] around {paper:g}{machine}, ours {ours}"
    return Test("number", text, outcome, side)


def verdict(tests: list[Test]) -> str:
    """What every way of deciding the undecided tests gives, or inconclusive."""
    of_kind = {kind: [test for test in tests if test.kind == kind] for kind in _KINDS}
    others = of_kind["direction"] + of_kind["ordering"] + of_kind["magnitude"]
    certain = sum(test.outcome is True for test in others)
    undecided = sum(test.outcome is None for test in others)
    possible = {
        _decided(level, sturdy, held, len(others), number)
        for level in _ways(of_kind["level"])
        for sturdy in _ways(of_kind["sensitivity"])
        for held in range(certain, certain + undecided + 1)
        for number in _sides(of_kind["number"])
    }
    return possible.pop() if len(possible) == 1 else "inconclusive"


def _ways(tests: list[Test]) -> set[bool]:
    """Whether all of the tests hold, however those undecided are decided."""
    outcomes = {test.outcome for test in tests}
    if False in outcomes:
        return {False}
    return {True, False} if None in outcomes else {True}


def _sides(tests: list[Test]) -> set[str]:
    """Where a claim's number may be: inside its region, beyond it on a side, or elsewhere."""
    if not tests:
        return {"none"}
    (test,) = tests
    if test.outcome is None:
        return {"inside", "elsewhere"}
    return {"inside" if test.outcome else test.side or "elsewhere"}


def _decided(level: bool, sturdy: bool, held: int, of: int, number: str) -> str:
    """The verdict once every test is decided; ``held`` of the other tests hold, ``of`` them."""
    nothing = held == 0 and number != "inside" if of else number == "elsewhere"
    if not level or nothing:
        return "not replicated"
    if held < of or number == "elsewhere" or not sturdy:
        return "partial"
    return number if number in ("stronger", "weaker") else "replicated"


def scorecard(profile: str) -> list[dict[str, Any]]:
    """Every claim's row, from the results of one profile."""
    return [judge(claim, _runs(profile, claim)) for claim in load_claims()]


def _runs(profile: str, claim: Claim) -> dict[str, Any] | None:
    """The metrics of all notebooks that a claim names; None unless all of them have been run."""
    runs = [metrics(profile, name) for name in claim.notebooks]
    if None in runs:
        return None
    used = [pair for run in runs for pair in run["data"].items()]
    return {
        "data": dict(sorted(used, key=lambda pair: pair[1] == "standin")),  # a stand-in overrides
        "metrics": dict(ChainMap(*(run["metrics"] for run in runs))),
    }


def metrics(profile: str, notebook: str) -> dict[str, Any] | None:
    """A notebook's metrics; those of ``bench`` are its numbers, ``<benchmark>.<key>``.

    The interval of a benchmark is from the least to the most of its runs.
    """
    results = paths.ROOT / "results"
    if notebook != BENCH:
        path = results / profile / notebook / "metrics.json"
        again = f"run `dvc repro {notebook.replace('/', '-')}@{profile}` again"
        return read_result(path, checked, again) if path.is_file() else None
    path = results / "bench.json"
    if profile == "demo" or not path.is_file():  # the benchmarks are no part of the demo
        return None
    return read_result(path, _of_benchmarks, "run `make bench` again")


def checked(run: Any) -> dict[str, Any]:
    """A notebook's metrics, each of which has a number and an interval."""
    for item in run["metrics"].values():
        ends = item["ci95"]
        numbers = [item["value"], *([] if ends is None else [ends[0], ends[1]])]
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError(f"{numbers} are no numbers")
    if not isinstance(run["data"], dict):
        raise TypeError("data is no mapping")
    return run


def _of_benchmarks(benchmarks: Any) -> dict[str, Any]:
    def metric(record: dict[str, Any], key: str) -> dict[str, Any]:
        # Where the peer is a number of a paper, ours alone was measured, and has the spread.
        ranged = "ours_s" if str(record.get("peer")).startswith("paper") else "ratio"
        spread = record.get("spread") if key == ranged else None
        return {"value": record[key], "ci95": spread, "n": record["n"]}

    return checked(
        {
            # "enron, repacked": the data set and its variant
            "data": {name: record["data"].split(", ")[-1] for name, record in benchmarks.items()},
            "metrics": {
                f"{name}.{key}": metric(record, key)
                for name, record in benchmarks.items()
                for key, value in record.items()
                if isinstance(value, int | float)
            },
        }
    )


def scorecard_path(profile: str) -> Path:
    """Where the scorecard of a profile lies."""
    return paths.ROOT / "results" / profile / "scorecard.json"


def main(arguments: list[str] | None = None) -> int:
    """Write ``results/<profile>/scorecard.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", required=True, choices=params.PROFILES)
    profile = parser.parse_args(arguments).profile
    try:
        rows = scorecard(profile)
        files.write_text(scorecard_path(profile), json.dumps(rows, indent=1) + "\n")
    except (ClaimsError, ReadingError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counts = {row["verdict"] for row in rows}
    summary = ", ".join(
        f"{sum(row['verdict'] == verdict for row in rows)} {verdict}" for verdict in sorted(counts)
    )
    print(f"{len(rows)} claims: {summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
