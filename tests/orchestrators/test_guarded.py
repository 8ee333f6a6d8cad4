"""The breaker around an orchestrator. No network: what is behind it is a fake, and time is trio's automatic clock."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio.testing

from runner.core.breaker import BreakerPolicy, BreakerState, Counts
from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import Usage, WaitReason
from runner.core.secret import Secret
from runner.orchestrators.guarded import OTHER_MODELS, GuardedOrchestrator
from runner.ports import Answer, Prompt
from tests.orchestrators.hostile import BreakerEar, FixedClock, Pieces, prompt

START = 1_000_000_000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Behind:
    """An Orchestrator that does as it is told: takes `seconds`, streams, then fails with `error` if there is one."""

    def __init__(self) -> None:
        self.error: AttemptError | None = None
        self.seconds = 0.0
        self.first_text = 0.0
        self.calls = 0
        self.under_way = 0
        self.most_under_way = 0

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        self.calls += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.first_text:
                await anyio.sleep(self.first_text)
                await on_text("a")
            await anyio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        if self.error is not None:
            raise self.error
        return Answer(text="", model=prompt.model or "", endpoint="main", usage=Usage(calls=1))

    async def health(self) -> None: ...


class Guarded:
    """A guarded Behind, and everything around it."""

    def __init__(self, *, max_calls: int = 100, max_models: int = 3, policy: BreakerPolicy | None = None) -> None:
        self.behind = Behind()
        self.ear = BreakerEar()
        self.chance = 0.0
        self.keys: list[Secret] = []
        self.orchestrator = GuardedOrchestrator(
            self.behind,
            name="main",
            default_model="m",
            policy=policy or BreakerPolicy(minimum_calls=2),
            max_calls=max_calls,
            max_models=max_models,
            clock=FixedClock(START),
            observer=self.ear,
            chance=lambda: self.chance,
            take_key=self.keys.append,
        )

    async def ask(self, model: str | None = None, *, within: float = 1000.0) -> None:
        await self.orchestrator.ask(prompt(model=model, timeout=within), Pieces())

    async def fail(self, error: AttemptError | None = None, *, times: int = 2, model: str | None = None) -> None:
        self.behind.error = error or AttemptError("CONNECTION_FAILED", "gone", retryable=True)
        for _ in range(times):
            with pytest.raises(AttemptError):
                await self.ask(model)
        self.behind.error = None

    def state(self, model: str = "m") -> BreakerState:
        return self.orchestrator.states()[model][0]


async def put_off(guarded: Guarded, model: str | None = None) -> AttemptPutOff:
    with pytest.raises(AttemptPutOff) as caught:
        await guarded.ask(model)
    return caught.value


async def test_an_open_breaker_puts_the_attempt_off_until_it_may_probe_and_calls_nobody() -> None:
    guarded = Guarded()
    await guarded.fail()
    error = await put_off(guarded)
    assert (error.wait_reason, error.until, error.endpoint) == (WaitReason.BREAKER_OPEN, START + 15_000_000, "main")
    assert guarded.behind.calls == 2


async def test_those_who_wait_do_not_come_back_in_one_instant() -> None:
    guarded = Guarded()
    await guarded.fail()
    guarded.chance = 0.5
    assert (await put_off(guarded)).until == START + 15_000_000 + 1_875_000
    guarded.chance = 0.0
    assert (await put_off(guarded)).until == START + 15_000_000


async def test_transitions_are_told_to_the_observer_with_endpoint_and_model() -> None:
    guarded = Guarded()
    await guarded.fail()
    await anyio.sleep(15)
    await guarded.ask()
    await guarded.ask()
    assert guarded.ear.heard == [
        ("main", "m", "open", "closed"),
        ("main", "m", "half_open", "open"),
        ("main", "m", "closed", "half_open"),
    ]


async def test_a_sick_model_does_not_make_another_sick() -> None:
    guarded = Guarded()
    await guarded.fail(model="a")
    await put_off(guarded, "a")
    await guarded.ask("b")


async def test_breakers_are_bounded_and_models_beyond_share_one() -> None:
    guarded = Guarded(max_models=2)
    for number in range(50):
        await guarded.ask(f"model-{number}")
    assert set(guarded.orchestrator.states()) == {"model-0", "model-1", OTHER_MODELS}


async def test_a_refused_key_forces_the_breaker_open_and_alerts() -> None:
    guarded = Guarded()
    await guarded.fail(AttemptError("UNAUTHORIZED", "no", retryable=False), times=1)
    error = await put_off(guarded)
    assert error.until > START
    assert "API key was refused" in error.message
    assert guarded.ear.heard == [("main", "m", "forced_open", "closed")]
    assert guarded.ear.notices == ["breaker_forced_open"]
    guarded.orchestrator.force(BreakerState.CLOSED)
    await guarded.ask()
    assert guarded.ear.heard[-1] == ("main", "m", "closed", "forced_open")


async def test_a_new_key_is_taken_over_and_what_was_refused_is_asked_again() -> None:
    guarded = Guarded(policy=BreakerPolicy(minimum_calls=1))
    await guarded.fail(AttemptError("UNAUTHORIZED", "no", retryable=False), times=1, model="denied")
    await guarded.fail(times=1, model="sick")
    guarded.orchestrator.renew(Secret("other"))
    assert [key.reveal() for key in guarded.keys] == ["other"]
    assert guarded.state("denied") is BreakerState.CLOSED
    assert guarded.state("sick") is BreakerState.OPEN
    await guarded.ask("denied")


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
    guarded = Guarded()
    await guarded.fail(error, times=1)
    assert guarded.orchestrator.states()["m"] == (BreakerState.CLOSED, Counts(1, failed, 0))


async def test_a_call_that_was_not_made_does_not_count() -> None:
    guarded = Guarded()
    await guarded.fail(AttemptError("INVALID_PARAMETERS", "odd", retryable=False), times=5)
    assert guarded.orchestrator.states()["m"] == (BreakerState.CLOSED, Counts())


async def test_our_own_cancellation_does_not_count_and_frees_the_place_of_a_probe() -> None:
    guarded = Guarded()
    await guarded.fail()
    await anyio.sleep(15)
    guarded.behind.seconds = math.inf
    for _ in range(10):
        with anyio.move_on_after(1):
            await guarded.ask()
    assert guarded.orchestrator.states()["m"] == (BreakerState.HALF_OPEN, Counts())
    guarded.behind.seconds = 0
    await guarded.ask()
    await guarded.ask()
    assert guarded.state() is BreakerState.CLOSED


async def test_a_call_cut_off_by_its_own_time_counts_as_a_failure() -> None:
    """The engine's time-out arrives as cancellation; it must not look like ours, or a hanging endpoint stays CLOSED."""
    guarded = Guarded()
    guarded.behind.seconds = math.inf
    for _ in range(2):
        with anyio.move_on_after(10):
            await guarded.ask(within=10)
    assert guarded.state() is BreakerState.OPEN


