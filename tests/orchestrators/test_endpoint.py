"""The fence around one endpoint: its breakers, its room, its rates, its retry budget."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest
import trio.testing

from runner.core.breaker import BreakerPolicy, BreakerState
from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import WaitReason
from runner.core.retry_budget import RetryBudgetPolicy
from runner.core.secret import Secret
from runner.orchestrators.breakers import OTHER_MODELS
from tests.orchestrators.stage import BROKEN, START, Stage, one

SECOND = 1_000_000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


# ------------------------------------------------------------------------------------------------- circuit breakers


async def test_an_open_breaker_puts_the_attempt_off_until_it_may_probe_and_calls_nobody() -> None:
    async with Stage().open() as stage:
        await stage.fail()
        error = await stage.put_off()
    assert (error.wait_reason, error.until, error.endpoint) == (WaitReason.BREAKER_OPEN, START + 15 * SECOND, "main")
    assert "2 of 2 calls failed" in error.message
    assert stage.main.calls == 2


async def test_those_whom_nobody_calls_do_not_come_back_in_one_instant() -> None:
    patience = []
    async with Stage().open() as stage:
        await stage.fail()
        for chance in (0.0, 0.5):
            stage.chance = chance
            turn = (await stage.put_off()).turn
            assert turn is not None
            patience.append(turn.patience)
    assert patience == [60.0, 90.0]


async def test_transitions_are_told_to_the_observer_with_endpoint_and_model() -> None:
    async with Stage().open() as stage:
        await stage.fail()
        await anyio.sleep(15)
        await stage.ask()
        await stage.ask()
    assert stage.ear.heard == [
        ("main", "m", "open", "closed"),
        ("main", "m", "half_open", "open"),
        ("main", "m", "closed", "half_open"),
    ]
    assert stage.ear.reasons == [*["2 of 2 calls failed (the last: CONNECTION_FAILED)"] * 2, ""]


async def test_a_sick_model_does_not_make_another_sick() -> None:
    async with Stage().open() as stage:
        await stage.fail(model="a")
        await stage.put_off("a")
        await stage.ask("b")


async def test_breakers_are_bounded_and_models_beyond_share_one() -> None:
    async with Stage(one(max_models=2)).open() as stage:
        for number in range(50):
            await stage.ask(f"model-{number}")
        assert {view.model for view in stage.fleet.breakers()} == {"model-0", "model-1", OTHER_MODELS}


async def test_a_refused_key_forces_the_breaker_open_and_alerts() -> None:
    async with Stage().open() as stage:
        await stage.fail(AttemptError("UNAUTHORIZED", "no", retryable=False), times=1)
        error = await stage.put_off()
        assert "API key was refused" in error.message
        assert "alt-runner breakers reset main" in error.message
        assert stage.ear.heard == [("main", "m", "forced_open", "closed")]
        assert stage.ear.notices == ["breaker_forced_open"]
        stage.fleet.force("main", (), BreakerState.CLOSED)
        await stage.ask()
    assert stage.ear.heard[-1] == ("main", "m", "closed", "forced_open")


async def test_a_new_key_is_taken_over_and_what_was_refused_is_asked_again() -> None:
    async with Stage(breaker=BreakerPolicy(minimum_calls=1)).open() as stage:
        await stage.fail(AttemptError("UNAUTHORIZED", "no", retryable=False), times=1, model="denied")
        await stage.fail(times=1, model="sick")
        stage.fleet.directory.endpoint("main").take_key(Secret("other"), anyio.current_time())
        assert [key.reveal() for key in stage.main.keys] == ["other"]
        assert stage.state("denied") is BreakerState.CLOSED
        assert stage.state("sick") is BreakerState.OPEN
        await stage.ask("denied")


async def test_what_was_forced_open_by_hand_stays_so_when_keys_are_taken_over() -> None:
    """A reload for a log level must not send calls to a server that somebody took out of service."""
    async with Stage().open() as stage:
        await stage.ask()
        stage.fleet.force("main", (), BreakerState.FORCED_OPEN)
        stage.fleet.directory.endpoint("main").take_key(Secret("other"), anyio.current_time())
        assert stage.state() is BreakerState.FORCED_OPEN
        assert (await stage.put_off()).wait_reason is WaitReason.OUT_OF_SERVICE


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (AttemptError("HTTP_STATUS", "404", retryable=False), 0),
        (AttemptError("HTTP_STATUS", "503", retryable=True), 1),
        (AttemptError("TIMED_OUT", "late", retryable=True), 1),
        (AttemptError("INVALID_ANSWER", "odd", retryable=True), 1),
        (AttemptError("ANSWER_TOO_LARGE", "big", retryable=False), 1),
    ],
)
async def test_what_counts_as_a_failure(error: AttemptError, failed: int) -> None:
    async with Stage().open() as stage:
        await stage.fail(error, times=1)
        view = stage.breaker()
    assert (view.state, view.calls, view.failed, view.slow) == (BreakerState.CLOSED, 1, failed, 0)


async def test_a_call_that_was_not_made_does_not_count() -> None:
    async with Stage().open() as stage:
        await stage.fail(AttemptError("INVALID_PARAMETERS", "odd", retryable=False), times=5)
        assert (stage.state(), stage.breaker().calls) == (BreakerState.CLOSED, 0)


async def test_our_own_cancellation_does_not_count_and_frees_the_place_of_a_probe() -> None:
    async with Stage().open() as stage:
        await stage.fail()
        await anyio.sleep(15)
        stage.main.seconds = math.inf
        for _ in range(10):
            with anyio.move_on_after(1):
                await stage.ask()
        assert (stage.state(), stage.breaker().calls) == (BreakerState.HALF_OPEN, 0)
        stage.main.seconds = 0
        await stage.ask()
        await stage.ask()
        assert stage.state() is BreakerState.CLOSED


async def test_a_call_cut_off_by_its_own_time_counts_as_a_failure() -> None:
    """The engine's time-out arrives as cancellation; it must not look like ours, or a hanging endpoint stays CLOSED."""
    async with Stage().open() as stage:
        stage.main.seconds = math.inf
        for _ in range(2):
            with anyio.move_on_after(10):
                await stage.ask(within=10)
        assert stage.state() is BreakerState.OPEN


