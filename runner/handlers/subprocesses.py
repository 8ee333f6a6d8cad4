"""Programs that tasks run: apart from the daemon, bounded in what they take, and ended with all that they started."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import anyio
import anyio.abc
import msgspec
import psutil

from runner.core.errors import AttemptError
from runner.handlers.parameters import invalid
from runner.handlers.settings import ProgramLimits
from runner.handlers.supervisor import END, Order, Report
from runner.ports import Observer, Quiet

Timeout = Annotated[float, msgspec.Meta(gt=0)]

_SUPERVISOR: Final = str(Path(__file__).with_name("supervisor.py"))
#: Seconds for the supervisor to end after its program must have ended, and then for the pipes to be empty.
_ENDING: Final = 3.0
_EMPTYING: Final = 1.0
_CHUNK: Final = 64 * 1024
#: Bytes that output which is cut off may lose more for its last word to be whole.
_LONGEST_WORD: Final = 16 * 1024
#: Characters of standard error that stand in a message; bytes that are kept for it.
_TOLD: Final = 500
_TAIL: Final = 4 * _TOLD
#: Why a program may not start now and yet start later.
_PASSING: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ETXTBSY})
#: What programs say when they meet a limit, and which one it is.
_SIGNS: Final = (
    ("max_memory_bytes", ("MemoryError", "annot allocate memory", "bad_alloc", "out of memory", "Out of memory")),
    ("max_file_bytes", ("File too large", "File size limit exceeded")),
    ("max_cpu_seconds", ("CPU time limit exceeded",)),
    ("max_open_files", ("Too many open files",)),
    ("max_user_processes", ("Resource temporarily unavailable", "can't start new thread")),
)
_SIGNALS: Final[Mapping[int, str]] = {signal.SIGXCPU: "max_cpu_seconds", signal.SIGXFSZ: "max_file_bytes"}


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What to run."""

    #: The first is an absolute path.
    command: tuple[str, ...]
    stdin: str = ""
    environment: Mapping[str, str] = {}
    #: Texts to put into its directory, by name.
    files: Mapping[str, str] = {}
    #: Seconds; None for as long as the attempt has.
    timeout: float | None = None
    success_codes: Collection[int] = (0,)


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """How a program went. What is no UTF-8 in its output became U+FFFD."""

    exit_code: int
    stdout: str
    stderr: str
    #: Whether some output was dropped.
    truncated: bool
    #: Bytes that came, with those that were dropped.
    stdout_bytes: int
    stderr_bytes: int


