"""Engines that die, lose their leases or are sent away; ledgers that fail. Nothing is lost and nothing is doubled."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import anyio
import pytest

from runner.core.errors import AttemptError, Draining, LeaseLost, LedgerFull, LedgerUnavailable
from runner.core.events import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    JobFailed,
    JobReleased,
    JobStarted,
    JobState,
    JobSucceeded,
)
from runner.core.job import Append
from runner.ledgers.memory import MemoryLedger
from runner.ports import Attempt, Outcome
from tests.engine.stage import SECOND, Engine, Shelf, Stage, forever, kinds, only, submission, task, times

pytestmark = pytest.mark.timeout(30)

DIAMOND = (task("a"), task("b", "a", retry_count=1), task("c", "a"), task("d", "b", "c"))


class MortalLedger(MemoryLedger):
    """A ledger on which an engine dies at its n-th commit: before it, or after it and before anyone hears of it."""

    def __init__(self) -> None:
        super().__init__()
        self.appends = 0
        self.dies_at: int | None = None
        self.after = False
        self.died = anyio.Event()

    async def append(self, change: Append) -> None:
        self.appends += 1
        if self.appends != self.dies_at:
            await super().append(change)
            return
        if self.after:
            await super().append(change)
        self.freeze()
        self.died.set()
        await anyio.sleep_forever()


def sleeping(seconds: float, output: object = 1) -> Any:
    async def script(_: Attempt) -> Outcome:
        await anyio.sleep(seconds)
        return Outcome(output=output)

    return script


async def finish(stage: Stage, job_ids: list[str], **changes: Any) -> Engine:
    """Start an engine on what another one left, and let it come to the end of all."""
    async with stage.ledger.running(), stage.engine(**changes) as engine:
        for job_id in job_ids:
            await engine.end(job_id)
    return engine


@pytest.mark.parametrize("after", [False, True], ids=["before-the-commit", "after-the-commit"])
@pytest.mark.parametrize("commit", range(1, 6))
async def test_a_crash_at_any_commit_loses_nothing_and_repeats_no_finished_task(commit: int, after: bool) -> None:
    ledger, shelf = MortalLedger(), Shelf()
    stage = Stage(ledger)
    stage.troupe.scripts = {"b": sleeping(2), "c": sleeping(1)}
    ledger.dies_at, ledger.after = commit, after
    async with stage.engine(shelf) as engine:
        job_id = await engine.submit(*DIAMOND)
        await ledger.died.wait()
        await engine.kill()
    ledger.thaw()
    ledger.dies_at = None
    committed = await stage.history(job_id)
    done_before = {event.task_id for event in only(committed, AttemptSucceeded)}
    calls_before = Counter(stage.troupe.calls)
    async with ledger.running(), stage.engine(shelf) as engine:
        history = await engine.end(job_id)
        await shelf.arrived.wait()
    assert history[: len(committed)] == committed
    assert isinstance(history[-1].event, JobSucceeded)
    assert sorted(event.task_id for event in only(history, AttemptSucceeded)) == ["a", "b", "c", "d"]
    for name in done_before:
        assert stage.troupe.calls[f"{job_id}/{name}"] == calls_before[f"{job_id}/{name}"]
    assert max(stage.troupe.calls.values()) <= 2
    assert len({entry.execution_id for entry in shelf.deliveries}) == 1
    assert (await stage.record(job_id))["status"] == "success"


async def test_many_jobs_survive_many_crashes_and_each_ends_once() -> None:
    ledger, shelf = MortalLedger(), Shelf()
    stage = Stage(ledger)
    async with stage.engine(shelf) as engine:
        accepted = await engine.runner.submit_batch([submission(*DIAMOND) for _ in range(30)])
        job_ids = [entry.job.id for entry in accepted if not isinstance(entry, Exception)]
        await engine.kill()
    for crash in range(8):
        ledger.died, ledger.dies_at, ledger.after = anyio.Event(), ledger.appends + 9 + crash, bool(crash % 2)
        async with ledger.running(), stage.engine(shelf, max_concurrent_tasks=5) as engine:
            await ledger.died.wait()
            await engine.kill()
        ledger.thaw()
    ledger.dies_at = None
    await finish(stage, job_ids)
    for job_id in job_ids:
        history = await stage.history(job_id)
        assert isinstance(history[-1].event, JobSucceeded)
        succeeded = [event.task_id for event in only(history, AttemptSucceeded)]
        assert sorted(succeeded) == ["a", "b", "c", "d"]
        started = Counter(event.task_id for event in only(history, AttemptStarted))
        assert all(stage.troupe.calls[f"{job_id}/{name}"] <= started[name] for name in succeeded)


async def test_a_backoff_outlives_the_engine_that_began_it() -> None:
    stage = Stage()

    async def fail_once(attempt: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        if attempt.number == 1:
            raise AttemptError("BUSY", "later", retryable=True, retry_after=1_000)
        return Outcome()

    stage.chance = 0.0
    stage.troupe.scripts["a"] = fail_once
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a", retry_count=1))
        await anyio.sleep(100)
        await engine.kill()
    await finish(stage, [job_id])
    history = await stage.history(job_id)
    assert times(history, AttemptStarted) == [0.0, 1_000.0]
    assert len(only(history, AttemptFailed)) == 1


async def test_a_task_that_kills_its_engines_fails_at_last() -> None:
    stage = Stage()
    stage.troupe.scripts["killer"] = forever
    async with stage.engine(max_lost_attempts=3) as engine:
        job_id = await engine.submit(task("killer"), task("next", "killer"))
        await anyio.sleep(1)
    for _ in range(2):
        async with stage.ledger.running(), stage.engine(max_lost_attempts=3):
            await anyio.sleep(1)
    await finish(stage, [job_id], max_lost_attempts=3)
    history = await stage.history(job_id)
    assert only(history, JobFailed)[0].error.reason == "LOST_TOO_OFTEN"
    assert stage.troupe.order == ["killer"] * 3


async def test_a_drained_engine_lets_running_tasks_finish_and_ends_their_job() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = sleeping(15)
    async with stage.engine(drain_grace_seconds=20) as engine:
        job_id = await engine.submit(task("a"))
        await anyio.sleep(5)
        await engine.runner.drain()
        assert anyio.current_time() == 15
        with pytest.raises(Draining):
            await engine.submit(task("late"))
    history = await stage.history(job_id)
    assert isinstance(history[-1].event, JobSucceeded)


async def test_what_overstays_the_drain_s_grace_is_released_and_resumed_by_another_engine() -> None:
    stage = Stage()
    stage.troupe.scripts = {"quick": sleeping(10), "slow": sleeping(500)}
    async with stage.ledger.running(), stage.engine(drain_grace_seconds=20) as first:
        job_id = await first.submit(task("quick"), task("slow"), task("next", "quick"))
        await anyio.sleep(5)
        await first.runner.drain()
        assert anyio.current_time() == 25
        assert not stage.troupe.on_stage
        assert (await stage.ledger.job(job_id)).state is JobState.QUEUED
        async with stage.engine() as second:
            history = await second.end(job_id)
    assert stage.troupe.calls == {f"{job_id}/quick": 1, f"{job_id}/slow": 2, f"{job_id}/next": 1}
    assert len(only(history, JobReleased)) == 1
    assert times(history, JobSucceeded) == [525.0]


async def test_a_job_is_not_released_before_its_tasks_have_stopped() -> None:
    """Or another engine would start what still runs here: the troupe refuses to play one part twice at a time."""
    stage = Stage()

    async def slow_to_stop(_: Attempt) -> Outcome:
        try:
            await anyio.sleep(300)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
        return Outcome()

    stage.troupe.scripts["a"] = slow_to_stop
    stage.set(poll_seconds=0.5)
    async with stage.ledger.running(), stage.engine() as second, stage.engine(drain_grace_seconds=10) as first:
        job_id = await first.submit(task("a"))
        await anyio.sleep(1)
        holder = first if first.runner.dispatcher.executions else second
        await holder.runner.drain()
        other = second if holder is first else first
        history = await other.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert stage.troupe.calls[f"{job_id}/a"] == 2


async def test_a_drain_is_not_held_up_by_waiting_tasks_or_a_queue() -> None:
    stage = Stage()

    async def busy(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        raise AttemptError("BUSY", "later", retryable=True, retry_after=3)

    stage.troupe.scripts = {"busy": busy, "slow": sleeping(12)}
    async with stage.engine(drain_grace_seconds=20) as engine:
        job_id = await engine.submit(task("busy", retry_count=9), task("slow"))
        waiting = await engine.submit(task("b"), not_before=stage.clock.now() + 3600 * SECOND)
        await anyio.sleep(1)
        await engine.runner.drain()
    assert anyio.current_time() == 12
    assert (await stage.ledger.job(job_id)).state is JobState.QUEUED
    assert kinds(await stage.history(waiting)) == ["JobAccepted"]


async def test_a_drain_ends_even_if_the_ledger_does_not_come_back() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = sleeping(3)
    async with stage.engine(Shelf(), drain_grace_seconds=10) as engine:
        job_id = await engine.submit(task("a"))
        await anyio.sleep(1)
        stage.ledger.freeze()
        await engine.runner.drain()
        assert anyio.current_time() < 20
    stage.ledger.thaw()
    await finish(stage, [job_id])


async def test_a_drain_ends_even_if_a_handler_does_not() -> None:
    stage = Stage()
    released = anyio.Event()

    async def deaf(_: Attempt) -> Outcome:
        with anyio.CancelScope(shield=True):
            await released.wait()
        return Outcome()

    stage.troupe.scripts["a"] = deaf
    async with stage.engine(drain_grace_seconds=10) as engine:
        await engine.submit(task("a"))
        await anyio.sleep(1)
        with anyio.move_on_after(60, shield=True) as patience:
            await engine.runner.drain()
        released.set()
    assert not patience.cancelled_caught
    assert engine.ear.said("job_dropped")


async def test_a_lost_lease_drops_the_job_and_its_late_writes_are_refused() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = sleeping(50)
    async with stage.ledger.running(), stage.engine() as first:
        job_id = await first.submit(task("a"))
        await anyio.sleep(1)
        execution = first.runner.dispatcher.executions[job_id]
        # As if this process had been stopped for longer than its lease: another engine takes the job.
        assert await stage.ledger.rescue(now=stage.clock.now() + 3600 * SECOND, limit=10) == 1
        claims = await stage.ledger.claim(
            "other", now=stage.clock.now(), lease_until=stage.clock.now() + 9**15, limit=1, max_bytes=1, queue_limits={}
        )
        assert [claim.token for claim in claims] == [2]
        await anyio.sleep(41)
        assert first.ear.said("lease_lost") == 1
        assert not first.runner.dispatcher.executions
        assert not stage.troupe.on_stage
        assert len(await stage.history(job_id)) == len(claims[0].frames) + 1
        assert execution.token == 1


async def test_a_write_that_is_refused_gives_back_the_slots_it_had_taken() -> None:
    """Otherwise each lost lease would take a few slots with it, and the daemon would end doing nothing."""

    class Refusing(MemoryLedger):
        refusals = 5

        async def append(self, change: Append) -> None:
            if self.refusals:
                self.refusals -= 1
                raise LeaseLost(change.job_id)
            await super().append(change)

    stage = Stage(Refusing())
    async with stage.ledger.running(), stage.engine(max_concurrent_tasks=2, lease_seconds=10, poll_seconds=1) as engine:
        ids = [await engine.submit(task("a"), task("b")) for _ in range(3)]
        for job_id in ids:
            assert isinstance((await engine.end(job_id))[-1].event, JobSucceeded)
        assert engine.equipment.slots.free == 2
        assert engine.ear.said("lease_lost") == 5


async def test_a_job_that_came_back_to_the_engine_that_lost_it_is_still_under_its_command() -> None:
    """The older execution, when it ends, must not strike the newer one from the list: it would never be renewed."""
    stage = Stage()

    async def stubborn(_: Attempt) -> Outcome:
        try:
            await anyio.sleep(500)
        finally:
            if len(stage.troupe.order) == 1:
                stage.troupe.on_stage.clear()
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(5)
                stage.troupe.on_stage.append(f"{job_id}/a")
        return Outcome()

    stage.troupe.scripts["a"] = stubborn
    async with stage.ledger.running(), stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await anyio.sleep(1)
        await stage.ledger.rescue(now=stage.clock.now() + 3600 * SECOND, limit=10)
        engine.runner.dispatcher.wake()
        await anyio.sleep(20)
        assert engine.runner.dispatcher.executions[job_id].token == 2
        await engine.runner.cancel(job_id, "enough")
        history = await engine.end(job_id)
    assert kinds(history)[-1] == "JobCancelled"


async def test_an_engine_that_stops_renewing_is_relieved_by_another_within_a_lease_and_a_half() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = sleeping(1)
    stage.set(lease_seconds=15, poll_seconds=1)
    async with stage.ledger.running():
        async with stage.engine() as first:
            job_id = await first.submit(task("hold", timeout_seconds=9999), task("a", "hold"))
            stage.troupe.scripts["hold"] = sleeping(0.5)
            await anyio.sleep(0.1)
            await first.kill()
        async with stage.engine() as second:
            history = await second.end(job_id)
    assert second.ear.said("jobs_rescued") == 1
    assert times(history, JobStarted)[1] <= 15 * 1.5 + 1
    assert isinstance(history[-1].event, JobSucceeded)


async def test_leases_are_renewed_for_as_long_as_a_job_runs() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = sleeping(599)
    stage.set(lease_seconds=15, poll_seconds=5)
    async with stage.ledger.running(), stage.engine() as first, stage.engine():
        history = await first.run(task("a"))
    assert len(only(history, JobStarted)) == 1


async def test_results_are_held_while_the_ledger_is_away_and_committed_when_it_is_back() -> None:
    stage = Stage()
    stage.troupe.scripts = {"a": sleeping(10), "b": sleeping(20)}
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b"), task("c", "a", "b"))
        await anyio.sleep(5)
        stage.ledger.freeze()
        with pytest.raises(LedgerUnavailable):
            await engine.submit(task("x"))
        await anyio.sleep(60)
        stage.ledger.thaw()
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert set(stage.troupe.calls.values()) == {1}
    assert 65 <= times(history, JobSucceeded)[0] <= 75


async def test_an_outage_longer_than_a_lease_does_not_cost_what_runs_meanwhile() -> None:
    """The rescuer looks at 67.5 s, the renewal comes at 70: the daemon must not rescue its jobs from itself."""
    stage = Stage()
    stage.troupe.scripts = {"a": sleeping(100), "b": sleeping(40)}
    async with stage.engine(lease_seconds=15, poll_seconds=1) as engine:
        job_id = await engine.submit(task("a"), task("b"))
        await anyio.sleep(5)
        stage.ledger.freeze()
        await anyio.sleep(61)
        stage.ledger.thaw()
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert stage.troupe.calls == {f"{job_id}/a": 1, f"{job_id}/b": 1}
    assert len(only(history, JobStarted)) == 1


@pytest.mark.parametrize("failures", [1, 2, 5, 40])
async def test_failing_calls_at_any_moment_delay_a_job_and_change_nothing_else(failures: int) -> None:
    stage = Stage()

    async def fail_ledger(_: Attempt) -> Outcome:
        stage.ledger.fail_with(LedgerFull("the disk is full"), times=failures)
        await anyio.sleep(1)
        return Outcome()

    stage.troupe.scripts = {"a": fail_ledger, "c": fail_ledger}
    async with stage.engine(poll_seconds=1, lease_seconds=10) as engine:
        job_id = await engine.submit(*DIAMOND)
        await anyio.sleep(300)
    assert isinstance((await stage.history(job_id))[-1].event, JobSucceeded)
    assert set(stage.troupe.calls.values()) == {1}


async def test_an_engine_starts_on_a_ledger_that_is_away_and_works_once_it_is_there() -> None:
    stage = Stage()
    stage.ledger.freeze()
    async with stage.engine(Shelf()) as engine:
        await anyio.sleep(100)
        stage.ledger.thaw()
        history = await engine.run(task("a"))
    assert isinstance(history[-1].event, JobSucceeded)


async def test_a_malformed_trace_context_does_not_keep_a_job_from_ending() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), traceparent="nonsense")
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert json.loads(await stage.ledger.record(job_id))["trace_id"] == job_id
