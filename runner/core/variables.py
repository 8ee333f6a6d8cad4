"""Variables and the scopes that they live in: a task's own, a round's, a call's, the file's.

Values are kept as JSON bytes: whoever reads one gets a fresh copy, so that nobody changes what others see but by
assigning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from runner.core.events import Json
from runner.core.plan import Type

#: Bytes of a value that is kept when nobody looks any more: less than forgetting it would save.
_SMALL: Final = 1024
#: The Python types of each type of variable; booleans are numbers to Python only.
PYTHON_TYPES: dict[Type, tuple[type, ...]] = {
    Type.STRING: (str,),
    Type.NUMBER: (int, float),
    Type.BOOLEAN: (bool,),
    Type.ARRAY: (list,),
    Type.OBJECT: (dict,),
}


def fits(value: Json, type_: Type) -> bool:
    """Whether a variable of this type may hold the value."""
    return type_ is Type.ANY or type(value) in PYTHON_TYPES[type_]


def nested_deeper(value: Json, levels: int) -> bool:
    """Whether containers stand in each other more than so many levels deep."""
    level = [value]
    for _ in range(levels + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


class Cell(msgspec.Struct):
    """What a scope knows of one name."""

    type: Type = Type.ANY
    #: JSON; None while it has no value.
    value: bytes | None = None


class Variables(msgspec.Struct):
    """One scope. A name is looked for here first, then further out."""

    outer: Variables | None = None
    cells: dict[str, Cell] = {}

    def declare(self, name: str, type_: Type = Type.ANY, value: bytes | None = None) -> None:
        """Begin a variable in this scope; one of the same name further out is hidden by it."""
        self.cells[name] = Cell(type_, value)

    def find(self, name: str) -> Cell | None:
        """The innermost variable of this name."""
        scope: Variables | None = self
        while scope is not None:
            if (cell := scope.cells.get(name)) is not None:
                return cell
            scope = scope.outer
        return None

    def read(self, name: str) -> Json:
        """A copy of the value. Raises KeyError: if there is none."""
        cell = self.find(name)
        if cell is None or cell.value is None:
            raise KeyError(name)
        return msgspec.json.decode(cell.value)

    def let_go(self) -> None:
        """Nobody looks any more: what is large need not be kept."""
        for cell in self.cells.values():
            if cell.value is not None and len(cell.value) > _SMALL:
                cell.value = None

    def assign(self, name: str, value: bytes) -> None:
        """Set the innermost variable of this name, or begin one here."""
        cell = self.find(name)
        if cell is None:
            self.declare(name, value=value)
        else:
            cell.value = value


def refusal(variables: Variables, values: Mapping[str, msgspec.Raw], limit: int) -> str:
    """Why these values cannot be assigned, in a sentence; empty if they can. `limit` is the bytes of one value."""
    for name, raw in values.items():
        cell = variables.find(name)
        if cell is None:
            return f"there is no variable `{name:.60}`; declare it in `variables` or `global_variables`"
        if len(raw) > limit:
            return f"{len(raw)} bytes for `{name}` are more than setting `engine.max_variable_bytes` allows ({limit})"
        if not fits(msgspec.json.decode(raw), cell.type):
            shown = bytes(raw)[:60].decode(errors="replace")
            return f"the variable `{name}` is of type {cell.type}, and this is not: {shown}"
    return ""
