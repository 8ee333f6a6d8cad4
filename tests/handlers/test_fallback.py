"""What stands in for an AI task's first choice, and when: over endpoints that do as each test tells them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest
import trio.testing

from runner.core.alt import decode
from runner.core.answers import AnswerCachePolicy, KeptAnswer
from runner.core.errors import AttemptError, AttemptPutOff, InvalidDescriptor, LedgerUnavailable
from runner.core.events import Failure, FallbackKind, FallbackUsed, Usage, UsageAt, WaitReason
from runner.core.plan import Instant
from runner.core.prompt import Answer, Prompt
from runner.handlers.checks import kinds_of
from runner.handlers.earlier import EarlierAnswers
from runner.handlers.orchestrator import AskOrchestrator
from runner.ledgers.memory import MemoryLedger
from runner.ports import Outcome
from runner.testing import FakeAttempt

T0: Instant = 1_767_225_600_000_000
MINUTE = 60_000_000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Time that jumps to the next wake-up as soon as nobody has anything to do."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Place:
    """A Turn that remembers whether it was left."""

    def __init__(self) -> None:
        self.patience = 0.0
        self.left = False

    def call(self, come: Callable[[], None]) -> None: ...

    def leave(self) -> None:
        self.left = True


class Scripted:
    """An Orchestrator that answers, or does what its script says: raises it, or hangs for so many seconds."""

    def __init__(self, name: str, *script: Exception | float, streams: bool = True) -> None:
        self.name = name
        self.script = list(script)
        self.streams = streams
        self.asked: list[Prompt] = []

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        self.asked.append(prompt)
        if self.streams:
            await on_text(f"{self.name}…")
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        await anyio.sleep(step or 0)
        usage = Usage(calls=1, total_tokens=3)
        return Answer(text=f"{self.name} says", model=prompt.model or "own", endpoint=self.name, usage=usage)

    async def health(self) -> None: ...


def is_open(name: str = "a", *, minutes: int = 1, turn: Place | None = None) -> AttemptPutOff:
    until = T0 + minutes * MINUTE
    return AttemptPutOff(WaitReason.BREAKER_OPEN, f"`{name}` is open", until=until, endpoint=name, turn=turn)


def broke(reason: str = "HTTP_STATUS", *, retryable: bool = True) -> AttemptError:
    usage = Usage(calls=1)
    return AttemptError(reason, f"it said {reason}", retryable=retryable, endpoint="a", usage=usage)


def refusing(name: str, refusal: Exception) -> Scripted:
    """A breaker refuses before anything is streamed."""
    return Scripted(name, refusal, streams=False)


async def ran(*endpoints: Scripted, retries_left: int = 0, seconds: float = 10.0, **parameters: Any) -> Outcome:
    handler = AskOrchestrator({endpoint.name: endpoint for endpoint in endpoints})
    return await handler.run(FakeAttempt(parameters, retries_left=retries_left, timeout=seconds))


def told(outcome: Outcome) -> tuple[Any, FallbackKind | None, int | None]:
    used = outcome.fallback
    text = outcome.output["text"] if isinstance(outcome.output, dict) else outcome.output
    return (text, None, None) if used is None else (text, used.kind, used.position)


# ------------------------------------------------------------------------------------------------- an open breaker


async def test_a_first_choice_that_answers_needs_nobody_to_stand_in() -> None:
    a, b = Scripted("a"), Scripted("b")
    outcome = await ran(a, b, fallback=[{"endpoint": "b"}])
    assert told(outcome) == ("a says", None, None)
    assert b.asked == []


async def test_behind_an_open_breaker_the_next_endpoint_answers_in_the_same_attempt() -> None:
    a, b = refusing("a", is_open()), Scripted("b")
    outcome = await ran(a, b, retries_left=3, model="big", temperature=0.5, fallback=[{"endpoint": "b"}])
    assert (outcome.endpoint, outcome.usage) == ("b", Usage(calls=1, total_tokens=3))
    why = Failure("BREAKER_OPEN", "`a` is open")
    assert outcome.fallback == FallbackUsed(kind=FallbackKind.ENDPOINT, position=1, instead_of="a", failure=why)
    (prompt,) = b.asked
    assert (prompt.model, prompt.parameters) == ("big", {"temperature": 0.5})
    assert prompt.request_id == "job-1/task-1:fallback-1"


async def test_a_call_is_for_the_endpoint_that_is_named_or_for_any() -> None:
    a, b = Scripted("a", is_open(), is_open(), streams=False), Scripted("b")
    await ran(a, b, fallback=[{"model": "small"}, {"endpoint": "b"}])
    assert [prompt.endpoint for prompt in (*a.asked, *b.asked)] == ["", "", "b"]
    a.script, a.asked = [is_open(), is_open()], []
    await ran(a, b, endpoint="a", fallback=[{"model": "small"}, {"endpoint": "b"}])
    assert [prompt.endpoint for prompt in a.asked] == ["a", "a"]


async def test_what_failed_before_is_a_repetition_only_where_it_failed() -> None:
    a, b = Scripted("a", broke(), broke(), streams=False), Scripted("b")
    handler = AskOrchestrator({"a": a, "b": b})
    await handler.run(FakeAttempt({"fallback": [{"model": "small"}, {"endpoint": "b"}]}, failures=2))
    assert [prompt.retry for prompt in (*a.asked, *b.asked)] == [True, True, False]


async def test_a_fallback_may_be_another_model_of_the_same_endpoint_or_the_own_one_of_another() -> None:
    a, b = Scripted("a", is_open(), is_open(), streams=False), Scripted("b")
    outcome = await ran(a, b, model="big", fallback=[{"model": "small"}, {"endpoint": "b", "model": ""}])
    assert told(outcome) == ("b says", FallbackKind.ENDPOINT, 2)
    assert [prompt.model for prompt in a.asked] == ["big", "small"]
    assert b.asked[0].model is None


async def test_a_value_stands_in_where_all_are_open_and_a_text_looks_like_an_answer() -> None:
    places = Place(), Place()
    a, b = refusing("a", is_open(turn=places[0])), refusing("b", is_open("b", turn=places[1]))
    outcome = await ran(a, b, fallback=[{"endpoint": "b"}, {"value": "nobody knows"}])
    assert outcome.output == {"text": "nobody knows"}
    assert told(outcome)[1:] == (FallbackKind.VALUE, 2)
    assert (outcome.endpoint, outcome.usage) == ("", None)
    assert [place.left for place in places] == [True, True]


@pytest.mark.parametrize("value", [None, 7, [], {"rating": None}])
async def test_a_value_that_is_no_text_is_the_output(value: Any) -> None:
    assert (await ran(refusing("a", is_open()), fallback=[{"value": value}])).output == value


async def test_where_nobody_can_be_asked_the_task_waits_for_the_one_that_opens_first() -> None:
    places = Place(), Place()
    a = refusing("a", is_open(minutes=5, turn=places[0]))
    b = refusing("b", is_open("b", minutes=2, turn=places[1]))
    with pytest.raises(AttemptPutOff) as caught:
        await ran(a, b, fallback=[{"endpoint": "b"}])
    assert (caught.value.endpoint, caught.value.until) == ("b", T0 + 2 * MINUTE)
    assert caught.value.turn is places[1]
    assert caught.value.message == "`b` is open; what could stand in is refused, too"
    assert [place.left for place in places] == [True, False]


async def test_a_fallback_without_room_is_passed_over() -> None:
    full = AttemptPutOff(WaitReason.RATE_LIMITED, "`b` is full", until=T0, endpoint="b")
    outcome = await ran(
        refusing("a", is_open()), refusing("b", full), Scripted("c"), fallback=[{"endpoint": "b"}, {"endpoint": "c"}]
    )
    assert told(outcome) == ("c says", FallbackKind.ENDPOINT, 2)


async def test_a_first_choice_without_room_is_waited_for() -> None:
    full = AttemptPutOff(WaitReason.RATE_LIMITED, "`a` is full", until=T0, endpoint="a")
    with pytest.raises(AttemptPutOff, match="`a` is full"):
        await ran(refusing("a", full), fallback=[{"value": 1}])


async def test_on_open_park_waits_although_there_is_a_fallback() -> None:
    place = Place()
    with pytest.raises(AttemptPutOff) as caught:
        await ran(refusing("a", is_open(turn=place)), on_open="park", fallback=[{"value": 1}])
    assert (caught.value.message, place.left) == ("`a` is open", False)


async def test_on_open_fail_fails_at_once_and_for_good() -> None:
    place = Place()
    with pytest.raises(AttemptError) as caught:
        await ran(refusing("a", is_open(turn=place)), on_open="fail", retries_left=3, fallback=[{"value": 1}])
    assert (caught.value.reason, caught.value.retryable, caught.value.endpoint) == ("BREAKER_OPEN", False, "a")
    assert place.left


# ------------------------------------------------------------------------------------------------------- failures


async def test_a_failure_is_retried_before_anything_stands_in() -> None:
    with pytest.raises(AttemptError, match="HTTP_STATUS") as caught:
        await ran(refusing("a", broke()), retries_left=1, fallback=[{"value": 1}])
    assert caught.value.retryable


async def test_in_the_last_attempt_the_fallbacks_have_their_turn_and_all_usage_is_told() -> None:
    b = refusing("b", broke("CONNECTION_FAILED"))
    outcome = await ran(refusing("a", broke()), b, Scripted("c"), fallback=[{"endpoint": "b"}, {"endpoint": "c"}])
    assert told(outcome) == ("c says", FallbackKind.ENDPOINT, 2)
    assert outcome.usage == Usage(calls=3, total_tokens=3, elsewhere=(UsageAt("a", "", 2),))
    assert outcome.fallback is not None
    assert outcome.fallback.failure == Failure("HTTP_STATUS", "it said HTTP_STATUS")


async def test_what_a_call_consumed_for_nothing_is_told_of_the_endpoint_that_took_it() -> None:
    outcome = await ran(refusing("a", broke()), fallback=[{"value": 1}])
    assert (outcome.endpoint, outcome.usage) == ("a", Usage(calls=1))


async def test_if_no_fallback_serves_the_first_failure_is_told_with_what_followed() -> None:
    b = refusing("b", broke("CONNECTION_FAILED"))
    with pytest.raises(AttemptError) as caught:
        await ran(refusing("a", broke()), b, fallback=[{"endpoint": "b"}])
    assert caught.value.reason == "HTTP_STATUS"
    assert caught.value.message == "it said HTTP_STATUS; its fallbacks failed, too: it said CONNECTION_FAILED"
    assert caught.value.usage == Usage(calls=2)


@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize("retries_left", [0, 3])
async def test_a_fallback_that_fails_is_passed_over(retries_left: int, retryable: bool) -> None:
    b = refusing("b", broke("NOT_THERE", retryable=retryable))
    fallback = [{"endpoint": "b"}, {"value": 1}]
    outcome = await ran(refusing("a", is_open()), b, retries_left=retries_left, fallback=fallback)
    assert told(outcome) == (1, FallbackKind.VALUE, 2)


@pytest.mark.parametrize("retries_left", [0, 3])
async def test_a_task_waits_for_a_first_choice_that_is_open_though_its_fallbacks_fail(retries_left: int) -> None:
    """A fallback must not make a task fail that would have waited without it."""
    place = Place()
    a, b = refusing("a", is_open(turn=place)), refusing("b", broke())
    with pytest.raises(AttemptPutOff) as caught:
        await ran(a, b, retries_left=retries_left, fallback=[{"endpoint": "b"}])
    assert (caught.value.endpoint, place.left) == ("a", False)
    assert caught.value.message == "`a` is open; its fallbacks failed, too: it said HTTP_STATUS"


async def test_a_task_waits_too_where_a_fallback_failed_in_the_middle_of_its_text() -> None:
    b = Scripted("b", broke())
    with pytest.raises(AttemptPutOff, match="`a` is open"):
        await ran(refusing("a", is_open()), b, fallback=[{"endpoint": "b"}, {"value": 1}])


@pytest.mark.parametrize("reason", ["UNAUTHORIZED", "UNKNOWN_MODEL", "ANSWER_TOO_LARGE"])
async def test_what_no_attempt_mends_is_the_endpoints_fault_whatever_attempt_it_is(reason: str) -> None:
    a = refusing("a", broke(reason, retryable=False))
    assert told(await ran(a, Scripted("b"), retries_left=3, fallback=[{"endpoint": "b"}]))[1] is FallbackKind.ENDPOINT


async def test_what_is_wrong_with_the_request_is_hidden_by_no_fallback() -> None:
    for reason in ("HTTP_STATUS", "INVALID_PARAMETERS", "TOKEN_BUDGET_EXCEEDED"):
        with pytest.raises(AttemptError, match=reason):
            await ran(refusing("a", broke(reason, retryable=False)), fallback=[{"value": 1}])


async def test_a_call_without_end_leaves_time_for_what_calls_nobody() -> None:
    a, b = Scripted("a", 1e9, streams=False), Scripted("b")
    outcome = await ran(a, b, seconds=100.0, fallback=[{"endpoint": "b"}, {"value": "late"}])
    assert told(outcome) == ("late", FallbackKind.VALUE, 2)
    assert outcome.fallback is not None
    assert (outcome.fallback.failure.reason, outcome.fallback.instead_of) == ("TIMED_OUT", "a")
    assert [prompt.timeout for prompt in a.asked] == [99.0]
    assert b.asked == [], "a second is no time for a call"
    assert anyio.current_time() >= 99.0


@pytest.mark.parametrize("retries_left", [0, 3])
async def test_a_fallback_without_end_does_not_cost_a_task_its_wait_for_the_first_choice(retries_left: int) -> None:
    a, b = refusing("a", is_open()), Scripted("b", 1e9, streams=False)
    with pytest.raises(AttemptPutOff) as caught:
        await ran(a, b, seconds=100.0, retries_left=retries_left, fallback=[{"endpoint": "b"}])
    assert caught.value.endpoint == "a"
    assert "there was no answer within the 99 s" in caught.value.message


# ------------------------------------------------------------------------------------------------------- streaming


async def test_nothing_takes_the_place_of_text_that_watchers_have_seen() -> None:
    with pytest.raises(AttemptError, match="HTTP_STATUS"):
        await ran(Scripted("a", broke()), Scripted("b"), fallback=[{"endpoint": "b"}])


async def test_unless_the_task_says_so_and_then_the_second_text_is_not_streamed() -> None:
    attempt = FakeAttempt({"fallback": [{"endpoint": "b"}], "fallback_after_stream": True, "max_tokens": 4})
    outcome = await AskOrchestrator({"a": Scripted("a", broke()), "b": Scripted("b")}).run(attempt)
    assert told(outcome) == ("b says", FallbackKind.ENDPOINT, 1)
    assert attempt.pieces == ["a…"]
    assert [report["completed"] for report in attempt.reports] == [1, 2]


async def test_what_stands_in_for_an_open_breaker_is_streamed() -> None:
    attempt = FakeAttempt({"fallback": [{"endpoint": "b"}]})
    await AskOrchestrator({"a": refusing("a", is_open()), "b": Scripted("b")}).run(attempt)
    assert attempt.pieces == ["b…"]


async def test_every_call_is_announced_to_the_budgets() -> None:
    attempt = FakeAttempt({"prompt": "p", "fallback": [{"endpoint": "b"}]})
    await AskOrchestrator({"a": refusing("a", is_open()), "b": Scripted("b")}).run(attempt)
    assert attempt.reserved == [("p", None), ("p", None)]


# -------------------------------------------------------------------------------------------------- cached answers


class Masking(FakeAttempt):
    """An Attempt that knows a secret."""

    def redacted(self, value: Any) -> Any:
        return json.loads(json.dumps(value).replace("hush-hush", "[secret KEY]"))


class Cache:
    """A handler over one endpoint, with what it keeps, and a clock."""

    def __init__(self, endpoint: Scripted, policy: AnswerCachePolicy | None = None) -> None:
        self.now = T0
        self.endpoint = endpoint
        self.ledger = MemoryLedger()
        earlier = EarlierAnswers(policy or AnswerCachePolicy(), self.ledger, lambda: self.now)
        self.handler = AskOrchestrator({endpoint.name: endpoint}, earlier)

    async def ask(self, failing: Exception | None = None, **parameters: Any) -> Outcome:
        if failing is not None:
            self.endpoint.script.append(failing)
        return await self.handler.run(Masking({"fallback": [{"cached": {}}], **parameters}))


async def test_an_earlier_answer_to_the_same_request_stands_in() -> None:
    cache = Cache(Scripted("a", streams=False))
    first = await cache.ask(prompt="p", temperature=0.1, top_p=1)
    cache.now += 5 * MINUTE
    again = await cache.ask(is_open(), prompt="p", top_p=1, temperature=0.1)
    assert (again.output, again.endpoint, again.model, again.usage) == (first.output, "a", "own", None)
    assert again.fallback is not None
    assert (again.fallback.kind, again.fallback.age_seconds) == (FallbackKind.CACHED, 300.0)


@pytest.mark.parametrize("other", [{"prompt": "q"}, {"temperature": 0.2}, {"model": "big"}, {"seed": 1}])
async def test_the_answer_to_another_request_does_not(other: dict[str, Any]) -> None:
    cache = Cache(Scripted("a", streams=False))
    request: dict[str, Any] = {"prompt": "p", "temperature": 0.1}
    await cache.ask(**request)
    with pytest.raises(AttemptPutOff):
        await cache.ask(is_open(), **(request | other))


async def test_an_answer_that_is_too_old_for_the_task_does_not_stand_in() -> None:
    cache = Cache(Scripted("a", streams=False))
    await cache.ask(prompt="p")
    cache.now += 2 * MINUTE
    with pytest.raises(AttemptPutOff):
        await cache.ask(is_open(), prompt="p", fallback=[{"cached": {"max_age_seconds": 119}}])
    assert (await cache.ask(is_open(), prompt="p", fallback=[{"cached": {"max_age_seconds": 120}}])).fallback


async def test_answers_are_kept_only_for_tasks_that_ask_for_it() -> None:
    cache = Cache(Scripted("a", streams=False))
    await cache.ask(prompt="p", fallback=[])
    with pytest.raises(AttemptPutOff):
        await cache.ask(is_open(), prompt="p")


async def test_what_stood_in_is_not_kept_as_an_answer() -> None:
    cache = Cache(Scripted("a", streams=False))
    await cache.ask(is_open(), prompt="p", fallback=[{"cached": {}}, {"value": "none"}])
    with pytest.raises(AttemptPutOff):
        await cache.ask(is_open(), prompt="p")


async def test_no_secret_is_kept_with_an_answer_or_in_its_key() -> None:
    class Echo(Scripted):
        async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
            answer = await super().ask(prompt, on_text)
            return msgspec.structs.replace(answer, text=f"you sent {prompt.text}")

    cache = Cache(Echo("a", streams=False))
    await cache.ask(prompt="the key hush-hush")
    again = await cache.ask(is_open(), prompt="the key [secret KEY]")
    assert again.output["text"] == "you sent the key [secret KEY]"


async def test_an_answer_of_more_than_a_tenth_of_the_room_is_not_kept() -> None:
    cache = Cache(Scripted("a", streams=False), AnswerCachePolicy(max_bytes=100))
    await cache.ask(prompt="p")
    with pytest.raises(AttemptPutOff):
        await cache.ask(is_open(), prompt="p")


async def test_a_ledger_that_is_away_takes_no_answer_and_spoils_none() -> None:
    class Away(MemoryLedger):
        async def answer(self, key: bytes, *, since: Instant) -> KeptAnswer | None:
            raise LedgerUnavailable("away")

        async def keep_answer(self, key: bytes, answer: KeptAnswer, *, policy: AnswerCachePolicy) -> None:
            raise LedgerUnavailable("away")

    endpoint = Scripted("a", streams=False)
    handler = AskOrchestrator({"a": endpoint}, EarlierAnswers(AnswerCachePolicy(), Away(), lambda: T0))
    fallback = [{"cached": {}}, {"value": 1}]
    assert told(await handler.run(FakeAttempt({"fallback": fallback}))) == ("a says", None, None)
    endpoint.script.append(is_open())
    assert told(await handler.run(FakeAttempt({"fallback": fallback})))[0] == 1


# --------------------------------------------------------------------------------------------------------- mistakes


def findings(**parameters: Any) -> list[tuple[str, str, str]]:
    """Reason, place and suggestion of all that is wrong with a task."""
    handler = AskOrchestrator({"a": Scripted("a"), "b": Scripted("b")})
    task = {"id": "t", "description": "d", "parameters": {"task_type": "ai_prompt", **parameters}}
    file = {"id": "a", "version": "1", "title": "t", "created_at": "2025-04-26T19:32:00Z", "tasks": [task]}
    try:
        decode(json.dumps(file).encode(), kinds=kinds_of({"ai_prompt": handler}))
    except InvalidDescriptor as refused:
        head = "tasks[0].parameters."
        return [(each.reason, each.path.removeprefix(head), each.suggestion) for each in refused.findings]
    return []


MISTAKES: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
    ({"on_open": "wait"}, [("UNKNOWN_WORD", "on_open", "")]),
    ({"on_open": "falback"}, [("UNKNOWN_WORD", "on_open", "fallback")]),
    ({"on_open": "fallback"}, [("MISSING_PARAMETER", "fallback", "")]),
    ({"fallback": {"endpoint": "b"}}, [("BAD_TYPE", "fallback", "")]),
    ({"fallback": ["b"]}, [("BAD_TYPE", "fallback[0]", "")]),
    ({"fallback": [{}]}, [("MISSING_PARAMETER", "fallback[0]", "")]),
    ({"fallback": [{"modle": "m"}]}, [("BAD_VALUE", "fallback[0].modle", "model")]),
    ({"fallback": [{"endpoint": "c"}]}, [("NOT_ALLOWED", "fallback[0].endpoint", "")]),
    ({"fallback": [{"endpoint": 5}]}, [("BAD_TYPE", "fallback[0].endpoint", "")]),
    ({"fallback": [{"endpoint": "b", "value": 1}]}, [("BAD_VALUE", "fallback[0]", "")]),
    ({"fallback": [{"cached": {"max_age": 5}}]}, [("BAD_VALUE", "fallback[0].cached.max_age", "max_age_seconds")]),
    ({"fallback": [{"cached": {"max_age_seconds": 0}}]}, [("OUT_OF_RANGE", "fallback[0].cached.max_age_seconds", "")]),
    ({"fallback": [{"cached": {"max_age_seconds": 1e9}}]}, [("NOT_ALLOWED", "fallback[0].cached.max_age_seconds", "")]),
    ({"fallback": [{"value": 1}, {"endpoint": "b"}]}, [("BAD_VALUE", "fallback[1]", "")]),
    ({"fallback_after_stream": "yes"}, [("BAD_TYPE", "fallback_after_stream", "")]),
    ({"fallback": "${inputs.fallback}", "on_open": "fallback"}, []),
    ({"fallback": [{"endpoint": "${inputs.x}"}, {"cached": "${inputs.x}"}, "${inputs.x}", {"value": None}]}, []),
]


@pytest.mark.parametrize(("parameters", "found"), MISTAKES, ids=lambda value: json.dumps(value)[:60])
def test_a_mistake_is_found_before_anything_runs(parameters: dict[str, Any], found: list[tuple[str, str, str]]) -> None:
    assert findings(**parameters) == found


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"fallback": [{"endpoint": "c"}]}, r"parameter `fallback\[0\]\.endpoint` is wrong: .*there is `a`"),
        ({"fallback": [{"value": 1}, {"cached": {}}]}, "is never tried"),
        ({"on_open": "fallback"}, "needs `fallback`"),
    ],
)
async def test_a_mistake_that_came_by_a_reference_is_found_when_it_runs(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(AttemptError, match=told) as caught:
        await ran(Scripted("a"), **parameters)
    assert (caught.value.reason, caught.value.retryable) == ("INVALID_PARAMETERS", False)


def test_places_are_found_in_segments_too() -> None:
    segment = {
        "id": "s",
        "task_type": "ai_prompt",
        "content": "c",
        "parameters": [{"name": "fallback", "type": "array", "value": [{"endpoint": "a"}, {"modle": "m"}]}],
    }
    file = {
        "id": "a",
        "version": "1.0",
        "timestamp": "2026-01-05T08:00:00Z",
        "command": "c",
        "language": "en",
        "mode": "Normal",
        "persona": "p",
        "segments": [segment],
    }
    handler = AskOrchestrator({"a": Scripted("a")})
    with pytest.raises(InvalidDescriptor) as refused:
        decode(json.dumps(file).encode(), kinds=kinds_of({"ai_prompt": handler}))
    assert [each.path for each in refused.value.findings] == ["segments[0].parameters[0].value[1].modle"]
