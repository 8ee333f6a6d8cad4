"""PauseJob and ResumeJob over a real channel."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from altrunner.v1 import event_pb2, job_pb2
from altrunner.v1 import job_service_pb2 as messages

from tests.rpc.test_service import alt, details, doing, names, refused, request, watched

pytestmark = pytest.mark.anyio


async def pause(daemon: Any, job_id: str) -> job_pb2.Job:
    job: job_pb2.Job = (await daemon.stub.PauseJob(messages.PauseJobRequest(job_id=job_id))).job
    return job


async def resume(daemon: Any, job_id: str) -> job_pb2.Job:
    job: job_pb2.Job = (await daemon.stub.ResumeJob(messages.ResumeJobRequest(job_id=job_id))).job
    return job


async def until(daemon: Any, job_id: str, kind: str, *, after: int = 0) -> event_pb2.JobEvent:
    async for event in watched(daemon, job_id, after):
        if event.WhichOneof("event") == kind:
            return event
    raise AssertionError(f"the job ended without {kind}")


async def test_a_job_is_paused_while_it_runs_and_goes_on(daemon: Any) -> None:
    held = doing("hold")
    job_id = (await daemon.stub.SubmitJob(request(alt(held, {"dependencies": ["t0"]})))).job.job_id
    await daemon.stage.holding.wait()
    asked = await pause(daemon, job_id)
    assert (asked.pause_requested, asked.job_id) == (True, job_id)
    paused = await until(daemon, job_id, "job_paused")
    found = await daemon.stub.ListJobs(messages.ListJobsRequest(filter="state = PAUSED"))
    assert [(job.job_id, job.state) for job in found.jobs] == [(job_id, job_pb2.JOB_STATE_PAUSED)]
    daemon.stage.opened.set()
    released = await until(daemon, job_id, "job_released", after=paused.sequence)
    assert released.job_released.reason == "paused"
    full = await daemon.stub.GetJob(messages.GetJobRequest(job_id=job_id, view=messages.JOB_VIEW_FULL))
    assert full.job.state == job_pb2.JOB_STATE_PAUSED
    assert [task.state for task in full.job.tasks] == [job_pb2.TASK_STATE_SUCCEEDED, job_pb2.TASK_STATE_PENDING]
    assert not (await resume(daemon, job_id)).pause_requested
    assert (await names(daemon, job_id, released.sequence))[0] == "job_resumed"
    assert (await names(daemon, job_id))[-1] == "job_succeeded"


async def test_asking_again_answers_the_job_as_it_is(daemon: Any) -> None:
    job_id = (await daemon.stub.SubmitJob(request(alt(doing("hold"))))).job.job_id
    await daemon.stage.holding.wait()
    assert not (await resume(daemon, job_id)).pause_requested
    await pause(daemon, job_id)
    await until(daemon, job_id, "job_paused")
    assert (await pause(daemon, job_id)).state == job_pb2.JOB_STATE_PAUSED
    await daemon.stub.CancelJob(messages.CancelJobRequest(job_id=job_id))
    told = await names(daemon, job_id)
    assert told.count("job_paused") == 1
    assert told[-1] == "job_cancelled"


async def test_those_who_watch_all_jobs_see_pauses(daemon: Any) -> None:
    job_id = (await daemon.stub.SubmitJob(request(alt(doing("hold"))))).job.job_id
    await daemon.stage.holding.wait()
    await pause(daemon, job_id)
    number = (await until(daemon, job_id, "job_paused")).sequence
    seen: list[tuple[int, int]] = []
    async for response in daemon.stub.WatchJobs(messages.WatchJobsRequest(from_start=True)):
        seen += [(change.state, change.sequence) for change in response.changes if change.job.job_id == job_id]
        if (job_pb2.JOB_STATE_PAUSED, number) in seen:
            break
    assert [state for state, _ in seen] == [
        job_pb2.JOB_STATE_QUEUED,
        job_pb2.JOB_STATE_RUNNING,
        job_pb2.JOB_STATE_PAUSED,
    ]
    daemon.stage.opened.set()
    # Nothing of it is left to do.
    assert (await names(daemon, job_id))[-1] == "job_succeeded"


@pytest.mark.parametrize("call", ["PauseJob", "ResumeJob"])
async def test_what_has_ended_or_is_not_there_is_refused(daemon: Any, call: str) -> None:
    ask = getattr(messages, f"{call}Request")
    job_id = (await daemon.stub.SubmitJob(request())).job.job_id
    await names(daemon, job_id)
    error = await refused(getattr(daemon.stub, call)(ask(job_id=job_id)))
    info = details(error)["ErrorInfo"]
    assert (error.code(), info.reason, info.metadata["job_id"]) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "JOB_HAS_ENDED",
        job_id,
    )
    error = await refused(getattr(daemon.stub, call)(ask(job_id="nope")))
    assert (error.code(), details(error)["ErrorInfo"].reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
