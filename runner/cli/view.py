"""What a watcher knows of a job: its events folded into what a person wants to see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from runner.core import events
from runner.core.events import JobState, TaskState
from runner.core.lifecycle import JOB_TRANSITIONS, TASK_TRANSITIONS, job_after
from runner.core.plan import Instant

#: Characters of a task's streamed text that are kept: enough for the last lines.
TAIL: Final = 2_000


@dataclass
class TaskView:
    """One task, as far as events told."""

    id: str
    description: str = ""
    state: TaskState = TaskState.PENDING
    attempt: int = 0
    started_at: Instant | None = None
    ended_at: Instant | None = None
    #: 0–1; None where nothing was told.
    fraction: float | None = None
    message: str = ""
    #: The end of the text that its current attempt streamed.
    text: str = ""
    #: Why it waits, failed or was cancelled.
    trouble: str = ""
    waiting_until: Instant | None = None

    @property
    def progress(self) -> float:
        if self.state.terminal:
            return 1.0
        return (self.fraction or 0.0) if self.state is TaskState.RUNNING else 0.0


@dataclass
class JobView:
    """One job, as far as events told."""

    id: str
    title: str = ""
    state: JobState = JobState.QUEUED
    sequence: int = 0
    task_count: int = 0
    accepted_at: Instant | None = None
    started_at: Instant | None = None
    ended_at: Instant | None = None
    error: events.Failure | None = None
    tasks: dict[str, TaskView] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """0–1; tasks weigh the same here, as the events do not tell their weights."""
        total = max(self.task_count, len(self.tasks))
        return sum(task.progress for task in self.tasks.values()) / total if total else float(self.state.terminal)

    def count(self, *states: TaskState) -> int:
        return sum(task.state in states for task in self.tasks.values())

    def expect(self, tasks: Iterable[tuple[str, str]]) -> None:
        """Make known tasks that have not begun, as ids and descriptions."""
        for task_id, description in tasks:
            self.tasks.setdefault(task_id, TaskView(task_id)).description = description

    def apply(self, recorded: events.Recorded) -> None:
        """Take one event in. An event that does not fit the state, after a gap for example, changes what it can."""
        self.sequence = recorded.sequence
        event = recorded.event
        if isinstance(event, events.TaskEvent):
            task = self.tasks.setdefault(event.task_id, TaskView(event.task_id))
            _apply(task, event, recorded.time)
        else:
            self._apply(event, recorded.time)

    def _apply(self, event: events.JobEvent, time: Instant) -> None:
        self.state = job_after(self.state, event) or _entered(self.state, event)
        match event:
            case events.JobAccepted():
                self.title, self.task_count, self.accepted_at = event.title, event.task_count, time
            case events.JobStarted() | events.JobReleased():
                self.started_at = self.started_at or time
                for task in self.tasks.values():
                    task.state = TASK_TRANSITIONS.get((task.state, type(event)), task.state)
            case events.JobFailed() | events.JobPartiallySucceeded():
                self.error = event.error
        if self.state.terminal:
            self.ended_at = time


def _entered(state: JobState, event: events.JobEvent) -> JobState:
    """The state after an event that does not fit the one before."""
    to = {after for (_, kind), after in JOB_TRANSITIONS.items() if kind is type(event)}
    return to.pop() if len(to) == 1 else state


def _apply(task: TaskView, event: events.TaskEvent, time: Instant) -> None:
    task.state = TASK_TRANSITIONS.get((task.state, type(event)), _settled(task.state, event))
    match event:
        case events.AttemptStarted():
            task.attempt, task.started_at = event.attempt, task.started_at or time
            task.fraction, task.message, task.text, task.trouble, task.waiting_until = None, "", "", "", None
        case events.AttemptProgressed():
            task.fraction = _fraction(event)
            task.message = event.message
        case events.AttemptOutput():
            task.text = (task.text + event.text)[-TAIL:]
        case events.AttemptFailed():
            task.trouble, task.waiting_until = event.failure.message, event.retry_at
        case events.AttemptParked():
            # For a person there is no time at which it tries again.
            until = None if event.reason is events.WaitReason.AWAITING_APPROVAL else event.until
            task.trouble, task.waiting_until = event.message, until
        case events.TaskFailed() | events.TaskTimedOut():
            task.trouble = event.failure.message
        case events.TaskCancelled() | events.TaskSkipped():
            task.trouble = event.reason
    if task.state.terminal:
        task.ended_at = time


def _settled(state: TaskState, event: events.TaskEvent) -> TaskState:
    """The state after an event that does not fit the one before."""
    to = {after for (_, kind), after in TASK_TRANSITIONS.items() if kind is type(event)}
    return to.pop() if len(to) == 1 else state


def _fraction(event: events.AttemptProgressed) -> float | None:
    if event.fraction is not None:
        return event.fraction
    if event.completed is not None and event.total:
        return min(1.0, event.completed / event.total)
    return None
