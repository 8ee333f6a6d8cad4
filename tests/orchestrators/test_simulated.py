from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest

from runner.orchestrators.simulated import Simulator, SimulatorSettings, run, serve_simulated
from runner.orchestrators.simulation import Behaviour, CallLog, RateLimit, SecondCalls, chance, tokens


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with serve_simulated(SimulatorSettings(seed=7)) as running:
        yield running


@pytest.fixture
async def session(simulator: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(simulator.url) as opened:
        yield opened


async def _generate(session: aiohttp.ClientSession, prompt: str = "hello", key: str = "k") -> tuple[int, Any]:
    async with session.post(
        "/api/v1/generate", json={"prompt": prompt, "request_id": key}, headers={"Idempotency-Key": key}
    ) as response:
        assert response.headers["X-Simulated"] == "true"
        return response.status, await response.json()


async def test_an_answer_depends_on_seed_and_prompt_alone_and_says_that_it_is_simulated(
    session: aiohttp.ClientSession,
) -> None:
    _, first = await _generate(session, "selam dünya")
    _, again = await _generate(session, "selam dünya")
    _, other = await _generate(session, "something else")
    assert first["text"] == again["text"] != other["text"]
    assert first["text"].startswith("[simulated] ")
    assert first["model_used"] == "simulated-default"
    assert first["tokens_used"] == 2 + 24
    assert tokens(8, "selam dünya", 24) != tokens(7, "selam dünya", 24) == tokens(7, "selam dünya", 24)
    assert "".join(tokens(7, "selam dünya", 24)) == first["text"]


async def test_models_and_health_answer_in_every_protocol(session: aiohttp.ClientSession) -> None:
    async with session.get("/health") as response:
        assert (await response.json())["status"] == "ok"
    async with session.get("/api/v1/models") as response:
        assert await response.json() == {"models": ["simulated-default"]}
    async with session.get("/v1/models") as response:
        [model] = (await response.json())["data"]
        assert (model["id"], model["display_name"]) == ("simulated-default", "simulated-default")


async def test_a_completion_that_is_not_streamed_carries_its_usage(session: aiohttp.ClientSession) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 5}
    async with session.post("/v1/chat/completions", json=body) as response:
        answer = await response.json()
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["model"] == "simulated-m"


async def test_control_changes_the_behaviour_of_calls_that_follow(session: aiohttp.ClientSession) -> None:
    async with session.patch("/control", json={"error_rate": 1, "retry_after_seconds": 3}) as response:
        assert (await response.json())["error_rate"] == 1
    async with session.post("/api/v1/generate", json={"prompt": "x"}) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "3"
    async with session.patch("/control", json={"error_rate": 0}) as response:
        assert (await response.json())["retry_after_seconds"] == 3
    assert (await _generate(session))[0] == 200
    async with session.put("/control", json={"latency_ms": 1}) as response:
        assert (await response.json())["retry_after_seconds"] is None
    async with session.get("/control") as response:
        assert (await response.json())["latency_ms"] == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('{"error_rate": 2}', "error_rate"),
        ('{"latency": 5}', "unknown field `latency`"),
        ("[]", "Expected `object`"),
        ("{", "the request is wrong"),
    ],
)
async def test_a_wrong_behaviour_is_refused_with_a_sentence_and_changes_nothing(
    simulator: Simulator, session: aiohttp.ClientSession, given: str, told: str
) -> None:
    async with session.patch("/control", data=given) as response:
        assert response.status == 400
        assert told in (await response.json())["error"]
    assert simulator.behaviour == Behaviour()


async def test_calls_are_counted_in_all_and_by_key(session: aiohttp.ClientSession) -> None:
    await _generate(session, key="a")
    await _generate(session, key="a")
    async with session.patch("/control", json={"error_rate": 1}):
        pass
    await _generate(session, key="b")
    async with session.get("/control/calls") as response:
        told = await response.json()
        by_second = told.pop("by_second")
        assert sum(second["calls"] for second in by_second) == 3
        assert sum(second["answered"] for second in by_second) == 2
        assert told == {
            "calls": 3,
            "answered": 2,
            "under_way": 0,
            "most_under_way": 1,
            "forgotten_keys": 0,
            "by_key": {"a": {"calls": 2, "answered": 2}, "b": {"calls": 1, "answered": 0}},
        }
    async with session.get("/control/calls", params={"key": "a"}) as response:
        assert await response.json() == {"calls": 2, "answered": 2}
    async with session.delete("/control/calls"):
        pass
    async with session.get("/control/calls") as response:
        assert (await response.json())["by_key"] == {}