async def test_a_stream_is_slow_by_its_first_text_and_not_by_its_length() -> None:
    async with Stage().open() as stage:
        stage.main.first_text, stage.main.seconds = 29, 600
        await stage.ask()
        assert stage.breaker().slow == 0
        stage.main.first_text = 31
        await stage.ask()
        assert stage.breaker().slow == 1


async def test_an_answer_that_does_not_stream_is_slow_by_its_end() -> None:
    async with Stage().open() as stage:
        stage.main.seconds = 31
        await stage.ask()
        assert stage.breaker().slow == 1


async def test_retry_after_reaches_the_breaker() -> None:
    async with Stage().open() as stage:
        await stage.fail(AttemptError("HTTP_STATUS", "429", retryable=True, retry_after=100.0), times=1)
        await anyio.sleep(100)
        await stage.fail(AttemptError("HTTP_STATUS", "429", retryable=True, retry_after=100.0), times=1)
        assert (await stage.put_off()).until == START + 200 * SECOND


async def test_half_open_lets_three_probes_pass_and_puts_the_others_off() -> None:
    async with Stage().open() as stage:
        await stage.fail()
        await anyio.sleep(15)
        stage.main.seconds = 5
        refused: list[AttemptPutOff] = []

        async def come() -> None:
            try:
                await stage.ask()
            except AttemptPutOff as error:
                refused.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(come)
        assert stage.main.most_under_way == 3
        assert len(refused) == 17
        assert stage.state() is BreakerState.CLOSED


async def test_an_open_breaker_refuses_at_once_though_every_place_is_taken() -> None:
    async with Stage(one(max_connections=1, max_wait_seconds=60)).open() as stage:
        await stage.fail()
        stage.fleet.force("main", (), BreakerState.CLOSED)
        stage.main.seconds = 500
        async with anyio.create_task_group() as group:
            group.start_soon(stage.ask)
            await anyio.sleep(1)
            stage.fleet.force("main", (), BreakerState.OPEN)
            with anyio.fail_after(0.1):
                assert (await stage.put_off()).wait_reason is WaitReason.BREAKER_OPEN
            group.cancel_scope.cancel()


