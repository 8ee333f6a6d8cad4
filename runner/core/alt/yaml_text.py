"""YAML, from the parser's events: JSON values only, bounded in depth, aliases and growth.

YAML 1.1, which PyYAML writes, and YAML 1.2 differ in what an unquoted word means. Where they do, it stays text, as it
was written: `no` (1.1: false; but it is Norwegian), `012` (10 or 12), `1e3` (text or a thousand), `12:30`, dates.
So a text that PyYAML saw no need to quote comes back as that text. Merge keys (`<<`) are followed.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from runner.core.alt.report import NOWHERE, Path, Position, Report, Unreadable, shown
from runner.core.alt.source import Source, position_at, text_of
from runner.core.alt.values import bad_key, checked, too_deep

_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({"!", f"{_TAG}str", f"{_TAG}timestamp"})
_PLAIN_TAGS = frozenset({None, *(f"{_TAG}{name}" for name in ("null", "bool", "int", "float"))})
_CONTAINER_TAGS = frozenset({None, "!", f"{_TAG}map", f"{_TAG}seq"})

_WORDS: Mapping[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float(f"{sign}inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"(?:[-+]?[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_LONGEST_INTEGER = 24


class _Place(NamedTuple):
    """Where a value stands, and its parts: by key with the key's position, or by index."""

    position: Position
    parts: Mapping[str | int, tuple[Position, _Place]] = {}


class _Node(NamedTuple):
    value: Any
    place: _Place
    #: Characters and nodes, with aliases followed.
    size: int


def read_yaml(data: bytes, report: Report) -> Source:
    """Parse YAML.

    Raises Unreadable: if it is no YAML, or goes beyond a limit on the way.
    """
    text = text_of(data, report)
    try:
        node = _Composer(text, report).document()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        position = position_at(text, min(mark.index, len(text))) if mark else NOWHERE
        sentence = ", ".join(part for part in (e.context, e.problem) if part)
        raise report.fatal("SYNTAX", f"Not valid YAML: {sentence}.", position=position) from None
    except yaml.reader.ReaderError as e:
        message = "Not valid YAML: control characters are not allowed."
        raise report.fatal("SYNTAX", message, position=position_at(text, min(e.position, len(text)))) from None
    return Source(checked(node.value, report), lambda paths: {path: _locate(node.place, path) for path in paths})


def _locate(place: _Place, path: Path) -> tuple[Position, Position]:
    at_key = place.position
    for step in path:
        if step not in place.parts:
            break
        at_key, place = place.parts[step]
    return at_key, place.position


