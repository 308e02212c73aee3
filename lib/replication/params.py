"""``params.yaml``: every knob, its kind and its range; checked before any compute.

A knob is a plain value, or a mapping ``{quick: …, paper: …}`` (and ``demo:`` where it differs from
quick). The kind of a knob's values is declared in its notebook, in the cell of parameters:
``epsilon: "Fraction" = 0.03``; for blocks that several notebooks share, it is declared here.
``python -m replication.params`` checks the whole file for every profile.
"""

import argparse
import ast
import difflib
import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from poisoning import settings
from poisoning.datasets.sources import registry
from poisoning.settings import Kind, number, whole
from replication import paths
from replication.components import missing, place
from replication.conditions import Condition
from replication.contradictions import contradictions
from replication.conventions import PAIRS
from replication.provenance import tracked_notebooks
from replication.schemas import Declared, schema
from replication.strict_yaml import ParameterError, read_yaml, shown

PROFILES = ("demo", "quick", "paper")


class Knobs(BaseModel):
    """A block of knobs: unknown keys and silent conversions are refused.

    A field's ``description`` completes the sentence "it must be …".
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# Kinds ----------------------------------------------------------------------------------------


def _distinct(values: list[Any]) -> list[Any]:
    """A list whose entries differ, also as names of metrics, which have six digits."""
    names = [f"{value:g}" if isinstance(value, float) else repr(value) for value in values]
    if len(set(names)) < len(names):
        raise ValueError
    return values


def _data_set(name: str) -> str:
    if name not in {*registry(), *PAIRS}:
        raise PydanticCustomError("data_set", "no data set")
    return name


def _component(text: str) -> str:
    module, name, _ = place(text)
    told = missing(module, name)
    if told:
        raise PydanticCustomError("component", told)
    return text


class ExponentRange(Knobs):
    """A learned exponent's start and its feasible domain."""

    start: float = Field(ge=-20, le=20, description="an exponent, from -20 to 20")
    low: float = Field(ge=-20, le=20, description="an exponent, from -20 to 20")
    high: float = Field(ge=-20, le=20, description="an exponent, from -20 to 20")

    @model_validator(mode="after")
    def _is_ordered(self) -> "ExponentRange":
        if not self.low <= self.start <= self.high or self.low == self.high:
            raise ValueError
        return self


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
    "Component": Kind(
        Annotated[str, AfterValidator(_component)],
        "the path of a class, such as package.module.Class(name=1)",
        "paths of classes, such as package.module.Class(name=1)",
    ),
    "Range": Kind(ExponentRange, "a mapping with low < high and start from low to high"),
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
    except (SyntaxError, LookupError, ValueError, TypeError, AttributeError):
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
            name = Annotated[str, AfterValidator(_data_set)]
            return dict[name, Annotated[kind, field]], Field(min_length=1, description=says)
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
    says += ", each once"
    field = Field(min_length=least, max_length=most, description=says, **options)
    return Annotated[list[kind.type], AfterValidator(_distinct)], field


def block(name: str, kinds: dict[str, str]) -> type[Knobs]:
    """The model of a block of knobs, from the kind of each."""
    return _block(name, tuple(kinds.items()))


@cache
def _block(name: str, kinds: tuple[tuple[str, str], ...]) -> type[Knobs]:
    return create_model(name, __base__=Knobs, **{key: knob(kind) for key, kind in kinds})


# Recipes: what a data set has of its own ------------------------------------------------------

for _name, _kinds in {
    "Recipe": {
        "steps": "Count", "rate": "Step", "poison_step": "Step", "validation": "Fraction",
        "l2": "Range", "large_l2": "Exponent", "large_l1": "Exponent", "top": "list[Count, 2]",
    },
    "WidthRecipe": {
        "train": "Samples", "validation": "Samples", "rate": "Step", "averaged": "Flag",
        "epochs": "Count", "fixed_epoch": "Count", "patience": "Count",
        "references": "list[Literal['softmax', 'cnn', 'alexnet']]",
    },
}.items():  # fmt: skip
    KINDS[_name] = Kind(block(_name, _kinds), f"a mapping with {', '.join(_kinds)}")

