"""Random invalid ``params.yaml``: each must be refused in one sentence, within a second.

Every mutation here is invalid by construction, whatever the checks say: what a kind of knob must
not be stands in :data:`WRONG` once more, written by hand. A file is judged by what a user sees: no
other exception than ``ParameterError``, one line, the place and the value in it, and none of the
words by which the libraries below betray themselves.
"""

import copy
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fuzz.tally import Outcome, tally
from replication import params, paths
from replication.strict_yaml import LARGEST

NAME = "params"
SLOW = 1.0
"""Seconds of the processor within which a file must be refused; and ten times as many of the clock,
which on a machine that does other work runs on."""

TRIES = 3
"""How often a file that took longer is read again: a machine stalls once, a slow file each time."""

RAW = ("Input should", "pydantic", "<unicode string>", "<file>", "Traceback", "object at 0x")
"""Words that no sentence for a user holds."""

HUGE = [None, "text", True, [], {}, {"a": 1}, [[1]], float("nan"), float("inf"), -float("inf"),
        1e300, -1e300, 10**400, -(10**30), "0.03", "1 000", "½", "x" * 300, "a\nb"]  # fmt: skip
"""What no number of any knob may be."""

_NO_WHOLE = [*HUGE, 2.5, 0, -1, -(10**9), 10**8]
WRONG: dict[str, list[Any]] = {
    "Count": [*_NO_WHOLE, 1001],
    "Examples": [*_NO_WHOLE, 11, 8, 100_002],
    "Samples": [*_NO_WHOLE, 15],
    "Width": [*_NO_WHOLE, 1_000_001],
    "Components": [*_NO_WHOLE, 785],
    "Iterated.rounds": [*HUGE, 2.5, -1, 1001],
    "Fraction": [*HUGE, 0, 0.0, -0.1, 0.51, 3, 100, -1e-300],
    "Removal": [*HUGE, -0.1, 0.51, 5],
    "Share": [*HUGE, -0.01, 1.01, 2],
    "Quantile": [*HUGE, 0.0, 1.0, 1.5, -0.2],
    "Percentile": [*HUGE, 0, -1, 100.5, 200],
    "Lambda": [*HUGE, 0.0, -0.1, 1000.5],
    "Step": [*HUGE, 0.0, -1.0, 1e7],
    "Exponent": [*HUGE, -20.5, 21],
    "Rate": [*HUGE, 0.0, 1.5, -0.5],
    "Floor": [*HUGE, -1e-9, 0.02],
    "Difference": [*HUGE, 0.0, 0.2, -0.1],
    "Radius": [*HUGE, 0.0, 3.0, -1.0],
    "Length": [*HUGE, 0.0, 1001.0, -1.0],
    "Digit": [*HUGE, 10, -1, 2.5],
    "Flag": ["true", 0, 1, 1.0, [], {}, "yes", "on"],
    "Component": [1, 0.5, True, [], {}, "nodots", "a.b(", "a.b(1)", "a.b(**x)", "a b.c", "", "a..b",
                  "a.b(x=open('f'))", "os.system('ls')", "__import__('os').x"],
    "Range": [*HUGE, {"start": 0.0}, {"start": 1.0, "low": 0.0, "high": 0.5},
              {"start": 0.0, "low": 1.0, "high": -1.0}, {"start": 0.0, "low": 0.0, "high": 0.0},
              {"start": 0.0, "low": -21.0, "high": 1.0}],
    "Literal": [1, 0.5, True, [], {}, "", "enron2", "MNIST", " mnist", "mnist ", "all", "x" * 300],
}  # fmt: skip

RECIPES = {"Recipe": "steps", "WidthRecipe": "epochs"}
"""Kinds that are mappings of knobs, and of each a knob that counts."""


class Mutation(NamedTuple):
    """A file's bytes, and texts that the refusal must hold, of each tuple one."""

    raw: bytes
    named: tuple[tuple[str, ...], ...]


Maker = Callable[["Source", random.Random], Mutation]


