"""Lines before models: who is called comes in vain only where something changed meanwhile, and nobody is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
import trio.testing

from runner.core.breaker import BreakerState
from runner.core.errors import AttemptError, AttemptPutOff
from tests.orchestrators.stage import START, Stage, one

SECOND = 1_000_000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Parking:
    """Tasks as the engine drives them: who is put off comes when called, or when its time and patience are over."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        #: Attempts by task.
        self.attempts: dict[str, int] = {}
        self.done: dict[str, float] = {}

    async def drive(self, task: str, model: str = "m", of: str = "", **how: Any) -> None:
        while True:
            self.attempts[task] = self.attempts.get(task, 0) + 1
            assert self.attempts[task] < 1000, "a storm"
            try:
                await self._stage.ask(model, of=of, request=task, **how)
            except AttemptPutOff as put_off:
                await self._wait(put_off)
            else:
                self.done[task] = anyio.current_time()
                return

    async def _wait(self, put_off: AttemptPutOff) -> None:
        called = anyio.Event()
        wait = (put_off.until - START) / SECOND - anyio.current_time() + self._began
        if put_off.turn is not None:
            put_off.turn.call(called.set)
            wait += put_off.turn.patience
        with anyio.move_on_after(wait):
            await called.wait()
        if put_off.turn is not None:
            put_off.turn.leave()
        # A commit.
        await anyio.sleep(0.01)

    @property
    def most(self) -> int:
        return max(self.attempts.values())

    @classmethod
    @asynccontextmanager
    async def open(cls, stage: Stage) -> AsyncIterator[tuple[Parking, anyio.abc.TaskGroup]]:
        async with stage.open(looked_after=True), anyio.create_task_group() as tasks:
            parking = cls(stage)
            parking._began = anyio.current_time()
            yield parking, tasks

    _began = 0.0


async def test_names_of_models_that_nobody_serves_do_not_spoil_the_lines_of_others() -> None:
    """They come from jobs, and never end; the lines of those that are served must stay their own."""
    stage = Stage(one(models=("m", "n"), max_models=3, max_connections=1))
    async with Parking.open(stage) as (parking, tasks):
        for number in range(10):
            with suppress(AttemptError):
                await stage.ask(f"none-{number}")
        stage.main.seconds = 10
        for number in range(3):
            tasks.start_soon(parking.drive, f"t{number}", "n")
    assert sorted(parking.done.values()) == pytest.approx([10, 20, 30], abs=0.5)


async def test_lines_beyond_those_that_are_kept_apart_move_as_well() -> None:
    """Each of their tasks is called when its own model has room."""
    stage = Stage(one(max_models=2, max_connections=4, models=tuple("abcdef")))
    async with Parking.open(stage) as (parking, tasks):
        stage.fleet.force("main", ["a", "b"], BreakerState.FORCED_OPEN)
        stage.fleet.force("main", ["c"], BreakerState.FORCED_OPEN)
        for number, model in enumerate("abcdef"):
            tasks.start_soon(parking.drive, f"t{number}", model)
        await anyio.sleep(10)
        began = anyio.current_time()
        stage.fleet.force("main", [], BreakerState.CLOSED)
        await anyio.sleep(2)
        assert len(parking.done) == len("abcdef")
        assert max(parking.done.values()) < began + 1
        assert parking.most <= 3


async def test_a_task_that_names_its_endpoint_waits_for_that_one_and_not_for_others_that_know_its_model() -> None:
    stage = Stage(one("quiet", max_connections=1, max_wait_seconds=2), one("loud", models=("m",)))
    async with Parking.open(stage) as (parking, tasks):
        stage.behind["quiet"].seconds = 20
        for number in range(3):
            tasks.start_soon(lambda task: parking.drive(task, "m", "quiet"), f"t{number}")
    assert sorted(parking.done.values()) == pytest.approx([20, 40, 60], abs=0.5)
    assert parking.most <= 3
    assert stage.calls == {"quiet": 3, "loud": 0}


async def test_a_rate_of_one_call_in_ten_seconds_serves_two_jobs_in_turns_and_without_a_storm() -> None:
    stage = Stage(one(requests_per_minute=6, max_wait_seconds=2))
    async with Parking.open(stage) as (parking, tasks):
        for number in range(40):
            tasks.start_soon(lambda task: parking.drive(task, job="great"), f"great/{number}")
        await anyio.sleep(5)
        for number in range(10):
            tasks.start_soon(lambda task: parking.drive(task, job="small"), f"small/{number}")
    small = [at for task, at in parking.done.items() if task.startswith("small")]
    assert max(small) < 10 * 26
    assert max(parking.done.values()) < 10 * 51
    assert parking.most <= 4


async def test_a_rate_of_tokens_that_calls_exceed_serves_them_one_by_one_and_without_a_storm() -> None:
    stage = Stage(one(tokens_per_minute=60_000, max_wait_seconds=2))
    async with Parking.open(stage) as (parking, tasks):
        stage.behind["main"].tokens = 10_000
        for number in range(60):
            tasks.start_soon(lambda task: parking.drive(task, max_tokens=10_000), f"t/{number}")
    assert max(parking.done.values()) < 10 * 61
    assert parking.most <= 4


async def test_a_call_that_might_cost_endlessly_much_and_was_cancelled_does_not_hold_up_the_others_for_ever() -> None:
    async with Stage(one(tokens_per_minute=1000, max_wait_seconds=200)).open(looked_after=True) as stage:
        stage.main.seconds = 5
        with anyio.move_on_after(1):
            await stage.ask(max_tokens=2**62)
        with anyio.fail_after(120):
            await stage.ask()


async def test_waiting_for_room_leaves_time_for_the_call_itself() -> None:
    """Else it would be cut, consume an attempt, and count against an endpoint that is well."""
    stage = Stage(one(max_connections=1, max_wait_seconds=10))
    async with Parking.open(stage) as (parking, tasks):
        stage.main.seconds = 4
        for number in range(10):
            tasks.start_soon(lambda task: parking.drive(task, within=8), f"t/{number}")
    assert len(parking.done) == 10
    assert all(each.timeout > 4 for each in stage.main.asked)
