"""A plain SQLite loop: the least that can be called durable."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Self

#: About what an accepted job of one task takes in the ledger.
_ROW = bytes(1024)


class DurableLoop:
    """One row a commit, each synced as the ledger syncs its commits."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE rows (content BLOB)")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def commit(self) -> None:
        """Outside a transaction every statement is one."""
        self._connection.execute("INSERT INTO rows VALUES (?)", (_ROW,))
