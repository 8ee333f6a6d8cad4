"""Runs Core statements on the driver itself: each is compiled once, and rows come as the driver gives them.

SQLAlchemy's own connection costs 30 to 70 µs a statement, all of it under Python's lock, where the driver needs 2. An
idle job runs about forty statements, and a submission under load five, so that was most of the ledger's CPU.
Values must be what the driver takes as they are: text, bytes, numbers, None; a list goes as JSON, for `among`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Dialect

Row = tuple[Any, ...]
Parameters = Mapping[str, Any]
#: Statements that are kept compiled; a ledger has about sixty of its own, the rest are filters of lists.
KEPT: Final = 500


class Rows:
    """What a statement gave."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __iter__(self) -> Iterator[Row]:
        return iter(self._cursor)

    def all(self) -> list[Row]:
        rows: list[Row] = self._cursor.fetchall()
        return rows

    def first(self) -> Row | None:
        """The first row; the rest is given up."""
        row: Row | None = self._cursor.fetchone()
        self._cursor.close()
        return row

    def value(self) -> Any:
        """The first column of the first row; None where there is none."""
        row = self.first()
        return None if row is None else row[0]

    def close(self) -> None:
        """Give up what was not read."""
        self._cursor.close()


class Compiled(msgspec.Struct, frozen=True):
    """A statement as the driver wants it."""

    sql: str
    #: Names of the parameters, in their places.
    names: tuple[str, ...]
    #: Values that stand in the statement itself.
    constants: dict[str, Any]

    def arranged(self, parameters: Parameters) -> list[Any]:
        constants = self.constants
        return [_plain(parameters[name] if name in parameters else constants[name]) for name in self.names]


class Connection:
    """A driver's connection, in one thread at a time."""

    def __init__(self, connection: sa.Connection, *, begin: str) -> None:
        """Takes over a connection of SQLAlchemy's, which must outlive it. `begin` begins a transaction."""
        self._raw: Any = connection.connection.driver_connection
        self.dialect = connection.dialect
        self._begin = begin
        self._compiled: dict[Any, Compiled] = {}

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Commit at the end of the context; roll back if it is left by an exception."""
        self._raw.execute(self._begin)
        try:
            yield self
            self._raw.commit()
        finally:
            # After a commit there is nothing to roll back.
            self._raw.rollback()

    def execute(self, statement: sa.Executable, parameters: Parameters | None = None) -> Rows:
        """Run one statement."""
        compiled = self._compiled.get(statement)
        if compiled is None:
            if len(self._compiled) >= KEPT:
                self._compiled.clear()
            compiled = self._compiled[statement] = compiled_for(self.dialect, statement)
        return Rows(self._raw.execute(compiled.sql, compiled.arranged(parameters or {})))

    def execute_raw(self, sql: str, values: Sequence[Any]) -> None:
        """Run one statement of the driver's dialect."""
        self._raw.execute(sql, values)

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement of the driver's dialect for each row, in order."""
        self._raw.executemany(sql, rows)


def compiled_for(dialect: Dialect, statement: Any, *, columns: Sequence[str] | None = None) -> Compiled:
    """Compile a statement; `columns` are those that an INSERT fills, all of the table's unless given."""
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    names = tuple(compiled.positiontup or ())
    constants = {name: value for name, value in compiled.params.items() if name in names}
    return Compiled(str(compiled), names, constants)


def _plain(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if type(value) is list else value