class _Kept:
    """The beginning of a stream, and its end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.head = bytearray()
        self.tail = b""
        self.size = 0

    async def fill(self, pipe: io.FileIO, emptied: anyio.Event) -> None:
        """Read it to its end, so that the program never waits for us."""
        while True:
            await anyio.wait_readable(pipe)
            piece = pipe.read(_CHUNK)
            if piece == b"":
                break
            if piece:
                self.size += len(piece)
                self.head += piece[: self._limit - len(self.head)]
                self.tail = (self.tail + piece)[-_TAIL:]
        emptied.set()

    @property
    def truncated(self) -> bool:
        return self.size > len(self.head)

    def text(self) -> str:
        """The beginning, up to the end of a word: half a secret would not be known as one, and not be taken out."""
        end = len(self.head)
        if self.truncated and (half := re.compile(rb"\s\S*\Z").search(self.head, max(0, end - _LONGEST_WORD))):
            end = half.start() + 1
        return self.head[:end].decode(errors="replace")

    def last_words(self) -> str:
        """The last lines on one, whole ones for the same reason; of a long one, whole words."""
        lines = self.tail.decode(errors="replace").splitlines()
        if self.size > len(self.tail) and len(lines) > 1:
            lines = lines[1:]
        words: list[str] = []
        room = _TOLD
        for line in reversed(lines):
            room -= len(line) + 1
            if room < 0:
                break
            words = [*line.split(), *words]
        if lines and not words:
            words = ["…", *lines[-1][-_TOLD:].partition(" ")[2].split()]
        return " ".join(words)


class _Supervisor(NamedTuple):
    """A supervisor that runs, the way to it, and what comes out of its program."""

    channel: anyio.abc.UNIXSocketStream
    process: anyio.abc.Process
    stdout: io.FileIO
    stderr: io.FileIO


class Subprocesses:
    """Runs programs under one section of the settings, which its errors name."""

    def __init__(
        self, limits: ProgramLimits, path: Collection[str], *, section: str, observer: Observer | None = None
    ) -> None:
        self._limits = limits
        self._path = path
        self._section = section
        self._observer = observer or Quiet()

    def located(self, name: str) -> str | None:
        """The absolute path of a program, or None if there is no such program."""
        return shutil.which(name, path=":".join(self._path)) if name else None

    async def run(self, program: Program) -> Ran:
        """Run it in a new session and a new directory, with none of the daemon's environment and descriptors.

        When it has ended, timed out or been cancelled, everything that it started is ended, too, and the directory is
        removed: before this returns or raises, and also if the daemon is killed.

        Raises AttemptError: INVALID_PARAMETERS for a NUL character; COMMAND_NOT_STARTED; EXIT_STATUS, retryable, for
        an exit code that is no success or an end by signal; LIMIT_REACHED; TIMED_OUT; PROCESS_DIED.
        """
        for what, texts in (("command", program.command), ("env", program.environment.values())):
            if any("\0" in text for text in texts):
                raise invalid(what, "holds a NUL character")
        name = program.command[0]
        stdout, stderr = _Kept(self._limits.max_output_bytes), _Kept(self._limits.max_output_bytes)
        report = await self._supervised(program, stdout, stderr)
        if "left" in report:
            self._left_behind(f"`{name}` left a directory that cannot be removed: {report['left']}")
        if "refused" in report:
            message = f"`{name}` cannot be started: {report['refused']}"
            raise AttemptError("COMMAND_NOT_STARTED", message, retryable=report["errno"] in _PASSING)
        status = report["status"]
        if status not in program.success_codes:
            raise self._failed(name, status, stderr.last_words())
        return Ran(
            exit_code=status,
            stdout=stdout.text(),
            stderr=stderr.text(),
            truncated=stdout.truncated or stderr.truncated,
            stdout_bytes=stdout.size,
            stderr_bytes=stderr.size,
        )

    async def _supervised(self, program: Program, stdout: _Kept, stderr: _Kept) -> Report:
        name = program.command[0]
        async with _launched(name) as supervisor, anyio.create_task_group() as readers:
            emptied = anyio.Event(), anyio.Event()
            readers.start_soon(stdout.fill, supervisor.stdout, emptied[0])
            readers.start_soon(stderr.fill, supervisor.stderr, emptied[1])
            report = None
            try:
                with anyio.move_on_after(program.timeout) as time:
                    report = await _conversation(supervisor.channel, self._order(program))
            finally:
                if report is None:
                    await self._end(supervisor, name)
            with anyio.move_on_after(_EMPTYING):
                for event in emptied:
                    await event.wait()
            readers.cancel_scope.cancel()
        if report is not None:
            return report
        if time.cancelled_caught:
            message = f"`{name}` ran for more than {program.timeout:g} s (parameter `timeout`) and was ended"
            raise AttemptError("TIMED_OUT", _with_words(message, stderr.last_words()), retryable=True)
        self._left_behind(f"the supervisor of `{name}` was killed; its directory is left, and processes may be")
        raise AttemptError("PROCESS_DIED", f"the supervisor of `{name}` ended early", retryable=True)

    def _order(self, program: Program) -> Order:
        limits = self._limits
        bounds = {
            "RLIMIT_CORE": 0,
            "RLIMIT_CPU": limits.max_cpu_seconds,
            "RLIMIT_FSIZE": limits.max_file_bytes,
            "RLIMIT_NOFILE": limits.max_open_files,
            "RLIMIT_AS": limits.max_memory_bytes,
        }
        if limits.max_user_processes:
            bounds["RLIMIT_NPROC"] = limits.max_user_processes
        return Order(
            command=list(program.command),
            stdin=program.stdin,
            environment={"PATH": ":".join(self._path), "LANG": "C.UTF-8", **program.environment},
            files=dict(program.files),
            parent=limits.directory or tempfile.gettempdir(),
            limits=bounds,
            grace=limits.kill_grace_seconds,
        )

    async def _end(self, supervisor: _Supervisor, name: str) -> None:
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(self._limits.kill_grace_seconds + _ENDING) as waiting:
                with suppress(anyio.BrokenResourceError):
                    await supervisor.channel.send(END)
                await supervisor.process.wait()
            if waiting.cancelled_caught:
                _kill_all(supervisor.process.pid)
                self._left_behind(f"the supervisor of `{name}` did not end; it was killed, its directory is left")

    def _left_behind(self, told: str) -> None:
        self._observer.notice("program_left_behind", error=told)

    def _failed(self, name: str, status: int, last_words: str) -> AttemptError:
        if status < 0 and (setting := _SIGNALS.get(-status)):
            message = f"`{name}` was ended: it reached {self._limit(setting)}"
            return AttemptError("LIMIT_REACHED", message, retryable=False)
        how = f"exited with {status}" if status >= 0 else f"was ended by {_signal_name(-status)}"
        message = _with_words(f"`{name}` {how}", last_words)
        for setting, signs in _SIGNS:
            if any(sign in last_words for sign in signs):
                message = f"{message} (it may have reached {self._limit(setting)})"
        return AttemptError("EXIT_STATUS", message, retryable=True)

    def _limit(self, setting: str) -> str:
        return f"{getattr(self._limits, setting)} (setting `{self._section}.limits.{setting}`)"


def output_of(ran: Ran) -> dict[str, Any]:
    """As a task's output."""
    return msgspec.structs.asdict(ran)


