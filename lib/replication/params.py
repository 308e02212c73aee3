"""``params.yaml``: every knob, its kind and its range; checked before any compute.

A knob is a plain value, or a mapping ``{quick: …, paper: …}`` (and ``demo:`` where it differs from
quick). The kind of a knob's values is declared in its notebook, in the cell of parameters:
``epsilon: "Fraction" = 0.03``; for blocks that several notebooks share, it is declared here.
``python -m replication.params`` checks the whole file for every profile.
"""

import ast
import difflib
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from poisoning import settings
from poisoning.settings import Kind, number, whole
from replication import paths
from replication.components import place
from replication.schemas import Declared, schema

PROFILES = ("demo", "quick", "paper")


class ParameterError(ValueError):
    """A knob is unknown, missing, of the wrong type or out of range; one sentence."""


class Knobs(BaseModel):
    """A block of knobs: unknown keys and silent conversions are refused.

    A field's ``description`` completes the sentence "it must be …".
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# Kinds ----------------------------------------------------------------------------------------


def _at_most_repeats(draws: int, info: Any) -> int:
    if draws > info.data.get("repeats", draws):
        raise ValueError("more draws than repeats")
    return draws


def _component(text: str) -> str:
    place(text)
    return text


class ExponentRange(Knobs):
    """A learned exponent's start and its feasible domain."""

    start: float = Field(ge=-20, le=20, description="an exponent, from -20 to 20")
    low: float = Field(ge=-20, le=20, description="an exponent, from -20 to 20")
    high: float = Field(ge=-20, le=20, description="an exponent, from -20 to 20")


_DRAWS = Annotated[int, Field(ge=1, le=1000), AfterValidator(_at_most_repeats)]

KINDS = {
    "Fraction": settings.FRACTION,
    "Removal": settings.REMOVAL,
    "Share": settings.SHARE,
    "Quantile": settings.QUANTILE,
    "Percentile": settings.PERCENTILE,
    "Loss": settings.LOSS,
    "Lambda": settings.LAMBDA,
    "Step": settings.STEP,
    "Exponent": settings.EXPONENT,
    "Count": settings.COUNT,
    "Examples": settings.EXAMPLES,
    "Flag": settings.FLAG,
    "Rate": number(0.0, 1.0, "a fraction above 0, at most 1", "fractions above 0", above=True),
    "Floor": number(0.0, 0.01, "a number from 0 to 0.01", "numbers from 0 to 0.01"),
    "Difference": number(0.0, 0.1, "a number above 0, at most 0.1", "numbers above 0", above=True),
    "Radius": number(0.0, 2.5, "a radius above 0, at most 2.5", "radii above 0", above=True),
    "Length": number(
        0.0, 1000.0, "a length above 0, at most 1000", "lengths above 0, at most 1000", above=True
    ),
    "Samples": whole(
        16, 10_000_000, "a whole number of examples, from 16", "whole numbers of examples, from 16"
    ),
    "Width": whole(1, 1_000_000, "a whole number, from 1", "whole numbers, from 1"),
    "Components": whole(1, 784, "a whole number, 1 to 784", "whole numbers, 1 to 784"),
    "Digit": whole(0, 9, "a digit", "digits"),
    "SensitivityDraws": Kind(_DRAWS, "a whole number of random draws, 1 to repeats"),
    "Component": Kind(
        Annotated[str, AfterValidator(_component)],
        "the path of a class, such as package.module.Class(name=1)",
        "paths of classes, such as package.module.Class(name=1)",
    ),
    "Range": Kind(ExponentRange, "a mapping with start, low and high"),
}
"""The kinds of knobs, by the names that cells of parameters use."""


def knob(kind: str) -> Any:
    """The type and the field of a knob, from ``Fraction``, ``list[Count, 2]``, ``Literal['a']``.

    ``dict[Step]`` gives a step to each data set by name.

    ``KKT.epsilon`` is the setting of that name of the attack ``KKT``, with its range; ``KKT`` a
    mapping of such settings, of which those that are left out have the attack's own defaults. A
    list has at least one entry, or as many as the second number says, and at most the third.

    Raises:
        ParameterError: there is no such kind.
    """
    try:
        return _knob(ast.parse(kind, mode="eval").body)
    except (SyntaxError, LookupError, ValueError, AttributeError):
        names = ", ".join(KINDS)
        raise ParameterError(
            f"{kind!r} is no kind of knob: use one of {names}, Literal['a', 'b'], list[…], dict[…],"
            " an attack's class such as KKT, or a setting of one such as KKT.epsilon."
        ) from None


