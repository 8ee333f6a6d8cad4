"""One job's work directory: the operations on it, none of which can leave it, hang, or grow beyond its limits.

Everything blocks; call it from a worker thread. Operations that change something must come one at a time; those that
only look may come at any time, and find every file whole.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from runner.handlers.beneath import (
    APPEND,
    INCOMING,
    NEW,
    Parts,
    held,
    look,
    make_directory,
    open_directory,
    open_file,
    open_root,
    outside,
    shown,
    told,
    too_large,
    wrong_type,
)
from runner.handlers.parameters import invalid
from runner.handlers.room import Amount, Room
from runner.handlers.settings import FileOperationSettings

_CHUNK: Final = 1024 * 1024
_KINDS: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


class Found(msgspec.Struct, frozen=True):
    """A file, directory or whatever else stands in the work directory."""

    #: Below the directory that was listed.
    parts: Parts
    info: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)

    @property
    def kind(self) -> str:
        """`file`, `directory`, `symlink` or `other`."""
        return _KINDS.get(stat.S_IFMT(self.info.st_mode), "other")


class WorkDirectory:
    """The directory `name` in `root`, made when it is first used.

    What was written is on disk when its operation returns, whole, or not there at all; only appending, which does not
    rewrite the file, can be cut short by a crash. What is replaced counts until it is.

    `tick` is called every now and then during an operation, which ends, cleaned up, with whatever it raises.

    Raises AttemptError from every operation: OUTSIDE_WORK_DIRECTORY, FILE_NOT_FOUND, FILE_EXISTS, WRONG_FILE_TYPE,
    TOO_LARGE, DISK_FULL, FILE_ERROR.
    """

    def __init__(
        self, root: Path, name: str, limits: FileOperationSettings, tick: Callable[[], None] = lambda: None
    ) -> None:
        if name in {"", ".", ".."} or "/" in name or "\0" in name:
            msg = f"a work directory cannot be named {name!r}"
            raise ValueError(msg)
        self._root = root
        self._name = name
        self._limits = limits
        self._tick = tick
        self._room = Room(limits, self._count)

    # ------------------------------------------------------------------------------------------------- looking

    def read(self, path: Parts) -> bytes:
        """The content of a file."""
        with told(shown(path)), self._within(path[:-1]) as directory:
            descriptor, found = open_file(directory, path[-1], shown(path))
            with held(descriptor):
                self._check_size(path, found.st_size)
                return b"".join(self._pieces(descriptor, path))

    def list(self, path: Parts, *, recursive: bool) -> list[Found]:
        """What is in a directory, by name; symbolic links as themselves."""
        with told(shown(path)), self._within(path) as directory:
            walked = (entry for entry in self._walk(directory, recursive=recursive) if INCOMING not in entry.parts)
            found = sorted(walked, key=lambda entry: entry.parts)
        if len(found) > self._limits.max_files:
            raise too_large(f"`{shown(path)}` holds more than {self._limits.max_files} entries", "max_files")
        return found

    # ------------------------------------------------------------------------------------------------ changing

    def write(self, path: Parts, content: bytes, *, overwrite: bool, create_parents: bool) -> None:
        """Replace a file, or make it."""
        self._check_size(path, len(content))
        with self._changing(path), self._within(path[:-1], create=create_parents) as directory:
            old = self._replaceable(directory, path, by_directory=False, overwrite=overwrite)
            with self._incoming(directory):
                self._make_file(directory, INCOMING, _chunks(content), 0o600)
                self._land(directory, path, old)

    def append(self, path: Parts, content: bytes, *, create_parents: bool) -> int:
        """Write at the end of a file, or make it. Answers its size."""
        with self._changing(path), self._within(path[:-1], create=create_parents) as directory:
            if look(directory, path[-1]) is None:
                self.write(path, content, overwrite=False, create_parents=False)
                return len(content)
            descriptor, found = open_file(directory, path[-1], shown(path), APPEND)
            with held(descriptor):
                if found.st_nlink != 1:
                    raise outside(shown(path), "is linked to from elsewhere (a hard link)")
                self._check_size(path, found.st_size + len(content))
                with ExitStack() as undo:
                    undo.callback(_shorten, descriptor, found.st_size)
                    self._fill(descriptor, _chunks(content))
                    undo.pop_all()
            return found.st_size + len(content)

    def copy(
        self, source: Parts, destination: Parts, *, recursive: bool, overwrite: bool, create_parents: bool
    ) -> Amount:
        """Copy a file, or a directory with all that is in it. Answers what was copied.

        There is a moment without the destination where it is a directory that is replaced.
        """
        _check_apart(source, destination)
        with self._changing(source), self._within(source[:-1]) as from_directory:
            new = _movable(from_directory, source)
            if stat.S_ISDIR(new.st_mode) and not recursive:
                raise wrong_type(shown(source), "is a directory; say `recursive`")
            with told(shown(destination)), self._within(destination[:-1], create=create_parents) as directory:
                old = self._replaceable(
                    directory, destination, by_directory=stat.S_ISDIR(new.st_mode), overwrite=overwrite
                )
                with self._incoming(directory):
                    copied = self._copy(from_directory, source, directory, INCOMING, len(destination))
                    self._land(directory, destination, old)
        return copied

    def move(self, source: Parts, destination: Parts, *, overwrite: bool, create_parents: bool) -> None:
        """Give a file or directory another name. At once, but for a moment where a directory is replaced."""
        _check_apart(source, destination)
        with self._changing(source), self._within(source[:-1]) as from_directory:
            new = _movable(from_directory, source)
            if stat.S_ISDIR(new.st_mode):
                self._check_depth(destination, self._height(from_directory, source))
            with told(shown(destination)), self._within(destination[:-1], create=create_parents) as directory:
                old = self._replaceable(
                    directory, destination, by_directory=stat.S_ISDIR(new.st_mode), overwrite=overwrite
                )
                self._land(directory, destination, old, from_directory, source[-1])
            os.fsync(from_directory)

    def delete(self, path: Parts, *, recursive: bool) -> int:
        """Remove a file, a symbolic link itself, or a directory, which must be empty or `recursive` be true.

        Answers how many entries went. Raises AttemptError: also DIRECTORY_NOT_EMPTY.
        """
        with self._changing(path), self._within(path[:-1]) as directory:
            name = path[-1]
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=directory)
                self._room.give_back(found)
                deleted = 1
            elif recursive:
                deleted = self._discard(directory, name, len(path), self._tick)
                self._room.forget()
            else:
                with held(open_directory(directory, name, shown(path))) as inner:
                    self._clear(inner)
                os.rmdir(name, dir_fd=directory)
                self._room.give_back(found)
                deleted = 1
            os.fsync(directory)
        return deleted

    # ------------------------------------------------------------------------------------------------- its way

    @contextmanager
    def _within(self, path: Parts, *, create: bool = False) -> Iterator[int]:
        """The descriptor of a directory."""
        self._check_depth(path)
        descriptor = open_root(self._root, self._name)
        try:
            for depth, part in enumerate(path, start=1):
                self._tick()
                with told(shown(path[:depth])):
                    if create and look(descriptor, part) is None:
                        self._room.take(files=1)
                        make_directory(descriptor, part)
                    below = open_directory(descriptor, part, shown(path[:depth]))
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def _walk(self, directory: int, above: Parts = (), *, recursive: bool = True) -> Iterator[Found]:
        """What is in a directory, in no order; stops soon after `max_files`."""
        self._check_depth(above)
        with os.scandir(directory) as entries:
            names = [entry.name for _, entry in zip(range(self._limits.max_files + 2), entries, strict=False)]
        seen = 0
        for name in names:
            self._tick()
            found = look(directory, name)
            if found is None:
                continue
            entry = Found((*above, name), found)
            yield entry
            if recursive and entry.is_directory:
                with held(open_directory(directory, name, shown(entry.parts))) as inner:
                    for below in self._walk(inner, entry.parts):
                        seen += 1
                        yield below
            seen += 1
            if seen > self._limits.max_files:
                return

    def _height(self, directory: int, path: Parts) -> int:
        """How many directories lie in one another below a directory."""
        with held(open_directory(directory, path[-1], shown(path))) as inner:
            return max((len(entry.parts) for entry in self._walk(inner) if entry.is_directory), default=0)

    # ---------------------------------------------------------------------------------------------- its limits

    @contextmanager
    def _changing(self, path: Parts) -> Iterator[None]:
        with told(shown(path)), self._room.changing():
            yield

    def _count(self) -> Amount:
        amount = Amount()
        with held(open_root(self._root, self._name)) as directory:
            for entry in self._walk(directory):
                amount.add(entry.info)
        return amount

    def _check_size(self, path: Parts, size: int) -> None:
        limit = self._limits.max_file_bytes
        if size > limit:
            raise too_large(f"`{shown(path)}` is larger than {limit} bytes, or would be", "max_file_bytes")

    def _check_depth(self, path: Parts, further: int = 0) -> None:
        limit = self._limits.max_depth
        if len(path) + further > limit:
            raise too_large(f"`{shown(path)}` lies deeper than {limit} directories, or holds what does", "max_depth")

    # ---------------------------------------------------------------------------------------------- its pieces

    def _pieces(self, descriptor: int, path: Parts) -> Iterator[bytes]:
        """The content of an open file, which may grow meanwhile."""
        size = 0
        while piece := os.read(descriptor, _CHUNK):
            self._tick()
            size += len(piece)
            self._check_size(path, size)
            yield piece

    def _fill(self, descriptor: int, pieces: Iterable[bytes]) -> int:
        size = 0
        for piece in pieces:
            self._tick()
            self._room.take(size=len(piece))
            left = memoryview(piece)
            while left:
                left = left[os.write(descriptor, left) :]
            size += len(piece)
        self._tick()
        os.fsync(descriptor)
        return size

    def _make_file(self, directory: int, name: str, pieces: Iterable[bytes], mode: int) -> int:
        self._room.take(files=1)
        with held(os.open(name, NEW, mode, dir_fd=directory)) as descriptor:
            return self._fill(descriptor, pieces)

    def _copy(self, source: int, path: Parts, directory: int, name: str, depth: int) -> Amount:
        """Copy what stands in `source` at the end of `path` to a new `name`, `depth` components deep."""
        found = _movable(source, path)
        if not stat.S_ISDIR(found.st_mode):
            descriptor, found = open_file(source, path[-1], shown(path))
            with held(descriptor):
                self._check_size(path, found.st_size)
                mode = 0o600 | stat.S_IMODE(found.st_mode) & 0o700
                return Amount(1, self._make_file(directory, name, self._pieces(descriptor, path), mode))
        if depth > self._limits.max_depth:
            raise too_large(f"the copy of `{shown(path)}` lies deeper than {self._limits.max_depth}", "max_depth")
        copied = Amount(1)
        self._room.take(files=1)
        os.mkdir(name, 0o700, dir_fd=directory)
        with (
            held(open_directory(source, path[-1], shown(path))) as inner,
            held(open_directory(directory, name, shown(path))) as made,
        ):
            for entry in self._walk(inner, recursive=False):
                if entry.parts[0] == INCOMING:
                    continue
                more = self._copy(inner, (*path, *entry.parts), made, entry.parts[0], depth + 1)
                copied.files += more.files
                copied.bytes += more.bytes
            os.fsync(made)
        return copied

    @contextmanager
    def _incoming(self, directory: int) -> Iterator[None]:
        """A place for INCOMING, where nothing stands before or after."""
        self._clear(directory)
        try:
            yield
        finally:
            with suppress(OSError):
                self._clear(directory)

    def _clear(self, directory: int) -> None:
        """Remove what an operation that was killed left."""
        if look(directory, INCOMING) is not None:
            self._room.forget()
            self._discard(directory, INCOMING, 0, lambda: None)

    def _replaceable(
        self, directory: int, path: Parts, *, by_directory: bool, overwrite: bool
    ) -> os.stat_result | None:
        """What stands where something is about to be put; None if nothing does."""
        old = look(directory, path[-1])
        if old is None:
            return None
        _check_kind(old, path)
        if not overwrite:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if stat.S_ISDIR(old.st_mode) != by_directory:
            raise wrong_type(shown(path), "is no directory" if by_directory else "is a directory")
        return old

    def _land(
        self,
        directory: int,
        path: Parts,
        old: os.stat_result | None,
        source: int | None = None,
        name: str = INCOMING,
    ) -> None:
        """Bring something to its place."""
        if old is not None and stat.S_ISDIR(old.st_mode):
            self._discard(directory, path[-1], len(path), self._tick)
            self._room.forget()
        elif old is not None:
            self._room.give_back(old)
        os.rename(name, path[-1], src_dir_fd=directory if source is None else source, dst_dir_fd=directory)
        os.fsync(directory)

    def _discard(self, directory: int, name: str, depth: int, tick: Callable[[], None]) -> int:
        """Remove a file or a whole directory; links are removed, not followed. Answers how many entries went."""
        tick()
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=directory)
            return 1
        if depth > self._limits.max_depth:
            raise too_large(f"`{name}` lies deeper than {self._limits.max_depth} directories", "max_depth")
        with held(open_directory(directory, name, name)) as inner:
            gone = sum(self._discard(inner, entry, depth + 1, tick) for entry in os.listdir(inner))  # noqa: PTH208  a descriptor has no Path
        os.rmdir(name, dir_fd=directory)
        return gone + 1


def _chunks(content: bytes) -> Iterator[bytes]:
    return (content[start : start + _CHUNK] for start in range(0, len(content), _CHUNK))


def _check_kind(found: os.stat_result, path: Parts) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise outside(shown(path), "is a symbolic link; those are not followed")
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise wrong_type(shown(path), "is neither a file nor a directory")


def _movable(directory: int, path: Parts) -> os.stat_result:
    found = os.stat(path[-1], dir_fd=directory, follow_symlinks=False)
    _check_kind(found, path)
    return found


def _check_apart(source: Parts, destination: Parts) -> None:
    shorter = min(len(source), len(destination))
    if source[:shorter] == destination[:shorter]:
        raise invalid("destination", "and `path` are the same, or one lies in the other")


def _shorten(descriptor: int, size: int) -> None:
    """Take back what was written after `size`, as far as the disk lets us."""
    with suppress(OSError):
        os.ftruncate(descriptor, size)
