"""Several endpoints: which of them gets a call, whose turn it is, and what happens when some are sick."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio.testing

from runner.core.breaker import BreakerPolicy, BreakerState
from runner.core.errors import AttemptError, AttemptPutOff, Turn
from runner.core.events import Usage, UsageAt, WaitReason
from runner.core.fleet import Registration
from runner.core.prompt import Answer
from runner.core.secret import Secret
from runner.core.usage import by_place
from tests.orchestrators.hostile import Pieces
from tests.orchestrators.stage import BROKEN, GONE, START, Stage, one

SECOND = 1_000_000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def pool(*names: str, **settings: Any) -> Stage:
    """Endpoints of one group."""
    return Stage(*(one(name, group="pool", **settings) for name in names))


# ------------------------------------------------------------------------------------------------------- balance


async def test_calls_go_to_the_endpoint_with_fewer_calls_under_way() -> None:
    async with pool("a", "b").open() as stage:
        stage.behind["a"].seconds = stage.behind["b"].seconds = 10
        async with anyio.create_task_group() as group:
            for number in range(20):
                stage.chance = number % 3 / 3
                group.start_soon(stage.ask)
                await anyio.sleep(0.01)
        assert stage.calls == {"a": 10, "b": 10}


async def test_weights_share_the_calls_out() -> None:
    async with Stage(one("a", group="pool", weight=3), one("b", group="pool")).open() as stage:
        stage.behind["a"].seconds = stage.behind["b"].seconds = 100
        async with anyio.create_task_group() as group:
            for number in range(40):
                stage.chance = number * 0.37 % 1
                group.start_soon(stage.ask)
                await anyio.sleep(0.01)
        assert 27 <= stage.calls["a"] <= 33


async def test_an_endpoint_that_cannot_be_reached_costs_no_attempt_where_another_one_can() -> None:
    async with pool("a", "b").open() as stage:
        stage.behind["a"].error = GONE
        answers = [await stage.ask() for _ in range(4)]
        assert {answer.endpoint for answer in answers} == {"b"}
        assert stage.state(endpoint="a") is BreakerState.OPEN
        assert {answer.usage for answer in answers} == {Usage(calls=1)}, "no connection, no call"


async def test_a_call_that_broke_off_before_another_endpoint_answered_is_told_where_it_was_made() -> None:
    async with pool("a", "b").open() as stage:
        stage.behind["a"].error = broken_off(tokens=7)
        with pytest.raises(AttemptError) as caught:
            await stage.ask()
        assert caught.value.usage == Usage(1, total_tokens=7), "its tokens are spent: no other one is asked at once"
        stage.behind["a"].error, stage.behind["b"].tokens = broken_off(), 9
        answer = await stage.ask()
        assert (answer.endpoint, answer.usage) == ("b", Usage(2, total_tokens=9, elsewhere=(UsageAt("a", "m", 1),)))


async def test_where_all_break_off_each_is_told_its_own_call() -> None:
    async with pool("a", "b", "c").open() as stage:
        for behind in stage.behind.values():
            behind.error = broken_off()
        with pytest.raises(AttemptError) as caught:
            await stage.ask()
        usage, last = caught.value.usage, caught.value.endpoint
        assert usage is not None
        assert {place: part.calls for place, part in by_place(usage, last, "m").items()} == {
            (name, "m"): 1 for name in "abc"
        }


def broken_off(tokens: int = 0) -> AttemptError:
    usage = Usage(1, total_tokens=tokens)
    return AttemptError("CONNECTION_FAILED", "broke off", retryable=True, usage=usage)


async def test_a_failure_that_may_have_done_something_is_not_repeated_elsewhere_within_the_attempt() -> None:
    async with pool("a", "b").open() as stage:
        stage.behind["a"].error = stage.behind["b"].error = BROKEN
        with pytest.raises(AttemptError, match="503"):
            await stage.ask()
        assert sum(stage.calls.values()) == 1


async def test_a_stream_that_broke_off_is_not_begun_again_elsewhere() -> None:
    async with pool("a", "b").open() as stage:
        for behind in stage.behind.values():
            behind.first_text, behind.error = 0, GONE
        pieces = Pieces()
        with pytest.raises(AttemptError, match="gone"):
            await stage.ask(pieces=pieces)
        assert sum(stage.calls.values()) == 1
        assert len(pieces.texts) == 1


async def test_open_breakers_are_passed_by_and_the_soonest_tells_the_time_when_all_are_open() -> None:
    async with pool("a", "b").open() as stage:
        stage.fleet.force("a", ("m",), BreakerState.OPEN)
        assert [(await stage.ask()).endpoint for _ in range(5)] == ["b"] * 5
        await anyio.sleep(5)
        stage.fleet.force("b", ("m",), BreakerState.OPEN)
        error = await stage.put_off()
        assert (error.wait_reason, error.endpoint, error.until) == (WaitReason.BREAKER_OPEN, "a", START + 15 * SECOND)


async def test_a_task_may_name_one_endpoint_of_a_group() -> None:
    async with pool("a", "b").open() as stage:
        assert [(await stage.ask(of="b")).endpoint for _ in range(5)] == ["b"] * 5


async def test_a_drained_endpoint_gets_no_calls_and_those_under_way_finish() -> None:
    async with pool("a", "b").open() as stage:
        stage.behind["a"].seconds = 5
        async with anyio.create_task_group() as group:
            group.start_soon(partial(stage.ask, of="a"))
            await anyio.sleep(1)
            assert stage.fleet.drain("a", draining=True).draining
            assert {(await stage.ask()).endpoint for _ in range(5)} == {"b"}
            assert "drained" in (await stage.put_off(of="a")).message
        stage.fleet.drain("a", draining=False)
        await stage.ask(of="a")
        assert stage.calls["a"] == 2


# -------------------------------------------------------------------------------------------------------- models


async def test_a_model_is_asked_for_by_name_by_alias_and_by_label() -> None:
    small = one("small", group="pool", models=("mini",), labels={"mini": ("fast", "cheap")})
    large = one("large", group="pool", models=("maxi", "maxi-2026"), aliases={"best": "maxi-2026"})
    async with Stage(small, large).open() as stage:
        asked = {"mini": ("small", "mini"), "cheap": ("small", "mini"), "best": ("large", "maxi-2026")}
        for wanted, (endpoint, model) in asked.items():
            assert (await stage.ask(wanted)).endpoint == endpoint
            assert stage.behind[endpoint].asked[-1].model == model


@pytest.mark.parametrize("default", ["best", "slow"])
async def test_a_task_that_names_no_model_gets_the_one_that_the_default_stands_for(default: str) -> None:
    named = one(model=default, aliases={"best": "maxi"}, labels={"maxi": ("slow",)})
    async with Stage(named).open() as stage:
        for wanted in (None, default):
            await stage.ask(wanted)
            assert stage.main.asked[-1].model == "maxi"


async def test_each_endpoint_reads_a_word_by_its_own_settings() -> None:
    """An alias before a model's name, and that before a label; those of the group that is named before all others."""
    first = one("first", group="pool", aliases={"gpt": "gpt-one"})
    second = one("second", group="pool", aliases={"gpt": "gpt-two"})
    third = one("third", models=("gpt", "gpt-two"))
    async with Stage(first, second, third).open() as stage:
        stage.fleet.directory.learn(stage.fleet.directory.endpoint("first"), ("gpt", "gpt-one"))
        for endpoint, chance, model in (("first", 0.0, "gpt-one"), ("second", 0.9, "gpt-two"), ("third", 0.0, "gpt")):
            stage.chance = chance
            await stage.ask("gpt", of="third" if endpoint == "third" else "pool")
            assert stage.behind[endpoint].asked[-1].model == model
        assert (await stage.ask("gpt-two")).endpoint == "third", "no endpoint of the first group has it by that name"


