"""protobuf ↔ core, for everything but events, which have a codec of their own (`runner.frames`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from altrunner.v1 import job_pb2, job_service_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2

from runner import frames
from runner.core.errors import RunnerError
from runner.core.events import JobState, TaskState, WaitReason
from runner.core.findings import Finding
from runner.core.interpreter import JobRun
from runner.core.job import Change, JobSummary
from runner.core.plan import Instant, Priority
from runner.core.runs import TaskRun
from runner.core.usage import usage_of
from runner.engine.runner import Accepted
from runner.engine.settings import DEFAULT_QUEUE
from runner.engine.submission import Submission
from runner.rpc.status import failure_of

#: Bytes of jobs in a page, of changes in a response, and of outputs in view FULL: every response has to stay below the
#: 4 MiB that gRPC's clients take by default.
MAX_BYTES: Final = 2 * 1024 * 1024
#: Bytes of tasks in view FULL, with their outputs.
MAX_VIEW_BYTES: Final = 7 * 1024 * 1024 // 2
_PRIORITY_NUMBERS: Final = frozenset(job_pb2.Priority.values())
PRIORITIES: Final = {priority.value: priority for priority in Priority}
STATES: Final = {state: job_pb2.JobState.ValueType(state) for state in JobState}


_TIMES: Final = {"start_time": "started_at", "end_time": "ended_at", "not_before": "not_before", "deadline": "deadline"}
#: Years 1 to 9999, as google.protobuf.Timestamp has them.
EARLIEST_SECOND: Final = -62_135_596_800
LATEST_SECOND: Final = 253_402_300_799
LAST_NANO: Final = 999_999_999


def submission(request: job_service_pb2.SubmitJobRequest, *, traceparent: str, in_batch: bool = False) -> Submission:
    """What a request asks for, with what of it cannot be asked for as its problems."""
    problems: list[Finding] = []
    if in_batch and request.validate_only:
        problems.append(Finding("NOT_IN_A_BATCH", "validate_only", "call SubmitJob for each instead"))
    if request.priority not in _PRIORITY_NUMBERS:
        problems.append(Finding("OUT_OF_RANGE", "priority", f"there is no priority {request.priority}"))
    return Submission(
        descriptor=request.descriptor,
        content_type=request.content_type,
        request_id=request.request_id,
        priority=PRIORITIES.get(request.priority),
        queue=request.queue or DEFAULT_QUEUE,
        labels=dict(request.labels),
        not_before=_time(request, "not_before", problems),
        deadline=_time(request, "deadline", problems),
        inputs=request.inputs_json,
        fail_fast=request.fail_fast if request.HasField("fail_fast") else None,
        token_budget=request.token_budget or None,
        problems=tuple(problems),
        traceparent=traceparent,
    )


def _time(
    request: job_service_pb2.SubmitJobRequest, name: Literal["not_before", "deadline"], problems: list[Finding]
) -> Instant | None:
    if not request.HasField(name):
        return None
    stamp: Timestamp = getattr(request, name)
    if EARLIEST_SECOND <= stamp.seconds <= LATEST_SECOND and 0 <= stamp.nanos <= LAST_NANO:
        return frames.instant(stamp)
    problems.append(Finding("OUT_OF_RANGE", name, "a time is in the years 1 to 9999, its nanos 0 to 999999999"))
    return None


def job(summary: JobSummary) -> job_pb2.Job:
    """View BASIC."""
    message = job_pb2.Job()
    _fill(message, summary)
    return message


def _fill(message: job_pb2.Job, summary: JobSummary) -> None:
    # Field by field, and only what is told: several times cheaper than keywords and copies of messages.
    message.job_id, message.alt_id, message.title = summary.id, summary.alt_id, summary.title
    message.state, message.queue = STATES[summary.state], summary.queue
    message.priority = job_pb2.Priority.ValueType(summary.priority)
    message.progress, message.last_sequence = summary.progress, summary.last_sequence
    message.task_count, message.descriptor_sha256 = summary.task_count, summary.descriptor_sha256
    if summary.labels:
        message.labels.update(summary.labels)
    if summary.request_id:
        message.request_id = summary.request_id
    if summary.cancel_requested:
        message.cancel_requested = True
    if summary.pause_requested:
        message.pause_requested = True
    if summary.error is not None:
        message.error.CopyFrom(frames.failure_message(summary.error))
    frames.stamp(message.create_time, summary.created_at)
    for name in _TIMES:
        instant = getattr(summary, _TIMES[name])
        if instant is not None:
            frames.stamp(getattr(message, name), instant)


def full_job(summary: JobSummary, run: JobRun | None) -> job_pb2.Job:
    """View FULL; without what cannot be read."""
    message = job(summary)
    if run is None:
        return message
    counts = run.counts
    message.task_counts.CopyFrom(
        job_pb2.TaskCounts(
            total=len(run.tasks),
            pending=counts[TaskState.PENDING],
            running=counts[TaskState.RUNNING],
            waiting=counts[TaskState.WAITING],
            succeeded=counts[TaskState.SUCCEEDED],
            failed=run.failed,
            cancelled=counts[TaskState.CANCELLED],
            skipped=counts[TaskState.SKIPPED],
        )
    )
    if run.plan.token_budget is not None:
        message.token_budget = run.plan.token_budget
    if (used := usage_of(run)) is not None:
        message.usage.CopyFrom(frames.usage_message(used))
    room, room_of_all = MAX_BYTES, MAX_VIEW_BYTES
    for task in run.bodies.in_order():
        shown = _task(task, with_output=len(task.output) <= room)
        room_of_all -= shown.ByteSize()
        if room_of_all < 0:
            message.tasks_left_out = len(run.tasks) - len(message.tasks)
            break
        room -= len(shown.output_json)
        message.tasks.append(shown)
    return message


def _task(run: TaskRun, *, with_output: bool) -> job_pb2.Task:
    message = job_pb2.Task(
        task_id=run.plan.id,
        description=run.plan.description,
        task_type=run.plan.kind,
        state=job_pb2.TaskState.ValueType(run.state),
        dependencies=run.plan.dependencies,
        attempts=len(run.attempts),
        progress=run.fraction,
        output_json=run.output if with_output else b"",
        output_left_out=not with_output,
        output_artifact_id=run.output_artifact_id,
        reused_from=run.reused_from,
    )
    _stamp(message.start_time, run.started_at)
    _stamp(message.end_time, run.ended_at)
    if run.state is TaskState.WAITING and run.wait_reason is not None:
        message.wait_reason = job_pb2.WaitReason.ValueType(run.wait_reason)
        # Of one that backs off, the message is what its last attempt told of its progress.
        message.wait_message = "" if run.wait_reason is WaitReason.BACKING_OFF else run.message
        _stamp(message.waiting_until, run.waiting_until)
    if run.failure is not None:
        message.failure.CopyFrom(frames.failure_message(run.failure))
    return message


def accepted(result: Accepted) -> job_service_pb2.SubmitJobResponse:
    response = job_service_pb2.SubmitJobResponse()
    _fill(response.job, result.job)
    if result.replayed:
        response.replayed = True
    if result.warnings:
        response.warnings.extend(map(frames.finding_message, result.warnings))
    return response


def batch_result(result: Accepted | Exception) -> job_service_pb2.BatchSubmitJobsResult:
    """One entry of a batch. Raises what is not an error of ours."""
    if isinstance(result, Accepted):
        return job_service_pb2.BatchSubmitJobsResult(accepted=accepted(result))
    if not isinstance(result, RunnerError):
        raise result
    failure = failure_of(result)
    error = job_service_pb2.BatchSubmitJobsError(
        code=code_pb2.Code.Value(failure.code.name),
        message=failure.message,
        reason=failure.reason,
        metadata=failure.metadata,
        findings=map(frames.finding_message, failure.findings),
    )
    if failure.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(round(failure.retry_after * 1e9))
        error.retry_delay.CopyFrom(delay)
    return job_service_pb2.BatchSubmitJobsResult(error=error)


def page(summaries: Iterable[JobSummary]) -> list[job_pb2.Job]:
    """The first jobs, view BASIC, at least one if there is any: as many as fit in a response."""
    jobs: list[job_pb2.Job] = []
    size = 0
    for summary in summaries:
        message = job(summary)
        size += message.ByteSize()
        if jobs and size > MAX_BYTES:
            break
        jobs.append(message)
    return jobs


def changes(page: Sequence[Change], cursor: int) -> Iterator[job_service_pb2.WatchJobsResponse]:
    """One response, or as many as it takes to keep each from growing too large."""
    response = job_service_pb2.WatchJobsResponse()
    size = 0
    for change in page:
        entry = job_service_pb2.JobChange(job=job(change.job), state=STATES[change.state], sequence=change.sequence)
        size += entry.ByteSize()
        if response.changes and size > MAX_BYTES:
            yield response
            response, size = job_service_pb2.WatchJobsResponse(), entry.ByteSize()
        response.changes.append(entry)
        response.cursor = str(change.cursor)
    response.cursor = str(cursor)
    yield response


def _stamp(field: Timestamp, instant: Instant | None) -> None:
    if instant is not None:
        frames.stamp(field, instant)
