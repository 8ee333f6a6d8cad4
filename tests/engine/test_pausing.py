"""Jobs that are paused and go on: nothing is started meanwhile, nothing is lost, nothing is held."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import Any

import anyio
import pytest

from runner import frames
from runner.core.errors import AttemptError, JobHasEnded, JobNotEnded, JobNotFound, LedgerUnavailable
from runner.core.events import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    JobCancelled,
    JobFailed,
    JobPaused,
    JobReleased,
    JobResumed,
    JobStarted,
    JobState,
    JobSucceeded,
)
from runner.core.job import Frame, Signal
from runner.engine.again import Retry
from runner.engine.settings import QueueSettings
from runner.ledgers.memory import MemoryLedger
from runner.ports import Attempt, Outcome
from tests.engine.stage import SECOND, START, Engine, Stage, forever, kinds, only, task
from tests.engine.test_recovery import MortalLedger

pytestmark = pytest.mark.timeout(30)


async def seen(engine: Engine, job_id: str, kind: type[Event], *, after: int = 0) -> int:
    """Wait until such an event is shown. Answers its number."""
    async with aclosing(engine.runner.watch(job_id, after=after, heartbeat=100_000)) as stream:
        async for piece in stream:
            for entry in frames.decode([piece]) if isinstance(piece, Frame) else []:
                if isinstance(entry.event, kind):
                    return entry.sequence
    raise AssertionError(f"the job ended without {kind.__name__}")


class Door:
    """A task that waits until it is opened."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.opened = anyio.Event()

    async def __call__(self, _: Attempt) -> Outcome:
        self.reached.set()
        await self.opened.wait()
        return Outcome(output=1)


async def test_what_runs_finishes_nothing_new_starts_and_then_nothing_is_held() -> None:
    stage, door = Stage(), Door()
    stage.troupe.scripts["a"] = door
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b", "a"))
        await door.reached.wait()
        asked = await engine.runner.pause(job_id)
        assert (asked.state, asked.pause_requested) == (JobState.RUNNING, True)
        paused_at = await seen(engine, job_id, JobPaused)
        assert (await engine.runner.job(job_id)).state is JobState.PAUSED
        assert job_id in engine.runner.dispatcher.executions
        door.opened.set()
        await seen(engine, job_id, JobReleased, after=paused_at)
        await anyio.sleep(3600)
        assert engine.runner.dispatcher.executions == {}
        assert stage.troupe.order == ["a"]
        resumed = await engine.runner.resume(job_id)
        assert (resumed.state, resumed.pause_requested) == (JobState.QUEUED, False)
        history = await engine.end(job_id)
    assert kinds(history) == [
        "JobAccepted", "JobStarted", "AttemptStarted", "JobPaused", "AttemptSucceeded", "JobReleased", "JobResumed",
        "JobStarted", "AttemptStarted", "AttemptSucceeded", "JobSucceeded",
    ]  # fmt: skip
    assert [event.reason for event in only(history, JobReleased)] == ["paused"]
    assert stage.troupe.order == ["a", "b"]
    assert [entry.event for entry in engine.ear.heard[job_id]] == [entry.event for entry in history]


async def test_a_job_goes_on_at_once_where_its_runner_holds_it_still() -> None:
    stage, door = Stage(), Door()
    stage.troupe.scripts["a"] = door
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b"))
        stage.troupe.scripts["b"] = forever
        await door.reached.wait()
        await engine.runner.pause(job_id)
        number = await seen(engine, job_id, JobPaused)
        await engine.runner.resume(job_id)
        await seen(engine, job_id, JobResumed, after=number)
        assert (await engine.runner.job(job_id)).state is JobState.RUNNING
        door.opened.set()
        await engine.runner.cancel(job_id, "")
        history = await engine.end(job_id)
    assert [event.held for event in only(history, JobResumed)] == [True]
    assert len(only(history, JobStarted)) == 1


async def test_a_job_paused_before_it_began_never_starts_and_leaves_its_place_to_others() -> None:
    stage = Stage()
    stage.queues = {"default": QueueSettings(concurrency=1)}
    stage.troupe.scripts["long"] = forever
    async with stage.engine(max_running_jobs=1) as engine:
        running = await engine.submit(task("long"))
        await seen(engine, running, AttemptStarted)
        waiting = await engine.submit(task("a"))
        assert (await engine.runner.pause(waiting)).state is JobState.PAUSED
        await engine.runner.pause(running)
        await seen(engine, running, JobPaused)
        await engine.runner.cancel(running, "")
        await engine.end(running)
        after = await engine.submit(task("b"))
        assert isinstance((await engine.end(after))[-1].event, JobSucceeded)
        assert (await engine.runner.job(waiting)).started_at is None
        await engine.runner.resume(waiting)
        history = await engine.end(waiting)
    assert kinds(history)[:4] == ["JobAccepted", "JobPaused", "JobResumed", "JobStarted"]


