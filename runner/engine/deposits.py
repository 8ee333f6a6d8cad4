"""Where an output goes: small ones stand in the event, large ones and files become artifacts in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from runner.core.errors import AttemptError
from runner.core.events import Artifact, AttemptSucceeded, TaskReused
from runner.core.job import StoredArtifact
from runner.core.plan import Instant
from runner.core.runs import TaskRun
from runner.engine.attempt import Failed, LiveAttempt, Succeeded
from runner.engine.settings import EngineSettings
from runner.ports import FileLeft

#: Bytes of an output that always stands in its event: an artifact's own description is not much less.
SMALL: Final = 1024


class Kept(msgspec.Struct, frozen=True):
    """What the tasks of a job have left so far, in bytes."""

    #: Of outputs that stand in events.
    inline: int = 0
    #: Of those, and of all artifacts.
    total: int = 0

    @classmethod
    def by(cls, tasks: Iterable[TaskRun | TaskReused]) -> Kept:
        """The sum over tasks, and what is taken over of those that are not there yet, as their events tell it."""
        kept = cls()
        for task in tasks:
            kept = kept.with_more(task.output, task.artifacts)
        return kept

    def with_more(self, output: bytes, artifacts: Iterable[Artifact]) -> Kept:
        """After one more task."""
        size = len(output)
        return Kept(self.inline + size, self.total + size + sum(artifact.size_bytes for artifact in artifacts))


def deposit(
    live: LiveAttempt,
    result: Succeeded,
    settings: EngineSettings,
    kept: Kept,
    *,
    now: Instant,
    new_id: Callable[[], str],
) -> tuple[AttemptSucceeded, list[StoredArtifact]] | Failed:
    """The event of a successful attempt with the artifacts to commit beside it, or why it fails after all.

    `kept` is what the job's other tasks left: the job's outputs stand in its frames, in its record and in memory, so
    together they are bounded, too.
    """
    files = list(result.outcome.files)
    output, output_artifact_id = result.output, ""
    size = len(output) + sum(len(left.content) for left in files)
    if message := _too_much(size, kept, settings):
        return _refused(result, message)
    stored = [_store(live, left, now=now, artifact_id=new_id()) for left in files]
    if len(output) > settings.inline_output_bytes or (
        len(output) > SMALL and kept.inline + len(output) > settings.inline_job_bytes
    ):
        whole = FileLeft(f"{live.task.id}.output.json", output, "application/json", "json")
        output, output_artifact_id = b"", new_id()
        stored.append(_store(live, whole, now=now, artifact_id=output_artifact_id))
    variables = _variables(result.output) if live.plan.has_variables else b""
    event = AttemptSucceeded(
        live.task.id,
        attempt=live.number,
        output=output,
        output_artifact_id=output_artifact_id,
        artifacts=tuple(entry.artifact for entry in stored),
        usage=result.outcome.usage,
        endpoint=result.outcome.endpoint,
        model=result.outcome.model,
        fallback=result.outcome.fallback,
        variables=variables,
    )
    return event, stored


class _Setting(msgspec.Struct, frozen=True):
    """An output that sets variables."""

    variables: dict[str, msgspec.Raw]


def _variables(output: bytes) -> bytes:
    """The variables that an output sets, as a JSON object; empty if it sets none."""
    if b'"variables"' not in output:
        return b""
    try:
        return msgspec.json.encode(msgspec.json.decode(output, type=_Setting).variables)
    except msgspec.ValidationError:
        return b""


def _too_much(size: int, kept: Kept, settings: EngineSettings) -> str:
    if size > settings.max_output_bytes:
        return (
            f"the task left {size} bytes; at most {settings.max_output_bytes} are kept "
            "(setting `engine.max_output_bytes`)"
        )
    if kept.total + size > settings.max_job_output_bytes:
        return (
            f"the task left {size} bytes and the job's others {kept.total}; at most {settings.max_job_output_bytes} "
            "are kept for one job (setting `engine.max_job_output_bytes`)"
        )
    return ""


def _refused(result: Succeeded, message: str) -> Failed:
    outcome = result.outcome
    # The call was made and paid for: where it went and what it used are told all the same.
    error = AttemptError(
        "OUTPUT_TOO_LARGE",
        message,
        retryable=False,
        endpoint=outcome.endpoint,
        model=outcome.model,
        usage=outcome.usage,
    )
    return Failed(error, message)


def _store(live: LiveAttempt, left: FileLeft, *, now: Instant, artifact_id: str) -> StoredArtifact:
    artifact = Artifact(
        id=artifact_id,
        name=left.name,
        artifact_type=left.artifact_type,
        task_id=live.task.id,
        mime_type=left.mime_type,
        size_bytes=len(left.content),
        sha256=hashlib.sha256(left.content).hexdigest(),
        created_at=now,
    )
    return StoredArtifact(artifact, left.content)
