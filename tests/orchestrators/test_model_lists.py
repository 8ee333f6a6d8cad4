from __future__ import annotations

import msgspec
import pytest

from runner.core.errors import AttemptError
from runner.core.secret import Secret
from runner.orchestrators.settings import Protocol
from runner.orchestrators.simulated import serve_simulated
from runner.orchestrators.simulation import Behaviour
from tests.orchestrators.calling import listener, speaker
from tests.orchestrators.hostile import JSON_HEAD, raw_server, says

ALL = pytest.mark.parametrize("protocol", list(Protocol))


@ALL
async def test_every_protocol_lists_the_models_of_its_endpoint(protocol: Protocol) -> None:
    async with serve_simulated() as simulator, speaker(simulator.url, protocol, api_key=Secret("word")) as spoken:
        simulator.behave(Behaviour(models=("fast", "ğüçlü"), api_key="word"))
        assert await spoken.models() == ("fast", "ğüçlü")


async def test_altlas_takes_names_and_objects() -> None:
    listed = {"models": ["a", {"id": "b", "name": "B"}, {"name": "c"}, {"size": 3}, "a"]}
    async with listener(listed) as heard, speaker(heard.url + "/base", Protocol.ALTLAS) as spoken:
        assert await spoken.models() == ("a", "b", "c")
    assert heard.received[0][0] == "/base/api/v1/models"


async def test_anthropic_reads_page_after_page() -> None:
    first = {"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "last_id": "b"}
    async with (
        listener(first, {"data": [{"id": "c"}], "has_more": False, "last_id": "c"}) as heard,
        speaker(heard.url + "/v1", Protocol.ANTHROPIC) as spoken,
    ):
        assert await spoken.models() == ("a", "b", "c")
    assert [path for path, _, _ in heard.received] == ["/v1/models?limit=1000", "/v1/models?limit=1000&after_id=b"]


async def test_pages_that_never_end_are_not_read_for_ever() -> None:
    async with (
        listener({"data": [{"id": "a"}], "has_more": True, "last_id": "a"}) as heard,
        speaker(heard.url, Protocol.ANTHROPIC) as spoken,
    ):
        with pytest.raises(AttemptError, match="more than 10000 models"):
            await spoken.models()
    assert len(heard.received) == 10


@ALL
async def test_names_that_nobody_can_ask_for_are_left_out(protocol: Protocol) -> None:
    names = ["", "a", "x" * 257, "b\x1b[2J", "y" * 256]
    listed = {"models": names, "data": [{"id": name} for name in names] + [{"id": None}]}
    async with listener(listed) as heard, speaker(heard.url, protocol) as spoken:
        assert await spoken.models() == ("a", "y" * 256)


@ALL
async def test_more_models_than_there_may_be_are_refused(protocol: Protocol) -> None:
    names = [f"model-{number}" for number in range(10_001)]
    async with (
        listener({"models": names, "data": [{"id": name} for name in names]}) as heard,
        speaker(heard.url, protocol) as spoken,
    ):
        with pytest.raises(AttemptError, match="more than 10000 models; name those that are used in `models`"):
            await spoken.models()


@ALL
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"models": 5, "data": 5}',
        b'{"models": [5], "data": [5]}',
        b'{"models": null, "data": null}',
        b'{"models": ["\\ud800"], "data": [{"id": "\\ud800"}]}',
        b'{"models": ["\xff"], "data": [{"id": "\xff"}]}',
        b'{"models": ' + b"[" * 100_000 + b', "data": ' + b"[" * 100_000,
    ],
)
async def test_a_list_that_is_none_is_told(protocol: Protocol, body: bytes) -> None:
    async with raw_server(says(JSON_HEAD + body)) as url, speaker(url, protocol) as spoken:
        with pytest.raises(AttemptError) as caught:
            await spoken.models()
    assert (caught.value.reason, caught.value.endpoint) == ("INVALID_ANSWER", "main")


@ALL
async def test_a_list_is_bounded_in_bytes(protocol: Protocol) -> None:
    body = msgspec.json.encode({"models": ["x" * 5000], "data": [{"id": "x" * 5000}]})
    async with raw_server(says(JSON_HEAD + body)) as url, speaker(url, protocol, max_answer_bytes=5000) as spoken:
        with pytest.raises(AttemptError) as caught:
            await spoken.models()
    assert (caught.value.reason, caught.value.endpoint) == ("ANSWER_TOO_LARGE", "main")


@ALL
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_another_thing_than_bad_health(protocol: Protocol, status: int) -> None:
    refuses = says(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
    async with raw_server(refuses) as url, speaker(url, protocol, api_key=Secret("word")) as spoken:
        for asked in (spoken.health, spoken.models):
            with pytest.raises(AttemptError) as caught:
                await asked()
            assert (caught.value.reason, caught.value.retryable) == ("UNAUTHORIZED", False)
            assert "word" not in str(caught.value)


@ALL
async def test_one_that_is_sick_says_so(protocol: Protocol) -> None:
    async with serve_simulated() as simulator, speaker(simulator.url, protocol) as spoken:
        await spoken.health()
        simulator.behave(Behaviour(sick=True))
        with pytest.raises(AttemptError) as caught:
            await spoken.health()
    assert (caught.value.reason, caught.value.retryable) == ("HTTP_STATUS", True)
