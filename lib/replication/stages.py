"""The pipeline, derived from the notebooks: ``dvc.yaml`` and what each stage depends on.

    python -m replication.stages                  write dvc.yaml (after adding a notebook)
    python -m replication.stages --fingerprints   write results/fingerprints.json (DVC runs this)

A notebook's stage depends on the fingerprint of its code, on a digest of the knobs it uses in this
profile, and on the content of the data sets whose names stand in its code or among its knobs.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from poisoning.datasets import files, registry
from poisoning.datasets.sources import source
from poisoning.errors import DataError
from replication import params, paths
from replication.components import PATTERN, place
from replication.conventions import PAIRS, whole_set
from replication.digests import digest
from replication.fingerprint import Fingerprint, Reader
from replication.project import Project
from replication.provenance import tracked_notebooks
from replication.reading import ReadingError
from replication.syntax import Reference

PYTHON = "PYTHONPATH=lib python"
"""A stage imports the packages of the tree that it runs in, which may be a copy made by ``dvc exp
run --temp``, and not those of the tree that the environment was made for."""

REGISTRY = "lib/poisoning/datasets/sources.yaml"

SCORECARD = "scorecard"
"""The notebook that judges claims by the numbers of all others."""


@dataclass(frozen=True)
class Needs:
    """What one notebook needs: its code, and by profile its knobs and its data sets."""

    name: str
    code: Fingerprint
    knobs: dict[str, dict[str, Any]]
    data: dict[str, tuple[str, ...]]

    def knobs_digest(self, profile: str) -> str:
        """A digest of the knobs that the notebook uses in this profile."""
        return digest([json.dumps(self.knobs[profile], sort_keys=True)])


class Pipeline:
    """All stages, from the working tree."""

    def __init__(self) -> None:
        self.reader = Reader(Project.of_tree())
        self.params = params.load_all()
        self._needs: dict[str, Needs] = {}

    @cached_property
    def notebooks(self) -> list[str]:
        """The notebooks that git tracks, and those that have a block of knobs."""
        known = tracked_notebooks()
        found = self.reader.project.notebooks
        return [n for n in found if known is None or n in known or self._has_block(n)]

    def _has_block(self, name: str) -> bool:
        paper, _, section = name.partition("/")
        blocks = getattr(self.params["demo"], paper, None)
        return section.replace("-", "_") in getattr(blocks, "model_fields_set", ())

    def needs(self, name: str) -> Needs:
        """What a notebook needs.

        Raises:
            ParameterError: its knobs are missing, or a shared block that it asks for.
        """
        if name not in self._needs:
            self._needs[name] = self._find_needs(name)
        return self._needs[name]

    def _find_needs(self, name: str) -> Needs:
        code = self.reader.notebook(name)
        knobs, data = {}, {}
        for profile, loaded in self.params.items():
            used = {block: loaded.section(block) for block in sorted(code.shared)}
            knobs[profile] = {
                "own": loaded.section(name),
                "shared": used,
                "seed": loaded.seed,
                **({"device": loaded.device} if code.device else {}),
            }
            own = self._components(_words(knobs[profile]))
            if own:
                knobs[profile]["components"] = own
            words = set(code.strings) | set(_words(knobs[profile]))
            sets = {whole_set(word) for word in words if word in {*registry(), *PAIRS}}
            # A data set that cannot be verified is prepared by hand, so no stage depends on it.
            data[profile] = tuple(sorted(s for s in sets if source(s).verifiable))
        return Needs(name, code, knobs, data)

    def _components(self, words: Iterable[str]) -> dict[str, str]:
        """Fingerprints of the classes below ``lib/`` that knobs name; a package's have none."""
        found = {}
        for word in words:
            if PATTERN.fullmatch(word):
                module, name, _ = place(word)
                if module in self.reader.project.modules:
                    if name not in self.reader.project.table(module).definitions:
                        raise params.ParameterError(
                            f"params.yaml: {word}: {module} has no class or function {name}."
                        )
                    found[word] = self.reader.function(module, name).value
        return found

    def data_code(self, origin: str, name: str) -> str:
        """The fingerprint of the code that prepares a data set: its own parser or stand-in only."""
        tables = {
            "real": Reference("poisoning.datasets.parse", "PARSERS"),
            "standin": Reference("poisoning.datasets.standins", "STANDINS"),
        }
        prepare = Reference("poisoning.datasets.preparation", "prepare")
        first = [prepare, *self.reader.entry(tables[origin], name)]
        return self.reader.references(first, without=tables.values()).value

    def fingerprints(self) -> dict[str, Any]:
        """The content of ``results/fingerprints.json``."""
        found: dict[str, Any] = {"knobs": "valid"}
        sets = set()
        for name in self.notebooks:
            needs = self.needs(name)
            code = needs.code.value
            if name == SCORECARD:
                rules = self.reader.function("replication.claims", "main")
                code = digest([code, rules.value])
            found[name] = {"code": code} | {p: needs.knobs_digest(p) for p in params.PROFILES}
            sets |= {s for used in needs.data.values() for s in used}
        found["data"] = {
            f"{origin}-{s}": self.data_code(origin, s)
            for origin in ("real", "standin")
            for s in sorted(sets)
        }
        return found

    def dvc_yaml(self) -> str:
        """The text of ``dvc.yaml``."""
        every = {name: self.needs(name) for name in self.notebooks}
        sets = sorted(
            {s for needs in every.values() for found in needs.data.values() for s in found}
        )
        parts = [_HEAD, *((_fetch(sets), _data(sets)) if sets else ())]
        parts += [self._stage(needs) for name, needs in every.items() if name != SCORECARD]
        if SCORECARD in every:
            parts.append(_scorecard([name for name in every if name != SCORECARD]))
        return "\n".join(parts)

    def _stage(self, needs: Needs) -> str:
        name = needs.name
        folder = f"results/${{key}}/{name}"
        sets = sorted({s for found in needs.data.values() for s in found})
        lines = [
            f"  {paths.stage_name(name)}:",
            "    foreach: ${profiles}",
            "    do:",
            f"      desc: {json.dumps(self._title(name), ensure_ascii=False)}",
            f"      cmd: {PYTHON} -m replication.run {name} --profile ${{key}}",
            "      params:",
            f'        - results/fingerprints.json: ["{name}.code", "{name}.${{key}}"]',
            *(f"        - data/${{item.data}}/{s}/manifest.json: [content]" for s in sets),
            *_outs(folder, name.rpartition("/")[2], figures=self._draws(name)),
        ]
        return "\n".join(lines) + "\n"

    def _title(self, name: str) -> str:
        """A notebook's first heading."""
        text = self.reader.project.files[f"notebooks/{name}.ipynb"]
        first = "".join(json.loads(text)["cells"][0]["source"])
        return first.splitlines()[0].lstrip("# ")

    def _draws(self, name: str) -> bool:
        """Whether a notebook draws figures beside those that show seconds."""
        return any("notebook.figure(" in cell.code for cell in self.reader.project.cells(name))


