"""One statement for many rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from runner.ledgers.driver import Connection, compiled_for

Rows = Sequence[Mapping[str, Any]]
_Prepared = tuple[str, Callable[[Rows], list[Any]]]


class Bulk:
    """A Core statement, compiled once and given to the driver with all its rows.

    A row names every parameter; constants of the statement are literals.
    """

    def __init__(self, statement: sa.Insert | sa.Update | sa.Delete | sa.TextClause, *columns: str) -> None:
        """`columns` are those that an INSERT fills; all of the table's unless given."""
        self._statement = statement
        self._columns = columns or None
        self._prepared: dict[str, _Prepared] = {}

    def run(self, connection: Connection, rows: Rows) -> None:
        """Execute it for each row, in order; for none, do nothing."""
        if rows:
            sql, arranged = self._prepared.get(connection.dialect.name) or self._prepare(connection.dialect)
            connection.execute_many(sql, arranged(rows))

    def _prepare(self, dialect: Dialect) -> _Prepared:
        compiled = compiled_for(dialect, self._statement, columns=self._columns)
        names = compiled.names
        # One name would make itemgetter give the bare value.
        pick = itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)

        def arranged(rows: Rows) -> list[Any]:
            return [pick(row) for row in rows]

        prepared = self._prepared[dialect.name] = (compiled.sql, arranged)
        return prepared
