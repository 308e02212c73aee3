"""Where the computing time goes: ``python -m replication.costs [--profile paper]``.

Adds up ``units.csv``, the CPU seconds of every unit as its record has them, whenever it was
computed. For the paper profile the sums are written to ``results/costs.json``.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from poisoning.datasets import files
from poisoning.errors import DataError
from replication import paths
from replication.params import PROFILES
from replication.provenance import tracked_notebooks
from replication.reading import ReadingError
from replication.units import read_table

HOUR = 3600.0


def costs(profile: str) -> dict[str, dict[str, Any]]:
    """CPU hours, units and machine by notebook, in all and by kind of unit; dearest first.

    Notebooks without units are left out. Raises ``ReadingError`` for a damaged table.
    """
    found = {}
    for name in tracked_notebooks() or ():
        rows = read_table(paths.pipeline_results(profile, name))
        if not rows:
            continue
        by_kind: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            by_kind[row["label"]].append(row["cpu_seconds"])
        kinds = {
            label: {"cpu_hours": round(sum(spent) / HOUR, 4), "units": len(spent)}
            for label, spent in sorted(by_kind.items(), key=lambda one: -sum(one[1]))
        }
        found[name] = {
            "cpu_hours": round(sum(row["cpu_seconds"] for row in rows) / HOUR, 4),
            "units": len(rows),
            "machine": ", ".join(sorted({row["cpu"] for row in rows})),
            "kinds": kinds,
        }
    return dict(sorted(found.items(), key=lambda one: -one[1]["cpu_hours"]))


def cpu_hours(folder: Path) -> float | None:
    """CPU hours of the units in a folder of results; None where it has no units on record."""
    rows = read_table(folder)
    return sum(row["cpu_seconds"] for row in rows) / HOUR if rows else None


def table(found: dict[str, dict[str, Any]]) -> str:
    """The same for a reader: a line for each notebook and, indented, for each kind of unit."""
    lines = [f"{'CPU h':>8} {'units':>6}"]
    for name, cost in found.items():
        lines.append(f"{cost['cpu_hours']:8.3f} {cost['units']:6} {name} on {cost['machine']}")
        lines += [
            f"{kind['cpu_hours']:8.3f} {kind['units']:6}     {label}"
            for label, kind in cost["kinds"].items()
        ]
    total = sum(cost["cpu_hours"] for cost in found.values())
    units = sum(cost["units"] for cost in found.values())
    return "\n".join([*lines, f"{total:8.3f} {units:6} in all"])


def main(arguments: list[str] | None = None) -> int:
    """Print the table of one profile; write the paper profile's to ``results/costs.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=PROFILES, default="paper")
    profile = parser.parse_args(arguments).profile
    try:
        found = costs(profile)
        if not found:
            print(f"There are no units of the profile {profile}: `make repro PROFILE={profile}`.")
            return 1
        print(table(found))
        if profile == "paper":
            text = json.dumps(found, indent=1) + "\n"
            files.write_text(paths.ROOT / "results" / "costs.json", text)
    except (ReadingError, DataError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
