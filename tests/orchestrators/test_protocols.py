"""Every protocol over real sockets: against the simulated orchestrator, and against servers that say odd things."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from anyio.abc import SocketStream

from runner.core.breaker import BreakerState
from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.plan import Mode
from runner.core.secret import Secret
from runner.orchestrators.endpoints import open_orchestrators
from runner.orchestrators.fleet import Fleet
from runner.orchestrators.settings import EndpointSettings, OrchestratorSettings, Protocol
from runner.orchestrators.simulated import serve_simulated
from runner.orchestrators.simulation import Behaviour, tokens
from tests.orchestrators.calling import failure, listener, raw_failure, speaker
from tests.orchestrators.hostile import (
    JSON_HEAD,
    STREAM_HEAD,
    BreakerEar,
    FixedClock,
    Pieces,
    Speak,
    prompt,
    raw_server,
    says,
    silence,
    trickle,
)

ALL = pytest.mark.parametrize("protocol", list(Protocol))


@asynccontextmanager
async def fleet_of(url: str, protocol: Protocol, **settings: Any) -> AsyncIterator[Fleet]:
    one = EndpointSettings(name="main", url=url, protocol=protocol, **settings)
    async with open_orchestrators(
        OrchestratorSettings(endpoints=(one,)),
        clock=FixedClock(),
        observer=BreakerEar(),
        chance=lambda: 0.0,
        new_id=str,
        looked_after=False,
    ) as fleet:
        yield fleet


# ---------------------------------------------------------------------------------------------------- well-behaved


@ALL
async def test_an_answer_comes_with_text_model_endpoint_and_usage(protocol: Protocol) -> None:
    async with serve_simulated() as simulator, speaker(simulator.url, protocol) as orchestrator:
        answer = await orchestrator.ask(prompt("selam dünya"), Pieces())
    assert answer.text == "".join(tokens(0, "selam dünya", 24))
    assert (answer.endpoint, answer.model) == ("main", "simulated-m")
    assert (answer.usage.calls, answer.usage.total_tokens) == (1, 26)


async def test_a_streamed_answer_arrives_in_pieces_and_its_usage_in_the_last(anyio_backend: str) -> None:
    assert anyio_backend == "asyncio"
    pieces = Pieces()
    async with serve_simulated() as simulator, speaker(simulator.url, Protocol.OPENAI) as orchestrator:
        answer = await orchestrator.ask(prompt(max_tokens=5), pieces)
    assert pieces.texts == tokens(0, "hello", 5)
    assert answer.text == "".join(pieces.texts)
    assert answer.usage == Usage(1, 1, 5, 6)
    assert answer.metadata == {"finish_reason": "length"}


async def test_altlas_sends_what_its_format_says() -> None:
    asked = msgspec.structs.replace(
        prompt("Özetle", temperature=0.2), mode=Mode.DREAM, persona="expert", task_type="search"
    )
    async with (
        listener({"text": "ok", "tokens_used": 7, "processing_time_ms": 3.5}) as heard,
        speaker(heard.url + "/base/", Protocol.ALTLAS, api_key=Secret("word")) as orchestrator,
    ):
        answer = await orchestrator.ask(asked, Pieces())
    [(path, headers, body)] = heard.received
    assert path == "/base/api/v1/generate"
    assert body == {
        "request_id": "job-1/task-1",
        "prompt": "Özetle",
        "mode": "dream",
        "persona": "expert",
        "parameters": {"temperature": 0.2, "task_type": "search", "model": "m"},
    }
    assert headers["Authorization"] == "Bearer word"
    assert headers["Idempotency-Key"] == "job-1/task-1"
    assert headers["traceparent"] == asked.traceparent
    assert 0 < int(headers["X-Deadline-Ms"]) <= 5000
    assert (answer.text, answer.model, answer.usage) == ("ok", "m", Usage(calls=1, total_tokens=7))
    assert answer.metadata == {"processing_time_ms": 3.5}


async def test_openai_puts_what_the_protocol_has_no_field_for_into_the_messages() -> None:
    asked = msgspec.structs.replace(
        prompt("Find it", model=None, temperature=0.2, system="Be brief.", depth=3),
        persona="expert",
        task_type="search",
    )
    answered = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}
    async with (
        listener(answered) as heard,
        speaker(heard.url + "/v1", Protocol.OPENAI, model="small") as orchestrator,
    ):
        pieces = Pieces()
        answer = await orchestrator.ask(asked, pieces)
    assert heard.received[0][2] == {
        "model": "small",
        "temperature": 0.2,
        "messages": [
            {"role": "system", "content": "Be brief.\nPersona: expert.\nTask: search."},
            {"role": "user", "content": 'Find it\n\nParameters:\n{"depth":3}'},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert (answer.text, answer.model, pieces.texts) == ("ok", "small", ["ok"])


async def test_openai_without_any_model_says_which_setting_would_give_one() -> None:
    with pytest.raises(AttemptError, match=r"orchestrator\.endpoints\[main\]\.model") as caught:
        async with speaker("http://127.0.0.1:9", Protocol.OPENAI) as orchestrator:
            await orchestrator.ask(prompt(model=None), Pieces())
    assert caught.value.reason == "INVALID_PARAMETERS"
    assert not caught.value.retryable


@ALL
async def test_health_passes_where_it_is_answered_and_fails_where_not(protocol: Protocol) -> None:
    async with serve_simulated() as simulator, speaker(simulator.url, protocol) as orchestrator:
        await orchestrator.health()
    sick = says(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
    async with raw_server(sick) as url, speaker(url, protocol) as orchestrator:
        with pytest.raises(AttemptError, match="HTTP 500"):
            await orchestrator.health()


async def test_an_answer_is_complete_with_its_last_event_though_the_server_does_not_hang_up() -> None:
    events = b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\ndata: [DONE]\n\n'

    async def speak(stream: anyio.abc.SocketStream) -> None:
        await stream.send(STREAM_HEAD + events)
        await anyio.sleep_forever()

    async with raw_server(speak) as url, speaker(url, Protocol.OPENAI) as orchestrator:
        with anyio.fail_after(3):
            assert (await orchestrator.ask(prompt(), Pieces())).text == "hi"


async def test_waiting_for_our_own_readers_is_not_held_against_the_endpoint() -> None:
    """The call may take 0.5 s, and the receivers of the text alone take longer."""

    async def slow_reader(_: str) -> None:
        with anyio.move_on_after(0.3):
            await anyio.sleep_forever()

    async with (
        serve_simulated() as simulator,
        speaker(simulator.url, Protocol.OPENAI, timeout_seconds=0.5) as orchestrator,
    ):
        answer = await orchestrator.ask(prompt(max_tokens=2), slow_reader)
    assert answer.usage.completion_tokens == 2


# --------------------------------------------------------------------------------------------------------- refusals


@ALL
@pytest.mark.parametrize(
    ("status", "retryable"), [(500, True), (503, True), (429, True), (408, True), (400, False), (404, False)]
)
async def test_a_refusal_says_its_status_and_whether_to_try_again(
    protocol: Protocol, status: int, retryable: bool
) -> None:
    async with serve_simulated() as simulator:
        simulator.behave(Behaviour(error_rate=1, error_status=status, retry_after_seconds=7))
        error = await failure(simulator.url, protocol)
    assert (error.reason, error.retryable, error.retry_after) == ("HTTP_STATUS", retryable, 7.0)
    assert str(error).endswith(f"orchestrator `main` answered HTTP {status}: simulated failure")


@ALL
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_told_without_quoting_it(protocol: Protocol, status: int) -> None:
    quoting = f"HTTP/1.1 {status} No\r\nContent-Length: 8\r\n\r\nkey-word".encode()
    error = await raw_failure(says(quoting), protocol, api_key=Secret("key-word"))
    assert (error.reason, error.retryable) == ("UNAUTHORIZED", False)
    assert "key-word" not in str(error)


@ALL
async def test_a_refusal_that_quotes_the_key_is_told_without_it(protocol: Protocol) -> None:
    quoting = b"HTTP/1.1 400 No\r\nContent-Length: 21\r\n\r\nwhat is key-word\x00\n\x1b[m"
    error = await raw_failure(says(quoting), protocol, api_key=Secret("key-word"))
    assert error.message == "orchestrator `main` answered HTTP 400: what is *** [m"


@ALL
async def test_a_simulated_answer_without_end_is_cut_too(protocol: Protocol) -> None:
    async with serve_simulated() as simulator:
        simulator.behave(Behaviour(endless=True))
        assert (await failure(simulator.url, protocol, max_answer_bytes=100_000)).reason == "ANSWER_TOO_LARGE"


@ALL
async def test_a_connection_that_is_reset_is_told(protocol: Protocol) -> None:
    pieces = Pieces()
    async with serve_simulated() as simulator:
        simulator.behave(Behaviour(reset=True))
        error = await failure(simulator.url, protocol, pieces)
    assert (error.reason, error.retryable) == ("CONNECTION_FAILED", True)


@ALL
async def test_garbage_from_a_server_that_speaks_http_is_told(protocol: Protocol) -> None:
    async with serve_simulated() as simulator:
        simulator.behave(Behaviour(garbage=True))
        error = await failure(simulator.url, protocol)
    assert (error.reason, error.retryable) == ("INVALID_ANSWER", True)


async def test_fields_that_are_null_are_as_good_as_missing() -> None:
    events = (
        b'data: {"choices": null, "usage": null, "model": null}\n\n'
        b'data: {"choices": [{"delta": null, "finish_reason": null}]}\n\n'
        b'data: {"choices": [{"delta": {"content": null}, "finish_reason": "stop"}]}\n\n'
    )
    async with raw_server(says(STREAM_HEAD + events)) as url, speaker(url, Protocol.OPENAI) as orchestrator:
        answer = await orchestrator.ask(prompt(), Pieces())
    assert (answer.text, answer.model, answer.usage) == ("", "m", Usage(calls=1))


@ALL
async def test_a_large_prompt_is_sent_without_ado(protocol: Protocol) -> None:
    async with serve_simulated() as simulator, speaker(simulator.url, protocol) as orchestrator:
        answer = await orchestrator.ask(prompt("word " * 500_000), Pieces())
    assert answer.usage.total_tokens == 500_024


async def test_an_error_within_a_stream_is_told() -> None:
    broken = b'data: {"error": {"message": "out of memory"}}\n\n'
    error = await raw_failure(says(STREAM_HEAD + broken), Protocol.OPENAI)
    assert error.reason == "INVALID_ANSWER"
    assert "out of memory" in error.message


@ALL
async def test_many_calls_that_hang_hold_nothing_once_their_time_is_up(protocol: Protocol) -> None:
    """However they end, by the endpoint's time, by silence or by cancellation, place and connection are free again."""
    open_sockets: set[SocketStream] = set()
    hanging: dict[str, Speak] = {"mute": silence, "stalling": trickle(JSON_HEAD, b" ", 60)}
    chosen = "mute"

    async def speak(stream: SocketStream) -> None:
        open_sockets.add(stream)
        try:
            if chosen in hanging:
                async with anyio.create_task_group() as group:
                    group.start_soon(_hung_up, stream, group.cancel_scope)
                    await hanging[chosen](stream)
        finally:
            open_sockets.discard(stream)

    limits = {"timeout_seconds": 0.3, "idle_timeout_seconds": 0.2, "max_connections": 40}
    async with raw_server(speak) as url, fleet_of(url, protocol, **limits) as fleet:
        orchestrator = fleet.directory["main"]
        for kind, seconds in (("mute", 5.0), ("stalling", 5.0), ("mute", 0.1)):
            chosen = kind
            fleet.force("main", ["m"], BreakerState.DISABLED)
            reasons: list[str] = []

            async def ask(seconds: float = seconds, reasons: list[str] = reasons) -> None:
                with anyio.move_on_after(seconds):
                    try:
                        await orchestrator.ask(prompt(timeout=5), Pieces())
                    except AttemptError as error:
                        reasons.append(error.reason)

            with anyio.fail_after(10):
                async with anyio.create_task_group() as group:
                    for _ in range(40):
                        group.start_soon(ask)
                while open_sockets:
                    await anyio.lowlevel.checkpoint()
            assert reasons == (["TIMED_OUT"] * 40 if seconds > 1 else [])
        chosen = "well"
        with pytest.raises(AttemptError) as caught:
            await orchestrator.ask(prompt(), Pieces())
        assert caught.value.reason in {"CONNECTION_FAILED", "INVALID_ANSWER"}, "the server was called, not the wait"


async def _hung_up(stream: SocketStream, speaking: anyio.CancelScope) -> None:
    """Stop speaking when the other side has closed the connection."""
    while True:
        try:
            await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            speaking.cancel()
            return
