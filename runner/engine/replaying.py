"""Jobs read back: plan, inputs and events, folded; and what becomes of a job of which this version cannot read them.

A damaged row, or one that a newer version wrote, is the same tomorrow. So such a job is tried a few times and then set
aside until a daemon is started anew, perhaps another version; the others go on. One that only needs to be ended, being
cancelled or past its deadline, is ended all the same, from what its row tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from runner import __version__, frames
from runner.core.errors import JobUnreadable, LeaseLost
from runner.core.events import (
    Event,
    Failure,
    JobCancelled,
    JobCancelling,
    JobFailed,
    JobStarted,
    JobState,
    Recorded,
)
from runner.core.interpreter import JobRun
from runner.core.job import Append, Claim, Ending, JobSummary, ReplayFailure
from runner.core.last import compose_unread, seal
from runner.core.plan import Instant, JobId, Plan
from runner.core.runs import DEADLINE_EXCEEDED
from runner.engine.equipment import Equipment
from runner.engine.patience import patiently
from runner.engine.submission import trace_id_of

MICROS: Final = 1_000_000
#: The reason of what is wrong with a job that is set aside.
REPLAY_FAILED: Final = "REPLAY_FAILED"
#: Characters of a cause that are told.
MAX_CAUSE: Final = 300

#: What decoders, constructors and tables raise on bytes that are damaged and on words that they do not know.
_UNFIT: Final = (
    msgspec.MsgspecError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@contextmanager
def reading(job_id: JobId) -> Iterator[None]:
    """Read what the ledger holds of a job inside the context.

    Raises JobUnreadable: if it is damaged, or of a newer version.
    """
    try:
        yield
    except _UNFIT as error:
        cause = f"{type(error).__name__}: {error}"
        cause = cause if len(cause) <= MAX_CAUSE else f"{cause[:MAX_CAUSE]}…"
        why = f"alt-runner {__version__} cannot read its plan or events ({cause})"
        raise JobUnreadable(job_id, why) from error


def plan_of(job_id: JobId, data: bytes) -> Plan:
    """A plan as the ledger holds it. Raises JobUnreadable."""
    with reading(job_id):
        return msgspec.msgpack.decode(data, type=Plan)


def inputs_of(job_id: JobId, data: bytes) -> dict[str, Any]:
    """The submitter's inputs as the ledger holds them. Raises JobUnreadable."""
    with reading(job_id):
        inputs: dict[str, Any] = msgspec.json.decode(data) if data else {}
        return inputs


def replayed(claim: Claim) -> tuple[JobRun, dict[str, Any]]:
    """A claimed job as its events tell it, and its inputs. Raises JobUnreadable."""
    job = claim.summary
    plan, inputs = plan_of(job.id, claim.plan), inputs_of(job.id, claim.inputs)
    with reading(job.id):
        run = JobRun(plan, deadline=job.deadline, job_id=job.id, inputs=inputs).replay(frames.decode(claim.frames))
        if run.sequence != job.last_sequence:
            raise ValueError(f"its events end with {run.sequence}, not with {job.last_sequence}")
        return run, inputs


class _End(msgspec.Struct, frozen=True):
    """How a job ends that nobody can go on with."""

    state: JobState
    event: Event
    error: Failure
    #: That of its cancellation, if it was cancelled.
    reason: str | None = None


async def end_or_set_back(
    claim: Claim, error: JobUnreadable, equipment: Equipment, *, reason: str | None
) -> JobSummary:
    """What becomes of a claimed job that cannot be replayed; `reason` is that of its cancellation, if one is wished.

    Answers the job with its end, if it has ended. Where another runner has it meanwhile, nothing is written.
    """
    try:
        return await _decided(claim, error, equipment, reason=reason)
    except LeaseLost:
        equipment.observer.notice("lease_lost", job_id=claim.summary.id, token=claim.token)
        return claim.summary


async def _decided(claim: Claim, error: JobUnreadable, equipment: Equipment, *, reason: str | None) -> JobSummary:
    job, now = claim.summary, equipment.clock.now()
    if reason is not None:
        end = _End(JobState.CANCELLED, JobCancelled(reason), Failure(REPLAY_FAILED, error.why), reason)
    elif job.deadline is not None and job.deadline <= now:
        failure = Failure(DEADLINE_EXCEEDED, "the job's deadline passed, and nobody could go on with it")
        end = _End(JobState.FAILED, JobFailed(failure), failure)
    else:
        await _set_back(claim, error, equipment, now=now)
        return job
    equipment.observer.notice("job_replay_failed", job_id=job.id, error=error.why)
    return await _end(claim, end, error.why, equipment, now=now)


async def _set_back(claim: Claim, error: JobUnreadable, equipment: Equipment, *, now: Instant) -> None:
    wait, most = equipment.settings.lease_seconds, equipment.settings.max_replay_failures
    advice = f"{error.why}; start the version that wrote them, or cancel the job"
    failure = ReplayFailure(
        job_id=claim.summary.id,
        token=claim.token,
        error=Failure(REPLAY_FAILED, advice),
        retry_at=now + round(wait * MICROS),
        max_failures=most,
    )
    if await patiently(equipment.ledger.set_back, failure):
        equipment.observer.notice("job_set_aside", level="error", job_id=failure.job_id, error=advice)
    else:
        equipment.observer.notice("job_replay_failed", job_id=failure.job_id, error=error.why, retry_seconds=wait)


async def _end(claim: Claim, end: _End, why: str, equipment: Equipment, *, now: Instant) -> JobSummary:
    """One frame, which any history may end with, and a record that tells of no task."""
    events: list[Event] = [JobStarted(equipment.runner_id, claim.token)]
    if end.reason is not None:
        events.append(JobCancelling(end.reason))
    first = claim.summary.last_sequence + 1
    recorded = [Recorded(first + place, now, event) for place, event in enumerate((*events, end.event))]
    frame, execution_id = frames.encode(recorded), equipment.new_id()
    job = msgspec.structs.replace(
        claim.summary,
        state=end.state,
        error=end.error,
        started_at=now if claim.summary.started_at is None else claim.summary.started_at,
        ended_at=now,
        last_sequence=frame.last,
    )
    record = compose_unread(
        job,
        _plan_if_any(claim),
        why=why,
        reason=end.reason,
        record_id=equipment.new_id(),
        execution_id=execution_id,
        runner_id=equipment.runner_id,
        trace_id=trace_id_of(claim.traceparent),
    )
    ending = Ending(end.state, end.error, execution_id, seal(record), now, tuple(equipment.sinks))
    change = Append(
        job_id=job.id,
        token=claim.token,
        frame=frame,
        progress=job.progress,
        started_at=job.started_at,
        entered=end.state,
        ending=ending,
    )
    await patiently(equipment.ledger.append, change)
    equipment.broadcast.publish(job.id, frame)
    equipment.observer.committed(job, recorded, traceparent=claim.traceparent)
    equipment.journal.wake()
    for bell in equipment.sinks.values():
        bell.ring()
    return job


def _plan_if_any(claim: Claim) -> Plan | None:
    try:
        return plan_of(claim.summary.id, claim.plan)
    except JobUnreadable:
        return None
