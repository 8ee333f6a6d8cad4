"""The JobService over a real channel."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
from altrunner.v1 import event_pb2, job_pb2
from altrunner.v1 import job_service_pb2 as messages
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runner.core.alt import DescriptorLimits
from runner.core.filters import _binding
from runner.engine.settings import QueueSettings

pytestmark = pytest.mark.anyio


def alt(*tasks: dict[str, Any], **fields: Any) -> bytes:
    """A descriptor of the dialect `tasks`."""
    numbered = [{"id": f"t{index}", "description": "a task"} | task for index, task in enumerate(tasks or ({},))]
    base = {"id": "alt_1", "version": "1.0", "title": "A test", "created_at": "2026-01-01T00:00:00Z", "tasks": numbered}
    return json.dumps(base | fields).encode()


def doing(what: str, **parameters: Any) -> dict[str, Any]:
    return {"parameters": {"do": what, **parameters}}


def request(descriptor: bytes = b"", **fields: Any) -> messages.SubmitJobRequest:
    return messages.SubmitJobRequest(descriptor=descriptor or alt(), **fields)


async def watched(daemon: Any, job_id: str, after: int = 0) -> AsyncIterator[event_pb2.JobEvent]:
    async for response in daemon.stub.WatchJob(messages.WatchJobRequest(job_id=job_id, after_sequence=after)):
        for event in response.events:
            yield event


async def names(daemon: Any, job_id: str, after: int = 0) -> list[str]:
    return [event.WhichOneof("event") or "" async for event in watched(daemon, job_id, after)]


async def record_of(daemon: Any, job_id: str) -> bytes:
    pieces = daemon.stub.GetLastRecord(messages.GetLastRecordRequest(job_id=job_id))
    return b"".join([piece.record_json async for piece in pieces])


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The rich status, by the detail's type; each type at most once."""
    found: dict[str, Any] = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for packed in status_pb2.Status.FromString(value).details:
                name = packed.type_url.rsplit(".", maxsplit=1)[-1]
                assert name not in found
                found[name] = getattr(error_details_pb2, name).FromString(packed.value)
    return found


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = details(caught.value)["ErrorInfo"]
    assert info.domain == "alt-runner"
    return caught.value


