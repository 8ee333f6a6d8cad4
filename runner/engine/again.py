"""A job that has ended, run once more as a new one: the failed part of it, or the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

from runner import frames
from runner.core.errors import JobNotEnded, NothingToRetry
from runner.core.events import Event, JobAccepted, JobState, Recorded, TaskReused
from runner.core.interpreter import JobRun
from runner.core.job import Body, Inheritance, JobSummary, NewJob
from runner.core.plan import Instant, JobId
from runner.engine.chunks import chunks
from runner.engine.settings import EngineSettings
from runner.engine.submission import Prepared, own_traceparent, rank

#: The label that names the job which a job retries.
RETRY_OF: Final = "alt-runner/retry-of"


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """What a submitter asks for."""

    job_id: JobId
    #: Whether tasks that succeeded run again, too.
    whole: bool = False
    request_id: str = ""
    #: W3C trace context of the submitter, or empty.
    traceparent: str = ""


def prepare_retry(
    retry: Retry,
    earlier: JobSummary,
    body: Body,
    run: JobRun,
    *,
    job_id: JobId,
    now: Instant,
    settings: EngineSettings,
) -> Prepared:
    """The new job. What succeeded in the earlier one comes along as its first events, with its artifacts.

    Raises JobNotEnded: if the job may still end by itself.
    Raises NothingToRetry: if every task succeeded, and not the whole is asked for.
    """
    if not earlier.state.terminal:
        raise JobNotEnded(earlier.id)
    if earlier.state is JobState.SUCCEEDED and not retry.whole:
        raise NothingToRetry(earlier.id)
    first: list[Event] = [JobAccepted(earlier.title, earlier.task_count, earlier.queue, earlier.priority)]
    if not retry.whole:
        first += _reused(run, earlier.id)
    fresh = JobRun(run.plan)
    events = tuple([fresh.record(event, time=now) for event in first])
    summary = msgspec.structs.replace(
        earlier,
        id=job_id,
        state=JobState.QUEUED,
        labels={**earlier.labels, RETRY_OF: earlier.id},
        request_id=retry.request_id,
        created_at=now,
        started_at=None,
        ended_at=None,
        not_before=None,
        deadline=None,
        progress=fresh.progress,
        last_sequence=fresh.sequence,
        error=None,
        cancel_requested=False,
    )
    job = NewJob(
        summary=summary,
        rank=rank(summary, settings),
        request_sha256=_fingerprint(retry) if retry.request_id else b"",
        descriptor=body.descriptor,
        content_type=body.content_type,
        plan=body.plan,
        inputs=body.inputs,
        traceparent=retry.traceparent or own_traceparent(job_id),
        frames=tuple(map(frames.encode, chunks(events))),
        inherits=_inheritance(earlier.id, events),
    )
    return Prepared(job, events, ())


def _reused(run: JobRun, job_id: JobId) -> Iterator[TaskReused]:
    """What was done, in the order in which it was; control tasks come to the same again from what that gave."""
    for task in map(run.tasks.__getitem__, run.succeeded):
        yield TaskReused(
            task.plan.id,
            output=task.output,
            output_artifact_id=task.output_artifact_id,
            artifacts=task.artifacts,
            job_id=task.reused_from or job_id,
            variables=task.variables,
        )
    # What an even earlier job had done, and this one did not come to.
    yield from run.promises


def _inheritance(job_id: JobId, events: tuple[Recorded, ...]) -> Inheritance | None:
    reused = [entry.event for entry in events if isinstance(entry.event, TaskReused)]
    ids = tuple(artifact.id for event in reused for artifact in event.artifacts)
    return Inheritance(job_id, ids) if ids else None


def _fingerprint(retry: Retry) -> bytes:
    """SHA-256 of what a request id stands for."""
    body = msgspec.structs.replace(retry, traceparent="")
    return hashlib.sha256(b"retry" + msgspec.msgpack.encode(body)).digest()
