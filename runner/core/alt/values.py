"""Makes sure that a parsed descriptor holds JSON values only, each of them one that every store can keep."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Any

from runner.core.alt.report import NOWHERE, Path, Position, Report, kind_of, shown

_SMALLEST, _GREATEST = -(2**63), 2**64 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def checked(value: Any, report: Report) -> Any:
    """The same value with times written as text (RFC 3339); what does not belong there is reported and becomes None."""
    return _value(value, (), report)


def _value(value: Any, path: Path, report: Report) -> Any:
    match value:
        case str():
            return _text(value, path, report)
        case None | bool():
            return value
        case int() | float():
            return _number(value, path, report)
        case list() | tuple() | dict():
            return _container(value, path, report)
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
    report.error("BAD_TYPE", path, f"A descriptor holds JSON values only, not {_foreign(value)}.")
    return None


def _container(value: list[Any] | tuple[Any, ...] | dict[Any, Any], path: Path, report: Report) -> Any:
    if len(path) >= report.depth:
        report.error("TOO_DEEP", path, too_deep(report))
        return None
    if isinstance(value, dict):
        return _object(value, path, report)
    longest = report.limits.max_string
    return [
        item if _is_sound(item, longest) else _value(item, (*path, index), report) for index, item in enumerate(value)
    ]


def _is_sound(value: Any, longest: int) -> bool:
    """True of most values: what costs little to know before a path is made for them."""
    kind = type(value)
    if kind is str:
        return len(value) <= longest and value.isascii() and "\0" not in value
    if kind is int:
        return bool(_SMALLEST <= value <= _GREATEST)
    return value is None or kind is bool


def _object(value: dict[Any, Any], path: Path, report: Report) -> dict[str, Any]:
    kept = {}
    longest = report.limits.max_string
    for key, item in value.items():
        if type(key) is str and _is_sound(key, longest) and _is_sound(item, longest):
            kept[key] = item
        elif isinstance(key, str):
            kept[_text(key, (*path, key), report)] = _value(item, (*path, key), report)
        else:
            bad_key(key, path, report)
    return kept


def bad_key(key: Any, path: Path, report: Report, *, position: Position = NOWHERE) -> None:
    """Report a key that is not text."""
    simple = isinstance(key, int | float) and not isinstance(key, bool)
    report.error(
        "BAD_KEY",
        path,
        f"A key must be text, not {_foreign(key)}.",
        suggestion=f'"{key}"' if simple and abs(key) < _GREATEST else "",
        position=position,
    )


def _foreign(value: Any) -> str:
    match value:
        case bytes():
            return "bytes"
        case tuple():
            return "a list"
        case None | bool() | int() | float() | list() | dict():
            return kind_of(value)
    return "an extension type"


def _number(value: float, path: Path, report: Report) -> float:
    if isinstance(value, float):
        message = "NaN, infinity and numbers beyond 64 bits are not accepted."
        sound = math.isfinite(value)
    else:
        message = "Integers must fit in 64 bits; write a greater one as text."
        sound = _SMALLEST <= value <= _GREATEST
    if sound:
        return value
    report.error("NUMBER_OUT_OF_RANGE", path, message)
    return 0


def _text(value: str, path: Path, report: Report) -> str:
    if len(value) > report.limits.max_string:
        report.error(
            "TEXT_TOO_LONG",
            path,
            f"A text of {len(value)} characters is longer than setting `descriptor.max_string` allows "
            f"({report.limits.max_string}).",
        )
        return ""
    if "\0" in value:
        report.error("NUL_CHARACTER", path, f"The text `{shown(value)}` holds a NUL character, which no store keeps.")
        return value.replace("\0", "")
    # isascii is a flag of the string: the search runs over the few others only.
    if not value.isascii() and _SURROGATE.search(value):
        report.error("BAD_ENCODING", path, "The text holds half of a surrogate pair, which is no character.")
        return _SURROGATE.sub("", value)
    return value


def too_deep(report: Report) -> str:
    return f"Nested deeper than setting `descriptor.max_depth` allows ({report.depth})."
