"""A job that a task of another job runs."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from runner.core.events import Artifact, Failure, JobState, Json, Usage
from runner.core.plan import JobId, Priority, TaskId


class ChildJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a task runs."""

    #: The job of the task.
    parent: JobId
    #: The same one finds the job that was submitted before.
    request_id: str
    descriptor: bytes
    #: Recognised from the bytes where empty.
    content_type: str = ""
    #: A JSON object, or empty.
    inputs: bytes = b""
    #: Empty for the parent's.
    queue: str = ""
    #: None for the descriptor's.
    priority: Priority | None = None
    labels: Mapping[str, str] = {}
    #: Tokens that its AI calls may take together; None for what its descriptor or the settings say.
    token_budget: int | None = None
    traceparent: str = ""


class ChildEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a child ended."""

    state: JobState
    #: What went wrong first, where it did not succeed.
    error: Failure | None
    #: Why it was cancelled, where it was.
    reason: str
    #: Of the tasks that succeeded.
    outputs: Mapping[TaskId, Json]
    #: The child's artifacts that hold the outputs which are too large to be among `outputs`.
    large_outputs: Mapping[TaskId, Artifact]
    #: What its AI calls consumed, all of it `elsewhere`, where endpoints are known; None where there were none.
    usage: Usage | None = None
