"""The seams of the engine: what it needs from the outside, as Protocols. Everything outside implements one of these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any, Protocol

import msgspec

from runner.core.answers import AnswerCachePolicy, KeptAnswer
from runner.core.breaker import BreakerState
from runner.core.child import ChildEnd, ChildJob
from runner.core.events import Artifact, FallbackUsed, Json, Recorded, Usage
from runner.core.filters import JobQuery
from runner.core.fleet import BreakerView, EndpointView, Lease, Registration
from runner.core.job import (
    Append,
    Body,
    Change,
    Claim,
    Frame,
    JobSummary,
    NewJob,
    OutboxEntry,
    ReplayFailure,
    Reservation,
    Shortfall,
    Signal,
    Steered,
    Submitted,
)
from runner.core.plan import Instant, JobId, Plan, TaskPlan
from runner.core.prompt import Answer, Prompt

# ---------------------------------------------------------------------------------------------------- handlers


class FileLeft(msgspec.Struct, frozen=True):
    """Bytes that a handler leaves behind as an artifact."""

    name: str
    content: bytes
    mime_type: str = "application/octet-stream"
    #: `file`, `image`, `text`, `json`, `log` or `other`.
    artifact_type: str = "file"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a successful attempt gives."""

    #: Any JSON value; what `${tasks.ID.output}` refers to.
    output: Json = None
    files: tuple[FileLeft, ...] = ()
    usage: Usage | None = None
    #: Where an AI call went, and which model answered.
    endpoint: str = ""
    model: str = ""
    #: What stood in for the first choice.
    fallback: FallbackUsed | None = None


class Attempt(Protocol):
    """One attempt of one task, as its handler sees it."""

    job_id: JobId
    plan: Plan
    task: TaskPlan
    #: From 1.
    number: int
    #: Attempts before this one that failed; those that were lost or put off are none.
    failures: int
    #: Attempts that may follow this one, should it fail and another may help.
    retries_left: int
    #: The task's parameters with every reference resolved, secrets included.
    parameters: dict[str, Any]
    #: `<job>/<task>`: the same for every attempt, so that the other side can tell a repetition.
    idempotency_key: str
    #: W3C trace context of this attempt, or empty.
    traceparent: str
    #: A person's answer to the task, once there is one.
    signal: Signal | None
    #: When this attempt began.
    began: Instant
    #: Seconds from the beginning of the task's first attempt to that of this one.
    waited: float

    def remaining(self) -> float:
        """Seconds until this attempt is cancelled: the lesser of its own time-out and the job's deadline."""

    def progress(
        self,
        fraction: float | None = None,
        *,
        completed: int | None = None,
        total: int | None = None,
        message: str = "",
    ) -> None:
        """Tell how far the task is. Cheap: only the newest report of a commit is kept."""

    async def stop_requested(self) -> None:
        """Wait until the attempt is asked to stop; for handlers with `stops_when_asked`."""

    async def output(self, text: str) -> None:
        """Stream a piece of text to watchers. Waits while the ledger is behind, so nothing grows without bound."""

    def redacted(self, value: Json) -> Json:
        """A JSON value as it may be stored: every secret that the attempt or the daemon knows is taken out."""

    async def reserve_tokens(self, prompt: str, *, answer: int | None = None) -> None:
        """Take the tokens of a call to an AI model out of the budgets of the job and its labels, before it is made.

        The estimate is a third of the prompt's characters and `answer` tokens (None: `engine.default_answer_tokens`).
        Reservations of one attempt add up; with its end, the usage that it tells takes their place.

        Raises AttemptError: TOKEN_BUDGET_EXCEEDED, if a budget cannot take the call. It must not be made.
        Raises AttemptPutOff: if a budget can take it later: when calls under way have ended, or its period has.
        """

    def consumed(self, usage: Usage) -> None:
        """Tell what calls to AI models have consumed so far, in case that the attempt is cut off without an outcome.

        The last word stands; an outcome, or an error, tells its own. Where it was consumed stands in `elsewhere`.
        """

    def tokens_left(self) -> int | None:
        """Tokens of the job's own budget that are neither used nor reserved; None where nothing bounds them."""


class Bulkhead(msgspec.Struct, frozen=True):
    """A bound on the attempts that may be at one place at a time, so that a sick place holds up nobody else."""

    #: Names the place; every task that names it shares its bound. There are few of them.
    name: str
    #: Attempts under way, at least 1.
    places: int


