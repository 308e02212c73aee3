"""What knobs of one notebook must fulfil together: the assertions in its cell of parameters.

    assert fixed_epoch <= epochs, "the fixed epoch must be one of the epochs"

An assertion compares knobs, literals, entries of mappings, sums, differences, products and
quotients of these, and what ``len``, ``max``, ``min``, ``set`` and ``sorted`` make of them. It is
worked out from its text, so that no code of a notebook runs before the notebook does.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "len": len, "max": max, "min": min, "set": set, "sorted": sorted,
}  # fmt: skip
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """A condition, the knobs that it compares, and the phrase that says what must be so."""

    test: ast.expr
    knobs: tuple[str, ...]
    wanted: str

    @classmethod
    def of(cls, statement: ast.Assert) -> "Condition":
        """The condition of an assertion.

        Raises:
            ValueError: it says not what must be so, compares no knobs, or uses more than this
                module's docstring allows.
        """
        names = [node.id for node in ast.walk(statement.test) if isinstance(node, ast.Name)]
        knobs = tuple(dict.fromkeys(name for name in names if name not in _FUNCTIONS))
        allowed = all(
            isinstance(node, _ALLOWED) and (not isinstance(node, ast.Call) or _is_known(node))
            for node in ast.walk(statement.test)
        )
        match statement.msg:
            case ast.Constant(value=str(wanted)) if knobs and allowed:
                return cls(statement.test, knobs, wanted)
        raise ValueError

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether these knobs fulfil it."""
        return bool(_value(self.test, values))


_ALLOWED = (
    ast.Compare, ast.BoolOp, ast.BinOp, ast.Name, ast.Constant, ast.Subscript, ast.Call, ast.Load,
    ast.And, ast.Or, *_OPERATORS,
)  # fmt: skip


def _is_known(call: ast.Call) -> bool:
    named = isinstance(call.func, ast.Name) and call.func.id in _FUNCTIONS
    return named and len(call.args) == 1 and not call.keywords


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return values[name]
        case ast.Subscript(value=inner, slice=key):
            return _value(inner, values)[_value(key, values)]
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, values), _value(right, values))
        case ast.BoolOp(op=op, values=parts):
            every = [_value(part, values) for part in parts]
            return all(every) if isinstance(op, ast.And) else any(every)
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return _FUNCTIONS[name](_value(argument, values))
        case ast.Compare(left=first, ops=ops, comparators=rest):
            ends = [_value(part, values) for part in (first, *rest)]
            pairs = zip(ops, ends, ends[1:], strict=False)
            return all(_OPERATORS[type(op)](left, right) for op, left, right in pairs)
    raise AssertionError(ast.dump(node))  # Condition.of lets nothing else through
