"""The event codec: core events ↔ the bytes of one `WatchJobResponse`, which is both the stored and the wire form.

The events of one commit of one job are encoded here once; that row is what the ledger keeps and what every watcher,
live or late, is sent without decoding. Protobuf's repeated fields concatenate, so frames may be joined as bytes.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from altrunner.v1 import event_pb2, job_pb2, job_service_pb2
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from runner.core import events as core
from runner.core.findings import Finding
from runner.core.job import Frame
from runner.core.plan import Instant, Priority

MICROS: Final = 1_000_000


def timestamp(instant: Instant) -> Timestamp:
    seconds, micros = divmod(instant, MICROS)
    return Timestamp(seconds=seconds, nanos=micros * 1_000)


def stamp(field: Timestamp, instant: Instant) -> None:
    """Set a field of a message: several times cheaper than copying a message of its own into it."""
    field.seconds, micros = divmod(instant, MICROS)
    field.nanos = micros * 1_000


def instant(stamp: Timestamp) -> Instant:
    return stamp.seconds * MICROS + stamp.nanos // 1_000


def encode(events: Sequence[core.Recorded]) -> Frame:
    """Encode the events of one commit: at least one, dense."""
    message = job_service_pb2.WatchJobResponse()
    for recorded in events:
        entry = message.events.add()
        entry.sequence = recorded.sequence
        stamp(entry.time, recorded.time)
        field, fill = _ENCODERS[type(recorded.event)]
        part = getattr(entry, field)
        part.SetInParent()
        fill(part, recorded.event)
    last = events[-1]
    return Frame(events[0].sequence, last.sequence, isinstance(last.event, _TERMINAL), message.SerializeToString())


def decode(frames: Iterable[Frame]) -> list[core.Recorded]:
    """The events of frames, in order.

    Raises ValueError: if they are damaged, or a newer version wrote what this one does not know.
    """
    recorded: list[core.Recorded] = []
    for frame in frames:
        try:
            message = job_service_pb2.WatchJobResponse.FromString(frame.data)
        except DecodeError as error:
            raise ValueError(f"the frame of events {frame.first} to {frame.last} is damaged ({error})") from error
        recorded.extend(map(decode_event, message.events))
    return recorded


def decode_event(entry: event_pb2.JobEvent) -> core.Recorded:
    """One event.

    Raises ValueError: if a newer version wrote it and this one does not know it.
    """
    field = entry.WhichOneof("event")
    if field is None:
        raise ValueError(f"event {entry.sequence} is of a kind that this version does not know")
    return core.Recorded(entry.sequence, instant(entry.time), _DECODERS[field](getattr(entry, field)))


def trim(frame: Frame, *, after: int) -> Frame:
    """The part of a frame after a sequence number: for a resume in the midst of it."""
    if after < frame.first:
        return frame
    message = job_service_pb2.WatchJobResponse.FromString(frame.data)
    rest = [entry for entry in message.events if entry.sequence > after]
    data = job_service_pb2.WatchJobResponse(events=rest).SerializeToString()
    return Frame(after + 1, frame.last, frame.terminal, data)


def join(frames: Sequence[Frame]) -> Frame:
    """Neighbouring frames as one."""
    if len(frames) == 1:
        return frames[0]
    last = frames[-1]
    return Frame(frames[0].first, last.last, last.terminal, b"".join(frame.data for frame in frames))


# ----------------------------------------------------------------------------------------------------- parts

_TERMINAL = (core.JobSucceeded, core.JobPartiallySucceeded, core.JobFailed, core.JobCancelled)


def failure_message(failure: core.Failure) -> job_pb2.Failure:
    return job_pb2.Failure(reason=failure.reason, message=failure.message, task_id=failure.task_id)


def finding_message(finding: Finding) -> job_pb2.Finding:
    return job_pb2.Finding(
        reason=finding.reason,
        path=finding.path,
        message=finding.message,
        suggestion=finding.suggestion,
        line=finding.line,
        column=finding.column,
    )


def artifact_message(artifact: core.Artifact) -> job_pb2.Artifact:
    return job_pb2.Artifact(
        artifact_id=artifact.id,
        name=artifact.name,
        artifact_type=artifact.artifact_type,
        task_id=artifact.task_id,
        mime_type=artifact.mime_type,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        create_time=timestamp(artifact.created_at),
    )


def usage_message(usage: core.Usage) -> job_pb2.Usage:
    message = job_pb2.Usage(
        calls=usage.calls,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )
    if usage.elsewhere:
        message.elsewhere.extend(map(_usage_at_message, usage.elsewhere))
    return message


def _usage_at_message(part: core.UsageAt) -> job_pb2.UsageAt:
    return job_pb2.UsageAt(
        endpoint=part.endpoint,
        model=part.model,
        calls=part.calls,
        prompt_tokens=part.prompt_tokens,
        completion_tokens=part.completion_tokens,
        total_tokens=part.total_tokens,
    )


def _failure(message: job_pb2.Failure) -> core.Failure:
    return core.Failure(message.reason, message.message, message.task_id)


def finding(message: job_pb2.Finding) -> Finding:
    return Finding(message.reason, message.path, message.message, message.suggestion, message.line, message.column)


def artifact(message: job_pb2.Artifact) -> core.Artifact:
    return core.Artifact(
        id=message.artifact_id,
        name=message.name,
        artifact_type=message.artifact_type,
        task_id=message.task_id,
        mime_type=message.mime_type,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
        created_at=instant(message.create_time),
    )


def _usage(message: Any) -> core.Usage | None:
    if not message.HasField("usage"):
        return None
    usage = message.usage
    elsewhere = tuple(map(_usage_at, usage.elsewhere)) if usage.elsewhere else ()
    return core.Usage(usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, elsewhere)


def _usage_at(part: job_pb2.UsageAt) -> core.UsageAt:
    return core.UsageAt(
        part.endpoint, part.model, part.calls, part.prompt_tokens, part.completion_tokens, part.total_tokens
    )


def _fallback(message: event_pb2.AttemptSucceeded) -> core.FallbackUsed | None:
    if not message.HasField("fallback"):
        return None
    used = message.fallback
    return core.FallbackUsed(
        kind=core.FallbackKind(used.kind),
        position=used.position,
        instead_of=used.instead_of,
        failure=_failure(used.failure),
        age_seconds=used.age_seconds,
    )


#: How a field of an event goes into its message, where plain assignment will not do.
_TO_MESSAGE: Final[dict[type, Callable[[Any], Any]]] = {
    core.Failure: failure_message,
    core.Usage: usage_message,
}


def _fill(names: tuple[tuple[str, str], ...], part: Any, event: Any) -> None:
    for source, target in names:
        value = getattr(event, source)
        if value is None:
            continue
        to_message = _TO_MESSAGE.get(type(value))
        if to_message is not None:
            getattr(part, target).CopyFrom(to_message(value))
        else:
            setattr(part, target, value)


def _filler(*names: str) -> Callable[[Any, Any], None]:
    """Fill fields of the same name, or `source>target`."""
    pairs = tuple((name.split(">")[0], name.rsplit(">", maxsplit=1)[-1]) for name in names)
    return functools.partial(_fill, pairs)


def _fill_accepted(part: event_pb2.JobAccepted, event: core.JobAccepted) -> None:
    part.title, part.task_count, part.queue = event.title, event.task_count, event.queue
    part.priority = job_pb2.Priority.ValueType(event.priority)
    if event.warnings:
        part.warnings.extend(map(finding_message, event.warnings))


def _fill_succeeded(part: event_pb2.AttemptSucceeded, event: core.AttemptSucceeded) -> None:
    part.task_id, part.attempt = event.task_id, event.attempt
    part.output_json, part.output_artifact_id = event.output, event.output_artifact_id
    part.artifacts.extend(map(artifact_message, event.artifacts))
    part.endpoint, part.model = event.endpoint, event.model
    part.variables_json = event.variables
    if event.usage is not None:
        part.usage.CopyFrom(usage_message(event.usage))
    if event.fallback is not None:
        _fill_fallback(part.fallback, event.fallback)


def _fill_fallback(part: event_pb2.Fallback, used: core.FallbackUsed) -> None:
    part.kind = event_pb2.FallbackKind.ValueType(used.kind)
    part.position, part.instead_of, part.age_seconds = used.position, used.instead_of, used.age_seconds
    part.failure.CopyFrom(failure_message(used.failure))


def _fill_reused(part: event_pb2.TaskReused, event: core.TaskReused) -> None:
    part.task_id, part.job_id, part.variables_json = event.task_id, event.job_id, event.variables
    part.output_json, part.output_artifact_id = event.output, event.output_artifact_id
    part.artifacts.extend(map(artifact_message, event.artifacts))


def _fill_retry(part: event_pb2.AttemptFailed, event: core.AttemptFailed) -> None:
    _fill_task_failed(part, event)
    stamp(part.retry_time, event.retry_at)


def _fill_parked(part: event_pb2.AttemptParked, event: core.AttemptParked) -> None:
    part.task_id, part.attempt = event.task_id, event.attempt
    part.reason = job_pb2.WaitReason.ValueType(event.reason)
    part.endpoint, part.message = event.endpoint, event.message
    stamp(part.until_time, event.until)
    if event.usage is not None:
        part.usage.CopyFrom(usage_message(event.usage))


_fill_task_failed = _filler("task_id", "attempt", "failure", "endpoint", "model", "usage")

_ENCODERS: Final[dict[type[core.Event], tuple[str, Callable[[Any, Any], None]]]] = {
    core.JobAccepted: ("job_accepted", _fill_accepted),
    core.JobStarted: ("job_started", _filler("runner_id", "lease_token")),
    core.JobReleased: ("job_released", _filler("runner_id", "reason")),
    core.JobCancelling: ("job_cancelling", _filler("reason")),
    core.JobPaused: ("job_paused", _filler()),
    core.JobResumed: ("job_resumed", _filler("held")),
    core.JobSucceeded: ("job_succeeded", _filler()),
    core.JobPartiallySucceeded: ("job_partially_succeeded", _filler("error")),
    core.JobFailed: ("job_failed", _filler("error")),
    core.JobCancelled: ("job_cancelled", _filler("reason")),
    core.AttemptStarted: ("attempt_started", _filler("task_id", "attempt", "handler")),
    core.AttemptProgressed: (
        "attempt_progressed",
        _filler("task_id", "attempt", "fraction", "completed", "total", "message"),
    ),
    core.AttemptOutput: ("attempt_output", _filler("task_id", "attempt", "offset", "text")),
    core.AttemptSucceeded: ("attempt_succeeded", _fill_succeeded),
    core.AttemptFailed: ("attempt_failed", _fill_retry),
    core.AttemptParked: ("attempt_parked", _fill_parked),
    core.TaskFailed: ("task_failed", _fill_task_failed),
    core.TaskTimedOut: ("task_timed_out", _fill_task_failed),
    core.TaskCancelled: (
        "task_cancelled",
        _filler("task_id", "attempt", "reason", "endpoint", "model", "usage"),
    ),
    core.TaskSkipped: ("task_skipped", _filler("task_id", "reason")),
    core.TaskReused: ("task_reused", _fill_reused),
    core.BodyStarted: (
        "body_started",
        _filler("task_id", "body", "round", "task_count", "value>value_json", "name", "rounds"),
    ),
    core.ControlSucceeded: ("control_succeeded", _filler("task_id")),
    core.TaskSignalled: ("task_signalled", _filler("task_id", "approved", "comment", "sender", "data>data_json")),
}

_attempt_of: Final = operator.attrgetter("task_id", "attempt")


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


_DECODERS: Final[dict[str, Callable[[Any], core.Event]]] = {
    "job_accepted": lambda m: core.JobAccepted(
        m.title, m.task_count, m.queue, Priority(m.priority), tuple(map(finding, m.warnings))
    ),
    "job_started": lambda m: core.JobStarted(m.runner_id, m.lease_token),
    "job_released": lambda m: core.JobReleased(m.runner_id, m.reason),
    "job_cancelling": lambda m: core.JobCancelling(m.reason),
    "job_paused": lambda _: core.JobPaused(),
    "job_resumed": lambda m: core.JobResumed(m.held),
    "job_succeeded": lambda _: core.JobSucceeded(),
    "job_partially_succeeded": lambda m: core.JobPartiallySucceeded(_failure(m.error)),
    "job_failed": lambda m: core.JobFailed(_failure(m.error)),
    "job_cancelled": lambda m: core.JobCancelled(m.reason),
    "attempt_started": lambda m: core.AttemptStarted(*_attempt_of(m), handler=m.handler),
    "attempt_progressed": lambda m: core.AttemptProgressed(
        *_attempt_of(m), _optional(m, "fraction"), _optional(m, "completed"), _optional(m, "total"), m.message
    ),
    "attempt_output": lambda m: core.AttemptOutput(*_attempt_of(m), offset=m.offset, text=m.text),
    "attempt_succeeded": lambda m: core.AttemptSucceeded(
        m.task_id,
        attempt=m.attempt,
        output=m.output_json,
        output_artifact_id=m.output_artifact_id,
        artifacts=tuple(map(artifact, m.artifacts)),
        usage=_usage(m),
        endpoint=m.endpoint,
        model=m.model,
        variables=m.variables_json,
        fallback=_fallback(m),
    ),
    "attempt_failed": lambda m: core.AttemptFailed(
        m.task_id,
        attempt=m.attempt,
        failure=_failure(m.failure),
        retry_at=instant(m.retry_time),
        endpoint=m.endpoint,
        model=m.model,
        usage=_usage(m),
    ),
    "attempt_parked": lambda m: core.AttemptParked(
        m.task_id,
        attempt=m.attempt,
        reason=core.WaitReason(m.reason),
        until=instant(m.until_time),
        endpoint=m.endpoint,
        message=m.message,
        usage=_usage(m),
    ),
    "task_failed": lambda m: core.TaskFailed(
        m.task_id,
        attempt=m.attempt,
        failure=_failure(m.failure),
        endpoint=m.endpoint,
        model=m.model,
        usage=_usage(m),
    ),
    "task_timed_out": lambda m: core.TaskTimedOut(
        m.task_id,
        attempt=m.attempt,
        failure=_failure(m.failure),
        endpoint=m.endpoint,
        model=m.model,
        usage=_usage(m),
    ),
    "task_cancelled": lambda m: core.TaskCancelled(
        m.task_id, attempt=m.attempt, reason=m.reason, endpoint=m.endpoint, model=m.model, usage=_usage(m)
    ),
    "task_skipped": lambda m: core.TaskSkipped(m.task_id, m.reason),
    "task_signalled": lambda m: core.TaskSignalled(
        m.task_id, approved=m.approved, comment=m.comment, sender=m.sender, data=m.data_json
    ),
    "task_reused": lambda m: core.TaskReused(
        m.task_id,
        output=m.output_json,
        output_artifact_id=m.output_artifact_id,
        artifacts=tuple(map(artifact, m.artifacts)),
        job_id=m.job_id,
        variables=m.variables_json,
    ),
    "body_started": lambda m: core.BodyStarted(
        m.task_id,
        body=m.body,
        round=m.round,
        task_count=m.task_count,
        value=m.value_json,
        name=m.name,
        rounds=m.rounds,
    ),
    "control_succeeded": lambda m: core.ControlSucceeded(m.task_id),
}