def test_the_memory_of_keys_is_bounded() -> None:
    log = CallLog(max_keys=2)
    for key in ("a", "b", "c"):
        with log.call(key, 0.0):
            pass
    assert list(log.by_key) == ["b", "c"]
    assert log.forgotten_keys == 1


def test_calls_are_counted_by_the_second_and_seconds_without_calls_take_no_room() -> None:
    log = CallLog(max_keys=2)
    for now in (0.2, 0.9, 3.0):
        with log.call("", now) as counted:
            log.succeeded(counted, now + 0.5)
    assert list(log.by_second) == [SecondCalls(0, 2, 1), SecondCalls(1, 0, 1), SecondCalls(3, 1, 1)]
    for now in range(4, 5000):
        with log.call("", now):
            pass
    assert len(log.by_second) == 3600


async def test_calls_that_hang_are_answered_once_they_may_be(
    simulator: Simulator, session: aiohttp.ClientSession
) -> None:
    simulator.behave(Behaviour(hang=True))
    answers: list[int] = []

    async def ask() -> None:
        answers.append((await _generate(session))[0])

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        with anyio.fail_after(5):
            while not simulator.calls.calls:
                await anyio.lowlevel.checkpoint()
        assert not answers
        async with session.patch("/control", json={"hang": False}):
            pass
    assert answers == [200]


async def test_the_rate_limit_answers_429(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    simulator.behave(Behaviour(rate_limit_per_second=0.001))
    assert [(await _generate(session))[0] for _ in range(3)] == [200, 429, 429]


def test_the_rate_limit_lets_calls_pass_at_its_rate() -> None:
    limit = RateLimit()
    assert [limit.admits(10.0, 2) for _ in range(3)] == [True, True, False]
    assert limit.admits(10.5, 2)
    assert not limit.admits(10.5, 2)
    assert limit.admits(10.5, 0)


def test_which_calls_fail_depends_on_the_seed_and_their_number() -> None:
    drawn = [chance(3, number) for number in range(1000)]
    assert drawn == [chance(3, number) for number in range(1000)]
    assert 0.4 < sum(value < 0.5 for value in drawn) / 1000 < 0.6


async def test_run_tells_its_address_and_serves_until_cancelled() -> None:
    addresses: list[str] = []
    async with anyio.create_task_group() as group:

        async def ready(url: str) -> None:
            async with aiohttp.ClientSession(url) as session, session.get("/health") as response:
                addresses.append(f"{url} {response.status}")
            group.cancel_scope.cancel()

        group.start_soon(run, SimulatorSettings(), ready)
    assert addresses[0].startswith("http://127.0.0.1:")
    assert addresses[0].endswith(" 200")


CALLS: dict[str, dict[str, Any]] = {
    "/api/v1/generate": {"prompt": "a b c"},
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "a b c"}]},
    "/v1/messages": {"model": "m", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 100},
}
EVERY_PROTOCOL = pytest.mark.parametrize("path", CALLS)


async def _call(session: aiohttp.ClientSession, path: str, **headers: str) -> tuple[int, Any]:
    async with session.post(path, json=CALLS[path], headers=headers) as response:
        return response.status, await response.json()


async def test_a_message_that_is_not_streamed_carries_its_usage(session: aiohttp.ClientSession) -> None:
    body = {**CALLS["/v1/messages"], "max_tokens": 5}
    async with session.post("/v1/messages", json=body) as response:
        answer = await response.json()
    assert answer["content"] == [{"type": "text", "text": "".join(tokens(7, "a b c", 5))}]
    assert answer["usage"] == {"input_tokens": 3, "output_tokens": 5}
    assert (answer["stop_reason"], answer["model"]) == ("max_tokens", "simulated-m")


async def test_a_streamed_message_is_its_events_in_order(session: aiohttp.ClientSession) -> None:
    async with session.post("/v1/messages", json={**CALLS["/v1/messages"], "stream": True}) as response:
        lines = (await response.text()).splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    begin = ["message_start", "content_block_start", "ping"]
    assert names == begin + ["content_block_delta"] * 24 + ["content_block_stop", "message_delta", "message_stop"]


