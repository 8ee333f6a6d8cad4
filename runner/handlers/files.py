"""Task kind `file_operation`: files in a work directory of the job."""

from __future__ import annotations

import base64
import enum
import hashlib
import mimetypes
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from runner.core.alt import LATER, ParameterProblem
from runner.core.errors import AttemptError
from runner.core.plan import JobId
from runner.handlers.beneath import Parts, parts_of, shown
from runner.handlers.parameters import invalid, problems_of, read
from runner.handlers.settings import FileOperationSettings
from runner.handlers.work_directory import Found, WorkDirectory
from runner.ports import Attempt, FileLeft, Outcome

#: Jobs whose directories are known without being counted again.
_REMEMBERED: Final = 1_000
# Python's own, without what the machine adds: the same job leaves the same record everywhere.
_MIME_TYPES: Final = mimetypes.MimeTypes().types_map[True]


class Operation(enum.StrEnum):
    """What to do."""

    READ = "read"
    WRITE = "write"
    APPEND = "append"
    COPY = "copy"
    MOVE = "move"
    DELETE = "delete"
    LIST = "list"


#: Parameters without which an operation cannot be.
_NEEDED: Final[Mapping[object, tuple[str, ...]]] = {
    Operation.READ: ("path",),
    Operation.WRITE: ("path", "content"),
    Operation.APPEND: ("path", "content"),
    Operation.COPY: ("path", "destination"),
    Operation.MOVE: ("path", "destination"),
    Operation.DELETE: ("path",),
}


class Encoding(enum.StrEnum):
    """How a file's bytes stand in JSON."""

    #: As a text. What is written and is no text is written as JSON.
    UTF_8 = "utf-8"
    #: As a text in base64.
    BASE64 = "base64"
    #: As the value that they are the JSON of; a text, too, is written as JSON.
    JSON = "json"


class FileParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with what. Paths are relative to the job's work directory; `/` stands between their names."""

    #: What to do.
    operation: Operation
    #: Required, but for `list`, which lists the work directory itself without one.
    path: str = "."
    #: `write`, `append`: a text, or any JSON value.
    content: Any = msgspec.UNSET
    #: `read`, `write`, `append`.
    encoding: Encoding = Encoding.UTF_8
    #: `copy`, `move`: the new path itself, also where a directory is there.
    destination: str | None = None
    #: `list`: what is in directories, too. `copy`, `delete`: directories with all that is in them.
    recursive: bool = False
    #: `list`: like `*.txt` for names, or `reports/*.txt` for the ends of paths; `*`, `?` and `[…]` stop at a `/`.
    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)] | None = None
    #: `write`, `copy`, `move`: whether to replace what is there.
    overwrite: bool = True
    #: `write`, `append`, `copy`, `move`: whether to make directories that are missing.
    create_parents: bool = True
    #: `delete`, `read`: whether it is all right if there is nothing.
    missing_ok: bool = False