async def test_a_server_that_registers_with_fewer_models_is_asked_for_those_alone() -> None:
    """The words of its group lead to models that it does not have."""
    words: dict[str, Any] = {"aliases": {"gpt": "maxi"}, "labels": {"maxi": ("good",), "mini": ("fast",)}}
    pool = one(group="pool", models=("mini", "maxi"), model="maxi", takes_registrations=True, **words)
    async with Stage(pool).open() as stage:
        small = Registration(name="small", group="pool", url="http://127.0.0.1:2", models=("mini",), weight=1000)
        await stage.fleet.register(small, seconds=None)
        stage.chance = 0.9
        for wanted in ("gpt", "good", "maxi", None):
            assert (await stage.ask(wanted)).endpoint == "main"
        assert (await stage.ask("fast")).endpoint == "small"


async def test_a_task_that_names_no_endpoint_goes_to_whichever_group_serves_its_model() -> None:
    async with Stage(one("first", models=("a",)), one("second", models=("b",))).open() as stage:
        assert (await stage.ask("b")).endpoint == "second"
        with pytest.raises(AttemptError, match="serves no model `b`; it serves `a`") as caught:
            await stage.ask("b", of="first")
        assert (caught.value.reason, caught.value.retryable) == ("UNKNOWN_MODEL", False)


