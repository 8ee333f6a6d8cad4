"""Where an output goes: small ones stand in the event, large ones and files become artifacts in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from runner.core.errors import AttemptError
from runner.core.events import Artifact, AttemptSucceeded
from runner.core.job import StoredArtifact
from runner.core.plan import Instant
from runner.engine.attempt import Failed, LiveAttempt, Succeeded
from runner.engine.settings import EngineSettings
from runner.ports import FileLeft


def deposit(
    live: LiveAttempt, result: Succeeded, settings: EngineSettings, *, now: Instant, new_id: Callable[[], str]
) -> tuple[AttemptSucceeded, list[StoredArtifact]] | Failed:
    """The event of a successful attempt with the artifacts to commit beside it, or why it fails after all."""
    files = list(result.outcome.files)
    output, output_artifact_id = result.output, ""
    size = len(output) + sum(len(left.content) for left in files)
    if size > settings.max_output_bytes:
        message = (
            f"the task left {size} bytes; at most {settings.max_output_bytes} are kept "
            "(setting `engine.max_output_bytes`)"
        )
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
    stored = [_store(live, left, now=now, artifact_id=new_id()) for left in files]
    if len(output) > settings.inline_output_bytes:
        whole = FileLeft(f"{live.task.id}.output.json", output, "application/json", "json")
        output, output_artifact_id = b"", new_id()
        stored.append(_store(live, whole, now=now, artifact_id=output_artifact_id))
    event = AttemptSucceeded(
        live.task.id,
        attempt=live.number,
        output=output,
        output_artifact_id=output_artifact_id,
        artifacts=tuple(entry.artifact for entry in stored),
        usage=result.outcome.usage,
        endpoint=result.outcome.endpoint,
        model=result.outcome.model,
    )
    return event, stored


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
