"""What a call that was made twice costs, and where: each call at its own endpoint; none without tokens for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
import trio.testing

from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import Usage, UsageAt, WaitReason
from runner.core.prompt import Answer, Prompt
from tests.orchestrators.hostile import Pieces
from tests.orchestrators.stage import GONE, Behind, Stage, one


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@asynccontextmanager
async def race(**settings: Any) -> AsyncIterator[tuple[Stage, Behind, Behind]]:
    """Endpoints `a`, which gets the call and takes 100 s, and `b`, which gets it a second time and takes one."""
    async with Stage(*(one(name, group="pool", hedge=True, **settings) for name in "ab")).open() as stage:
        a, b = stage.behind["a"], stage.behind["b"]
        a.seconds = b.seconds = 1
        for _ in range(40):
            await stage.ask(of="a")
        a.seconds, a.tokens, b.tokens = 100, 7, 9
        yield stage, a, b


class Turn:
    patience = 0.0
    left = False

    def leave(self) -> None:
        self.left = True


async def test_the_call_that_lost_is_told_at_its_own_endpoint() -> None:
    async with race() as (stage, _, _):
        answer = await stage.ask()
        assert (answer.endpoint, answer.usage) == ("b", Usage(2, total_tokens=9, elsewhere=(UsageAt("a", "m", 1),)))


async def test_a_second_call_that_failed_or_never_came_through_is_told_as_what_it_was() -> None:
    async with race() as (stage, a, b):
        a.seconds, b.error = 10, GONE
        assert (await stage.ask()).usage == Usage(1, total_tokens=7)
        b.error = AttemptError("HTTP_STATUS", "500", retryable=True, usage=Usage(1, total_tokens=4))
        there = UsageAt("b", "m", 1, total_tokens=4)
        assert (await stage.ask()).usage == Usage(2, total_tokens=11, elsewhere=(there,))


async def test_who_is_cut_off_tells_all_calls_that_were_made() -> None:
    async with race() as (stage, a, b):
        b.seconds, a.tells = 100, [Usage(1, total_tokens=3)]
        told: list[Usage] = []
        asked = msgspec.structs.replace(bounded_prompt(Purse(1)), used=told.append)
        with anyio.move_on_after(20):
            await next(iter(stage.fleet.directory.values())).ask(asked, Pieces())
        assert told == [
            Usage(2, total_tokens=3, elsewhere=(UsageAt("a", "m", 1, total_tokens=3), UsageAt("b", "m", 1)))
        ]


async def test_where_both_fail_both_are_told() -> None:
    async with race() as (stage, a, b):
        for behind, seconds in ((a, 10), (b, 1)):
            behind.seconds = seconds
            behind.error = AttemptError("HTTP_STATUS", "500", retryable=True, usage=Usage(1, total_tokens=4))
        with pytest.raises(AttemptError) as caught:
            await stage.ask()
        assert caught.value.endpoint == "b"
        assert caught.value.usage == Usage(2, total_tokens=8, elsewhere=(UsageAt("a", "m", 1, total_tokens=4),))


@pytest.mark.parametrize(
    ("told", "consumed"),
    [
        ([], UsageAt("a", "m", 1)),
        ([Usage()], None),
        ([Usage(), Usage(1)], UsageAt("a", "m", 1)),
        ([Usage(), Usage(1), Usage(1, 5, 0, 5)], UsageAt("a", "m", 1, 5, 0, 5)),
    ],
    ids=["it cannot tell", "it was not connected", "it was sent", "it told the tokens of the prompt"],
)
async def test_of_a_call_that_is_cut_off_what_it_had_told_counts(told: list[Usage], consumed: UsageAt | None) -> None:
    async with race() as (stage, a, _):
        a.tells = told
        usage = (await stage.ask()).usage
        assert usage.elsewhere == (() if consumed is None else (consumed,))
        assert usage.calls == 1 + (0 if consumed is None else 1)
        assert usage.total_tokens == 9 + (0 if consumed is None else consumed.total_tokens)


# ------------------------------------------------------------------------------------------------------------ budgets


class Purse:
    """Tokens for so many second calls; the next ones are refused."""

    def __init__(self, calls: int, refusal: AttemptError | None = None) -> None:
        self.calls, self.asked = calls, 0
        self.refusal = refusal or AttemptError("TOKEN_BUDGET_EXCEEDED", "no", retryable=False)
        #: Seconds that the answer takes.
        self.seconds = 0.0

    async def reserve(self) -> None:
        self.asked += 1
        await anyio.sleep(self.seconds)
        if self.asked > self.calls:
            raise self.refusal


def bounded_prompt(purse: Purse) -> Prompt:
    return Prompt(request_id="j/t", text="x", task_type="ai_prompt", model="m", timeout=1000.0, reserve=purse.reserve)


async def bounded(stage: Stage, purse: Purse) -> Answer:
    return await next(iter(stage.fleet.directory.values())).ask(bounded_prompt(purse), Pieces())


async def test_a_second_call_takes_its_own_tokens_out_of_the_budget() -> None:
    async with race() as (stage, _, _):
        purse = Purse(1)
        assert (await bounded(stage, purse)).endpoint == "b"
        assert purse.asked == 1


async def test_a_second_call_that_the_budget_cannot_take_is_not_made_and_the_first_goes_on() -> None:
    turn = Turn()
    waits = AttemptPutOff(WaitReason.RATE_LIMITED, "later", until=0)
    waits.turn = turn  # type: ignore[assignment]
    async with race() as (stage, _, b):
        for purse in (Purse(0), Purse(0, waits)):
            answer = await bounded(stage, purse)
            assert (answer.endpoint, answer.usage) == ("a", Usage(1, total_tokens=7))
            assert (purse.asked, b.calls) == (1, 0)
        assert turn.left, "nobody waits for what was not to be had at once"
        assert {view.hedges for view in stage.fleet.endpoints()} == {0}
        assert all(view.calls == 0 for view in stage.fleet.endpoints())


async def test_an_answer_does_not_wait_for_a_budget_that_takes_long_to_say_whether_a_second_call_may_be_made() -> None:
    async with race() as (stage, a, b):
        a.seconds = 5
        purse = Purse(1)
        purse.seconds = 1000
        began = anyio.current_time()
        assert (await bounded(stage, purse)).endpoint == "a"
        assert (anyio.current_time() - began, purse.asked, b.calls) == (5, 1, 0)
        assert all(view.calls == 0 for view in stage.fleet.endpoints())


async def test_a_call_that_failed_while_a_second_one_was_refused_fails_for_its_own_reason() -> None:
    async with race() as (stage, a, b):
        a.seconds = 5
        a.error = AttemptError("HTTP_STATUS", "500", retryable=True, usage=Usage(1))
        with pytest.raises(AttemptError, match="HTTP_STATUS") as caught:
            await bounded(stage, Purse(0))
        assert (caught.value.endpoint, caught.value.usage, b.calls) == ("a", Usage(1), 0)


async def test_a_call_that_is_made_once_is_asked_for_no_further_tokens() -> None:
    async with Stage(one("a", group="pool"), one("b", group="pool")).open() as stage:
        purse = Purse(0)
        await bounded(stage, purse)
        assert purse.asked == 0