class Handler(Protocol):
    """What a kind of task does.

    When its job is cancelled, an attempt is cancelled at once. A handler that has an attribute `stops_when_asked` that
    is true listens to `Attempt.stop_requested` instead, and is cancelled only after `engine.cancel_grace_seconds`.

    An attempt takes one of the `engine.max_concurrent_tasks`. Those of a handler that has an attribute `needs_slot`
    that is false take none: for handlers that only wait.

    A handler that has a method `bulkhead(task: TaskPlan) -> Bulkhead | None` is asked where a task goes when its job is
    taken up, references in its parameters not resolved yet. The task starts when there is room; until then it takes no
    slot, its time does not run, and nothing is recorded.

    A handler that has an attribute `parameters` that is a msgspec struct declares by it which parameters it takes;
    `alt-runner handlers` documents them: types, defaults, and the `msgspec.Meta(description=…)` or the `#:` comment
    of each field. Descriptors are checked against it before anything runs, and a name that it does not have is warned
    of, unless the handler has an attribute `passes_parameters_on` that is true.

    A handler that has a method `check(parameters: Mapping[str, Any]) -> Iterable[ParameterProblem]` is asked then what
    else is wrong. It gets the parameters as they are written, each of its declared type; `runner.core.alt.LATER` stands
    for what is known only when the task runs. It may be called on any thread, for every submission: it must be quick,
    look at nothing but its arguments and settings, and not raise.
    """

    async def run(self, attempt: Attempt) -> Outcome:
        """Run one attempt.

        Raises AttemptError: with a reason, a sentence, and whether another attempt may help.
        Raises AttemptPutOff: if it could not begin, and when it may.
        Any other exception is recorded as a failure that is not retried. Time-outs and cancellation arrive as
        the backend's cancellation: never swallow it.
        """


# ------------------------------------------------------------------------------------------------------- children


class Jobs(Protocol):
    """Runs jobs for tasks: children of the jobs that they belong to, and ended with them."""

    async def submit(self, child: ChildJob) -> JobId:
        """Accept a child, or find the one that was accepted before. It is durable when this returns.

        Its deadline is the parent's. Labels tell its parent, the root of all, and how deep it is; those of the parent's
        that have a token budget are its own, too.

        Raises AttemptError: CHILD_REFUSED, if the descriptor or another field is wrong; NESTED_TOO_DEEP.
        Raises AttemptPutOff: if no job can be taken now.
        """

    async def wait(self, child: JobId, *, parent: JobId, on_progress: Callable[[float], None]) -> ChildEnd:
        """Wait for a child's end; `on_progress` is told now and then how far it is, 0 to 1.

        Meanwhile the parent does not count as a running job.

        Raises AttemptPutOff: when the daemon shuts down.
        """

    async def cancel(self, child: JobId, reason: str) -> None:
        """Ask for its cancellation; it is durable when this returns. Harmless where it has ended."""


# ----------------------------------------------------------------------------------------------- orchestrators


class Orchestrator(Protocol):
    """An AI orchestrator's endpoint. One that bounds its calls has an attribute `bulkhead`, a Bulkhead."""

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        """Call it; `on_text` receives pieces of the answer as they arrive, if the protocol streams.

        Raises AttemptError, AttemptPutOff: as `Handler.run` does.
        """

    async def health(self) -> None:
        """Raises AttemptError: if it does not answer its health check."""


class Fleet(Protocol):
    """The endpoints of all AI orchestrators and their circuit breakers, for those who watch and steer them.

    What is steered holds for this daemon, until it ends.
    """

    def endpoints(self) -> list[EndpointView]:
        """All, by group and name."""

    def breakers(self) -> list[BreakerView]:
        """All that exist, by endpoint and model. A model's breaker comes to be with its first call."""

    async def changed(self) -> None:
        """Wait until a breaker's state, or the set, health or draining of endpoints changes."""

    def force(self, endpoint: str, models: Collection[str], state: BreakerState) -> list[BreakerView]:
        """Set the breakers of some models, or of all that exist, by hand. CLOSED is a reset. Answers them.

        Raises EndpointNotFound.
        """

    def drain(self, endpoint: str, *, draining: bool) -> EndpointView:
        """Give it no new calls, or give it calls again. Raises EndpointNotFound."""

    async def register(self, registration: Registration, *, seconds: float | None) -> tuple[EndpointView, Lease]:
        """Call it from now on, for as long as its lease is renewed. `seconds` None: the setting's.

        Raises RegistrationRefused: if its group takes none, the name is another's, or a limit is reached.
        Raises InvalidRequest: if the registration is wrong.
        """

    async def renew(self, endpoint: str, lease_id: str) -> Lease:
        """A heartbeat. Raises EndpointNotFound: it is not registered, any more perhaps; it should register."""

    async def deregister(self, endpoint: str, lease_id: str) -> None:
        """Call it no more; calls under way finish. Raises EndpointNotFound."""


# ------------------------------------------------------------------------------------------------------ ledger


