"""`Telemetry`: the engine's Observer, fanned out to logs, metrics and traces over one vocabulary of events."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from runner.core import events
from runner.core.events import Event, JobAccepted, Recorded
from runner.core.job import JobSummary
from runner.core.plan import TaskPlan
from runner.telemetry.logs import Logs, carrying
from runner.telemetry.metrics import Metrics
from runner.telemetry.timeline import Run, Stretch, Timeline
from runner.telemetry.traces import Traces

#: Every event that can happen to a job: the level and the name under which it is logged.
#: A job that goes well is one line, when it ends: a line costs about as much as a tenth of the whole job.
LOGGED: Final[Mapping[type[Event], tuple[int, str]]] = {
    events.JobAccepted: (logging.DEBUG, "job_accepted"),
    events.JobStarted: (logging.DEBUG, "job_started"),
    events.JobReleased: (logging.INFO, "job_released"),
    events.JobCancelling: (logging.INFO, "job_cancelling"),
    events.JobPaused: (logging.INFO, "job_paused"),
    events.JobResumed: (logging.INFO, "job_resumed"),
    events.JobSucceeded: (logging.INFO, "job_succeeded"),
    events.JobPartiallySucceeded: (logging.WARNING, "job_partially_succeeded"),
    events.JobFailed: (logging.WARNING, "job_failed"),
    events.JobCancelled: (logging.INFO, "job_cancelled"),
    events.AttemptStarted: (logging.DEBUG, "attempt_started"),
    events.AttemptProgressed: (logging.DEBUG, "attempt_progressed"),
    events.AttemptOutput: (logging.DEBUG, "attempt_output"),
    events.AttemptSucceeded: (logging.DEBUG, "attempt_succeeded"),
    events.AttemptFailed: (logging.WARNING, "attempt_failed"),
    events.AttemptParked: (logging.INFO, "attempt_parked"),
    events.TaskFailed: (logging.WARNING, "task_failed"),
    events.TaskTimedOut: (logging.WARNING, "task_timed_out"),
    events.TaskCancelled: (logging.INFO, "task_cancelled"),
    events.TaskSkipped: (logging.DEBUG, "task_skipped"),
    events.BodyStarted: (logging.DEBUG, "body_started"),
    events.ControlSucceeded: (logging.DEBUG, "control_succeeded"),
    events.TaskReused: (logging.DEBUG, "task_reused"),
    events.TaskSignalled: (logging.INFO, "task_signalled"),
}

#: Never logged as they are: what jobs are about belongs to their owners, and is large.
_BULK: Final = frozenset({"output", "text", "artifacts", "warnings", "data", "comment", "variables", "value"})

#: A notice's level, where the one who gives it does not say: by how its name ends.
_ALARMING: Final = (
    "_failed",
    "_lost",
    "_dropped",
    "_full",
    "_stalled",
    "_damaged",
    "_unavailable",
    "_refused",
    "_down",
)

_ENDINGS: Final = frozenset({events.JobSucceeded, events.JobPartiallySucceeded, events.JobFailed, events.JobCancelled})
_ENDS_RUN: Final = frozenset({"lease_lost", "job_dropped"})


class Telemetry:
    """What the engine tells, as logs, metrics and spans. Nothing is kept for a job that ended."""

    def __init__(
        self,
        logs: Logs,
        metrics: Metrics,
        traces: Traces,
        *,
        timeline: Timeline | None = None,
        jobs_logged: bool = True,
    ) -> None:
        """Without `jobs_logged` the log tells nothing of jobs, which somebody shows in another way."""
        self.logs = logs
        self.metrics = metrics
        self.traces = traces
        self._timeline = Timeline() if timeline is None else timeline
        self._jobs_logged = jobs_logged

    def committed(self, job: JobSummary, events: Sequence[Recorded], *, traceparent: str = "") -> None:
        """Events of a job are durable. `traceparent` is the submitter's, where the caller has it."""
        run = self._timeline.run(job, traceparent=traceparent)
        for recorded in events:
            self.metrics.begun(job, recorded)
            self._log(job, recorded, run)
        for stretch in self._timeline.follow(job, events, traceparent=traceparent):
            self._ended(stretch)

    @contextmanager
    def attempt(self, job: JobSummary, task: TaskPlan, number: int, *, traceparent: str) -> Iterator[str]:
        """Inside, log lines of anyone carry the attempt's ids; gives the trace context to pass on, or "".

        The attempt's span is not made here but when its end is committed.
        """
        run = self._timeline.run(job, traceparent=traceparent)
        context = self.traces.attempt_context(run, task.id, number)
        ids: dict[str, Any] = {"job_id": job.id, "task": task.id, "attempt": number}
        if context:
            _, ids["trace_id"], ids["span_id"], _ = context.split("-", 3)
        with carrying(ids):
            yield context

    def breaker(self, endpoint: str, model: str, state: str, previous: str, *, reason: str = "") -> None:
        self.metrics.breaker(endpoint, model, state)
        level = logging.WARNING if "open" in state.lower() else logging.INFO
        fields = {"endpoint": endpoint, "model": model, "state": state, "previous": previous}
        fields |= {"reason": reason} if reason else {}
        self.logs.write(level, "breaker_changed", fields)

    def ledger_commit(self, *, size: int, seconds: float) -> None:
        self.metrics.ledger_commit(size=size, seconds=seconds)

    def watchers(self, change: int) -> None:
        self.metrics.watchers(change)

    def frames_sent(self, count: int, size: int) -> None:
        self.metrics.frames_sent(count, size)

    def notice(self, event: str, **fields: Any) -> None:
        """A log event. Its level is the field `level`, else warning for what sounds bad or has an `error`.

        `lease_lost` and `job_dropped` also end what is kept of their `job_id`: its next events are told elsewhere.
        """
        self.metrics.notice(event)
        alarming = event.endswith(_ALARMING) or "error" in fields
        named = logging.getLevelNamesMapping().get(str(fields.pop("level", "")).upper())
        self.logs.write(named or (logging.WARNING if alarming else logging.INFO), event, fields)
        if event in _ENDS_RUN:
            for stretch in self._timeline.drop(str(fields.get("job_id", ""))):
                self._ended(stretch)

    def _ended(self, stretch: Stretch) -> None:
        self.metrics.ended(stretch)
        self.traces.ended(stretch)

    def _log(self, job: JobSummary, recorded: Recorded, run: Run) -> None:
        level, name = LOGGED[type(recorded.event)]
        if not self._jobs_logged or not self.logs.enabled(level):
            return
        fields: dict[str, Any] = {"job_id": job.id, "sequence": recorded.sequence}
        if type(recorded.event) in _ENDINGS:
            seconds = (recorded.time - job.created_at) / 1_000_000
            fields |= {"title": job.title, "queue": job.queue, "tasks": job.task_count, "seconds": seconds}
        if trace_id := self.traces.trace_id(run):
            fields["trace_id"] = trace_id
        self.logs.write(level, name, fields | _fields(recorded.event))


def _fields(event: Event) -> dict[str, Any]:
    """An event's fields as a log has them: flat, short, without what is empty."""
    fields: dict[str, Any] = {}
    for key, value in msgspec.structs.asdict(event).items():
        if isinstance(value, events.Failure):
            fields |= {"reason": value.reason, "error": value.message}
        elif isinstance(value, events.FallbackUsed):
            fields |= {"fallback": value.kind.name.lower(), "instead_of": value.instead_of}
            fields |= {"reason": value.failure.reason, "why": value.failure.message}
        elif isinstance(value, events.Usage):
            fields |= {"prompt_tokens": value.prompt_tokens, "completion_tokens": value.completion_tokens}
        elif key == "task_id":
            fields["task"] = value
        elif key in _BULK:
            fields |= {f"{key}_size": len(value)} if value else {}
        elif value not in ("", None):
            fields[key] = value.name.lower() if isinstance(value, events.WaitReason) else value
    if isinstance(event, JobAccepted):
        fields["priority"] = event.priority.name.lower()
    return fields
