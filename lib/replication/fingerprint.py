"""Fingerprints: a hash of every definition that a result's code reaches, by name and content.

A change of a comment, a docstring, a type hint or a function's place leaves a fingerprint as it is.
A changed operator, even in a helper three calls away, changes the fingerprints of exactly those
notebooks that reach it.

    python -m replication.fingerprint                       all notebooks
    python -m replication.fingerprint koh2021/kkt           one, definition by definition
    python -m replication.fingerprint koh2021/kkt A [B]     what differs between two revisions
    python -m replication.fingerprint koh2021/kkt --since paper    … since its results
"""

import argparse
import ast
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from replication import paths
from replication.digests import digest
from replication.project import Project, RevisionError
from replication.reading import ReadingError, read_result
from replication.syntax import Normalised, Reference, Table, normalise

DOES_NOT_COUNT = {
    "poisoning.compiled": "where compiled code is kept between runs, not what it computes",
    "poisoning.datasets.files": "writes and locks files, whose content counts",
    "poisoning.datasets.sources": "where data sets come from: what came counts by its content",
    "replication.plotting": "draws",
    "replication.words": "names what tables hold, for readers",
    "replication.notebook": "hands data, knobs and seeds to a notebook, which count by themselves",
    "replication.components": "makes what knobs name, whose code counts with the knobs",
    "replication.schemas": "checks knobs, which count by their values",
    "replication.params": "knobs count by their values",
    "replication.strict_yaml": "reads knobs, which count by their values",
    "replication.conditions": "checks knobs",
    "replication.contradictions": "checks knobs",
    "replication.reading": "reads files, which count by their content",
    "replication.paths": "places of files",
    "replication.provenance": "records what ran, computes nothing",
    "replication.units": "runs and keeps units of work",
    "replication.cluster": "runs units of work on other machines",
    "replication.records": "writes and reads what units return",
    "replication.live": "names the code of units",
    "replication.checking": "compares units with their records",
    "replication.progress": "shows progress",
    "replication.fingerprint": "this",
    "replication.digests": "this",
    "replication.project": "this",
    "replication.syntax": "this",
}
"""Modules whose own text affects no number, and why. Definitions that they use still count.

Within other modules, messages of errors, docstrings, type hints and names of progress bars do not
count either (:mod:`replication.syntax`), nor do a notebook's cells tagged ``figure``.
"""


@dataclass(frozen=True)
class Part:
    """One definition that counts: its place and the hash of its content."""

    module: str
    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


@dataclass(frozen=True)
class Fingerprint:
    """The parts of a notebook or a unit, and further facts that are read from their text.

    ``strings`` are literals of the notebook itself, ``shared`` the blocks of knobs that it reads,
    ``device`` whether it reads the device; ``refused`` lists code that cannot be followed.
    """

    parts: tuple[Part, ...]
    strings: frozenset[str]
    shared: frozenset[str]
    device: bool
    refused: tuple[str, ...]

    @cached_property
    def value(self) -> str:
        """One hash for all parts, independent of their places."""
        return digest(sorted({f"{part.name} {part.digest}" for part in self.parts}))

    @property
    def modules(self) -> set[str]:
        """The modules that definitions lie in."""
        return {part.module for part in self.parts}

    def differences(self, other: "Fingerprint") -> list[str]:
        """What differs from an older fingerprint: changed, new and gone definitions."""
        before = {(part.name, part.digest) for part in other.parts}
        after = {(part.name, part.digest) for part in self.parts}
        new = [part for part in self.parts if (part.name, part.digest) not in before]
        gone = [part for part in other.parts if (part.name, part.digest) not in after]
        known = {part.name for part in gone}
        lines = [f"changed: {part}" for part in new if part.name in known]
        lines += [f"new: {part}" for part in new if part.name not in known]
        renewed = {part.name for part in new}
        lines += [f"gone: {part}" for part in gone if part.name not in renewed]
        return sorted(lines)


