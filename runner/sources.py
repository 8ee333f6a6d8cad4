"""Several sources of settings, later ones over earlier ones, into one checked struct; all mistakes told at once.

A tree of `Given` values, each remembering who said it, is laid over by source after source and then checked against
the struct: unknown names, missing ones, wrong types, values out of range, and what the structs themselves refuse.
"""

from __future__ import annotations

import difflib
import enum
import json
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from runner.core.secret import Secret


class Given(msgspec.Struct, frozen=True):
    """One value, and who said it."""

    value: Any
    #: For people: `alt-runner.toml`, `RUNNER_GRPC__PORT`, `flag grpc.port`.
    source: str
    #: True where everything is text, so that `"5"` may be a number.
    text: bool = False


Node = dict[str, Any]
"""Names to nodes or Given values. The elements of a list have the names `0`, `1`, …"""

_BAD: Final = object()

#: Marks a field of a struct that is no setting: `Annotated[X, DERIVED]`.
DERIVED: Final = msgspec.Meta(title="derived")


def bare(kind: Any) -> Any:
    """A type without its `Annotated`."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def fields_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """A struct's fields that may be set, and their types."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if DERIVED not in getattr(hint, "__metadata__", ())}


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def element_of(kind: Any) -> Any:
    """What a map or a list of structs holds; None for everything else."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict:
        return arguments[1]
    return arguments[0] if origin in {tuple, list} and is_struct(bare(arguments[0])) else None


def type_at(kind: Any, path: Iterable[str]) -> Any:
    """The type of the setting at a path, or None if there is none."""
    for name in path:
        kind = bare(kind)
        kind = fields_of(kind).get(name) if is_struct(kind) else element_of(kind)
    return kind


def known_paths(kind: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all settings; an element of a map or a list is `*`."""
    kind = bare(kind)
    element = element_of(kind)
    if is_struct(kind):
        for name, inner in fields_of(kind).items():
            yield from known_paths(inner, (*prefix, name))
    elif element is not None:
        yield from known_paths(element, (*prefix, "*"))
    else:
        yield prefix


def close_to(name: str, names: Iterable[str]) -> str:
    """` Did you mean …?`, or nothing."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" Did you mean `{found[0]}`?" if found else ""


def plant(root: Node, path: tuple[str, ...], given: Given, kind: Any) -> None:
    """Lay a value over the tree; a map goes over what is there name by name, a list replaces it."""
    *way, last = path
    for name in way:
        inner = root.get(name)
        if not isinstance(inner, dict):
            inner = root[name] = {}
        root = inner
    value = _unpacked(given, bare(kind))
    if isinstance(value, list) and element_of(bare(kind)) is not None:
        root[last] = {}
        value = {str(place): element for place, element in enumerate(value)}
    if isinstance(value, Mapping):
        root.setdefault(last, {})
        for name, inner in value.items():
            plant(root, (last, str(name)), Given(inner, given.source), type_at(kind, [str(name)]))
    else:
        root[last] = Given(value, given.source, given.text)


def _unpacked(given: Given, kind: Any) -> Any:
    """Maps and lists that came as text: JSON, or words between commas."""
    value = given.value
    if given.text and isinstance(value, str) and (is_struct(kind) or typing.get_origin(kind) in {dict, tuple, list}):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            words = [word.strip() for word in value.split(",") if word.strip()]
            return words if typing.get_args(kind)[:1] == (str,) else value
    return value


class Checker:
    """Turns a tree into a struct and collects what is wrong on the way."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        #: Path to source, of every value that was given.
        self.origins: dict[str, str] = {}

    def check(self, node: Any, kind: Any, path: str = "") -> Any:
        """The value of a node, or a mark that means nothing if there were problems."""
        plain = bare(kind)
        element = element_of(plain)
        if isinstance(node, dict) and is_struct(plain):
            return self._struct(node, plain, path)
        if isinstance(node, dict) and element is not None:
            values = {name: self.check(inner, element, join(path, name)) for name, inner in node.items()}
            if any(value is _BAD for value in values.values()):
                return _BAD
            return values if typing.get_origin(plain) is dict else tuple(values.values())
        return self._leaf(node, kind, path)

    def _struct(self, node: Node, kind: type[msgspec.Struct], path: str) -> Any:
        fields = fields_of(kind)
        before = len(self.problems)
        values = {}
        for name, inner in node.items():
            if name in fields:
                values[name] = self.check(inner, fields[name], join(path, name))
            else:
                self._tell(inner, f"there is no setting `{join(path, name)}`.{close_to(name, fields)}")
        for field in msgspec.structs.fields(kind):
            if field.required and field.name not in node:
                self._tell(node, f"`{join(path, field.name)}` is missing")
        if len(self.problems) > before:
            return _BAD
        try:
            return kind(**values)
        except ValueError as error:
            self._tell(node, f"`{path}`: {error}" if path else str(error))
            return _BAD

    def _leaf(self, node: Any, kind: Any, path: str) -> Any:
        for place, given in leaves(node, path):
            self.origins[place] = given.source
        text = isinstance(node, Given) and node.text
        try:
            return finite(msgspec.convert(plain_value(node), kind, strict=not text, dec_hook=decode))
        except (msgspec.ValidationError, ValueError) as error:
            self._tell(node, f"`{path}`: {error}{_hint(node, bare(kind))}")
            return _BAD

    def _tell(self, node: Any, message: str) -> None:
        sources = dict.fromkeys(given.source for _, given in leaves(node))
        self.problems.append(": ".join([", ".join(sources), message] if sources else [message]))


def _hint(node: Any, kind: Any) -> str:
    """What was said, or may be said; never for a type that may hold a secret."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f" (one of {', '.join(str(member.value) for member in kind)})"
    return f" (it says {node.value!r})" if isinstance(node, Given) and kind in {int, float, bool} else ""


def finite(value: Any) -> Any:
    """The value, unless it is a float that no limit can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        msg = "Expected a finite `float`"
        raise ValueError(msg)
    return value


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Given]]:
    """All Given values of a tree with their paths."""
    if isinstance(node, Given):
        yield path, node
    else:
        for name, inner in node.items():
            yield from leaves(inner, join(path, name))


def plain_value(node: Any) -> Any:
    """A tree as the values it holds; names that count from 0 are a list again."""
    if isinstance(node, Given):
        return node.value
    values = {name: plain_value(inner) for name, inner in node.items()}
    counted = list(values) == [str(place) for place in range(len(values))]
    return list(values.values()) if values and counted else values


def decode(kind: type, value: Any) -> Any:
    """The types that msgspec does not know."""
    if kind in {Secret, Path} and isinstance(value, str):
        return kind(value)
    msg = f"Expected `str`, got `{type(value).__name__}`"
    raise ValueError(msg)
