"""Events and states in words, for lines and bars."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Final

import msgspec

from runner.cli.view import JobView, TaskView, parked
from runner.core import events
from runner.core.events import JobState, TaskState, WaitReason
from runner.core.plan import Instant
from runner.core.record import FallbackRecord, duration_text
from runner.reports.standing import counted
from runner.reports.wording import of_fallback, short

#: Glyph, word, colour.
JOB_LOOKS: Final = {
    JobState.QUEUED: ("○", "queued", "bright_black"),
    JobState.RUNNING: ("●", "running", "blue"),
    JobState.PAUSED: ("‖", "paused", "yellow"),
    JobState.SUCCEEDED: ("✓", "succeeded", "green"),
    JobState.PARTIALLY_SUCCEEDED: ("◐", "partially succeeded", "yellow"),
    JobState.FAILED: ("✗", "failed", "red"),
    JobState.CANCELLED: ("⊘", "cancelled", "bright_black"),
}
TASK_LOOKS: Final = {
    TaskState.PENDING: ("○", "pending", "bright_black"),
    TaskState.RUNNING: ("●", "running", "blue"),
    TaskState.WAITING: ("◌", "waiting", "yellow"),
    TaskState.SUCCEEDED: ("✓", "succeeded", "green"),
    TaskState.FAILED: ("✗", "failed", "red"),
    TaskState.TIMED_OUT: ("⧖", "timed out", "red"),
    TaskState.CANCELLED: ("⊘", "cancelled", "bright_black"),
    TaskState.SKIPPED: ("↷", "skipped", "bright_black"),
}
_WAITS: Final = {
    WaitReason.BACKING_OFF: "backing off",
    WaitReason.RATE_LIMITED: "no room",
    WaitReason.OUT_OF_SERVICE: "out of service",
}
_MICROS: Final = 1_000_000


def clock(instant: Instant) -> str:
    """`2026-11-22T03:09:09.123Z`."""
    time = datetime.fromtimestamp(instant / _MICROS, UTC)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z"


def between(start: Instant | None, end: Instant | None) -> str:
    """How long something took; empty where one end is not known."""
    return "" if start is None or end is None else duration_text(max(0, end - start) // 1_000)


def told(recorded: events.Recorded, view: JobView) -> str:
    """An event as a sentence; `view` has taken it in. Empty for streamed text, which is shown as lines of its own."""
    event = recorded.event
    if isinstance(event, events.TaskEvent):
        sentence = _of_task(event, view, recorded.time)
        return f"{event.task_id}: {sentence}" if sentence else ""
    return _of_job(event, view)


def _of_job(event: events.JobEvent, view: JobView) -> str:  # noqa: PLR0911 -- one for each kind of event
    took = between(view.started_at, view.ended_at)
    match event:
        case events.JobAccepted():
            tasks = f"{event.task_count} task{'s' * (event.task_count != 1)}"
            return f"accepted “{event.title}”: {tasks}, queue {event.queue}, priority {event.priority.name.lower()}"
        case events.JobStarted():
            return f"started by runner {event.runner_id}"
        case events.JobReleased():
            then = "it waits to be resumed" if view.state is JobState.PAUSED else "another will take it"
            return f"released by runner {event.runner_id} ({event.reason}); {then}"
        case events.JobPaused():
            how = f" (alt-runner resume {view.id})" if view.reachable else ""
            return f"paused; nothing new starts{how}"
        case events.JobResumed():
            return "resumed"
        case events.JobCancelling():
            return f"cancelling{f': {event.reason}' if event.reason else ''}"
        case events.JobSucceeded():
            return f"job succeeded{f' in {took}' if took else ''}"
        case events.JobPartiallySucceeded() | events.JobFailed():
            return f"job {JOB_LOOKS[view.state][1]}{f' after {took}' if took else ''}: {failure(event.error)}"
        case events.JobCancelled():
            return f"job cancelled{f': {event.reason}' if event.reason else ''}"
    return type(event).__name__


def _of_task(event: events.TaskEvent, view: JobView, time: Instant) -> str:  # noqa: C901, PLR0911 -- one for each kind
    task = view.task(event.task_id)
    match event:
        case events.AttemptStarted():
            return f"attempt {event.attempt} started ({event.handler})"
        case events.AttemptProgressed():
            return f"progress {progressed(event)}"
        case events.AttemptOutput():
            return ""
        case events.AttemptSucceeded():
            tokens = event.usage.total_tokens if event.usage else 0
            took = between(task.started_at, time)
            instead = f"; {_fallback(event, event.fallback)}" if event.fallback else ""
            return f"succeeded{f' in {took}' if took else ''}{f', {tokens} tokens' if tokens else ''}{instead}"
        case events.AttemptFailed():
            wait = between(time, event.retry_at)
            return f"attempt {event.attempt} failed: {failure(event.failure)}; next in {wait}"
        case events.AttemptParked():
            if event.reason is WaitReason.AWAITING_APPROVAL:
                how = f" ({answering(view.id, event.task_id)})" if view.reachable else ""
                return f"asks for approval: {event.message}{how}"
            return parked(event) or f"waits {between(time, event.until)} ({_WAITS[event.reason]}): {event.message}"
        case events.TaskFailed() | events.TaskTimedOut():
            return f"{TASK_LOOKS[task.state][1]}: {failure(event.failure)}"
        case events.TaskSignalled():
            return _answer(event)
        case events.TaskReused():
            return f"reused from job {event.job_id}"
        case events.TaskCancelled() | events.TaskSkipped():
            return f"{TASK_LOOKS[task.state][1]}: {event.reason}"
    return _of_control(event, task, time)


def _fallback(event: events.AttemptSucceeded, used: events.FallbackUsed) -> str:
    """`b · small stood in for a: its circuit breaker is open [BREAKER_OPEN]`."""
    record = FallbackRecord(kind=used.kind.name.lower(), instead_of=used.instead_of, age_seconds=used.age_seconds)
    return f"{of_fallback(record, event.endpoint, event.model)}: {failure(used.failure)}"


def _of_control(event: events.TaskEvent, task: TaskView, time: Instant) -> str:
    """`round 3 begins (ticket = T-17)`, `takes the branch if`, `calls score`."""
    if isinstance(event, events.ControlSucceeded):
        rounds = f", {counted(task.flow.done, 'round')}" if task.flow and task.flow.body in {"", "round"} else ""
        took = between(task.started_at, time)
        return f"succeeded{f' in {took}' if took else ''}{rounds}"
    if not isinstance(event, events.BodyStarted):
        return type(event).__name__
    if event.body == "round":
        value = ""
        if event.value:
            value = f" ({event.name or 'its variable'} = {short(msgspec.json.decode(event.value))})"
        return f"round {event.round} begins{value}"
    if event.body == "call":
        return f"calls {event.name or 'a function'}"
    return f"takes the branch {event.body}"


def answering(job: str, task: str) -> str:
    """What answers a task, to be copied: the ids of those in loops have brackets, which shells take for patterns."""
    return f"alt-runner approve {job} {shlex.quote(task)}, or reject"


def _answer(event: events.TaskSignalled) -> str:
    word = "approved" if event.approved else "rejected"
    return f"{word}{f' by {event.sender}' if event.sender else ''}{f': {event.comment}' if event.comment else ''}"


def progressed(event: events.AttemptProgressed) -> str:
    """`42 %, 21 of 50: reading rows`, as far as known."""
    parts = []
    if event.fraction is not None:
        parts.append(f"{event.fraction:.0%}".replace("%", " %"))
    if event.completed is not None:
        parts.append(f"{event.completed} of {event.total}" if event.total else str(event.completed))
    return ", ".join(parts) + (f": {event.message}" if event.message and parts else event.message)


def failure(error: events.Failure) -> str:
    where = f"task {error.task_id}: " if error.task_id else ""
    return f"{where}{error.message} [{error.reason}]"


def ended(view: JobView) -> str:
    """One line about a job that has ended, or not yet."""
    glyph, word, _ = JOB_LOOKS[view.state]
    took = between(view.started_at, view.ended_at)
    skipped = view.count(TaskState.SKIPPED)
    tasks = "" if view.partial else f", {view.count(TaskState.SUCCEEDED)} of {view.total - skipped} tasks"
    why = f"; {failure(view.error)}" if view.error else ""
    return f"{glyph} {view.id} “{view.title}” {word}{f' in {took}' if took else ''}{tasks}{why}"
