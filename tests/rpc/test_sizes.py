"""Whatever jobs hold, responses stay below what gRPC's clients take by default: 4 MiB, and 8 KiB of trailers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from altrunner.v1 import job_pb2
from altrunner.v1 import job_service_pb2 as messages

from runner.core.alt import decode
from runner.core.events import (
    AttemptStarted,
    AttemptSucceeded,
    Event,
    JobAccepted,
    JobStarted,
    JobState,
    Recorded,
)
from runner.core.interpreter import JobRun
from runner.core.job import JobSummary
from runner.core.plan import Priority
from runner.rpc.wire import full_job
from tests.rpc.test_service import alt, doing, names, request

pytestmark = pytest.mark.anyio

#: Stays inline, and is told in an event.
LARGE = 250_000


async def test_a_record_beyond_4_mib_comes_in_pieces_of_256_kib(daemon: Any) -> None:
    carried = {f"part {index}": "x" * 1_000_000 for index in range(3)}
    descriptor = alt(*(doing("write", size=LARGE) for _ in range(8)), metadata=carried)
    job_id = (await daemon.stub.SubmitJob(request(descriptor))).job.job_id
    await names(daemon, job_id)
    call = daemon.stub.GetLastRecord(messages.GetLastRecordRequest(job_id=job_id))
    pieces = [piece.record_json async for piece in call]
    assert len(b"".join(pieces)) > 4 << 20
    assert {len(piece) for piece in pieces[:-1]} == {256 * 1024}
    assert json.loads(b"".join(pieces))["job_id"] == job_id


def test_outputs_beyond_2_mib_are_left_out_of_a_view_and_said_to_be() -> None:
    """Whatever the engine's settings let stand in events."""
    plan = decode(alt(*({} for _ in range(11)))).plan
    outputs = {f"t{index}": json.dumps("x" * LARGE).encode() for index in range(9)} | {"t9": b"1", "t10": b"2"}
    events: list[Event] = [
        JobAccepted(plan.title, len(outputs), "default", plan.priority),
        JobStarted("runner", 1),
        *(AttemptStarted(task, 1, "delay") for task in outputs),
        *(AttemptSucceeded(task, attempt=1, output=output) for task, output in outputs.items()),
    ]
    run = JobRun(plan)
    run.replay(Recorded(sequence, sequence, event) for sequence, event in enumerate(events, start=1))
    tasks = full_job(summary(), run).tasks
    assert [task.task_id for task in tasks if task.output_left_out] == ["t8"]
    assert [task.output_json for task in tasks[8:]] == [b"", b"1", b"2"]


def summary(**fields: Any) -> JobSummary:
    known: dict[str, Any] = {
        "id": "job",
        "alt_id": "alt",
        "title": "A test",
        "state": JobState.RUNNING,
        "priority": Priority.MEDIUM,
        "queue": "default",
        "labels": {},
        "request_id": "",
        "created_at": 1,
        "started_at": 2,
        "ended_at": None,
        "not_before": None,
        "deadline": None,
        "progress": 0.0,
        "last_sequence": 2,
        "error": None,
        "cancel_requested": False,
        "task_count": 1,
        "descriptor_sha256": "",
    }
    return JobSummary(**(known | fields))


async def test_an_output_that_became_an_artifact_is_named(daemon: Any) -> None:
    descriptor = alt(doing("write", size=300_000))
    job_id = (await daemon.stub.SubmitJob(request(descriptor))).job.job_id
    await names(daemon, job_id)
    asked = messages.GetJobRequest(job_id=job_id, view=messages.JOB_VIEW_FULL)
    (task,) = (await daemon.stub.GetJob(asked)).job.tasks
    assert (task.state, task.output_json, task.output_left_out) == (job_pb2.TASK_STATE_SUCCEEDED, b"", False)
    read = messages.ReadArtifactRequest(job_id=job_id, artifact_id=task.output_artifact_id)
    output = b"".join([piece.chunk async for piece in daemon.stub.ReadArtifact(read)])
    assert json.loads(output) == "x" * 300_000
