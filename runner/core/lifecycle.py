"""state × event → state: the only tables of transitions, for jobs and for tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runner.core.events import (
    AttemptFailed,
    AttemptOutput,
    AttemptParked,
    AttemptProgressed,
    AttemptStarted,
    AttemptSucceeded,
    BodyStarted,
    ControlSucceeded,
    Event,
    JobAccepted,
    JobCancelled,
    JobCancelling,
    JobEvent,
    JobFailed,
    JobPartiallySucceeded,
    JobPaused,
    JobReleased,
    JobResumed,
    JobStarted,
    JobState,
    JobSucceeded,
    TaskCancelled,
    TaskFailed,
    TaskReused,
    TaskSignalled,
    TaskSkipped,
    TaskState,
    TaskTimedOut,
)

JOB_TRANSITIONS: Final[Mapping[tuple[JobState | None, type[Event]], JobState]] = {
    (None, JobAccepted): JobState.QUEUED,
    (JobState.QUEUED, JobStarted): JobState.RUNNING,
    # A runner died without a word: the next one starts from where the events end.
    (JobState.RUNNING, JobStarted): JobState.RUNNING,
    (JobState.RUNNING, JobReleased): JobState.QUEUED,
    (JobState.RUNNING, JobCancelling): JobState.RUNNING,
    (JobState.RUNNING, JobSucceeded): JobState.SUCCEEDED,
    (JobState.RUNNING, JobPartiallySucceeded): JobState.PARTIALLY_SUCCEEDED,
    (JobState.RUNNING, JobFailed): JobState.FAILED,
    (JobState.RUNNING, JobCancelled): JobState.CANCELLED,
    (JobState.QUEUED, JobPaused): JobState.PAUSED,
    (JobState.RUNNING, JobPaused): JobState.PAUSED,
    # It was resumed, and paused again before a runner heard of the first.
    (JobState.PAUSED, JobPaused): JobState.PAUSED,
    # See `job_after` for one that is held.
    (JobState.PAUSED, JobResumed): JobState.QUEUED,
    # A runner takes a paused job only to end it: it was cancelled, or its deadline passed.
    (JobState.PAUSED, JobStarted): JobState.RUNNING,
    # Nothing of it runs any more.
    (JobState.PAUSED, JobReleased): JobState.PAUSED,
    # What was under way when it was paused may be all that was left to do.
    (JobState.PAUSED, JobCancelling): JobState.PAUSED,
    (JobState.PAUSED, JobSucceeded): JobState.SUCCEEDED,
    (JobState.PAUSED, JobPartiallySucceeded): JobState.PARTIALLY_SUCCEEDED,
    (JobState.PAUSED, JobFailed): JobState.FAILED,
    (JobState.PAUSED, JobCancelled): JobState.CANCELLED,
}

#: In these states a job may be in a runner's hands, with attempts under way.
IN_HAND: Final = frozenset({JobState.RUNNING, JobState.PAUSED})


def job_after(before: JobState | None, event: JobEvent) -> JobState | None:
    """The state of a job after an event; None if it cannot happen to it."""
    if isinstance(event, JobResumed) and event.held and before is JobState.PAUSED:
        return JobState.RUNNING
    return JOB_TRANSITIONS.get((before, type(event)))


TASK_TRANSITIONS: Final[Mapping[tuple[TaskState, type[Event]], TaskState]] = {
    (TaskState.PENDING, AttemptStarted): TaskState.RUNNING,
    (TaskState.WAITING, AttemptStarted): TaskState.RUNNING,
    (TaskState.RUNNING, AttemptProgressed): TaskState.RUNNING,
    (TaskState.RUNNING, AttemptOutput): TaskState.RUNNING,
    (TaskState.RUNNING, AttemptSucceeded): TaskState.SUCCEEDED,
    (TaskState.RUNNING, AttemptFailed): TaskState.WAITING,
    (TaskState.RUNNING, AttemptParked): TaskState.WAITING,
    (TaskState.RUNNING, TaskFailed): TaskState.FAILED,
    (TaskState.RUNNING, TaskTimedOut): TaskState.TIMED_OUT,
    (TaskState.RUNNING, TaskCancelled): TaskState.CANCELLED,
    (TaskState.PENDING, TaskFailed): TaskState.FAILED,
    (TaskState.WAITING, TaskFailed): TaskState.FAILED,
    (TaskState.PENDING, TaskTimedOut): TaskState.TIMED_OUT,
    (TaskState.WAITING, TaskTimedOut): TaskState.TIMED_OUT,
    (TaskState.PENDING, TaskCancelled): TaskState.CANCELLED,
    (TaskState.WAITING, TaskCancelled): TaskState.CANCELLED,
    (TaskState.PENDING, TaskSkipped): TaskState.SKIPPED,
    (TaskState.PENDING, TaskReused): TaskState.SUCCEEDED,
    (TaskState.PENDING, TaskSignalled): TaskState.PENDING,
    (TaskState.RUNNING, TaskSignalled): TaskState.RUNNING,
    (TaskState.WAITING, TaskSignalled): TaskState.WAITING,
    (TaskState.PENDING, BodyStarted): TaskState.RUNNING,
    (TaskState.RUNNING, BodyStarted): TaskState.RUNNING,
    # A loop without rounds never runs.
    (TaskState.PENDING, ControlSucceeded): TaskState.SUCCEEDED,
    (TaskState.RUNNING, ControlSucceeded): TaskState.SUCCEEDED,
    # Whoever held the job is gone: what was under way is lost and may run once more.
    (TaskState.RUNNING, JobStarted): TaskState.PENDING,
    (TaskState.RUNNING, JobReleased): TaskState.PENDING,
}
