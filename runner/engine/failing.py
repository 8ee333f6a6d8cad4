"""What follows from an attempt that did not succeed: another one later, or the end of its task."""

from __future__ import annotations

from typing import Final

from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import AttemptFailed, AttemptParked, Event, Failure, TaskCancelled, TaskFailed, TaskTimedOut
from runner.core.interpreter import JobRun
from runner.core.plan import Instant, TaskPlan
from runner.core.retry import retry_at
from runner.core.runs import DEADLINE_EXCEEDED
from runner.engine.attempt import Failed, Interrupted, LiveAttempt, Stopped
from runner.engine.equipment import Equipment
from runner.engine.settings import EngineSettings

#: Microseconds that a parked task waits at least.
SHORTEST_PARK: Final = 100_000


def failing(live: LiveAttempt, result: Failed, run: JobRun, equipment: Equipment, *, now: Instant) -> Event:
    """The event of an attempt that failed or was put off."""
    error = result.error
    if isinstance(error, AttemptPutOff):
        return _parked(live, error, result.message, now)
    timed_out = error.reason == "TIMED_OUT"
    if live.overdue or (timed_out and run.expired(now)):
        return _timed_out(live, error, Failure(DEADLINE_EXCEEDED, "the job's deadline passed while the task ran"))
    failure = Failure(error.reason, result.message)
    due = _next_try(live, result, run, equipment, now)
    if due is not None:
        return AttemptFailed(
            live.task.id,
            attempt=live.number,
            failure=failure,
            retry_at=due,
            endpoint=error.endpoint,
            model=error.model,
            usage=error.usage,
        )
    if timed_out:
        return _timed_out(live, error, failure)
    return TaskFailed(
        live.task.id,
        attempt=live.number,
        failure=failure,
        endpoint=error.endpoint,
        model=error.model,
        usage=error.usage,
    )


def stopped(live: LiveAttempt, result: Stopped | Interrupted, reason: str) -> TaskCancelled:
    """The event of an attempt that was told to stop, or cut off while its job was to end."""
    told = result if isinstance(result, Stopped) else Stopped()
    return TaskCancelled(
        live.task.id,
        attempt=live.number,
        reason=reason,
        endpoint=told.endpoint,
        model=told.model,
        usage=told.usage,
    )


def _parked(live: LiveAttempt, put_off: AttemptPutOff, message: str, now: Instant) -> AttemptParked:
    return AttemptParked(
        live.task.id,
        attempt=live.number,
        reason=put_off.wait_reason,
        # A time that has passed already must not make a storm of commits.
        until=max(int(put_off.until), now + SHORTEST_PARK),
        endpoint=put_off.endpoint,
        message=message,
        usage=put_off.usage,
    )


def _timed_out(live: LiveAttempt, error: AttemptError, failure: Failure) -> TaskTimedOut:
    return TaskTimedOut(
        live.task.id,
        attempt=live.number,
        failure=failure,
        endpoint=error.endpoint,
        model=error.model,
        usage=error.usage,
    )


def retries_of(task: TaskPlan, settings: EngineSettings) -> int:
    """Attempts after the first."""
    return settings.default_retries if task.retries is None else task.retries


def _next_try(live: LiveAttempt, result: Failed, run: JobRun, equipment: Equipment, now: Instant) -> Instant | None:
    if not result.error.retryable:
        return None
    return retry_at(
        equipment.retry,
        failures=run.tasks[live.task.id].failures + 1,
        retries=retries_of(live.task, equipment.settings),
        now=now,
        chance=equipment.chance(),
        every=live.task.retry_seconds,
        retry_after=result.error.retry_after,
        deadline=run.deadline,
    )
