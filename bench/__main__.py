"""``python -m bench [name …]``: run all entries, or those named, and write results/bench.json."""

import argparse
import os
import platform
import sys
from importlib.metadata import version

from tqdm import tqdm

from bench.entries import ENTRIES
from bench.rows import merge
from replication import paths
from replication.provenance import cpu_model, tree_state


def machine() -> dict[str, str | int]:
    """What the seconds were measured on."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 0,
        "threads": os.environ["OMP_NUM_THREADS"],
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "cvxpy", "clarabel")},
    }


def main() -> int:
    """Run, print a line per entry, merge into the file; entries whose peers lack are left out."""
    names = [entry.NAME for entry in ENTRIES]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(names)}")
    chosen = parser.parse_args().names or names
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        parser.error(f"no entry {unknown[0]!r}; there are {', '.join(names)}")

    target = paths.ROOT / "results" / "bench.json"
    for entry in ENTRIES:
        if entry.NAME not in chosen:
            continue
        with tqdm(desc=entry.NAME, unit="run", file=sys.stderr) as bar:
            try:
                record = entry.run(bar)
            except ModuleNotFoundError as missing:
                print(f"{entry.NAME}: left out: {missing}", file=sys.stderr)
                continue
        # After each entry: a run cut short keeps what it has.
        about = {"machine": machine(), "commit": tree_state()["commit"]}
        merge(target, {entry.NAME: record | about})
        print(f"{entry.NAME}: {entry.summary(record)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
