"""``python -m fuzz [name …]``: try random problems, files and faults; write results/fuzz.json.

Returns 1 if anything was wrong or crashed.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from fuzz import doors, interruption, params, solvers
from fuzz import files as archives
from poisoning.datasets import files
from replication import paths
from replication.provenance import machine

MINUTES = 10.0
"""What all but the doors share, by default."""


def subjects(seed: int, minutes: float) -> dict[str, Callable[[], dict[str, Any]]]:
    """What can be tried, by name; each returns counts, or counts by name."""
    share = 60.0 * minutes / 10.0
    return {
        **{
            name: lambda name=name: solvers.run(seed, budget_seconds=share, names=(name,))[name]
            for name in solvers.SOLVERS
        },
        params.NAME: lambda: params.run(seed, budget_seconds=share),
        archives.NAME: lambda: archives.run(seed, budget_seconds=share),
        interruption.NAME: lambda: interruption.run(seed, max(1, round(3 * minutes))),
        doors.NAME: lambda: doors.run(seed, every=max(1, round(60 / minutes))),
    }


def main() -> int:
    """Try, print a line per subject, merge into the file."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(subjects(0, MINUTES)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"by default {MINUTES:g}")
    options = parser.parse_args()
    chosen = subjects(options.seed, options.minutes)
    unknown = sorted(set(options.names) - set(chosen))
    if unknown:
        parser.error(f"no subject {unknown[0]!r}; there are {', '.join(chosen)}")

    target = paths.ROOT / "results" / "fuzz.json"
    records = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    bad = 0
    for name in options.names or chosen:
        record = chosen[name]()
        bad += record["wrong"] + record["crashed"]
        records[name] = record | {"machine": machine()}
        # Written after each subject: a run cut short keeps what it has.
        files.write_text(target, json.dumps(records, indent=2, sort_keys=True) + "\n")
        counts = (f"{record[key]} {key}" for key in ("right", "refused", "wrong", "crashed"))
        print(f"{name}: {record['tried']} tried, {', '.join(counts)}", flush=True)
        for sample in record.get("samples", []):
            print(f"    {sample}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