async def test_asking_twice_is_harmless_and_what_has_ended_is_refused() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), not_before=START + 100 * SECOND)
        first = await engine.runner.pause(job_id)
        assert await engine.runner.pause(job_id) == first
        resumed = await engine.runner.resume(job_id)
        assert await engine.runner.resume(job_id) == resumed
        history = await engine.end(job_id)
        assert (history[-1].time - START) / SECOND >= 100
        for verb in (engine.runner.pause, engine.runner.resume):
            with pytest.raises(JobHasEnded):
                await verb(job_id)
            with pytest.raises(JobNotFound):
                await verb("nowhere")
    assert (len(only(history, JobPaused)), len(only(history, JobResumed))) == (1, 1)


async def test_a_paused_job_can_be_cancelled_at_once_and_not_retried_before() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), not_before=START + 100 * SECOND)
        await engine.runner.pause(job_id)
        with pytest.raises(JobNotEnded):
            await engine.runner.retry(Retry(job_id=job_id))
        with anyio.fail_after(1):
            await engine.runner.cancel(job_id, "never mind")
            history = await engine.end(job_id)
    assert history[-1].event == JobCancelled("never mind")
    assert (await stage.record(job_id))["status"] == "failure"
    assert stage.troupe.order == []


async def test_the_deadline_passes_during_a_pause_too() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), not_before=START + SECOND, deadline=START + 500 * SECOND)
        await engine.runner.pause(job_id)
        history = await engine.end(job_id)
    end = history[-1]
    assert isinstance(end.event, JobFailed)
    assert end.event.error.reason == "DEADLINE_EXCEEDED"
    # The poll's interval is 30 s.
    assert 500 <= (end.time - START) / SECOND <= 531
    assert stage.troupe.order == []


async def test_the_deadline_of_a_job_that_was_let_go_of_is_kept_to_the_moment() -> None:
    stage, door = Stage(), Door()
    stage.troupe.scripts["a"] = door
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b", "a"), deadline=START + 95 * SECOND)
        await door.reached.wait()
        await engine.runner.pause(job_id)
        await seen(engine, job_id, JobPaused)
        door.opened.set()
        history = await engine.end(job_id)
    assert (history[-1].time - START) / SECOND == pytest.approx(95, abs=0.1)
    assert kinds(history)[-5:] == ["AttemptSucceeded", "JobReleased", "JobStarted", "TaskCancelled", "JobFailed"]


async def test_a_job_whose_last_task_ends_during_a_pause_has_ended() -> None:
    stage, door = Stage(), Door()
    stage.troupe.scripts["a"] = door
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await door.reached.wait()
        await engine.runner.pause(job_id)
        await seen(engine, job_id, JobPaused)
        door.opened.set()
        history = await engine.end(job_id)
    assert kinds(history)[-3:] == ["JobPaused", "AttemptSucceeded", "JobSucceeded"]


async def test_a_backoff_that_ends_during_a_pause_is_over_after_it() -> None:
    stage = Stage()
    tries = []

    async def twice(attempt: Attempt) -> Outcome:
        tries.append(attempt.number)
        if len(tries) == 1:
            raise AttemptError("NOT_YET", "not yet", retryable=True)
        return Outcome(output=1)

    door = Door()
    stage.troupe.scripts = {"a": twice, "b": door}
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a", retry_count=1), task("b"))
        number = await seen(engine, job_id, AttemptFailed)
        await engine.runner.pause(job_id)
        await seen(engine, job_id, JobPaused, after=number)
        # Due, and no reason to wake: without a pause between its looks the loop would not let time pass.
        await anyio.sleep(400)
        assert tries == [1]
        door.opened.set()
        await seen(engine, job_id, JobReleased)
        await engine.runner.resume(job_id)
        assert isinstance((await engine.end(job_id))[-1].event, JobSucceeded)
    assert tries == [1, 2]


async def test_an_answer_during_a_pause_counts_after_it() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("ask", parameters={"task_type": "approval"}), task("send", "ask"))
        await seen(engine, job_id, AttemptStarted)
        await engine.runner.pause(job_id)
        await seen(engine, job_id, JobReleased)
        await engine.runner.signal(job_id, Signal("ask", approved=True))
        await anyio.sleep(1000)
        assert stage.troupe.order == []
        await engine.runner.resume(job_id)
        assert isinstance((await engine.end(job_id))[-1].event, JobSucceeded)


async def left(stage: Stage, *asks: str) -> str:
    """A job that is paused while a task of it runs; then its engine dies. `asks` are made of the ledger alone after."""
    stage.troupe.scripts["a"] = forever
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b", "a"))
        await seen(engine, job_id, AttemptStarted)
        await engine.runner.pause(job_id)
        await seen(engine, job_id, JobPaused)
        for ask in asks:
            stage.troupe.scripts.pop("a", None)
            await getattr(stage.ledger, ask)(job_id, framed=None)
        stage.ledger.freeze()
    stage.ledger.thaw()
    stage.troupe.scripts.pop("a", None)
    return job_id


