"""What choices consumed that did not serve: told at the endpoints that took it, whatever served in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio.testing

from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import Usage, UsageAt, WaitReason
from runner.core.prompt import Answer, Prompt
from runner.handlers.orchestrator import AskOrchestrator
from runner.ports import Outcome
from runner.testing import FakeAttempt
from tests.handlers.test_fallback import Scripted, is_open, refusing

#: A hedge of its own: one call at `a`, one at `a2`.
BOTH = Usage(2, total_tokens=8, elsewhere=(UsageAt("a2", "m", 1),))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def failed(endpoint: str = "a", model: str = "m", usage: Usage | None = None) -> AttemptError:
    usage = usage or Usage(1, total_tokens=5)
    return AttemptError("INVALID_ANSWER", "garbage", retryable=True, endpoint=endpoint, model=model, usage=usage)


def out_of_service(usage: Usage) -> AttemptPutOff:
    """A key was refused: the call was made, and the task waits for another key."""
    refusal = AttemptPutOff(WaitReason.OUT_OF_SERVICE, "no key", until=0, endpoint="a")
    refusal.usage = usage
    return refusal


async def ran(*endpoints: Scripted, **parameters: Any) -> Outcome:
    handler = AskOrchestrator({endpoint.name: endpoint for endpoint in endpoints})
    return await handler.run(FakeAttempt(parameters, retries_left=0, timeout=10.0))


async def test_the_call_that_failed_is_told_where_it_was_made_and_the_answer_where_it_came_from() -> None:
    outcome = await ran(refusing("a", failed()), Scripted("b"), fallback=[{"endpoint": "b"}])
    assert (outcome.endpoint, outcome.model) == ("b", "own")
    assert outcome.usage == Usage(2, total_tokens=8, elsewhere=(UsageAt("a", "m", 1, total_tokens=5),))


async def test_another_model_of_the_same_endpoint_is_another_place() -> None:
    a = Scripted("a", failed(), streams=False)
    outcome = await ran(a, fallback=[{"model": "l"}])
    assert (outcome.endpoint, outcome.model) == ("a", "l")
    assert outcome.usage == Usage(2, total_tokens=8, elsewhere=(UsageAt("a", "m", 1, total_tokens=5),))


async def test_what_was_told_at_several_endpoints_stays_there() -> None:
    outcome = await ran(refusing("a", failed(usage=BOTH)), Scripted("b"), fallback=[{"endpoint": "b"}])
    parts = (UsageAt("a", "m", 1, total_tokens=8), UsageAt("a2", "m", 1))
    assert outcome.usage == Usage(3, total_tokens=11, elsewhere=parts)


async def test_where_a_value_stands_in_the_call_that_failed_is_the_place_that_is_named() -> None:
    outcome = await ran(refusing("a", failed(usage=BOTH)), fallback=[{"value": 1}])
    assert (outcome.endpoint, outcome.model, outcome.usage) == ("a", "m", BOTH)


async def test_where_all_fail_the_first_is_named_and_the_others_are_elsewhere() -> None:
    with pytest.raises(AttemptError) as caught:
        await ran(refusing("a", failed()), refusing("b", failed("b")), fallback=[{"endpoint": "b"}])
    assert (caught.value.endpoint, caught.value.usage) == (
        "a",
        Usage(2, total_tokens=10, elsewhere=(UsageAt("b", "m", 1, total_tokens=5),)),
    )


async def test_a_call_that_ended_in_a_refusal_is_told_whatever_follows() -> None:
    called = Usage(1, elsewhere=(UsageAt("a", "m", 1),))
    outcome = await ran(refusing("a", out_of_service(called)), Scripted("b"), fallback=[{"endpoint": "b"}])
    assert outcome.usage == Usage(2, total_tokens=3, elsewhere=(UsageAt("a", "m", 1),))
    with pytest.raises(AttemptError) as caught:
        await ran(refusing("a", out_of_service(called)), on_open="fail")
    assert (caught.value.reason, caught.value.usage) == ("BREAKER_OPEN", called)
    with pytest.raises(AttemptPutOff) as waits:
        await ran(refusing("a", out_of_service(called)), refusing("b", failed("b")), fallback=[{"endpoint": "b"}])
    parts = (UsageAt("a", "m", 1), UsageAt("b", "m", 1, total_tokens=5))
    assert waits.value.usage == Usage(2, total_tokens=5, elsewhere=parts)


class Hanging(Scripted):
    """As a router does: when it is cut off, it tells what its calls had consumed."""

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        try:
            return await super().ask(prompt, on_text)
        except anyio.get_cancelled_exc_class():
            assert prompt.used is not None
            prompt.used(Usage(1, elsewhere=(UsageAt(self.name, "m", 1),)))
            raise


async def test_a_call_that_was_given_up_for_a_value_is_told() -> None:
    outcome = await ran(Hanging("a", 1000.0, streams=False), fallback=[{"value": 1}])
    assert (outcome.endpoint, outcome.model, outcome.usage) == ("a", "m", Usage(1))


async def test_an_attempt_that_is_cut_off_tells_the_call_under_way_and_those_that_failed() -> None:
    parameters = {"fallback": [{"endpoint": "b"}]}
    attempt = FakeAttempt(parameters, retries_left=0, timeout=1000.0)
    handler = AskOrchestrator({"a": refusing("a", failed()), "b": Hanging("b", 1000.0, streams=False)})
    with anyio.move_on_after(10):
        await handler.run(attempt)
    parts = (UsageAt("a", "m", 1, total_tokens=5), UsageAt("b", "m", 1))
    assert attempt.used == Usage(2, total_tokens=5, elsewhere=parts)


async def test_what_was_refused_before_a_call_costs_nothing() -> None:
    outcome = await ran(refusing("a", is_open()), Scripted("b"), fallback=[{"endpoint": "b"}])
    assert outcome.usage == Usage(1, total_tokens=3)
