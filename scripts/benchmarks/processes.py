"""Servers as processes: started, waited for until they listen, and ended one by one."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec

#: Seconds a server has to start, and to end after SIGTERM.
_PATIENCE: Final = 30.0
_LOG: Final = "log"


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
async def daemon(directory: Path) -> AsyncIterator[Daemon]:
    """A daemon with its defaults over a directory of its own."""
    settings = {
        "data_dir": str(directory),
        "grpc.port": 0,
        "http.port": 0,
        "log.level": "warning",
        "log.format": "json",
    }
    with _server("daemon", json.dumps(settings), directory) as server:
        yield Daemon(await anyio.to_thread.run_sync(_address, server, directory), directory, server.pid)


@asynccontextmanager
async def bare(directory: Path) -> AsyncIterator[str]:
    """The bare server; gives its `host:port`."""
    with _server("bare", str(directory / "plain.db"), directory) as server:
        yield await anyio.to_thread.run_sync(_address, server, directory)


@contextmanager
def _server(module: str, argument: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", f"scripts.benchmarks.{module}", argument]
    directory.mkdir(parents=True)
    with (
        (directory / _LOG).open("w") as log,
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


def _address(server: subprocess.Popen[str], directory: Path) -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        sys.exit(f"a server did not start:\n{(directory / _LOG).read_text()}")
    return str(json.loads(line)["grpc"])
