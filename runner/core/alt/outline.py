"""Control flow as it is written: which segment runs which, and which names it sees. Read first, checked as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from runner.core.alt.report import Path
from runner.core.plan import Control, Function, Parameter, Type, Variable


class Names(msgspec.Struct):
    """The variables of one scope, and the scope around it."""

    types: dict[str, Type] = {}
    outer: Names | None = None

    def find(self, name: str) -> Type | None:
        """The type of the innermost variable of this name; None if there is none."""
        scope: Names | None = self
        while scope is not None:
            if (found := scope.types.get(name)) is not None:
                return found
            scope = scope.outer
        return None

    def __len__(self) -> int:
        return sum(len(scope.types) for scope in self._scopes())

    def __iter__(self) -> Iterator[str]:
        """Every name, the innermost first; one that hides another comes twice."""
        for scope in self._scopes():
            yield from scope.types

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def _scopes(self) -> Iterator[Names]:
        scope: Names | None = self
        while scope is not None:
            yield scope
            scope = scope.outer


class Body(msgspec.Struct, eq=False):
    """A list of segments that run together; the file's own is one, too."""

    #: Where the list stands in the file.
    path: Path
    ids: tuple[str, ...] = ()
    #: The segment that runs it, as an index; None for the file's and a function's.
    owner: int | None = None
    #: The function whose body it is, or empty.
    function: str = ""
    #: Its segments, as indices.
    members: list[int] = []
    names: Names = msgspec.field(default_factory=Names)
    #: Bodies around it; -1 where it is inside of itself, which was told as a ring.
    depth: int = -1

    @property
    def reached(self) -> bool:
        """Whether the file's body or a function's leads to it. None leads to a ring, of which enough was told."""
        return self.depth >= 0


class Outline(msgspec.Struct, eq=False):
    """What a segment says of what it runs, its operands not looked at yet."""

    #: `condition`, `for_each`, `for_range`, `while`, `function_call` or `function_def`.
    kind: str
    #: Where it stands in the file.
    path: Path
    #: Its fields, by their names in the file, as far as they could be read.
    fields: dict[str, Any]
    bodies: list[Body] = []
    #: Rounds at a time.
    parallel: int = 1


class FunctionOutline(msgspec.Struct, eq=False):
    """A function, its body not looked at yet."""

    function: Function
    body: Body
    path: Path
    #: Those of the function, by their names.
    parameters: dict[str, Parameter]
    #: The names of those that every call must give.
    required: tuple[str, ...]


class Flow(msgspec.Struct, eq=False):
    """The control flow of a file."""

    #: By the index of the segment.
    outlines: dict[int, Outline]
    functions: dict[str, FunctionOutline]
    file: Body
    #: Of each segment that has some.
    variables: dict[int, tuple[Variable, ...]]
    #: The body in which each segment stands.
    homes: list[Body] = []
    #: What the segments that have variables see.
    own: dict[int, Names] = {}
    #: Of each segment, those of the same body that it waits for, as indices.
    waits: list[list[int]] = []
    #: The values of control segments in which references may stand, and where.
    operands: dict[int, list[tuple[Any, Path]]] = {}
    #: What control segments come to; the bodies are still empty.
    controls: dict[int, Control] = {}

    def names(self, index: int) -> Names:
        """The variables that a segment sees."""
        own = self.own.get(index)
        return self.homes[index].names if own is None else own

    def around(self, index: int) -> Iterator[tuple[int, Body]]:
        """A segment and those that run it, from the inside to the outside, each with the body in which it stands."""
        at: int | None = index
        # A segment that is in its own body was told of; it has no outside.
        for _ in range(len(self.homes)):
            if at is None:
                return
            body = self.homes[at]
            yield at, body
            at = body.owner
