"""Raw servers that break the rules of HTTP on purpose, and what tests of orchestrators share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream

from runner.core.plan import Instant
from runner.core.prompt import Prompt
from runner.ports import Quiet

Speak = Callable[[SocketStream], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nConnection: close\r\n\r\n"
JSON_HEAD = HEAD % b"application/json"
STREAM_HEAD = HEAD % b"text/event-stream"


@asynccontextmanager
async def raw_server(speak: Speak) -> AsyncIterator[str]:
    """The address of a server that reads the beginning of each request, lets `speak` answer, and hangs up."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            try:
                await stream.receive()
                await speak(stream)
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                pass  # the caller had enough

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's `extra`, not Django's
        yield f"http://127.0.0.1:{port}"
        group.cancel_scope.cancel()


def says(*pieces: bytes) -> Speak:
    """Send these pieces, one packet each as far as the network obeys."""

    async def speak(stream: SocketStream) -> None:
        for piece in pieces:
            await stream.send(piece)
            await anyio.lowlevel.checkpoint()

    return speak


def without_end(head: bytes, step: bytes) -> Speak:
    async def speak(stream: SocketStream) -> None:
        await stream.send(head)
        while True:
            await stream.send(step)

    return speak


def trickle(head: bytes, step: bytes, seconds: float) -> Speak:
    """A piece every so many seconds, for ever."""

    async def speak(stream: SocketStream) -> None:
        await stream.send(head)
        while True:
            await anyio.sleep(seconds)
            await stream.send(step)

    return speak


async def silence(_: SocketStream) -> None:
    await anyio.sleep_forever()


class FixedClock:
    """A Clock that stands."""

    def __init__(self, instant: Instant = 1_000_000_000) -> None:
        self.instant = instant

    def now(self) -> Instant:
        return self.instant


class BreakerEar(Quiet):
    """An Observer that remembers the transitions of breakers, and notices."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str, str]] = []
        #: Why, for each transition.
        self.reasons: list[str] = []
        self.notices: list[str] = []

    def breaker(self, endpoint: str, model: str, state: str, previous: str, *, reason: str = "") -> None:
        self.heard.append((endpoint, model, state, previous))
        self.reasons.append(reason)

    def notice(self, event: str, **_: object) -> None:
        self.notices.append(event)


class Pieces:
    """Receives streamed text."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def __call__(self, text: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.texts.append(text)


def prompt(text: str = "hello", *, model: str | None = "m", timeout: float = 5.0, **parameters: object) -> Prompt:
    return Prompt(
        request_id="job-1/task-1",
        text=text,
        task_type="ai_prompt",
        model=model,
        parameters=parameters,
        timeout=timeout,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
