"""events → `.last`: what happened to a job, as the record that it leaves behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from runner.core import instances
from runner.core.events import Artifact, Failure, FallbackUsed, JobState, TaskState
from runner.core.interpreter import JobRun
from runner.core.job import JobSummary
from runner.core.plan import Instant, Mode, Plan, TaskId
from runner.core.record import (
    ArtifactRecord,
    ArtifactType,
    AttemptRecord,
    DependencyType,
    ExecutionGraph,
    FallbackRecord,
    GraphEdge,
    GraphNode,
    LastRecord,
    RecordStatus,
    ResultStatus,
    TaskRecord,
    checksum,
    duration_text,
    tokens_of,
)
from runner.core.runs import AttemptRun, TaskRun
from runner.core.usage import sum_of, usage_by

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: Characters of an error or a reason within the summary; the whole stands in `metadata.error`.
_MAX_REASON: Final = 300

#: Characters of a description that every instance of a task but the first repeats.
_EXCERPT: Final = 200
_ROUNDS: Final = re.compile(r"\[\d+\]")

_RECORD_STATUS: Final = {
    JobState.SUCCEEDED: RecordStatus.SUCCESS,
    JobState.PARTIALLY_SUCCEEDED: RecordStatus.PARTIAL_SUCCESS,
    JobState.FAILED: RecordStatus.FAILURE,
    JobState.CANCELLED: RecordStatus.FAILURE,
}
_RESULT_STATUS: Final = {
    TaskState.PENDING: ResultStatus.PENDING,
    TaskState.RUNNING: ResultStatus.RUNNING,
    TaskState.WAITING: ResultStatus.PENDING,
    TaskState.SUCCEEDED: ResultStatus.COMPLETED,
    TaskState.FAILED: ResultStatus.FAILED,
    TaskState.TIMED_OUT: ResultStatus.TIMEOUT,
    TaskState.CANCELLED: ResultStatus.CANCELLED,
    TaskState.SKIPPED: ResultStatus.CANCELLED,
}


def compose(
    summary: JobSummary,
    plan: Plan,
    run: JobRun,
    *,
    record_id: str,
    execution_id: str,
    runner_id: str,
    trace_id: str,
) -> LastRecord:
    """The record of a job that has ended, from nothing but the arguments, in time linear in tasks and dependencies.

    `summary` gives what the job was accepted with; how it went comes from `run` alone. The checksum is `seal`'s.

    Raises ValueError: if the job has not ended.
    """
    if run.state is None or not run.state.terminal or run.ended_at is None:
        raise ValueError(f"job `{summary.id}` has not ended, so it has no record yet")
    ended = run.ended_at
    started = ended if run.started_at is None else run.started_at
    tasks = list(run.bodies.in_order())
    flow = instances.told(run)
    told = _Told()
    results = {
        task.plan.id: _task_record(task, told, execution_id, ended, flow.get(task.plan.id, {})) for task in tasks
    }
    return LastRecord(
        id=record_id,
        title=plan.title,
        status=_RECORD_STATUS[run.state],
        summary=_summary(run, started, ended),
        success_rate=_success_rate(run),
        start_time=_time(started),
        end_time=_time(ended),
        execution_time_ms=_milliseconds(started, ended),
        queue_time_ms=_milliseconds(max(summary.created_at, summary.not_before or 0), started),
        execution_id=execution_id,
        job_id=summary.id,
        alt_file_id=plan.alt_id,
        descriptor_sha256=summary.descriptor_sha256,
        runner_id=runner_id,
        trace_id=trace_id,
        mode=plan.mode,
        persona=plan.persona,
        priority=summary.priority.name.lower(),
        tags=plan.tags,
        usage=sum_of(result.usage for result in results.values()),
        usage_by=tuple(usage_by(attempt for task in tasks for attempt in task.attempts)),
        metadata=_metadata(summary, plan, run.state, run.error),
        task_results=results,
        artifacts=tuple(_artifact_record(summary.id, artifact) for task in tasks for artifact in task.artifacts),
        execution_graph=_graph(run, results),
    )


def compose_unread(
    summary: JobSummary,
    plan: Plan | None,
    *,
    why: str,
    reason: str | None,
    record_id: str,
    execution_id: str,
    runner_id: str,
    trace_id: str,
) -> LastRecord:
    """The record of a job that was ended although its events could not be read: `why` is a sentence that says so.

    `summary` is that of the job as it ended; `plan` is there where at least that could be read. Of tasks nothing is
    told, for what became of them is not known. `reason` is that of its cancellation, if it was cancelled.

    Raises ValueError: if the job has not ended.
    """
    if not summary.state.terminal or summary.ended_at is None:
        raise ValueError(f"job `{summary.id}` has not ended, so it has no record yet")
    ended = summary.ended_at
    started = ended if summary.started_at is None else summary.started_at
    tasks = f"its {summary.task_count:,} tasks" if summary.task_count > 1 else "its only task"
    how = f"Cancelled{_because(reason)}." if summary.error is None or reason is not None else summary.error.message
    return LastRecord(
        id=record_id,
        title=summary.title,
        status=_RECORD_STATUS[summary.state],
        summary=f"{_ended(how)} What became of {tasks} is not known: {_ended(why)}",
        success_rate=0.0,
        start_time=_time(started),
        end_time=_time(ended),
        execution_time_ms=_milliseconds(started, ended),
        queue_time_ms=_milliseconds(max(summary.created_at, summary.not_before or 0), started),
        execution_id=execution_id,
        job_id=summary.id,
        alt_file_id=summary.alt_id,
        descriptor_sha256=summary.descriptor_sha256,
        runner_id=runner_id,
        trace_id=trace_id,
        mode=Mode.NORMAL if plan is None else plan.mode,
        persona=None if plan is None else plan.persona,
        priority=summary.priority.name.lower(),
        tags=() if plan is None else plan.tags,
        metadata=_metadata(summary, plan, summary.state, summary.error) | {"unread": why},
        task_results={},
    )


def seal(record: LastRecord) -> bytes:
    """The record as indented JSON with its checksum and a final newline. The same record gives the same bytes.

    Cannot fail on what `compose` made: keys are text (decoders refuse others), and what JSON cannot hold becomes null.
    """
    bare = msgspec.structs.replace(record, checksum=msgspec.UNSET)
    sealed = msgspec.structs.replace(bare, checksum=checksum(bare))
    return msgspec.json.format(msgspec.json.encode(sealed), indent=2) + b"\n"


class _Told:
    """Which tasks of the plan were told of in full: what thousands of instances have in common stands once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def first(self, task: TaskRun, *, in_body: bool) -> bool:
        """Whether it is the first instance of its kind; a task that stands in no body always is."""
        if not in_body:
            return True
        kind = _ROUNDS.sub("", task.plan.id)
        if kind in self._seen:
            return False
        self._seen.add(kind)
        return True


