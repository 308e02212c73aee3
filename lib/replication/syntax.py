"""Normalised Python: the content of code apart from how it is written, for fingerprints.

A module is read as a table of its top-level definitions, a notebook as one long module. Every
definition is normalised: comments, docstrings, formatting, type hints and messages of errors are
removed, and each name that leads to another definition is replaced by a :class:`Reference`, so that
its text does not depend on where it, or a definition that it uses, lies.
"""

import ast
import builtins
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

FIGURE = "figure"
"""The tag of a notebook's cell that only draws; its code decides no number."""

PARAMETERS = "parameters"
"""The tag of the cell that papermill overwrites: knobs count by value, not as code."""

_MUTATORS = {
    *("add", "append", "clear", "extend", "insert", "pop", "popitem", "register", "remove"),
    *("setdefault", "sort", "update"),
}
_UNRESOLVABLE = {"globals", "locals", "exec", "eval", "compile", "__import__"}
_REFLECTION = {"getattr", "setattr", "delattr", "hasattr", "vars", "dir"}
_PLAIN_BASES = {
    *("object", "Protocol", "Generic", "NamedTuple", "ABC"),
    *("Exception", "RuntimeError", "ValueError"),
}


@dataclass(frozen=True)
class Reference:
    """A place where a definition leads to another: ``module`` and ``name``, or a whole module."""

    module: str
    name: str | None


@dataclass(frozen=True)
class Definition:
    """A top-level name and all statements that bind it, in order."""

    module: str
    name: str
    statements: tuple[ast.stmt, ...]


@dataclass(frozen=True)
class Normalised:
    """A definition's text without the parts that do not count, and the definitions it leads to.

    ``imported`` are the modules that it imports by itself, ``strings`` its string constants,
    ``shared`` the blocks of knobs that it reads from a notebook, ``device`` whether it reads the
    device; ``refused`` says what cannot be followed without running the code.
    """

    text: str = ""
    references: tuple[Reference, ...] = ()
    imported: frozenset[str] = frozenset()
    strings: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    device: bool = False
    refused: tuple[str, ...] = ()


@dataclass
class Table:
    """A module, or a notebook: the meaning of its names, and the effects of importing it."""

    module: str
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    imported: set[str] = field(default_factory=set)
    effects: list[ast.stmt] = field(default_factory=list)
    stars: list[int] = field(default_factory=list)

    def definition(self, name: str) -> Definition:
        """What binds ``name`` at the top level."""
        return Definition(self.module, name, tuple(self.definitions[name]))


def read_module(module: str, code: str, package: str) -> Table:
    """The table of a module; ``package`` is where its relative imports start from."""
    return read_statements(module, ast.parse(code).body, package)


def read_statements(module: str, statements: Iterable[ast.stmt], package: str) -> Table:
    """The table of these top-level statements."""
    table = Table(module)
    for statement in statements:
        _enter(table, statement, package)
    return table


