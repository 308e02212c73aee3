"""Units computed again and compared with their records.

python -m replication.verify --sample 5 --seed 0 [--profile quick] [--notebook koh2021/kkt]
    random units from nothing, of notebooks whose code and knobs are those of their results; writes
    results/verify.json
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
from replication import params, paths, records
from replication.checking import place
from replication.fingerprint import Reader
from replication.project import Project
from replication.provenance import machine, tree_state
from replication.reading import read_result
from replication.run import NotebookError, compare_units, reported, staging
from replication.units import TABLE, find, places, read_table, unit_file

REPORT = "verify.json"


class VerifyError(NotebookError):
    """There is nothing to compare, or a comparison fails; one sentence."""


def recorded(profile: str) -> dict[str, list[dict[str, Any]]]:
    """The units of a profile, by notebook, each once; ``here`` says whether its record lies here.

    Notebooks without any record here are left out.
    """
    found = {}
    for table in sorted((paths.ROOT / "results" / profile).glob(f"*/*/{TABLE}")):
        rows = {row["key"]: row for row in read_table(table.parent)}.values()
        rows = [row | {"here": any(f.is_file() for f in places(row["key"]))} for row in rows]
        if any(row["here"] for row in rows):
            found[f"{table.parent.parent.name}/{table.parent.name}"] = rows
    return found


def verify(profile: str, sample: int, seed: int, notebook: str | None = None) -> dict[str, Any]:
    """Compute ``sample`` random units from nothing and compare; the content of ``verify.json``.

    Raises:
        NotebookError: there is no such notebook.
        VerifyError: no unit is on record that could be computed by the present code.
    """
    if notebook is not None and not params.notebook_file(notebook).is_file():
        raise NotebookError(f"there is no notebook {notebook!r}: write <paper>/<section>.")
    known = {n: rows for n, rows in recorded(profile).items() if notebook in (None, n)}
    if not known:
        raise VerifyError(
            f"no units of {notebook or 'any notebook'} in the profile {profile} are on record "
            f"here: run `make repro PROFILE={profile}` first, or verify another profile."
        )
    reader = Reader(Project.of_tree())
    reasons = {name: _changed(name, profile, reader) for name in known}
    units = [(n, row) for n, rows in known.items() if not reasons[n] for row in rows if row["here"]]
    chosen = random.Random(seed).sample(units, min(sample, len(units)))
    lines = []
    for name in sorted({name for name, _ in chosen}):
        keys = [row["key"] for its, row in chosen if its == name]
        print(f"{name}: {len(keys)} of its units from nothing{_lacking(known[name])}", flush=True)
        found, reasons[name] = _compare(name, profile, {"mode": "verify", "keys": keys})
        lines += [line | {"notebook": name} for line in found if "verdict" in line]
        if not reasons[name] and len(found) < len(keys):
            reasons[name] = "with its data as they are here, it asks for other units."
    skipped = [{"notebook": name, "reason": why} for name, why in reasons.items() if why]
    return {
        "profile": profile,
        "sample": sample,
        "seed": seed,
        "on_record": len(units),
        "tolerance": records.TOLERANCE,
        "counts": dict(Counter(line["verdict"] for line in lines)),
        "units": lines,
        "skipped": skipped,
        **tree_state(),
        **machine(),
    }


def _changed(name: str, profile: str, reader: Reader) -> str:
    """Why the units of a notebook cannot be those of the present tree; empty if they can."""
    folder = paths.pipeline_results(profile, name)
    again = f"run `dvc repro --force --single-item {paths.stage_name(name)}@{profile}`"
    code = read_result(folder / "provenance.json", lambda found: str(found["fingerprint"]), again)
    if not params.notebook_file(name).is_file():
        return "there is no such notebook any more."
    if reader.notebook(name).value != code:
        return "its code has changed since its units were computed."
    try:
        _same_inputs(name, profile, folder)
    except VerifyError as error:
        return str(error).removeprefix(f"{name}: ")
    return ""


def _lacking(rows: list[dict[str, Any]]) -> str:
    """What has to be computed besides, in words."""
    rows = [row for row in rows if not row["here"]]
    if not rows:
        return ""
    hours = sum(row["cpu_seconds"] for row in rows) / 3600
    return f"; {len(rows)} others are not in this clone: up to {hours:.2g} CPU hours more"


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
                reason = "a unit is on no record here: run its stage in place of adopting it."
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
    return reported(lambda: _adopt(options) if options.adopt else _verify(options))


def _adopt(options: argparse.Namespace) -> int:
    compared, filed = adopt(options.adopt, options.profile, options.sample, options.seed)
    print(f"{options.adopt}: {compared} units computed anew, all equal; {filed} filed.")
    return 0


def _verify(options: argparse.Namespace) -> int:
    found = verify(options.profile, options.sample, options.seed, options.notebook)
    files.write_text(paths.ROOT / "results" / REPORT, json.dumps(found, indent=1) + "\n")
    for line in found["units"]:
        by = "" if line["verdict"] == "equal" else f" by {line['worst']:.2g} at {line['where']}"
        print(f"  {line['notebook']}, {line['label']} {line['index']}: {line['verdict']}{by}")
    for line in found["skipped"]:
        print(f"  {line['notebook']}: not compared: {line['reason']}")
    return int("different" in found["counts"] or not found["units"])


if __name__ == "__main__":
    sys.exit(main())