class Source:
    """The file in the repository: its text, its content, and the kind of each knob."""

    def __init__(self) -> None:
        self.text = paths.PARAMS.read_text(encoding="utf-8")
        self.content = yaml.load(self.text, Loader=yaml.CSafeLoader)
        self.knobs = dict(self._knobs())
        self.lines = self.text.splitlines()

    def _knobs(self) -> Iterator[tuple[tuple[str, ...], str]]:
        for name, kinds in params.SHARED.items():
            paper, block = name.split("/")
            yield from (((paper, block, key), kind) for key, kind in kinds.items())
        for paper in ("koh2021", "zhao2018", "carnerero2023", "wang2021"):
            for block in self.content[paper]:
                name = f"{paper}/{block.replace('_', '-')}"
                if f"{paper}/{block}" not in params.SHARED:
                    kinds = params.declared(name).kinds
                    yield from (((paper, block, key), kind) for key, kind in kinds.items())

    def scalars(self) -> list[int]:
        """The numbers of the lines ``name: value`` with a plain value."""
        plain = re.compile(r" *[\w-]+: +[\w.+-]+ *(#.*)?")
        return [number for number, line in enumerate(self.lines) if plain.fullmatch(line)]

    def replaced(self, line: int, value: str) -> str:
        """The text with another value in a line."""
        name, rest = self.lines[line].split(": ", 1)
        comment = rest[rest.index(" #") :] if " #" in rest else ""
        lines = [*self.lines[:line], f"{name}: {value}{comment}", *self.lines[line + 1 :]]
        return "\n".join(lines) + "\n"


