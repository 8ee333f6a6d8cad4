"""Everything that can happen to a job, as typed events: one vocabulary for ledger, watchers, logs, metrics and records.

An event is committed before anyone sees it and never changes after. `Recorded` gives it its number and time.
The protobuf messages of the same names (proto/altrunner/v1/event.proto) are their stored and wire form.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from runner.core.findings import Finding
from runner.core.plan import Instant, Priority, Sequence, TaskId


class JobState(enum.IntEnum):
    """Where a job stands; the numbers are those of the wire and of the ledger."""

    QUEUED = 1
    RUNNING = 2
    PAUSED = 3
    SUCCEEDED = 4
    PARTIALLY_SUCCEEDED = 5
    FAILED = 6
    CANCELLED = 7

    @property
    def terminal(self) -> bool:
        return self >= JobState.SUCCEEDED


class TaskState(enum.IntEnum):
    """Where a task stands; the numbers are those of the wire."""

    PENDING = 1
    RUNNING = 2
    WAITING = 3
    SUCCEEDED = 4
    FAILED = 5
    TIMED_OUT = 6
    CANCELLED = 7
    SKIPPED = 8

    @property
    def terminal(self) -> bool:
        return self >= TaskState.SUCCEEDED


class WaitReason(enum.IntEnum):
    """Why a task waits between attempts."""

    BACKING_OFF = 1
    BREAKER_OPEN = 2
    RATE_LIMITED = 3
    AWAITING_APPROVAL = 4
    OUT_OF_SERVICE = 5


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong."""

    #: UPPER_SNAKE, stable: HTTP_STATUS, TIMED_OUT, DEADLINE_EXCEEDED, …
    reason: str
    #: A sentence for a person, without secrets.
    message: str
    #: The task it began with, where it is about one.
    task_id: TaskId = ""


class UsageAt(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of what calls consumed, and where: at one endpoint and model."""

    endpoint: str = ""
    model: str = ""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What calls to AI models consumed."""

    #: Those that reached an endpoint.
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: May exceed the sum where an endpoint tells only the total.
    total_tokens: int = 0
    #: Parts of these sums that were consumed at another endpoint or model than the one that is named beside them: by
    #: the call that lost a hedge, by one that failed before another was answered, by a child job. Each place once.
    elsewhere: tuple[UsageAt, ...] = ()

    @property
    def undivided(self) -> Usage:
        """The same sums, without where they were consumed."""
        return msgspec.structs.replace(self, elsewhere=()) if self.elsewhere else self

    def __add__(self, other: Usage) -> Usage:
        """Both; what stands in neither's `elsewhere` was consumed at one place."""
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            merged(self.elsewhere + other.elsewhere) if self.elsewhere or other.elsewhere else (),
        )


_NOTHING: Final = UsageAt()


def merged(parts: Iterable[UsageAt]) -> tuple[UsageAt, ...]:
    """The same, with each place once, in the order of their names."""
    sums: dict[tuple[str, str], UsageAt] = {}
    for part in parts:
        place = (part.endpoint, part.model)
        before = sums.get(place, _NOTHING)
        sums[place] = UsageAt(
            *place,
            before.calls + part.calls,
            before.prompt_tokens + part.prompt_tokens,
            before.completion_tokens + part.completion_tokens,
            before.total_tokens + part.total_tokens,
        )
    return tuple(sums[place] for place in sorted(sums))


class FallbackKind(enum.IntEnum):
    """What stood in for an AI task's first choice; the numbers are those of the wire."""

    #: Another endpoint, or another model.
    ENDPOINT = 1
    #: An earlier answer to the same request.
    CACHED = 2
    #: A value that the descriptor gives.
    VALUE = 3


class FallbackUsed(msgspec.Struct, frozen=True, kw_only=True):
    """What stood in for an AI task's first choice, and why. Where it went stands beside it."""

    kind: FallbackKind
    #: Its place in the task's list, from 1.
    position: int
    #: The endpoint that it stood in for, or empty.
    instead_of: str = ""
    #: Why the first choice did not serve.
    failure: Failure
    #: Seconds since a cached answer was given.
    age_seconds: float = 0.0


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a task left behind; the bytes themselves are the ledger's."""

    id: str
    name: str
    #: `file`, `image`, `text`, `json`, `log` or `other`.
    artifact_type: str
    task_id: TaskId
    mime_type: str
    size_bytes: int
    #: Lower-case hexadecimal.
    sha256: str
    created_at: Instant


class JobEvent(msgspec.Struct, frozen=True):
    """Something that happened to a job as a whole."""


class JobAccepted(JobEvent, frozen=True):
    """Durable, and always event 1."""

    title: str
    task_count: int
    queue: str
    priority: Priority
    warnings: tuple[Finding, ...] = ()


class JobStarted(JobEvent, frozen=True):
    """A runner holds the job. Attempts that were under way before are lost and not consumed."""

    runner_id: str
    lease_token: int


class JobReleased(JobEvent, frozen=True):
    """The runner gave the job back. Attempts that were under way are lost and not consumed."""

    runner_id: str
    reason: str


class JobCancelling(JobEvent, frozen=True):
    """A cancellation was asked for; running tasks have their grace time."""

    reason: str


class JobPaused(JobEvent, frozen=True):
    """Nothing new starts until the job is resumed; attempts that are under way finish."""


class JobResumed(JobEvent, frozen=True):
    """The job goes on."""

    #: Whether a runner holds it still: then it is RUNNING again, else QUEUED.
    held: bool = False