# Blocks that several notebooks share ----------------------------------------------------------

SHARED = {
    "koh2021/suite": {
        **{f: f"WithDecoys.{f}" for f in schema("WithDecoys")}, "splits": "Count", "seeds": "Count",
        "flip": "RandomFlips", "alfa": "Alfa", "influence": "Influence", "kkt": "KKT",
        "minmax": "MinMax", "imdb": "WithDecoys",
    },
    "zhao2018/setting": {
        "lambda1": "Lambda", "lambda2": "Lambda", "radius": "Lambda", "step": "Step",
        "batch": "Count", "labels": "Literal['uniform', 'clean', 'constant']",
        "sarcos_train": "Count", "sarcos_test": "Count", "landmine_fraction": "Fraction",
        "mnist_per_class": "Count", "mnist_components": "Components",
    },
    "carnerero2023/attack": {
        "datasets": "list[Literal['mnist', 'fashion-mnist', 'cifar-10']]", "repeats": "Count",
        "n_train": "Examples", "n_test": "Examples", "batch": "Fraction", "batches": "Count",
        "hyperiterations": "Count", "rule": "Literal['decayed', 'adaptive']", "lam_step": "Step",
        "l1": "Range", "cv_points": "Count", "epochs": "Count",
        "sensitivity_draws": "Count", "recipes": "dict[Recipe]",
    },
    "crossing/setting": {
        "splits": "Count", "remove": "Fraction", "lam": "Lambda", "lambdas": "list[Lambda]",
        "removals": "list[Removal]",
    },
}  # fmt: skip
"""Their knobs, block by block; a notebook reads a block with ``notebook.shared``."""


# Notebooks' own blocks ------------------------------------------------------------------------


def notebook_file(name: str) -> Path:
    """The source of a notebook; ``name`` is ``<paper>/<section>`` or ``scorecard``."""
    return paths.NOTEBOOKS / f"{name}.ipynb"


class Declaration(NamedTuple):
    """A notebook's cell of parameters: by knob its kind and its demo value; and the conditions."""

    kinds: dict[str, str]
    values: dict[str, Any]
    conditions: tuple[Condition, ...]


def declared(name: str) -> Declaration:
    """What a notebook's cell of parameters says.

    Raises:
        ParameterError: there is no such notebook, or it cannot be read; the cell is missing, or
            holds something else than annotated literals and assertions.
    """
    file = notebook_file(name)
    try:
        return _declared(file, file.stat().st_mtime_ns)
    except FileNotFoundError:
        raise ParameterError(f"there is no notebook {name}.") from None


@cache
def _declared(file: Path, _: int) -> Declaration:
    try:
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ParameterError(f"{file} cannot be read as a notebook ({error}).") from None
    if len(tagged) != 1:
        raise ParameterError(
            f"{file.name} must have one cell tagged parameters, not {len(tagged)}."
        )
    kinds, values, conditions = {}, {}, []
    try:
        statements = ast.parse("".join(tagged[0]["source"])).body
    except SyntaxError as error:
        raise ParameterError(
            f"{file.name}: its cell of parameters is no Python ({error})."
        ) from None
    for statement in statements:
        match statement:
            case ast.AnnAssign(
                target=ast.Name(id=key), annotation=ast.Constant(value=str(kind)), value=value
            ) if _is_literal(value):
                kinds[key], values[key] = kind, ast.literal_eval(value)
            case ast.Assign(targets=[ast.Name(id="profile")], value=value) if _is_literal(value):
                values["profile"] = ast.literal_eval(value)
            case ast.Assert():
                try:
                    conditions.append(Condition.of(statement))
                except ValueError:
                    raise ParameterError(
                        f"{file.name}: `{ast.unparse(statement)}` in its cell of parameters must "
                        'compare knobs and say what must be so, like `assert low < high, "low '
                        'must be less than high"`.'
                    ) from None
            case _:
                raise ParameterError(
                    f"{file.name}: `{ast.unparse(statement)}` in its cell of parameters must give "
                    'a knob its kind, like `epsilon: "Fraction" = 0.03`.'
                )
    return Declaration(kinds, values, tuple(conditions))


