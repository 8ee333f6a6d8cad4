"""A job that has ended, run once more."""

from __future__ import annotations

import json

import anyio
import pytest

from runner.core.errors import AttemptError, JobNotEnded, JobNotFound, NothingToRetry, QueueFull, RequestIdReused
from runner.core.events import (
    AttemptStarted,
    JobCancelled,
    JobPartiallySucceeded,
    JobSucceeded,
    TaskReused,
)
from runner.core.job import JobSummary
from runner.engine.again import RETRY_OF, Retry
from runner.engine.settings import QueueSettings
from runner.ports import Attempt, FileLeft, Outcome
from tests.engine.stage import Engine, Script, Stage, forever, kinds, only, task

pytestmark = pytest.mark.timeout(30)


async def failing(_: Attempt) -> Outcome:
    await anyio.lowlevel.checkpoint()
    raise AttemptError("BAD", "no", retryable=False)


def holding() -> tuple[Script, anyio.Event]:
    """A task that does not end, and what tells that it has begun."""
    begun = anyio.Event()

    async def script(attempt: Attempt) -> Outcome:
        begun.set()
        return await forever(attempt)

    return script, begun


async def retried(engine: Engine, job_id: str, **fields: object) -> JobSummary:
    return (await engine.runner.retry(Retry(job_id=job_id, **fields))).job  # type: ignore[arg-type]  # fields of Retry


async def test_only_what_did_not_succeed_runs_again_with_the_outputs_of_what_did() -> None:
    async def leave(_: Attempt) -> Outcome:
        return Outcome(output={"n": 1}, files=(FileLeft("page", b"bytes of it", "text/plain", "text"),))

    async def use(attempt: Attempt) -> Outcome:
        return Outcome(output=attempt.parameters["n"])

    stage = Stage()
    stage.troupe.scripts = {"a": leave, "b": failing}
    after = task("b", "a", parameters={"task_type": "scripted", "n": "${tasks.a.output.n}"})
    async with stage.engine() as engine:
        first = await engine.submit(task("a"), after, task("c", "b"), labels={"team": "x"})
        assert isinstance((await engine.end(first))[-1].event, JobPartiallySucceeded)
        stage.troupe.scripts["b"] = use
        new = await retried(engine, first)
        assert new.labels == {"team": "x", RETRY_OF: first}
        assert new.last_sequence == 2
        assert new.progress == pytest.approx(1 / 3)
        history = await engine.end(new.id)
        assert kinds(history)[:2] == ["JobAccepted", "TaskReused"]
        assert isinstance(history[-1].event, JobSucceeded)
        assert [event.task_id for event in only(history, AttemptStarted)] == ["b", "c"]
        record = await stage.record(new.id)
        [artifact] = only(history, TaskReused)[0].artifacts
        assert await engine.runner.artifact_bytes(new.id, artifact.id, offset=0, size=100) == b"bytes of it"
    assert record["task_results"]["a"]["output"] == {"n": 1}
    assert record["task_results"]["a"]["metadata"]["reused_from"] == first
    assert record["task_results"]["b"]["output"] == 1
    assert (record["status"], record["success_rate"]) == ("success", 1.0)
    assert stage.troupe.calls[f"{new.id}/a"] == 0


async def test_a_retry_of_a_retry_still_names_the_job_in_which_a_task_ran() -> None:
    stage = Stage()
    stage.troupe.scripts["b"] = failing
    async with stage.engine() as engine:
        first = await engine.submit(task("a"), task("b"))
        await engine.end(first)
        second = await retried(engine, first)
        await engine.end(second.id)
        third = await retried(engine, second.id)
        [reused] = only(await engine.end(third.id), TaskReused)
    assert (reused.job_id, third.labels[RETRY_OF]) == (first, second.id)


async def test_the_whole_runs_again_where_that_is_asked_for() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        first = await engine.submit(task("a"), task("b", "a"))
        await engine.end(first)
        with pytest.raises(NothingToRetry):
            await retried(engine, first)
        new = await retried(engine, first, whole=True)
        history = await engine.end(new.id)
    assert [event.task_id for event in only(history, AttemptStarted)] == ["a", "b"]
    assert only(history, TaskReused) == []


async def test_a_cancelled_job_goes_on_in_a_new_one_without_the_old_deadline() -> None:
    stage = Stage()
    stage.troupe.scripts["b"], begun = holding()
    async with stage.engine() as engine:
        first = await engine.submit(task("a"), task("b", "a"), deadline=stage.clock.now() + 10**9)
        await begun.wait()
        await engine.runner.cancel(first, "enough")
        assert isinstance((await engine.end(first))[-1].event, JobCancelled)
        del stage.troupe.scripts["b"]
        new = await retried(engine, first)
        assert (new.deadline, new.cancel_requested) == (None, False)
        assert isinstance((await engine.end(new.id))[-1].event, JobSucceeded)


async def test_what_cannot_be_retried_is_refused() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = forever
    async with stage.engine() as engine:
        running = await engine.submit(task("a"))
        with pytest.raises(JobNotEnded):
            await retried(engine, running)
        with pytest.raises(JobNotFound):
            await retried(engine, "nowhere")


async def test_a_request_id_makes_a_retry_safe_to_repeat() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = failing
    async with stage.engine() as engine:
        first = await engine.submit(task("a"))
        await engine.end(first)
        retry = Retry(job_id=first, request_id="r-1", traceparent="")
        made, again = await engine.runner.retry(retry), await engine.runner.retry(retry)
        assert (made.job.id, made.replayed, again.replayed) == (again.job.id, False, True)
        with pytest.raises(RequestIdReused):
            await retried(engine, first, request_id="r-1", whole=True)


async def test_a_retry_waits_in_its_queue_like_any_job() -> None:
    stage = Stage()
    stage.queues = {"default": QueueSettings(concurrency=1, max_queued=1)}
    hold, begun = holding()
    stage.troupe.scripts = {"a": failing, "hold": hold}
    async with stage.engine() as engine:
        first = await engine.submit(task("a"))
        await engine.end(first)
        await engine.submit(task("hold"))
        await begun.wait()
        await retried(engine, first)
        with pytest.raises(QueueFull):
            await retried(engine, first)


async def test_outputs_by_the_thousand_come_along_in_frames_of_bounded_size() -> None:
    stage = Stage()
    stage.set(max_concurrent_tasks=100)

    async def large(_: Attempt) -> Outcome:
        return Outcome(output="x" * 2_000)

    names = [f"t{n}" for n in range(600)]
    stage.troupe.scripts = {"bad": failing, **dict.fromkeys(names, large)}
    async with stage.engine() as engine:
        first = await engine.submit(task("bad"), *(task(name) for name in names))
        await engine.end(first)
        del stage.troupe.scripts["bad"]
        new = await retried(engine, first)
        assert isinstance((await engine.end(new.id))[-1].event, JobSucceeded)
        stored = await stage.ledger.frames(new.id, after=0, max_bytes=1 << 40)
    assert len(stored) > 3
    assert max(len(frame.data) for frame in stored) < 512 * 1024
    assert len(json.dumps(await stage.record(new.id))) > 600 * 2_000