class JobSucceeded(JobEvent, frozen=True):
    """Terminal: every task that was to run succeeded."""


class JobPartiallySucceeded(JobEvent, frozen=True):
    """Terminal: some tasks succeeded and some did not."""

    error: Failure


class JobFailed(JobEvent, frozen=True):
    """Terminal: nothing succeeded, a task failed under `fail_fast`, or the deadline passed."""

    error: Failure


class JobCancelled(JobEvent, frozen=True):
    """Terminal: cancelled on request."""

    reason: str


class TaskEvent(msgspec.Struct, frozen=True):
    """Something that happened to one task."""

    task_id: TaskId


class AttemptStarted(TaskEvent, frozen=True):
    """An attempt begins. Counts from 1; a parked or lost attempt keeps its number and the next start has the next."""

    attempt: int
    #: The handler that runs it.
    handler: str


class AttemptProgressed(TaskEvent, frozen=True):
    """How far a task is; what is not known is None. May be coalesced before it is committed."""

    attempt: int
    #: 0–1.
    fraction: float | None = None
    completed: int | None = None
    total: int | None = None
    message: str = ""


class AttemptOutput(TaskEvent, frozen=True):
    """A piece of streamed text. Neighbouring pieces may be merged before they are committed."""

    attempt: int
    #: Unicode characters of this attempt's text before this piece.
    offset: int
    text: str


class AttemptSucceeded(TaskEvent, frozen=True, kw_only=True):
    """Terminal for the task: it has its output."""

    attempt: int
    #: JSON; empty where `output_artifact_id` names the artifact that holds it.
    output: bytes = b"null"
    output_artifact_id: str = ""
    artifacts: tuple[Artifact, ...] = ()
    usage: Usage | None = None
    endpoint: str = ""
    model: str = ""
    #: The variables that it sets, as a JSON object, or empty.
    variables: bytes = b""
    #: Of an AI task, where it was not its first choice that answered.
    fallback: FallbackUsed | None = None


class AttemptFailed(TaskEvent, frozen=True, kw_only=True):
    """The attempt failed and the task waits until `retry_at` for the next."""

    attempt: int
    failure: Failure
    retry_at: Instant
    endpoint: str = ""
    model: str = ""
    usage: Usage | None = None


class AttemptParked(TaskEvent, frozen=True, kw_only=True):
    """The attempt could not begin its call; the task waits until `until` and no attempt is consumed."""

    attempt: int
    reason: WaitReason
    until: Instant
    endpoint: str = ""
    message: str = ""
    #: Of calls that were made before the one that it waits for.
    usage: Usage | None = None


class TaskFailed(TaskEvent, frozen=True, kw_only=True):
    """Terminal: no attempt is left, or none would help. `attempt` is 0 where none began."""

    attempt: int
    failure: Failure
    endpoint: str = ""
    model: str = ""
    usage: Usage | None = None


class TaskTimedOut(TaskEvent, frozen=True, kw_only=True):
    """Terminal: the last attempt's time, or the job's, ran out. `attempt` is 0 where none began."""

    attempt: int
    failure: Failure
    endpoint: str = ""
    model: str = ""
    usage: Usage | None = None


class TaskCancelled(TaskEvent, frozen=True, kw_only=True):
    """Terminal: stopped, or not to run any more. `attempt` is 0 where none was under way."""

    attempt: int
    reason: str
    endpoint: str = ""
    model: str = ""
    usage: Usage | None = None


class BodyStarted(TaskEvent, frozen=True, kw_only=True):
    """A control task begins one run of a body, whose tasks come into being with it."""

    #: `if`, `else`, `round` or `call`.
    body: str
    #: Of a loop, from 0.
    round: int = 0
    #: Tasks that came into being, those of the branch that is not taken among them.
    task_count: int = 0
    #: Of a loop, the value of its variable as JSON, where it is short.
    value: bytes = b""
    #: Of a loop, the name of its variable; of a call, that of the function.
    name: str = ""
    #: Of a loop, the rounds that there are to be, where that is known; else 0.
    rounds: int = 0


class ControlSucceeded(TaskEvent, frozen=True):
    """Terminal for the control task: its last body has ended well."""


class TaskReused(TaskEvent, frozen=True, kw_only=True):
    """It succeeded in the job that this one retries, and does not run again.

    Of a task that is not there yet, because no body with it has begun: it will not run again, should it come to be.
    """

    #: JSON, or empty where `output_artifact_id` names the artifact that holds it.
    output: bytes = b""
    output_artifact_id: str = ""
    artifacts: tuple[Artifact, ...] = ()
    #: The job in which it ran.
    job_id: str = ""
    #: The variables that it sets, as a JSON object, or empty.
    variables: bytes = b""


class TaskSignalled(TaskEvent, frozen=True, kw_only=True):
    """Somebody approved or rejected what the task asks for."""

    approved: bool
    comment: str = ""
    #: Who, as told.
    sender: str = ""
    #: A JSON value, or empty.
    data: bytes = b""


class TaskSkipped(TaskEvent, frozen=True):
    """Terminal: its branch was not taken."""

    reason: str


Event = JobEvent | TaskEvent


class Recorded(msgspec.Struct, frozen=True):
    """An event with its number and time."""

    sequence: Sequence
    #: By the runner's clock, for people. Order is by `sequence`.
    time: Instant
    event: Event


#: JSON values, as handlers return them.
Json = Any
