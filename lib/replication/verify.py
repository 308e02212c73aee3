"""Units computed again and compared with their records.

python -m replication.verify --sample 5 --seed 0 [--profile quick] [--notebook koh2021/kkt]
    random units from nothing; writes results/verify.json
python -m replication.verify --adopt koh2021/kkt --profile paper --sample 3
    after a change of the code that should change no number: a sample of every kind of unit is
    computed anew; if all are equal to the last bit, the other records are filed under the new code,
    and say so
"""

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from poisoning.datasets import files
from poisoning.errors import DataError
from replication import params, paths, records
from replication.checking import place
from replication.provenance import machine, tree_state
from replication.reading import ReadingError, read_result
from replication.run import NotebookError, compare_units, staging
from replication.units import TABLE, find, places, read_table, unit_file

REPORT = "verify.json"


class VerifyError(RuntimeError):
    """There is nothing to compare, or a comparison fails; one sentence."""


def recorded(profile: str, notebook: str | None = None) -> list[dict[str, Any]]:
    """The units of a profile whose records lie here, each with its notebook."""
    found = []
    base = paths.ROOT / "results" / profile
    for table in sorted(base.glob(f"*/*/{TABLE}")):
        name = f"{table.parent.parent.name}/{table.parent.name}"
        if notebook in (None, name):
            rows = read_table(table.parent)
            found += [
                row | {"notebook": name}
                for row in rows
                if any(file.is_file() for file in places(row["key"]))
            ]
    return found


def verify(profile: str, sample: int, seed: int, notebook: str | None = None) -> dict[str, Any]:
    """Compute ``sample`` random units from nothing and compare; the content of ``verify.json``.

    Raises:
        VerifyError: no unit is on record.
    """
    known = recorded(profile, notebook)
    if not known:
        raise VerifyError(
            f"no units of the profile {profile} are on record here: run `make repro "
            f"PROFILE={profile}` first, or verify another profile."
        )
    chosen = random.Random(seed).sample(known, min(sample, len(known)))
    lines, skipped = [], []
    for name in sorted({row["notebook"] for row in chosen}):
        keys = [row["key"] for row in chosen if row["notebook"] == name]
        print(f"{name}: {len(keys)} of its units from nothing", flush=True)
        found, reason = _compare(name, profile, {"mode": "verify", "keys": keys})
        lines += [line | {"notebook": name} for line in found if "verdict" in line]
        if reason:
            skipped.append({"notebook": name, "reason": reason})
    return {
        "profile": profile,
        "sample": sample,
        "seed": seed,
        "on_record": len(known),
        "tolerance": records.TOLERANCE,
        "counts": dict(Counter(line["verdict"] for line in lines)),
        "units": lines,
        "skipped": skipped,
        **tree_state(),
        **machine(),
    }


def adopt(name: str, profile: str, sample: int, seed: int) -> tuple[int, int]:
    """File a notebook's records under the present code, if a sample of them is equal.

    At least one unit of every label is computed anew. Returns how many were compared and how many
    were filed.

    Raises:
        VerifyError: the notebook's knobs or data are not those of the records, or a unit differs.
    """
    folder = paths.pipeline_results(profile, name)
    rows = read_table(folder)
    if not rows:
        raise VerifyError(f"{name} has no units of the profile {profile} on record.")
    _same_inputs(name, profile, folder)
    draw = random.Random(seed)
    first = {row["label"]: row for row in draw.sample(rows, len(rows))}
    chosen = {_place(row) for row in first.values()}
    others = [row for row in rows if _place(row) not in chosen]
    more = max(0, sample - len(chosen))
    chosen |= {_place(row) for row in draw.sample(others, min(more, len(others)))}
    plan = {
        "mode": "adopt",
        "records": {_place(row): row["key"] for row in rows},
        "sample": sorted(chosen),
    }
    lines, reason = _compare(name, profile, plan)
    if reason:
        raise VerifyError(f"{name}: {reason}")
    compared = [line for line in lines if "verdict" in line]
    for line in compared:
        if line["verdict"] != "equal":
            raise VerifyError(
                f"{name}: unit {line['index']} of {line['label']!r} is not what it was: "
                f"{line['where']} differs by {line['worst']:.3g}; nothing was filed."
            )
    pending = {line["adopt"]: line["under"] for line in lines if "adopt" in line}
    for key, under in pending.items():
        _refile(key, under, [line["key"] for line in compared])
    return len(compared), len(pending)