def _knob(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name) if name in KINDS:
            return KINDS[name].type, Field(description=KINDS[name].one)
        case ast.Name(id=name):
            # Settings that are left out have the attack's own default.
            fields = {key: _of_attack(one, default=None) for key, one in schema(name).items()}
            model = create_model(name, __base__=Knobs, **fields)
            says = f"a mapping of {', '.join(fields)}"
            return model, Field(default=None, description=says)
        case ast.Attribute(value=ast.Name(id=name), attr=key):
            return _of_attack(schema(name)[key])
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            found = settings.choice(*map(ast.literal_eval, _parts(inner)))
            return found.type, Field(description=found.one)
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            first, *limits = _parts(inner)
            return _list(_entry(first), [ast.literal_eval(limit) for limit in limits] or [1])
        case ast.Subscript(value=ast.Name(id="dict"), slice=inner):
            kind, field = _knob(inner)
            says = f"a mapping of data sets, each to {field.description}"
            return dict[str, Annotated[kind, field]], Field(min_length=1, description=says)
    raise ValueError


def _parts(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _entry(node: ast.expr) -> Kind:
    """The kind of the entries of a list."""
    if isinstance(node, ast.Subscript) and node.value.id == "Literal":
        return settings.choice(*map(ast.literal_eval, _parts(node.slice)))
    return KINDS[node.id]


def _of_attack(declared: Declared, **options: Any) -> Any:
    kind, many, none = declared
    if none:
        kind = Kind(kind.type | None, f"{kind.one}, or null", kind.many and f"{kind.many}, or null")
    if many:
        return _list(kind, [1], **options)
    return kind.type, Field(description=kind.one, **options)


def _list(kind: Kind, limits: list[int], **options: Any) -> Any:
    least, most = limits[0], limits[1] if len(limits) > 1 else None
    says = f"a list of {kind.many}" if kind.many else f"a list of values, each {kind.one}"
    if least > 1:
        says += f", {least} of them" if most == least else f", at least {least} of them"
    field = Field(min_length=least, max_length=most, description=says, **options)
    return list[kind.type], field


def block(name: str, kinds: dict[str, str]) -> type[Knobs]:
    """The model of a block of knobs, from the kind of each."""
    return create_model(name, __base__=Knobs, **{key: knob(kind) for key, kind in kinds.items()})


# Blocks that several notebooks share ----------------------------------------------------------

_RECIPE = block(
    "Recipe",
    {
        "steps": "Count", "rate": "Step", "poison_step": "Step", "validation": "Fraction",
        "large_l2": "Exponent", "large_l1": "Exponent", "top": "list[Count]",
    },
)  # fmt: skip
KINDS["Recipe"] = Kind(_RECIPE, f"a mapping with {', '.join(_RECIPE.model_fields)}")

SHARED = {
    "koh2021/suite": {
        **{f: f"WithDecoys.{f}" for f in schema("WithDecoys")},
        "flip": "RandomFlips", "alfa": "Alfa", "influence": "Influence", "kkt": "KKT",
        "minmax": "MinMax", "imdb": "WithDecoys",
    },
    "zhao2018/setting": {
        "lambda1": "Lambda", "lambda2": "Lambda", "radius": "Lambda", "step": "Step",
        "batch": "Count", "labels": "Literal['uniform', 'clean', 'constant']",
        "sarcos_train": "Count", "sarcos_test": "Count", "landmine_fraction": "Quantile",
        "mnist_per_class": "Count", "mnist_components": "Components",
    },
    "carnerero2023/attack": {
        "datasets": "list[Literal['mnist', 'fashion-mnist', 'cifar-10']]", "repeats": "Count",
        "n_train": "Examples", "n_test": "Examples", "batch": "Fraction", "batches": "Count",
        "hyperiterations": "Count", "rule": "Literal['decayed', 'adaptive']", "lam_step": "Step",
        "l2": "Range", "l1": "Range", "cv_points": "Count", "epochs": "Count",
        "sensitivity_draws": "SensitivityDraws", "recipes": "dict[Recipe]",
    },
}  # fmt: skip
"""Their knobs, block by block; a notebook reads a block with ``notebook.shared``."""


# Notebooks' own blocks ------------------------------------------------------------------------


def notebook_file(name: str) -> Path:
    """The source of a notebook; ``name`` is ``<paper>/<section>`` or ``scorecard``."""
    return paths.NOTEBOOKS / f"{name}.ipynb"


def declared(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Kinds and demo values of the knobs in a notebook's cell of parameters.

    Raises:
        ParameterError: the cell is missing, or holds something else than annotated literals.
    """
    file = notebook_file(name)
    try:
        return _declared(file, file.stat().st_mtime_ns)
    except FileNotFoundError:
        raise ParameterError(f"there is no notebook {name}.") from None


@cache
def _declared(file: Path, _: int) -> tuple[dict[str, str], dict[str, Any]]:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    if len(tagged) != 1:
        raise ParameterError(
            f"{file.name} must have one cell tagged parameters, not {len(tagged)}."
        )
    kinds, values = {}, {}
    for statement in ast.parse("".join(tagged[0]["source"])).body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=key), annotation=ast.Constant(value=str(kind))):
                kinds[key], values[key] = kind, ast.literal_eval(statement.value)
            case ast.Assign(targets=[ast.Name(id="profile")]):
                values["profile"] = ast.literal_eval(statement.value)
            case _:
                raise ParameterError(
                    f"{file.name}: `{ast.unparse(statement)}` in its cell of parameters must give "
                    'a knob its kind, like `epsilon: "Fraction" = 0.03`.'
                )
    return kinds, values


# The whole file -------------------------------------------------------------------------------


class Workers(Knobs):
    """How units of work are spread over processors."""

    backend: Literal["serial", "loky", "dask"] = Field(description="serial, loky or dask")
    jobs: int = Field(ge=1, le=1024, description="a number of processes, 1 to 1024")
    scheduler: str | None = Field(
        description="a Dask scheduler's address such as tcp://host:8786, or null"
    )


class Profile(Knobs):
    """What a profile computes from."""

    data: Literal["standin", "real"] = Field(description="standin or real")


class Params(Knobs):
    """The whole of ``params.yaml``, resolved for one profile; papers' blocks are fields too."""

    seed: int = Field(ge=0, le=2**63 - 1, description="a whole number from 0")
    device: Literal["auto", "cpu", "cuda"] = Field(description="auto, cpu or cuda")
    workers: Workers
    profiles: dict[Literal["demo", "quick", "paper"], Profile]

    def section(self, name: str) -> dict[str, Any]:
        """The knobs of a notebook or of a shared block, ``<paper>/<section>``.

        Raises:
            ParameterError: the notebook has knobs and ``params.yaml`` no block for them.
        """
        paper, _, part = name.partition("/")
        found = getattr(getattr(self, paper, None), part.replace("-", "_"), None)
        if found is not None:
            return found.model_dump(exclude_unset=True)
        kinds, _ = declared(name)
        if kinds:
            raise ParameterError(
                f"params.yaml: {name.replace('/', '.').replace('-', '_')} is missing: it must hold "
                f"the knobs {', '.join(kinds)}."
            )
        return {}


def _model(raw: dict[str, Any]) -> type[Params]:
    """The model of this file: a block's knobs are those of the notebook of its name."""
    papers: dict[str, Any] = {}
    for folder in sorted(paths.NOTEBOOKS.iterdir()):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        blocks = {}
        content = raw.get(folder.name)
        for key in content if isinstance(content, dict) else ():
            shared = SHARED.get(f"{folder.name}/{key}")
            section = f"{folder.name}/{str(key).replace('_', '-')}"
            if shared is None and not notebook_file(section).is_file():
                continue
            kinds = shared if shared is not None else declared(section)[0]
            blocks[key] = (block(str(key), kinds), ...)
        papers[folder.name] = (create_model(folder.name, __base__=Knobs, **blocks), ...)
    return create_model("Params", __base__=Params, **papers)


def resolve(value: Any, profile: str) -> Any:
    """Replace each ``{quick: …, paper: …}`` by ``profile``'s value; demo falls back to quick's."""
    if isinstance(value, dict):
        if {"quick", "paper"} <= set(value) <= set(PROFILES) and not any(
            isinstance(v, dict) for v in value.values()
        ):
            return value.get(profile, value["quick"])
        return {key: resolve(item, profile) for key, item in value.items()}
    return value


def load(profile: str, path: Path | None = None) -> Params:
    """Read, resolve for ``profile`` and check ``path`` (``params.yaml`` unless given).

    Raises:
        ParameterError: one sentence naming the first bad knob, its value and what would be right.
    """
    if profile not in PROFILES:
        raise ParameterError(f"profile {profile!r} is unknown: use {', '.join(PROFILES)}.")
    return load_all(path, (profile,))[profile]


def load_all(path: Path | None = None, profiles: Sequence[str] = PROFILES) -> dict[str, Params]:
    """The knobs of several profiles; see :func:`load`."""
    path = path or paths.PARAMS
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ParameterError(f"{path.name} holds no knobs: it must be a mapping.")
    model = _model(raw)
    found = {}
    for profile in profiles:
        try:
            found[profile] = model.model_validate(resolve(raw, profile))
        except ValidationError as error:
            raise ParameterError(_sentence(model, error, profile, path.name)) from None
    return found


_AMBIGUOUS = re.compile(
    r"[-+]?0[0-9_]+|[-+]?0[obx][0-9a-fA-F_]+|[-+]?[0-9]+(:[0-9]{1,2})+(\.[0-9]*)?"
    r"|[-+]?[0-9]+_[0-9_.]*|(?i:yes|no|on|off|y|n)"
)
"""Plain words that readers of YAML 1.1 and of YAML 1.2 interpret differently."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML 1.2 file, as DVC reads it; words that YAML 1.1 reads otherwise raise.

    Raises:
        ParameterError: the file cannot be read, has a key twice, or a word with two meanings.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ParameterError(f"{path.name} is not a text in UTF-8.") from None
    except OSError as error:
        raise ParameterError(f"{path.name} cannot be read: {error.strerror}.") from None
    try:
        yaml = YAML(typ="safe", pure=True)
        node = yaml.compose(io.StringIO(text))
        for word in _words(node):
            if _AMBIGUOUS.fullmatch(word.value):
                raise ParameterError(
                    f"{path.name}, line {word.start_mark.line + 1}: {word.value} means different "
                    "things to different readers of YAML: write a decimal number, or quote a text, "
                    "or say true or false."
                )
        return None if node is None else yaml.constructor.construct_document(node)
    except (YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ParameterError):
            raise
        line = error.problem_mark.line + 1 if isinstance(error, MarkedYAMLError) else None
        problem = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        where = "" if line is None else f", line {line}"
        problem = " ".join(str(problem).split())
        raise ParameterError(f"{path.name}{where} is not valid YAML: {problem}.") from None


def _words(node: Node | None) -> list[ScalarNode]:
    """All scalars without quotes, keys too."""
    if isinstance(node, ScalarNode):
        return [node] if node.style is None else []
    if isinstance(node, SequenceNode):
        return [word for item in node.value for word in _words(item)]
    if isinstance(node, MappingNode):
        return [word for pair in node.value for item in pair for word in _words(item)]
    return []


def _sentence(model: type[Params], error: ValidationError, profile: str, file: str) -> str:
    # A misspelt knob is both unknown and missing: only the first error names the cause.
    problem = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    name = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = list(_fields(model, location[:-1]))
        if len(location) == 2 and location[0] in model.model_fields:
            known += [s.partition("/")[2] for s in SHARED if s.startswith(f"{location[0]}/")]
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}."
        return f"{file}: {name} is not a knob; {hint}"
    field = next(
        (
            _fields(model, location[:depth]).get(location[depth])
            for depth in range(len(location) - 1, -1, -1)
            if _fields(model, location[:depth]).get(location[depth]) is not None
        ),
        None,
    )
    wanted = field.description if field and field.description else problem["msg"]
    if problem["type"] == "missing":
        return f"{file}: {name} is missing (profile {profile}): it must be {wanted}."
    value = problem["input"]
    hint = ""
    if isinstance(value, str) and problem["type"].startswith(("float", "int")):
        hint = ", a number and not text (no quotes)"
    return (
        f"{file}: {name} = {value!r} (profile {profile}) is not valid: it must be {wanted}{hint}."
    )


def _fields(model: Any, location: list[str]) -> dict[str, Any]:
    for part in location:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = getattr(field, "annotation", None)
    return getattr(model, "model_fields", {})


def check() -> None:
    """Check ``params.yaml`` for every profile.

    Raises:
        ParameterError: it is invalid; if git has another version, the message says how to restore
            it.
    """
    try:
        load_all()
    except ParameterError as error:
        command = ["git", "diff", "--quiet", "HEAD", "--", str(paths.PARAMS)]
        changed = subprocess.run(command, cwd=paths.ROOT, capture_output=True, check=False)
        back = " (`git checkout params.yaml` takes back what was changed in it.)"
        raise ParameterError(f"{error}{back if changed.returncode == 1 else ''}") from None


def main() -> int:
    """Check ``params.yaml`` for every profile and print one sentence; return 1 if it is invalid."""
    try:
        check()
    except ParameterError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{paths.PARAMS.name}: every knob is valid in {', '.join(PROFILES)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
