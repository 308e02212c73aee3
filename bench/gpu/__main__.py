"""``python -m bench.gpu run``; ``pack`` writes its input, ``merge`` files what another made.

``run`` writes a row for every part into results/bench.json and a record for every unit into
.cache/units, or both into the folder that ``--out`` names, which ``merge`` then takes.
"""

import argparse
import os
import platform
import shutil
import sys
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from bench.gpu import experiments, hypergradients, pack
from bench.gpu.ledger import Ledger, Part
from bench.rows import merge
from poisoning.errors import DataError
from replication import paths
from replication.provenance import cpu_model
from replication.reading import ReadingError, read_result

ENDS = {"hypergradients": 150.0, "networks": 270.0, "width": 410.0, "alexnet": 465.0}
"""Seconds from the beginning at which every part ends, in the order in which they run."""


def machine(device: str) -> dict[str, Any]:
    """What the seconds were measured on."""
    found = {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "card": card(device),
    }
    if device == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        found |= {"cuda": torch.version.cuda, "memory_GB": round(memory / 1e9, 1)}
    return found


def card(device: str) -> str:
    """The name of the GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device == "cuda" else "cpu"


def run(given: pack.Pack, device: str, table: Path, folder: Path) -> int:
    """All parts; 1 if one failed, after the others have run."""
    ledger = Ledger(folder, {**given.state, "notebook": "bench.gpu", "card": card(device)})
    about = {"machine": machine(device), "commit": given.state["commit"]}
    makers = {
        "hypergradients": hypergradients.rows,
        "networks": experiments.networks,
        "width": partial(experiments.curves, experiments.width_plan(given)),
        "alexnet": partial(experiments.curves, experiments.alexnet_plan(given)),
    }
    failed, first = 0, time.perf_counter()
    for name, make in makers.items():
        begun = time.perf_counter()
        part = Part(name, ledger, ENDS[name] - (begun - first))
        try:
            for rows in make(part, given, device):
                merge(table, {key: row | about for key, row in rows.items()})
        except Exception:  # the other parts may still be had
            traceback.print_exc()
            failed = 1
        took = time.perf_counter() - begun
        print(f"{name}: {part.computed} units in {took:.0f} s, {part.left} left", flush=True)
        if device == "cuda":
            torch.cuda.empty_cache()
    return failed


def take(folder: Path) -> None:
    """File the rows and the records of another machine's ``--out`` folder here.

    Raises:
        ReadingError: the folder has no rows.
    """
    rows = read_result(folder / "bench.json", dict, "name the folder that `run --out` wrote")
    merge(paths.ROOT / "results" / "bench.json", rows)
    for record in sorted((folder / "units").glob("*/*.npz")):
        target = paths.unit_cache() / record.parent.name / record.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record, target)


def main() -> int:
    """Do what is asked; one sentence on what cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="write data and knobs into one file")
    packing.add_argument("--profile", choices=hypergradients.PLANS, default="paper")
    running = verbs.add_parser("run", help="compute what is missing")
    running.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    running.add_argument("--out", type=Path, help="folder for rows and records")
    for verb in (packing, running):
        verb.add_argument("--pack", type=Path, default=pack.default(), help="the file")
    verbs.add_parser("merge", help="file what `run --out` wrote").add_argument("out", type=Path)
    asked = parser.parse_args()
    try:
        if asked.verb == "pack":
            size = pack.write(asked.pack, asked.profile)
            print(f"{asked.pack}: {size / 1e6:.1f} MB")
            return 0
        if asked.verb == "merge":
            take(asked.out)
            return 0
        if asked.device == "cuda" and not torch.cuda.is_available():
            raise DataError(
                "no CUDA device was found. To try the script on a CPU, at toy size: "
                "`python -m bench.gpu pack --profile demo`, then `run --device cpu`."
            )
        if asked.pack == pack.default() and not asked.pack.exists():
            with suppress(ImportError):  # without the pipeline's packages; then reading says more
                pack.write(asked.pack, "paper")
        given = pack.read(asked.pack)
        if asked.device == "cpu" and given.profile != "demo":
            raise DataError("a CPU would take days for this: pack the profile demo for it.")
        table = paths.ROOT / "results" / "bench.json"
        folder = paths.unit_cache()
        if asked.out is not None:
            table, folder = asked.out / "bench.json", asked.out / "units"
        return run(given, asked.device, table, folder)
    except (DataError, ReadingError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