def _is_literal(node: ast.expr | None) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError):
        return False
    return True


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
    workers: Workers = Field(description="a mapping with backend, jobs and scheduler")
    profiles: dict[Literal["demo", "quick", "paper"], Profile] = Field(
        min_length=3, description="a mapping of demo, quick and paper"
    )

    def section(self, name: str) -> dict[str, Any]:
        """The knobs of a notebook or of a shared block, ``<paper>/<section>``.

        Raises:
            ParameterError: the notebook has knobs and ``params.yaml`` no block for them.
        """
        paper, _, part = name.partition("/")
        found = getattr(getattr(self, paper, None), part.replace("-", "_"), None)
        if found is not None:
            return found.model_dump(exclude_unset=True)
        kinds = SHARED[name] if name in SHARED else declared(name).kinds
        if kinds:
            raise ParameterError(f"params.yaml: {_missing(name, kinds)}.")
        return {}


def _missing(name: str, kinds: Collection[str]) -> str:
    block = name.replace("/", ".").replace("-", "_")
    return f"{block} is missing: it must be a mapping with the knobs {', '.join(kinds)}"


def _folders() -> list[str]:
    """The folders of notebooks, one for a paper."""
    folders = sorted(paths.NOTEBOOKS.iterdir())
    return [f.name for f in folders if f.is_dir() and not f.name.startswith(".")]


def _model(raw: dict[str, Any]) -> type[Params]:
    """The model of this file: a block's knobs are those of the notebook of its name.

    Notebooks that git does not track may have a block; the others must, if they have knobs.
    """
    known = tracked_notebooks()
    papers: dict[str, Any] = {}
    for paper in _folders():
        content = raw.get(paper)
        given = set(content) if isinstance(content, dict) else set()
        kinds = {
            name.partition("/")[2]: of
            for name, of in SHARED.items()
            if name.startswith(f"{paper}/")
        }
        for file in sorted((paths.NOTEBOOKS / paper).glob("*.ipynb")):
            key, name = file.stem.replace("-", "_"), f"{paper}/{file.stem}"
            if key in given or known is None or name in known:
                kinds[key] = declared(name).kinds
        blocks = {}
        for key, of in kinds.items():
            says = f"a mapping with the knobs {', '.join(of)}" if of else "{}, for it has no knobs"
            optional = {} if of or key in given else {"default": None}
            blocks[key] = (block(key, of), Field(description=says, **optional))
        if not blocks and content is None:
            continue  # a folder without notebooks
        says = f"a mapping with the blocks {', '.join(blocks)}"
        of_paper = create_model(paper, __base__=Knobs, **blocks)
        papers[paper] = (of_paper, Field(description=says))
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
        raise ParameterError(
            f"{path.name} holds {shown(raw)} and no knobs: it must be a mapping of seed, device, "
            "workers, profiles and a block for each paper."
        )
    model = _model(raw)
    found = {}
    for profile in profiles:
        try:
            found[profile] = model.model_validate(resolve(raw, profile))
        except ValidationError as error:
            raise ParameterError(_sentence(model, error, profile, path.name)) from None
        _agree(found[profile], profile, path.name)
    return found


def _agree(loaded: Params, profile: str, file: str) -> None:
    """Raise for the first knobs that are valid each by itself, and not together."""
    blocks = {}
    for paper in set(_folders()) & set(type(loaded).model_fields):
        for key in getattr(loaded, paper).model_fields_set:
            shared = f"{paper}/{key}"
            name = shared if shared in SHARED else f"{paper}/{key.replace('_', '-')}"
            blocks[name] = loaded.section(name)
    for name, knobs in blocks.items():
        for condition in () if name in SHARED else declared(name).conditions:
            if not condition.holds(knobs):
                where = name.replace("/", ".").replace("-", "_")
                values = {f"{where}.{knob}": knobs[knob] for knob in condition.knobs}
                raise _contradiction(file, profile, values, condition.wanted)
    for wrong in contradictions(blocks, loaded.profiles[profile].data):
        raise _contradiction(file, profile, *wrong)