async def test_what_comes_back_is_warmed_up() -> None:
    """One call at a time at first, and all after ten seconds: a herd would put it down again."""
    async with Stage(one(max_connections=10, warm_up_seconds=10)).open() as stage:
        await stage.fail()
        await anyio.sleep(15)
        await stage.ask()
        await stage.ask()
        assert stage.state() is BreakerState.CLOSED
        stage.main.seconds = 1000
        most = []
        async with anyio.create_task_group() as group:
            for _ in range(3):
                while (view := stage.fleet.endpoints()[0]).calls < 10:
                    group.start_soon(stage.put_off_or_ask)
                    await anyio.sleep(0.001)
                    if stage.fleet.endpoints()[0].calls == view.calls:
                        break
                most.append(stage.fleet.endpoints()[0].calls)
                await anyio.sleep(5)
            group.cancel_scope.cancel()
    assert most == [1, 5, 10]


# --------------------------------------------------------------------------------------------------- room and rates


async def test_calls_under_way_are_bounded() -> None:
    async with Stage(one(max_connections=4)).open() as stage:
        stage.main.seconds = math.inf
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(stage.ask)
            await anyio.sleep(1)
            error = await stage.put_off()
            assert (error.wait_reason, error.until) == (WaitReason.RATE_LIMITED, START + 6 * SECOND)
            assert "setting `orchestrator.endpoints[main].max_connections`" in error.message
            group.cancel_scope.cancel()
        assert stage.main.calls == stage.main.most_under_way == 4
        stage.main.seconds = 0
        await stage.ask()


async def test_calls_a_minute_are_bounded_and_the_setting_is_told() -> None:
    async with Stage(one(requests_per_minute=60)).open() as stage:
        for _ in range(6):
            await stage.ask()
        error = await stage.put_off()
        assert error.wait_reason is WaitReason.RATE_LIMITED
        assert "orchestrator.endpoints[main].requests_per_minute" in error.message
        await anyio.sleep(1)
        await stage.ask()
    assert stage.main.calls == 7


async def test_tokens_a_minute_are_bounded_by_what_calls_did_use() -> None:
    async with Stage(one(tokens_per_minute=6000)).open() as stage:
        stage.main.tokens = 10
        for _ in range(50):
            await stage.ask(max_tokens=500)
        stage.main.tokens = 700
        await stage.ask(max_tokens=10)
        assert "tokens_per_minute" in (await stage.put_off()).message


async def test_a_pause_that_the_endpoint_asks_for_holds_up_every_call() -> None:
    async with Stage(breaker=BreakerPolicy(minimum_calls=10)).open() as stage:
        await stage.fail(AttemptError("HTTP_STATUS", "429", retryable=True, retry_after=7.0), times=1)
        assert "Retry-After" in (await stage.put_off("other")).message
        await anyio.sleep(7)
        await stage.ask("other")


async def test_repetitions_are_few_beside_first_calls() -> None:
    budget = RetryBudgetPolicy(share=0.2, per_second=0.1, window_seconds=10)
    async with Stage(retry_budget=budget, breaker=BreakerPolicy(minimum_calls=1000)).open() as stage:
        for _ in range(5):
            await stage.ask()
        stage.main.error = BROKEN
        made = 0
        for _ in range(20):
            with pytest.raises(AttemptError) as caught:
                await stage.ask(retry=True)
            made += not isinstance(caught.value, AttemptPutOff)
        assert made == 2
        error = await stage.put_off(retry=True)
        assert error.turn is None
        assert "orchestrator.retry_budget" in error.message
        [view] = stage.fleet.endpoints()
        assert view.held_back == 20 - made + 1
        stage.main.error = None
        await anyio.sleep(11)
        await stage.ask(retry=True)


async def test_where_nobody_could_mend_a_key_its_refusal_is_a_failure() -> None:
    async with Stage(wait_for_operators=False).open() as stage:
        await stage.fail(AttemptError("UNAUTHORIZED", "no", retryable=False), times=1)
        with pytest.raises(AttemptError) as caught:
            await stage.ask()
        assert not isinstance(caught.value, AttemptPutOff)
        assert (caught.value.reason, caught.value.retryable) == ("OUT_OF_SERVICE", False)