def _task_record(task: TaskRun, told: _Told, execution_id: str, job_ended: Instant, flow: dict[str, Any]) -> TaskRecord:
    ended = job_ended if task.ended_at is None else task.ended_at
    started = ended if task.started_at is None else task.started_at
    whole = told.first(task, in_body="body_of" in flow)
    description = task.plan.description
    return TaskRecord(
        task_id=task.plan.id,
        execution_id=f"{execution_id}/{task.plan.id}",
        status=_RESULT_STATUS[task.state],
        start_time=_time(started),
        end_time=_time(ended),
        duration_ms=_milliseconds(started, ended),
        output=msgspec.json.decode(task.output) if task.output else None,
        error=_sentence(task.failure) or task.reason or None,
        metadata=_task_metadata(task, whole=whole) | flow,
        description=description if whole or len(description) <= _EXCERPT else f"{description[:_EXCERPT]}…",
        task_type=task.plan.kind,
        attempts=tuple(_attempt_record(attempt) for attempt in task.attempts),
        usage=sum_of(attempt.usage for attempt in task.attempts),
    )


def _attempt_record(attempt: AttemptRun) -> AttemptRecord:
    return AttemptRecord(
        number=attempt.number,
        handler=attempt.handler,
        started=_time(attempt.started_at),
        ended=None if attempt.ended_at is None else _time(attempt.ended_at),
        outcome=attempt.outcome,
        endpoint=attempt.endpoint,
        model=attempt.model,
        tokens=None if attempt.usage is None else tokens_of(attempt.usage),
        elsewhere=() if attempt.usage is None else attempt.usage.elsewhere,
        fallback=_fallback_record(attempt.fallback),
        error=_sentence(attempt.failure),
    )


def _fallback_record(used: FallbackUsed | None) -> FallbackRecord | None:
    if used is None:
        return None
    return FallbackRecord(
        kind=used.kind.name.lower(),
        position=used.position,
        instead_of=used.instead_of,
        reason=_sentence(used.failure) or "",
        age_seconds=used.age_seconds,
    )