async def test_a_pause_outlives_the_engine_and_what_was_under_way_runs_again() -> None:
    stage = Stage()
    job_id = await left(stage)
    async with stage.ledger.running(), stage.engine() as engine:
        await anyio.sleep(1000)
        assert (await engine.runner.job(job_id)).state is JobState.PAUSED
        assert engine.runner.dispatcher.executions == {}
        await engine.runner.resume(job_id)
        history = await engine.end(job_id)
    assert kinds(history, of="a") == ["AttemptStarted", "AttemptStarted", "AttemptSucceeded"]
    assert isinstance(history[-1].event, JobSucceeded)


async def test_a_resume_outlives_the_engine_that_could_not_write_it() -> None:
    stage = Stage()
    job_id = await left(stage, "request_resume")
    async with stage.ledger.running(), stage.engine() as engine:
        history = await engine.end(job_id)
    assert kinds(history)[3:6] == ["JobPaused", "JobResumed", "JobStarted"]
    assert isinstance(history[-1].event, JobSucceeded)


class Deaf(MemoryLedger):
    """A ledger on which an engine dies before it can write that it heard of a pause."""

    async def append(self, change: Any) -> None:
        if any(isinstance(entry.event, JobPaused) for entry in frames.decode([change.frame])) and not self.deaf:
            self.deaf = True
            self.freeze()
            await anyio.sleep_forever()
        await super().append(change)

    deaf = False


async def test_a_pause_that_its_engine_did_not_live_to_write_is_the_first_thing_the_next_one_writes() -> None:
    stage = Stage(Deaf())
    stage.troupe.scripts["a"] = forever
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await seen(engine, job_id, AttemptStarted)
        await engine.runner.pause(job_id)
        await anyio.sleep(1)
    stage.ledger.thaw()
    stage.troupe.scripts.pop("a")
    async with stage.ledger.running(), stage.engine() as engine:
        await seen(engine, job_id, JobReleased)
        assert (await engine.runner.job(job_id)).state is JobState.PAUSED
        assert stage.troupe.order == ["a"]
        await engine.runner.resume(job_id)
        history = await engine.end(job_id)
    assert kinds(history)[2:6] == ["AttemptStarted", "JobStarted", "JobPaused", "JobReleased"]


async def test_a_shutdown_during_a_pause_leaves_the_job_paused() -> None:
    stage, door = Stage(), Door()
    stage.troupe.scripts["a"] = door
    async with stage.engine(drain_grace_seconds=5) as engine:
        job_id = await engine.submit(task("a"))
        await door.reached.wait()
        await engine.runner.pause(job_id)
        await seen(engine, job_id, JobPaused)
        await engine.runner.drain()
    assert (await stage.ledger.job(job_id)).state is JobState.PAUSED
    assert kinds(await stage.history(job_id))[-1] == "JobReleased"


async def test_those_who_follow_all_jobs_see_the_pause_and_by_which_event() -> None:
    stage, door = Stage(), Door()
    stage.troupe.scripts["a"] = door
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b"))
        await door.reached.wait()
        await engine.runner.pause(job_id)
        number = await seen(engine, job_id, JobPaused)
        await engine.runner.resume(job_id)
        again = await seen(engine, job_id, JobResumed, after=number)
        door.opened.set()
        await engine.end(job_id)
    changes = [(change.state, change.sequence) for change in await stage.ledger.changes(after=0, limit=10)]
    assert changes[2:4] == [(JobState.PAUSED, number), (JobState.RUNNING, again)]


@pytest.mark.parametrize("after", [False, True], ids=["before-the-commit", "after-the-commit"])
@pytest.mark.parametrize("commit", range(1, 6))
async def test_a_crash_at_any_commit_around_a_pause_loses_nothing(commit: int, after: bool) -> None:
    ledger, door = MortalLedger(), Door()
    stage = Stage(ledger)
    stage.troupe.scripts["a"] = door
    ledger.dies_at, ledger.after = commit, after

    async def play(engine: Engine, job_id: str) -> None:
        with suppress(LedgerUnavailable):
            await door.reached.wait()
            await engine.runner.pause(job_id)
            number = await seen(engine, job_id, JobPaused)
            door.opened.set()
            await seen(engine, job_id, JobReleased, after=number)
            await engine.runner.resume(job_id)

    async with stage.engine() as engine, anyio.create_task_group() as tasks:
        job_id = await engine.submit(task("a"), task("b", "a"))
        tasks.start_soon(play, engine, job_id)
        await ledger.died.wait()
        tasks.cancel_scope.cancel()
    ledger.thaw()
    door.opened.set()
    async with stage.ledger.running(), stage.engine() as engine:
        if (await engine.runner.job(job_id)).pause_requested:
            await anyio.sleep(100)
            assert (await engine.runner.job(job_id)).state is JobState.PAUSED
            await engine.runner.resume(job_id)
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert sorted(event.task_id for event in only(history, AttemptSucceeded)) == ["a", "b"]
