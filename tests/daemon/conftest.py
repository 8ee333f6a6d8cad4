"""A real daemon process, and an orchestrator that counts what reaches it."""

from __future__ import annotations

import json
import os
import signal
import socket
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

import anyio
import pytest
from aiohttp import web

from runner.engine.bell import Bell
from tests.daemon.serving import serve
from tests.loops import GRPC_BACKEND
from tests.processes import Process, Surroundings


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return GRPC_BACKEND


class CountingOrchestrator:
    """Speaks `altlas`, and counts calls by Idempotency-Key."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.traceparents: list[str] = []
        #: If set, calls with another API key are refused.
        self.key = ""
        self.url = ""
        #: While cleared, answers are held back.
        self.open = anyio.Event()
        self.open.set()
        self._awaited: list[tuple[int, anyio.Event]] = []

    async def reached(self, total: int) -> None:
        """Wait until so many calls have come."""
        event = anyio.Event()
        self._awaited.append((total, event))
        self._tell()
        await event.wait()

    def _tell(self) -> None:
        for total, event in self._awaited:
            if self.calls.total() >= total:
                event.set()

    async def answer(self, request: web.Request) -> web.Response:
        self.calls[request.headers["Idempotency-Key"]] += 1
        self.traceparents.append(request.headers.get("traceparent", ""))
        self._tell()
        await self.open.wait()
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "not with that key"}, status=401)
        return web.json_response({"text": "counted", "model_used": "counter", "tokens_used": 3})


@pytest.fixture
async def orchestrator() -> AsyncIterator[CountingOrchestrator]:
    counting = CountingOrchestrator()
    app = web.Application()
    app.router.add_post("/api/v1/generate", counting.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    counting.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield counting
    await runner.cleanup()


class DaemonProcess:
    """A daemon that runs as a process of its own."""

    def __init__(self, process: Process, addresses: dict[str, str], log: list[str], log_grew: Bell) -> None:
        self.process = process
        self.target = addresses["grpc"]
        self.http = f"http://{addresses['http']}"
        #: Its log lines so far.
        self.log = log
        self._log_grew = log_grew

    async def more_log(self) -> None:
        """Wait for a line."""
        await self._log_grew.wait()

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; answers the exit code."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end; answers the exit code."""
        await anyio.wait_readable(self.process)
        return self.process.wait()


Launch = Callable[..., AbstractAsyncContextManager[DaemonProcess]]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def launch(tmp_path: Path, orchestrator: CountingOrchestrator) -> Launch:
    """Start a daemon over the test's directory. Whatever is left of it is killed at the end."""

    @asynccontextmanager
    async def launching(**settings: Any) -> AsyncIterator[DaemonProcess]:
        chosen = {
            "data_dir": str(tmp_path / "var"),
            "grpc.port": 0,
            "http.port": 0,
            "health.min_free_bytes": 0,
            "orchestrator.endpoints": [{"url": orchestrator.url}],
        } | settings
        # None: as the file says.
        chosen = {name: value for name, value in chosen.items() if value is not None}
        log: list[str] = []
        log_grew = Bell()
        with Process(serve, chosen, surroundings=Surroundings()) as process:
            async with anyio.create_task_group() as reading:
                reading.start_soon(_collect, process.stderr, log, log_grew)
                try:
                    with anyio.fail_after(30):
                        told = await _received(process.stdout)
                    assert told, "the daemon did not start:\n" + "".join(log)
                    yield DaemonProcess(process, json.loads(told), log, log_grew)
                finally:
                    process.kill()

    return launching


async def _collect(stream: TextIO, log: list[str], log_grew: Bell) -> None:
    decoder = getincrementaldecoder("utf-8")()
    while chunk := await _received(stream):
        log.append(decoder.decode(chunk))
        log_grew.ring()


async def _received(stream: TextIO) -> bytes:
    await anyio.wait_readable(stream)
    return os.read(stream.fileno(), 65_536)
