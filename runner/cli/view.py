"""What a watcher knows of a job: its events folded into what a person wants to see."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from runner.core import events
from runner.core.control import prefix_of
from runner.core.events import JobState, TaskState
from runner.core.lifecycle import JOB_TRANSITIONS, TASK_TRANSITIONS, job_after
from runner.core.plan import Instant

#: Characters of a task's streamed text that are kept: enough for the last lines.
TAIL: Final = 2_000


#: What the tasks do that run others, as records and daemons name it.
CONTROLS: Final = frozenset({"condition", "for_each", "for_range", "while", "function_call", "function_def"})
#: Instances of tasks that failed and stay to be seen; those that ended otherwise are only counted.
FAILED_KEPT: Final = 50
_ROUND: Final = re.compile(r"\[\d+\]$")


@dataclass(slots=True)
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
    #: Why it waits, failed, was cancelled or did not have to run.
    trouble: str = ""
    waiting_until: Instant | None = None
    #: The control task in whose body it stands; empty for the file's own.
    owner: str = ""
    #: Of a control task, what it runs; None for any other.
    flow: Flow | None = None

    @property
    def progress(self) -> float:
        if self.state.terminal:
            return 1.0
        if self.flow is not None:
            return self.flow.progress
        return (self.fraction or 0.0) if self.state is TaskState.RUNNING else 0.0


@dataclass(slots=True)
class Flow:
    """What a control task runs."""

    #: `if`, `else`, `round` or `call`; empty before it began.
    body: str = ""
    #: Rounds that there are to be; 0 where that is not known.
    rounds: int = 0
    begun: int = 0
    done: int = 0
    #: Of those that are done.
    failed: int = 0
    #: Tasks in its bodies, and those of them that ended.
    tasks: int = 0
    ended: int = 0

    @property
    def progress(self) -> float:
        """0–1; 0 for a loop of which nobody knows how long it goes on."""
        if self.body == "round":
            return min(1.0, self.done / self.rounds) if self.rounds else 0.0
        return self.ended / self.tasks if self.tasks else 0.0


@dataclass(slots=True)
class _Body:
    """A run of a body that goes on."""

    owner: str
    #: Its tasks that have not ended.
    open: int
    failed: bool = False


@dataclass
class JobView:
    """One job, as far as events told.

    Keeps the file's own tasks and, of those in bodies, the ones that are under way and a few that failed. So it is as
    large as the file and what runs at a time, however many rounds a loop has.
    """

    id: str
    title: str = ""
    #: Whether other commands find its daemon.
    reachable: bool = True
    state: JobState = JobState.QUEUED
    sequence: int = 0
    #: Whether earlier events were left out, so that how many tasks ended how is not known.
    partial: bool = False
    #: Tasks so far: those of a body count once it begins.
    task_count: int = 0
    #: The file's own.
    own_count: int = 0
    accepted_at: Instant | None = None
    started_at: Instant | None = None
    ended_at: Instant | None = None
    error: events.Failure | None = None
    tasks: dict[str, TaskView] = field(default_factory=dict)
    #: Tasks that are not kept, by how they ended.
    _gone: Counter[TaskState] = field(default_factory=Counter)
    #: Ended, and to be dropped with the next event: until then somebody may tell of it.
    _leaving: str = ""
    _failed_kept: int = 0
    #: Bodies that go on, by what the ids in them begin with.
    _bodies: dict[str, _Body] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Tasks so far, as far as known."""
        return max(self.task_count, len(self.tasks) + self._gone.total())

    @property
    def progress(self) -> float:
        """0–1; the file's own tasks weigh the same here, as the events do not tell their weights."""
        own = [task.progress for task in self.tasks.values() if not task.owner]
        total = max(self.own_count, len(own))
        return sum(own) / total if total else float(self.state.terminal)

    @property
    def ended(self) -> int:
        """Tasks that have ended."""
        return sum(task.state.terminal for task in self.tasks.values()) + self._gone.total()

    def count(self, *states: TaskState) -> int:
        kept = sum(task.state in states for task in self.tasks.values())
        return kept + sum(self._gone[state] for state in states)

    def expect(self, tasks: Iterable[tuple[str, str, str]]) -> None:
        """Make known tasks of the file that have not begun, as ids, descriptions and kinds.

        Of a job that has begun there may be tasks in bodies among them, after what runs them; events tell of those.
        """
        for task_id, description, kind in tasks:
            if self._owner(task_id):
                continue
            task = self.tasks.setdefault(task_id, TaskView(task_id))
            task.description = description
            if kind in CONTROLS and task.flow is None:
                task.flow = Flow()

    def apply(self, recorded: events.Recorded) -> None:
        """Take one event in. An event that does not fit the state, after a gap for example, changes what it can."""
        self._let_go()
        self.sequence = recorded.sequence
        event = recorded.event
        if not isinstance(event, events.TaskEvent):
            self._apply(event, recorded.time)
        elif not isinstance(event, events.TaskReused) or not self._promised(event.task_id):
            self._apply_to_task(event, recorded.time)

    def task(self, task_id: str) -> TaskView:
        """What is known of a task; nothing of one that is not there yet."""
        return self.tasks.get(task_id) or TaskView(task_id)

    def _apply(self, event: events.JobEvent, time: Instant) -> None:
        self.state = job_after(self.state, event) or _entered(self.state, event)
        match event:
            case events.JobAccepted():
                self.title, self.accepted_at = event.title, time
                self.task_count = self.own_count = event.task_count
            case events.JobStarted() | events.JobReleased():
                self.started_at = self.started_at or time
                for task in self.tasks.values():
                    # A control task has nothing under way that could be lost.
                    if task.flow is None:
                        task.state = TASK_TRANSITIONS.get((task.state, type(event)), task.state)
            case events.JobFailed() | events.JobPartiallySucceeded():
                self.error = event.error
        if self.state.terminal:
            self.ended_at = time

    def _apply_to_task(self, event: events.TaskEvent, time: Instant) -> None:
        known = self.tasks.get(event.task_id)
        task = known or self.tasks.setdefault(event.task_id, TaskView(event.task_id, owner=self._owner(event.task_id)))
        before = task.state
        _apply(task, event, time)
        if isinstance(event, events.BodyStarted):
            self._begin(task, event)
        if task.state.terminal and not before.terminal and task.owner:
            self._leave(task)

    def _begin(self, task: TaskView, event: events.BodyStarted) -> None:
        flow = task.flow = task.flow or Flow()
        flow.body, flow.rounds = event.body, event.rounds
        flow.begun += 1
        flow.tasks += event.task_count
        self.task_count += event.task_count
        if event.task_count:
            self._bodies[prefix_of(task.id, event)] = _Body(task.id, event.task_count)
        else:
            flow.done += 1

    def _leave(self, task: TaskView) -> None:
        """An instance has ended: with it perhaps the run of a body."""
        prefix = f"{task.id.rpartition('/')[0]}/"
        if body := self._bodies.get(prefix):
            body.open -= 1
            body.failed |= task.state not in (TaskState.SUCCEEDED, TaskState.SKIPPED)
            flow = self.task(body.owner).flow or Flow()
            flow.ended += 1
            if not body.open:
                del self._bodies[prefix]
                flow.done += 1
                flow.failed += body.failed
        failed = task.state in (TaskState.FAILED, TaskState.TIMED_OUT) and task.flow is None
        if failed and self._failed_kept < FAILED_KEPT:
            self._failed_kept += 1
        else:
            self._leaving = task.id

    def _let_go(self) -> None:
        if self._leaving:
            self._gone[self.tasks.pop(self._leaving).state] += 1
            self._leaving = ""

    def _owner(self, task_id: str) -> str:
        """The control task in whose body it stands, or, of one that began before we watched, one around that."""
        head = task_id
        while head := head.rpartition("/")[0]:
            owner = _ROUND.sub("", head)
            if (task := self.tasks.get(owner)) and task.flow is not None:
                return owner
        return ""

    def _promised(self, task_id: str) -> bool:
        """Whether it stands in a body that has not begun."""
        return (
            task_id not in self.tasks
            and bool(self._owner(task_id))
            and (f"{task_id.rpartition('/')[0]}/" not in self._bodies)
        )


