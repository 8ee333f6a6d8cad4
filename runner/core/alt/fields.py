"""Reads the fields of an object by a table: one row for each name, with what it becomes and how it is read."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import msgspec

from runner.core.alt.report import Path, Report, kind_of, shown
from runner.core.plan import Instant

TIME = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)"
    r"(?:(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(?:\.(\d+))?(?:[ \t]*(?:([Zz])|([+-])(\d\d?)(?::?(\d\d))?))?)?",
    re.ASCII,
)
#: As nearly all write it.
_PLAIN_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
#: Characters of a time that a suggestion repeats: the digits and the space inside of one have no end.
_LONGEST_TIME = 60
#: Characters of a text that a suggestion repeats as the only item of a list.
_LONGEST_ITEM = 60
#: Stands for an item that was reported; no text of a descriptor holds a NUL.
UNREADABLE = "\0"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class Spot:
    """One object of the descriptor, while it is read."""

    __slots__ = ("path", "report")

    def __init__(self, path: Path, report: Report) -> None:
        self.path = path
        self.report = report

    def wrong(self, reason: str, key: str, message: str, **more: Any) -> None:
        self.report.error(reason, (*self.path, key), message, **more)

    def not_a(self, what: str, key: str, value: Any) -> None:
        """Report a value of the wrong type."""
        suggestion = ""
        if what == "text" and isinstance(value, int | float) and not isinstance(value, bool):
            suggestion = f'"{value}"'
        if what == "a list of texts" and isinstance(value, str) and len(value) <= _LONGEST_ITEM and '"' not in value:
            suggestion = f'["{shown(value)}"]'
        self.wrong("BAD_TYPE", key, f"`{shown(key)}` must be {what}, not {kind_of(value)}.", suggestion=suggestion)


#: Answers what the plan holds, or None after it reported why there is nothing.
Read = Callable[[Any, Spot, str], Any]


class Field(NamedTuple):
    """A row of a table of fields."""

    #: The name of what it becomes.
    becomes: str
    read: Read
    required: bool = False


class Table:
    """The fields that an object may have."""

    def __init__(self, fields: Mapping[str, Field], also_known: Mapping[str, str] | None = None) -> None:
        self.fields = fields
        self.required = frozenset(name for name, field in fields.items() if field.required)
        #: Names that people use instead, and ours.
        self.also_known = also_known or {}

    def read(self, raw: dict[str, Any], spot: Spot) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is known, by the names that it becomes, and what is not, as it stands. A null counts as absent.

        A required field that is missing, and any that is wrong, is reported and left out.
        """
        known: dict[str, Any] = {}
        unknown: dict[str, Any] = {}
        fields = self.fields
        absent = not self.required <= raw.keys()
        for key, value in raw.items():
            field = fields.get(key)
            if field is None:
                unknown[key] = value
            elif value is not None:
                read = field.read(value, spot, key)
                if read is not None:
                    known[field.becomes] = read
            elif field.required:
                absent = True
        if absent or unknown:
            self._tell(raw, unknown, spot)
        return known, unknown

    def _tell(self, raw: dict[str, Any], unknown: dict[str, Any], spot: Spot) -> None:
        for name in self.fields:
            if name in self.required and raw.get(name) is None:
                spot.wrong("MISSING_FIELD", name, f"`{name}` is required.")
        free = [name for name in self.fields if name not in raw]
        for key in unknown:
            spot.report.warn(
                "UNKNOWN_FIELD",
                (*spot.path, key),
                f"`{shown(key)}` is not a field here; it is kept in the metadata and does nothing.",
                suggestion=self.also_known.get(key, ""),
                like=(key, free),
                at_key=True,
            )


# ------------------------------------------------------------------------------------------------ how to read


def as_it_is(value: Any, _spot: Spot, _key: str) -> Any:
    return value


def text(value: Any, spot: Spot, key: str) -> str | None:
    if type(value) is str:
        return value
    spot.not_a("text", key, value)
    return None


def filled_text(value: Any, spot: Spot, key: str) -> str | None:
    if type(value) is not str:
        spot.not_a("text", key, value)
        return None
    if not value or value.isspace():
        spot.wrong("BLANK", key, f"`{key}` must not be blank.")
        return None
    return value


def identifier(value: Any, spot: Spot, key: str) -> str | None:
    """An id: not blank, and short enough to be repeated in every event."""
    return filled_text(value, spot, key) if _fits("max_id", value, spot, key) else None


def title(value: Any, spot: Spot, key: str) -> str | None:
    """A text that is not blank, and short enough to be repeated in lists."""
    return filled_text(value, spot, key) if _fits("max_title", value, spot, key) else None


def short_text(value: Any, spot: Spot, key: str) -> str | None:
    """A text that is short enough to be repeated in lists."""
    return text(value, spot, key) if _fits("max_title", value, spot, key) else None


