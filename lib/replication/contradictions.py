"""What knobs of several blocks, or knobs and data sets, must fulfil together.

Conditions on the knobs of one notebook stand in its cell of parameters; see
:mod:`replication.conditions`. Here are those of blocks that several notebooks share, and those that
compare a knob with the size of a data set.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Blocks = Mapping[str, Mapping[str, Any]]
"""The knobs of every block that the file has, by ``<paper>/<block>``."""


class Contradiction(NamedTuple):
    """Knobs with their values, by full names, and what must be so instead."""

    knobs: dict[str, Any]
    wanted: str


class Size(NamedTuple):
    """Features of a data set, and how many examples each class has; for regression, one class."""

    d: int
    train: tuple[int, ...]
    test: tuple[int, ...] = ()


SIZES = {
    "real": {
        "mnist": Size(
            784, (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
            (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        ),
        "fashion-mnist": Size(784, (6000,) * 10, (1000,) * 10),
        "cifar-10": Size(3072, (5000,) * 10, (1000,) * 10),
        "sarcos": Size(21, (4449,)),
        "enron": Size(4822, (3672, 1500)),
    },
    "standin": {
        "mnist": Size(
            64, (144, 145, 139, 141, 146, 152, 140, 140, 139, 151),
            (34, 37, 38, 42, 35, 30, 41, 39, 35, 29),
        ),
        "fashion-mnist": Size(
            256, (146, 153, 150, 147, 142, 136, 147, 136, 136, 144),
            (32, 29, 27, 36, 39, 46, 34, 43, 38, 36),
        ),
        "cifar-10": Size(
            432, (116, 122, 118, 131, 124, 120, 114, 117, 119, 119),
            (34, 28, 32, 19, 26, 30, 36, 33, 31, 31),
        ),
        "sarcos": Size(21, (1500,)),
        "enron": Size(400, (888, 362)),
    },
}  # fmt: skip
"""Real data sets, at their largest variant, and stand-ins; knobs are checked before any is there.
A test compares them with the registry and the stand-ins."""

BINARY = {"mnist": (8, 0), "fashion-mnist": (2, 1), "cifar-10": (6, 0)}
"""The two classes that Carnerero-Cano et al. 2023 compare."""


def contradictions(blocks: Blocks, origin: str) -> Iterator[Contradiction]:
    """Those of the knobs of one profile, whose data are of ``origin``, real or standin."""
    sizes = SIZES[origin]
    yield from _koh2021(blocks, sizes)
    yield from _zhao2018(blocks, sizes)
    yield from _wang2021(blocks, sizes)
    if "carnerero2023/attack" in blocks:
        yield from _carnerero2023(blocks, sizes)


def _koh2021(blocks: Blocks, sizes: Mapping[str, Size]) -> Iterator[Contradiction]:
    """No budget rounds to no point, none is less than the copies of one point."""
    mails, digits = 4 * sum(sizes["enron"].train) // 5, sum(sizes["mnist"].train)
    for block, knob, copies, n in (
        ("suite", "epsilon", "copies", mails), ("kkt", "epsilon", "copies", mails),
        ("concentration", "epsilon", "", mails), ("label-flips", "epsilons", "", mails),
        ("ablations", "certificate_epsilons", "", mails), ("iterative", "large_epsilon", "", mails),
        ("multiclass", "epsilon", "copies", digits),
    ):  # fmt: skip
        knobs = blocks.get(f"koh2021/{block}", {})
        if knob not in knobs:
            continue
        given = knobs[knob]
        points = round(n * (min(given) if isinstance(given, list) else given))
        least = knobs.get(copies, 1)
        if points < least:
            names = (knob, copies) if copies in knobs else (knob,)
            yield _wrong(
                f"koh2021/{block}", knobs, names,
                f"{n} training examples give {points} points of poison, there must be at least "
                f"{least}",
            )  # fmt: skip
    for block in ("transfer", "matrix"):
        knobs = blocks.get(f"koh2021/{block}", {"datasets": ["enron"]})
        if "enron" not in knobs["datasets"]:
            yield _wrong(
                f"koh2021/{block}", knobs, ("datasets",),
                "enron must be among them, of which tables and figures show more than of others",
            )  # fmt: skip


def _zhao2018(blocks: Blocks, sizes: Mapping[str, Size]) -> Iterator[Contradiction]:
    setting = blocks.get("zhao2018/setting")
    if setting is None:
        return
    rows, mnist = sizes["sarcos"].train[0], sizes["mnist"]
    if setting["sarcos_train"] + setting["sarcos_test"] > rows:
        yield _wrong(
            "zhao2018/setting", setting, ("sarcos_train", "sarcos_test"),
            f"together they must be at most the {rows} rows of sarcos",
        )  # fmt: skip
    if setting["mnist_components"] > mnist.d:
        yield _wrong(
            "zhao2018/setting", setting, ("mnist_components",),
            f"it must be at most the {mnist.d} features of mnist",
        )  # fmt: skip
    if setting["mnist_per_class"] > min(mnist.train):
        yield _wrong(
            "zhao2018/setting", setting, ("mnist_per_class",),
            f"it must be at most the {min(mnist.train)} images of the rarest digit",
        )  # fmt: skip
    n = setting["sarcos_train"]
    for block, knobs in blocks.items():
        knob = "budgets" if "budgets" in knobs else "budget"
        if block.startswith("zhao2018/") and knob in knobs:
            least = min(knobs[knob]) if knob == "budgets" else knobs[knob]
            if round(least * n) < 1:
                yield Contradiction(
                    {_name(block, knob): knobs[knob], "zhao2018.setting.sarcos_train": n},
                    f"{least:g} of {n} examples must be at least one",
                )


def _wang2021(blocks: Blocks, sizes: Mapping[str, Size]) -> Iterator[Contradiction]:
    net = blocks.get("wang2021/two-layer")
    if net is not None:
        for knob, of, part in (("examples", "train", "training"), ("probe", "test", "test")):
            most = sum(getattr(sizes["mnist"], of)[digit] for digit in net["classes"])
            if net[knob] > most:
                yield _wrong(
                    "wang2021/two-layer", net, (knob, "classes"),
                    f"{knob} must be at most the {most} {part} images of these digits",
                )  # fmt: skip
    width = blocks.get("wang2021/width")
    if width is not None:
        recipes = {f"recipes.{name}": (name, width["recipes"][name]) for name in width["datasets"]}
        recipes["wide"] = "mnist", width["wide"]
        for knob, (name, recipe) in recipes.items():
            yield from _width(knob, recipe, width["batch"], min(sizes[name].train))


def _width(
    knob: str, recipe: Mapping[str, Any], batch: int, rarest: int
) -> Iterator[Contradiction]:
    """Whether a data set, with ``rarest`` images of its rarest class, allows a recipe."""
    block = "wang2021/width"

    def given(*knobs: str) -> dict[str, Any]:
        return {_name(block, f"{knob}.{name}"): recipe[name] for name in knobs}

    if (recipe["train"] + recipe["validation"]) // 10 > rarest:
        yield Contradiction(
            given("train", "validation"),
            f"a tenth of both together must be at most the {rarest} images of the rarest class",
        )
    if batch > recipe["train"]:
        yield Contradiction(
            {_name(block, "batch"): batch} | given("train"),
            "a batch must be at most the training images",
        )
    for name in ("fixed_epoch", "patience"):
        if recipe[name] > recipe["epochs"]:
            yield Contradiction(given(name, "epochs"), f"{name} must be at most epochs")


def _carnerero2023(blocks: Blocks, sizes: Mapping[str, Size]) -> Iterator[Contradiction]:
    block = "carnerero2023/attack"
    attack = blocks[block]
    networks = blocks.get("carnerero2023/networks")
    used = {"mnist": block, **dict.fromkeys(attack["datasets"], block)}
    for name in () if networks is None else networks["datasets"]:
        used.setdefault(name, "carnerero2023/networks")
    for name, by in used.items():
        if name not in attack["recipes"]:
            names = ", ".join(attack["recipes"])
            yield Contradiction(
                {_name(by, "datasets"): blocks[by]["datasets"]},
                f"{_name(block, 'recipes')} must have an entry for {name}, it has only {names}",
            )
            return
    if attack["sensitivity_draws"] > attack["repeats"]:
        knobs = ("sensitivity_draws", "repeats")
        yield _wrong(block, attack, knobs, "sensitivity_draws must be at most repeats")
    logistic = blocks.get("carnerero2023/logistic")
    if logistic is not None and logistic["longer_draws"] > attack["repeats"]:
        yield Contradiction(
            {
                _name("carnerero2023/logistic", "longer_draws"): logistic["longer_draws"],
                _name(block, "repeats"): attack["repeats"],
            },
            "longer_draws must be at most repeats",
        )
    if attack["cv_points"] < 2:
        yield _wrong(block, attack, ("cv_points",), "it must be at least 2, from low to high")
    factors = blocks.get("carnerero2023/validation-size", {}).get("factors", [])
    for name in attack["datasets"]:
        recipe = attack["recipes"][name]
        yield from _draws(block, attack, name, attack, recipe, sizes, (1.0, *factors))
        exponents = recipe["l2"]["high"], recipe["large_l2"]
        of_recipe = {
            _name(block, f"recipes.{name}.{knob}"): recipe[knob]
            for knob in ("rate", "l2", "large_l2")
        }
        yield from _unstable(recipe["rate"], exponents, of_recipe)
        if max(recipe["top"]) >= sizes[name].d:
            yield Contradiction(
                {_name(block, f"recipes.{name}.top"): recipe["top"]},
                f"each entry must be less than the {sizes[name].d} features of {name}",
            )
    if networks is not None:
        for name in networks["datasets"]:
            recipe, here = attack["recipes"][name], "carnerero2023/networks"
            yield from _draws(here, networks, name, attack, recipe, sizes, (1.0,))
            exponents = networks["l2"]["high"], networks["large_l2"]
            knobs = {_name(here, knob): networks[knob] for knob in ("rate", "l2", "large_l2")}
            yield from _unstable(networks["rate"][name], exponents, knobs)
    table = blocks.get("carnerero2023/hypergradients")
    if table is not None:
        yield from _hypergradients(table, attack, sizes["mnist"])


def _draws(
    block: str, knobs: Mapping[str, Any], name: str, attack: Mapping[str, Any],
    recipe: Mapping[str, Any], sizes: Mapping[str, Size], factors: tuple[float, ...],
) -> Iterator[Contradiction]:  # fmt: skip
    """Whether training, validation and test sets can be drawn, and poison from them.

    ``factors`` multiply the share of validation examples.
    """
    n, n_test = knobs["n_train"], knobs["n_test"]
    rows = round(attack["batch"] * n)
    of_both = {
        _name(block, "n_train"): n,
        _name("carnerero2023/attack", "batch"): attack["batch"],
    }
    share = {_name("carnerero2023/attack", f"recipes.{name}.validation"): recipe["validation"]}
    if rows < 1 or rows * attack["batches"] > n:
        batches = {_name("carnerero2023/attack", "batches"): attack["batches"]}
        yield Contradiction(
            of_both | batches,
            f"a batch must be a row or more, and all batches together at most {n}",
        )
    held = [2 * round(factor * recipe["validation"] * n / 2) for factor in factors]
    if rows > min(held):
        yield Contradiction(
            of_both | share,
            f"poison is cloned from validation examples: a batch of {rows} must be at most the "
            f"{min(held)} of the smallest validation set",
        )
    most = min(sizes[name].train[c] + sizes[name].test[c] for c in BINARY[name])
    if (n + max(held) + n_test) // 2 > most:
        yield Contradiction(
            {_name(block, "n_train"): n, _name(block, "n_test"): n_test} | share,
            f"half of the {n + max(held) + n_test} training, validation and test examples must be "
            f"at most the {most} that {name} has of the rarer class",
        )


def _unstable(
    rate: float, exponents: tuple[float, ...], knobs: dict[str, Any]
) -> Iterator[Contradiction]:
    """Whether gradient descent with this rate diverges under the largest of the penalties."""
    highest = max(exponents)
    if rate * math.exp(highest) >= 2.0:
        yield Contradiction(
            knobs,
            f"gradient descent must be stable, at a rate below 2/exp({highest:g}) = "
            f"{2.0 * math.exp(-highest):.3g}",
        )


def _hypergradients(
    table: Mapping[str, Any], attack: Mapping[str, Any], mnist: Size
) -> Iterator[Contradiction]:
    block = "carnerero2023/hypergradients"
    most = min(mnist.train[c] + mnist.test[c] for c in BINARY["mnist"])
    n_test = attack["n_test"]
    for knob, least, test in (
        ("n_train", min(table["growth"]), 0), ("attack_n_train", 1.0, n_test),
    ):  # fmt: skip
        n = table[knob]
        if least * n < 20 or (1.1 * n + test) / 2 > most:
            names = (knob, "growth") if knob == "n_train" else (knob,)
            yield _wrong(
                block, table, names,
                f"{knob} must leave 20 examples at the least growth, and half of them with a tenth "
                f"more and {test} test examples must be at most the {most} of the rarer digit",
            )  # fmt: skip
    recipe = attack["recipes"]["mnist"]
    if not recipe["l2"]["start"] >= -6.0:
        yield Contradiction(
            {_name("carnerero2023/attack", "recipes.mnist.l2"): recipe["l2"]},
            "start must be at least -6, the least exponent that the notebook hypergradients allows",
        )
    rate = recipe["rate"]
    knobs = {
        _name(block, "lam"): table["lam"],
        _name("carnerero2023/attack", "recipes.mnist.rate"): rate,
    }
    yield from _unstable(rate, (table["lam"],), knobs)


def _wrong(
    block: str, knobs: Mapping[str, Any], names: tuple[str, ...], wanted: str
) -> Contradiction:
    return Contradiction({_name(block, name): knobs[name] for name in names}, wanted)


def _name(block: str, knob: str) -> str:
    """A knob as it is written in ``dvc exp run -S``."""
    return f"{block.replace('/', '.').replace('-', '_')}.{knob}"
