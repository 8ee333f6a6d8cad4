"""Whether a condition holds. Nothing is converted: a text is no number, and what must be true or false is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from runner.core.events import Json
from runner.core.plan import Condition, Operator, Value

_ORDER: Final[dict[Operator, Callable[[Any, Any], bool]]] = {
    Operator.GT: lambda left, right: left > right,
    Operator.LT: lambda left, right: left < right,
    Operator.GTE: lambda left, right: left >= right,
    Operator.LTE: lambda left, right: left <= right,
}


class BadOperand(Exception):
    """An operand is of a type that its operator cannot take; the text says which."""


def holds(condition: Condition, resolve: Callable[[Json], Json]) -> bool:
    """Whether the condition is true; `and` and `or` look at their right side only where it matters.

    Raises BadOperand, and what `resolve` raises.
    """
    operator = condition.operator
    match operator:
        case Operator.NOT:
            return not _truth(condition.left, operator, resolve)
        case Operator.AND:
            return _truth(condition.left, operator, resolve) and _truth(condition.right, operator, resolve)
        case Operator.OR:
            return _truth(condition.left, operator, resolve) or _truth(condition.right, operator, resolve)
    return compare(operator, _value(condition.left, resolve), _value(condition.right, resolve))


def compare(operator: Operator, left: Json, right: Json) -> bool:
    """Compare two values by an operator that takes two.

    Raises BadOperand.
    """
    match operator:
        case Operator.EQ:
            return same(left, right)
        case Operator.NEQ:
            return not same(left, right)
        case Operator.CONTAINS:
            return _contains(left, right)
        case Operator.NOT_CONTAINS:
            return not _contains(left, right)
        case Operator.STARTS_WITH | Operator.ENDS_WITH:
            if not isinstance(left, str) or not isinstance(right, str):
                raise BadOperand(f"`{operator}` compares texts, not {kind_of(left)} and {kind_of(right)}")
            return left.startswith(right) if operator is Operator.STARTS_WITH else left.endswith(right)
    if not ((_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str))):
        raise BadOperand(f"`{operator}` compares two numbers or two texts, not {kind_of(left)} and {kind_of(right)}")
    return _ORDER[operator](left, right)


def same(left: Json, right: Json) -> bool:
    """Equality of JSON: 1 is 1.0, and true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    return bool(left == right)


def _contains(whole: Json, part: Json) -> bool:
    match whole:
        case str() if isinstance(part, str):
            return part in whole
        case list():
            return any(same(item, part) for item in whole)
        case dict() if isinstance(part, str):
            return part in whole
    raise BadOperand(f"{kind_of(whole)} cannot contain {kind_of(part)}")


def _truth(operand: Condition | Value | None, operator: Operator, resolve: Callable[[Json], Json]) -> bool:
    if isinstance(operand, Condition):
        return holds(operand, resolve)
    value = _value(operand, resolve)
    if not isinstance(value, bool):
        raise BadOperand(f"`{operator}` takes what is true or false, not {kind_of(value)}")
    return value


def _value(operand: Condition | Value | None, resolve: Callable[[Json], Json]) -> Json:
    match operand:
        case Condition():
            return holds(operand, resolve)
        case Value(value=value):
            return resolve(value)
    return None


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind_of(value: Json) -> str:
    """What a value is, in words."""
    words = {type(None): "null", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return words.get(type(value), "a number")
