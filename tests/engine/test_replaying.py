"""Jobs that this version cannot read: tried a few times, set aside, told of, and ended when somebody asks for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio
import pytest

from runner import frames
from runner.core.errors import JobUnreadable
from runner.core.events import JobPaused, JobState, JobSucceeded, Recorded, TaskFailed, TaskSkipped
from runner.core.filters import JobQuery
from runner.core.job import NewJob, ReplayFailure, Submitted
from runner.core.record import Verdict, verify
from runner.engine.again import Retry
from runner.engine.family import PARENT
from runner.ledgers.memory import MemoryLedger
from tests.engine.stage import SECOND, START, Engine, Shelf, Stage, kinds, only, submission, task

pytestmark = pytest.mark.timeout(30)

HOUR: Final = 3600


def _frame(*events: Any) -> bytes:
    return frames.encode([Recorded(place, START, event) for place, event in enumerate(events, start=1)]).data


#: An event of a kind that no version knows yet: a field of number 2000 in the first event.
UNKNOWN: Final = b"\x0a\x05\x08\x01\x82\x7d\x00"
#: What a row may hold that cannot be replayed, and what is told of it.
DAMAGE: Final[dict[str, tuple[dict[str, bytes], str]]] = {
    "a plan that is no MessagePack": ({"plan": b"\xc1"}, "DecodeError"),
    "a plan of another shape": ({"plan": b"\x80"}, "ValidationError: Object missing required field"),
    "a frame that is none": ({"newest": b"\xff"}, "ValueError: the frame of events 1 to 1 is damaged"),
    "a frame without events": ({"newest": b""}, "ValueError: its events end with 0, not with 1"),
    "an event of a newer version": ({"newest": UNKNOWN}, "of a kind that this version does not know"),
    "an event that cannot be there": ({"newest": _frame(JobPaused())}, "JobPaused cannot happen"),
    "a task that is not in the plan": ({"newest": _frame(TaskSkipped("nobody", "why"))}, "KeyError: 'nobody'"),
}


async def damaged(stage: Stage, engine: Engine, *, after: int = 10, **fields: Any) -> str:
    """A job that comes due in so many seconds and cannot be read then."""
    job_id = await engine.submit(task("a"), not_before=START + after * SECOND, **fields)
    stage.ledger.damage(job_id, newest=b"\xff")
    return job_id


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_job_that_cannot_be_read_is_set_aside_and_the_others_go_on(damage: str) -> None:
    stage = Stage()
    bytes_of, cause = DAMAGE[damage]
    async with stage.engine(lease_seconds=100, max_replay_failures=3) as engine:
        job_id = await engine.submit(task("a"), not_before=START + 10 * SECOND)
        stage.ledger.damage(job_id, **bytes_of)
        await anyio.sleep(11)
        assert isinstance((await engine.run(task("b")))[-1].event, JobSucceeded)
        assert (await engine.runner.job(job_id)).error is None
        await anyio.sleep(HOUR)
        assert isinstance((await engine.run(task("c")))[-1].event, JobSucceeded)
        told = [(name, fields) for name, fields in engine.ear.notices if name.startswith("job_")]
        assert [name for name, _ in told] == ["job_replay_failed", "job_replay_failed", "job_set_aside"]
        assert all(fields["job_id"] == job_id and cause in fields["error"] for _, fields in told)
        stands, run = await engine.runner.job_shown(job_id)
        assert run is None
        assert (stands.state, stands.error and stands.error.reason) == (JobState.QUEUED, "REPLAY_FAILED")
        assert stands.error is not None
        assert cause in stands.error.message
        assert stands.error.message.endswith("; start the version that wrote them, or cancel the job")
        assert await stage.ledger.set_aside() == 1
        assert await stage.ledger.rescue(now=START + 24 * HOUR * SECOND, limit=10) == 0


async def test_the_tries_are_a_lease_apart() -> None:
    stage = Stage()
    async with stage.engine(lease_seconds=100, poll_seconds=1, max_replay_failures=2) as engine:
        await damaged(stage, engine)
        await anyio.sleep(100)
        assert engine.ear.said("job_set_aside") == 0
        await anyio.sleep(20)
        assert engine.ear.said("job_set_aside") == 1


async def test_cancelling_one_that_is_set_aside_ends_it_with_a_record() -> None:
    stage, shelf = Stage(), Shelf()
    async with stage.engine(shelf, max_replay_failures=1) as engine:
        job_id = await damaged(stage, engine, labels={"team": "blue"})
        await anyio.sleep(60)
        assert engine.ear.said("job_set_aside") == 1
        await engine.runner.cancel(job_id, "cannot be mended")
        await shelf.arrived.wait(None)
        heard = engine.ear.heard[job_id][1:]
        assert kinds(heard) == ["JobStarted", "JobCancelling", "JobCancelled"]
        assert [entry.sequence for entry in heard] == [2, 3, 4]
    ended = await stage.ledger.job(job_id)
    assert (ended.state, ended.last_sequence, ended.error and ended.error.reason) == (
        JobState.CANCELLED,
        4,
        "REPLAY_FAILED",
    )
    assert await stage.ledger.set_aside() == 0
    assert verify(await stage.ledger.record(job_id)) is Verdict.OK
    record = await stage.record(job_id)
    assert (record["status"], record["title"], record["task_results"]) == ("failure", "Özet", {})
    assert record["summary"].startswith(
        "Cancelled: cannot be mended. What became of its only task is not known: alt-runner "
    )
    assert record["metadata"]["cancelled"] is True
    assert record["metadata"]["labels"] == {"team": "blue"}
    assert "the frame of events 1 to 1 is damaged" in record["metadata"]["unread"]
    assert [entry.job_id for entry in shelf.deliveries] == [job_id]


async def test_one_that_was_never_tried_is_cancelled_at_once() -> None:
    """Nobody could know yet that it cannot be read; not even its plan is there."""
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b"), not_before=START + HOUR * SECOND)
        stage.ledger.damage(job_id, plan=b"", newest=b"\xff")
        await engine.runner.cancel(job_id, "")
        await anyio.sleep(1)
        assert (await engine.runner.job(job_id)).state is JobState.CANCELLED
        assert engine.ear.said("job_replay_failed") == 1
    record = await stage.record(job_id)
    assert record["summary"].startswith("Cancelled. What became of its 2 tasks is not known: ")
    assert (record["alt_file_id"], record["descriptor_sha256"]) != ("", "")


async def test_one_that_waits_for_its_next_try_is_cancelled_at_once() -> None:
    stage = Stage()
    async with stage.engine(lease_seconds=HOUR) as engine:
        job_id = await damaged(stage, engine)
        await anyio.sleep(60)
        assert engine.ear.said("job_replay_failed") == 1
        await engine.runner.cancel(job_id, "enough")
        await anyio.sleep(1)
        assert (await engine.runner.job(job_id)).state is JobState.CANCELLED


async def test_one_whose_deadline_passes_fails_with_a_record() -> None:
    stage = Stage()
    async with stage.engine(max_replay_failures=1) as engine:
        job_id = await damaged(stage, engine, deadline=START + 100 * SECOND)
        await anyio.sleep(99)
        assert (await engine.runner.job(job_id)).state is JobState.QUEUED
        await anyio.sleep(2)
        ended = await engine.runner.job(job_id)
    assert (ended.state, ended.error and ended.error.reason) == (JobState.FAILED, "DEADLINE_EXCEEDED")
    record = await stage.record(job_id)
    assert record["metadata"]["error"].startswith("DEADLINE_EXCEEDED: the job's deadline passed")
    assert "is not known: alt-runner" in record["summary"]


async def test_a_daemon_that_can_read_it_runs_it_from_where_it_stood() -> None:
    stage = Stage()
    async with stage.engine(max_replay_failures=1) as engine:
        job_id = await engine.submit(task("a"), not_before=START + 10 * SECOND)
        [frame] = await stage.ledger.frames(job_id, after=0, max_bytes=1)
        stage.ledger.damage(job_id, newest=UNKNOWN)
        await anyio.sleep(60)
        assert engine.ear.said("job_set_aside") == 1
    stage.ledger.damage(job_id, newest=frame.data)
    async with stage.ledger.running(), stage.engine() as engine:
        assert isinstance((await engine.end(job_id))[-1].event, JobSucceeded)
        assert (await engine.runner.job(job_id)).error is None
    assert stage.troupe.calls[f"{job_id}/a"] == 1


class Losing(MemoryLedger):
    """The first time that a job is set back, it was rescued a moment before."""

    lost = False

    async def set_back(self, failure: ReplayFailure) -> bool:
        if not self.lost:
            self.lost = True
            await self.rescue(now=START + 24 * HOUR * SECOND, limit=10)
        return await super().set_back(failure)


async def test_a_job_that_was_lost_meanwhile_is_not_counted() -> None:
    stage = Stage(Losing())
    async with stage.engine(max_replay_failures=2) as engine:
        await damaged(stage, engine)
        await anyio.sleep(60)
        told = [name for name, _ in engine.ear.notices]
        assert told == ["lease_lost", "job_replay_failed"]


async def test_what_needs_its_tasks_says_that_they_cannot_be_read() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await engine.end(job_id)
        stage.ledger.damage(job_id, newest=b"")
        with pytest.raises(JobUnreadable, match=f"job `{job_id}`: .*event . is missing"):
            await engine.runner.retry(Retry(job_id=job_id))
        again = await engine.runner.retry(Retry(job_id=job_id, whole=True))
        assert isinstance((await engine.end(again.job.id))[-1].event, JobSucceeded)
        stands, run = await engine.runner.job_shown(job_id)
        assert (stands.state, run) == (JobState.SUCCEEDED, None)


class Damaging(MemoryLedger):
    """Children of jobs are damaged as soon as they are there."""

    async def submit(self, jobs: Sequence[NewJob], *, max_queued: Mapping[str, int]) -> list[Submitted | Exception]:
        answers = await super().submit(jobs, max_queued=max_queued)
        for new in jobs:
            if PARENT in new.summary.labels:
                self.damage(new.summary.id, newest=b"\xff")
        return answers


async def parent_of_one_set_aside(stage: Stage, engine: Engine) -> tuple[str, str]:
    """A job that waits for its child, and the child."""
    descriptor = json.loads(submission(task("x")).descriptor)
    job_id = await engine.submit(task("run", parameters={"task_type": "job", "descriptor": descriptor}))
    await anyio.sleep(60)
    [child] = [job for job in await stage.ledger.jobs(JobQuery()) if job.labels.get(PARENT) == job_id]
    assert (child.state, child.error and child.error.reason) == (JobState.QUEUED, "REPLAY_FAILED")
    return job_id, child.id


async def test_a_task_whose_child_cannot_be_read_fails_once_that_is_cancelled() -> None:
    stage = Stage(Damaging())
    async with stage.engine(max_replay_failures=1) as engine:
        job_id, child = await parent_of_one_set_aside(stage, engine)
        await engine.runner.cancel(child, "cannot be mended")
        history = await engine.end(job_id)
    [failed] = only(history, TaskFailed)
    assert failed.failure.reason == "CHILD_LOST"
    assert "cannot read its plan or events" in failed.failure.message


async def test_a_child_that_cannot_be_read_ends_with_its_parent() -> None:
    stage = Stage(Damaging())
    async with stage.engine(max_replay_failures=1) as engine:
        job_id, child = await parent_of_one_set_aside(stage, engine)
        await engine.runner.cancel(job_id, "enough")
        assert kinds(await engine.end(job_id))[-1] == "JobCancelled"
        await anyio.sleep(60)
    assert (await stage.ledger.job(child)).state is JobState.CANCELLED