async def test_a_model_that_nobody_knows_is_asked_for_where_nobody_said_which_there_are() -> None:
    async with Stage(one("a")).open() as stage:
        stage.fleet.directory.learn(stage.fleet.directory.endpoint("a"), ("listed",))
        await stage.ask("fine-tuned")
        assert stage.behind["a"].asked[-1].model == "fine-tuned"


# ------------------------------------------------------------------------------------------------------- the line


async def test_a_call_waits_in_line_for_a_little_and_is_called_when_there_is_room() -> None:
    async with Stage(one(max_connections=1, max_wait_seconds=10)).open() as stage:
        stage.main.seconds = 3
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(stage.ask)
        assert stage.main.times == [0.0, 3.0, 6.0]


async def test_who_waits_too_long_is_parked_with_a_place_in_line() -> None:
    async with Stage(one(max_connections=1, max_wait_seconds=2)).open() as stage:
        stage.main.seconds = 5
        async with anyio.create_task_group() as group:
            group.start_soon(stage.ask)
            await anyio.sleep(1)
            error = await stage.put_off()
            assert anyio.current_time() == 3
            assert error.wait_reason is WaitReason.RATE_LIMITED
            called = await turn_of(error)
        assert called == 5


async def test_jobs_take_turns_so_that_a_great_one_does_not_hold_up_a_small_one() -> None:
    async with Stage(one(max_connections=1, max_wait_seconds=1000)).open() as stage:
        stage.main.seconds = 1
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(partial(stage.ask, job="great"))
            await anyio.sleep(0.5)
            for _ in range(2):
                group.start_soon(partial(stage.ask, job="small"))
        jobs = [prompt.job_id for prompt in stage.main.asked]
        assert jobs[:6] == ["great", "great", "small", "great", "small", "great"]


async def test_who_comes_later_does_not_overtake_the_line() -> None:
    async with Stage(one(max_connections=1, max_wait_seconds=1000)).open() as stage:
        stage.main.seconds = 1
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(partial(stage.ask, job="job", tag=number))
                await anyio.sleep(0.3)
        assert [prompt.parameters["tag"] for prompt in stage.main.asked] == [0, 1, 2, 3, 4]


async def test_a_parked_herd_is_called_in_a_trickle_when_the_breaker_closes() -> None:
    """First probes, then what a warmed-up endpoint may take: not a hundred calls in the instant of its return."""
    async with Stage(one(max_connections=20, warm_up_seconds=10)).open(looked_after=True) as stage:
        await stage.fail()
        stage.main.seconds = 0.5
        parked = [await stage.put_off(request=f"job-{number}/task") for number in range(100)]
        most = Counter[int]()
        async with anyio.create_task_group() as group:
            for number, error in enumerate(parked):
                group.start_soon(_come_back, stage, error, f"job-{number}/task", most)
        assert stage.main.calls == 102
        assert stage.state() is BreakerState.CLOSED
        first = [at for at in stage.main.times[2:] if at < stage.main.times[2] + 0.5]
        assert len(first) <= 3
        assert stage.main.most_under_way <= 20
        assert max(stage.main.times) < 15 + 15
        # Nobody came in vain.
        assert not most


async def _come_back(stage: Stage, error: AttemptPutOff, request: str, vain: Counter[int]) -> None:
    await turn_of(error)
    try:
        await stage.ask(request=request)
    except AttemptPutOff:
        vain[1] += 1


async def turn_of(error: AttemptPutOff) -> float:
    """Wait as the engine does for one with a turn. Answers when it came."""
    turn: Turn | None = error.turn
    assert turn is not None
    called = anyio.Event()
    turn.call(called.set)
    await called.wait()
    return anyio.current_time()


# ------------------------------------------------------------------------------------------------------ bad news


async def test_who_waits_hears_of_it_when_the_breaker_has_opened_again() -> None:
    """The time that a watcher was told is over; the next one is told, and nobody is called in vain."""
    async with Stage().open(looked_after=True) as stage:
        await stage.fail()
        stage.main.error = BROKEN
        probe = await stage.put_off(request="probe/task")
        waits = await stage.put_off(request="waits/task")
        calls = stage.main.calls
        async with anyio.create_task_group() as group:
            group.start_soon(_probe_in_vain, stage, probe)
            assert await turn_of(waits) < 20
        again = await stage.put_off(request="waits/task")
        assert again.until > waits.until + 20 * SECOND
        assert stage.main.calls <= calls + 3


