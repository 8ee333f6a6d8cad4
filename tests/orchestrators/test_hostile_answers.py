"""Servers that break every rule, over real sockets; every protocol, streamed and not, gets the same from them.

Whatever they do: the call ends in bounded time and memory, with a clear error that says whether to try again.
"""

from __future__ import annotations

import itertools
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest
from anyio.abc import SocketStream
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.prompt import Prompt
from runner.orchestrators.connection import Connection
from runner.orchestrators.settings import EndpointSettings, Protocol
from runner.outgoing import IncomingAnswer
from tests.orchestrators.calling import SPEAKERS, raw_failure, speaker
from tests.orchestrators.forms import FORMS, Form
from tests.orchestrators.hostile import Pieces, prompt, raw_server, says, silence, trickle, without_end

EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
STREAMED = pytest.mark.parametrize("form", [form for form in FORMS if form.streamed], ids=lambda form: form.name)
PROTOCOLS = pytest.mark.parametrize("protocol", list(Protocol))

#: Bytes that a call may hold at a time beside its answer: buffers of sockets, the inflated piece, the server's own.
SLACK = 8_000_000


@contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    tracemalloc.start(1)
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@EVERY_FORM
async def test_the_forms_themselves_are_well(form: Form) -> None:
    pieces = Pieces()
    async with raw_server(says(form.answer())) as url, speaker(url, form.protocol) as spoken:
        answer = await spoken.ask(prompt(), pieces)
    assert (answer.text, answer.model, answer.usage.total_tokens) == ("hi", "big", 2)
    assert pieces.texts == ([] if form.protocol is Protocol.ALTLAS else ["hi"])


# ------------------------------------------------------------------------------------------------- time and size


@PROTOCOLS
async def test_nobody_there(protocol: Protocol) -> None:
    async with raw_server(silence) as url:
        pass
    async with speaker(url, protocol) as spoken:
        with pytest.raises(AttemptError, match="cannot connect to orchestrator `main`") as caught:
            await spoken.ask(prompt(), Pieces())
    assert (caught.value.reason, caught.value.retryable) == ("CONNECTION_FAILED", True)


@PROTOCOLS
async def test_a_server_that_hangs_is_given_up_in_time(protocol: Protocol) -> None:
    error = await raw_failure(silence, protocol, timeout_seconds=0.1)
    assert (error.reason, error.retryable) == ("TIMED_OUT", True)
    assert "0.1 s" in error.message


@EVERY_FORM
async def test_a_server_that_falls_silent_within_its_answer_is_given_up(form: Form) -> None:
    async def speak(stream: SocketStream) -> None:
        await stream.send(form.answer()[:-40])
        await anyio.sleep_forever()

    error = await raw_failure(speak, form.protocol, idle_timeout_seconds=0.1)
    assert error.reason == "TIMED_OUT"
    assert "idle_timeout_seconds" in error.message


@EVERY_FORM
async def test_a_server_that_trickles_is_given_up_in_time(form: Form) -> None:
    slow = trickle(form.head(), b" ", 0.01)
    error = await raw_failure(slow, form.protocol, timeout_seconds=0.15, idle_timeout_seconds=0.1)
    assert error.reason == "TIMED_OUT"


@STREAMED
async def test_signs_of_life_are_no_answer_in_the_end(form: Form) -> None:
    slow = trickle(form.head(), b": still here\n\n", 0.01)
    error = await raw_failure(slow, form.protocol, timeout_seconds=0.15, idle_timeout_seconds=0.1)
    assert error.reason == "TIMED_OUT"


@EVERY_FORM
@pytest.mark.parametrize("step", [b"x" * 10_000, b"\n" * 10_000, b"data:\n" * 2_000], ids=["x", "lines", "data"])
async def test_an_answer_without_end_is_cut_at_the_limit(form: Form, step: bytes) -> None:
    with bounded_memory(SLACK):
        error = await raw_failure(without_end(form.head(), step), form.protocol, max_answer_bytes=300_000)
    assert (error.reason, error.retryable) == ("ANSWER_TOO_LARGE", False)
    assert "orchestrator.endpoints[main].max_answer_bytes" in error.message


