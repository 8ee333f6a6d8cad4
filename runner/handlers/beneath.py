"""Opening what lies beneath a directory without ever leaving it, and saying what was in the way.

Everything is opened relative to the descriptor of the directory that holds it, and nothing that is opened may be a
symbolic link. There is no moment between a check and a use: what was checked is what is open.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runner.core.errors import AttemptError
from runner.handlers.parameters import invalid

#: The components of a path that is relative and has neither `.` nor `..` in it; none for the directory itself.
Parts = tuple[str, ...]

#: What is being written stands under this name, beside what it will replace.
INCOMING: Final = ".alt-runner.incoming"

_MAX_NAME: Final = 255  # bytes, by Linux
_MAX_PATH: Final = 4096

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a fifo would wait for its other end.
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
READ: Final = os.O_RDONLY | _FILE
APPEND: Final = os.O_WRONLY | os.O_APPEND | _FILE
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def parts_of(parameter: str, path: str) -> Parts:
    """The components of a path, byte for byte as they were written.

    Raises AttemptError: OUTSIDE_WORK_DIRECTORY if it is absolute or holds `..`; INVALID_PARAMETERS if no file can have
    such a name.
    """
    if path.startswith("/"):
        raise outside(path, "is absolute; paths are relative to the job's work directory")
    parts = tuple(part for part in path.split("/") if part not in {"", "."})
    if ".." in parts:
        raise outside(path, "holds `..`")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError as error:
        raise invalid(parameter, "holds half of a surrogate pair") from error
    if "\0" in path:
        raise invalid(parameter, "holds a NUL character")
    if max(sizes, default=0) > _MAX_NAME or len(path.encode()) >= _MAX_PATH:
        raise invalid(parameter, f"is too long: at most {_MAX_NAME} bytes a name and {_MAX_PATH} in all")
    if INCOMING in parts:
        raise invalid(parameter, f"holds the name `{INCOMING}`, which is reserved")
    return parts


def shown(parts: Parts) -> str:
    """The path for a sentence."""
    return "/".join(parts) or "."


def outside(path: str, why: str) -> AttemptError:
    return AttemptError("OUTSIDE_WORK_DIRECTORY", f"`{path}` {why}", retryable=False)


def wrong_type(path: str, why: str) -> AttemptError:
    return AttemptError("WRONG_FILE_TYPE", f"`{path}` {why}", retryable=False)


def too_large(message: str, setting: str) -> AttemptError:
    return AttemptError("TOO_LARGE", f"{message} (setting `file_operation.{setting}`)", retryable=False)


_TOLD: Final = {
    errno.ENOENT: ("FILE_NOT_FOUND", "there is no `{}`", False),
    errno.EEXIST: ("FILE_EXISTS", "there is a `{}` already", False),
    errno.ENOTEMPTY: ("DIRECTORY_NOT_EMPTY", "`{}` is not empty; say `recursive`", False),
    errno.ELOOP: ("OUTSIDE_WORK_DIRECTORY", "`{}` is a symbolic link; those are not followed", False),
    errno.ENOTDIR: ("WRONG_FILE_TYPE", "a part of `{}` is no directory", False),
    errno.EISDIR: ("WRONG_FILE_TYPE", "`{}` is a directory", False),
    # A fifo without a reader, a socket, a device without a driver.
    errno.ENXIO: ("WRONG_FILE_TYPE", "`{}` is neither a file nor a directory", False),
    errno.ENOSPC: ("DISK_FULL", "the disk is full: `{}` was not written", True),
    errno.EDQUOT: ("DISK_FULL", "the disk quota is used up: `{}` was not written", True),
    errno.EFBIG: ("TOO_LARGE", "`{}` would be larger than the system allows a file to be", False),
}
#: The same the next time.
_LASTING: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENAMETOOLONG})


@contextmanager
def told(path: str) -> Iterator[None]:
    """Make an AttemptError of whatever the system refuses inside, speaking of this path."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        default = ("FILE_ERROR", f"`{{}}`: {error.strerror or type(error).__name__}", number not in _LASTING)
        reason, sentence, retryable = _TOLD.get(number, default)
        raise AttemptError(reason, sentence.format(path), retryable=retryable) from error


@contextmanager
def held(descriptor: int) -> Iterator[int]:
    """The descriptor, closed at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def look(directory: int, name: str) -> os.stat_result | None:
    """What is there under a name, itself and not what it links to; None if nothing is."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def open_directory(directory: int, name: str, path: str) -> int:
    """Raises AttemptError: OUTSIDE_WORK_DIRECTORY for a symbolic link, WRONG_FILE_TYPE for what is no directory."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except NotADirectoryError:
        # Linux does not tell a link from a file here.
        found = look(directory, name)
        if found is not None and stat.S_ISLNK(found.st_mode):
            raise outside(path, "is a symbolic link; those are not followed") from None
        raise wrong_type(path, "is no directory") from None


def open_file(directory: int, name: str, path: str, flags: int = READ) -> tuple[int, os.stat_result]:
    """A regular file's descriptor, and what it is. Does not wait for the other end of a fifo.

    Raises AttemptError: OUTSIDE_WORK_DIRECTORY for a symbolic link, WRONG_FILE_TYPE for what is no file.
    """
    with told(path):
        descriptor = os.open(name, flags, dir_fd=directory)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise wrong_type(path, "is a directory" if stat.S_ISDIR(found.st_mode) else "is no file")
    return descriptor, found


def open_root(root: Path, name: str) -> int:
    """The directory `name` in `root`, both made, durably, where they are missing."""
    try:
        return os.open(root / name, _DIRECTORY)
    except FileNotFoundError:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / name).mkdir(mode=0o700, exist_ok=True)
    for made_in in (root.parent, root):
        with held(os.open(made_in, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            os.fsync(directory)
    return os.open(root / name, _DIRECTORY)


def make_directory(directory: int, name: str) -> None:
    """Make a directory, durably; one that is there already is left alone."""
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except FileExistsError:
        return
    os.fsync(directory)
