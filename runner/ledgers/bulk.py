"""One statement for many rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

Rows = Sequence[Mapping[str, Any]]
_Prepared = tuple[str, Callable[[Rows], list[Any]]]


class Bulk:
    """A Core statement, compiled once and given to the driver with all its rows.

    SQLAlchemy's own way for many rows copies each through dictionaries and type processors; that cost a third of a
    submission, all of it while holding Python's lock. Values must be what the driver takes as they are: text, bytes,
    numbers, None. A row names every parameter; constants of the statement are literals.
    """

    def __init__(self, statement: sa.Insert | sa.Update | sa.Delete | sa.TextClause, *columns: str) -> None:
        """`columns` are those that an INSERT fills; all of the table's unless given."""
        self._statement = statement
        self._columns = columns or None
        self._prepared: dict[str, _Prepared] = {}

    def run(self, connection: Connection, rows: Rows) -> None:
        """Execute it for each row, in order; for none, do nothing."""
        if rows:
            dialect = connection.dialect
            prepared = self._prepared.get(dialect.name) or self._prepare(dialect)
            sql, arranged = prepared
            connection.exec_driver_sql(sql, arranged(rows))

    def _prepare(self, dialect: Dialect) -> _Prepared:
        compiled = self._statement.compile(dialect=dialect, column_keys=self._columns)
        arranged: Callable[[Rows], list[Any]] = list
        if names := getattr(compiled, "positiontup", None):
            # One name would make itemgetter give the bare value.
            pick = itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)

            def arranged(rows: Rows) -> list[Any]:
                return [pick(row) for row in rows]

        prepared = self._prepared[dialect.name] = (str(compiled), arranged)
        return prepared
