"""From committed events to stretches of time: attempts, tasks and runs of jobs that have ended, for metrics and traces.

Keeps a little for each job that runs here and nothing for one that has ended, was given back, or was lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from runner.core.events import (
    AttemptFailed,
    AttemptParked,
    AttemptStarted,
    AttemptSucceeded,
    BodyStarted,
    Event,
    Failure,
    FallbackUsed,
    JobReleased,
    JobStarted,
    JobState,
    Recorded,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskReused,
    TaskState,
    TaskTimedOut,
    Usage,
    WaitReason,
)
from runner.core.job import JobSummary
from runner.core.lifecycle import JOB_TRANSITIONS, TASK_TRANSITIONS
from runner.core.plan import Instant, JobId, TaskId

#: How an attempt ended, by its last event.
OUTCOMES: Final[dict[type[Event], str]] = {
    AttemptSucceeded: "succeeded",
    AttemptFailed: "failed",
    AttemptParked: "parked",
    TaskFailed: "failed",
    TaskTimedOut: "timed_out",
    TaskCancelled: "cancelled",
}
#: The attempt's end was never recorded: its job was given back or taken over.
LOST: Final = "lost"

#: What was reused ended in another job, which counted it.
_TASK_ENDS: Final = {
    kind: state for (_, kind), state in TASK_TRANSITIONS.items() if state.terminal and kind is not TaskReused
}
#: What an id has beside that of the loop in whose round it stands.
_ROUND: Final = re.compile(r"\[\d+\]$")
_JOB_ENDS: Final = {kind: state for (_, kind), state in JOB_TRANSITIONS.items() if state.terminal}


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One runner's hold on a job, from its claim (the first: from its acceptance) to its end."""

    job: JobSummary
    #: The fencing token of the claim; 0 where none was seen here.
    lease_token: int
    #: True unless this is the job's first run.
    resumed: bool
    #: When it was accepted, or, if resumed, when this run began.
    began: Instant
    #: The submitter's, or empty.
    traceparent: str


