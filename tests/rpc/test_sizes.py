"""Whatever jobs hold, responses stay below what gRPC's clients take by default: 4 MiB, and 8 KiB of trailers."""

from __future__ import annotations

import json
import threading
from typing import Any

import anyio
import grpc
import msgspec
import pytest
from altrunner.v1 import job_pb2
from altrunner.v1 import job_service_pb2 as messages
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

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
from runner.core.job import Change, JobSummary
from runner.core.plan import Priority
from runner.engine.settings import QueueSettings
from runner.rpc.wire import changes, full_job, page
from tests.rpc.test_service import alt, details, doing, names, refused, request

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


def test_tasks_beyond_3_and_a_half_mib_are_left_out_of_a_view_and_counted() -> None:
    """Descriptions count as well; a loop may bring more tasks into being than any descriptor holds."""
    plan = decode(alt(*({"content": str(number)} for number in range(9_000)))).plan
    long = msgspec.structs.replace(
        plan, tasks=tuple(msgspec.structs.replace(task, description="x" * 1_000) for task in plan.tasks)
    )
    shown = full_job(summary(), JobRun(long))
    assert shown.ByteSize() < 4 << 20
    assert 3_000 < len(shown.tasks) < 4_000
    assert len(shown.tasks) + shown.tasks_left_out == shown.task_counts.total == 9_000


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


@pytest.mark.parametrize("letter", ["k", "ş", "🙂"])
async def test_rich_errors_survive_whatever_was_sent(daemon: Any, letter: str) -> None:
    """Trailers of more than 8 KiB are refused by gRPC: the code and all details would be lost."""
    long = letter * 20_000
    labels = {f"!{index} {letter * 40}": letter * 300 for index in range(500)}
    error = await refused(daemon.stub.SubmitJob(request(labels=labels)))
    told = details(error)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert told["ErrorInfo"].metadata["findings"] == "1001"
    assert 1 < len(told["BadRequest"].field_violations) < 500
    assert "(and 1000 more)" in str(error.details())
    for call in (
        daemon.stub.GetJob(messages.GetJobRequest(job_id=long)),
        anext(aiter(daemon.stub.ReadArtifact(messages.ReadArtifactRequest(job_id=long, artifact_id=long)))),
        daemon.stub.ListJobs(messages.ListJobsRequest(order_by=long)),
        daemon.stub.ListJobs(messages.ListJobsRequest(filter=f'{long} = "x"')),
        daemon.stub.SubmitJob(request(queue=long, request_id=long)),
        daemon.stub.SubmitJob(request(content_type=long)),
    ):
        error = await refused(call)
        assert error.code() in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}
        assert len(str(error.details())) < 1100


def test_a_page_of_jobs_ends_at_2_mib() -> None:
    labels = {f"label-{index}": "ş" * 255 for index in range(32)}
    jobs = page(summary(title="ş" * 1000, labels=labels) for _ in range(1000))
    size = messages.ListJobsResponse(jobs=jobs).ByteSize()
    assert 1.9 * (1 << 20) < size < 2.1 * (1 << 20)
    assert len(page([summary(title="x" * (3 << 20))] * 2)) == 1


def test_changes_are_told_in_responses_of_2_mib() -> None:
    labels = {f"label-{index}": "ş" * 255 for index in range(32)}
    entries = [Change(cursor, summary(labels=labels), JobState.RUNNING, 2) for cursor in range(1, 501)]
    responses = list(changes(entries, 700))
    assert max(response.ByteSize() for response in responses) < 2.1 * (1 << 20)
    assert sum(len(response.changes) for response in responses) == 500
    assert [int(response.cursor) for response in responses[:-1]] == [
        sum(len(earlier.changes) for earlier in responses[: index + 1]) for index in range(len(responses) - 1)
    ]
    assert responses[-1].cursor == "700"


async def test_a_list_that_is_cut_goes_on_where_it_was_cut(daemon: Any) -> None:
    labels = {f"label-{index}": "ş" * 255 for index in range(32)}
    batch = messages.BatchSubmitJobsRequest(requests=[request(labels=labels) for _ in range(200)])
    ids = {result.accepted.job.job_id for result in (await daemon.stub.BatchSubmitJobs(batch)).results}
    first = await daemon.stub.ListJobs(messages.ListJobsRequest(page_size=1000))
    assert 100 < len(first.jobs) < 200
    rest = await daemon.stub.ListJobs(messages.ListJobsRequest(page_size=1000, page_token=first.next_page_token))
    assert not rest.next_page_token
    assert {job.job_id for job in [*first.jobs, *rest.jobs]} == ids
    assert len(first.jobs) + len(rest.jobs) == 200


def yaml_of(size: int) -> bytes:
    task = "  - id: t{0}\n    description: 'a task that is written down at some length, as tasks are'\n"
    head = "id: a\nversion: '1.0'\ntitle: A test\ncreated_at: 2026-01-01T00:00:00Z\ntasks:\n"
    return (head + "".join(task.format(index) for index in range(size // len(task)))).encode()


class Seen(dict[str, QueueSettings]):
    """Queues that tell on which thread, and at which turn of the event loop, they were looked up."""

    def __init__(self) -> None:
        super().__init__(default=QueueSettings())
        self.turn = 0
        self.lookups: list[tuple[bool, int]] = []

    def __contains__(self, name: object) -> bool:
        self.lookups.append((threading.current_thread() is threading.main_thread(), self.turn))
        return super().__contains__(name)

    async def count(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            self.turn += 1
            await checkpoint()


@pytest.mark.parametrize(
    ("descriptors", "on_the_loop"),
    [
        ([yaml_of(63_000)] * 3, False),
        ([yaml_of(5_000)], False),
        ([alt(description="x" * 40_000)] * 2, False),
        ([alt(description="x" * 40_000)], True),
        ([alt()] * 10, True),
        ([yaml_of(1_000)] * 10, True),
    ],
)
async def test_only_what_is_quick_is_decoded_on_the_event_loop(
    start: Any, descriptors: list[bytes], on_the_loop: bool
) -> None:
    """And the loop takes a turn after each: nobody waits for a whole batch."""
    queues = Seen()
    async with start(undefined=False) as daemon, anyio.create_task_group() as tasks:
        daemon.runner.limit_queues(queues)
        await tasks.start(queues.count)
        batch = messages.BatchSubmitJobsRequest(requests=map(request, descriptors))
        answer = await daemon.stub.BatchSubmitJobs(batch)
        tasks.cancel_scope.cancel()
    assert all(result.HasField("accepted") for result in answer.results)
    assert [on_main for on_main, _ in queues.lookups] == [on_the_loop] * len(descriptors)
    if on_the_loop:
        assert len({turn for _, turn in queues.lookups}) == len(descriptors)
