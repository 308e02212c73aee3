"""The project's Python as text: the working tree, or what git holds of a revision."""

import ast
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from replication import paths
from replication.reading import ReadingError
from replication.syntax import (
    FIGURE,
    PARAMETERS,
    Cell,
    Definition,
    Normalised,
    Reference,
    Resolver,
    Table,
    is_plain,
    normalise,
    read_cells,
    read_module,
    read_statements,
)

SOURCES = "lib"
"""The folder, below the root, that packages are imported from."""

HOMES = "_HOMES"
"""The dict, in a package, from names to the modules that they are imported from when used."""


class RevisionError(ValueError):
    """Git knows no such revision; one sentence."""


class Project(Resolver):
    """Modules and notebooks of one state of the project, read at their first use."""

    def __init__(self, files: dict[str, str]) -> None:
        """``files``: the text of every file below ``lib/`` and ``notebooks/``, by its path."""
        self.files = files
        self._tables: dict[str, Table] = {}
        self._normalised: dict[Reference, Normalised] = {}
        self._effects: dict[str, Normalised] = {}

    @classmethod
    def of_tree(cls, root: Path | None = None) -> "Project":
        """What lies in the working tree; hidden folders (an editor's copies) do not count."""
        root = root or paths.ROOT
        found = [*(root / SOURCES).rglob("*.py"), *(root / "notebooks").rglob("*.ipynb")]
        files = {}
        for path in sorted(found):
            name = path.relative_to(root)
            if not any(part.startswith(".") for part in name.parts):
                files[name.as_posix()] = path.read_text(encoding="utf-8")
        return cls(files)

    @classmethod
    def of_revision(cls, revision: str, root: Path | None = None) -> "Project":
        """What a commit holds.

        Raises:
            RevisionError: there is no such commit, or no git.
        """
        root = root or paths.ROOT
        listing = _git(root, "ls-tree", "-r", "--name-only", revision, "--", SOURCES, "notebooks")
        names = [name for name in listing.split("\n") if name.endswith((".py", ".ipynb"))]
        contents = _git_contents(root, [f"{revision}:{name}" for name in names])
        return cls(dict(zip(names, contents, strict=True)))

    # Modules ----------------------------------------------------------------------------------

    @cached_property
    def modules(self) -> dict[str, str]:
        """File of every module by its dotted name."""
        found = {}
        # Revisions before the library had a name of its own imported the folder itself.
        above = "" if f"{SOURCES}/__init__.py" in self.files else f"{SOURCES}/"
        for name in self.files:
            if name.endswith(".py"):
                parts = name.removeprefix(above).removesuffix(".py").split("/")
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = name
        return found

    def package(self, module: str) -> str:
        """Where relative imports of a module start from."""
        whole = self.modules.get(module, "").endswith("__init__.py")
        return module if whole else module.rpartition(".")[0]

    def table(self, module: str) -> Table:
        """The top-level names of a module.

        Raises:
            ReadingError: its file is no Python.
        """
        if module not in self._tables:
            file = self.modules[module]
            with _parsing(file):
                self._tables[module] = read_module(module, self.files[file], self.package(module))
        return self._tables[module]

    def resolve(self, path: str) -> tuple[Reference, int] | None:
        """See :class:`~replication.syntax.Resolver`; re-exports are followed."""
        parts = path.split(".")
        for used in range(len(parts), 0, -1):
            module = ".".join(parts[:used])
            if module in self.modules:
                break
        else:
            return None
        if used == len(parts):
            return Reference(module, None), used
        table, name = self.table(module), parts[used]
        if name in table.definitions:
            return Reference(module, name), used + 1
        if name in table.imports and table.imports[name] != path:
            target = table.imports[name]
            found = self.resolve(".".join([target, *parts[used + 1 :]]))
            if found is None:
                return None  # re-exported from outside the project
            return found[0], found[1] - len(target.split(".")) + used + 1
        homes = self._homes(module)
        if name in homes:
            found = self.resolve(f"{homes[name]}.{name}")
            return found and (found[0], used + 1)
        return Reference(module, None), used

    def _homes(self, module: str) -> dict[str, str]:
        """The table of a package that imports its names when they are first used."""
        statements = self.table(module).definitions.get(HOMES, [])
        return ast.literal_eval(statements[0].value) if statements else {}

    def outside(self, path: str) -> str:
        """See :class:`~replication.syntax.Resolver`."""
        parts = path.split(".")
        for used in range(len(parts) - 1, 0, -1):
            module = ".".join(parts[:used])
            if module in self.modules:
                target = self.table(module).imports.get(parts[used])
                return path if target is None else ".".join([target, *parts[used + 1 :]])
        return path

    def definition(self, reference: Reference) -> Definition:
        """See :class:`~replication.syntax.Resolver`."""
        return self.table(reference.module).definition(reference.name or "")

    def normalised(self, reference: Reference) -> Normalised:
        """A definition without what does not count; see :func:`replication.syntax.normalise`."""
        if reference not in self._normalised:
            table = self.table(reference.module)
            statements = self.definition(reference).statements
            package = self.package(reference.module)
            self._normalised[reference] = normalise(statements, table, package, self)
        return self._normalised[reference]

    def effects(self, module: str) -> Normalised:
        """What importing a module does beside binding names."""
        if module not in self._effects:
            table = self.table(module)
            self._effects[module] = normalise(table.effects, table, self.package(module), self)
        return self._effects[module]

    def executed(self, modules: Iterable[str]) -> set[str]:
        """All modules that run when these are imported: packages above, and what they import."""
        found: set[str] = set()
        queue = list(modules)
        while queue:
            name = queue.pop()
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                module = ".".join(parts[:depth])
                if module in self.modules and module not in found:
                    found.add(module)
                    queue += self.table(module).imported
        return found

    # Notebooks --------------------------------------------------------------------------------

    @property
    def notebooks(self) -> list[str]:
        """Names such as ``koh2021/kkt``, in order."""
        return sorted(
            name.removeprefix("notebooks/").removesuffix(".ipynb")
            for name in self.files
            if name.endswith(".ipynb")
        )

    def cells(self, notebook: str) -> list[Cell]:
        """The code cells of a notebook.

        Raises:
            ReadingError: its file is no notebook.
        """
        file = f"notebooks/{notebook}.ipynb"
        try:
            return read_cells(self.files[file])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ReadingError(f"{file} cannot be read as a notebook ({error}).") from None

    def notebook_table(self, notebook: str) -> tuple[Table, list[tuple[int, ast.stmt]]]:
        """A notebook as a module, and the statements that always run.

        Each of these comes with the number of its cell. Cells that only draw, and the cell of
        parameters, are left out. Statements that merely give a name to a function, a class or a
        literal are definitions and count where they are used.

        Raises:
            ReadingError: its file is no notebook, or a cell is no Python.
        """
        every = []
        for cell in self.cells(notebook):
            if not cell.tags & {FIGURE, PARAMETERS}:
                with _parsing(f"notebooks/{notebook}.ipynb, cell {cell.number}"):
                    every += [(cell.number, statement) for statement in cell.body]
        table = read_statements(notebook, [statement for _, statement in every], "")
        running = {
            name
            for name, statements in table.definitions.items()
            if not all(map(is_plain, statements))
        }
        for name in running:
            del table.definitions[name]
        named = {id(s) for statements in table.definitions.values() for s in statements}
        run = [
            (number, statement)
            for number, statement in every
            if id(statement) not in named and not isinstance(statement, ast.Import | ast.ImportFrom)
        ]
        return table, run


@contextmanager
def _parsing(place: str) -> Iterator[None]:
    try:
        yield
    except SyntaxError as error:
        raise ReadingError(
            f"{place}: line {error.lineno} is no Python ({error.msg}), so that nothing can tell "
            "what it computes: write what Python itself can run."
        ) from None


def _git(root: Path, *arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
    except FileNotFoundError:
        raise RevisionError("git is not installed: no revision can be read.") from None
    if run.returncode:
        raise RevisionError(f"git {' '.join(arguments[:1])}: {run.stderr.decode().strip()}.")
    return run.stdout.decode("utf-8").rstrip("\n")


def _git_contents(root: Path, objects: list[str]) -> list[str]:
    """The texts of objects such as ``HEAD:lib/toy/a.py``, read in one go."""
    run = subprocess.run(
        ["git", "cat-file", "--batch"],
        cwd=root,
        input="\n".join(objects).encode(),
        capture_output=True,
        check=True,
    )
    contents, rest = [], run.stdout
    for _ in objects:
        head, _, rest = rest.partition(b"\n")
        size = int(head.split()[-1])
        contents.append(rest[:size].decode("utf-8"))
        rest = rest[size + 1 :]
    return contents
