"""JSON (RFC 8259). msgspec reads what is sound; what it refuses, and every finding's place, costs a second look."""

from __future__ import annotations

import json
import json.decoder
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from runner.core.alt.report import NOWHERE, Path, Position, Report, shown
from runner.core.alt.source import BOM, Source, position_at, text_of
from runner.core.alt.values import checked, too_deep

_scan_string: Callable[[str, int], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]
_SPACE = re.compile(r"[ \t\n\r]*")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
#: NUL and colon.
_TELLING_ESCAPE = re.compile(rb"\\u00(?:00|3[aA])")
#: Dollar and opening brace.
_REFERRING_ESCAPE = re.compile(rb"\\u00(?:24|7[bB])")
_LONGEST_INTEGER = 20
_LONG_DIGITS = re.compile("[0-9]{1000}")
#: A tree of wanted paths.
Wanted = dict[str | int, Any]


def read_json(data: bytes, report: Report) -> Source:
    """Parse JSON.

    Raises Unreadable: if it is no JSON.
    """
    data = data.removeprefix(BOM)
    try:
        value = msgspec.json.decode(data)
        msgspec.msgpack.encode(value)  # refuses what no ledger can store: integers beyond 64 bits
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        return _second_look(data, report)
    if not is_sound(data, value, value, report):
        return _second_look(data, report)
    return Source(value, lambda paths: _Places(text_of(data, report)).locate(paths), may_refer(data))


def may_refer(data: bytes) -> bool:
    """False if no text of sound JSON can hold a `${…}`."""
    # Single bytes are looked for first, many times faster than pairs.
    return (b"$" in data and b"${" in data) or (b"\\" in data and _REFERRING_ESCAPE.search(data) is not None)


def is_sound(data: bytes, value: Any, nested: Any, report: Report, *, above: int = 0) -> bool:
    """True if there is certainly no duplicate key, NUL, overlong text or undue depth.

    `value` is what the data was decoded into, and `nested` what of it holds the deepest containers, at most `above`
    levels below the root.

    Each key has a colon behind it, and all other colons are inside texts, which are written again as they are unless a
    colon is written as a number. So where the value, written again, holds as many colons as the data, no key was lost.
    """
    limits = report.limits
    return (
        (len(data) <= limits.max_string or _longest_text(data) <= limits.max_string)
        and (data.count(b"{") + data.count(b"[") <= report.depth or _is_shallow(nested, report.depth - above))
        and data.count(b":") == msgspec.json.encode(value).count(b":")
        and not (b"\\" in data and _TELLING_ESCAPE.search(data))
    )


def _longest_text(data: bytes) -> int:
    """Bytes of the longest text in sound JSON."""
    unescaped = data.replace(b"\\\\", b"..").replace(b'\\"', b"..")
    return max(map(len, unescaped.split(b'"')[1::2]), default=0)


def _is_shallow(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return True
    return False


def _second_look(data: bytes, report: Report) -> Source:
    """Parse again, slower, to tell exactly what is wrong, or that nothing is."""
    text = text_of(data, report)
    _check_depth(text, report)
    doubled = _Doubled()
    try:
        value = _decoder(text, doubled).decode(text)
    except json.JSONDecodeError as e:
        message = f"Not valid JSON: {e.msg[0].lower()}{e.msg[1:]}."
        raise report.fatal("SYNTAX", message, position=(e.lineno, e.colno)) from None
    places = _Places(text)
    if doubled.found:
        places.report_doubled(report)
    return Source(checked(value, report), places.locate)


class _Doubled:
    """Notices objects in which a key stands twice."""

    def __init__(self) -> None:
        self.found = False

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            self.found = True
        return made

    def after(self, end: int) -> tuple[bool, int]:
        """Whether there was one since the last time, with what the caller knows beside it."""
        found, self.found = self.found, False
        return found, end


def _decoder(text: str, doubled: _Doubled | None = None) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=doubled.object if doubled else None,
        parse_int=_integer if _LONG_DIGITS.search(text) else None,
    )


def _integer(digits: str) -> int:
    """Python refuses thousands of digits, and takes quadratic time for hundreds of thousands."""
    if len(digits) <= _LONGEST_INTEGER:
        return int(digits)
    return -(2**65) if digits.startswith("-") else 2**65