async def test_a_job_is_accepted_run_watched_and_recorded(daemon: Any) -> None:
    descriptor = alt(doing("stream", pieces=["Ham", "let"], answer={"n": 1}), {"dependencies": ["t0"]})
    accepted = await daemon.stub.SubmitJob(request(descriptor, labels={"team": "blue"}))
    assert (accepted.job.title, accepted.job.labels["team"], accepted.replayed) == ("A test", "blue", False)

    events = [event async for event in watched(daemon, accepted.job.job_id)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert "".join(event.attempt_output.text for event in events) == "Hamlet"
    assert events[-1].HasField("job_succeeded")

    job = (
        await daemon.stub.GetJob(messages.GetJobRequest(job_id=accepted.job.job_id, view=messages.JOB_VIEW_FULL))
    ).job
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert (job.progress, job.task_counts.succeeded, job.last_sequence) == (1.0, 2, len(events))
    assert json.loads(job.tasks[0].output_json) == {"n": 1}
    record = json.loads(await record_of(daemon, job.job_id))
    assert (record["status"], record["job_id"], set(record["task_results"])) == ("success", job.job_id, {"t0", "t1"})


async def test_a_watch_resumes_from_any_number_after_the_run(daemon: Any) -> None:
    job_id = (await daemon.stub.SubmitJob(request(alt({}, {"dependencies": ["t0"]})))).job.job_id
    whole = await names(daemon, job_id)
    for after in range(len(whole)):
        assert await names(daemon, job_id, after) == whole[after:]
    assert await names(daemon, job_id, len(whole)) == []
    error = await refused(anext(watched(daemon, job_id, len(whole) + 1)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    error = await refused(anext(watched(daemon, job_id, -1)))
    assert details(error)["BadRequest"].field_violations[0].field == "after_sequence"


async def test_caught_up_separates_replay_from_live(daemon: Any) -> None:
    job_id = (await daemon.stub.SubmitJob(request(alt(doing("hold"))))).job.job_id
    await daemon.stage.holding.wait()
    call = daemon.stub.WatchJob(messages.WatchJobRequest(job_id=job_id))
    seen: list[str] = []
    async for response in call:
        if response.HasField("caught_up"):
            seen.append(f"caught up at {response.caught_up.last_sequence}")
            daemon.stage.opened.set()
        seen += [event.WhichOneof("event") for event in response.events]
    assert seen[:4] == ["job_accepted", "job_started", "attempt_started", "caught up at 3"]
    assert seen[4:] == ["attempt_succeeded", "job_succeeded"]


async def test_a_silent_watch_has_heartbeats(start: Any) -> None:
    async with start(heartbeat=0.02) as daemon:
        job_id = (await daemon.stub.SubmitJob(request(alt(doing("hold"))))).job.job_id
        beats = 0
        async for response in daemon.stub.WatchJob(messages.WatchJobRequest(job_id=job_id)):
            beats += response.HasField("heartbeat")
            if beats == 2:
                daemon.stage.opened.set()
        assert beats >= 2


async def test_submitting_twice_is_harmless(daemon: Any) -> None:
    """Promise 2: same id and body, the same job; another body, an error."""
    first = await daemon.stub.SubmitJob(request(request_id="r-1"))
    again = await daemon.stub.SubmitJob(request(request_id="r-1"))
    assert again.replayed
    assert again.job.job_id == first.job.job_id
    error = await refused(daemon.stub.SubmitJob(request(request_id="r-1", queue="other")))
    assert error.code() == grpc.StatusCode.ALREADY_EXISTS
    assert details(error)["ErrorInfo"].metadata["job_id"] == first.job.job_id


SEVEN_MISTAKES = b"""id: ''
version: '1.0'
title: Seven mistakes
created_at: yesterday
mode: dreem
tasks:
  - id: a
    description: first
    dependencies: [b]
  - id: b
    description: second
    dependencies: [a]
  - id: a
    description: a double
  - id: d
    description: fourth
    retry_count: 256
    dependencies: [bb]
"""


async def test_seven_mistakes_get_seven_findings_each_in_its_place(daemon: Any) -> None:
    error = await refused(daemon.stub.SubmitJob(request(SEVEN_MISTAKES, content_type="application/yaml")))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    found = {
        (violation.reason, violation.field): violation.description
        for violation in details(error)["BadRequest"].field_violations
    }
    assert len(found) == 7
    lines = {field: description.split(":")[0] for (_, field), description in found.items()}
    assert lines["id"] == "1"
    assert lines["created_at"] == "4"
    assert lines["mode"] == "5"
    assert lines["tasks[2].id"] == "13"
    assert lines["tasks[3].retry_count"] == "17"
    assert lines["tasks[3].dependencies[0]"] == "18"
    assert "Did you mean `dream`?" in next(told for (_, field), told in found.items() if field == "mode")
    assert any("a → b → a" in description or "b → a → b" in description for description in found.values())


async def test_validate_only_stores_nothing(daemon: Any) -> None:
    answer = await daemon.stub.SubmitJob(request(alt(surprise=1), validate_only=True))
    assert [warning.reason for warning in answer.warnings] == ["UNKNOWN_FIELD"]
    assert not answer.HasField("job")
    assert not (await daemon.stub.ListJobs(messages.ListJobsRequest())).jobs


async def test_the_bad_ones_of_a_batch_do_not_spoil_the_good_ones(daemon: Any) -> None:
    requests = [
        request(request_id="one"),
        request(b"{", content_type="application/json"),
        request(request_id="one"),
        request(alt(title="")),
        request(request_id="one", queue="other"),
    ]
    answer = await daemon.stub.BatchSubmitJobs(messages.BatchSubmitJobsRequest(requests=requests))
    first, broken, again, blank, clash = answer.results
    assert again.accepted.replayed
    assert again.accepted.job.job_id == first.accepted.job.job_id
    assert broken.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert (broken.error.findings[0].line, broken.error.findings[0].path) == (1, "")
    assert [finding.path for finding in blank.error.findings] == ["title"]
    assert (clash.error.reason, clash.error.metadata["job_id"]) == ("REQUEST_ID_REUSED", first.accepted.job.job_id)
    fine = [request(request_id="fine"), request(validate_only=True), request(priority=99), request()]
    fine[3].deadline.seconds = 10**15
    answer = await daemon.stub.BatchSubmitJobs(messages.BatchSubmitJobsRequest(requests=fine))
    assert answer.results[0].HasField("accepted")
    told = [[finding.reason for finding in result.error.findings] for result in answer.results[1:]]
    assert told == [["NOT_IN_A_BATCH"], ["OUT_OF_RANGE"], ["OUT_OF_RANGE"]]
    too_many = messages.BatchSubmitJobsRequest(requests=[request()] * 1001)
    assert "engine.max_batch" in str((await refused(daemon.stub.BatchSubmitJobs(too_many))).details())


async def test_fields_of_the_call_are_checked_all_at_once(daemon: Any) -> None:
    labels = {"": "v", "k": "v" * 256, "nul": "\0"}
    wrong = request(queue="no spaces", request_id="x" * 129, labels=labels, inputs_json=b"[1]")
    wrong.deadline.FromSeconds(1)
    error = await refused(daemon.stub.SubmitJob(wrong))
    fields = {violation.field for violation in details(error)["BadRequest"].field_violations}
    assert fields == {"queue", "request_id", "labels.", "labels.k", "labels.nul", "inputs_json", "deadline"}


async def test_numbers_beyond_what_they_count_are_refused_and_no_defects(daemon: Any) -> None:
    late, early, split = request(), request(), request(priority=99)
    late.deadline.seconds = 10**15
    early.not_before.seconds = -(10**15)
    split.not_before.nanos = -1
    job_id = (await daemon.stub.SubmitJob(request())).job.job_id
    whole = msgspec.msgpack.encode((_binding("", ""), 2**63, "x"))
    token = base64.urlsafe_b64encode(whole).rstrip(b"=").decode()
    for call, fields in (
        (daemon.stub.SubmitJob(late), {"deadline"}),
        (daemon.stub.SubmitJob(early), {"not_before"}),
        (daemon.stub.SubmitJob(split), {"priority", "not_before"}),
        (anext(watched(daemon, job_id, 2**63 - 1)), {"after_sequence"}),
        (anext(watched(daemon, job_id, 2**63 - 2)), {"after_sequence"}),
        (daemon.stub.ListJobs(messages.ListJobsRequest(page_token=token)), {"page_token"}),
        (daemon.stub.GetJob(messages.GetJobRequest.FromString(b"\x10\x63")), {"view"}),
    ):
        error = await refused(call)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert {violation.field for violation in details(error)["BadRequest"].field_violations} == fields


async def test_a_repetition_succeeds_whatever_has_changed_since(start: Any) -> None:
    """Promise 2: the deadline is over, the queue is gone, and the descriptor would be too large now."""
    mortal = request(request_id="mortal", queue="mail")
    mortal.deadline.FromSeconds(int(time.time()) + 3600)
    large = request(request_id="large")
    async with start(mail=QueueSettings()) as daemon:
        jobs = [(await daemon.stub.SubmitJob(sent)).job.job_id for sent in (mortal, large)]
        for job_id in jobs:
            await names(daemon, job_id)
    now: dict[str, Any] = {"limits": DescriptorLimits(max_bytes=10), "undefined": False, "default": QueueSettings()}
    async with start(ahead=7200, **now) as daemon:
        for sent, job_id in zip((mortal, large), jobs, strict=True):
            again = await daemon.stub.SubmitJob(sent)
            assert (again.replayed, again.job.job_id) == (True, job_id)
        batch = await daemon.stub.BatchSubmitJobs(messages.BatchSubmitJobsRequest(requests=[mortal, large]))
        assert [result.accepted.job.job_id for result in batch.results] == jobs
        other = request(alt(title="Another"), request_id="large")
        assert (await refused(daemon.stub.SubmitJob(other))).code() == grpc.StatusCode.ALREADY_EXISTS
        fresh = request(request_id="new", queue="mail")
        assert details(await refused(daemon.stub.SubmitJob(fresh)))["ErrorInfo"].reason == "INVALID_REQUEST"
        fresh = request(request_id="new")
        assert details(await refused(daemon.stub.SubmitJob(fresh)))["ErrorInfo"].reason == "INVALID_DESCRIPTOR"


async def test_a_full_queue_says_when_to_come_back(start: Any) -> None:
    async with start(default=QueueSettings(concurrency=1, max_queued=1)) as daemon:
        await daemon.stub.SubmitJob(request(alt(doing("hold"))))
        await daemon.stage.holding.wait()
        await daemon.stub.SubmitJob(request())
        error = await refused(daemon.stub.SubmitJob(request()))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        told = details(error)
        assert told["RetryInfo"].retry_delay.ToMilliseconds() > 0
        assert told["QuotaFailure"].violations[0].subject == "queue:default"


async def test_a_running_job_is_cancelled_and_recorded(daemon: Any) -> None:
    job_id = (await daemon.stub.SubmitJob(request(alt(doing("hold"))))).job.job_id
    await daemon.stage.holding.wait()
    job = (await daemon.stub.CancelJob(messages.CancelJobRequest(job_id=job_id, reason="enough"))).job
    assert job.cancel_requested
    assert (await names(daemon, job_id))[-3:] == ["job_cancelling", "task_cancelled", "job_cancelled"]
    again = (await daemon.stub.CancelJob(messages.CancelJobRequest(job_id=job_id, reason="again"))).job
    assert again.state == job_pb2.JOB_STATE_CANCELLED
    assert json.loads(await record_of(daemon, job_id))["metadata"]["cancelled"] is True


async def test_a_queued_job_is_cancelled_although_its_queue_is_full(start: Any) -> None:
    async with start(default=QueueSettings(concurrency=1)) as daemon:
        await daemon.stub.SubmitJob(request(alt(doing("hold"))))
        await daemon.stage.holding.wait()
        job_id = (await daemon.stub.SubmitJob(request())).job.job_id
        await daemon.stub.CancelJob(messages.CancelJobRequest(job_id=job_id))
        assert (await names(daemon, job_id))[-1] == "job_cancelled"


async def test_what_does_not_exist_is_not_found(daemon: Any) -> None:
    stub = daemon.stub
    for call in (
        stub.GetJob(messages.GetJobRequest(job_id="nope")),
        stub.GetJob(messages.GetJobRequest(job_id="nope", view=messages.JOB_VIEW_FULL)),
        stub.CancelJob(messages.CancelJobRequest(job_id="nope")),
        anext(aiter(stub.GetLastRecord(messages.GetLastRecordRequest(job_id="nope")))),
        anext(watched(daemon, "nope")),
        anext(aiter(stub.ReadArtifact(messages.ReadArtifactRequest(job_id="nope", artifact_id="x")))),
    ):
        error = await refused(call)
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert details(error)["ResourceInfo"].resource_type in {"job", "artifact"}


async def test_a_failed_job_names_the_first_task_that_failed(daemon: Any) -> None:
    job_id = (await daemon.stub.SubmitJob(request(alt(doing("fail"), {"dependencies": ["t0"]}, {})))).job.job_id
    kinds = await names(daemon, job_id)
    assert kinds[-1] == "job_partially_succeeded"
    job = (await daemon.stub.GetJob(messages.GetJobRequest(job_id=job_id, view=messages.JOB_VIEW_FULL))).job
    assert (job.error.task_id, job.error.reason) == ("t0", "ON_PURPOSE")
    assert [task.state for task in job.tasks] == [
        job_pb2.TASK_STATE_FAILED,
        job_pb2.TASK_STATE_CANCELLED,
        job_pb2.TASK_STATE_SUCCEEDED,
    ]


async def test_lists_come_in_pages_bound_to_their_filter(daemon: Any) -> None:
    ids = []
    for index in range(5):
        submitted = request(labels={"parity": "odd" if index % 2 else "even"})
        ids.append((await daemon.stub.SubmitJob(submitted)).job.job_id)
        await names(daemon, ids[-1])
    where = 'labels.parity = "even" AND state = SUCCEEDED'
    page = await daemon.stub.ListJobs(messages.ListJobsRequest(page_size=2, filter=where))
    rest = await daemon.stub.ListJobs(
        messages.ListJobsRequest(page_size=2, filter=where, page_token=page.next_page_token)
    )
    assert [job.job_id for job in [*page.jobs, *rest.jobs]] == [ids[4], ids[2], ids[0]]
    assert not rest.next_page_token
    for wrong in (
        messages.ListJobsRequest(filter="state = RUNING"),
        messages.ListJobsRequest(page_token=page.next_page_token),
        messages.ListJobsRequest(page_size=-1),
        messages.ListJobsRequest(order_by="colour"),
    ):
        assert (await refused(daemon.stub.ListJobs(wrong))).code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_artifact_is_read_in_chunks_from_any_offset(daemon: Any) -> None:
    size = 150_000
    job_id = (await daemon.stub.SubmitJob(request(alt(doing("leave", size=size))))).job.job_id
    events = [event async for event in watched(daemon, job_id)]
    (artifact,) = next(event.attempt_succeeded for event in events if event.HasField("attempt_succeeded")).artifacts
    read = messages.ReadArtifactRequest(job_id=job_id, artifact_id=artifact.artifact_id)
    chunks = [response async for response in daemon.stub.ReadArtifact(read)]
    assert chunks[0].artifact.size_bytes == size
    assert [len(response.chunk) for response in chunks] == [65536, 65536, size - 131072]
    read.offset = size - 10
    assert [len(response.chunk) async for response in daemon.stub.ReadArtifact(read)] == [10]
    read.offset = size + 1
    assert (await refused(anext(aiter(daemon.stub.ReadArtifact(read))))).code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_state_changes_of_all_jobs_are_followed_from_a_cursor(daemon: Any) -> None:
    first = (await daemon.stub.SubmitJob(request())).job.job_id
    await names(daemon, first)
    call = daemon.stub.WatchJobs(messages.WatchJobsRequest(from_start=True))
    states: list[int] = []
    cursor = ""
    async for response in call:
        states += [change.state for change in response.changes]
        cursor = response.cursor
        if job_pb2.JOB_STATE_SUCCEEDED in states:
            break
    assert states == [job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_SUCCEEDED]
    second = (await daemon.stub.SubmitJob(request())).job.job_id
    async for response in daemon.stub.WatchJobs(messages.WatchJobsRequest(after_cursor=cursor)):
        assert {change.job.job_id for change in response.changes} <= {second}
        if any(change.state == job_pb2.JOB_STATE_SUCCEEDED for change in response.changes):
            break
    error = await refused(anext(aiter(daemon.stub.WatchJobs(messages.WatchJobsRequest(after_cursor="x")))))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_watchers_are_sent_away_when_the_daemon_drains(daemon: Any) -> None:
    """They see the job given back, and then UNAVAILABLE; never an OK without the terminal event."""
    job_id = (await daemon.stub.SubmitJob(request(alt(doing("hold"))))).job.job_id
    await daemon.stage.holding.wait()
    seen: list[str] = []

    async def watch_through_the_drain() -> None:
        async for response in daemon.stub.WatchJob(messages.WatchJobRequest(job_id=job_id)):
            seen.extend(event.WhichOneof("event") for event in response.events)
            if response.HasField("caught_up"):
                await daemon.runner.drain()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch_through_the_drain()
    assert seen[-1] == "job_released"
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert details(caught.value)["ErrorInfo"].reason == "DRAINING"
    assert (await refused(daemon.stub.SubmitJob(request()))).code() == grpc.StatusCode.UNAVAILABLE


async def test_health_tells_overall_and_for_the_service(daemon: Any) -> None:
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "altrunner.v1.JobService"):
            asked = health_pb2.HealthCheckRequest(service=service)
            assert (await stub.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await daemon.server.set_serving(serving=True)
            assert (await stub.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
            await daemon.server.set_serving(serving=False)


async def test_a_job_that_failed_is_retried_as_a_new_one(daemon: Any) -> None:
    failing = alt({}, doing("fail", reason="BAD"))
    job_id = (await daemon.stub.SubmitJob(request(failing, labels={"team": "blue"}))).job.job_id
    assert (await names(daemon, job_id))[-1] == "job_partially_succeeded"
    call = messages.RetryJobRequest(job_id=job_id, request_id="again")
    made, again = await daemon.stub.RetryJob(call), await daemon.stub.RetryJob(call)
    assert (made.replayed, again.replayed, again.job.job_id) == (False, True, made.job.job_id)
    assert dict(made.job.labels) == {"team": "blue", "alt-runner/retry-of": job_id}
    told = await names(daemon, made.job.job_id)
    assert told[:2] == ["job_accepted", "task_reused"]
    assert told.count("attempt_started") == 1
    full = messages.GetJobRequest(job_id=made.job.job_id, view=messages.JOB_VIEW_FULL)
    assert [task.reused_from for task in (await daemon.stub.GetJob(full)).job.tasks] == [job_id, ""]
    found = await daemon.stub.ListJobs(messages.ListJobsRequest(filter=f'labels.alt-runner/retry-of = "{job_id}"'))
    assert [job.job_id for job in found.jobs] == [made.job.job_id]


async def test_what_cannot_be_retried_says_why(daemon: Any) -> None:
    job_id = (await daemon.stub.SubmitJob(request(alt(doing("hold"))))).job.job_id
    error = await refused(daemon.stub.RetryJob(messages.RetryJobRequest(job_id=job_id)))
    assert (error.code(), details(error)["ErrorInfo"].reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "JOB_NOT_ENDED",
    )
    done = (await daemon.stub.SubmitJob(request())).job.job_id
    await names(daemon, done)
    error = await refused(daemon.stub.RetryJob(messages.RetryJobRequest(job_id=done)))
    assert details(error)["ErrorInfo"].reason == "NOTHING_TO_RETRY"
    error = await refused(daemon.stub.RetryJob(messages.RetryJobRequest(job_id=done, request_id="x" * 129)))
    assert details(error)["BadRequest"].field_violations[0].field == "request_id"
    error = await refused(daemon.stub.RetryJob(messages.RetryJobRequest(job_id="nope")))
    assert error.code() == grpc.StatusCode.NOT_FOUND


async def test_a_person_answers_a_task_that_waits(daemon: Any) -> None:
    asking = {"parameters": {"task_type": "approval", "message": "Ship it?"}}
    job_id = (await daemon.stub.SubmitJob(request(alt(asking)))).job.job_id
    events = watched(daemon, job_id)
    async for event in events:
        if event.WhichOneof("event") == "attempt_parked":
            break
    assert event.attempt_parked.reason == job_pb2.WAIT_REASON_AWAITING_APPROVAL
    full = messages.GetJobRequest(job_id=job_id, view=messages.JOB_VIEW_FULL)
    [waiting] = (await daemon.stub.GetJob(full)).job.tasks
    assert (waiting.wait_reason, waiting.wait_message) == (job_pb2.WAIT_REASON_AWAITING_APPROVAL, "Ship it?")
    wrong = await refused(daemon.stub.SignalJob(messages.SignalJobRequest(job_id=job_id, task_id="t7", approved=True)))
    assert details(wrong)["BadRequest"].field_violations[0].field == "task_id"
    answer = messages.SignalJobRequest(
        job_id=job_id, task_id="t0", approved=True, comment="yes", sender="a", data_json=b"7"
    )
    assert (await daemon.stub.SignalJob(answer)).job.job_id == job_id
    rest = [event async for event in events]
    assert rest[0].WhichOneof("event") == "task_signalled"
    assert (rest[0].task_signalled.comment, rest[0].task_signalled.sender) == ("yes", "a")
    assert rest[-1].WhichOneof("event") == "job_succeeded"
    error = await refused(daemon.stub.SignalJob(answer))
    assert (error.code(), details(error)["ErrorInfo"].reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_HAS_ENDED")


async def test_a_token_budget_is_taken_and_shown(daemon: Any) -> None:
    accepted = await daemon.stub.SubmitJob(request(token_budget=700))
    full = messages.GetJobRequest(job_id=accepted.job.job_id, view=messages.JOB_VIEW_FULL)
    assert (await daemon.stub.GetJob(full)).job.token_budget == 700
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.stub.SubmitJob(request(token_budget=-1))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "token_budget" in (refused.value.details() or "")


async def test_what_ai_calls_used_is_in_the_full_view(daemon: Any) -> None:
    accepted = await daemon.stub.SubmitJob(request(alt(doing("usage"))))
    async for _ in watched(daemon, accepted.job.job_id):
        pass
    full = messages.GetJobRequest(job_id=accepted.job.job_id, view=messages.JOB_VIEW_FULL)
    usage = (await daemon.stub.GetJob(full)).job.usage
    assert (usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (1, 2, 3, 5)
