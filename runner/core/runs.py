"""What the events tell of one task and its attempts."""

from __future__ import annotations

from typing import Final

import msgspec

from runner.core.events import (
    Artifact,
    AttemptFailed,
    AttemptParked,
    AttemptSucceeded,
    Failure,
    FallbackUsed,
    TaskCancelled,
    TaskFailed,
    TaskSignalled,
    TaskState,
    TaskTimedOut,
    Usage,
    WaitReason,
)
from runner.core.plan import Instant, TaskPlan

#: The reason of what the end of the job's time ended.
DEADLINE_EXCEEDED: Final = "DEADLINE_EXCEEDED"


#: What tells how an attempt ended, and what it consumed.
AttemptEnd = AttemptSucceeded | AttemptFailed | AttemptParked | TaskFailed | TaskTimedOut | TaskCancelled


class AttemptRun(msgspec.Struct):
    """One attempt, as the events tell it."""

    number: int
    handler: str
    started_at: Instant
    ended_at: Instant | None = None
    #: `running succeeded failed timed_out cancelled parked lost`.
    outcome: str = "running"
    endpoint: str = ""
    model: str = ""
    usage: Usage | None = None
    failure: Failure | None = None
    #: What stood in for an AI task's first choice.
    fallback: FallbackUsed | None = None
    #: Unicode characters streamed so far.
    streamed: int = 0


class TaskRun(msgspec.Struct):
    """One task, as the events tell it."""

    plan: TaskPlan
    #: Its place in the plan.
    index: int
    #: Dependencies that have not succeeded yet.
    unmet: int
    state: TaskState = TaskState.PENDING
    attempts: list[AttemptRun] = []
    #: Attempts that count against the retries: failed ones, not parked or lost ones.
    failures: int = 0
    #: Attempts whose runner was lost without a word; one that gave the job back in order is not held against the task.
    lost: int = 0
    started_at: Instant | None = None
    ended_at: Instant | None = None
    #: JSON, once succeeded; empty where `output_artifact_id` names the artifact that holds it.
    output: bytes = b""
    output_artifact_id: str = ""
    artifacts: tuple[Artifact, ...] = ()
    #: What it set, as a JSON object, or empty.
    variables: bytes = b""
    #: What went wrong last.
    failure: Failure | None = None
    #: Why it was cancelled or skipped.
    reason: str = ""
    #: The job in which it ran, where this one retries that; else empty.
    reused_from: str = ""
    wait_reason: WaitReason | None = None
    waiting_until: Instant | None = None
    #: When time alone ends its wait: then, or later where it is to be called.
    due: Instant | None = None
    #: The answer to it, once somebody gave one.
    signal: TaskSignalled | None = None
    #: 0–1.
    fraction: float = 0.0
    message: str = ""

    def end_attempt(
        self,
        outcome: str,
        time: Instant,
        event: AttemptEnd | None = None,
    ) -> None:
        """The attempt under way has ended, if there is one."""
        if self.state is not TaskState.RUNNING or not self.attempts:
            return
        attempt = self.attempts[-1]
        attempt.outcome, attempt.ended_at = outcome, time
        if event is not None:
            attempt.endpoint = event.endpoint
            attempt.model = getattr(event, "model", "")
            attempt.usage = getattr(event, "usage", None)
            attempt.failure = getattr(event, "failure", None)
            attempt.fallback = getattr(event, "fallback", None)


def outcome_of(failure: Failure) -> str:
    """Of an attempt that ended with this."""
    return "timed_out" if failure.reason in ("TIMED_OUT", DEADLINE_EXCEEDED) else "failed"