def _enter(table: Table, statement: ast.stmt, package: str) -> None:
    """Add one top-level statement: it binds a name, imports, or has an effect."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            aliases, modules = imported_names(statement, package)
            table.imports |= aliases
            table.imported |= modules
            if "*" in aliases:
                table.stars.append(statement.lineno)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            table.definitions.setdefault(statement.name, []).append(statement)
        case ast.If() if _is_main(statement.test):
            pass
        case ast.If() if ast.unparse(statement.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pass  # names used in type hints only
        case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
            inner = Table(table.module)
            for child in ast.iter_child_nodes(statement):
                if isinstance(child, ast.stmt):
                    _enter(inner, child, package)
                for grandchild in ast.iter_child_nodes(child):
                    if isinstance(grandchild, ast.stmt) and not isinstance(child, ast.stmt):
                        _enter(inner, grandchild, package)
            table.imports |= inner.imports
            table.imported |= inner.imported
            table.stars += inner.stars
            bound = set(inner.definitions) | set(_targets(statement))
            for name in bound:
                table.definitions.setdefault(name, []).append(statement)
            if inner.effects or not (bound or inner.imports):
                table.effects.append(statement)
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [name for target in targets for name in _stored(target)]
            if any(_stores_elsewhere(target) for target in targets) or names == ["_"]:
                table.effects.append(statement)
            elif not (isinstance(statement, ast.AnnAssign) and statement.value is None):
                for name in names:
                    table.definitions.setdefault(name, []).append(statement)
        case ast.Expr(value=ast.Constant()) | ast.Pass():
            pass
        case _:
            table.effects.append(statement)


def imported_names(
    statement: ast.Import | ast.ImportFrom, package: str
) -> tuple[dict[str, str], set[str]]:
    """What an import binds (name to dotted path), and the modules that it runs."""
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
        return {
            alias.asname or alias.name.partition(".")[0]: alias.name
            if alias.asname
            else alias.name.partition(".")[0]
            for alias in statement.names
        }, set(names)
    base = statement.module or ""
    if statement.level:
        parents = package.split(".")
        kept = parents[: len(parents) - statement.level + 1]
        base = ".".join([*kept, base] if base else kept)
    aliases = {alias.asname or alias.name: f"{base}.{alias.name}" for alias in statement.names}
    return aliases, {base, *aliases.values()}


def _is_main(test: ast.expr) -> bool:
    return "__name__" in {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}


def _stored(target: ast.expr) -> Iterator[str]:
    """Names that an assignment's target binds."""
    match target:
        case ast.Name():
            yield target.id
        case ast.Tuple() | ast.List():
            for element in target.elts:
                yield from _stored(element)
        case ast.Starred():
            yield from _stored(target.value)


def _stores_elsewhere(target: ast.expr) -> bool:
    """Whether a target changes an object that exists already: ``a.b = …``, ``a[i] = …``."""
    return any(isinstance(node, ast.Attribute | ast.Subscript) for node in ast.walk(target))


def _targets(statement: ast.stmt) -> Iterator[str]:
    """What the head of a compound statement binds: ``for x``, ``with … as x``."""
    if isinstance(statement, ast.For):
        yield from _stored(statement.target)
    if isinstance(statement, ast.With):
        for item in statement.items:
            if item.optional_vars is not None:
                yield from _stored(item.optional_vars)


class Resolver:
    """Finds what a dotted path of the project leads to; implemented by the project."""

    def resolve(self, path: str) -> tuple[Reference, int] | None:
        """The definition (or module) that ``path`` leads to and how many of its parts that took.

        None for a path that does not lie in the project.
        """
        raise NotImplementedError

    def outside(self, path: str) -> str:
        """A path that leads out of the project, without its detours through the project."""
        raise NotImplementedError

    def definition(self, reference: Reference) -> Definition:
        """What binds the name that a reference leads to."""
        raise NotImplementedError


