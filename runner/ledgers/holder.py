"""One daemon for one embedded ledger: a locked file beside the database, which says who holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from runner.core.errors import LedgerHeld, LedgerUnavailable
from runner.core.plan import Instant


class Holder(msgspec.Struct, frozen=True):
    """A process that runs jobs."""

    #: New at every start.
    runner_id: str
    pid: int
    host: str
    started: Instant

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started / 1_000_000, UTC).isoformat(sep=" ", timespec="seconds")
        return f"process {self.pid} on `{self.host}`, runner `{self.runner_id}`, since {since}"


@contextmanager
def held(database: Path, holder: Holder) -> Iterator[None]:
    """Hold a database inside the context.

    The operating system ends the hold with the process, however that dies. The file stays: removing it would let two
    daemons lock two files of one name.

    Raises LedgerHeld: if another process holds it; says who.
    Raises LedgerUnavailable: if the file cannot be made.
    """
    path = database.with_name(database.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise LedgerUnavailable(
            f"`{path}` cannot be written ({error.strerror}); give the daemon the right to, or set `data_dir`"
        ) from error
    with os.fdopen(descriptor, "r+b") as file:
        try:
            # flock, not lockf: a POSIX lock would be lost as soon as anything in this process closes the file again.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerHeld(
                f"`{database}` is held by {_name(file.read())}; stop that daemon, or set another `data_dir`"
            ) from None
        file.truncate()
        file.write(msgspec.json.encode(holder))
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()


def _name(content: bytes) -> str:
    try:
        return str(msgspec.json.decode(content, type=Holder))
    except msgspec.DecodeError:
        # Locked a moment ago, and not written yet.
        return "another process"
