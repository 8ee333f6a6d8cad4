"""What the tests of protocols share: an endpoint of ours, and how calls to it end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from aiohttp import web

from runner.core.errors import AttemptError
from runner.orchestrators.altlas import Altlas
from runner.orchestrators.anthropic import Anthropic
from runner.orchestrators.connection import Connection
from runner.orchestrators.model_lists import Speaker
from runner.orchestrators.openai import OpenAI
from runner.orchestrators.session import open_session
from runner.orchestrators.settings import EndpointSettings, Protocol
from tests.orchestrators.hostile import Pieces, Speak, prompt, raw_server

SPEAKERS: dict[Protocol, Callable[[Connection], Speaker]] = {
    Protocol.ALTLAS: Altlas,
    Protocol.OPENAI: OpenAI,
    Protocol.ANTHROPIC: Anthropic,
}


@asynccontextmanager
async def speaker(url: str, protocol: Protocol, **settings: Any) -> AsyncIterator[Speaker]:
    """What speaks a protocol, without a guard."""
    one = EndpointSettings(name="main", url=url, protocol=protocol, **settings)
    async with open_session(one) as session:
        yield SPEAKERS[protocol](Connection(session, one))


async def failure(url: str, protocol: Protocol, pieces: Pieces | None = None, **settings: Any) -> AttemptError:
    """How a call fails; and that it fails within a few seconds."""
    async with speaker(url, protocol, **settings) as spoken:
        with anyio.fail_after(5), pytest.raises(AttemptError) as caught:
            await spoken.ask(prompt(), pieces or Pieces())
    assert caught.value.endpoint == "main"
    assert caught.value.usage is not None
    assert caught.value.usage.calls == 1
    assert len(caught.value.message) < 500
    return caught.value


async def raw_failure(speak: Speak, protocol: Protocol, pieces: Pieces | None = None, **settings: Any) -> AttemptError:
    async with raw_server(speak) as url:
        return await failure(url, protocol, pieces, **settings)


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
