"""What must change a fingerprint does, in exactly the notebooks that reach it; nothing else."""

import ast
import json
import re
import subprocess

import pytest

from replication import fingerprint, paths, stages
from replication.fingerprint import Reader
from replication.project import Project, RevisionError
from replication.reading import ReadingError
from replication.syntax import FIGURE, Reference

NOTEBOOK = {
    "one": "from toy.top import run\nnotebook.metric('a', run(2.0))",
    "two": "from toy import base\nnotebook.metric('b', base.other(2.0))",
}
FILES = {
    "lib/toy/__init__.py": "",
    "lib/toy/base.py": '''
"""A module."""
import math
from dataclasses import dataclass
from functools import lru_cache

LIMIT = 3.0
COLOUR = "red"
CHOICES = {"double": lambda x: 2 * x}


class Parent:
    """A base."""

    def scale(self):
        return 1.5


@dataclass(frozen=True)
class Settings(Parent):
    """Settings."""

    step: float = 0.5
    rounds: int = 3


def deep(x: float) -> float:
    """Three calls away."""
    y = x + 1.0
    y *= 2.0
    return min(y, LIMIT)


def middle(x):
    return deep(x) * CHOICES["double"](x)


def apply(f, x):
    return f(x)


@lru_cache(maxsize=8)
def top(x, settings=Settings()):
    if x > 100.0:
        raise ValueError(f"{x} is too large.")
    return apply(middle, x) * settings.step * settings.scale()


def other(x):
    """Nobody else's."""
    return math.sqrt(x)
''',
    "lib/toy/top.py": "from toy.base import top\n\n\ndef run(x):\n    return top(x)\n",
}


def notebook(code, tags=()):
    cell = {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": code}
    return json.dumps({"cells": [cell]})


def project(edit=lambda text: text, extra=None):
    files = dict(FILES)
    files["lib/toy/base.py"] = edit(files["lib/toy/base.py"])
    files |= {f"notebooks/p/{name}.ipynb": notebook(code) for name, code in NOTEBOOK.items()}
    return Project(files | (extra or {}))


def values(made):
    reader = Reader(made)
    return {name: reader.notebook(name).value for name in made.notebooks}


def changed(edit=lambda text: text, extra=None):
    """The notebooks whose fingerprint an edit of lib/toy/base.py changes."""
    before, after = values(project()), values(project(edit, extra))
    return {name.removeprefix("p/") for name in before if before[name] != after[name]}


def swap(old, new):
    def edit(text):
        assert text.count(old) == 1, old
        return text.replace(old, new)

    return edit


MOVED = {
    "lib/toy/base.py": FILES["lib/toy/base.py"].replace(
        'def middle(x):\n    return deep(x) * CHOICES["double"](x)\n',
        "from toy.moved import middle\n",
    ),
    "lib/toy/moved.py": "from toy import base\n\n\ndef middle(x):\n"
    "    return base.deep(x) * base.CHOICES['double'](x)\n",
}
RENAMED = {
    "lib/toy/core.py": FILES["lib/toy/base.py"],
    "lib/toy/base.py": "from toy.core import other\n",
    "lib/toy/top.py": FILES["lib/toy/top.py"].replace("toy.base", "toy.core"),
}


SAME = {
    "docstring": swap('"""Three calls away."""', '"""Reworded."""'),
    "comment": swap("    y *= 2.0\n", "    # why\n    y *= 2.0  # this\n\n"),
    "hint": swap("def deep(x: float) -> float:", "def deep(x: 'int | float'):"),
    "hint of a field": swap("    rounds: int = 3", "    rounds: 'float' = 3"),
    "format": swap("apply(middle, x)", "apply(\n        middle,\n        x,\n    )"),
    "colour": swap('COLOUR = "red"', 'COLOUR = "blue"'),
    "message": swap('f"{x} is too large."', 'f"{x} exceeds {LIMIT}: " + COLOUR'),
}
ADDED = {
    "new notebook": {"notebooks/p/three.ipynb": notebook("x = 1")},
    "moved function": MOVED,
    "renamed file": RENAMED,
}


def test_a_comprehension_reads_what_it_goes_through_outside_of_itself():
    """Its variable may have the name of the function that gives what it goes through."""
    code = "from toy.shadow import total\nnotebook.metric('c', total())"
    text = (
        "def parts():\n    return [1, 2]\n\n\n"
        "def total():\n    return sum(parts for parts in parts())\n"
    )
    values_of = [
        values(project(extra={"lib/toy/shadow.py": one, "notebooks/p/c.ipynb": notebook(code)}))
        for one in (text, text.replace("[1, 2]", "[1, 3]"), text.replace("(parts for", "(sum for"))
    ]
    assert len({found["p/c"] for found in values_of}) == 3


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"notebooks/p/c.ipynb": notebook("%matplotlib inline")}, "p/c.ipynb, cell 0: line 1"),
        ({"notebooks/p/c.ipynb": "{"}, "notebooks/p/c.ipynb cannot be read as a notebook"),
        ({"notebooks/p/c.ipynb": "[]"}, "notebooks/p/c.ipynb cannot be read as a notebook"),
        ({"lib/toy/base.py": "def broken(:"}, "lib/toy/base.py: line 1 is no Python"),
    ],
)
def test_what_is_no_python_is_named(files, told):
    with pytest.raises(ReadingError, match=told):
        values(project(extra=files))


