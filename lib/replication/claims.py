"""From ``claims.yaml`` and every notebook's ``metrics.json`` to the scorecard.

A claim of a paper carries up to three rules, written before the run (or else it says so):
``direction`` (an effect is there), ``ordering`` (quantities rank as the paper says) and
``magnitude`` (our number is near the paper's). All hold: replicated. Some: partial. None: not
replicated. A fourth, ``sensitivity`` (the effect survives the least favourable of the settings
tried), can only lower a verdict: if it fails, "replicated" becomes "partial". Noise has the same
effect: a difference that a direction or an ordering relies on has to exceed the half width of its
95 % interval. For two metrics this is √(h₁² + h₂²) of their half widths, too wide if they are
paired; a claim on paired repeats should name a metric of their difference.
"""

import argparse
import json
import math
import sys
from collections import ChainMap
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from poisoning.datasets import files
from poisoning.errors import DataError
from replication import params, paths
from replication.reading import ReadingError, read_result
from replication.strict_yaml import read_yaml

BENCH = "bench"

LARGEST = 1 << 20
"""Bytes of ``claims.yaml``."""

_DECISIVE = ("direction", "ordering", "magnitude")


class ClaimsError(ValueError):
    """``claims.yaml`` is not what it should be; one sentence."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Direction(_Strict):
    """``metric`` exceeds ``than`` (a metric or a number) by at least ``by``."""

    metric: str
    than: str | float
    by: float = 0.0


class Magnitude(_Strict):
    """``metric`` lies in [``at_least``, ``at_most``]; either bound may be absent."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None


class Claim(_Strict):
    """One claim of one paper and the rules that decide on it."""

    id: str
    paper: Literal["koh2021", "zhao2018", "carnerero2023", "wang2021"]
    source: str = Field(description="where the paper says so")
    statement: str
    paper_value: float | None = None
    notebook: str = Field(description="whose metrics decide: <paper>/<section>, or bench")
    besides: list[str] = Field(default=[], description="notebooks whose metrics it is compared to")
    metric: str | None = Field(default=None, description="our number beside paper_value")
    direction: list[Direction] = []
    ordering: list[str] = Field(default=[], description="metrics, largest first")
    magnitude: list[Magnitude] = []
    sensitivity: list[Magnitude] = Field(default=[], description="bounds for the worst settings")
    out_of_scope: str | None = Field(default=None, description="why it is not tested")

    @model_validator(mode="after")
    def _has_a_rule(self) -> "Claim":
        if self.out_of_scope is None and not (self.direction or self.ordering or self.magnitude):
            raise ValueError(f"claim {self.id} has no rule: give direction, ordering or magnitude")
        return self


def load_claims(path: Path | None = None) -> list[Claim]:
    """Read and check ``path`` (``claims.yaml`` unless given).

    Raises:
        ClaimsError: one sentence naming the first claim that is wrong.
    """
    path = path or paths.CLAIMS
    try:
        items = read_yaml(path, LARGEST)
        if not isinstance(items, list):
            raise ClaimsError(f"{path.name} holds no list of claims.")
        claims = [Claim.model_validate(item) for item in items]
    except params.ParameterError as error:
        raise ClaimsError(str(error)) from None
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


def judge(claim: Claim, run: dict[str, Any] | None) -> dict[str, Any]:
    """The scorecard's row for one claim, given its notebook's ``metrics.json`` (None: no run)."""
    row: dict[str, Any] = {
        "id": claim.id,
        "paper": claim.paper,
        "source": claim.source,
        "statement": " ".join(claim.statement.split()),
        "paper_value": claim.paper_value,
        "ours": None,
        "ci95": None,
        "n": None,
        "direction": None,
        "ordering": None,
        "magnitude": None,
        "sensitivity": None,
        "beyond_noise": None,
    }
    if claim.out_of_scope is not None:
        return row | {"verdict": "out of scope", "reason": claim.out_of_scope}
    if run is None:
        return row | {"verdict": "not run", "reason": f"{_notebooks(claim)} has no results here"}
    standins = [name for name, variant in run["data"].items() if variant == "standin"]
    if standins:
        reason = f"stand-in data ({', '.join(standins)}): no claim counts as tested from it"
        return row | {"verdict": "not run", "reason": reason}
    metrics = run["metrics"]
    missing = sorted(name for name in _names(claim) if name not in metrics)
    if missing:
        reason = f"{_notebooks(claim)} gives no {', '.join(missing)} in this profile"
        return row | {"verdict": "not run", "reason": reason}
    if claim.metric is not None:
        ours = metrics[claim.metric]
        row |= {"ours": ours["value"], "ci95": ours["ci95"], "n": ours["n"]}
    results, reasons = _apply(claim, metrics)
    row |= results
    sturdy = results["sensitivity"] is not False and results["beyond_noise"] is not False
    held = [results[kind] for kind in _DECISIVE if results[kind] is not None]
    whole = all(held) and sturdy
    verdict = "replicated" if whole else "partial" if any(held) else "not replicated"
    return row | {"verdict": verdict, "reason": "; ".join(reasons)}


