"""`http_request` over real sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import pytest
from aiohttp import web

from runner.core.errors import AttemptError
from runner.handlers.http import HttpRequest, http_session
from runner.handlers.settings import HttpRequestSettings
from runner.ports import Outcome
from runner.testing import FakeAttempt
from tests.orchestrators.hostile import JSON_HEAD, raw_server, says, silence, trickle, without_end


async def request(parameters: dict[str, Any], *, within: float = 5.0, **settings: Any) -> Outcome:
    configured = HttpRequestSettings(**{"allow_private": True} | settings)
    attempt = FakeAttempt(parameters, timeout=within, traceparent="00-1-2-01")
    async with http_session(configured) as session:
        return await HttpRequest(session, configured).run(attempt)


async def failure(parameters: dict[str, Any], **settings: Any) -> AttemptError:
    with anyio.fail_after(5), pytest.raises(AttemptError) as caught:
        await request(parameters, **settings)
    return caught.value


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """A server that tells what it was asked, fails as it is told at /status/N, and redirects at /redirect/N."""

    async def tell(asked: web.Request) -> web.Response:
        told = {
            "method": asked.method,
            "path_qs": asked.path_qs,
            "headers": {name.lower(): value for name, value in asked.headers.items()},
            "body": (await asked.read()).decode(),
        }
        return web.json_response(told, headers={"X-One": "1", "Set-Cookie": "session=abcdef"})

    async def fail(asked: web.Request) -> web.Response:
        headers = {"Retry-After": "7", "X-Echo": asked.headers.get("X-Api-Key", "")}
        text = f"no, {asked.headers.get('X-Api-Key')}"
        return web.Response(status=int(asked.match_info["status"]), text=text, headers=headers)

    async def redirect(asked: web.Request) -> web.Response:
        left = int(asked.match_info["left"])
        raise web.HTTPFound(f"/redirect/{left - 1}" if left > 1 else "/tell")

    async def redirect_away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "file:///etc/hostname"})

    async def redirect_body(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/tell"})

    application = web.Application(client_max_size=10_000_000)
    application.router.add_post("/again", redirect_body)
    application.router.add_route("*", "/tell", tell)
    application.router.add_route("*", "/status/{status}", fail)
    application.router.add_get("/redirect/{left}", redirect)
    application.router.add_get("/away", redirect_away)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_output_is_status_headers_and_body(echo: str) -> None:
    outcome = await request({"url": f"{echo}/tell"})
    assert outcome.output["status"] == 200
    assert outcome.output["headers"]["x-one"] == "1"
    assert outcome.output["body"]["method"] == "GET"
    assert msgspec.json.encode(outcome.output)
    assert outcome.files == ()


async def test_a_cookie_that_is_set_is_not_told(echo: str) -> None:
    assert "abcdef" not in repr(await request({"url": f"{echo}/tell"}))


async def test_method_headers_query_and_json_are_sent(echo: str) -> None:
    outcome = await request(
        {
            "url": f"{echo}/tell?a=1",
            "method": "put",
            "headers": {"X-Number": 5, "X-Flag": True},
            "query": {"b": "ö ş", "c": [1, 2], "d": None, "e": True},
            "json": {"k": ["ğ"]},
        }
    )
    told = outcome.output["body"]
    assert told["method"] == "PUT"
    assert told["path_qs"] == "/tell?a=1&b=%C3%B6+%C5%9F&c=1&c=2&e=true"
    assert (told["headers"]["x-number"], told["headers"]["x-flag"]) == ("5", "true")
    assert (told["body"], told["headers"]["content-type"]) == ('{"k":["ğ"]}', "application/json")


async def test_the_call_carries_key_trace_and_deadline(echo: str) -> None:
    told = (await request({"url": f"{echo}/tell", "timeout": 2})).output["body"]["headers"]
    assert told["idempotency-key"] == "job-1/task-1"
    assert told["traceparent"] == "00-1-2-01"
    assert told["user-agent"] == "alt-runner"
    assert int(told["x-deadline-ms"]) == 2000


async def test_a_task_may_set_its_own_idempotency_key(echo: str) -> None:
    told = (await request({"url": f"{echo}/tell", "headers": {"idempotency-key": "mine"}})).output["body"]["headers"]
    assert told["idempotency-key"] == "mine"


@pytest.mark.parametrize(
    ("given", "sent", "media_type"),
    [
        ({"body": "plain"}, "plain", "text/plain; charset=utf-8"),
        ({"body": {"a": 1}}, '{"a":1}', "application/json"),
        ({"data": {"a": 1}}, '{"a":1}', "application/json"),
        ({"json": None}, "null", "application/json"),
        ({"body": "<a/>", "headers": {"content-type": "text/xml"}}, "<a/>", "text/xml"),
    ],
)
async def test_bodies(echo: str, given: dict[str, Any], sent: str, media_type: str) -> None:
    told = (await request({"url": f"{echo}/tell", "method": "POST", **given})).output["body"]
    assert (told["body"], told["headers"]["content-type"]) == (sent, media_type)


@pytest.mark.parametrize(
    ("head", "content", "body"),
    [
        (b"application/json", b'{"a": 1}', {"a": 1}),
        (b"application/problem+json; charset=utf-8", b"[1]", [1]),
        (b"application/json", b"{broken", "{broken"),
        (b"application/json", b"1" * 30, int("1" * 30)),
        (b"application/json", b"1e400", "1e400"),
        (b"application/json", b"", None),
        (b"text/plain; charset=iso-8859-9", "ğ".encode("iso-8859-9"), "ğ"),
        (b"text/plain; charset=nonsense", b"abc", None),
        (b"text/plain", "düz".encode(), "düz"),
        (b"image/png", b"\x89PNG\xff", None),
        (b"application/octet-stream", b"a\x00b", None),
    ],
)
async def test_what_an_answer_becomes(head: bytes, content: bytes, body: object) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (head, len(content))
    async with raw_server(says(answer + content)) as url:
        outcome = await request({"url": url})
    assert outcome.output["body"] == body
    if body is None and content:
        [left] = outcome.files
        assert (left.content, left.mime_type) == (content, head.decode().partition(";")[0])


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (401, False), (404, False), (408, True), (429, True), (502, True)]
)
async def test_a_refusal_fails_the_attempt_and_says_whether_to_try_again(
    echo: str, status: int, retryable: bool
) -> None:
    error = await failure({"url": f"{echo}/status/{status}", "headers": {"X-Api-Key": "long-enough"}})
    assert (error.reason, error.retryable, error.retry_after) == ("HTTP_STATUS", retryable, 7.0)
    assert error.message == f"{echo} answered HTTP {status}: no, ***"


async def test_a_large_body_arrives_whole_and_survives_a_redirect(echo: str) -> None:
    large = "x" * 3_000_000
    told = (await request({"url": f"{echo}/again", "method": "POST", "body": large})).output["body"]
    assert told["body"] == large


async def test_a_connection_that_is_never_made_is_given_up_in_time() -> None:
    """A listener whose queue is full drops every further greeting."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        host, port = listener.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex((host, port))
            error = await failure({"url": f"http://{host}:{port}"}, connect_timeout_seconds=0.1)
    assert (error.reason, error.retryable) == ("TIMED_OUT", True)
    assert "http_request.connect_timeout_seconds" in error.message