@pytest.mark.parametrize("edit", SAME.values(), ids=SAME)
def test_edits_that_change_no_result(edit):
    assert changed(edit) == set()


@pytest.mark.parametrize("files", ADDED.values(), ids=ADDED)
def test_files_that_move_change_no_result(files):
    assert changed(extra=files) == set()


FIELDS = "    step: float = 0.5\n    rounds: int = 3\n"
ADD = "    y = x + 1.0\n    y *= 2.0\n"
OTHER = {
    "operator": (swap("y = x + 1.0", "y = x - 1.0"), {"one"}),
    "constant": (swap("LIMIT = 3.0", "LIMIT = 3.1"), {"one"}),
    "default": (swap("settings=Settings()", "settings=Settings(0.1)"), {"one"}),
    "method of a base": (swap("return 1.5", "return 1.6"), {"one"}),
    "base class": (swap("class Settings(Parent):", "class Settings:"), {"one"}),
    "argument of a decorator": (swap("maxsize=8", "maxsize=9"), {"one"}),
    "helper three calls away": (swap("y *= 2.0", "y *= 2.5"), {"one"}),
    "function passed as a value": (swap("apply(middle, x)", "apply(deep, x)"), {"one"}),
    "lambda in a dict": (swap("lambda x: 2 * x", "lambda x: 3 * x"), {"one"}),
    "field": (swap("step: float = 0.5", "step: float = 0.6"), {"one"}),
    "order of fields": (
        swap(FIELDS, "".join(reversed(FIELDS.splitlines(keepends=True)))),
        {"one"},
    ),
    "order of statements": (swap(ADD, "".join(reversed(ADD.splitlines(keepends=True)))), {"one"}),
    "another notebook's": (swap("math.sqrt(x)", "math.exp(x)"), {"two"}),
    "what a name is imported from": (swap("import math\n", "import cmath as math\n"), {"two"}),
    "what importing does": (lambda text: text + "\nmath.sqrt = abs\n", {"one", "two"}),
}


@pytest.mark.parametrize(("edit", "who"), OTHER.values(), ids=OTHER)
def test_edits_that_change_exactly_the_notebooks_that_reach_them(edit, who):
    assert changed(edit) == who


EVERY_KIND = """
async def f(a, /, b=1, *args, c, d=None, **options):
    global g
    nonlocal_ = lambda x, *y, z=2: (yield x, -x, not x, x @ y[0:2, ...], {**z, 1: b"b", "é": 2j})
    async with a as b, c: await b
    for i, *rest in [k for k in a if k < 2 <= 3 for _ in b]: continue
    else: del i, rest
    try: f"{a!r:>{b}} and {c}" f"more" "é"
    except* (ValueError, OSError) as error: raise
    match a:
        case {"x": [1, *_], **more} | A(b=None) if True: return
        case _: pass
    g: int = (h := 3) if a else None
    while True: g += 1; break
class A(B, metaclass=C): x, (y, z) = {1}, (2, 3)
"""


