"""One daemon for one embedded ledger: a locked file beside the database, which says who holds it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from runner.core.errors import LedgerFull, LedgerHeld, LedgerUnavailable
from runner.core.plan import Instant

_LOCK: Final = ".lock"
#: Bytes that a holder's description takes at most.
_LONGEST: Final = 4096


class Holder(msgspec.Struct, frozen=True):
    """A process that runs jobs."""

    #: New at every start.
    runner_id: str
    pid: int
    host: str
    started: Instant

    def __str__(self) -> str:
        since = f"{datetime.fromtimestamp(self.started / 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"process {self.pid} on `{self.host}`, runner `{self.runner_id}`, since {since}"


class Hold:
    """A lock that is held, and the files that must stay the ones that they were when it began."""

    def __init__(self, lock: Path, descriptor: int) -> None:
        self._files = {lock: _identity(os.fstat(descriptor))}

    def watch(self, *paths: Path) -> None:
        """From now on these files must stay as well. Raises LedgerUnavailable: if one is not there."""
        for path in paths:
            self._files[path] = _identity(_stat(path))

    def verify(self) -> None:
        """A few microseconds.

        Raises LedgerUnavailable: if a file was removed or replaced. What is written into an open file that has no name
        any more is lost, and with another lock file another daemon may be writing.
        """
        for path, identity in self._files.items():
            if _identity(_stat(path)) != identity:
                raise LedgerUnavailable(_gone(path))


@contextmanager
def held(database: Path, holder: Holder) -> Iterator[Hold]:
    """Hold a database inside the context.

    The operating system ends the hold with the process, however that dies. The file stays: removing it would let two
    daemons lock two files of one name. Should someone else remove it, `Hold.verify` finds out.

    Raises LedgerHeld: if another process holds it; says who.
    Raises LedgerUnavailable, LedgerFull: if the file cannot be made, locked or written.
    """
    path = database.with_name(database.name + _LOCK)
    with _told(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with _told(path):
            _lock(descriptor, database)
            content = msgspec.json.encode(holder)
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))
        try:
            yield Hold(path, descriptor)
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, database: Path) -> None:
    try:
        # flock, not lockf: a POSIX lock would be lost as soon as anything in this process closes the file again.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holding = _name(os.pread(descriptor, _LONGEST, 0))
        raise LedgerHeld(f"`{database}` is held by {holding}; stop that daemon, or set another `data_dir`") from None


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise LedgerFull(f"`{path}` cannot be written: its disk is full; make room") from error
        raise LedgerUnavailable(
            f"`{path}` cannot be written ({error.strerror}); give the daemon the right to, or set `data_dir`"
        ) from error


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise LedgerUnavailable(_gone(path)) from None
    except OSError as error:
        raise LedgerUnavailable(f"the ledger's file `{path}` cannot be looked at ({error.strerror})") from error


def _gone(path: Path) -> str:
    if path.suffix == _LOCK:
        return (
            f"the ledger's lock `{path}` was removed or replaced; nothing is accepted here any more, as another daemon"
            " may run on the ledger: restart this one"
        )
    return (
        f"the ledger's file was removed or replaced; nothing is accepted any more: put back the very file `{path}`,"
        " or stop the daemon, restore the ledger from a copy and start again"
    )


def _name(content: bytes) -> str:
    try:
        return str(msgspec.json.decode(content, type=Holder))
    except msgspec.DecodeError:
        # Locked a moment ago, and not written yet.
        return "another process"
