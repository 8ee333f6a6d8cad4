"""`http_request` and what other sides do to it: redirects, names that change, answers that are not what they say."""

from __future__ import annotations

import gzip
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from runner.core.errors import AttemptError
from runner.handlers.http import HttpRequest, http_session
from runner.handlers.settings import HttpRequestSettings
from runner.outgoing import LinkLocalAddress, PrivateAddress, Reach
from runner.ports import Outcome
from runner.testing import FakeAttempt
from tests.orchestrators.hostile import HEAD, raw_server, says, without_end

MIB = 1024 * 1024


class Turning(AbstractResolver):
    """Gives the next of its addresses each time it is asked for a name, and at last the last for ever."""

    def __init__(self, *addresses: str) -> None:
        self.left = list(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None: ...


async def request(parameters: dict[str, Any], *, resolver: AbstractResolver | None = None, **settings: Any) -> Outcome:
    configured = HttpRequestSettings(**{"allow_private": True} | settings)
    with anyio.fail_after(10):
        async with http_session(configured, resolver) as session:
            return await HttpRequest(session, configured).run(FakeAttempt(parameters, timeout=5))


async def failure(parameters: dict[str, Any], **settings: Any) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await request(parameters, **settings)
    return caught.value


@pytest.fixture
async def server() -> AsyncIterator[str]:
    """Tells what it is asked at /tell, sends on to the query's `to` with the query's status at /to."""

    async def tell(asked: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in asked.headers.items()}
        return web.json_response({"method": asked.method, "headers": headers, "body": await asked.text()})

    async def send_on(asked: web.Request) -> web.Response:
        return web.Response(status=int(asked.query["status"]), headers={"Location": asked.query["to"]})

    async def nothing(_: web.Request) -> web.Response:
        return web.Response(status=204)

    async def bomb(_: web.Request) -> web.Response:
        packed = gzip.compress(bytes(64 * MIB))
        return web.Response(body=packed, headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"})

    application = web.Application()
    application.router.add_route("*", "/tell", tell)
    application.router.add_route("*", "/to", send_on)
    application.router.add_get("/nothing", nothing)
    application.router.add_get("/bomb", bomb)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# ------------------------------------------------------------------------------------------------------- content


async def test_a_form_is_sent_as_web_pages_send_it(server: str) -> None:
    form = {"naïve": "ö ş&=", "many": [1, True], "none": None, "emoji": "🙂"}
    told = (await request({"url": f"{server}/tell", "method": "POST", "form": form})).output["body"]
    assert told["headers"]["content-type"] == "application/x-www-form-urlencoded"
    assert told["body"] == "na%C3%AFve=%C3%B6+%C5%9F%26%3D&many=1&many=true&emoji=%F0%9F%99%82"


async def test_any_bytes_can_be_sent(server: str) -> None:
    asked = {"url": f"{server}/tell", "method": "POST", "body_base64": "aGk=", "headers": {"content-type": "text/x"}}
    told = (await request(asked)).output["body"]
    assert (told["body"], told["headers"]["content-type"]) == ("hi", "text/x")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"json": None, "form": {}}, "`json` and `form` are given"),
        ({"body": "a", "data": "b", "json": 1}, "`json` and `body` and `data` are given"),
        ({"query": {}, "params": {}}, "`query` and `params` are given"),
        ({"body_base64": "?"}, "parameter `body_base64` is no base64"),
        ({"response": "xml"}, "parameter `response` is wrong"),
    ],
)
async def test_what_is_sent_is_said_once(given: dict[str, Any], told: str) -> None:
    error = await failure({"url": "http://127.0.0.1:9/", **given})
    assert error.reason == "INVALID_PARAMETERS"
    assert error.message.startswith(told)


async def test_a_null_is_nothing_to_send(server: str) -> None:
    asked = {"url": f"{server}/tell", "method": "POST", "json": [1], "data": None, "form": None, "params": None}
    assert (await request(asked)).output["body"]["body"] == "[1]"


# ------------------------------------------------------------------------------------------------------- answers