def test_a_fingerprint_is_the_same_in_every_version_of_python():
    extra = {"notebooks/p/three.ipynb": notebook(EVERY_KIND)}
    assert values(project(extra=extra)) == {
        "p/one": "bad184a1f4a6b0dbb6a2be19c3c80bbf",
        "p/two": "81da70c94661959ff2cf33a80130bca6",
        "p/three": "8763ef10bf73fd0654fe1b37fead11d9",
    }


def test_what_does_not_count_is_passed_through_and_not_over(monkeypatch):
    """A module of machinery may change; what it leads to may not."""
    monkeypatch.setitem(fingerprint.DOES_NOT_COUNT, "toy.top", "machinery")
    extra = {"lib/toy/top.py": FILES["lib/toy/top.py"].replace("top(x)", "top(x) or 1.0")}
    assert changed(extra=extra) == set()
    assert changed(swap("LIMIT = 3.0", "LIMIT = 3.1")) == {"one"}


def test_swapped_helpers_are_noticed_though_no_definition_changes():
    """Both are reached before and after; only who calls which is another."""
    text = "from toy.h import {}\ndef f(x):\n    return a(x)\ndef g(x):\n    return b(x)\n"
    helper = {"lib/toy/h.py": "def a(x):\n    return x\n\ndef b(x):\n    return -x\n"}
    uses = {"notebooks/q.ipynb": notebook("from toy.k import f, g\nprint(f(1), g(1))")}
    straight = Project(FILES | helper | uses | {"lib/toy/k.py": text.format("a, b")})
    crossed = Project(FILES | helper | uses | {"lib/toy/k.py": text.format("a as b, b as a")})
    assert values(straight) != values(crossed)


def test_locals_that_share_a_name_with_a_definition_lead_nowhere():
    shadow = "from toy.base import deep\n\n\ndef f(deep):\n    return [deep for deep in deep]\n"
    made = Project(
        FILES
        | {"lib/toy/s.py": shadow, "notebooks/q.ipynb": notebook("from toy.s import f\nf([1])")}
    )
    assert {part.name for part in Reader(made).notebook("q").parts} == {"f", "cell 0"}


def test_cells_that_draw_and_knobs_do_not_count():
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "splits = 2"},
        {"cell_type": "code", "metadata": {}, "source": "notebook.map(len, [1], 'label')"},
        {"cell_type": "code", "metadata": {"tags": [FIGURE]}, "source": "draw('red')"},
        {"cell_type": "markdown", "metadata": {}, "source": "prose"},
    ]

    def value():
        text = json.dumps({"cells": cells})
        return Reader(Project(FILES | {"notebooks/q.ipynb": text})).notebook("q").value

    before = value()
    for number, text in ((0, "splits = 3"), (2, "draw('blue')"), (3, "other prose")):
        cells[number]["source"] = text
        assert value() == before
    cells[1]["source"] = "notebook.map(len, [1], 'another label')"
    assert value() == before
    cells[1]["source"] = "notebook.map(len, [2], 'label')"
    assert value() != before


@pytest.mark.parametrize(
    "code",
    [
        "import toy.base\ngetattr(toy.base, name)(1)",
        "from toy.base import *",
        "import importlib\nimportlib.import_module('toy.base')",
        "from toy import base\nbase.LIMIT = 4.0",
        "from toy import base\nbase.CHOICES['x'] = len",
        "from toy import base\nrun(base)",
        "exec('x = 1')",
        "globals()['x']()",
        "class A: pass\nA.__subclasses__()",
    ],
)
def test_what_only_running_shows_is_refused(code):
    made = Project(FILES | {"notebooks/q.ipynb": notebook(code)})
    assert Reader(made).notebook("q").refused


@pytest.mark.parametrize(
    "code",
    [
        "REGISTRY = {}\ndef register(f):\n    REGISTRY[f.__name__] = f\n    return f\n",
        "REGISTRY = []\ndef register(f):\n    REGISTRY.append(f)\n    return f\n",
        "COUNT = 0\ndef register(f):\n    global COUNT\n    COUNT += 1\n    return f\n",
        "from functools import singledispatch\n@singledispatch\ndef register(f):\n    return f\n",
    ],
)
def test_registries_filled_at_run_time_are_refused(code):
    made = Project(FILES | {"lib/toy/r.py": code})
    assert Reader(made).references([Reference("toy.r", "register")]).refused