def _refile(key: str, under: dict[str, Any], sample: list[str]) -> None:
    found = find(key)
    assert found is not None
    about, result = found
    names = ("key", "function", "fingerprint", "arguments")
    story = {
        "from": about["fingerprint"],
        "computed_at": about["commit"],
        "adopted_at": tree_state()["commit"],
        "equal": sample,
        "before": about["adopted"],
    }
    about = about | {name: under[name] for name in names} | {"adopted": story}
    records.write(unit_file(under["key"]), about, result)


def _place(row: dict[str, Any]) -> str:
    return place(row["label"], row["index"])


def _same_inputs(name: str, profile: str, folder: Path) -> None:
    """Raise ``VerifyError`` unless the notebook's knobs and data are those of the records."""
    again = f"run `dvc repro --force --single-item {name.replace('/', '-')}@{profile}`"
    record = read_result(folder / "provenance.json", lambda found: dict(found["parameters"]), again)
    loaded = params.load(profile)
    now = {"profile": profile, **loaded.section(name), "seed": loaded.seed}
    now |= {key: loaded.section(key) for key in record if "/" in key}
    for knob, value in now.items():
        if record.get(knob) != value:
            raise VerifyError(
                f"{name}: {knob} is {value!r} now and was {record.get(knob)!r} when its units were "
                "computed: only `dvc repro` can answer that."
            )


def _compare(name: str, profile: str, plan: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Run a notebook under a plan: the lines of its report, and why it did not finish, if so."""
    with staging() as folder:
        report = folder / "report.jsonl"
        file = folder / "plan.json"
        file.write_text(json.dumps(plan | {"report": str(report)}), encoding="utf-8")
        reason = ""
        try:
            compare_units(name, profile, file)
        except NotebookError as error:
            if error.cause == "NoRecordError":
                reason = "its code or knobs have changed since its units were computed."
            elif error.cause != "Compared":
                reason = str(error)
        text = report.read_text(encoding="utf-8") if report.is_file() else ""
    return [json.loads(line) for line in text.splitlines()], reason


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is no number of units: write 1 or more")
    return number


def main(arguments: list[str] | None = None) -> int:
    """Command line; status 1 where a unit differs, or nothing could be compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=params.PROFILES, default="paper")
    parser.add_argument("--sample", type=_count, default=5, help="how many units, from 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--notebook")
    parser.add_argument("--adopt", metavar="NOTEBOOK")
    options = parser.parse_args(arguments)
    try:
        if options.adopt:
            compared, filed = adopt(options.adopt, options.profile, options.sample, options.seed)
            print(f"{options.adopt}: {compared} units computed anew, all equal; {filed} filed.")
            return 0
        found = verify(options.profile, options.sample, options.seed, options.notebook)
        files.write_text(paths.ROOT / "results" / REPORT, json.dumps(found, indent=1) + "\n")
    except (VerifyError, NotebookError, ReadingError, params.ParameterError, DataError) as error:
        print(error, file=sys.stderr)
        return 1
    for line in found["units"]:
        by = "" if line["verdict"] == "equal" else f" by {line['worst']:.2g} at {line['where']}"
        print(f"  {line['notebook']}, {line['label']} {line['index']}: {line['verdict']}{by}")
    for line in found["skipped"]:
        print(f"  {line['notebook']}: not compared: {line['reason']}")
    return int("different" in found["counts"] or not found["units"])


if __name__ == "__main__":
    sys.exit(main())