async def test_head_and_no_content_have_a_null_body_and_no_artifact(server: str) -> None:
    for asked in ({"url": f"{server}/tell", "method": "HEAD"}, {"url": f"{server}/nothing"}):
        for response in ("auto", "json", "text", "artifact"):
            outcome = await request({**asked, "response": response})
            assert (outcome.output["body"], outcome.files) == (None, ())
    assert outcome.output["status"] == 204


@pytest.mark.parametrize(
    ("shape", "content_type", "content", "body"),
    [
        ("json", b"text/plain", b'{"a": 1}', {"a": 1}),
        ("text", b"application/json", b'{"a": 1}', '{"a": 1}'),
        ("text", b"image/png", b"a\xffb\x00", "a\ufffdb\ufffd"),
        ("text", b"text/plain; charset=nonsense", "ö".encode(), "ö"),
        ("text", b"text/plain; charset=iso-8859-9", b"\xfe", "ş"),
    ],
)
async def test_an_answer_becomes_what_is_asked_for(shape: str, content_type: bytes, content: bytes, body: Any) -> None:
    async with raw_server(says(HEAD % content_type + content)) as url:
        outcome = await request({"url": url, "response": shape})
    assert (outcome.output["body"], outcome.files) == (body, ())


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [("application/json", "json"), ("text/csv", "text"), ("image/png", "image"), ("application/zip", "file")],
)
async def test_an_answer_can_be_left_as_an_artifact(media_type: str, kind: str) -> None:
    async with raw_server(says(HEAD % media_type.encode() + b'{"a": 1}')) as url:
        outcome = await request({"url": url, "response": "artifact"})
    [left] = outcome.files
    assert (left.name, left.content, left.mime_type, left.artifact_type) == ("body", b'{"a": 1}', media_type, kind)
    assert outcome.output["body"] is None


async def test_an_answer_that_is_not_the_json_it_must_be_is_told() -> None:
    async with raw_server(says(HEAD % b"application/json" + b"<html>")) as url:
        error = await failure({"url": url, "response": "json"})
    assert (error.reason, error.retryable) == ("INVALID_ANSWER", False)
    assert "did not answer in JSON" in error.message


async def test_a_small_answer_that_unpacks_to_a_huge_one_is_cut(server: str) -> None:
    error = await failure({"url": f"{server}/bomb"}, max_answer_bytes=MIB)
    assert error.reason == "ANSWER_TOO_LARGE"
    assert "http_request.max_answer_bytes" in error.message


@pytest.mark.parametrize("shape", ["auto", "json", "text", "artifact"])
async def test_an_answer_without_end_is_cut_in_every_shape(shape: str) -> None:
    async with raw_server(without_end(HEAD % b"text/plain", b"x" * 10_000)) as url:
        error = await failure({"url": url, "response": shape}, max_answer_bytes=100_000)
    assert error.reason == "ANSWER_TOO_LARGE"


# ----------------------------------------------------------------------------------------------------- redirects


def to(server: str, place: str, status: int = 302) -> str:
    return f"{server}/to?status={status}&to={place}"


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", ""),
        (302, "POST", "GET", ""),
        (303, "PUT", "GET", ""),
        (307, "POST", "POST", "x"),
        (308, "PUT", "PUT", "x"),
        (302, "PUT", "PUT", "x"),
    ],
)
async def test_a_redirect_changes_the_method_as_http_says(
    server: str, status: int, method: str, then: str, body: str
) -> None:
    told = (await request({"url": to(server, "/tell", status), "method": method, "body": "x"})).output["body"]
    assert (told["method"], told["body"]) == (then, body)