async def test_messages_do_not_hold_the_path_or_the_query_which_may_be_secret() -> None:
    async with raw_server(silence) as url:
        pass
    error = await failure({"url": f"{url}/hidden-path?key=hidden-key"})
    assert (error.reason, error.retryable) == ("CONNECTION_FAILED", True)
    assert "hidden" not in str(error)


async def test_redirects_are_followed_up_to_the_limit(echo: str) -> None:
    assert (await request({"url": f"{echo}/redirect/2"}, max_redirects=2)).output["status"] == 200
    error = await failure({"url": f"{echo}/redirect/3"}, max_redirects=2)
    assert error.reason == "TOO_MANY_REDIRECTS"
    assert "http_request.max_redirects" in error.message
    assert (await request({"url": f"{echo}/redirect/2", "follow_redirects": False})).output["status"] == 302


async def test_a_redirect_away_from_http_is_refused(echo: str) -> None:
    error = await failure({"url": f"{echo}/away"})
    assert (error.reason, error.retryable) == ("INVALID_REDIRECT", False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])  # noqa: S104 - no listener
async def test_private_addresses_can_be_forbidden(host: str) -> None:
    error = await failure({"url": f"http://{host}:9/"}, allow_private=False)
    assert error.reason == "PRIVATE_ADDRESS"
    assert not error.retryable
    assert "http_request.allow_private" in error.message


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "parameter `url` is missing"),
        ({"url": 5}, "parameter `url` is wrong: expected `str`, got `int`"),
        ({"url": "file:///etc/hostname"}, "parameter `url` must begin with http"),
        ({"url": "http://"}, "parameter `url` must begin with http"),
        ({"url": "http://[1"}, "parameter `url` is no address"),
        ({"url": "http://a:99999"}, "parameter `url` is no address"),
        ({"url": "http://a", "method": "G T"}, "parameter `method` is wrong"),
        ({"url": "http://a", "method": "GET\n"}, "parameter `method` is wrong"),
        ({"url": "http://a", "timeout": 0}, "parameter `timeout` is wrong"),
        ({"url": "http://a", "headers": {"a": []}}, "parameter `headers"),
        ({"url": "http://a", "headers": {"a b": "c"}}, "parameter `headers` holds"),
        ({"url": "http://a", "headers": {"a": "b\r\nc: d"}}, "parameter `headers` holds"),
        ({"url": "http://a", "query": {"a": {}}}, "parameter `query"),
    ],
)
async def test_a_mistake_is_told_by_name(parameters: dict[str, Any], told: str) -> None:
    error = await failure(parameters)
    assert (error.reason, error.retryable) == ("INVALID_PARAMETERS", False)
    assert error.message.startswith(told)


async def test_a_server_that_hangs_is_given_up_in_time() -> None:
    async with raw_server(silence) as url:
        assert (await failure({"url": url, "timeout": 0.1})).reason == "TIMED_OUT"


async def test_a_server_that_trickles_or_never_ends_is_cut() -> None:
    async with raw_server(trickle(JSON_HEAD, b" ", 0.01)) as url:
        assert (await failure({"url": url, "timeout": 0.2})).reason == "TIMED_OUT"
    async with raw_server(without_end(JSON_HEAD, b"x" * 10_000)) as url:
        error = await failure({"url": url}, max_answer_bytes=100_000)
    assert error.reason == "ANSWER_TOO_LARGE"
    assert "http_request.max_answer_bytes" in error.message


async def test_an_answer_that_breaks_off_is_told() -> None:
    async with raw_server(says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")) as url:
        error = await failure({"url": url})
    assert (error.reason, error.retryable) == ("CONNECTION_FAILED", True)