async def test_those_who_wait_hear_of_it_a_few_at_a_time_and_each_once() -> None:
    """An attempt for each of thousands in one instant would hold up what has nothing to do with it."""
    async with Stage().open(looked_after=True) as stage, anyio.create_task_group() as group:
        stage.main.seconds = 3
        group.start_soon(stage.fail_or_wait)
        await anyio.sleep(1)
        stage.main.seconds = 0
        await stage.fail()
        came: dict[str, list[float]] = {}

        async def wait(job: str) -> None:
            while True:
                at = await turn_of(await stage.put_off(job=job))
                came.setdefault(job, []).append(at)

        for number in range(100):
            group.start_soon(wait, f"job-{number}")
        # What is under way ends with a longer pause than they were told.
        stage.main.error = AttemptError("HTTP_STATUS", "429", retryable=True, retry_after=60.0)
        await anyio.sleep(1)
        assert came == {}
        await anyio.sleep(5)
        group.cancel_scope.cancel()
    assert [len(times) for times in came.values()] == [1] * 100
    times = sorted(at for [at] in came.values())
    assert all(sum(since <= at < since + 0.05 for at in times) <= 10 for since in times)


async def _probe_in_vain(stage: Stage, error: AttemptPutOff) -> None:
    await turn_of(error)
    for _ in range(3):
        with pytest.raises(AttemptError):
            await stage.ask(request="probe/task")


async def test_a_call_that_met_the_refusal_of_the_key_waits_for_another_key() -> None:
    async with Stage().open() as stage:
        stage.main.error = AttemptError("UNAUTHORIZED", "no", retryable=False, usage=Usage(calls=1))
        error = await stage.put_off(request="job/task")
        assert error.wait_reason is WaitReason.OUT_OF_SERVICE
        assert error.usage == Usage(calls=1, elsewhere=(UsageAt("main", "m", 1),)), "who waits names no model"
        stage.main.error = None
        called = anyio.Event()
        assert error.turn is not None
        error.turn.call(called.set)
        stage.fleet.directory.endpoint("main").take_key(Secret("other"), anyio.current_time())
        with anyio.fail_after(1):
            await called.wait()
        await stage.ask(request="job/task")


async def test_a_refused_key_is_told_where_breakers_only_count() -> None:
    async with Stage().open() as stage:
        stage.fleet.force("main", ("m",), BreakerState.METRICS_ONLY)
        stage.main.error = AttemptError("UNAUTHORIZED", "no", retryable=False)
        with pytest.raises(AttemptError) as caught:
            await stage.ask()
        assert not isinstance(caught.value, AttemptPutOff)


async def test_after_a_pause_that_the_endpoint_asked_for_calls_come_a_few_at_a_time() -> None:
    async with Stage(one(max_connections=30, warm_up_seconds=10), breaker=BreakerPolicy()).open() as stage:
        stage.main.error = AttemptError("HTTP_STATUS", "429", retryable=True, retry_after=5.0)
        with pytest.raises(AttemptError):
            await stage.ask()
        await anyio.sleep(5.01)
        stage.main.seconds = 1
        calls = stage.main.calls
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(stage.fail_or_wait)
        assert stage.main.calls == calls + 3


# ---------------------------------------------------------------------------------------------------------- hedging


async def hedging(stage: Stage) -> None:
    """Let endpoint `a` learn that calls take a second."""
    stage.behind["a"].seconds = stage.behind["b"].seconds = 1
    for _ in range(40):
        await stage.ask(of="a")


async def test_a_call_that_takes_longer_than_most_is_made_again_elsewhere_and_the_first_answer_wins() -> None:
    async with pool("a", "b", hedge=True).open() as stage:
        await hedging(stage)
        stage.behind["a"].seconds = 100
        began = anyio.current_time()
        answer = await stage.ask()
        assert (answer.endpoint, answer.usage.calls) == ("b", 2)
        assert anyio.current_time() - began == 2
        assert stage.behind["a"].under_way == 0
        assert all(view.calls == 0 for view in stage.fleet.endpoints())
        assert {view.name: view.hedges for view in stage.fleet.endpoints()} == {"a": 0, "b": 1}


async def test_who_streams_first_goes_on_alone() -> None:
    async with pool("a", "b", hedge=True).open() as stage:
        await hedging(stage)
        stage.behind["a"].first_text, stage.behind["a"].seconds = 3, 50
        stage.behind["b"].first_text, stage.behind["b"].seconds = 1.5, 100
        pieces = Pieces()
        answer = await stage.ask(pieces=pieces)
        assert (answer.endpoint, pieces.texts) == ("b", ["b "])