def _artifact_record(job_id: str, artifact: Artifact) -> ArtifactRecord:
    return ArtifactRecord(
        id=artifact.id,
        name=artifact.name,
        artifact_type=ArtifactType(artifact.artifact_type),
        task_id=artifact.task_id,
        path=f"jobs/{job_id}/artifacts/{artifact.id}",
        created_at=_time(artifact.created_at),
        size_bytes=artifact.size_bytes,
        mime_type=artifact.mime_type,
        metadata={"sha256": artifact.sha256},
    )


def _graph(run: JobRun, results: dict[TaskId, TaskRecord]) -> ExecutionGraph:
    return ExecutionGraph(
        nodes=tuple(
            GraphNode(
                id=task_id,
                task_id=task_id,
                status=result.status,
                duration_ms=result.duration_ms,
                start_time=result.start_time,
                end_time=result.end_time,
            )
            for task_id, result in results.items()
        ),
        edges=tuple(_edges(run, results)),
    )


def _edges(run: JobRun, results: dict[TaskId, TaskRecord]) -> Iterator[GraphEdge]:
    """What each task waited for; the first ones of a body waited for the control task to come to it."""
    for name, result in results.items():
        dependencies = run.tasks[name].plan.dependencies
        for source in dependencies:
            yield GraphEdge(source, name)
        if not dependencies and (control := result.metadata.get("body_of")):
            yield GraphEdge(control, name, DependencyType.CONDITIONAL)


def _metadata(summary: JobSummary, plan: Plan | None, state: JobState, error: Failure | None) -> dict[str, Any]:
    told: dict[str, Any] = {} if plan is None else {f"alt_{key}": value for key, value in plan.metadata.items()}
    if state is JobState.CANCELLED:
        told["cancelled"] = True
    told["error"] = _sentence(error) if state is not JobState.SUCCEEDED else None
    if plan is not None:
        told["description"] = plan.description
        told["language"] = plan.language
        told["chaos_level"] = plan.chaos_level
        told["token_budget"] = plan.token_budget
    told["queue"] = summary.queue
    told["labels"] = summary.labels or None
    return {key: value for key, value in told.items() if value is not None or key.startswith("alt_")}


def _task_metadata(task: TaskRun, *, whole: bool) -> dict[str, Any]:
    told: dict[str, Any] = {f"alt_{key}": value for key, value in task.plan.metadata.items()} if whole else {}
    if task.state is TaskState.SKIPPED:
        told["skipped"] = True
    if task.reused_from:
        told["reused_from"] = task.reused_from
    if task.output_artifact_id:
        told["output_artifact"] = task.output_artifact_id
    return told


def _success_rate(run: JobRun) -> float:
    to_run = len(run.tasks) - run.counts[TaskState.SKIPPED]
    if not to_run:
        return 1.0 if run.state is JobState.SUCCEEDED else 0.0
    return run.counts[TaskState.SUCCEEDED] / to_run


def _summary(run: JobRun, started: Instant, ended: Instant) -> str:
    """One sentence, or two, that say how it went and what went wrong first."""
    counts = run.counts
    to_run = len(run.tasks) - counts[TaskState.SKIPPED]
    took = duration_text(_milliseconds(started, ended))
    rest = [
        (counts[TaskState.FAILED], "failed"),
        (counts[TaskState.TIMED_OUT], "timed out"),
        (counts[TaskState.CANCELLED], "cancelled"),
        (counts[TaskState.SKIPPED], "skipped"),
    ]
    parts = ", ".join(f"{count:,} {word}" for count, word in rest if count)
    done = f"{counts[TaskState.SUCCEEDED]:,} of {to_run:,} tasks completed"
    if run.state is JobState.SUCCEEDED:
        done = "The only task completed" if to_run == 1 else f"All {to_run:,} tasks completed"
    sentence = f"{done} in {took}" + (f" ({parts})." if parts else ".")
    if run.state is JobState.CANCELLED:
        return f"Cancelled{_because(run.cancelling)}. {sentence}"
    if run.error is None:
        return sentence
    where = f" in task `{run.error.task_id}`" if run.error.task_id else ""
    return f"{sentence} First failure{where}: {_ended(run.error.message)}"


def _because(reason: str | None) -> str:
    return f": {_ended(reason).rstrip('.')}" if reason else ""


def _ended(sentence: str) -> str:
    """Short enough for a summary, on one line, with a full stop."""
    line = " ".join(sentence.split())
    line = line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}…"
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."


def _sentence(failure: Failure | None) -> str | None:
    return None if failure is None else f"{failure.reason}: {failure.message}"


def _time(instant: Instant) -> datetime:
    return _EPOCH + timedelta(microseconds=instant)


def _milliseconds(start: Instant, end: Instant) -> int:
    """Never negative: a clock that was set back must not make a record unreadable."""
    return max(0, end - start) // 1_000