class Answers(Protocol):
    """Earlier answers of AI orchestrators, by what was asked. Every ledger has them.

    Every verb may raise LedgerUnavailable: nothing was changed.
    """

    async def answer(self, key: bytes, *, since: Instant) -> KeptAnswer | None:
        """The answer to a request (`runner.core.answers.request_key`), if it was given at `since` or later."""

    async def keep_answer(self, key: bytes, answer: KeptAnswer, *, policy: AnswerCachePolicy) -> None:
        """Keep it in the place of an earlier one. It is durable when this returns.

        What then is too old, by the answer's own time, or too much, oldest first, is forgotten.
        """


class Ledger(Answers, Protocol):
    """The durable truth. Every verb below is one atomic commit, synced to disk when it returns.

    Every verb may raise LedgerUnavailable (LedgerFull): nothing was changed, the same call may be made again.
    Verbs that are under way at the same time share commits.
    """

    def running(self) -> AbstractAsyncContextManager[None]:
        """Open the store, bring its schema up to date and keep it open inside the context.

        Jobs that were set aside, or nearly, are tried again from the beginning: perhaps by another version.
        Raises LedgerHeld, LedgerDamaged, LedgerUnavailable: if it cannot be opened.
        """

    async def submit(self, jobs: Sequence[NewJob], *, max_queued: Mapping[str, int]) -> list[Submitted | Exception]:
        """Accept jobs. For each, in order: Submitted, or a QueueFull or RequestIdReused that speaks of it alone.

        One with a `refusal` gets that, unless it repeats a submission that was accepted before.
        `max_queued` bounds the waiting jobs of each queue; a queue it does not name has no bound.
        """

    async def claim(
        self,
        runner_id: str,
        *,
        now: Instant,
        lease_until: Instant,
        limit: int,
        max_bytes: int,
        queue_limits: Mapping[str, int],
    ) -> list[Claim]:
        """Take up to `limit` claimable jobs, lowest rank first, at most `queue_limits[queue]` running in each queue.

        The job whose frames bring the claims' `size` to `max_bytes` is the last.
        A queue that `queue_limits` does not name has no bound.
        Claimable: QUEUED, `not_before` passed, and not set aside. Jobs with a cancellation asked for, or past their
        deadline, are taken first, and whatever the limits of queues say: they only need to be ended.
        """

    async def append(self, change: Append) -> None:
        """Commit a frame of a running job, with all that belongs to it.

        The very same append may be made again; it is committed once.
        Raises LeaseLost: if the token is not the job's newest, nobody holds it, or the frame is not its next.
        """

    async def set_back(self, failure: ReplayFailure) -> bool:
        """Give back a job that could not be replayed, until `retry_at`. Answers whether it is set aside.

        It is by the `max_failures`th failure since the ledger opened: QUEUED with the error, claimed only to be ended.
        Raises LeaseLost: if the token is not the job's newest, or nobody holds it.
        """

    async def reserve_tokens(self, reservation: Reservation) -> Shortfall | None:
        """Take tokens out of the budgets of labels for a call that is about to be made.

        None: all of them can take it. Else none of them has changed. A reservation counts for as long as its job has
        this claim and no append has `settled` its task; further ones of the same task add to it.
        Raises LeaseLost: if the token is not the job's newest, or nobody holds it.
        """

    async def spent_tokens(self, budget: str, period: str) -> int:
        """What was used of a budget in a period, as appends told it."""

    async def renew(self, runner_id: str, *, tokens: Mapping[JobId, int], until: Instant) -> set[JobId]:
        """Extend leases. Answers the jobs that are still this runner's."""

    async def rescue(self, *, now: Instant, limit: int) -> int:
        """Make up to `limit` jobs whose lease ended claimable again. Answers how many."""

    async def request_cancel(self, job_id: JobId, reason: str) -> JobSummary:
        """Make the wish durable and claimable; the job's holder fulfils it. Harmless on a job that has ended.

        Raises JobNotFound.
        """

    async def request_pause(self, job_id: JobId, *, framed: Callable[[int], Frame]) -> Steered:
        """Make the wish durable. Harmless on a job that is paused.

        The job's holder fulfils it. Where nobody holds the job, the ledger appends JobPaused in the same commit:
        `framed` encodes it with the number that it is given, in any thread, and perhaps more than once.

        Raises JobNotFound, JobHasEnded.
        """

    async def request_resume(self, job_id: JobId, *, framed: Callable[[int], Frame]) -> Steered:
        """The same for JobResumed. A job that nobody holds is claimable again. Harmless on one that is not paused.

        Raises JobNotFound, JobHasEnded.
        """

    async def job(self, job_id: JobId) -> JobSummary:
        """Raises JobNotFound."""

    async def jobs(self, query: JobQuery) -> list[JobSummary]:
        """Up to `query.limit` jobs, in its order."""

    async def body(self, job_id: JobId) -> Body:
        """What it was submitted with. Raises JobNotFound."""

    async def frames(self, job_id: JobId, *, after: int, max_bytes: int) -> list[Frame]:
        """The frames that hold events after `after`, oldest first, at least one if there is any, about `max_bytes`.

        Raises JobNotFound.
        """

    async def changes(self, *, after: int, limit: int) -> list[Change]:
        """Entries of the global journal after a cursor."""

    async def newest_cursor(self) -> int:
        """The cursor of the newest change; 0 if there is none."""

    async def record(self, job_id: JobId) -> bytes:
        """The `.last`. Raises JobNotFound, RecordNotFound."""

    async def artifact(self, job_id: JobId, artifact_id: str) -> Artifact:
        """Raises ArtifactNotFound."""

    async def artifact_bytes(self, job_id: JobId, artifact_id: str, *, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`. Raises ArtifactNotFound."""

    async def depths(self) -> dict[tuple[str, int], int]:
        """Jobs by (queue, state's number), from counters: cheap at any size."""

    async def set_aside(self) -> int:
        """Jobs that are set aside."""

    async def oldest_queued(self) -> dict[str, Instant]:
        """When the longest-waiting job of each queue was accepted."""

    async def due(self, sink: str, *, now: Instant, limit: int, max_bytes: int) -> list[OutboxEntry]:
        """Up to `limit` records that the sink has not confirmed and that are due, oldest first.

        The record that brings them to `max_bytes` is the last.
        """

    async def signal(self, job_id: JobId, signal: Signal) -> JobSummary:
        """Note a person's answer to a task.

        Raises JobNotFound, JobHasEnded.
        Raises AlreadyAnswered: if the task has an answer; it stays.
        """

    async def delivered(self, entries: Collection[int]) -> None:
        """Take entries out of the outbox."""

    async def put_off(self, entries: Collection[int], *, until: Instant) -> None:
        """Try entries again later, counting the attempt."""

    async def next_due(self, *, now: Instant) -> Instant | None:
        """The earliest time after `now` at which a queued job or a deadline comes due, if any."""

    async def check(self) -> None:
        """Prove that the store can be written. Raises LedgerUnavailable."""


# ------------------------------------------------------------------------------------------ the other outsides


class Sink(Protocol):
    """Where `.last` records go. Delivery is at least once; `execution_id` lets the receiver drop doubles."""

    name: str

    async def deliver(self, entries: Sequence[OutboxEntry]) -> None:
        """Deliver all, durably. May be called again with entries that were delivered already.

        Raises SinkUnavailable: if it cannot be done now, whatever the reason. Anything else is a defect of the sink,
        and ends the daemon.
        """


class Secrets(Protocol):
    """Where `${secrets.NAME}` comes from."""

    def get(self, name: str) -> str | None:
        """The value, or None if there is no such secret."""


class Clock(Protocol):
    """Wall time. Durations come from anyio's monotonic clock instead."""

    def now(self) -> Instant: ...


class Observer(Protocol):
    """Telemetry's ear. Called on the event loop, after the fact; must not block or raise."""

    def committed(self, job: JobSummary, events: Sequence[Recorded], *, traceparent: str) -> None:
        """Events of a job are durable. Called once for each commit, in order. `traceparent` is the submitter's."""

    def attempt(self, job: JobSummary, task: TaskPlan, number: int, *, traceparent: str) -> AbstractContextManager[str]:
        """Spans one attempt; gives the trace context to pass on, or "". `traceparent` is the submitter's."""

    def breaker(self, endpoint: str, model: str, state: str, previous: str, *, reason: str = "") -> None:
        """A circuit breaker changed its state. `reason`: why it is not closed, a sentence."""

    def ledger_commit(self, *, size: int, seconds: float) -> None:
        """A group commit carried `size` changes."""

    def watchers(self, change: int) -> None:
        """Watchers came (+1) or went (-1)."""

    def frames_sent(self, count: int, size: int) -> None:
        """Frames, and bytes of them, were handed to a watcher."""

    def notice(self, event: str, **fields: Any) -> None:
        """Something an operator should know, as a log event with fields; `event` is snake_case."""


class Quiet:
    """An Observer that hears nothing."""

    def committed(self, job: JobSummary, events: Sequence[Recorded], *, traceparent: str) -> None: ...

    def attempt(self, job: JobSummary, task: TaskPlan, number: int, *, traceparent: str) -> AbstractContextManager[str]:
        return nullcontext("")

    def breaker(self, endpoint: str, model: str, state: str, previous: str, *, reason: str = "") -> None: ...

    def ledger_commit(self, *, size: int, seconds: float) -> None: ...

    def watchers(self, change: int) -> None: ...

    def frames_sent(self, count: int, size: int) -> None: ...

    def notice(self, event: str, **fields: Any) -> None: ...
