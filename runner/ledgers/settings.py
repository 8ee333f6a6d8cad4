"""What an operator may set about the ledger."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class LedgerSettings(Struct, frozen=True, kw_only=True):
    """Where jobs are kept, and how."""

    #: SQLAlchemy address of the ledger; empty: the SQLite file `ledger.db` in `data_dir`.
    url: str = ""
    #: Rows, about, that one commit takes in.
    max_batch: Count = 2000
    #: Writes that may wait for the next commit; further callers wait until there is room.
    max_pending: Count = 10_000
    #: Threads, and connections, that read beside the writer.
    readers: Count = 2
    #: Bytes that the database file may take; 0: whatever the disk holds.
    max_file_bytes: Annotated[int, Meta(ge=0)] = 0
    #: Seconds to wait for another process that locks the database (a copy being made) before giving up.
    busy_timeout_seconds: Seconds = 5.0