class _Plain(yaml.CSafeDumper):
    """No anchors: every value is written where it stands."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dumped(content: Any) -> bytes:
    return yaml.dump(content, Dumper=_Plain, sort_keys=False, allow_unicode=True).encode()


def _changed(source: Source, path: tuple[Any, ...], value: Any) -> bytes:
    """The file with another value at a path."""
    content = copy.deepcopy(source.content)
    block = content
    for part in path[:-1]:
        block = block[part]
    block[path[-1]] = value
    return _dumped(content)


def _by_profile(value: Any, rng: random.Random) -> Any:
    """A wrong value for every profile, or for one."""
    if isinstance(value, dict) or rng.random() < 0.7:
        return value
    return {"quick": value, "paper": value}


# What a knob may not be -----------------------------------------------------------------------


def wrong_value(source: Source, rng: random.Random) -> Mutation:
    """A knob of the wrong type, or out of its range."""
    path, kind = rng.choice(list(source.knobs.items()))
    base = kind
    if kind.startswith("list["):
        base = "list"
    elif kind.startswith("dict["):
        base = "dict"
    elif kind.startswith("Literal"):
        base = "Literal"
    if base in WRONG:
        value = rng.choice(WRONG[base])
    elif base in ("list", "dict"):
        inner = kind[5:-1].split(",")[0] if "Literal" not in kind else "Literal"
        inner = "Literal" if inner.startswith(("list", "Literal")) else inner
        of = WRONG.get(inner, WRONG["Literal"])
        scalars = [one for one in of if not isinstance(one, dict | list)] or of
        options = [7, 0.5, "text", True, None, [rng.choice(scalars)], [None]]
        if base == "dict":
            options = [7, "text", True, None, {}, [], {"mnits": 1}, {"mnist": rng.choice(scalars)}]
        value = rng.choice(options)
        if inner in RECIPES and isinstance(value, dict) and "mnist" in value:
            value = {"mnist": {RECIPES[inner]: rng.choice(WRONG["Count"])}}
    else:  # an attack's settings, or one setting: no list of mappings is any
        value = rng.choice([[{"a": 1}], [[]], {"a": 1}, [{}], float("nan"), "x y", -5.5, 1e300])
    value = _by_profile(value, rng)
    return Mutation(_changed(source, path, value), ((".".join(path),),))


def wrong_top(source: Source, rng: random.Random) -> Mutation:
    """Seed, device, workers, profiles."""
    path, values = rng.choice([
        (("seed",), [-1, 2**63, 1.5, "2021", True, None, [1], {}, float("nan")]),
        (("device",), ["gpu", "CPU", 0, None, True, [], {}, "cuda:0"]),
        (("workers", "backend"), ["threads", 1, None, [], "", "Loky"]),
        (("workers", "jobs"), [0, -1, 2.5, "2", 1025, None, True, 10**30]),
        (("workers", "scheduler"), [8786, 0.5, True, [], {}]),
        (("workers",), [1, "loky", [], None, {}]),
        (("profiles",), [1, [], None, {}, {"demo": {"data": "real"}}, "demo"]),
        (("profiles", "quick", "data"), ["fake", 1, None, True, []]),
        (("profiles", "demo"), [1, "standin", None, [], {}]),
    ])  # fmt: skip
    return Mutation(_changed(source, path, rng.choice(values)), ((path[0],),))


def whole_block(source: Source, rng: random.Random) -> Mutation:
    """A paper's or a block's mapping replaced by something else."""
    paper = rng.choice(["koh2021", "zhao2018", "carnerero2023", "wang2021"])
    path: tuple[str, ...] = (paper,)
    if rng.random() < 0.6:
        path = paper, rng.choice(list(source.content[paper]))
    value = rng.choice([None, 1, "text", [], [1, 2], True, 0.5])
    return Mutation(_changed(source, path, value), ((".".join(path),),))


def profiles_of_a_knob(source: Source, rng: random.Random) -> Mutation:
    """Profiles that are not there, or of which one is missing."""
    singles = [p for p, kind in source.knobs.items() if kind in ("Count", "Fraction", "Examples")]
    path = rng.choice(singles)
    right = source.content[path[0]][path[1]][path[2]]
    right = right["quick"] if isinstance(right, dict) else right
    keys = rng.choice([["quick"], ["paper"], ["demo"], ["demo", "quick"], ["demo", "paper"],
                       ["quick", "paper", "fast"], ["Quick", "Paper"]])  # fmt: skip
    return Mutation(_changed(source, path, dict.fromkeys(keys, right)), ((".".join(path),),))


def missing_knob(source: Source, rng: random.Random) -> Mutation:
    """A knob, a block, a paper or a profile that is left out."""
    whole = {"RandomFlips", "Alfa", "Influence", "KKT", "MinMax", "WithDecoys"}
    paths_ = [path for path, kind in source.knobs.items() if kind not in whole]
    paths_ += [("seed",), ("device",), ("workers",), ("profiles",), ("workers", "jobs"),
               ("koh2021",), ("wang2021",), ("koh2021", "kkt"), ("koh2021", "suite"),
               ("zhao2018", "setting"), ("carnerero2023", "attack"), ("profiles", "paper"),
               ("wang2021", "width"), ("carnerero2023", "attack", "recipes", "mnist"),
               ("carnerero2023", "attack", "recipes", "mnist", "rate"),
               ("carnerero2023", "attack", "l1", "low"), ("wang2021", "width", "recipes", "mnist"),
               ("wang2021", "width", "recipes", "mnist", "rate"),
               ("carnerero2023", "networks", "poison_step", "mnist")]  # fmt: skip
    path = rng.choice(paths_)
    content = copy.deepcopy(source.content)
    block = content
    for part in path[:-1]:
        block = block[part]
    del block[path[-1]]
    return Mutation(_dumped(content), ((path[-1], path[0]),))


def unknown_knob(source: Source, rng: random.Random) -> Mutation:
    """A knob, a block or a paper that there is not; often a misspelling."""
    known = [path for path in source.knobs if path[2] in source.content[path[0]][path[1]]]
    path = rng.choice(known)[: rng.choice([1, 2, 3, 3, 3])]
    old = path[-1]
    place = rng.randrange(len(old))
    new = rng.choice([
        old + "s2", old[:place] + rng.choice("qxz_") + old[place:], old.upper(), "KNOB", " ", "",
        f"x{rng.random()}", "a.b", "<b>", "é", "x" * 300, "__class__", "model_config", "a\tb",
        "model_fields", "copy", "null_", "self",
    ])  # fmt: skip
    content = copy.deepcopy(source.content)
    block = content
    for part in path[:-1]:
        block = block[part]
    if new in block:
        new = f"{new}_q"
    block[new] = block.pop(old) if rng.random() < 0.5 else copy.deepcopy(block[old])
    return Mutation(_dumped(content), (("is not a knob",),))


def key_of_another_kind(source: Source, rng: random.Random) -> Mutation:
    """A key that is no text."""
    key = rng.choice(["1", "null", "true", "0.5", "[1, 2]", "{a: 1}", "2001-01-01", "~", ".inf"])
    line = rng.choice(["", "", "workers", "koh2021"])
    text = source.text
    if line:
        text = text.replace(f"{line}:", f"{line}:\n  ? {key}\n  : 3\n  #", 1)
    else:
        text += f"? {key}\n: 3\n"
    return Mutation(text.encode(), (("key", "the word"),))


def twice(source: Source, rng: random.Random) -> Mutation:
    """A key that stands twice, with the same or another value."""
    number = rng.choice(source.scalars())
    line = source.lines[number]
    again = line if rng.random() < 0.5 else source.replaced(number, "7").splitlines()[number]
    lines = [*source.lines[: number + 1], again, *source.lines[number + 1 :]]
    key = line.split(":")[0].strip()
    return Mutation("\n".join(lines).encode(), ((f"key '{key}' again",),))


def repeated_entry(source: Source, rng: random.Random) -> Mutation:
    """A list that names a value twice."""
    lists = []
    for path, kind in source.knobs.items():
        value = source.content[path[0]][path[1]].get(path[2])
        if kind.startswith("list["):
            value = value["paper"] if isinstance(value, dict) else value
            if value:
                lists.append((path, value))
    path, value = rng.choice(lists)
    again = rng.choice(value)
    if isinstance(again, float) and rng.random() < 0.3:
        again *= 1 + 1e-9  # the same name of a metric
    value = value[:]
    value.insert(rng.randrange(len(value) + 1), again)
    return Mutation(_changed(source, path, value), ((".".join(path),),))


# Knobs that do not go together ----------------------------------------------------------------

C, W, Z, K = "carnerero2023", "wang2021", "zhao2018", "koh2021"
_WIDTH_RECIPE = {"train": 400, "validation": 100, "rate": 0.1, "averaged": False, "epochs": 9,
                 "fixed_epoch": 5, "patience": 5, "references": ["cnn"]}  # fmt: skip
PAIRS: list[tuple[str, tuple[tuple[tuple[str, ...], Any], ...]]] = [
    ("classes", (((W, "two_layer", "classes"), [7, 7]),)),
    ("checkpoints", (((C, "networks", "checkpoints"), 9), ((C, "networks", "epochs"), 80))),
    ("sensitivity_draws", (((C, "networks", "sensitivity_draws"), 6),)),
    ("sensitivity_draws", (((C, "attack", "sensitivity_draws"), 11),)),
    ("top", (((C, "attack", "recipes", "mnist", "top"), [50, 784]),)),
    ("top", (((C, "attack", "recipes", "fashion-mnist", "top"), [800, 1000]),)),
    ("batches", (((C, "attack", "batches"), 15),)),
    ("batch", (((C, "attack", "batch"), 0.2),)),
    ("batch", (((C, "attack", "batch"), 1e-5),)),
    ("validation", (((C, "attack", "recipes", "mnist", "validation"), 0.01),)),
    ("n_train", (((C, "attack", "n_train"), 20_000),)),
    ("n_test", (((C, "attack", "n_test"), 12_000),)),
    ("cv_points", (((C, "attack", "cv_points"), 1),)),
    ("rate", (((C, "attack", "recipes", "mnist", "rate"), 3.0),)),
    ("l2", (((C, "attack", "recipes", "mnist", "l2", "start"), -7.5),)),
    ("l2", (((C, "attack", "recipes", "cifar-10", "l2", "low"), 5.0),)),
    ("longer", (((C, "logistic", "longer"), 1),)),
    ("longer_draws", (((C, "logistic", "longer_draws"), 11),)),
    ("l1", (((C, "networks", "l1", "high"), -13.0),)),
    ("rate", (((C, "networks", "rate", "mnist"), 6.0),)),
    ("recipes", (((C, "attack", "datasets"), ["fashion-mnist", "cifar-10"]),
                 ((C, "attack", "recipes"), {}))),
    ("n_train", (((C, "networks", "n_train"), 14_000),)),
    ("growth", (((C, "hypergradients", "growth"), [0.5, 2.0]),)),
    ("growth", (((C, "hypergradients", "growth"), [0.001, 1.0]),)),
    ("attack_n_train", (((C, "hypergradients", "attack_n_train"), 10),)),
    ("n_train", (((C, "hypergradients", "n_train"), 14_000),)),
    ("lam", (((C, "hypergradients", "lam"), 5.0),)),
    ("grid", (((C, "synthetic", "grid"), 1),)),
    ("exponents", (((C, "synthetic", "exponents"), 1),)),
    ("factors", (((C, "validation_size", "factors"), [2.0, 1.0]),)),
    ("factors", (((C, "validation_size", "factors"), [1.0]),)),
    ("validation", (((C, "validation_size", "factors"), [1.0, 50.0]),)),
    ("validation", (((C, "validation_size", "factors"), [0.1, 1.0]),)),
    ("samples", (((W, "convex", "samples"), [512, 64]),)),
    ("pair_samples", (((W, "convex", "pair_samples"), [64, 512, 128]),)),
    ("widths", (((W, "two_layer", "widths"), [64, 16]),)),
    ("examples", (((W, "two_layer", "examples"), 12_500),)),
    ("probe", (((W, "two_layer", "probe"), 3000),)),
    ("margin_examples", (((W, "two_layer", "margin_examples"), [20_000]),)),
    ("margin_draws", (((W, "two_layer", "margin_draws"), 500),)),
    ("other_seeds", (((W, "two_layer", "other_seeds"), 99),)),
    ("fixed_epoch", (((W, "width", "recipes", "mnist", "fixed_epoch"), 51),)),
    ("patience", (((W, "width", "recipes", "mnist", "patience"), 51),)),
    ("widths", (((W, "width", "widths"), [100, 10]),)),
    ("wide_widths", (((W, "width", "wide_widths"), [100, 10]),)),
    ("patience", (((W, "width", "wide", "patience"), 51),)),
    ("train", (((W, "width", "wide", "train"), 55_000),)),
    ("batch", (((W, "width", "batch"), 900), ((W, "width", "recipes", "mnist", "train"), 400))),
    ("recipes", (((W, "width", "datasets"), ["mnist"]),
                 ((W, "width", "recipes"), {"cifar-10": _WIDTH_RECIPE}))),
    ("train", (((W, "width", "recipes", "mnist", "train"), 55_000),)),
    ("start_draws", (((Z, "convergence", "start_draws"), 11),)),
    ("budgets", (((Z, "quality", "budgets"), [0.4, 0.5]),)),
    ("sarcos_train", (((Z, "setting", "sarcos_train"), 950), ((Z, "setting", "sarcos_test"), 999))),
    ("mnist_components", (((Z, "setting", "mnist_components"), 400),)),
    ("mnist_per_class", (((Z, "setting", "mnist_per_class"), 900),)),
    ("sarcos_train", (((Z, "relationships", "budget"), 0.001),)),
    ("epsilon", (((K, "kkt", "epsilon"), 1e-5),)),
    ("epsilon", (((K, "suite", "epsilon"), 1e-6),)),
    ("copies", (((K, "kkt", "copies"), 900),)),
    ("copies", (((K, "suite", "copies"), 999),)),
    ("epsilons", (((K, "label_flips", "epsilons"), [1e-6, 0.03]),)),
    ("epsilon", (((K, "multiclass", "epsilon"), 1e-6),)),
    ("large_epsilon", (((K, "iterative", "large_epsilon"), 1e-7),)),
    ("certificate_epsilons", (((K, "ablations", "certificate_epsilons"), [1e-6]),)),
    ("datasets", (((K, "transfer", "datasets"), ["imdb"]),)),
    ("datasets", (((K, "matrix", "datasets"), ["mnist-1-7"]),)),
]  # fmt: skip
"""Knobs that are valid each by itself; in every profile, or at least in one."""


def contradiction(source: Source, rng: random.Random) -> Mutation:
    """Knobs that contradict each other or the size of a data set."""
    named, changes = rng.choice(PAIRS)
    beside = (("seed",), rng.randrange(2**31)), ((K, "defenses", "remove"), rng.choice([0.01, 0.1]))
    return together(source, (*changes, *beside), named)


def together(
    source: Source, changes: Sequence[tuple[tuple[str, ...], Any]], named: str
) -> Mutation:
    """The file with other values at several paths."""
    content = copy.deepcopy(source.content)
    for path, value in changes:
        block = content
        for part in path[:-1]:
            block = block[part]
        block[path[-1]] = copy.deepcopy(value)
    return Mutation(_dumped(content), ((named,),))


# YAML's traps ---------------------------------------------------------------------------------


def trap(source: Source, rng: random.Random) -> Mutation:
    """A value that readers of YAML disagree on, or that hides what it is."""
    value, told = rng.choice([
        ("&a 1", "anchor"), ("*a", "alias"), ("!!float 1", "tag"), ("!!str a", "tag"),
        ("!!int '3'", "tag"), ("!!python/object/apply:os.system ['ls']", "tag"),
        ("!!python/name:os.system", "tag"), ("!local 1", "tag"), ("!!binary aGk=", "tag"),
        ("!!set {a, b}", "tag"), ("!!omap [a: 1]", "tag"), ("!!null x", "tag"), ("! 3", "tag"),
        ("010", "means different"), ("0o17", "means different"), ("0x1F", "means different"),
        ("0b11", "means different"), ("1_000", "means different"), ("1:30", "means different"),
        ("20:21:30.5", "means different"), ("no", "means different"), ("Yes", "means different"),
        ("ON", "means different"), ("off", "means different"), ("y", "means different"),
        ("N", "means different"), ("2001-01-01", "means different"), ("=", "means different"),
        ("2001-99-99", "means different"), ("2001-01-01 10:00:00", "means different"),
        ("2001-01-01T10:00:00Z", "means different"), ("{<<: {a: 1}}", "means different"),
        ("1_0.5", "means different"), ("-0_1", "means different"), ("+012", "means different"),
        ("[*a, *a]", "alias"), ("&a [*a]", "a"), ("&a {b: *a}", "a"),
        ("9" * 5000, "characters"), ("'" + "x" * 5000 + "'", "characters"),
        ("0." + "1" * 2000, "characters"), ("[" * 30 + "]" * 30, "levels deep"),
        ("{a: " * 30 + "1" + "}" * 30, "levels deep"), ("[" * 3000, "levels deep"),
        ("- " * 2, "YAML"), ("a: b: c", "YAML"), ("[1, 2", "YAML"), ("{a: 1", "YAML"),
        ("'open", "YAML"), ('"open', "YAML"), ('"\\q"', "YAML"), ("@a", "YAML"), ("`a`", "YAML"),
        ("%a", "YAML"), ("1\n\tb: 2", "YAML"), ("]", "YAML"), ("}", "YAML"), ("a\n b\n: c", "YAML"),
        ("!<tag:yaml.org,2002:int> 3", "tag"), ("&a", "anchor"), ("*", "YAML"), ("&", "YAML"),
    ])  # fmt: skip
    text = source.replaced(rng.choice(source.scalars()), value)
    # An open quote may close at the next one in the file: the value between is then too long.
    return Mutation(text.encode(), ((told, "YAML", "anchor or alias", "the tag", "characters"),))


def document(source: Source, rng: random.Random) -> Mutation:
    """Several documents, directives, a file that is no mapping, an alias bomb."""
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, rng.randrange(8, 30))
    )
    deep = "\n".join(" " * k + "a:" for k in range(rng.randrange(30, 300)))
    text, told = rng.choice([
        (source.text + "\n---\na: 1\n", "second document"),
        (f"%YAML 1.1\n---\n{source.text}", "directive"),
        (f"%TAG ! tag:x\n---\n{source.text}", "directive"),
        (f"%YAML 3.7\n---\n{source.text}", "YAML"),
        ("", "no knobs"), ("\n\n", "no knobs"), ("# nothing\n", "no knobs"), ("42\n", "no knobs"),
        ("[1, 2]\n", "no knobs"), ("a text\n", "no knobs"), ("null\n", "no knobs"),
        ("{}", "missing"),
        (bomb + source.text, "anchor"), (f"base: &b {{a: 1}}\n{source.text}", "anchor"),
        (deep + "\n" + source.text, "levels deep"),
        ("[" * rng.randrange(50, 90_000), "levels deep"),
        ("{a: " * rng.randrange(50, 20_000), "levels deep"),
        ("- " * rng.randrange(50, 40_000), "levels deep"),
        ("? " * rng.randrange(50, 40_000), "a key is a name"),
        (source.text + "x" * LARGEST, "bytes"),
        (source.text + "#" * rng.randrange(LARGEST, 3_000_000), "bytes"),
        (source.text + "\n" * LARGEST, "bytes"),
        (source.text + "k: [" + "1, " * LARGEST + "]", "bytes"),
        ("seed: 1\r\n\tdevice: cpu", "YAML"),
        (source.text.replace("\n", "\r\n\t", 1), "YAML"),
        (source.text + "<<: {seed: 1}\n", "means different"),
    ])  # fmt: skip
    return Mutation(text.encode(), ((told, "YAML"),))


def encoding(source: Source, rng: random.Random) -> Mutation:
    """Bytes that are no UTF-8, and characters that no text holds."""
    raw = source.text.encode()
    at = rng.randrange(len(raw))
    while raw[at] & 0xC0 == 0x80:  # not inside a character
        at -= 1
    bad = rng.choice([b"\xe5", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
    mark = rng.choice(
        ["\0", "\7", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029", "\ufffe", "\uffff"]
    )
    latin = source.text.replace("λ", "å").replace("η", "é")
    return rng.choice([
        Mutation(raw[:at] + bad + raw[at:], (("UTF-8",),)),
        Mutation(raw[:at] + mark.encode() + raw[at:], (("holds the character U+",),)),
        Mutation(source.text.encode("utf-16"), (("UTF-8",),)),
        Mutation(source.text.encode("utf-16-le"), (("UTF-8", "U+0000"),)),
        Mutation(source.text.encode("utf-32"), (("UTF-8",),)),
        Mutation(latin.encode("latin-1", "replace"), (("UTF-8",),)),
        Mutation(
            raw[: at // 2] + rng.randbytes(rng.randrange(40, 4000)), (("UTF-8", "U+", "YAML"),)
        ),
        Mutation(b"\x1f\x8b\x08\x00" + raw, (("UTF-8", "U+"),)),
    ])  # fmt: skip


def cut_off(source: Source, rng: random.Random) -> Mutation:
    """A file that was written in part: its last knob is missing, at least."""
    text = source.text[: rng.randrange(source.text.rindex("beta:"))]
    return Mutation(text.encode(), (("YAML", "missing", "is not valid", "no knobs", "is not a knob",
                                     "do not go together"),))  # fmt: skip


MAKERS: dict[str, tuple[int, Maker]] = {
    "type or range": (6, wrong_value), "top": (1, wrong_top), "block": (1, whole_block),
    "profiles": (1, profiles_of_a_knob), "missing": (2, missing_knob), "unknown": (2, unknown_knob),
    "key": (1, key_of_another_kind), "twice": (1, twice), "repeated": (1, repeated_entry),
    "contradiction": (3, contradiction), "trap": (3, trap), "document": (1, document),
    "encoding": (1, encoding), "cut off": (1, cut_off),
}  # fmt: skip
"""How often each is drawn, and what makes it."""


def fault(file: Path, named: tuple[tuple[str, ...], ...]) -> tuple[str, str, float]:
    """What a user sees: the verdict refused, wrong or crashed; the sentence; the seconds."""
    for _ in range(TRIES):
        verdict, said, seconds = _read(file)
        if seconds <= SLOW:
            break
    if verdict == "refused":
        plain = (
            said.isprintable()
            and said.endswith((".", "?"))
            and len(said) < 1500
            and not any(word in said for word in RAW)
            and all(any(text in said for text in texts) for texts in named)
        )
        verdict = "refused" if plain and seconds <= SLOW else "wrong"
    return verdict, said, seconds


def _read(file: Path) -> tuple[str, str, float]:
    begun, clock = time.process_time(), time.perf_counter()
    try:
        params.load_all(file)
        verdict, said = "wrong", "accepted"
    except params.ParameterError as error:
        verdict, said = "refused", str(error)
    except Exception as error:
        verdict, said = "crashed", f"{type(error).__name__}: {error}"
    seconds = max(time.process_time() - begun, 0.1 * (time.perf_counter() - clock))
    return verdict, said, seconds


def run(seed: int, count: int | None = None, budget_seconds: float = 600.0) -> dict[str, Any]:
    """Try ``count`` files, or as many as the seconds allow; what happened, by kind."""
    params.load_all()  # what is computed once
    with tempfile.TemporaryDirectory() as folder:
        outcomes = _outcomes(Path(folder) / "params.yaml", random.Random(seed))
        return tally(outcomes, MAKERS, seed, count, budget_seconds)


def _outcomes(file: Path, rng: random.Random) -> Iterator[Outcome]:
    source, names = Source(), list(MAKERS)
    weights = [MAKERS[name][0] for name in names]
    while True:
        (name,) = rng.choices(names, weights)
        mutation = MAKERS[name][1](source, rng)
        file.write_bytes(mutation.raw)
        where = ", ".join(" or ".join(texts) for texts in mutation.named)
        yield Outcome(name, f"{name} ({where})", *fault(file, mutation.named))