@STREAMED
async def test_tiny_events_without_end_are_cut_at_the_limit_and_told_until_then(form: Form) -> None:
    event = form.event_with(b'"a"')
    pieces = Pieces()
    error = await raw_failure(without_end(form.head(), event * 100), form.protocol, pieces, max_answer_bytes=300_000)
    assert error.reason == "ANSWER_TOO_LARGE"
    assert 100 <= len(pieces.texts) <= 300_000 // len(event)
    assert set(pieces.texts) == {"a"}


@STREAMED
async def test_thousands_of_tiny_events_are_one_answer(form: Form) -> None:
    event = form.event_with(b'"a"')
    whole = form.answer(b'"a"').replace(event, event * 5_000)
    async with raw_server(says(whole)) as url, speaker(url, form.protocol) as spoken:
        answer = await spoken.ask(prompt(), Pieces())
    assert answer.text == "a" * 5_000


@cache
def _packed(bits: int, members: int) -> bytes:
    """30 MB of spaces: what they would be the beginning of is not seen any more."""
    packed = b""
    for _ in range(members):
        packer = zlib.compressobj(wbits=bits)
        packed += b"".join(packer.compress(b" " * 1_000_000) for _ in range(30 // members))
        packed += packer.flush()
    return packed


@EVERY_FORM
@pytest.mark.parametrize(
    ("encoding", "bits", "members"),
    [(b"gzip", 31, 1), (b"gzip", 31, 3), (b"deflate", 15, 1), (b"deflate", -15, 1)],
    ids=["gzip", "members", "zlib", "deflate"],
)
async def test_a_bomb_is_cut_at_the_limit_and_never_unpacked_beyond_it(
    form: Form, encoding: bytes, bits: int, members: int
) -> None:
    bomb = _packed(bits, members)
    assert len(bomb) < 50_000
    head = form.head(b"Content-Encoding: " + encoding, b"Content-Length: %d" % len(bomb))
    with bounded_memory(SLACK):
        error = await raw_failure(says(head + bomb), form.protocol, max_answer_bytes=1_000_000)
    assert (error.reason, error.retryable) == ("ANSWER_TOO_LARGE", False)


@EVERY_FORM
async def test_an_answer_that_is_packed_is_unpacked(form: Form) -> None:
    packed = zlib.compress(form.body("ğ🦆".encode().join([b'"'] * 2)), wbits=31)
    head = form.head(b"Content-Encoding: gzip", b"Content-Length: %d" % len(packed))
    async with raw_server(says(head, packed[:9], packed[9:])) as url, speaker(url, form.protocol) as spoken:
        assert (await spoken.ask(prompt(), Pieces())).text == "ğ🦆"


@EVERY_FORM
@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip", b"x"])
async def test_what_only_says_that_it_is_packed_is_told(form: Form, encoding: bytes) -> None:
    error = await raw_failure(says(form.head(b"Content-Encoding: " + encoding) + b"\x1f\x8b\xff\xff"), form.protocol)
    assert error.reason in {"INVALID_ANSWER", "CONNECTION_FAILED"}
    assert error.retryable


# ---------------------------------------------------------------------------------------------------------- HTTP


@EVERY_FORM
@pytest.mark.parametrize(
    "truncated",
    [
        (b"Content-Length: 100000", b"%b"),
        (b"Transfer-Encoding: chunked", b"FFFF\r\n%b"),
        (b"Transfer-Encoding: chunked", b"5\r\n%b"),
        (b"Transfer-Encoding: chunked", b"-5\r\n%b"),
        (b"Transfer-Encoding: chunked", b"zz\r\n%b"),
    ],
)
async def test_a_truncated_body_is_told(form: Form, truncated: tuple[bytes, bytes]) -> None:
    field, body = truncated
    cut = form.head(field) + body % form.body()[: len(form.body()) // 2]
    error = await raw_failure(says(cut), form.protocol)
    assert error.reason in {"CONNECTION_FAILED", "INVALID_ANSWER"}
    assert error.retryable


@PROTOCOLS
@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00\xff\x80garbage\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 99999 No\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n no name\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: x\r\n" % number for number in range(10_000)) + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ],
)
async def test_what_is_not_http_is_told(protocol: Protocol, garbage: bytes) -> None:
    with bounded_memory(SLACK):
        error = await raw_failure(says(garbage), protocol)
    assert error.reason in {"INVALID_ANSWER", "CONNECTION_FAILED", "HTTP_STATUS"}
    assert error.retryable is not (error.reason == "HTTP_STATUS")


@PROTOCOLS
@pytest.mark.parametrize(
    ("head", "step"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 1_000),
        (b"HTTP/1.1 200 ", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 10_000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: x\r\n" * 1_000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100),
    ],
    ids=["field", "fields", "reason", "size", "extension", "trailers", "continue", "hints"],
)
async def test_heads_without_end_are_not_read_for_ever(protocol: Protocol, head: bytes, step: bytes) -> None:
    with bounded_memory(SLACK):
        error = await raw_failure(without_end(head, step), protocol, timeout_seconds=0.2)
    assert error.reason in {"INVALID_ANSWER", "CONNECTION_FAILED", "TIMED_OUT"}
    assert error.retryable


@EVERY_FORM
async def test_what_comes_before_the_answer_is_read_over(form: Form) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with raw_server(says(early + form.answer())) as url, speaker(url, form.protocol) as spoken:
        assert (await spoken.ask(prompt(), Pieces())).text == "hi"


@EVERY_FORM
@pytest.mark.parametrize("status", [201, 204, 205, 206])
async def test_success_that_holds_nothing_is_no_answer(form: Form, status: int) -> None:
    empty = f"HTTP/1.1 {status} Well\r\nContent-Length: 0\r\n\r\n".encode()
    assert (await raw_failure(says(empty), form.protocol)).reason == "INVALID_ANSWER"


@EVERY_FORM
async def test_a_body_where_none_may_be_is_no_answer_to_this_call_nor_to_the_next(form: Form) -> None:
    async def speak(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 204 No Content\r\n\r\n" + form.body())

    async with raw_server(speak) as url, speaker(url, form.protocol) as spoken:
        for _ in range(2):
            with anyio.fail_after(5), pytest.raises(AttemptError) as caught:
                await spoken.ask(prompt(), Pieces())
            assert caught.value.reason in {"INVALID_ANSWER", "CONNECTION_FAILED"}
            assert caught.value.retryable


@PROTOCOLS
@pytest.mark.parametrize(
    ("status", "place"),
    [
        (301, b"/x"),
        (302, b"http://127.0.0.1:1/"),
        (303, b"file:///etc/passwd"),
        (304, b"/x"),
        (307, b"/x"),
        (308, b""),
        (300, b"\xff"),
    ],
)
async def test_a_redirect_is_not_followed(protocol: Protocol, status: int, place: bytes) -> None:
    moved = b"HTTP/1.1 %d Go\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, place)
    error = await raw_failure(says(moved), protocol)
    assert (error.reason, error.retryable) == ("HTTP_STATUS", False)


# -------------------------------------------------------------------------------------------------- what is said


@EVERY_FORM
@pytest.mark.parametrize(
    "tokens", [b"-1", b"1e300", b"1e999", b"NaN", b"Infinity", b"99999999999999999999", b"1.5", b'"5"', b"true", b"[]"]
)
async def test_tokens_that_cannot_be_are_told(form: Form, tokens: bytes) -> None:
    error = await raw_failure(says(form.answer(tokens=tokens)), form.protocol)
    assert (error.reason, error.retryable) == ("INVALID_ANSWER", True)


@EVERY_FORM
@pytest.mark.parametrize(
    "text",
    [
        b"5",
        b"{}",
        b'["a"]',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\x00"',
        b'"\\x"',
        b"[" * 100_000 + b"]" * 100_000,
    ],
    ids=["number", "object", "list", "bytes", "utf-8 surrogate", "half", "halves", "NUL", "escape", "deep"],
)
async def test_a_text_that_is_none_is_told(form: Form, text: bytes) -> None:
    error = await raw_failure(says(form.answer(text)), form.protocol)
    assert (error.reason, error.retryable) == ("INVALID_ANSWER", True)


@EVERY_FORM
@pytest.mark.parametrize("model", [b"5", b"[]", b'"' + b"x" * 257 + b'"'], ids=["number", "list", "long"])
async def test_a_models_name_that_is_none_is_told(form: Form, model: bytes) -> None:
    assert (await raw_failure(says(form.answer(model=model)), form.protocol)).reason == "INVALID_ANSWER"


@EVERY_FORM
@pytest.mark.parametrize("body", [b"null", b"[]", b"", b"{}", b"5", b'"', b"{" * 50_000, b"<html></html>"])
async def test_what_is_of_another_shape_is_told(form: Form, body: bytes) -> None:
    sent = b"data: " + body + b"\n\n" if form.streamed else body
    error = await raw_failure(says(form.head() + sent), form.protocol)
    assert (error.reason, error.retryable) == ("INVALID_ANSWER", True)


@pytest.mark.parametrize("form", FORMS[1:], ids=lambda form: form.name)
async def test_a_form_under_the_name_of_another_is_told(form: Form) -> None:
    """But by altlas, which never streams and looks at no name."""
    named = b"application/json" if form.streamed else b"text/event-stream"
    other = msgspec.structs.replace(form, content_type=named)
    assert (await raw_failure(says(other.answer()), form.protocol)).reason == "INVALID_ANSWER"


@EVERY_FORM
async def test_of_a_key_that_comes_twice_the_last_counts(form: Form) -> None:
    doubled = form.answer(tokens=b'1, "total_tokens": 2, "output_tokens": 2, "tokens_used": 2')
    async with raw_server(says(doubled)) as url, speaker(url, form.protocol) as spoken:
        answer = await spoken.ask(prompt(), Pieces())
    assert answer.usage == Usage(1, 0, 2 if form.protocol is Protocol.ANTHROPIC else 0, 2)


@STREAMED
async def test_a_stream_that_ends_before_it_is_finished_is_no_answer(form: Form) -> None:
    """Cut behind each of its events but those that finish it."""
    whole = form.answer(b'"hal"')
    finish = whole.index(b'"stop"' if form.protocol is Protocol.OPENAI else b'"end_turn"')
    ends = [place for place in range(len(form.head()), finish) if whole[:place].endswith(b"\n\n")]
    for end in ends:
        error = await raw_failure(says(whole[:end]), form.protocol)
        assert (error.reason, error.retryable) == ("INVALID_ANSWER", True)


# ---------------------------------------------------------------------------------------------- cut anywhere


class _CutAnswer(IncomingAnswer):
    """An answer that arrives in given pieces: a network's own cuts cannot be chosen."""

    def __init__(self, form: Form, pieces: list[bytes]) -> None:
        self.status = 200
        self.headers = CIMultiDictProxy(CIMultiDict({"Content-Type": form.content_type.decode()}))
        self._pieces = pieces

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for piece in self._pieces:
            yield piece

    async def whole(self) -> bytes:
        return b"".join(self._pieces)

    async def finish(self) -> None: ...


class _CutConnection(Connection):
    def __init__(self, session: aiohttp.ClientSession, form: Form, pieces: list[bytes]) -> None:
        super().__init__(session, EndpointSettings(name="main", url="http://127.0.0.1:1"))
        self._form = form
        self._pieces = pieces

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any], prompt: Prompt) -> AsyncIterator[IncomingAnswer]:
        yield _CutAnswer(self._form, self._pieces)


@settings(deadline=None, max_examples=50)
@given(
    form=st.sampled_from(FORMS),
    text=st.text(),
    places=st.one_of(st.just(range(2_000)), st.lists(st.integers(0, 600), max_size=12)),
)
async def test_however_an_answer_is_cut_it_is_the_same(form: Form, text: str, places: Sequence[int]) -> None:
    """Within letters, line ends, names and all; also into single bytes."""
    text = text.encode("utf-8", "replace").decode()
    whole = form.body(msgspec.json.encode(text))
    cuts = [0, *sorted(place for place in places if place < len(whole)), len(whole)]
    pieces = [whole[start:stop] for start, stop in itertools.pairwise(cuts)]
    heard = Pieces()
    async with aiohttp.ClientSession() as session:
        answer = await SPEAKERS[form.protocol](_CutConnection(session, form, pieces)).ask(prompt(), heard)
    assert (answer.text, answer.model, answer.usage.total_tokens) == (text, "big", 2)
    assert heard.texts == ([text] if text and form.protocol is not Protocol.ALTLAS else [])


# ------------------------------------------------------------------------------------------------------ what is held


async def test_sessions_are_closed_when_the_caller_is_cancelled() -> None:
    """Unclosed sessions would warn, and warnings are errors."""
    async with raw_server(silence) as url:
        with anyio.move_on_after(0.05) as scope:
            async with speaker(url, Protocol.ALTLAS) as spoken:
                await spoken.ask(prompt(), Pieces())
        assert scope.cancelled_caught
