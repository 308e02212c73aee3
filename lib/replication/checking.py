"""A run of a notebook that compares units with what is on record instead of computing them all.

:mod:`replication.verify` writes a plan and starts the notebook; this module carries the plan out in
the notebook's process. Two kinds of plan: **verify** computes the named units from nothing and
stops when the last of them is compared. **adopt** goes through the whole notebook under changed
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
    """A unit without a record would have to be computed; one sentence."""


def place(label: str, index: int) -> str:
    """The name of a unit in a plan: its label, and its number among the calls under this label."""
    return f"{label} {index}"


def answer(units: "Sequence[Unit]", runner: "Units") -> list[Any]:
    """Results of ``units`` from records; those that the plan selects are computed and compared."""
    plan = json.loads(Path(os.environ[paths.CHECK_VARIABLE]).read_text(encoding="utf-8"))
    report = Path(plan["report"])
    known = [_known(unit, plan) for unit in units]
    chosen = [number for number, unit in enumerate(units) if _is_chosen(unit, plan)]
    label = f"{units[0].label}: again" if units else ""
    for number, result in runner.run(units, chosen, label, keep=False):
        found = records.compare(known[number][1], result)
        _report(report, units[number], found)
    for unit, (about, _) in zip(units, known, strict=True):
        if about["key"] != unit.key:
            _append(report, {"adopt": about["key"], "under": unit.about})
        runner.note(unit, about | {"key": unit.key})
    if plan["mode"] == "verify" and _count(report) >= len(plan["keys"]):
        raise Compared
    return [result for _, result in known]


def _known(unit: "Unit", plan: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    from replication.units import find

    keys = [unit.key]
    if plan["mode"] == "adopt":
        keys.append(plan["records"].get(place(unit.label, unit.index), ""))
    for key in keys:
        found = find(key) if key else None
        if found is not None:
            return found
    raise NoRecordError(f"unit {unit.index} of {unit.label!r} is on no record here.")


def _is_chosen(unit: "Unit", plan: dict[str, Any]) -> bool:
    if plan["mode"] == "verify":
        return unit.key in plan["keys"]
    return place(unit.label, unit.index) in plan["sample"]


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


def _count(report: Path) -> int:
    """Units compared so far."""
    if not report.is_file():
        return 0
    lines = map(json.loads, report.read_text(encoding="utf-8").splitlines())
    return sum("verdict" in line for line in lines)
