"""Tasks that wait for a person."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import anyio
import pytest

from runner import frames
from runner.core.errors import AlreadyAnswered, InvalidRequest, JobHasEnded, JobNotFound
from runner.core.events import (
    AttemptParked,
    JobCancelled,
    JobFailed,
    JobPartiallySucceeded,
    JobSucceeded,
    TaskSignalled,
    WaitReason,
)
from runner.core.job import Frame, Signal
from tests.engine.stage import Engine, Stage, kinds, only, task, times

pytestmark = pytest.mark.timeout(30)
DAY = 86_400


def approval(name: str = "ask", *dependencies: str, **parameters: Any) -> dict[str, Any]:
    return task(name, *dependencies, parameters={"task_type": "approval", **parameters})


async def waiting(engine: Engine, job_id: str, name: str = "ask") -> None:
    """Until the task waits for its answer."""
    async with aclosing(engine.runner.watch(job_id, heartbeat=10 * DAY)) as stream:
        async for piece in stream:
            parked = only(frames.decode([piece]), AttemptParked) if isinstance(piece, Frame) else []
            if any(event.task_id == name for event in parked):
                return


async def test_a_task_waits_for_days_without_a_slot_until_somebody_approves() -> None:
    stage = Stage()
    async with stage.engine(max_concurrent_tasks=1) as engine:
        job_id = await engine.submit(approval(message="Send it?"), task("send", "ask"), task("other"))
        await waiting(engine, job_id)
        await anyio.sleep(3 * DAY)
        await engine.runner.signal(job_id, Signal("ask", approved=True, comment="fine", sender="a", data=b'{"n":1}'))
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    [parked] = only(history, AttemptParked)
    assert (parked.reason, parked.message) == (WaitReason.AWAITING_APPROVAL, "Send it?")
    assert kinds(history, of="ask") == [
        "AttemptStarted", "AttemptParked", "TaskSignalled", "AttemptStarted", "AttemptSucceeded"
    ]  # fmt: skip
    assert times(history, TaskSignalled) == [pytest.approx(3 * DAY, abs=1)]
    output = (await stage.record(job_id))["task_results"]["ask"]["output"]
    assert output == {"approved": True, "by": "a", "comment": "fine", "data": {"n": 1}}


async def test_a_rejection_fails_the_task_and_what_waits_for_it_does_not_run() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(approval(), task("send", "ask"), task("other"))
        await waiting(engine, job_id)
        await engine.runner.signal(job_id, Signal("ask", approved=False, comment="not yet", sender="b"))
        history = await engine.end(job_id)
    end = history[-1].event
    assert isinstance(end, JobPartiallySucceeded)
    assert (end.error.reason, end.error.message) == ("NOT_APPROVED", "rejected by b: not yet")
    assert kinds(history, of="send") == ["TaskCancelled"]


async def test_a_rejection_may_be_an_output_like_any_other() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(approval(on_reject="continue"), task("then", "ask"))
        await waiting(engine, job_id)
        await engine.runner.signal(job_id, Signal("ask", approved=False))
        assert isinstance((await engine.end(job_id))[-1].event, JobSucceeded)
    assert (await stage.record(job_id))["task_results"]["ask"]["output"]["approved"] is False


@pytest.mark.parametrize(("default", "end"), [("approve", JobSucceeded), ("reject", JobFailed), ("fail", JobFailed)])
async def test_where_nobody_answers_in_time_the_default_counts(default: str, end: type) -> None:
    stage = Stage()
    async with stage.engine() as engine:
        history = await engine.run(approval(deadline_seconds=DAY, default=default))
    assert isinstance(history[-1].event, end)
    assert (history[-1].time - history[0].time) / 1e6 == pytest.approx(DAY, abs=1)


async def test_an_answer_may_come_before_the_question() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("first", parameters={"task_type": "scripted"}), approval("ask", "first"))
        await engine.runner.signal(job_id, Signal("ask", approved=True))
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert only(history, AttemptParked) == []


async def test_an_answer_outlives_the_engine_that_took_it() -> None:
    """The time until the answer counts goes on, too: it is the task's, not the engine's."""
    stage = Stage()
    engine = stage.make()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.live)
        job_id = await engine.submit(approval(deadline_seconds=DAY), task("send", "ask"))
        await waiting(engine, job_id)
        await engine.kill()
    # Nobody runs the job when the answer comes.
    await stage.ledger.signal(job_id, Signal("ask", approved=True))
    stage.ledger.thaw()
    async with stage.ledger.running(), stage.engine() as again:
        history = await again.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert len(only(history, TaskSignalled)) == 1


async def test_the_first_answer_counts() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(approval(), approval("other"))
        await waiting(engine, job_id)
        await engine.runner.signal(job_id, Signal("ask", approved=True))
        with pytest.raises(AlreadyAnswered):
            await engine.runner.signal(job_id, Signal("ask", approved=False))
        await engine.runner.signal(job_id, Signal("other", approved=True))
        history = await engine.end(job_id)
        assert [event.approved for event in only(history, TaskSignalled)] == [True, True]
        with pytest.raises(JobHasEnded):
            await engine.runner.signal(job_id, Signal("ask", approved=False))


async def test_a_job_that_waits_for_an_answer_can_be_cancelled() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(approval())
        await waiting(engine, job_id)
        await engine.runner.cancel(job_id, "never mind")
        assert isinstance((await engine.end(job_id))[-1].event, JobCancelled)


@pytest.mark.parametrize(
    ("signal", "reasons"),
    [
        (Signal("nobody", approved=True), ["UNKNOWN_TASK"]),
        (Signal("a", approved=True), ["NOT_AN_APPROVAL"]),
        (Signal("ask", approved=True, comment="x" * 1001, sender="a\0b"), ["TOO_LONG", "BAD_NAME"]),
        (Signal("ask", approved=True, data=b"{"), ["BAD_TYPE"]),
        (Signal("ask", approved=True, data=b'"' + b"x" * 65_536 + b'"'), ["TOO_LONG"]),
    ],
)
async def test_a_wrong_answer_is_told_with_all_that_is_wrong(signal: Signal, reasons: list[str]) -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), approval())
        with pytest.raises(InvalidRequest) as caught:
            await engine.runner.signal(job_id, signal)
        assert [finding.reason for finding in caught.value.findings] == reasons
        with pytest.raises(JobNotFound):
            await engine.runner.signal("nowhere", signal)
