"""How much a work directory may hold, and how much is in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import msgspec

from runner.core.errors import AttemptError
from runner.handlers.beneath import too_large
from runner.handlers.settings import FileOperationSettings

#: Changes for which a count of the directory holds: programs that jobs run put files there, too.
_TRUSTED: Final = 256


class Amount(msgspec.Struct):
    """So many files and directories, and the bytes of the files."""

    files: int = 0
    bytes: int = 0

    def add(self, info: os.stat_result) -> None:
        self.files += 1
        self.bytes += _size(info)


class Room:
    """The room in one work directory, which `count` looks through; that is done seldom."""

    def __init__(self, limits: FileOperationSettings, count: Callable[[], Amount]) -> None:
        self._limits = limits
        self._count = count
        self._amount: Amount | None = None
        self._changes = 0
        self._counted = False

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around one change. What a change that fails leaves is counted anew."""
        self._changes += 1
        if self._changes > _TRUSTED:
            self._amount = None
        self._counted = False
        with ExitStack() as undo:
            undo.callback(self._forget)
            yield
            undo.pop_all()

    def _forget(self) -> None:
        self._amount = None

    def take(self, *, files: int = 0, size: int = 0) -> None:
        """Before so much more is there.

        Raises AttemptError: TOO_LARGE.
        """
        amount = self._now() if self._amount is None else self._amount
        if self._over(amount, files, size) and not self._counted:
            # Programs that the job ran may have removed some.
            amount = self._now()
        if over := self._over(amount, files, size):
            raise over
        amount.files += files
        amount.bytes += size

    def give_back(self, gone: os.stat_result) -> None:
        """After a file or an empty directory went."""
        if self._amount is not None:
            self._amount.files -= 1
            self._amount.bytes -= _size(gone)

    def forget(self) -> None:
        """After nobody knows how much went."""
        self._amount = None

    def _now(self) -> Amount:
        self._amount = self._count()
        self._changes, self._counted = 0, True
        return self._amount

    def _over(self, amount: Amount, files: int, size: int) -> AttemptError | None:
        limits = self._limits
        if amount.files + files > limits.max_files:
            message = f"the job's work directory would hold more than {limits.max_files} files and directories"
            return too_large(message, "max_files")
        if amount.bytes + size > limits.max_total_bytes:
            message = f"the files in the job's work directory would take more than {limits.max_total_bytes} bytes"
            return too_large(message, "max_total_bytes")
        return None


def _size(info: os.stat_result) -> int:
    return info.st_size if stat.S_ISREG(info.st_mode) else 0