def _words(value: Any) -> list[str]:
    """All strings among the values of knobs."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [word for item in items for word in _words(item)]


_HEAD = f"""\
# Written by `python -m replication.stages` from the notebooks and params.yaml: do not edit.
# knobs and code -> fetch -> data -> one stage per notebook and profile -> scorecard.
# Results are kept by git (paper) or not at all (demo, quick: numbers and figures of quick only).

params: [params.yaml]

stages:
  fingerprints:
    desc: Refuse a bad knob before anything is computed; say what every stage depends on
    cmd: {PYTHON} -m replication.stages --fingerprints
    deps: [lib, notebooks, params.yaml]
    outs:
      - results/fingerprints.json: {{cache: false}}
"""


def _fetch(sets: list[str]) -> str:
    return f"""\
  fetch:
    foreach: [{", ".join(sets)}]
    do:
      desc: Published files, from DATA_MIRROR or the official site, verified
      cmd: {PYTHON} -m poisoning.datasets fetch ${{item}}
      params:
        - results/fingerprints.json: [knobs]
        - {REGISTRY}: ["${{item}}"]
      outs: ["data/raw/${{item}}"]
"""


def _data(sets: list[str]) -> str:
    items = [f"      real-{s}: {{source: real, set: {s}, from: data/raw/{s}}}" for s in sets]
    items += [f"      standin-{s}: {{source: standin, set: {s}, from: {REGISTRY}}}" for s in sets]
    return "\n".join(
        [
            "  data:",
            "    foreach:",
            *items,
            "    do:",
            "      desc: What notebooks read, parsed from published files or made as a stand-in",
            f"      cmd: {PYTHON} -m poisoning.datasets prepare ${{item.set}} --source "
            "${item.source}",
            '      deps: ["${item.from}"]',
            "      params:",
            '        - results/fingerprints.json: ["data.${key}"]',
            '      outs: ["data/${item.source}/${item.set}"]',
            "",
        ]
    )


def _outs(folder: str, stem: str, *, figures: bool = True) -> list[str]:
    lines = ["      outs:"]
    lines += [
        f"        - {folder}/{o}: {{cache: false}}"
        for o in (f"{stem}.ipynb", "metrics.json", "tables")
    ]
    lines += ["      metrics:", f"        - {folder}/headline.json: {{cache: false}}"]
    if figures:
        lines += ["      plots:", f"        - {folder}/figures: {{cache: false}}"]
    return lines


def _scorecard(others: list[str]) -> str:
    lines = [
        f"  {SCORECARD}:",
        "    foreach: ${profiles}",
        "    do:",
        "      desc: Every claim of the papers beside what was measured",
        "      cmd:",
        f"        - {PYTHON} -m replication.claims --profile ${{key}}",
        f"        - {PYTHON} -m replication.run {SCORECARD} --profile ${{key}}",
        "      params:",
        f'        - results/fingerprints.json: ["{SCORECARD}.code"]',
        "      deps:",
        "        - claims.yaml",
        "        - results/bench.json",
        *(f"        - results/${{key}}/{name}/metrics.json" for name in others),
    ]
    outs = _outs(f"results/${{key}}/{SCORECARD}", SCORECARD)
    outs.insert(1, f"        - results/${{key}}/{SCORECARD}.json: {{cache: false}}")
    return "\n".join([*lines, *outs]) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write ``dvc.yaml`` or the fingerprints; print one sentence, return 1 for an invalid knob."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fingerprints", action="store_true", help="write what stages depend on")
    options = parser.parse_args(arguments)
    try:
        params.check()
        pipeline = Pipeline()
        text = pipeline.dvc_yaml()
        if options.fingerprints:
            if paths.PIPELINE.read_text(encoding="utf-8") != text:
                print("dvc.yaml is older than the notebooks: run `python -m replication.stages`.",
                      file=sys.stderr)  # fmt: skip
                return 1
            _write(paths.FINGERPRINTS, json.dumps(pipeline.fingerprints(), indent=1) + "\n")
        else:
            _write(paths.PIPELINE, text)
    except (params.ParameterError, ReadingError, DataError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _write(path: Any, text: str) -> None:
    """Write the file unless it has this text already."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        files.write_text(path, text)


if __name__ == "__main__":
    sys.exit(main())