class _Composer:
    """Makes values of events; recurses no deeper than `max_depth`."""

    def __init__(self, text: str, report: Report) -> None:
        #: The stubs know neither anchors nor that marks are always there.
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._report = report
        # The parser's own lines end at U+0085 and U+2028 as well, and its last one lies behind the text.
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._length = len(text)
        #: None while the value is not complete: an alias to it would be endless.
        self._anchors: dict[str, _Node | None] = {}
        self._aliases = 0
        #: Characters and nodes that aliases stood for so far.
        self._grown = 0

    def document(self) -> _Node:
        """The only document.

        Raises Unreadable: if there is none, or more than one.
        """
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                break
        else:
            raise self._report.fatal("EMPTY", "The descriptor is empty.")
        node = self._node(next(self._events), ())
        next(self._events)
        after = next(self._events)
        if not isinstance(after, StreamEndEvent):
            message = "There is a second document in the file; a descriptor is one."
            raise self._report.fatal("SYNTAX", message, position=self._position(after))
        return node

    def _node(self, event: Any, path: Path) -> _Node:
        if isinstance(event, AliasEvent):
            return self._aliased(event, path)
        anchor = event.anchor
        if anchor:
            self._anchors[anchor] = None
        node = self._scalar(event, path) if isinstance(event, ScalarEvent) else self._container(event, path)
        if anchor:
            self._anchors[anchor] = node
        return node

    def _aliased(self, event: Any, path: Path) -> _Node:
        name = event.anchor
        self._aliases += 1
        limit = self._report.limits.max_yaml_aliases
        if self._aliases > limit:
            message = f"More aliases than setting `descriptor.max_yaml_aliases` allows ({limit})."
            raise self._fatal("TOO_MANY_ALIASES", message, path, event)
        if name not in self._anchors:
            raise self._fatal("UNKNOWN_ALIAS", f"There is no anchor `&{shown(name)}` before this alias.", path, event)
        node = self._anchors[name]
        if node is None:
            raise self._fatal("RECURSIVE_ALIAS", f"`*{shown(name)}` stands inside of what it names.", path, event)
        self._grown += node.size
        self._check_size(self._grown, path, event)
        return node._replace(place=_Place(self._position(event), node.place.parts))

    def _container(self, event: Any, path: Path) -> _Node:
        if len(path) >= self._report.depth:
            raise self._fatal("TOO_DEEP", too_deep(self._report), path, event)
        if event.tag not in _CONTAINER_TAGS:
            self._bad_tag(event, path)
        node = self._mapping(event, path) if isinstance(event, MappingStartEvent) else self._sequence(event, path)
        self._check_size(node.size, path, event)
        return node

    def _check_size(self, size: int, path: Path, event: Any) -> None:
        limit = self._report.limits.max_bytes
        if size > limit:
            message = f"With its aliases followed it is larger than setting `descriptor.max_bytes` allows ({limit})."
            raise self._fatal("TOO_LARGE", message, path, event)

    def _sequence(self, start: Any, path: Path) -> _Node:
        values: list[Any] = []
        parts: dict[str | int, tuple[Position, _Place]] = {}
        size = 1
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            node = self._node(event, (*path, len(values)))
            parts[len(values)] = (node.place.position, node.place)
            values.append(node.value)
            size += node.size
        return _Node(values, _Place(self._position(start), parts), size)

    def _mapping(self, start: Any, path: Path) -> _Node:
        values: dict[str, Any] = {}
        parts: dict[str | int, tuple[Position, _Place]] = {}
        merged: list[_Node] = []
        size = 1
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            key = self._node(event, (*path, "?"))
            name = key.value
            is_merge = isinstance(event, ScalarEvent) and event.implicit[0] and name == "<<"
            node = self._node(next(self._events), (*path, name if isinstance(name, str) else "?"))
            size += key.size + node.size
            if is_merge:
                merged.extend(self._merged(node, path))
            elif not isinstance(name, str):
                bad_key(name, path, self._report, position=self._position(event))
            elif name in values:
                message = f"The key `{shown(name)}` stands twice in its mapping."
                self._report.error("DUPLICATE_KEY", (*path, name), message, position=self._position(event))
            else:
                values[name] = node.value
                parts[name] = (self._position(event), node.place)
        for base in merged:
            values = {**base.value, **values}
            parts = {**base.place.parts, **parts}
        return _Node(values, _Place(self._position(start), parts), size)

    def _merged(self, node: _Node, path: Path) -> Sequence[_Node]:
        """What `<<` names: mappings, the first of which wins."""
        nodes = [node]
        if isinstance(node.value, list):
            nodes = [
                _Node(value, part, 0) for value, (_, part) in zip(node.value, node.place.parts.values(), strict=True)
            ]
        if all(isinstance(base.value, dict) for base in nodes):
            return nodes
        message = "What is merged with `<<` must be a mapping or a list of mappings."
        self._report.error("BAD_TYPE", (*path, "<<"), message, position=node.place.position)
        return ()

    def _scalar(self, event: Any, path: Path) -> _Node:
        text, tag = event.value, event.tag
        value: Any = text
        if tag in _PLAIN_TAGS and (event.implicit[0] or tag):
            value = _plain(text)
        elif tag not in _TEXT_TAGS and tag is not None:
            self._bad_tag(event, path)
        return _Node(value, _Place(self._position(event)), len(text) + 1)

    def _bad_tag(self, event: Any, path: Path) -> None:
        message = f"The tag `{shown(event.tag)}` is not supported; a descriptor holds JSON values only."
        self._report.error("UNSUPPORTED_TAG", path, message, position=self._position(event))

    def _position(self, event: Any) -> Position:
        index = min(event.start_mark.index, self._length)
        line = bisect.bisect_left(self._line_ends, index)
        return line + 1, index - (self._line_ends[line - 1] if line else -1)

    def _fatal(self, reason: str, message: str, path: Path, event: Any) -> Unreadable:
        return self._report.fatal(reason, message, path=path, position=self._position(event))


def _plain(text: str) -> Any:
    """What an unquoted scalar means, where YAML 1.2.2 (10.3.2) and YAML 1.1 (its type repository) agree."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        # Python refuses thousands of digits; what is beyond 64 bits is refused later anyway.
        return int(text, 0) if len(text) <= _LONGEST_INTEGER else 2**65
    return float(text) if _FLOAT.fullmatch(text) else text
