"""What the tests of protocols share: an endpoint of ours, and how calls to it end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from runner.orchestrators.altlas import Altlas
from runner.orchestrators.anthropic import Anthropic
from runner.orchestrators.catalogue import Speaker
from runner.orchestrators.connection import Connection
from runner.orchestrators.openai import OpenAI
from runner.orchestrators.settings import EndpointSettings, Protocol

SPEAKERS: dict[Protocol, Callable[[Connection], Speaker]] = {
    Protocol.ALTLAS: Altlas,
    Protocol.OPENAI: OpenAI,
    Protocol.ANTHROPIC: Anthropic,
}


@asynccontextmanager
async def speaker(url: str, protocol: Protocol, **settings: Any) -> AsyncIterator[Speaker]:
    """What speaks a protocol, without a guard."""
    one = EndpointSettings(name="main", url=url, protocol=protocol, **settings)
    async with aiohttp.ClientSession() as session:
        yield SPEAKERS[protocol](Connection(session, one))


class Listener:
    """A well-behaved server that remembers what it received, and gives its answers in turn, the last one again."""

    def __init__(self, *answers: Any) -> None:
        self.url = ""
        self.received: list[tuple[str, dict[str, str], Any]] = []
        self._answers = list(answers)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append((request.path_qs, dict(request.headers), msgspec.json.decode(body) if body else None))
        return web.json_response(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])


@asynccontextmanager
async def listener(*answers: Any) -> AsyncIterator[Listener]:
    listening = Listener(*answers)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", listening.take)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        listening.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield listening
    finally:
        await runner.cleanup()
