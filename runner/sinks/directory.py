"""Writes `.last` records as files: `<path>/YYYY/MM/DD/last_<execution_id>.json`, dated by the job's end in UTC.

A file is there whole or not at all: it is written and synced under `.incoming`, then renamed. The ledger's copy is the
durable one, so many records may share one sync.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from runner.core.errors import SinkUnavailable
from runner.core.job import OutboxEntry
from runner.core.plan import Instant

_INCOMING: Final = ".incoming"
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
#: From this many records at once, one `syncfs` replaces an fsync for each. Measured on ext4: 100 records take 53 ms by
#: fsync and 8 ms by syncfs, one takes 0.8 and 2 ms; but syncfs also waits for whatever else is being written.
_SYNC_TOGETHER: Final = 4


class DirectorySinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where records go."""

    #: Holds the dated directories; made where it is missing.
    path: str = "last"


def record_path(root: Path, *, ended_at: Instant, execution_id: str) -> Path:
    """Where under `root` the record of an execution is, or will be."""
    day = datetime.fromtimestamp(ended_at // 1_000_000, UTC)
    return root / f"{day:%Y}" / f"{day:%m}" / f"{day:%d}" / f"last_{execution_id}.json"


class DirectorySink:
    """A Sink over a directory, which any number of daemons may share."""

    name = "directory"

    def __init__(self, settings: DirectorySinkSettings) -> None:
        self._root = Path(settings.path)

    def path_of(self, entry: OutboxEntry) -> Path:
        """Where the record is, or will be."""
        return record_path(self._root, ended_at=entry.ended_at, execution_id=entry.execution_id)

    async def deliver(self, entries: Sequence[OutboxEntry]) -> None:
        """Write all records and sync them to disk. A record that was delivered before is replaced by itself.

        Not interrupted by cancellation: when it is left, no thread is writing any more.

        Raises SinkUnavailable: if the disk is full or the directory cannot be written. Some of the records may be
        there already, each of them whole; nothing else is left behind.
        """
        await anyio.to_thread.run_sync(self._write, entries)

    def _write(self, entries: Sequence[OutboxEntry]) -> None:
        try:
            with _staging(self._root / _INCOMING) as staging:
                records = {self.path_of(entry): entry.record for entry in entries}
                self._write_synced({staging / path.name: record for path, record in records.items()}, staging)
                directories = {path.parent for path in records}
                for directory in directories:
                    _make_durably(directory)
                for path in records:
                    (staging / path.name).replace(path)
                for directory in directories:
                    _sync(directory)
        except OSError as error:
            raise SinkUnavailable(
                f"cannot write .last records under `{self._root}` (setting `records.directory`): "
                f"{error.strerror or error}; they stay in the ledger and are written once it can be done"
            ) from error

    def _write_synced(self, files: Mapping[Path, bytes], staging: Path) -> None:
        together = len(files) >= _SYNC_TOGETHER and hasattr(_LIBC, "syncfs")
        for path, content in files.items():
            with path.open("wb") as file:
                file.write(content)
                file.flush()
                if not together:
                    os.fsync(file.fileno())
        if together:
            with _opened(staging) as descriptor:
                if _LIBC.syncfs(descriptor) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))


@contextmanager
def _staging(incoming: Path) -> Iterator[Path]:
    """A directory of this delivery's own, locked while it lasts and gone afterwards."""
    _make_durably(incoming)
    _sweep(incoming)
    staging, descriptor = _claimed(incoming)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(descriptor)


def _claimed(incoming: Path) -> tuple[Path, int]:
    while True:
        staging = Path(tempfile.mkdtemp(dir=incoming))
        # Another process may sweep it away between its making and its lock: before it is opened, or after.
        with suppress(FileNotFoundError):
            descriptor = _open(staging)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if staging.exists():
                return staging, descriptor
            os.close(descriptor)


def _sweep(incoming: Path) -> None:
    """Remove what crashed processes left: their locks died with them."""
    for left in incoming.iterdir():
        try:
            with _opened(left) as descriptor:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except (BlockingIOError, FileNotFoundError, NotADirectoryError):
            continue


def _make_durably(directory: Path) -> None:
    if directory.is_dir():
        return
    _make_durably(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    with _opened(directory) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = _open(directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