@pytest.mark.slow
def test_nothing_in_this_project_is_guessed():
    """Every definition of the library that counts, and every notebook, can be followed."""
    made = Project.of_tree()
    reader = Reader(made)
    every = [
        Reference(module, name)
        for module in made.modules
        if module not in fingerprint.DOES_NOT_COUNT
        for name in made.table(module).definitions
    ]
    assert reader.references(every).refused == ()
    assert {name: reader.notebook(name).refused for name in made.notebooks} == dict.fromkeys(
        made.notebooks, ()
    )


def test_the_list_of_what_does_not_count_names_modules_that_exist():
    assert set(fingerprint.DOES_NOT_COUNT) <= set(Project.of_tree().modules)


WRITES = re.compile(r"notebook\.(metric|table|map|load|rng|timing|finish)\(")


@pytest.mark.parametrize("name", Project.of_tree().notebooks)
def test_cells_that_only_draw_give_nothing_to_others(name):
    cells = Project.of_tree().cells(name)
    bound = {}
    for cell in cells:
        if FIGURE in cell.tags:
            assert not WRITES.search(cell.code), cell.code
            for node in ast.walk(ast.parse(cell.code)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    bound[node.id] = cell.number
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    bound[node.name] = cell.number
    for cell in cells:
        if FIGURE not in cell.tags:
            tree = ast.parse(cell.code)
            names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
            own = {node.id for node in names if isinstance(node.ctx, ast.Store)}
            own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
            read = {node.id for node in names} - own
            earlier = {key for key, number in bound.items() if number < cell.number}
            assert not read & earlier, f"cell {cell.number} reads what a drawing cell binds"


@pytest.mark.slow
def test_a_shared_block_is_found_through_a_papers_module():
    pipeline = stages.Pipeline()
    assert pipeline.needs("zhao2018/quality").code.shared == {"zhao2018/setting"}
    assert pipeline.needs("koh2021/attacks").code.shared == {"koh2021/suite"}
    assert pipeline.needs("wang2021/width").code.device
    assert not pipeline.needs("koh2021/attacks").code.device


def test_a_data_set_is_prepared_by_its_own_parser():
    reader = stages.Pipeline()
    parts = {
        part.module
        for part in reader.reader.references(
            reader.reader.entry(Reference("poisoning.datasets.parse", "PARSERS"), "enron")
        ).parts
    }
    assert "poisoning.datasets.enron" in parts
    assert "poisoning.datasets.text" in parts
    assert "poisoning.datasets.imdb" not in parts


def test_the_committed_tree_reads_the_same_from_git_and_from_disk():
    clean = subprocess.run(
        ["git", "status", "--porcelain", "--", "lib", "notebooks"],
        cwd=paths.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    if clean.stdout:
        pytest.skip("the tree differs from its commit")
    assert Project.of_revision("HEAD").files == Project.of_tree().files


def test_the_command_prints_what_differs_between_revisions(capsys, monkeypatch):
    changed_project = project(swap("LIMIT = 3.0", "LIMIT = 3.1"))
    monkeypatch.setattr(Project, "of_tree", lambda root=None: changed_project)
    monkeypatch.setattr(Project, "of_revision", lambda revision, root=None: project())
    assert fingerprint.main(["p/one", "HEAD"]) == 0
    told = capsys.readouterr().out
    assert "changed: toy.base:LIMIT" in told
    assert "toy.base:other" not in told
    assert fingerprint.main(["p/one"]) == 0
    assert "toy.base:deep" in capsys.readouterr().out


def test_an_unknown_revision_or_notebook_is_one_sentence(capsys):
    with pytest.raises(RevisionError):
        Project.of_revision("no-such-revision")
    assert fingerprint.main(["koh2021/nothing"]) == 1
    assert capsys.readouterr().err == "there is no notebook koh2021/nothing.\n"