class Reader:
    """Fingerprints of one state of the project."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def notebook(self, name: str) -> Fingerprint:
        """All that the cells of a notebook run, except those that only draw."""
        table, run = self.project.notebook_table(name)
        roots = [
            (f"cell {number}", normalise([statement], table, "", self.project))
            for number, statement in run
        ]
        return self._gather(name, roots, self._texts(table), table.stars)

    def function(self, module: str, name: str) -> Fingerprint:
        """All that a function or a class of the library reaches."""
        return self.references([Reference(module, name)])

    def references(
        self, references: Iterable[Reference], without: Collection[Reference] = ()
    ) -> Fingerprint:
        """All that these definitions reach, themselves included; ``without`` is not entered."""
        root = Normalised(references=tuple(references))
        return self._gather("", [("", root)], dict.fromkeys(without, Normalised()))

    def entry(self, table: Reference, key: str) -> tuple[Reference, ...]:
        """What the value of ``key`` in a dict literal of the library leads to."""
        (statement,) = self.project.definition(table).statements
        literal = statement.value
        value = next(
            value
            for name, value in zip(literal.keys, literal.values, strict=True)
            if name.value == key
        )
        home = self.project.table(table.module)
        package = self.project.package(table.module)
        return normalise([ast.Expr(value)], home, package, self.project).references

    def beside(self, table: Table) -> Fingerprint:
        """Definitions that lie in no file of the library, with all that they reach."""
        own = self._texts(table)
        return self._gather(table.module, [("", Normalised(references=tuple(own)))], own)

    def _texts(self, table: Table) -> dict[Reference, Normalised]:
        """The definitions of a table that is no module of the library."""
        return {
            Reference(table.module, key): normalise(statements, table, "", self.project)
            for key, statements in table.definitions.items()
        }

    def _gather(
        self,
        name: str,
        roots: Sequence[tuple[str, Normalised]],
        own: Mapping[Reference, Normalised],
        stars: Sequence[int] = (),
    ) -> Fingerprint:
        """Follow ``roots``; ``own``: definitions of the notebook ``name`` itself."""
        reached: dict[Reference, Normalised] = {}
        refused = [f"{name}, line {line}: import *" for line in stars]
        queue = [reference for _, text in roots for reference in text.references]
        modules: set[str] = set()
        for _, text in roots:
            modules |= text.imported
            refused += text.refused
        while queue:
            reference = queue.pop()
            if reference in reached or reference.name is None:
                continue
            text = own[reference] if reference in own else self.project.normalised(reference)
            reached[reference] = text
            queue += text.references
            modules |= text.imported
            if reference not in own:
                modules.add(reference.module)
            if reference.module not in DOES_NOT_COUNT:
                refused += text.refused
        digests = {
            reference: digest([reference.name or "", text.text])
            for reference, text in reached.items()
        }

        def content(reference: Reference) -> str:
            counts = reference in digests and reference.module not in DOES_NOT_COUNT
            return digests[reference] if counts else reference.name or reference.module

        def whole(text: Normalised) -> str:
            """The text, and the content of what each of its names leads to."""
            return digest([text.text, *map(content, text.references)])

        parts = [
            Part(reference.module, reference.name or "", whole(text))
            for reference, text in reached.items()
            if reference.module not in DOES_NOT_COUNT
        ]
        parts += [Part(name, label, whole(text)) for label, text in roots if label]
        for module in self.project.executed(modules):
            effects = self.project.effects(module)
            if effects.text and module not in DOES_NOT_COUNT:
                parts.append(Part(module, "import", digest([effects.text])))
                refused += effects.refused
        ordered = sorted(parts, key=lambda part: (part.module, part.name, part.digest))
        notebook = [text for _, text in roots] + [reached[r] for r in reached if r in own]
        every = [text for _, text in roots] + list(reached.values())
        return Fingerprint(
            tuple(ordered),
            frozenset().union(*(text.strings for text in notebook)),
            frozenset().union(*(text.shared for text in every)),
            any(text.device for text in every),
            tuple(sorted(set(refused))),
        )


@cache
def _reader(revision: str) -> Reader:
    return Reader(Project.of_revision(revision))


def _since(name: str, profile: str) -> str:
    """The commit that a profile's results were computed at."""
    file = paths.pipeline_results(profile, name) / "provenance.json"
    if not file.is_file():
        raise RevisionError(f"{name} has no results of the profile {profile} here.")
    again = f"run `dvc repro {name.replace('/', '-')}@{profile}` again"
    return read_result(file, lambda record: str(record["commit"]), again)


def main(arguments: list[str] | None = None) -> int:
    """Print fingerprints, or what differs between two states of the project."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", nargs="?", help="<paper>/<section>; all, unless given")
    parser.add_argument("old", nargs="?", help="a revision")
    parser.add_argument("new", nargs="?", help="another; the working tree, unless given")
    parser.add_argument("--since", metavar="PROFILE", help="what changed since its results")
    options = parser.parse_args(arguments)
    try:
        project = Project.of_revision(options.new) if options.new else Project.of_tree()
        names = [options.notebook] if options.notebook else project.notebooks
        if options.notebook not in (None, *project.notebooks):
            raise RevisionError(f"there is no notebook {options.notebook}.")
        for name in names:
            old = _since(name, options.since) if options.since else options.old
            _print(name, Reader(project).notebook(name), old, whole=options.notebook is not None)
    except (RevisionError, ReadingError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _print(name: str, found: Fingerprint, old: str | None, *, whole: bool) -> None:
    head = f"{name:32} {found.value}"
    if old is None:
        print(f"{head}  {len(found.parts)} definitions in {len(found.modules)} modules")
        for part in found.parts if whole else ():
            print(f"  {part.digest}  {part}")
    else:
        before = _reader(old)
        known = name in before.project.notebooks
        lines = found.differences(before.notebook(name)) if known else ["new: the notebook"]
        print(f"{head}  {len(lines)} differences from {old}")
        for line in lines:
            print(f"  {line}")
    for line in found.refused:
        print(f"  cannot be followed: {line}")


if __name__ == "__main__":
    sys.exit(main())