class AttemptStretch(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, ended."""

    run: Run
    task_id: TaskId
    attempt: int
    handler: str
    began: Instant
    ended: Instant
    outcome: str
    failure: Failure | None = None
    endpoint: str = ""
    model: str = ""
    usage: Usage | None = None
    fallback: FallbackUsed | None = None
    #: Why it was parked, if so.
    wait: WaitReason | None = None
    #: Of the stretches of its run, in the order in which they ended, from 1.
    number: int = 0


class TaskStretch(msgspec.Struct, frozen=True, kw_only=True):
    """One task, ended. Without attempts it lasted no time, unless it ran others: then from its first body on."""

    run: Run
    task_id: TaskId
    #: The first attempt of this run.
    began: Instant
    ended: Instant
    state: TaskState
    failure: Failure | None = None
    #: The control task in whose body it stands, if that began in this run; else empty.
    parent: TaskId = ""
    #: Whether it ran others.
    control: bool = False
    #: As an attempt's.
    number: int = 0


class RunStretch(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job, ended."""

    run: Run
    ended: Instant
    #: None if the job was given back.
    state: JobState | None
    failure: Failure | None = None
    #: Stretches of attempts and tasks that ended in it.
    stretches: int = 0


Stretch = AttemptStretch | TaskStretch | RunStretch


@dataclass(slots=True)
class _OpenTask:
    began: Instant
    #: The attempt under way: its start and time.
    attempt: tuple[AttemptStarted, Instant] | None = None
    #: Whether it runs others.
    control: bool = False


@dataclass(slots=True)
class _OpenRun:
    run: Run
    #: Those under way: an instance leaves with its end, a control task after all in its bodies.
    tasks: dict[TaskId, _OpenTask] = field(default_factory=dict)
    newest: Instant = 0
    #: Stretches that ended.
    ended: int = 0

    def next_number(self) -> int:
        self.ended += 1
        return self.ended

    def parent(self, task_id: TaskId) -> TaskId:
        """The control task under way in whose body a task stands, or nothing."""
        owner = _ROUND.sub("", task_id.rpartition("/")[0])
        found = self.tasks.get(owner)
        return owner if found is not None and found.control else ""


class Timeline:
    """Follows the jobs that run here."""

    def __init__(self, *, max_runs: int = 100_000) -> None:
        #: Runs beyond this push out the oldest, whose stretches end as lost: a guard, not a limit that is ever met.
        self._max_runs = max_runs
        self._open: dict[JobId, _OpenRun] = {}

    def __len__(self) -> int:
        """Jobs that are followed."""
        return len(self._open)

    def run(self, job: JobSummary, *, traceparent: str = "") -> Run:
        """The job's current run, with the submitter's trace context if it was not known before."""
        found = self._open.get(job.id)
        if found is None:
            return Run(job=job, lease_token=0, resumed=False, began=job.created_at, traceparent=traceparent)
        if traceparent and not found.run.traceparent:
            found.run = msgspec.structs.replace(found.run, traceparent=traceparent)
        return found.run

    def follow(self, job: JobSummary, events: Sequence[Recorded], *, traceparent: str = "") -> Iterator[Stretch]:
        """The stretches that these events end, in order."""
        for recorded in events:
            event, now = recorded.event, recorded.time
            if isinstance(event, JobStarted):
                yield from self.drop(job.id, now=now)
                yield from self._begin(job, event, recorded, traceparent)
            found = self._open.get(job.id)
            if found is not None:
                found.newest = now
            if isinstance(event, AttemptStarted) and found is not None:
                found.tasks.setdefault(event.task_id, _OpenTask(now)).attempt = (event, now)
            elif isinstance(event, BodyStarted):
                if found is not None:
                    found.tasks.setdefault(event.task_id, _OpenTask(now)).control = True
            elif isinstance(event, TaskEvent):
                yield from self._task_event(self.run(job, traceparent=traceparent), found, event, now)
            elif isinstance(event, JobReleased):
                yield from self.drop(job.id, now=now)
            elif type(event) in _JOB_ENDS:
                run = self.run(job, traceparent=traceparent)
                self._open.pop(job.id, None)
                yield RunStretch(
                    run=run,
                    ended=now,
                    state=_JOB_ENDS[type(event)],
                    failure=getattr(event, "error", None),
                    stretches=0 if found is None else found.ended,
                )

    def drop(self, job_id: JobId, *, now: Instant | None = None) -> Iterator[Stretch]:
        """The job is no longer ours: its attempts are lost and its run ends, now or where its events end."""
        found = self._open.pop(job_id, None)
        if found is None:
            return
        ended = found.newest if now is None else now
        for task_id, task in found.tasks.items():
            if task.attempt is not None:
                yield _attempt(found, task, task.attempt[0], ended, LOST)
            if task.attempt is not None or task.control:
                yield _task(found, task_id, task, ended, TaskState.PENDING)
        yield RunStretch(run=found.run, ended=ended, state=None, stretches=found.ended)

    def _begin(self, job: JobSummary, event: JobStarted, recorded: Recorded, traceparent: str) -> Iterator[Stretch]:
        # The fencing token counts the claims.
        resumed = event.lease_token > 1
        began = recorded.time if resumed else job.created_at
        run = Run(job=job, lease_token=event.lease_token, resumed=resumed, began=began, traceparent=traceparent)
        self._open[job.id] = _OpenRun(run)
        if len(self._open) > self._max_runs:
            yield from self.drop(next(iter(self._open)))

    def _task_event(self, run: Run, found: _OpenRun | None, event: TaskEvent, now: Instant) -> Iterator[Stretch]:
        task = found.tasks.get(event.task_id) if found is not None else None
        outcome = OUTCOMES.get(type(event))
        if outcome is not None and task is not None and found is not None and task.attempt is not None:
            yield _attempt(found, task, event, now, outcome)
            task.attempt = None
        state = _TASK_ENDS.get(type(event))
        if state is not None:
            here = _OpenRun(run) if found is None else found
            here.tasks.pop(event.task_id, None)
            failure = getattr(event, "failure", None)
            yield _task(here, event.task_id, task or _OpenTask(now), now, state, failure=failure)


def _task(
    found: _OpenRun,
    task_id: TaskId,
    task: _OpenTask,
    ended: Instant,
    state: TaskState,
    *,
    failure: Failure | None = None,
) -> TaskStretch:
    return TaskStretch(
        run=found.run,
        task_id=task_id,
        began=task.began,
        ended=ended,
        state=state,
        failure=failure,
        parent=found.parent(task_id),
        control=task.control,
        number=found.next_number(),
    )


def _attempt(found: _OpenRun, task: _OpenTask, event: TaskEvent, ended: Instant, outcome: str) -> AttemptStretch:
    started, began = task.attempt or (AttemptStarted(event.task_id, 0, ""), ended)
    failure = getattr(event, "failure", None)
    if failure is not None and failure.reason in {"TIMED_OUT", "DEADLINE_EXCEEDED"}:
        outcome = "timed_out"
    return AttemptStretch(
        run=found.run,
        task_id=started.task_id,
        attempt=started.attempt,
        handler=started.handler,
        began=began,
        ended=ended,
        outcome=outcome,
        failure=failure,
        endpoint=getattr(event, "endpoint", ""),
        model=getattr(event, "model", ""),
        usage=getattr(event, "usage", None),
        fallback=getattr(event, "fallback", None),
        wait=event.reason if isinstance(event, AttemptParked) else None,
        number=found.next_number(),
    )
