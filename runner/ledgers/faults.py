"""What SQLite says, told in our own errors: one table, used wherever a statement runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy.exc

from runner.core.errors import LedgerDamaged, LedgerFull, LedgerUnavailable, RunnerError

#: By primary result code, the lower eight bits (sqlite.org/rescode.html).
_BY_CODE: Final[dict[int, tuple[type[RunnerError], str]]] = {
    sqlite3.SQLITE_FULL: (
        LedgerFull,
        "the ledger's disk is full, or its file has reached `ledger.max_file_bytes`; make room, work goes on by itself",
    ),
    sqlite3.SQLITE_BUSY: (LedgerUnavailable, "another process is locking the ledger; end it, or try again"),
    sqlite3.SQLITE_LOCKED: (LedgerUnavailable, "another process is locking the ledger; end it, or try again"),
    sqlite3.SQLITE_IOERR: (LedgerUnavailable, "reading or writing the ledger failed; look at its disk, then try again"),
    sqlite3.SQLITE_CANTOPEN: (
        LedgerUnavailable,
        "the ledger cannot be opened; check that its directory is there and writable",
    ),
    sqlite3.SQLITE_READONLY: (LedgerUnavailable, "the ledger is read-only; give the daemon the right to write it"),
    sqlite3.SQLITE_PERM: (LedgerUnavailable, "access to the ledger is denied; give the daemon the right to write it"),
    sqlite3.SQLITE_CORRUPT: (LedgerDamaged, "the ledger is damaged; stop the daemon and restore the file from a copy"),
    sqlite3.SQLITE_NOTADB: (LedgerDamaged, "the file is no SQLite database; set `ledger.url` to another file"),
}

#: A write that cannot be stored whatever the store's condition: its values do not fit the schema.
UNFIT: Final = (
    sqlalchemy.exc.IntegrityError,
    sqlalchemy.exc.DataError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.ProgrammingError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    UnicodeEncodeError,
    OverflowError,
)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Raise what the database raises as LedgerFull, LedgerUnavailable or LedgerDamaged; `place` names the ledger."""
    try:
        yield
    except UNFIT:
        raise
    except sqlalchemy.exc.DBAPIError as error:
        raise _told(error.orig, place) from error
    except sqlite3.Error as error:
        raise _told(error, place) from error


def _told(cause: BaseException | None, place: str) -> RunnerError:
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    kind, sentence = _BY_CODE.get(code, (LedgerUnavailable, "the ledger refused a statement; see the cause"))
    return kind(f"{sentence} ({place}: {cause})")
