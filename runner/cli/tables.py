"""Jobs and tasks as the daemon gives them, in tables for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from runner.cli.sentences import JOB_LOOKS, TASK_LOOKS, answering
from runner.cli.view import CONTROLS
from runner.core.events import JobState, TaskState, WaitReason
from runner.core.plan import Priority
from runner.core.record import duration_text
from runner.reports.standing import harmless

#: Fields of TaskCounts, in the order in which they are told.
_COUNTED: Final = ("succeeded", "failed", "cancelled", "skipped", "running", "waiting", "pending")
#: What the id of a control task has beside it in those of a round.
_ROUND: Final = re.compile(r"\[\d+\]$")


def jobs(found: list[Any]) -> Table:
    """A row for each job."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("JOB", no_wrap=True)
    for name in ("STATE", "DONE", "TASKS", "TOOK", "AGE", "QUEUE"):
        table.add_column(name, no_wrap=True, justify="right" if name in {"DONE", "TASKS"} else "left")
    table.add_column("TITLE", no_wrap=True, overflow="ellipsis")
    for job in found:
        table.add_row(
            job.job_id,
            _state(job),
            f"{job.progress:.0%}",
            str(job.task_count),
            _took(job),
            _age(job.create_time),
            Text(harmless(job.queue)),
            Text(harmless(job.title)),
        )
    return table


def _state(job: Any) -> Text:
    state = JobState(job.state)
    glyph, word, colour = JOB_LOOKS[state]
    asked = ""
    if state.terminal:
        pass
    elif job.cancel_requested:
        asked = ", cancelling"
    elif job.pause_requested is not (state is JobState.PAUSED):
        asked = ", pausing" if job.pause_requested else ", resuming"
    elif job.HasField("error"):
        asked = ", set aside"
    return Text(f"{glyph} {word}{asked}", colour)


def facts(job: Any) -> Table:
    """One job, fact by fact; what there is not is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bright_black", no_wrap=True)
    grid.add_column(overflow="fold")
    told: dict[str, Any] = {
        "title": Text(harmless(job.title), "bold"),
        "job": job.job_id,
        "state": _state(job),
        "progress": f"{job.progress:.0%}",
        "tasks": _counts(job),
        "alt id": harmless(job.alt_id),
        "queue": f"{harmless(job.queue)}, priority {_priority(job.priority)}",
        "labels": harmless(", ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))),
        "request id": harmless(job.request_id),
        "accepted": _time(job, "create_time"),
        "not before": _time(job, "not_before"),
        "deadline": _time(job, "deadline"),
        "started": _time(job, "start_time"),
        "ended": _time(job, "end_time"),
        "took": _took(job),
        "error": _failure(job, "error"),
        "events": str(job.last_sequence),
    }
    for name, value in told.items():
        if value:
            grid.add_row(name, value)
    return grid


def _counts(job: Any) -> str:
    """`23 so far: 20 succeeded, 3 skipped`; without view FULL nobody has counted those in bodies."""
    counts = job.task_counts
    if not counts.total:
        unread = job.error.reason == "REPLAY_FAILED"
        return f"{job.task_count:,} in the file; " + (
            "what became of them cannot be read" if unread else "--tasks shows and counts all"
        )
    told = ", ".join(f"{count:,} {word}" for word in _COUNTED if (count := getattr(counts, word)))
    return f"{counts.total:,}{'' if JobState(job.state).terminal else ' so far'}: {told}"


def tasks(job: Any) -> Table:
    """A row for each task of a job in view FULL; those in bodies below the task that runs them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("TASK", "TYPE", "STATE", "DONE", "ATTEMPTS", "TOOK"):
        table.add_column(name, no_wrap=True)
    table.add_column("WHY", overflow="fold")
    for depth, name, task in _tree(job.tasks):
        glyph, word, colour = TASK_LOOKS[TaskState(task.state)]
        table.add_row(
            Text(f"{'  ' * depth}{harmless(name)}"),
            Text(harmless(task.task_type)),
            Text(f"{glyph} {word}", colour),
            f"{task.progress:.0%}",
            str(task.attempts),
            _took(task),
            Text(harmless(_why(job.job_id, task))),
        )
    return table


def _tree(tasks: Iterable[Any]) -> Iterator[tuple[int, str, Any]]:
    """Each task with how deep it stands and its name there, such as `[3]/fetch`, and below it what it runs."""
    controls = {task.task_id for task in tasks if task.task_type in CONTROLS}
    inside: dict[str, list[Any]] = {}
    for task in tasks:
        owner = _ROUND.sub("", task.task_id.rpartition("/")[0])
        inside.setdefault(owner if owner in controls else "", []).append(task)
    waiting = [(0, "", task) for task in reversed(inside.pop("", []))]
    while waiting:
        depth, owner, task = waiting.pop()
        yield depth, task.task_id.removeprefix(owner).removeprefix("/") if owner else task.task_id, task
        waiting += [(depth + 1, task.task_id, each) for each in reversed(inside.get(task.task_id, ()))]


def _why(job: str, task: Any) -> str:
    """What it waits for and what answers it, or why it ended as it did; of those that just succeeded nothing."""
    if task.reused_from:
        return f"reused from job {task.reused_from}"
    if task.wait_reason == WaitReason.AWAITING_APPROVAL:
        return f"{task.wait_message} ({answering(job, task.task_id)})"
    if task.wait_reason == WaitReason.BREAKER_OPEN and task.HasField("waiting_until"):
        return f"parked until {task.waiting_until.ToDatetime(UTC):%H:%M:%S} UTC: {task.wait_message}"
    return task.wait_message or _failure(task, "failure")


def _priority(number: int) -> str:
    return Priority(number).name.lower()


def _failure(message: Any, field: str) -> str:
    if not message.HasField(field):
        return ""
    failure = getattr(message, field)
    where = f"task {failure.task_id}: " if failure.task_id and field == "error" else ""
    return f"{where}{failure.message} [{failure.reason}]"


def _time(message: Any, field: str) -> str:
    if not message.HasField(field):
        return ""
    stamp = getattr(message, field)
    return f"{stamp.ToDatetime(UTC):%Y-%m-%d %H:%M:%S} UTC ({_age(stamp)})"


def _age(stamp: Any) -> str:
    seconds = (datetime.now(UTC) - stamp.ToDatetime(UTC)).total_seconds()
    text = duration_text(int(abs(seconds)) * 1_000) if abs(seconds) >= 1 else "now"
    return text.replace(".0 s", " s") + ("" if text == "now" else " ago" if seconds > 0 else " from now")


def _took(message: Any) -> str:
    if not message.HasField("start_time"):
        return ""
    end = message.end_time.ToDatetime(UTC) if message.HasField("end_time") else datetime.now(UTC)
    return duration_text(max(0, int((end - message.start_time.ToDatetime(UTC)).total_seconds() * 1_000)))
