"""Serves the HTTP port in the daemon's own event loop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import uvicorn

from runner.core.errors import InvalidSettings
from runner.web.settings import HttpSettings

_BACKLOG: Final = 128


class _Server(uvicorn.Server):
    """uvicorn without its hold on the process: signals are the daemon's, and the start is told by an event."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def serve_until_told(self, listener: socket.socket) -> None:
        # Shielded, because a cancelled uvicorn leaves its connections open; `should_exit` ends it in bounded time.
        with anyio.CancelScope(shield=True):
            await self.serve([listener])


@asynccontextmanager
async def serve_http(settings: HttpSettings, app: Any) -> AsyncIterator[int]:
    """Serve an ASGI application inside the context; gives the port that was opened. asyncio only.

    On the way out, by any way, requests under way have `shutdown_grace_seconds`; then they are cut.

    Raises InvalidSettings: if the address cannot be listened on.
    """
    listener = _listen(settings.host, settings.port)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_grace_seconds,
    )
    server = _Server(config)
    with listener:
        async with anyio.create_task_group() as serving:
            serving.start_soon(server.serve_until_told, listener)
            try:
                await server.listening.wait()
                yield listener.getsockname()[1]
            finally:
                server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        told = f"`http.host`, `http.port`: cannot listen on {host}:{port}: {error.strerror or error}; choose another"
        raise InvalidSettings([told]) from error