async def test_a_hedge_that_fails_changes_nothing() -> None:
    async with pool("a", "b", hedge=True).open() as stage:
        await hedging(stage)
        stage.behind["a"].seconds, stage.behind["b"].error = 10, GONE
        assert (await stage.ask()).endpoint == "a"


async def test_a_second_call_that_streamed_and_broke_off_is_the_end_of_the_attempt() -> None:
    async with pool("a", "b", "c", hedge=True).open() as stage:
        await hedging(stage)
        stage.behind["a"].seconds = 100
        for name in ("b", "c"):
            stage.behind[name].first_text, stage.behind[name].error = 1, GONE
        pieces = Pieces()
        with pytest.raises(AttemptError, match="gone"):
            await stage.ask(pieces=pieces)
        assert len(pieces.texts) == 1
        assert stage.calls["b"] + stage.calls["c"] == 1


async def test_a_cancelled_race_frees_everything() -> None:
    async with pool("a", "b", hedge=True).open() as stage:
        await hedging(stage)
        stage.behind["a"].seconds = stage.behind["b"].seconds = math.inf
        with anyio.move_on_after(5):
            await stage.ask()
        assert all(view.calls == 0 for view in stage.fleet.endpoints())


async def test_a_place_that_a_call_leaves_is_taken_at_once_by_an_attempt_that_stands_by() -> None:
    """More of them where calls are short: a commit lies between two attempts, and a place is empty meanwhile."""
    async with Stage(one(max_connections=20)).open() as stage:
        router = stage.fleet.directory["main"]
        assert router.bulkhead is not None
        assert router.bulkhead.places == 20
        for seconds, places in ((10.0, 21), (0.3, 24), (0.001, 40)):
            stage.main.seconds = seconds
            for _ in range(600):
                with anyio.move_on_after(seconds + 1):
                    await stage.ask()
            assert router.bulkhead.places == places


async def test_of_two_that_stream_in_one_instant_only_one_is_heard() -> None:
    async with pool("a", "b", hedge=True).open() as stage:
        await hedging(stage)
        cue = anyio.Event()
        for behind in stage.behind.values():
            behind.first_text, behind.seconds, behind.cue = 0.0, 0.0, cue
        heard, answers = list[str](), list[Answer]()

        async def hear(text: str) -> None:
            heard.append(text)

        async def ask() -> None:
            answers.append(await stage.ask(pieces=hear))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.sleep(5)
            cue.set()
        [answer] = answers
        assert heard == [f"{answer.endpoint} "]
        assert answer.usage.calls == len(stage.behind)
        assert all(view.calls == 0 for view in stage.fleet.endpoints())


@pytest.mark.parametrize("hedge", [False, True])
async def test_wherever_a_call_is_cancelled_nothing_stays_taken(hedge: bool) -> None:
    """After so many steps of the event loop: in line, in the first call, in the second, between two endpoints."""
    settings: dict[str, Any] = {"hedge": hedge, "max_connections": 2, "max_wait_seconds": 1.0}
    async with pool("a", "b", **settings).open(looked_after=True) as stage:
        await hedging(stage)
        for error in (None, GONE):
            stage.behind["a"].error = error
            for moment in range(60):
                await _cut(stage, moment)
                stage.fleet.force("a", ["m"], BreakerState.OPEN if moment % 2 else BreakerState.HALF_OPEN)
                assert [view.calls for view in stage.fleet.endpoints()] == [0, 0]
                assert [view.waiting for view in stage.fleet.endpoints()] == [0, 0]
        stage.behind["a"].error = None
        stage.fleet.force("a", ["m"], BreakerState.HALF_OPEN)
        await anyio.sleep(3)
        for _ in range(10):
            await stage.ask()
        assert stage.state(endpoint="a") is BreakerState.CLOSED


async def _cut(stage: Stage, moment: int) -> None:
    """Several calls, cancelled after so many steps, of the loop or of time."""
    stage.behind["a"].first_text = stage.behind["b"].first_text = 0.25 if moment % 3 else None
    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(stage.fail_or_wait)
        for _ in range(moment % 15):
            await anyio.lowlevel.checkpoint()
        await anyio.sleep(moment * 0.05)
        group.cancel_scope.cancel()
    stage.behind["a"].first_text = stage.behind["b"].first_text = None