class FileOperation:
    """A Handler. Its outputs:

    - `read`: `{"path", "size", "sha256", "body"}`. What is no text (with `encoding` utf-8), or is larger than
      `file_operation.max_inline_bytes`, is left as an artifact, and `body` is null. Without a file and with
      `missing_ok`, all but the path are null.
    - `write`, `append`: `{"path", "size"}`, of the whole file.
    - `copy`: `{"path", "destination", "files", "size"}`: how many files and directories, and their bytes.
    - `move`: `{"path", "destination"}`.
    - `delete`: `{"path", "deleted"}`: how many files, links and directories went.
    - `list`: `{"path", "entries": [{"path", "type", "size", "modified_at"}]}`, by path, which is relative to the work
      directory; `type` is `file`, `directory`, `symlink` or `other`.

    Another attempt of `read`, `list`, `write`, `copy` and `delete` with `missing_ok` comes to the same, and so does one
    of a task that a crash cut off. `append` may append twice then, and `move` may find its source gone.

    Operations of one job that change something come one after another. One that is cancelled or runs out of time
    stops within about a megabyte and leaves files as they were.
    """

    parameters: Final = FileParameters

    def __init__(self, root: Path, settings: FileOperationSettings) -> None:
        self._root = root
        self._settings = settings
        self._threads: anyio.CapacityLimiter | None = None
        self._known: dict[JobId, tuple[anyio.Lock, WorkDirectory]] = {}

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        """What its operation needs, and whether the paths can be any of a work directory's."""
        if not self._settings.enabled:
            yield from problems_of("operation", self._check_enabled, by_settings=True)
        for name in ("path", "destination"):
            path = parameters.get(name)
            if isinstance(path, str):
                yield from problems_of(name, partial(parts_of, name, path))
        needed = _NEEDED.get(parameters.get("operation", LATER), ())
        for name in needed:
            if name not in parameters:
                message = f"`{name}` is required for `{parameters['operation']}`."
                yield ParameterProblem(name=name, message=message, missing=True)

    def _check_enabled(self) -> None:
        if not self._settings.enabled:
            message = "jobs may not keep files here (setting `file_operation.enabled`)"
            raise AttemptError("HANDLER_DISABLED", message, retryable=False)

    async def run(self, attempt: Attempt) -> Outcome:
        """Do it.

        Raises AttemptError: INVALID_PARAMETERS, OUTSIDE_WORK_DIRECTORY, FILE_NOT_FOUND, FILE_EXISTS, WRONG_FILE_TYPE,
        DIRECTORY_NOT_EMPTY, INVALID_CONTENT, TOO_LARGE; DISK_FULL, retryable; FILE_ERROR for anything else that the
        system says, retryable where it may pass; HANDLER_DISABLED.
        """
        self._check_enabled()
        parameters = read(attempt.parameters, FileParameters)
        work = _prepared(parameters, self._settings)
        lock, directory = self._known_for(attempt.job_id)
        if parameters.operation in {Operation.READ, Operation.LIST}:
            return await self._in_thread(work, directory)
        async with lock:
            return await self._in_thread(work, directory)

    async def _in_thread(self, work: _Work, directory: WorkDirectory) -> Outcome:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(self._settings.max_threads)
        # Waits for the thread also when it is cancelled: nothing writes any more once the attempt has ended.
        return await anyio.to_thread.run_sync(work, directory, limiter=self._threads)

    def _known_for(self, job_id: JobId) -> tuple[anyio.Lock, WorkDirectory]:
        known = self._known.pop(job_id, None)
        if known is None:
            tick = anyio.from_thread.check_cancelled
            known = anyio.Lock(), WorkDirectory(self._root, job_id, self._settings, tick)
        self._known[job_id] = known
        for longest in list(self._known)[:-_REMEMBERED]:
            if not self._known[longest][0].locked():
                del self._known[longest]
        return known


_Work = Callable[[WorkDirectory], Outcome]


def _prepared(parameters: FileParameters, settings: FileOperationSettings) -> _Work:
    """What the parameters ask for, with everything checked that can be without looking."""
    path = parts_of("path", parameters.path)
    if not path and parameters.operation is not Operation.LIST:
        raise invalid("path", "is missing, or names the work directory itself")
    match parameters.operation:
        case Operation.READ:
            return lambda directory: _read(directory, path, parameters, settings.max_inline_bytes)
        case Operation.WRITE | Operation.APPEND:
            content = _content(parameters)
            return lambda directory: _write(directory, path, parameters, content)
        case Operation.COPY | Operation.MOVE:
            destination = _destination(parameters)
            return lambda directory: _relocate(directory, path, destination, parameters)
        case Operation.DELETE:
            return lambda directory: _delete(directory, path, parameters)
        case Operation.LIST:
            return lambda directory: _list(directory, path, parameters)


def _destination(parameters: FileParameters) -> Parts:
    if parameters.destination is None:
        raise invalid("destination", "is missing")
    destination = parts_of("destination", parameters.destination)
    if not destination:
        raise invalid("destination", "names the work directory itself")
    return destination


def _content(parameters: FileParameters) -> bytes:
    content = parameters.content
    if content is msgspec.UNSET:
        raise invalid("content", "is missing")
    try:
        if parameters.encoding is Encoding.BASE64:
            if not isinstance(content, str):
                raise invalid("content", "must be a text where `encoding` is `base64`")
            return base64.b64decode(content, validate=True)
        if isinstance(content, str) and parameters.encoding is Encoding.UTF_8:
            return content.encode()
        return msgspec.json.encode(content)
    except UnicodeError as error:
        raise invalid("content", "holds half of a surrogate pair") from error
    except ValueError as error:
        raise invalid("content", "is no base64") from error


