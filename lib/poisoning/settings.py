"""Settings of attacks: frozen fields, each with its kind, its range and its meaning.

A :class:`Kind` is a type with bounds and its description for error messages. ``params.yaml`` is
checked by the same kinds, so that every range is defined once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MultipleOf


class Kind(NamedTuple):
    """The values a setting may take, and phrases that complete "it must be" and "a list of"."""

    type: Any
    one: str
    many: str = ""


def number(low: float, high: float, one: str, many: str, *, above: bool = False) -> Kind:
    """A number from ``low``, or above it, to ``high``."""
    return Kind(Annotated[float, Gt(low) if above else Ge(low), Le(high)], one, many)


def whole(low: int, high: int, one: str, many: str) -> Kind:
    """A whole number from ``low`` to ``high``."""
    return Kind(Annotated[int, Ge(low), Le(high)], one, many)


def choice(*names: str) -> Kind:
    """One of ``names``."""
    one = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return Kind(Literal[names], one, f"values from {', '.join(names)}")


FRACTION = number(
    0.0, 0.5, "a fraction (not a percentage), above 0, at most 0.5",
    "fractions (not percentages), above 0, at most 0.5", above=True,
)  # fmt: skip
"""Poison per clean point, ε."""
REMOVAL = number(0.0, 0.5, "a fraction from 0 to 0.5", "fractions from 0 to 0.5")
SHARE = number(0.0, 1.0, "a fraction from 0 to 1", "fractions from 0 to 1")
"""A part of a whole, none and all included."""
QUANTILE = Kind(
    Annotated[float, Gt(0.0), Lt(1.0)], "a number between 0 and 1", "numbers between 0 and 1"
)
PERCENTILE = number(
    0.0, 100.0, "a percentile, above 0, at most 100", "percentiles above 0", above=True
)
"""Where a limit lies among the clean points."""
LOSS = number(0.0, 100.0, "a number from 0 to 100", "numbers from 0 to 100")
LAMBDA = number(
    0.0, 1000.0, "a number above 0, at most 1000", "numbers above 0, at most 1000", above=True
)
"""λ of a penalty."""
STEP = number(
    0.0, 1e6, "a step length above 0, at most 1000000", "step lengths above 0", above=True
)
"""The length of a step, or a rate."""
LENGTH = number(0.0, 1e9, "a length from 0 to 1000000000", "lengths from 0")
RADIUS = number(0.0, 1000.0, "a radius above 0, at most 1000", "radii above 0", above=True)
COUNT = whole(1, 1000, "a whole number, 1 to 1000", "whole numbers, 1 to 1000")
"""How many of something, at least one."""
ROUNDS = whole(0, 1000, "a whole number, 0 to 1000", "whole numbers, 0 to 1000")
ROWS = whole(1, 10_000_000, "a whole number of rows, from 1", "whole numbers of rows, from 1")
EXAMPLES = Kind(
    Annotated[int, Ge(10), Le(100_000), MultipleOf(2)],
    "an even number of examples, 10 to 100000",
    "even numbers, 10 to 100000",
)
EXPONENT = number(-20.0, 20.0, "an exponent, from -20 to 20", "exponents, from -20 to 20")
FLAG = Kind(bool, "true or false")
"""Whether or not."""


def setting(default: Any, kind: Kind, about: str, *, many: bool = False, none: bool = False) -> Any:
    """A dataclass field with a default, a kind and a meaning.

    ``many``: a tuple of at least one such value. ``none``: None is allowed too.
    """
    return field(
        default=default, metadata={"kind": kind, "about": about, "many": many, "none": none}
    )


@dataclass(frozen=True)
class Settings:
    """A frozen dataclass whose fields made by :func:`setting` are checked when it is made.

    A list is turned into a tuple.

    Raises ``ValueError`` for a value outside its kind: one sentence that names class, field and
    value and says what would be right.
    """

    def __post_init__(self) -> None:
        for one in fields(self):
            if "kind" in one.metadata:
                value = getattr(self, one.name)
                if one.metadata["many"] and isinstance(value, list):
                    value = tuple(value)
                    object.__setattr__(self, one.name, value)
                if not allowed(value, one.metadata):
                    raise ValueError(
                        f"{type(self).__name__}: {one.name} must be {described(one.metadata)}, "
                        f"not {value!r}."
                    )


def described(about: Any) -> str:
    """The phrase that completes "it must be" for a field made by :func:`setting`."""
    kind: Kind = about["kind"]
    says = f"a sequence of {kind.many or kind.one}" if about["many"] else kind.one
    return f"{says}, or None" if about["none"] else says


def allowed(value: Any, about: Any) -> bool:
    """Whether a value is of the kind that ``about``, a field's metadata, describes."""
    accepts = _accepts(about["kind"].type)

    def one(item: Any) -> bool:
        return (about["none"] and item is None) or accepts(item)

    if about["many"]:
        return isinstance(value, tuple) and len(value) > 0 and all(map(one, value))
    return one(value)


def _accepts(kind: Any) -> Callable[[Any], bool]:
    if get_origin(kind) is Literal:
        return lambda value: value in get_args(kind)
    if kind is bool:
        return lambda value: isinstance(value, bool | np.bool_)
    base, *bounds = get_args(kind)

    def accepts(value: Any) -> bool:
        if isinstance(value, bool | np.bool_):
            return False
        kinds = (int, np.integer) if base is int else (int, float, np.integer, np.floating)
        return isinstance(value, kinds) and all(_within(value, bound) for bound in bounds)

    return accepts


def _within(value: Any, bound: Any) -> bool:
    match bound:
        case Gt(gt=low):
            return value > low
        case Ge(ge=low):
            return value >= low
        case Lt(lt=high):
            return value < high
        case Le(le=high):
            return value <= high
        case MultipleOf(multiple_of=step):
            return value % step == 0
    return True
