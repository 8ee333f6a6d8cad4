"""Servers as processes: started, waited for until they listen, and ended one by one."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

#: Seconds a server has to start, and to end after SIGTERM.
_PATIENCE: Final = 30.0
#: Within a server's directory: what it wrote to standard error.
LOG: Final = "log"


class Daemon(msgspec.Struct, frozen=True):
    """A daemon that listens."""

    #: `host:port`.
    target: str
    directory: Path
    pid: int

    def jobs(self) -> int:
        """Jobs in its ledger, whatever it answered to those who submitted them."""
        with contextlib.closing(sqlite3.connect(f"file:{self.directory / 'ledger.db'}?mode=ro", uri=True)) as ledger:
            [count] = ledger.execute("SELECT count(*) FROM jobs").fetchone()
        return int(count)


@asynccontextmanager
async def daemon(directory: Path, settings: Mapping[str, Any] | None = None) -> AsyncIterator[Daemon]:
    """A daemon with its defaults over a directory of its own; `settings` are others than those, by path.

    One of them may be `file`, the path of a file of settings, which is read again on SIGHUP.
    """
    chosen = {
        "data_dir": str(directory),
        "grpc.port": 0,
        "http.port": 0,
        "log.level": "warning",
        "log.format": "json",
        **(settings or {}),
    }
    with _server("daemon", json.dumps(chosen), directory) as server:
        told = await anyio.to_thread.run_sync(_told, server, directory)
        yield Daemon(told["grpc"], directory, server.pid)


@asynccontextmanager
async def bare(directory: Path) -> AsyncIterator[str]:
    """The bare server; gives its `host:port`."""
    with _server("bare", str(directory / "plain.db"), directory) as server:
        yield (await anyio.to_thread.run_sync(_told, server, directory))["grpc"]


@asynccontextmanager
async def simulator(directory: Path, behaviour: Mapping[str, Any]) -> AsyncIterator[str]:
    """A simulated orchestrator that behaves like that; gives its URL."""
    with _server("simulator", json.dumps(behaviour), directory) as server:
        yield (await anyio.to_thread.run_sync(_told, server, directory))["url"]


@contextmanager
def _server(module: str, argument: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", f"scripts.benchmarks.{module}", argument]
    directory.mkdir(parents=True)
    with (
        (directory / LOG).open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            yield server
        finally:
            _end(server)


def _end(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _told(server: subprocess.Popen[str], directory: Path) -> dict[str, str]:
    """Where it listens, as it says."""
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        sys.exit(f"a server did not start:\n{(directory / LOG).read_text()}")
    told: dict[str, str] = json.loads(line)
    return told