async def test_a_stream_is_slow_by_its_first_text_and_not_by_its_length() -> None:
    guarded = Guarded()
    guarded.behind.first_text, guarded.behind.seconds = 29, 600
    await guarded.ask()
    assert guarded.orchestrator.states()["m"][1].slow == 0
    guarded.behind.first_text = 31
    await guarded.ask()
    assert guarded.orchestrator.states()["m"][1].slow == 1


async def test_an_answer_that_does_not_stream_is_slow_by_its_end() -> None:
    guarded = Guarded()
    guarded.behind.seconds = 31
    await guarded.ask()
    assert guarded.orchestrator.states()["m"][1].slow == 1


async def test_retry_after_reaches_the_breaker() -> None:
    guarded = Guarded()
    await guarded.fail(AttemptError("HTTP_STATUS", "429", retryable=True, retry_after=100.0))
    assert (await put_off(guarded)).until == START + 100_000_000


async def test_half_open_lets_three_probes_pass_and_puts_the_others_off() -> None:
    guarded = Guarded()
    await guarded.fail()
    await anyio.sleep(15)
    guarded.behind.seconds = 5
    refused: list[AttemptPutOff] = []

    async def come() -> None:
        try:
            await guarded.ask()
        except AttemptPutOff as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(come)
    assert guarded.behind.most_under_way == 3
    assert len(refused) == 17
    assert guarded.state() is BreakerState.CLOSED


async def test_calls_under_way_are_bounded_and_nobody_queues_behind_them() -> None:
    guarded = Guarded(max_calls=4)
    guarded.behind.seconds = math.inf
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(guarded.ask)
        await anyio.sleep(1)
        for chance, seconds in ((0.0, 5), (0.5, 7.5)):
            guarded.chance = chance
            error = await put_off(guarded)
            assert (error.wait_reason, error.until) == (WaitReason.RATE_LIMITED, START + seconds * 1_000_000)
            assert "setting `orchestrator.endpoints[main].max_connections`" in error.message
        group.cancel_scope.cancel()
    assert guarded.behind.calls == guarded.behind.most_under_way == 4
    guarded.behind.seconds = 0
    await guarded.ask()


async def test_an_open_breaker_refuses_at_once_though_every_place_is_taken() -> None:
    guarded = Guarded(max_calls=1)
    await guarded.fail()
    guarded.orchestrator.force(BreakerState.CLOSED)
    guarded.behind.seconds = 500
    async with anyio.create_task_group() as group:
        group.start_soon(guarded.ask)
        await anyio.sleep(1)
        guarded.orchestrator.force(BreakerState.OPEN)
        with anyio.fail_after(0.1):
            await put_off(guarded)
        group.cancel_scope.cancel()
