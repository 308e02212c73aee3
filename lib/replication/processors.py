"""How far the demo's numbers move on other processors, each imitated by settings of the libraries.

python -m replication.processors [notebook …] [--as sse avx avx2]
    run notebooks as they are and as on other processors, one after another; compare metric by
    metric and write results/processors.json

A library chooses its kernels by the processor, and each kernel adds in another order. The same
choice can be forced by variables: for numpy, OpenBLAS, MKL, oneDNN, torch and numba. Only older
processors than this one can be imitated. Units of work are kept below ``.cache/processors``, so a
run that was interrupted goes on where it was.

A metric over repeats is compared with half the length of its 95 % interval. One without repeats, or
with an interval of no length, has nothing to compare with but :data:`TOLERANCE`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from poisoning.datasets import files
from poisoning.errors import DataError
from replication import paths
from replication.provenance import machine, tracked_notebooks, tree_state
from replication.records import TOLERANCE

PROFILE = "demo"
HERE = "here"
"""The name of the runs on this processor as it is."""

_NUMPY = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
"""All kernels of numpy beyond its baseline, SSE 4.2."""

PROCESSORS = {
    "sse": {
        "NPY_DISABLE_CPU_FEATURES": _NUMPY, "OPENBLAS_CORETYPE": "Nehalem",
        "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default",
        "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "",
    },
    "avx": {
        "NPY_DISABLE_CPU_FEATURES": _NUMPY, "OPENBLAS_CORETYPE": "Sandybridge",
        "MKL_CBWR": "AVX", "ONEDNN_MAX_CPU_ISA": "AVX", "ATEN_CPU_CAPABILITY": "default",
        "NUMBA_CPU_NAME": "sandybridge",
    },
    "avx2": {
        "NPY_DISABLE_CPU_FEATURES": _NUMPY.removeprefix("X86_V3 "), "OPENBLAS_CORETYPE": "Haswell",
        "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "NUMBA_CPU_NAME": "haswell",
    },
}  # fmt: skip
"""Variables under which the libraries compute as on processors with these instructions."""


class ProcessorError(RuntimeError):
    """A notebook could not be run; one sentence."""


def metrics(name: str, processor: str) -> dict[str, Any]:
    """The metrics of a notebook as computed on a processor, :data:`HERE` or an imitated one.

    Raises:
        ProcessorError: the notebook fails there.
    """
    folder = paths.cache() / "processors" / processor
    settings = PROCESSORS.get(processor, {})
    own = {paths.RESULTS_VARIABLE: str(folder), paths.CACHE_VARIABLE: str(folder / "units")}
    foreign = {variable for found in PROCESSORS.values() for variable in found}
    kept = {key: value for key, value in os.environ.items() if key not in foreign}
    command = [sys.executable, "-m", "replication.run", name, "--profile", PROFILE]
    done = subprocess.run(
        command, env=kept | settings | own, cwd=paths.ROOT, capture_output=True, text=True
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        raise ProcessorError(f"{name} as {processor}: {said[-1]}")
    file = folder / PROFILE / name / "metrics.json"
    return json.loads(file.read_text(encoding="utf-8"))["metrics"]


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """What differs between two processors' metrics, the worst first.

    ``interval`` lists metrics that moved against half the length of their interval, ``none`` those
    that have no interval and moved by more than :data:`TOLERANCE`, each as name, value, difference
    and half length (None where there is none).

    Raises:
        ProcessorError: the two have different metrics.
    """
    if here.keys() != there.keys():
        name = min(here.keys() ^ there.keys())
        raise ProcessorError(f"the metric {name} is missing on one of the processors.")
    judged: list[dict[str, Any]] = []
    bare: list[dict[str, Any]] = []
    for name, one in here.items():
        gap = abs(there[name]["value"] - one["value"])
        ends = one["ci95"] or (0.0, 0.0)
        half = (ends[1] - ends[0]) / 2.0
        row = {"metric": name, "value": one["value"], "difference": gap}
        if half > TOLERANCE * abs(one["value"]):
            judged.append(row | {"half": half, "ratio": gap / half})
        elif gap > TOLERANCE * max(abs(one["value"]), abs(there[name]["value"])):
            bare.append(row)
    judged.sort(key=lambda row: -row["ratio"])
    bare.sort(key=lambda row: -row["difference"])
    moved = sum(there[name]["value"] != one["value"] for name, one in here.items())
    return {
        "metrics": len(here),
        "moved": moved,
        "with_interval": len(judged),
        "beyond": [row for row in judged if row["ratio"] > 1.0],
        "worst": judged[0] if judged and judged[0]["ratio"] > 0.0 else None,
        "no_interval": bare,
    }


def summary(found: Mapping[str, Any]) -> str:
    """One line for a reader."""
    worst = found["worst"]
    text = f"{found['moved']} of {found['metrics']} metrics moved"
    if worst is not None:
        text += (
            f", at worst by {worst['ratio']:.2g} of its interval's half length ({worst['metric']}, "
            f"{worst['difference']:.2g})"
        )
    if found["no_interval"]:
        first = found["no_interval"][0]
        text += (
            f"; without an interval {len(found['no_interval'])}, at worst by "
            f"{first['difference']:.2g} ({first['metric']})"
        )
    return text


def main(arguments: list[str] | None = None) -> int:
    """Command line; status 1 where a metric moves by more than its interval, or nothing runs."""
    known = sorted((tracked_notebooks() or set()) - {"scorecard"})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", metavar="notebook", help="all unless named")
    parser.add_argument("--as", dest="processors", nargs="+", choices=PROCESSORS, default=[
        *PROCESSORS])  # fmt: skip
    options = parser.parse_args(arguments)
    target = paths.ROOT / "results" / "processors.json"
    record = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    failed = False
    for name in options.notebooks or known:
        for processor in options.processors:
            try:
                found = differences(metrics(name, HERE), metrics(name, processor))
                about = {"commit": tree_state()["commit"], "cpu": machine()["cpu"]}
                record.setdefault(name, {})[processor] = found | about
                text = json.dumps(record, indent=1, sort_keys=True) + "\n"
                files.write_text(target, text)
            except (ProcessorError, DataError) as error:
                print(error, file=sys.stderr)
                failed = True
                continue
            print(f"{name} as {processor}: {summary(found)}", flush=True)
            failed = failed or bool(found["beyond"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