def _check_depth(text: str, report: Report) -> None:
    """Before parsing: the parsers below recurse."""
    if text.count("[") + text.count("{") <= report.depth:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        character = text[match.start()]
        if character in "[{":
            depth += 1
            if depth > report.depth:
                raise report.fatal("TOO_DEEP", too_deep(report), position=position_at(text, match.start()))
        elif character != '"':
            depth -= 1


def _scanner(decoder: json.JSONDecoder) -> Callable[[str, int], tuple[Any, int]]:
    """(text, index) → the value there, and the index after it."""
    scan: Callable[[str, int], tuple[Any, int]] = decoder.scan_once  # type: ignore[attr-defined]
    return scan


class _Places:
    """Finds where the values of a text stand that is known to be JSON."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._scan = _scanner(_decoder(text))
        self._found: dict[Path, tuple[int, int]] = {}

    def locate(self, paths: Sequence[Path]) -> Mapping[Path, tuple[Position, Position]]:
        """The position of each path, or else of its nearest ancestor. One pass over the text, whatever their number."""
        wanted: Wanted = {}
        for path in paths:
            branch = wanted
            for step in path:
                branch = branch.setdefault(step, {})
        start = self._skip_space(0)
        self._found = {(): (start, start)}
        self._descend(wanted, start, ())
        # Counting lines is linear, so it is done once for all, in the order of the text.
        offsets = sorted({index for pair in self._found.values() for index in pair})
        positions = dict(zip(offsets, self._positions(offsets), strict=True))
        return {path: self._nearest(path, positions) for path in paths}

    def _nearest(self, path: Path, positions: Mapping[int, Position]) -> tuple[Position, Position]:
        for length in range(len(path), -1, -1):
            if pair := self._found.get(path[:length]):
                at_key, at_value = pair
                return positions[at_key], positions[at_value]
        return NOWHERE, NOWHERE

    def _positions(self, offsets: list[int]) -> Iterator[Position]:
        line, counted = 1, 0
        for offset in offsets:
            line += self._text.count("\n", counted, offset)
            counted = offset
            yield line, offset - self._text.rfind("\n", 0, offset)

    def _descend(self, wanted: Wanted, start: int, path: Path) -> int:
        """Note what is wanted of the value at `start`; answers the index after it."""
        if not wanted or self._text[start] not in "{[":
            return self._after(start)

        def visit(step: str | int, at_key: int, at_value: int) -> int:
            if step not in wanted:
                return self._after(at_value)
            inner = (*path, step)
            self._found.setdefault(inner, (at_key, at_value))
            return self._descend(wanted[step], at_value, inner)

        return self._visit(start, visit)

    def report_doubled(self, report: Report) -> None:
        """Report each key that stands twice in its object."""
        doubled = _Doubled()
        scan = _scanner(_decoder(self._text, doubled))
        self._report_doubled(self._skip_space(0), (), report, lambda start: doubled.after(scan(self._text, start)[1]))

    def _report_doubled(self, start: int, path: Path, report: Report, look: Callable[[int], tuple[bool, int]]) -> int:
        found, end = look(start)
        if not found or report.full:
            return end
        seen: set[str | int] = set()

        def visit(step: str | int, at_key: int, at_value: int) -> int:
            inner = (*path, step)
            if step in seen:
                message = f"The key `{shown(str(step))}` stands twice in its object."
                # Counting lines is linear: half a million keys, each with its place, took minutes.
                position = NOWHERE if report.full else position_at(self._text, at_key)
                report.error("DUPLICATE_KEY", inner, message, position=position)
            seen.add(step)
            return self._report_doubled(at_value, inner, report, look)

        return self._visit(start, visit)

    def _visit(self, start: int, visit: Callable[[str | int, int, int], int]) -> int:
        """Call `visit(step, index of key, index of value)` for each member; it answers the index after the value."""
        text, number = self._text, 0
        is_object = text[start] == "{"
        index = self._skip_space(start + 1)
        while text[index] not in "]}":
            at_key = index
            key: str | int = number
            if is_object:
                key, index = _scan_string(text, index + 1)
                index = self._skip_space(self._skip_space(index) + 1)
            number += 1
            index = self._skip_space(visit(key, at_key, index))
            if text[index] == ",":
                index = self._skip_space(index + 1)
        return index + 1

    def _after(self, start: int) -> int:
        return self._scan(self._text, start)[1]

    def _skip_space(self, index: int) -> int:
        match = _SPACE.match(self._text, index)
        return match.end() if match else index