class _Normaliser(ast.NodeTransformer):
    """Rewrites one definition; see :func:`normalise`."""

    def __init__(self, table: Table, package: str, resolver: Resolver) -> None:
        self.table = table
        self.package = package
        self.resolver = resolver
        self.scopes: list[tuple[str, dict[str, str | None]]] = []
        self.references: list[Reference] = []
        self.imported: set[str] = set()
        self.strings: set[str] = set()
        self.shared: set[str] = set()
        self.device = False
        self.refused: list[str] = []
        self.hints_count: list[bool] = []
        self._firsts: set[ast.comprehension] = set()

    # Names ------------------------------------------------------------------------------------

    def _meaning(self, name: str) -> str | Definition | None:
        """A local (None), the dotted path of something imported, or a definition beside this."""
        for depth, (kind, names) in enumerate(reversed(self.scopes)):
            if name in names and (kind != "class" or depth == 0):
                return names[name]
        if name in self.table.definitions:
            return self.table.definition(name)
        if name in self.table.imports:
            return self.table.imports[name]
        return name if hasattr(builtins, name) else None

    def _refer(self, node: ast.expr) -> ast.expr | None:
        """``node``, a name or a chain of attributes, as what it leads to; None for a local."""
        chain: list[str] = []
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            chain.insert(0, root.attr)
            root = root.value
        if not isinstance(root, ast.Name) or not isinstance(root.ctx, ast.Load):
            return None
        meaning = self._meaning(root.id)
        if meaning is None:
            return None
        if isinstance(meaning, Definition):
            return self._reference(Reference(meaning.module, meaning.name), chain)
        path = ".".join((meaning, *chain))
        found = self.resolver.resolve(path)
        if found is None:  # not of this project: numpy.linalg.norm, print
            return _dotted(self.resolver.outside(path).split("."))
        target, used = found
        if target.name is None:
            self._refuse(node, f"{path} is a module used as a value")
        return self._reference(target, path.split(".")[used:])

    def _reference(self, target: Reference, rest: Sequence[str]) -> ast.expr:
        self.references.append(target)
        return _dotted([f"→{target.name or target.module}", *rest])

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """A name: local, imported, or a definition."""
        return self._refer(node) or node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """A chain of attributes."""
        if node.attr == "device" and _is_notebook(node.value):
            self.device = True
        return self._refer(node) or self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """A literal."""
        if isinstance(node.value, str):
            self.strings.add(node.value)
        return node

    # What cannot be followed ------------------------------------------------------------------

    def _refuse(self, node: ast.AST, why: str) -> None:
        self.refused.append(f"{self.table.module}, line {getattr(node, 'lineno', '?')}: {why}")

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A call; calls whose effect depends on the state of a module are refused."""
        function = node.func
        name = function.id if isinstance(function, ast.Name) else None
        attribute = function.attr if isinstance(function, ast.Attribute) else None
        if name in _UNRESOLVABLE and self._meaning(name) == name:
            self._refuse(node, f"{name}() hides which code is used")
        if name in _REFLECTION and node.args and self._leads_to_module(node.args[0]):
            self._refuse(node, f"{name}() on a module")
        if attribute in ("import_module", "__subclasses__"):
            self._refuse(node, f"{attribute}() hides which code is used")
        if attribute in _MUTATORS:
            self._refuse_change(function.value, node)
        if isinstance(function, ast.Attribute) and _is_notebook(function.value):
            if attribute == "map":
                node.args = node.args[:2]  # the third names the progress bar
            if attribute == "shared":
                self._ask_for_block(node)
        return self.generic_visit(node)

    def _ask_for_block(self, node: ast.Call) -> None:
        """Note which block of knobs ``notebook.shared(…)`` names: a literal, or a constant."""
        (argument,) = node.args
        if isinstance(argument, ast.Name):
            meaning = self._meaning(argument.id)
            if isinstance(meaning, str):
                found = self.resolver.resolve(meaning)
                meaning = None if found is None else self.resolver.definition(found[0])
            if isinstance(meaning, Definition) and isinstance(meaning.statements[0], ast.Assign):
                argument = meaning.statements[0].value
        if isinstance(argument, ast.Constant):
            self.shared.add(argument.value)
        else:
            self._refuse(node, "notebook.shared() of a name that only running shows")

    def _leads_to_module(self, node: ast.expr) -> bool:
        path = self._path(node)
        found = None if path is None else self.resolver.resolve(path)
        return found is not None and found[0].name is None

    def _path(self, node: ast.expr) -> str | None:
        chain: list[str] = []
        while isinstance(node, ast.Attribute):
            chain.insert(0, node.attr)
            node = node.value
        meaning = self._meaning(node.id) if isinstance(node, ast.Name) else None
        return ".".join((meaning, *chain)) if isinstance(meaning, str) else None

    def _refuse_change(self, target: ast.expr, node: ast.AST) -> None:
        """Refuse a change of what another definition, or another module, holds."""
        root = target
        while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
            root = root.func if isinstance(root, ast.Call) else root.value
        if not isinstance(root, ast.Name):
            return
        meaning = self._meaning(root.id)
        of_project = isinstance(meaning, str) and self.resolver.resolve(meaning) is not None
        values = isinstance(meaning, Definition) and not any(
            isinstance(s, ast.FunctionDef | ast.ClassDef) for s in meaning.statements
        )
        in_module = self.resolver.resolve(self.table.module) is not None  # not in a notebook
        if of_project or (values and self.scopes and in_module):
            self._refuse(node, f"{root.id} of a module is changed while code runs")

    def _check_stores(self, targets: Iterable[ast.expr], node: ast.AST) -> None:
        for target in targets:
            if isinstance(target, ast.Attribute | ast.Subscript):
                self._refuse_change(target, node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        """``global x``: state that no definition shows."""
        self._refuse(node, f"global {', '.join(node.names)}")
        return node

    # What does not count ----------------------------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Remove a docstring."""
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """Remove the message of an error, with the expressions in it."""
        if isinstance(node.exc, ast.Call):
            node.exc.args = [a for a in node.exc.args if not _is_message(a)]
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Remove the message of an assertion."""
        node.msg = None
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        """Imports count by what is used of them."""
        self.imported |= imported_names(node, self.package)[1]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Imports count by what is used of them."""
        if any(alias.name == "*" for alias in node.names):
            self._refuse(node, "import *")
        self.imported |= imported_names(node, self.package)[1]

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """An assignment."""
        self._check_stores(node.targets, node)
        return self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """``x += …``."""
        self._check_stores([node.target], node)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Remove a hint; a class keeps the field, a model that checks types also the hint."""
        self._check_stores([node.target], node)
        in_class = bool(self.scopes) and self.scopes[-1][0] == "class"
        if not in_class:
            if node.value is None:
                return None
            return self.visit(ast.Assign([node.target], node.value, lineno=node.lineno))
        if not self.hints_count[-1]:
            node.annotation = ast.Constant(_marker(node.annotation))
        return self.generic_visit(node)

    # Scopes -----------------------------------------------------------------------------------

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """A class: bases and decorators belong outside, fields and methods inside."""
        dataclass_like = any("dataclass" in ast.unparse(d) for d in node.decorator_list)
        bases = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
        counts = not dataclass_like and bool(bases - _PLAIN_BASES)
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.bases = [self.visit(base) for base in node.bases]
        node.keywords = [self.visit(keyword) for keyword in node.keywords]
        self.scopes.append(("class", _bound(node.body, self.package)))
        self.hints_count.append(counts)
        node.body = self._block(node.body)
        self.hints_count.pop()
        self.scopes.pop()
        return node

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        for decorator in node.decorator_list:
            name = ast.unparse(decorator).partition("(")[0].rpartition(".")[2]
            if name in ("register", "singledispatch", "singledispatchmethod"):
                self._refuse(decorator, f"@{name} fills a registry")
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.returns = None
        self._defaults(node.args)
        self.scopes.append(("function", _arguments(node.args) | _bound(node.body, self.package)))
        node.body = self._block(node.body)
        self.scopes.pop()
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """A lambda."""
        self._defaults(node.args)
        self.scopes.append(("function", _arguments(node.args)))
        node.body = self.visit(node.body)
        self.scopes.pop()
        return node

    def _defaults(self, args: ast.arguments) -> None:
        args.defaults = [self.visit(default) for default in args.defaults]
        args.kw_defaults = [d if d is None else self.visit(d) for d in args.kw_defaults]
        for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
            if arg is not None:
                arg.annotation = None

    def _comprehension(self, node: ast.AST) -> ast.AST:
        names: dict[str, str | None] = {}
        for generator in node.generators:
            names |= dict.fromkeys(_stored(generator.target))
        self.scopes.append(("function", names))
        self._firsts.add(node.generators[0])
        self.generic_visit(node)
        self.scopes.pop()
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        """One ``for`` of a comprehension; what the first goes through is read outside of it."""
        node.target = self.visit(node.target)
        inside = [self.scopes.pop()] if node in self._firsts else []
        node.iter = self.visit(node.iter)
        self.scopes += inside
        node.ifs = [self.visit(one) for one in node.ifs]
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        kept = [self.visit(statement) for statement in body]
        return [statement for statement in kept if statement is not None] or [ast.Pass()]


def _is_notebook(node: ast.expr) -> bool:
    """Whether this is ``notebook``, what all notebooks call their own object."""
    return isinstance(node, ast.Name) and node.id == "notebook"


def _arguments(args: ast.arguments) -> dict[str, str | None]:
    every = (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg)
    return {arg.arg: None for arg in every if arg is not None}


def _bound(body: Sequence[ast.stmt], package: str) -> dict[str, str | None]:
    """Names that a function's or a class's body binds, imports with what they lead to."""
    names: dict[str, str | None] = {}
    free: set[str] = set()
    queue: list[ast.AST] = list(body)
    while queue:
        node = queue.pop()
        match node:
            case ast.Import() | ast.ImportFrom():
                names |= imported_names(node, package)[0]
            case ast.Global() | ast.Nonlocal():
                free |= set(node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names[node.name] = None
                continue
            case (
                ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp()
            ):
                # Their own names are local to them; a name that := binds inside belongs to the
                # function.
                names |= {n.target.id: None for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
                continue
            case ast.Name(ctx=ast.Store() | ast.Del()):
                names.setdefault(node.id, None)
            case ast.ExceptHandler(name=str()):
                names[node.name] = None
            case ast.MatchAs(name=str()) | ast.MatchStar(name=str()):
                names[node.name] = None
            case ast.MatchMapping(rest=str()):
                names[node.rest] = None
        queue += ast.iter_child_nodes(node)
    return {name: meaning for name, meaning in names.items() if name not in free}


def _dotted(parts: Sequence[str]) -> ast.expr:
    first, *rest = parts
    node: ast.expr = ast.Name(first, ast.Load())
    for part in rest:
        node = ast.Attribute(node, part, ast.Load())
    return node


def _is_message(node: ast.expr) -> bool:
    return any(
        isinstance(n, ast.JoinedStr) or (isinstance(n, ast.Constant) and isinstance(n.value, str))
        for n in ast.walk(node)
    )


def _marker(annotation: ast.expr) -> str:
    text = ast.unparse(annotation)
    return next((m for m in ("ClassVar", "InitVar", "KW_ONLY") if m in text), "field")


def _copied(node: Any) -> Any:
    """A copy of a tree; ``copy.deepcopy`` takes five times as long."""
    if isinstance(node, list):
        return [_copied(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    made = type(node)(**{name: _copied(getattr(node, name, None)) for name in node._fields})
    made.lineno = getattr(node, "lineno", None)
    return made


def _text(node: Any) -> str:
    """A tree as ``ast.dump(node, annotate_fields=False)`` of Python 3.11 writes it.

    Every later version writes another text, and fingerprints must not depend on the version.
    """
    if isinstance(node, list):
        return f"[{', '.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts, named = [], False
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(node, ast.JoinedStr):  # the first of Python 3.12 end formats with ""
            value = [part for part in value if getattr(part, "value", None) != ""]
        if value is None and getattr(type(node), name, ...) is None:
            named = True  # what follows a field that is left out has its name
        elif name != "type_params" or value:  # Python 3.12 has added these
            parts.append(f"{name}={_text(value)}" if named else _text(value))
    return f"{type(node).__name__}({', '.join(parts)})"


def normalise(
    statements: Sequence[ast.stmt], table: Table, package: str, resolver: Resolver
) -> Normalised:
    """Statements of one module without the parts that do not count, and what they lead to."""
    worker = _Normaliser(table, package, resolver)
    kept = [worker.visit(_copied(statement)) for statement in statements]
    text = "\n".join(_text(node) for node in kept if node is not None)
    return Normalised(
        text,
        tuple(worker.references),
        frozenset(worker.imported),
        frozenset(worker.strings),
        frozenset(worker.shared),
        worker.device,
        tuple(worker.refused),
    )


# Notebooks ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A code cell: its place among all cells, its tags and its code."""

    number: int
    tags: frozenset[str]
    code: str

    @property
    def body(self) -> list[ast.stmt]:
        """Its statements."""
        return ast.parse(self.code).body


def read_cells(text: str) -> list[Cell]:
    """The code cells of a notebook's file."""
    return [
        Cell(number, frozenset(cell["metadata"].get("tags", ())), "".join(cell["source"]))
        for number, cell in enumerate(json.loads(text)["cells"])
        if cell["cell_type"] == "code"
    ]


def is_plain(statement: ast.stmt) -> bool:
    """Whether a statement only binds a name, and so has no effect where the name is not used."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
        return True
    if not isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
        return False
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return not any(_stores_elsewhere(target) for target in targets) and not any(
        isinstance(node, ast.Call | ast.Await | ast.NamedExpr) for node in ast.walk(statement)
    )
