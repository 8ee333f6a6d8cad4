"""Whose turn it is: queues, priorities, ageing, slots, and jobs that come due."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.errors import QueueFull, RequestIdReused
from runner.core.events import JobCancelled, JobStarted, JobSucceeded
from runner.core.job import Append
from runner.core.plan import Priority
from runner.engine.settings import QueueSettings
from runner.engine.slots import HEAD_START, Place, Slots
from runner.ledgers.memory import MemoryLedger
from runner.ports import Attempt, Outcome
from tests.engine.stage import SECOND, START, Stage, forever, only, submission, task, times

pytestmark = pytest.mark.timeout(30)


def sleeping(seconds: float) -> Any:
    async def script(_: Attempt) -> Outcome:
        await anyio.sleep(seconds)
        return Outcome()

    return script


async def test_a_job_starts_when_its_time_has_come_and_not_a_poll_later() -> None:
    stage = Stage()
    stage.set(poll_seconds=30)
    async with stage.engine() as engine:
        history = await engine.run(task("a"), not_before=START + 100 * SECOND + 250_000)
    assert times(history, JobStarted) == [100.25]


async def test_urgent_jobs_go_first_and_waiting_ages() -> None:
    stage = Stage()
    stage.set(ageing_seconds=60, max_running_jobs=1)
    stage.troupe.scripts["hold"] = sleeping(130)
    async with stage.engine() as engine:
        await engine.submit(task("hold"))
        await anyio.sleep(1)
        for name, priority in (("old-low", Priority.LOW), ("low", Priority.LOW), ("critical", Priority.CRITICAL)):
            await engine.submit(task(name), priority=priority)
        await engine.submit(task("medium"), priority=Priority.MEDIUM)
        await anyio.sleep(125)
        # Two minutes later: three steps of priority are worth three minutes, one step one minute.
        last = [await engine.submit(task("new-critical"), priority=Priority.CRITICAL)]
        last.append(await engine.submit(task("new-medium"), priority=Priority.MEDIUM))
        for job_id in last:
            await engine.end(job_id)
    assert stage.troupe.order == ["hold", "critical", "medium", "new-critical", "old-low", "low", "new-medium"]


async def test_a_queue_runs_no_more_jobs_at_a_time_than_it_may_and_holds_up_no_other() -> None:
    stage = Stage()
    stage.queues = {"narrow": QueueSettings(concurrency=2), "default": QueueSettings()}
    stage.troupe.scripts["n"] = sleeping(10)
    running: list[int] = []

    async def count(_: Attempt) -> Outcome:
        running.append(len(stage.troupe.on_stage))
        await anyio.sleep(10)
        return Outcome()

    stage.troupe.scripts["n"] = count
    async with stage.engine() as engine:
        narrow = [await engine.submit(task("n"), queue="narrow") for _ in range(6)]
        wide = await engine.submit(task("w"))
        assert times(await engine.end(wide), JobSucceeded) == [0.0]
        ends = [times(await engine.end(job_id), JobSucceeded)[0] for job_id in narrow]
    assert sorted(ends) == [10.0, 10.0, 20.0, 20.0, 30.0, 30.0]
    assert max(running) <= 3


async def test_a_queue_that_stands_in_no_settings_has_the_limits_of_the_default_one() -> None:
    stage = Stage()
    stage.queues = {"default": QueueSettings(concurrency=1, max_queued=3)}
    stage.troupe.scripts["a"] = sleeping(10)
    async with stage.engine(ledger=stage.ledger) as engine:
        jobs = [await engine.submit(task("a"), queue="own") for _ in range(3)]
        ends = [times(await engine.end(job_id), JobSucceeded)[0] for job_id in jobs]
    assert ends == [10.0, 20.0, 30.0]


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    stage = Stage()
    stage.set(max_running_jobs=1)
    stage.queues = {"default": QueueSettings(max_queued=2)}
    stage.troupe.scripts["hold"] = sleeping(10)
    async with stage.engine() as engine:
        await engine.submit(task("hold"))
        await anyio.sleep(1)
        answers = await engine.runner.submit_batch([submission(task("a")) for _ in range(4)])
        assert [type(answer).__name__ for answer in answers] == ["Accepted", "Accepted", "QueueFull", "QueueFull"]
        with pytest.raises(QueueFull) as refused:
            await engine.submit(task("b"))
        assert refused.value.retry_after > 0
        await anyio.sleep(20)
        await engine.run(task("b"))


async def test_submitting_twice_is_harmless_at_any_time() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        both = await engine.runner.submit_batch([submission(task("a"), request_id="r") for _ in range(2)])
        first, second = [answer for answer in both if not isinstance(answer, Exception)]
        assert (first.job.id, first.replayed, second.replayed) == (second.job.id, False, True)
        await engine.end(first.job.id)
        assert (
            await engine.submit(task("a"), request_id="r", traceparent=f"00-{'a' * 32}-{'b' * 16}-01") == first.job.id
        )
        with pytest.raises(RequestIdReused):
            await engine.submit(task("other"), request_id="r")
    assert stage.troupe.order == ["a"]


async def test_no_more_jobs_are_held_than_may_be() -> None:
    stage = Stage()
    stage.set(max_running_jobs=3)
    stage.troupe.scripts["a"] = sleeping(10)
    async with stage.engine() as engine:
        await engine.runner.submit_batch([submission(task("a")) for _ in range(10)])
        for _ in range(35):
            await anyio.sleep(1)
            assert len(engine.runner.dispatcher.executions) <= 3
    assert stage.troupe.most_on_stage == 3


async def test_a_job_of_a_thousand_tasks_and_a_job_of_one_advance_side_by_side() -> None:
    stage = Stage()
    stage.troupe.scripts = {f"t{index}": sleeping(1) for index in range(1_000)}
    async with stage.engine(max_concurrent_tasks=4) as engine:
        big = await engine.submit(*(task(f"t{index}") for index in range(1_000)))
        await anyio.sleep(5)
        # The clock jumps while a large descriptor is decoded in a thread.
        began = anyio.current_time()
        small = await engine.run(task("one"))
        assert times(small, JobSucceeded)[0] - began <= 2
        urgent = await engine.run(task("urgent"), priority=Priority.CRITICAL)
        assert times(urgent, JobSucceeded)[0] - began <= 3
        await engine.runner.cancel(big, "seen enough")
        await engine.end(big)
    assert stage.troupe.most_on_stage == 4


async def test_the_pool_is_never_larger_than_it_may_be_and_never_leaks() -> None:
    stage = Stage()
    stage.troupe.scripts = {f"t{index}": sleeping(index % 3) for index in range(40)}
    stage.troupe.scripts["stop"] = forever
    async with stage.engine(max_concurrent_tasks=5, cancel_grace_seconds=1) as engine:
        ids = [await engine.submit(*(task(f"t{index}") for index in range(40)), task("stop")) for _ in range(4)]
        await anyio.sleep(20)
        for job_id in ids:
            await engine.runner.cancel(job_id, "enough")
        for job_id in ids:
            assert only(await engine.end(job_id), JobCancelled)
        await anyio.sleep(1)
        assert engine.equipment.slots.free == 5
    assert stage.troupe.most_on_stage == 5


class Faulty(MemoryLedger):
    """A ledger that raises what it may not, for one job."""

    bad = ""

    async def append(self, change: Append) -> None:
        if change.job_id == self.bad:
            raise RuntimeError("a fault of the ledger's")
        await super().append(change)


async def test_one_job_that_cannot_be_driven_hurts_no_other() -> None:
    """It is dropped, and tried again when its lease has ended."""
    ledger = Faulty()
    stage = Stage(ledger)
    async with stage.engine(lease_seconds=100) as engine:
        ledger.bad = await engine.submit(task("a"), not_before=START + 10 * SECOND)
        await anyio.sleep(11)
        history = await engine.run(task("a"))
        assert isinstance(history[-1].event, JobSucceeded)
        assert engine.ear.said("job_dropped") == 1
        await anyio.sleep(300)
        assert 2 <= engine.ear.said("job_dropped") <= 4


# -------------------------------------------------------------------------------------------------------- slots


moves = st.lists(st.tuples(st.sampled_from(("take", "give", "leave", "resize")), st.integers(0, 3)), max_size=60)


@settings(max_examples=50)
@given(st.integers(1, 4), moves)
def test_slots_are_neither_lost_nor_made_whatever_is_done_with_them(total: int, steps: list[tuple[str, int]]) -> None:
    slots = Slots(total)
    places = [Place(Priority(number + 1), lambda: None) for number in range(4)]
    taken = 0
    for step, which in steps:
        place = places[which]
        if step == "take":
            taken += slots.take(place)
        elif step == "give" and taken:
            taken -= 1
            slots.give_back()
        elif step == "leave":
            slots.leave(place)
        elif step == "resize":
            slots.resize(which + 1)
        granted = sum(other.granted for other in places)
        assert slots.free + granted + taken == slots.total
        waiting = any(other.in_line for other in places)
        assert not waiting or slots.free <= 0
    for place in places:
        slots.leave(place)
    assert slots.free + taken == slots.total


def test_places_in_line_get_a_slot_each_in_turn_and_a_priority_is_a_head_start() -> None:
    slots = Slots(1)
    order: list[str] = []
    holder = Place(Priority.LOW, lambda: None)
    assert slots.take(holder)
    places = {
        name: Place(priority, partial(order.append, name))
        for name, priority in (("low", Priority.LOW), ("medium", Priority.MEDIUM), ("critical", Priority.CRITICAL))
    }
    for place in places.values():
        assert not slots.take(place)
    for _ in range(3):
        slots.give_back()
        assert slots.take(places[order[-1]])
    assert order == ["critical", "medium", "low"]


def test_nobody_starves_in_line() -> None:
    """A low one that waits is passed by at most as many critical ones as their head start is worth."""
    slots = Slots(1)
    slots.take(Place(Priority.LOW, lambda: None))
    patient = Place(Priority.LOW, lambda: None)
    assert not slots.take(patient)
    passed = 0
    while not patient.granted:
        urgent = Place(Priority.CRITICAL, lambda: None)
        slots.take(urgent)
        slots.give_back()
        passed += urgent.granted
        assert passed <= HEAD_START * (Priority.CRITICAL - Priority.LOW)