@EVERY_PROTOCOL
async def test_who_has_not_the_key_is_refused_everywhere_but_at_the_control(
    simulator: Simulator, session: aiohttp.ClientSession, path: str
) -> None:
    simulator.behave(Behaviour(api_key="word"))
    assert (await _call(session, path))[0] == 401
    assert (await _call(session, path, Authorization="Bearer word"))[0] == 200
    assert (await _call(session, path, **{"x-api-key": "word"}))[0] == 200
    for asked in ("/health", "/v1/models", "/api/v1/models"):
        async with session.get(asked) as response:
            assert response.status == 401
    async with session.get("/control") as response:
        assert response.status == 200


async def test_one_that_is_sick_fails_its_health_checks_and_answers_calls(
    simulator: Simulator, session: aiohttp.ClientSession
) -> None:
    simulator.behave(Behaviour(sick=True))
    for asked in ("/health", "/v1/models", "/api/v1/models"):
        async with session.get(asked) as response:
            assert response.status == 503
    assert (await _generate(session))[0] == 200


@EVERY_PROTOCOL
async def test_models_that_are_set_are_listed_and_others_are_unknown(
    simulator: Simulator, session: aiohttp.ClientSession, path: str
) -> None:
    simulator.behave(Behaviour(models=("m", "n")))
    async with session.get("/api/v1/models") as response:
        assert await response.json() == {"models": ["m", "n"]}
    async with session.get("/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["m", "n"]
    assert (await _call(session, path))[0] == 200
    simulator.behave(Behaviour(models=("n",)))
    assert (await _call(session, path))[0] == (200 if path == "/api/v1/generate" else 404)


@EVERY_PROTOCOL
async def test_calls_beyond_its_own_limit_are_refused(
    simulator: Simulator, session: aiohttp.ClientSession, path: str
) -> None:
    simulator.behave(Behaviour(hang=True, max_concurrent_calls=2, overload_status=429))
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append((await _call(session, path))[0])
        if len(statuses) == 3:
            simulator.behave(Behaviour())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)
    assert sorted(statuses) == [200, 200, 429, 429, 429]
    assert simulator.calls.under_way == 0
    assert 3 <= simulator.calls.most_under_way <= 5


async def test_one_that_is_down_refuses_and_cuts_and_comes_back_at_the_same_address(
    simulator: Simulator, session: aiohttp.ClientSession
) -> None:
    simulator.behave(Behaviour(hang=True))
    url = simulator.url

    async def cut() -> None:
        with pytest.raises(aiohttp.ClientConnectionError):
            await _generate(session)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(cut)
            while not simulator.calls.under_way:
                await anyio.lowlevel.checkpoint()
            await simulator.go_down()
        with pytest.raises(aiohttp.ClientConnectorError):
            await _generate(session)
        while simulator.calls.under_way:
            await anyio.lowlevel.checkpoint()
        await simulator.go_down()
        simulator.behave(Behaviour())
        await simulator.come_back()
        await simulator.come_back()
        assert (await _generate(session))[0] == 200
    assert simulator.url == url


async def test_latency_jitters_by_the_calls_number_and_slows_by_the_factor(
    simulator: Simulator, session: aiohttp.ClientSession
) -> None:
    simulator.behave(Behaviour(jitter_ms=1, latency_ms=1, slow_factor=3))
    taken = [(await _generate(session))[1]["processing_time_ms"] for _ in range(5)]
    expected = [3 * (1 + chance(7, number, "jitter")) for number in range(1, 6)]
    assert all(real >= least for real, least in zip(taken, expected, strict=True))


@pytest.mark.parametrize("length", [1, 24])
async def test_an_answer_that_is_asked_for_in_json_is_json(session: aiohttp.ClientSession, length: int) -> None:
    body = {**CALLS["/v1/chat/completions"], "response_format": {"type": "json_object"}, "max_tokens": length}
    async with session.post("/v1/chat/completions", json=body) as response:
        answer = await response.json()
    value = msgspec.json.decode(answer["choices"][0]["message"]["content"])
    assert value == {"simulated": True, "text": "".join(tokens(7, "a b c", length))}
