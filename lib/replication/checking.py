"""A run of a notebook that compares units with what is on record instead of computing them all.

:mod:`replication.verify` writes a plan and starts the notebook; this module carries the plan out in
the notebook's process. Two kinds of plan: **verify** computes the named units from nothing and
stops when the last of them is compared; units that the clone lacks are computed and filed, because
others may need what they return. **adopt** goes through the whole notebook under changed
code, computes a sample, and takes every other unit from the record that was at its place before.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replication import paths, records

if TYPE_CHECKING:
    from replication.units import Unit, Units


class Compared(Exception):  # noqa: N818 - nothing went wrong
    """All units of the plan have been compared; the rest of the notebook is not run."""


class NoRecordError(LookupError):
    """A unit that is to be adopted has no record; one sentence."""


def place(label: str, index: int) -> str:
    """The name of a unit in a plan: its label, and its number among the calls under this label."""
    return f"{label} {index}"


def answer(units: "Sequence[Unit]", runner: "Units") -> list[Any]:
    """Results of ``units`` from records; those that the plan selects are computed and compared."""
    plan = json.loads(Path(os.environ[paths.CHECK_VARIABLE]).read_text(encoding="utf-8"))
    report = Path(plan["report"])
    answers = _verified if plan["mode"] == "verify" else _adopted
    return answers(units, runner, plan, report)


def _verified(
    units: "Sequence[Unit]", runner: "Units", plan: dict[str, Any], report: Path
) -> list[Any]:
    from replication.units import find

    known = {number: find(unit.key) for number, unit in enumerate(units)}
    missing = [number for number, found in known.items() if found is None]
    results = {number: found[1] for number, found in known.items() if found is not None}
    wanted = set(plan["keys"]) - _compared(report)
    chosen = {units[number].key: number for number in results if units[number].key in wanted}
    _compute(units, runner, list(chosen.values()), results, report)
    label = f"{units[0].label}: not in this clone" if units else ""
    results |= dict(runner.run(units, missing, label))
    if set(plan["keys"]) <= _compared(report):
        raise Compared
    return [results[number] for number in range(len(units))]


def _adopted(
    units: "Sequence[Unit]", runner: "Units", plan: dict[str, Any], report: Path
) -> list[Any]:
    known = [_known(unit, plan) for unit in units]
    results = {number: result for number, (_, result) in enumerate(known)}
    chosen = [n for n, unit in enumerate(units) if place(unit.label, unit.index) in plan["sample"]]
    _compute(units, runner, chosen, results, report)
    for unit, (about, _) in zip(units, known, strict=True):
        if about["key"] != unit.key:
            _append(report, {"adopt": about["key"], "under": unit.about})
        runner.note(unit, about | {"key": unit.key})
    return [result for _, result in known]


def _known(unit: "Unit", plan: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    from replication.units import find

    for key in (unit.key, plan["records"].get(place(unit.label, unit.index), "")):
        found = find(key) if key else None
        if found is not None:
            return found
    raise NoRecordError(f"unit {unit.index} of {unit.label!r} is on no record here.")


def _compute(
    units: "Sequence[Unit]",
    runner: "Units",
    chosen: list[int],
    results: dict[int, Any],
    report: Path,
) -> None:
    """Compute the chosen units anew and report how they compare with ``results``."""
    label = f"{units[0].label}: again" if units else ""
    for number, result in runner.run(units, chosen, label, keep=False):
        _report(report, units[number], records.compare(results[number], result))


def _report(report: Path, unit: "Unit", found: records.Comparison) -> None:
    _append(
        report,
        {
            "label": unit.label,
            "index": unit.index,
            "key": unit.key,
            "verdict": found.verdict,
            "worst": found.worst,
            "where": found.where,
        },
    )


def _append(report: Path, line: dict[str, Any]) -> None:
    with report.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def _compared(report: Path) -> set[str]:
    """Keys of the units compared so far."""
    if not report.is_file():
        return set()
    lines = map(json.loads, report.read_text(encoding="utf-8").splitlines())
    return {line["key"] for line in lines if "verdict" in line}
