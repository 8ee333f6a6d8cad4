"""What a call costs that is not answered: nothing before it is connected; then one call, and the tokens it told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import msgspec
import pytest
from anyio.abc import SocketStream

from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.orchestrators.hedge import OnText
from runner.orchestrators.settings import Protocol
from tests.orchestrators.calling import raw_failure, speaker
from tests.orchestrators.hostile import STREAM_HEAD, Pieces, prompt, raw_server, says, silence

BEGUN = STREAM_HEAD + (
    b"event: message_start\n"
    b'data: {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 12}}}\n\n'
)
TEXT = (
    b"event: content_block_delta\n"
    b'data: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}}\n\n'
)

protocols = pytest.mark.parametrize("protocol", Protocol)


@contextmanager
def closed_port() -> Iterator[str]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


@contextmanager
def full_port() -> Iterator[str]:
    """Connections to it are neither made nor refused: its backlog is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"
        for each in waiting:
            each.close()


@protocols
async def test_a_connection_that_is_refused_or_never_made_is_no_call(protocol: Protocol) -> None:
    for port, settings, reason in (
        (closed_port(), {}, "CONNECTION_FAILED"),
        (full_port(), {"connect_timeout_seconds": 0.2}, "TIMED_OUT"),
    ):
        with port as url:
            async with speaker(url, protocol, model="m", **settings) as spoken:
                with pytest.raises(AttemptError, match=reason) as caught:
                    await spoken.ask(prompt(), Pieces())
        assert (caught.value.connected, caught.value.usage, caught.value.endpoint) == (False, None, "main")


@protocols
async def test_a_call_whose_whole_time_is_up_before_it_is_connected_is_none(protocol: Protocol) -> None:
    with full_port() as url:
        async with speaker(url, protocol, model="m") as spoken:
            with pytest.raises(AttemptError, match="TIMED_OUT") as caught:
                await spoken.ask(prompt(timeout=0.2), Pieces())
    assert (caught.value.connected, caught.value.usage) == (False, None)


@protocols
async def test_a_call_that_broke_off_was_one(protocol: Protocol) -> None:
    error = await raw_failure(says(), protocol, model="m")
    assert (error.reason, error.usage) == ("CONNECTION_FAILED", Usage(1))


async def test_a_stream_that_breaks_off_tells_the_tokens_that_it_told_before() -> None:
    error = await raw_failure(says(BEGUN, TEXT), Protocol.ANTHROPIC, model="m")
    assert error.usage == Usage(1, 12, 0, 12)


async def cut_off(url: str, protocol: Protocol, when: anyio.Event, pieces: OnText | None = None) -> list[Usage]:
    """What a call told of its usage that is cut off then."""
    told: list[Usage] = []
    async with speaker(url, protocol, model="m") as spoken, anyio.create_task_group() as group:
        group.start_soon(spoken.ask, msgspec.structs.replace(prompt(), used=told.append), pieces or Pieces())
        with anyio.fail_after(5):
            await when.wait()
        group.cancel_scope.cancel()
    return told


@protocols
async def test_a_call_that_is_cut_off_while_its_endpoint_is_silent_was_sent(protocol: Protocol) -> None:
    came = anyio.Event()

    async def speak(stream: SocketStream) -> None:
        came.set()
        await silence(stream)

    async with raw_server(speak) as url:
        assert await cut_off(url, protocol, came) == [Usage(), Usage(1)]


@protocols
async def test_a_call_that_is_cut_off_while_it_connects_was_not_sent(protocol: Protocol) -> None:
    soon = anyio.Event()
    with full_port() as url:
        async with anyio.create_task_group() as group:
            group.start_soon(_after_a_while, soon)
            assert await cut_off(url, protocol, soon) == [Usage()]


async def test_a_stream_that_is_cut_off_has_told_the_tokens_of_its_prompt() -> None:
    heard = anyio.Event()

    async def speak(stream: SocketStream) -> None:
        await stream.send(BEGUN + TEXT)
        await silence(stream)

    async def hear(_: str) -> None:
        heard.set()

    async with raw_server(speak) as url:
        told = await cut_off(url, Protocol.ANTHROPIC, heard, hear)
    assert told == [Usage(), Usage(1), Usage(1, 12, 0, 12)]


async def _after_a_while(event: anyio.Event) -> None:
    """Some turns of the event loop: a call that could be sent would have been."""
    for _ in range(50):
        await anyio.lowlevel.checkpoint()
    event.set()
