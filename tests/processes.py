"""Processes of the product, for tests: real ones, that do not pay for its imports.

A daemon or a command is tested as a process: with a pid that is killed with -9 or stopped, an exit code, pipes or a
terminal, a directory and an environment of its own. To start Python and to import the product takes longer than most of
what such a process then does, and there are hundreds of them. So they are forked, by Python's own fork server
(`multiprocessing`), from a process that has imported everything and has done nothing else: it has one thread, no event
loop, and gRPC is not initialised in it. Each pytest process has one, from its first use to its own end.

What a forked process does not prove is that the program starts: see `CommandLine.executed`.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO, TypeVarTuple

import msgspec

_Given = TypeVarTuple("_Given")
ROOT = Path(__file__).parents[1]
#: What libraries import when they are first used.
_LATE = (
    "alembic.command",
    "alembic.config",
    "alembic.ddl.sqlite",
    "anyio._backends._asyncio",
    "concurrent.futures.thread",
    "grpc.aio",
    "litestar._kwargs",
    "litestar.exceptions.responses._debug_response",
    "litestar.middleware._internal.exceptions",
    "litestar.middleware.allowed_hosts",
    "litestar.middleware.csrf",
    "litestar.middleware.response_cache",
    "litestar.plugins.attrs",
    "litestar.plugins.pydantic.plugins.schema",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "pydantic.v1",
    "rich.live",
    "rich.progress",
    "rich.table",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "typer._adapters",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.auto",
    "uvloop",
)


def preloaded() -> list[str]:
    """Every module of `runner` but those that are run by their path, a supervisor and migrations; and the late ones."""
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "runner").rglob("*.py")]
    names = [".".join(file.parts).removesuffix(".__init__") for file in files]
    return [name for name in names if "migrations" not in name and not name.endswith(".supervisor")] + list(_LATE)


# gRPC reads it when it is imported, so `alt-runner` sets it before that; what is forked has it imported already.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
_FORKED = get_context("forkserver")
_FORKED.set_forkserver_preload([*preloaded(), __name__])


class Surroundings(msgspec.Struct, frozen=True):
    """What a process finds when it starts."""

    directory: Path = ROOT
    environment: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(os.environ))
    arguments: Sequence[str] = ()
    #: Its input is the terminal of a session of its own.
    terminal: bool = False


class Process:
    """A function that runs as a process of its own: what `subprocess.Popen` is to a program, in the same words.

    A context: what is left of it at the end is killed, and it has been waited for.
    """

    def __init__(
        self,
        main: Callable[[*_Given], object],
        *given: *_Given,
        surroundings: Surroundings,
        stdio: tuple[Connection, Connection, Connection] | None = None,
    ) -> None:
        """Start `main(*given)`, which can be imported; its outputs are pipes, or all three streams are `stdio`."""
        out, their_out = Pipe(duplex=False)
        err, their_err = Pipe(duplex=False)
        nothing = Connection(os.open(os.devnull, os.O_RDONLY), writable=False)
        with out, their_out, err, their_err, nothing:
            streams = stdio or (nothing, their_out, their_err)
            self._process = _FORKED.Process(target=_live, args=(streams, surroundings, main, given))
            self._process.start()
            self.stdout, self.stderr = map(_text, (out, err))
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired: if it still runs after so many seconds."""
        if self.returncode is None:
            self._process.join(timeout)
            self.returncode = self._process.exitcode
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Everything it says until its end; it is killed if that does not come in time, and TimeoutExpired raised."""
        with ThreadPoolExecutor(2) as readers:
            said = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            finally:
                self.kill()
            return said[0].result(), said[1].result()

    def fileno(self) -> int:
        """Readable once it has ended."""
        return self._process.sentinel

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing, if it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.wait()
        self.stdout.close()
        self.stderr.close()


def _text(connection: Connection) -> TextIO:
    return os.fdopen(os.dup(connection.fileno()), encoding="utf-8")


def _live(
    streams: Sequence[Connection],
    surroundings: Surroundings,
    main: Callable[[*_Given], object],
    given: tuple[*_Given],
) -> None:
    """In the forked process: `main`, as in one that was just started. Its SystemExit is the process's."""
    # The server's objects are not this process's garbage: to look through them would copy every page.
    gc.freeze()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    for stream in streams:
        stream.close()
    # The pipes of the fork server: whoever holds one keeps it alive.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if surroundings.terminal:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    os.chdir(surroundings.directory)
    os.environ.clear()
    os.environ.update(surroundings.environment)
    time.tzset()
    sys.path[:0] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["alt-runner", *surroundings.arguments]
    try:
        main(*given)
    finally:
        # multiprocessing does not, before Python 3.13.
        atexit._run_exitfuncs()