def _contradiction(
    file: str, profile: str, knobs: Mapping[str, Any], wanted: str
) -> ParameterError:
    values = " and ".join(f"{name} = {shown(value)}" for name, value in knobs.items())
    return ParameterError(f"{file}: {values} (profile {profile}) do not go together: {wanted}.")


def _sentence(model: type[Params], error: ValidationError, profile: str, file: str) -> str:
    # A misspelt knob is both unknown and missing: only the first error names the cause.
    problem = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    name = ".".join(part if len(part) <= 40 and part.isprintable() else shown(part)
                    for part in location)  # fmt: skip
    if problem["type"] in ("extra_forbidden", "data_set"):
        known = [*registry(), *PAIRS]
        kind = "the name of a data set"
        if problem["type"] == "extra_forbidden":
            known, kind = list(_fields(_place(model, location[:-1])[0])), "a knob"
        close = difflib.get_close_matches(location[-1][:100], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}."
        return f"{file}: {name} is not {kind}; {hint}"
    wanted = _place(model, location)[1]
    if problem["type"] == "missing":
        return f"{file}: {name} is missing (profile {profile}): it must be {wanted}."
    value = problem["input"]
    hint = ""
    if isinstance(value, str) and problem["type"].startswith(("float", "int")):
        hint = ", a number and not text (no quotes)"
    elif problem["type"] == "component":
        hint = f", and {problem['msg']}"
    return (
        f"{file}: {name or 'the file'} = {shown(value)} (profile {profile}) is not valid: it must "
        f"be {wanted}{hint}."
    )


def _place(model: Any, location: Sequence[str]) -> tuple[Any, str]:
    """The kind of values at a location, and the innermost description on the way there."""
    kind, says = model, "a mapping of seed, device, workers, profiles and a block for each paper"
    for part in location:
        kind = _bare(kind)
        if part in _fields(kind):
            field = _fields(kind)[part]
            kind, says = field.annotation, field.description or says
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
            about = [one for one in getattr(kind, "__metadata__", ()) if isinstance(one, FieldInfo)]
            says = about[0].description or says if about else says
        elif get_origin(kind) is list:
            kind = get_args(kind)[0]
    return _bare(kind), says


def _bare(kind: Any) -> Any:
    """A kind without its bounds."""
    return _bare(kind.__origin__) if get_origin(kind) is Annotated else kind


def _fields(kind: Any) -> dict[str, FieldInfo]:
    return getattr(kind, "model_fields", {})


def check() -> None:
    """Check ``params.yaml`` for every profile.

    Raises:
        ParameterError: it is invalid; if git has another version, the message says how to restore
            it.
    """
    try:
        load_all()
    except ParameterError as error:
        # Contents, not `git diff`: after `dvc exp run -S` git's index may call the file unchanged.
        command = ["git", "show", f"HEAD:./{paths.PARAMS.name}"]
        changed = False
        with suppress(OSError):  # there may be no git
            kept = subprocess.run(
                command, cwd=paths.PARAMS.parent, capture_output=True, check=False
            )
            now = paths.PARAMS.read_bytes() if paths.PARAMS.is_file() else None
            changed = kept.returncode == 0 and kept.stdout != now
        back = " (`git checkout params.yaml` takes back what was changed in it.)"
        raise ParameterError(f"{error}{back if changed else ''}") from None


def main(arguments: list[str] | None = None) -> int:
    """Check ``params.yaml`` for every profile and print one sentence; return 1 if it is invalid."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    try:
        check()
    except ParameterError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{paths.PARAMS.name}: every knob is valid in {', '.join(PROFILES)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
