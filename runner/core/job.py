"""A job as the ledger knows it: the values that travel between engine, ledgers, rpc and sinks."""

from __future__ import annotations

import msgspec

from runner.core.errors import RunnerError
from runner.core.events import Artifact, Failure, JobState
from runner.core.plan import Instant, JobId, Priority, Sequence, TaskId


class Frame(msgspec.Struct, frozen=True):
    """The events of one commit of one job, encoded once as the bytes of one `WatchJobResponse`.

    The bytes of neighbouring frames may be joined: the result is the message that holds the events of all.
    """

    first: Sequence
    last: Sequence
    #: True if the last event is the job's terminal one.
    terminal: bool
    data: bytes


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What lists show: view BASIC."""

    id: JobId
    alt_id: str
    title: str
    state: JobState
    priority: Priority
    queue: str
    labels: dict[str, str]
    request_id: str
    created_at: Instant
    started_at: Instant | None
    ended_at: Instant | None
    not_before: Instant | None
    deadline: Instant | None
    #: 0–1.
    progress: float
    last_sequence: Sequence
    error: Failure | None
    cancel_requested: bool
    task_count: int
    descriptor_sha256: str
    #: From PauseJob to ResumeJob; the state follows when whoever holds the job has heard of it.
    pause_requested: bool = False


class Body(msgspec.Struct, frozen=True):
    """What a job was submitted with."""

    descriptor: bytes
    content_type: str
    #: The plan as MessagePack.
    plan: bytes
    #: A JSON object, or empty.
    inputs: bytes


class Inheritance(msgspec.Struct, frozen=True):
    """Artifacts of an earlier job that a new one has too, under the same ids."""

    job_id: JobId
    artifact_ids: tuple[str, ...]


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded submission, ready to be committed."""

    summary: JobSummary
    #: Lower sorts first: the time it became claimable less a head start for its priority, so that waiting ages.
    rank: Instant
    #: SHA-256 of the whole request, to tell a replay from a clash; empty without a request id.
    request_sha256: bytes
    descriptor: bytes
    content_type: str
    #: The plan as MessagePack.
    plan: bytes
    #: The submitter's inputs as a JSON object.
    inputs: bytes
    #: W3C trace context of the submitter, or empty.
    traceparent: str
    #: The first begins with JobAccepted; there are more events only where the job retries another.
    frames: tuple[Frame, ...]
    inherits: Inheritance | None = None
    #: Set on one that must not be accepted: the answer, unless it repeats a submission that was accepted before.
    refusal: RunnerError | None = None


class Submitted(msgspec.Struct, frozen=True):
    """An accepted submission: this one, or the earlier one that it repeats."""

    job: JobSummary
    replayed: bool


class Signal(msgspec.Struct, frozen=True):
    """A person's answer to a task."""

    task_id: TaskId
    approved: bool
    comment: str = ""
    #: Who, as told.
    sender: str = ""
    #: A JSON value, or empty.
    data: bytes = b""


class Steered(msgspec.Struct, frozen=True):
    """What became of the wish to pause or resume a job."""

    job: JobSummary
    #: The frame that the ledger wrote itself, as nobody held the job; None where its holder is to write one, or there
    #: was nothing to do.
    frame: Frame | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A job in a runner's hands, until its lease ends."""

    summary: JobSummary
    #: Fencing token: every write for the job must name it.
    token: int
    plan: bytes
    inputs: bytes
    traceparent: str
    #: All frames so far, oldest first.
    frames: tuple[Frame, ...]
    #: The reason given, where a cancellation was asked for.
    cancel_reason: str | None
    #: All answers so far, those among them that are events already.
    signals: tuple[Signal, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of its frames."""
        return sum(len(frame.data) for frame in self.frames)


class ReplayFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A claim in vain: its runner could not read the job's plan or events."""

    job_id: JobId
    #: Of the claim.
    token: int
    #: Why, for those who look at the job once it is set aside.
    error: Failure
    #: Not to be claimed again before.
    retry_at: Instant
    #: As many, since the ledger was opened, set the job aside.
    max_failures: int


class StoredArtifact(msgspec.Struct, frozen=True):
    """An artifact with its bytes, on its way into the ledger."""

    artifact: Artifact
    content: bytes


class Ending(msgspec.Struct, frozen=True):
    """What is committed together with a job's terminal event."""

    state: JobState
    error: Failure | None
    execution_id: str
    #: The `.last`, the very bytes that sinks write.
    record: bytes
    #: The time of the terminal event.
    ended_at: Instant
    #: Sinks that are to have it: one outbox entry each.
    sinks: tuple[str, ...] = ()


class Share(msgspec.Struct, frozen=True):
    """One budget of a label in one period, of which a call takes its share."""

    #: `team=research/month`.
    budget: str
    #: `2026-11-22`, `2026-11`, or empty for ever.
    period: str
    #: Tokens in the period.
    limit: int


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that one call may take of several budgets; of all of them or of none."""

    job_id: JobId
    #: Of the claim.
    token: int
    task_id: TaskId
    tokens: int
    shares: tuple[Share, ...]


class Shortfall(msgspec.Struct, frozen=True):
    """The first budget that cannot take a call now."""

    share: Share
    used: int
    #: What calls under way may take.
    reserved: int


class Spending(msgspec.Struct, frozen=True):
    """Tokens that were taken of a budget."""

    budget: str
    period: str
    tokens: int


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """One commit of one running job. Refused with LeaseLost unless `token` is the job's newest."""

    job_id: JobId
    token: int
    frame: Frame
    #: 0–1, after this frame.
    progress: float
    #: Set on the frame that holds the first JobStarted.
    started_at: Instant | None = None
    artifacts: tuple[StoredArtifact, ...] = ()
    ending: Ending | None = None
    #: True on the frame that holds JobReleased: the lease ends and the job is QUEUED again, or stays PAUSED.
    release: bool = False
    #: What the attempts that end with this frame took of the budgets of labels.
    spent: tuple[Spending, ...] = ()
    #: The tasks whose reservations end with it.
    settled: tuple[TaskId, ...] = ()
    #: The state the job enters with this frame, for the journal that WatchJobs follows; None if it stays in its own.
    entered: JobState | None = None


class Change(msgspec.Struct, frozen=True):
    """A job entered a state: an entry of the global journal that WatchJobs follows."""

    #: Grows with commit order over all jobs.
    cursor: int
    job: JobSummary
    state: JobState
    sequence: Sequence


class OutboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A `.last` that a sink has not confirmed yet."""

    id: int
    sink: str
    job_id: JobId
    execution_id: str
    #: When the job ended.
    ended_at: Instant
    record: bytes
    #: Deliveries tried before.
    attempts: int