def _notebooks(claim: Claim) -> str:
    return " or ".join((claim.notebook, *claim.besides))


def _names(claim: Claim) -> set[str]:
    rules = *claim.direction, *claim.magnitude, *claim.sensitivity
    names = {rule.metric for rule in rules} | set(claim.ordering)
    names |= {rule.than for rule in claim.direction if isinstance(rule.than, str)}
    return names | ({claim.metric} if claim.metric else set())


def _apply(
    claim: Claim, metrics: dict[str, dict[str, Any]]
) -> tuple[dict[str, bool | None], list[str]]:
    """Each kind of rule's outcome (None where there is no such rule) and a sentence on each."""
    value = {name: item["value"] for name, item in metrics.items()}
    half = {name: _half_width(item["ci95"]) for name, item in metrics.items()}
    reasons = []
    outcomes: dict[str, list[bool]] = {
        kind: [] for kind in (*_DECISIVE, "sensitivity", "beyond_noise")
    }

    def weigh(gap: float, noise: float) -> None:
        if noise > 0.0:
            outcomes["beyond_noise"].append(gap > noise)
            if gap <= noise:
                reasons.append(f"a difference of {gap:.4g} is within its interval, ± {noise:.4g}")

    for rule in claim.direction:
        than = value[rule.than] if isinstance(rule.than, str) else rule.than
        holds = value[rule.metric] >= than + rule.by
        outcomes["direction"].append(holds)
        reasons.append(
            f"{rule.metric} = {value[rule.metric]:.4g} is {'' if holds else 'not '}"
            f"at least {than:.4g} + {rule.by:g}"
        )
        if holds:
            spread = half[rule.than] if isinstance(rule.than, str) else 0.0
            weigh(value[rule.metric] - than, math.hypot(half[rule.metric], spread))
    if claim.ordering:
        ranked = [value[name] for name in claim.ordering]
        holds = all(a > b for a, b in pairwise(ranked))
        outcomes["ordering"].append(holds)
        chain = " > ".join(f"{name} ({value[name]:.4g})" for name in claim.ordering)
        reasons.append(f"the order {chain} {'holds' if holds else 'does not hold'}")
        if holds:
            for more, less in pairwise(claim.ordering):
                weigh(value[more] - value[less], math.hypot(half[more], half[less]))
    bounds = {"magnitude": claim.magnitude, "sensitivity": claim.sensitivity}
    for kind, rule in ((kind, rule) for kind, rules in bounds.items() for rule in rules):
        low = -float("inf") if rule.at_least is None else rule.at_least
        high = float("inf") if rule.at_most is None else rule.at_most
        holds = low <= value[rule.metric] <= high
        outcomes[kind].append(holds)
        reasons.append(
            f"{rule.metric} = {value[rule.metric]:.4g} is {'' if holds else 'not '}"
            f"in [{low:g}, {high:g}]"
        )
    return {kind: all(held) if held else None for kind, held in outcomes.items()}, reasons


def _half_width(interval: list[float] | None) -> float:
    return 0.0 if interval is None else 0.5 * (interval[1] - interval[0])


def scorecard(profile: str) -> list[dict[str, Any]]:
    """Every claim's row, from the results of one profile."""
    return [judge(claim, _runs(profile, claim)) for claim in load_claims()]


def _runs(profile: str, claim: Claim) -> dict[str, Any] | None:
    """The metrics of all notebooks that a claim names; None unless all of them have been run."""
    runs = [_metrics(profile, name) for name in (claim.notebook, *claim.besides)]
    if None in runs:
        return None
    used = [pair for run in runs for pair in run["data"].items()]
    return {
        "data": dict(sorted(used, key=lambda pair: pair[1] == "standin")),  # a stand-in overrides
        "metrics": dict(ChainMap(*(run["metrics"] for run in runs))),
    }


def _metrics(profile: str, notebook: str) -> dict[str, Any] | None:
    """A notebook's metrics; those of ``bench`` are its numbers, ``<benchmark>.<key>``."""
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
    return {
        # "enron, repacked": the data set and its variant
        "data": {name: record["data"].split(", ")[-1] for name, record in benchmarks.items()},
        "metrics": {
            f"{name}.{key}": {"value": value, "ci95": None, "n": record["n"]}
            for name, record in benchmarks.items()
            for key, value in record.items()
            if isinstance(value, int | float)
        },
    }


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