def _fits(setting: Literal["max_id", "max_title"], value: Any, spot: Spot, key: str) -> bool:
    limit: int = getattr(spot.report.limits, setting)
    if type(value) is not str or len(value) <= limit:
        return True
    message = f"`{key}` has {len(value)} characters; setting `descriptor.{setting}` allows {limit}."
    spot.wrong("TEXT_TOO_LONG", key, message)
    return False


def boolean(value: Any, spot: Spot, key: str) -> bool | None:
    if type(value) is bool:
        return value
    spot.not_a("true or false", key, value)
    return None


def mapping(value: Any, spot: Spot, key: str) -> dict[str, Any] | None:
    if type(value) is dict:
        return value
    spot.not_a("an object", key, value)
    return None


def texts(value: Any, spot: Spot, key: str) -> tuple[str, ...] | None:
    """A list of texts. An item that is none is reported and becomes UNREADABLE, so that others keep their places."""
    if type(value) is not list:
        spot.not_a("a list of texts", key, value)
        return None
    for index, item in enumerate(value):
        if type(item) is not str:
            message = f"`{key}` must hold texts, not {kind_of(item)}."
            spot.report.error("BAD_TYPE", (*spot.path, key, index), message)
    return tuple([item if type(item) is str else UNREADABLE for item in value])


class Integer(msgspec.Struct, frozen=True):
    """Reads whole numbers within these, both included."""

    lowest: int
    highest: int

    def __call__(self, value: Any, spot: Spot, key: str) -> int | None:
        if type(value) is not int:
            spot.not_a("a whole number", key, value)
            return None
        if self.lowest <= value <= self.highest:
            return value
        spot.wrong("OUT_OF_RANGE", key, f"`{key}` must be from {self.lowest} to {self.highest}, not {value}.")
        return None


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """Reads numbers greater than `above`, not less than `least` and not greater than `most`."""

    above: float = -math.inf
    least: float = -math.inf
    most: float = math.inf
    unit: str = ""

    def __call__(self, value: Any, spot: Spot, key: str) -> float | None:
        if type(value) is not int and type(value) is not float:
            spot.not_a(f"a number{self.unit}", key, value)
            return None
        if self.above < value <= self.most and value >= self.least:
            return float(value)
        spot.wrong("OUT_OF_RANGE", key, f"`{key}` must be a number{self.unit} {self._bounds()}, not {value}.")
        return None

    def _bounds(self) -> str:
        told = (("greater than", self.above), ("at least", self.least), ("at most", self.most))
        return " and ".join(f"{words} {bound:g}" for words, bound in told if math.isfinite(bound))


class Word(msgspec.Struct, frozen=True):
    """Reads one of these words, in any case; the answer is what stands behind it."""

    words: Mapping[str, Any]
    #: Of the finding, if it is none of them.
    reason: str

    def __call__(self, value: Any, spot: Spot, key: str) -> Any:
        if type(value) is not str:
            spot.not_a("text", key, value)
            return None
        found = self.words.get(value.lower())
        if found is None:
            listed = ", ".join(f"`{name}`" for name in self.words)
            spot.wrong(self.reason, key, f"`{shown(value)}` is no {key}; there are {listed}.", like=(value, self.words))
        return found


def instant(value: Any, spot: Spot, key: str) -> Instant | None:
    """A time: RFC 3339, and what YAML 1.1 and TOML also write as times. Without a zone it is taken as UTC."""
    if type(value) is not str:
        spot.not_a("a time as RFC 3339 text (2025-04-26T19:32:00Z)", key, value)
        return None
    if _PLAIN_TIME.fullmatch(value):
        with suppress(ValueError):  # a leap second, or no such time; looked at more closely below
            return (dt.datetime.fromisoformat(value) - _EPOCH) // _MICROSECOND
    match = TIME.fullmatch(value.strip())
    parsed = _instant(match) if match else None
    if match is None or parsed is None:
        spot.wrong("BAD_TIME", key, f"`{shown(value)}` is no RFC 3339 time; write it as 2025-04-26T19:32:00Z.")
        return None
    if not match[8] and not match[9]:
        message = f"`{shown(value)}` has no time zone and is taken as UTC."
        meant = f"{value.strip()}Z" if match[4] and len(value) <= _LONGEST_TIME else ""
        spot.report.warn("NO_TIME_ZONE", (*spot.path, key), message, suggestion=meant)
    return parsed


def _instant(match: re.Match[str]) -> Instant | None:
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction = int((match[7] or "").ljust(6, "0")[:6])
    offset = int(match[10] or 0) * 60 + int(match[11] or 0)
    # RFC 3339 §5.7: a leap second is written :60, which datetime does not know.
    leap = second == 60  # noqa: PLR2004 - the RFC's number
    try:
        moment = dt.datetime(year, month, day, hour, minute, 59 if leap else second, fraction, dt.UTC)
    except ValueError:
        return None
    if offset >= 24 * 60 or int(match[11] or 0) >= 60:  # noqa: PLR2004 - hours of a day, minutes of an hour
        return None
    shift = (60 if match[9] == "-" else -60) * offset + leap
    return (moment - _EPOCH) // _MICROSECOND + shift * 1_000_000