def _write(directory: WorkDirectory, path: Parts, asked: FileParameters, content: bytes) -> Outcome:
    if asked.operation is Operation.APPEND:
        size = directory.append(path, content, create_parents=asked.create_parents)
    else:
        size = len(content)
        directory.write(path, content, overwrite=asked.overwrite, create_parents=asked.create_parents)
    return Outcome(output={"path": shown(path), "size": size})


def _relocate(directory: WorkDirectory, path: Parts, destination: Parts, asked: FileParameters) -> Outcome:
    output: dict[str, Any] = {"path": shown(path), "destination": shown(destination)}
    overwrite, create_parents = asked.overwrite, asked.create_parents
    if asked.operation is Operation.MOVE:
        directory.move(path, destination, overwrite=overwrite, create_parents=create_parents)
        return Outcome(output=output)
    copied = directory.copy(
        path, destination, recursive=asked.recursive, overwrite=overwrite, create_parents=create_parents
    )
    return Outcome(output=output | {"files": copied.files, "size": copied.bytes})


def _delete(directory: WorkDirectory, path: Parts, asked: FileParameters) -> Outcome:
    try:
        deleted = directory.delete(path, recursive=asked.recursive)
    except AttemptError as error:
        if not _nothing_there(error, asked):
            raise
        deleted = 0
    return Outcome(output={"path": shown(path), "deleted": deleted})


def _nothing_there(error: AttemptError, asked: FileParameters) -> bool:
    return asked.missing_ok and error.reason == "FILE_NOT_FOUND"


def _read(directory: WorkDirectory, path: Parts, asked: FileParameters, max_inline: int) -> Outcome:
    try:
        content = directory.read(path)
    except AttemptError as error:
        if not _nothing_there(error, asked):
            raise
        return Outcome(output={"path": shown(path), "size": None, "sha256": None, "body": None})
    inline, body = _body(content, asked.encoding) if len(content) <= max_inline else (False, None)
    digest = hashlib.sha256(content).hexdigest()
    output = {"path": shown(path), "size": len(content), "sha256": digest, "body": body}
    return Outcome(output=output, files=() if inline else (_left(path[-1], content),))


def _body(content: bytes, encoding: Encoding) -> tuple[bool, Any]:
    """Whether the content can stand in JSON, and as what."""
    if encoding is Encoding.BASE64:
        return True, base64.b64encode(content).decode()
    if encoding is Encoding.JSON:
        try:
            return True, msgspec.json.decode(content)
        except (ValueError, RecursionError) as error:
            raise AttemptError("INVALID_CONTENT", f"the file is no JSON: {error}", retryable=False) from error
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return False, None
    return ("\x00" not in text, text if "\x00" not in text else None)


def _left(name: str, content: bytes) -> FileLeft:
    ending = PurePosixPath(name).suffix.lower()
    mime_type = _MIME_TYPES.get(ending, "application/octet-stream")
    kinds = {"application/json": "json", "image": "image", "text": "text"}
    return FileLeft(name, content, mime_type, kinds.get(mime_type, kinds.get(mime_type.partition("/")[0], "file")))


def _list(directory: WorkDirectory, path: Parts, asked: FileParameters) -> Outcome:
    found = directory.list(path, recursive=asked.recursive)
    if asked.pattern is not None:
        found = [entry for entry in found if PurePosixPath(*entry.parts).match(asked.pattern)]
    return Outcome(output={"path": shown(path), "entries": [_entry(path, entry) for entry in found]})


def _entry(path: Parts, found: Found) -> dict[str, Any]:
    # Programs may give names that are no UTF-8.
    name = shown((*path, *found.parts)).encode(errors="surrogateescape").decode(errors="replace")
    modified = datetime.fromtimestamp(found.info.st_mtime_ns // 1_000_000_000, UTC)
    return {
        "path": name,
        "type": found.kind,
        "size": found.info.st_size if found.kind == "file" else None,
        "modified_at": f"{modified:%Y-%m-%dT%H:%M:%SZ}",
    }
