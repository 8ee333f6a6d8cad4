"""One statement for many rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from runner.ledgers.driver import Compiled, Connection, compiled_for

Rows = Sequence[Mapping[str, Any]]
#: Rows that one INSERT holds at most. Their parameters stay far below SQLite's 32,766 and PostgreSQL's 65,535.
MOST_ROWS: Final = 256


class Bulk:
    """A Core statement, compiled once and given to the driver with all its rows.

    A row names every parameter; constants of the statement are literals.
    """

    def __init__(self, statement: sa.Insert | sa.Update | sa.Delete | sa.TextClause, *columns: str) -> None:
        """`columns` are those that an INSERT fills; all of the table's unless given."""
        self._statement = statement
        self._columns = columns or None
        self._prepared: dict[str, tuple[Compiled, Callable[[Mapping[str, Any]], tuple[Any, ...]]]] = {}

    def run(self, connection: Connection, rows: Rows) -> None:
        """Execute it for each row, in order; for none, do nothing."""
        if not rows:
            return
        compiled, pick = self._prepared.get(connection.dialect.name) or self._prepare(connection.dialect)
        values = [pick(row) for row in rows]
        if isinstance(self._statement, sa.Insert):
            for portion in _portions(values):
                connection.execute_raw(_with_rows(compiled.sql, len(portion)), list(chain.from_iterable(portion)))
        else:
            connection.execute_many(compiled.sql, values)

    def _prepare(self, dialect: Dialect) -> tuple[Compiled, Callable[[Mapping[str, Any]], tuple[Any, ...]]]:
        compiled = compiled_for(dialect, self._statement, columns=self._columns)
        names = compiled.names
        # One name would make itemgetter give the bare value.
        pick = itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)
        prepared = self._prepared[dialect.name] = (compiled, pick)
        return prepared


def _portions(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """The rows in powers of two, so that there are few statements to keep prepared."""
    start = 0
    while start < len(rows):
        count = min(MOST_ROWS, 1 << (len(rows) - start).bit_length() - 1)
        yield rows[start : start + count]
        start += count


def _with_rows(insert: str, count: int) -> str:
    """An INSERT of one row, `… VALUES (…)`, as one of many.

    A row by itself is a step by itself, and for each step the driver gives Python's lock away and waits to get it back,
    which a busy event loop keeps for long.
    """
    if count == 1:
        return insert
    row = insert[insert.rindex("VALUES ") + len("VALUES ") :]
    return insert + f", {row}" * (count - 1)