def _entered(state: JobState, event: events.JobEvent) -> JobState:
    """The state after an event that does not fit the one before."""
    to = {after for (_, kind), after in JOB_TRANSITIONS.items() if kind is type(event)}
    return to.pop() if len(to) == 1 else state


def _apply(task: TaskView, event: events.TaskEvent, time: Instant) -> None:
    task.state = TASK_TRANSITIONS.get((task.state, type(event)), _settled(task.state, event))
    match event:
        case events.AttemptStarted():
            # Of a later attempt alone, when events were left out, nobody knows when the task began.
            began = time if event.attempt == 1 else None
            task.attempt, task.started_at = event.attempt, task.started_at or began
            task.fraction, task.message, task.text, task.trouble, task.waiting_until = None, "", "", "", None
        case events.BodyStarted():
            task.started_at = task.started_at or time
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
            task.trouble, task.waiting_until = parked(event) or event.message, until
    if task.state.terminal:
        task.ended_at = time
        task.trouble = _why(event)


def parked(event: events.AttemptParked) -> str:
    """`parked: orchestrator-a is open until 12:03:20 UTC: …` of one that waits for a circuit breaker, else empty."""
    if event.reason is not events.WaitReason.BREAKER_OPEN:
        return ""
    until = datetime.fromtimestamp(event.until / 1_000_000, UTC)
    where = event.endpoint or "its circuit breaker"
    return f"parked: {where} is open until {until:%H:%M:%S} UTC{f': {event.message}' if event.message else ''}"


def _why(event: events.TaskEvent) -> str:
    """Why a task ended as it did, if not by succeeding."""
    match event:
        case events.TaskFailed(failure=failure) | events.TaskTimedOut(failure=failure):
            return failure.message
        case events.TaskCancelled(reason=reason) | events.TaskSkipped(reason=reason):
            return reason
        case events.TaskReused(job_id=job):
            return f"reused from job {job}"
    return ""


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