@asynccontextmanager
async def _launched(name: str) -> AsyncIterator[_Supervisor]:
    with ExitStack() as ours:
        try:
            with ExitStack() as theirs:
                near, far = map(ours.enter_context, socket.socketpair())
                theirs.callback(far.close)
                near.setblocking(False)
                # Pipes, also where the event loop would take sockets: a program cannot open those as /dev/stdout.
                (stdout, stdout_end), (stderr, stderr_end) = _pipe(ours, theirs), _pipe(ours, theirs)
                # Not interrupted: a process that is half started when its task is cancelled would be nobody's.
                with anyio.CancelScope(shield=True):
                    channel = await anyio.abc.UNIXSocketStream.from_socket(near)
                    process = await anyio.open_process(
                        [sys.executable, "-I", "-S", _SUPERVISOR],
                        stdin=far.fileno(),
                        stdout=stdout_end,
                        stderr=stderr_end,
                        env={"LANG": "C.UTF-8"},
                        start_new_session=True,
                    )
        except OSError as error:
            message = f"`{name}` cannot be started: {error.strerror or error}"
            raise AttemptError("COMMAND_NOT_STARTED", message, retryable=error.errno in _PASSING) from error
        async with channel, process:
            yield _Supervisor(channel, process, stdout, stderr)


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[io.FileIO, io.FileIO]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    return ours.enter_context(io.FileIO(reading)), theirs.enter_context(io.FileIO(writing, "w"))


async def _conversation(channel: anyio.abc.UNIXSocketStream, order: Order) -> Report | None:
    """The order sent, the report received; None if the supervisor ended early."""
    encoded = msgspec.json.encode(order)
    said = bytearray()
    try:
        await channel.send(len(encoded).to_bytes(8, "big") + encoded)
        async for piece in channel:
            said += piece
        return msgspec.json.decode(said, type=Report)
    except (anyio.BrokenResourceError, msgspec.DecodeError):
        return None


def _kill_all(process: int) -> None:
    with suppress(psutil.NoSuchProcess):
        supervisor = psutil.Process(process)
        # Seen before it is killed: without it, nobody knows whose they are.
        for found in [*supervisor.children(recursive=True), supervisor]:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found.kill()


def _with_words(message: str, last_words: str) -> str:
    return f"{message}; it said last: {last_words}" if last_words else message


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