async def test_a_redirect_loop_ends() -> None:
    loop = says(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")
    async with raw_server(loop) as url:
        error = await failure({"url": url})
    assert error.reason == "TOO_MANY_REDIRECTS"


async def test_headers_that_may_hold_a_secret_do_not_follow_to_another_place(server: str) -> None:
    asked = {"headers": {"Authorization": "Bearer x", "X-Api-Key": "x", "Accept": "a/b"}, "url": ""}
    here = (await request({**asked, "url": to(server, "/tell")})).output["body"]["headers"]
    assert (here["authorization"], here["x-api-key"]) == ("Bearer x", "x")
    elsewhere = f"{server}/tell".replace("127.0.0.1", "localhost")
    there = (await request({**asked, "url": to(server, elsewhere)}, resolver=Turning("127.0.0.1"))).output["body"]
    assert not {"authorization", "x-api-key"} & there["headers"].keys()
    assert (there["headers"]["accept"], there["headers"]["idempotency-key"]) == ("a/b", "job-1/task-1")


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/", "http://[1", "javascript:1", "http://a:99999/"])
async def test_a_redirect_to_what_is_no_address_is_told(server: str, place: str) -> None:
    assert (await failure({"url": to(server, place)})).reason == "INVALID_REDIRECT"


# ----------------------------------------------------------------------------------------------------- addresses


async def test_an_address_that_is_allowed_is_reached_and_a_redirect_away_from_it_is_not(server: str) -> None:
    only: dict[str, Any] = {"allow_private": False, "allow_addresses": ("127.0.0.1",)}
    assert (await request({"url": f"{server}/tell"}, **only)).output["status"] == 200
    error = await failure({"url": to(server, f"{server}/tell".replace("127.0.0.1", "127.0.0.2"))}, **only)
    assert (error.reason, error.retryable) == ("PRIVATE_ADDRESS", False)
    assert "http://127.0.0.2" in error.message
    assert "http_request.allow_private" in error.message


async def test_a_name_that_means_another_address_the_second_time_is_judged_again(server: str) -> None:
    """The address that is judged is the one that is connected to, so there is nothing between to change."""
    port = server.rpartition(":")[2]
    only: dict[str, Any] = {"allow_private": False, "allow_addresses": ("127.0.0.1",)}
    configured = HttpRequestSettings(**only)
    asked = {"url": f"http://turning.example:{port}/tell", "headers": {"Connection": "close"}}
    async with http_session(configured, Turning("127.0.0.1", "127.0.0.3")) as session:
        handler = HttpRequest(session, configured)
        assert (await handler.run(FakeAttempt(asked, timeout=5))).output["status"] == 200
        session.connector.clear_dns_cache()  # type: ignore[union-attr]  # it is a TCPConnector
        with pytest.raises(AttemptError) as caught:
            await handler.run(FakeAttempt(asked, timeout=5))
    assert caught.value.reason == "PRIVATE_ADDRESS"


async def test_link_local_addresses_are_refused_though_private_ones_are_not() -> None:
    error = await failure({"url": "http://metadata.example/"}, resolver=Turning("169.254.169.254"))
    assert error.reason == "PRIVATE_ADDRESS"
    assert "link-local" in error.message
    assert "http_request.allow_addresses" in error.message


@pytest.mark.parametrize(
    ("address", "private", "refused"),
    [
        ("93.184.215.14", False, None),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", False, None),
        ("10.0.0.1", False, PrivateAddress),
        ("10.0.0.1", True, None),
        ("100.64.0.1", False, PrivateAddress),
        ("224.0.0.1", False, PrivateAddress),
        ("::1", False, PrivateAddress),
        ("fd00::1", False, PrivateAddress),
        ("::ffff:10.0.0.1", False, PrivateAddress),
        ("64:ff9b::10.0.0.1", False, PrivateAddress),
        ("64:ff9b::93.184.215.14", False, None),
        ("2002:0a00:0001::1", False, PrivateAddress),
        ("169.254.1.1", True, LinkLocalAddress),
        ("::ffff:169.254.169.254", True, LinkLocalAddress),
        ("fe80::1%2", True, LinkLocalAddress),
    ],
)
def test_an_address_is_judged_by_what_it_stands_for(address: str, private: bool, refused: type | None) -> None:
    reach = Reach(private)
    if refused is None:
        reach.check(ipaddress.ip_address(address))
        return
    with pytest.raises(PrivateAddress) as caught:
        reach.check(ipaddress.ip_address(address))
    assert type(caught.value) is refused
    Reach(private=False, networks=("0.0.0.0/0", "::/0")).check(ipaddress.ip_address(address))


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "example.org", ""])
def test_allowed_addresses_are_addresses(wrong: str) -> None:
    make: Callable[..., HttpRequestSettings] = HttpRequestSettings
    with pytest.raises(ValueError, match="allow_addresses"):
        make(allow_addresses=(wrong,))
