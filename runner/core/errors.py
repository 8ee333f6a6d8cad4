"""Everything that can go wrong on purpose.

RunnerError
├── InvalidDescriptor      the `.alt` is wrong; carries every finding
├── InvalidRequest         the call is wrong; carries every finding
├── NotFound
│   ├── JobNotFound        no such job was accepted, or it was pruned
│   ├── RecordNotFound     the job has no `.last` yet
│   └── ArtifactNotFound
├── JobUnreadable          this version cannot read the job's plan or events; carries why
├── RequestIdReused        the same request id came with another body
├── QueueFull              carries the queue, its limit, and when to come back
├── Draining               the daemon is shutting down; another one, or the same one later, will do
├── LedgerUnavailable      the store cannot be reached or written now; nothing was changed
│   └── LedgerFull         the disk is full
├── LedgerDamaged          the store is not a ledger of ours, or is corrupt
├── LedgerHeld             another daemon holds the embedded ledger; carries who
├── LeaseLost              the job runs elsewhere now; this write was refused
├── InvalidRecord          the file is no `.last` record
├── SinkUnavailable        records cannot be delivered now; they stay in the outbox
├── InvalidSettings        carries every mistake
└── AttemptError           an attempt of a task failed; says whether another may help
    └── AttemptPutOff      it did not begin; does not count as an attempt

Raised where they are known, translated once at each edge by one table (`rpc/status.py`, `cli/exits.py`).
The message tells the reader what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from runner.core.events import Usage, WaitReason
from runner.core.findings import Finding
from runner.core.plan import Instant

#: Characters of what a caller sent that are repeated to him.
ECHOED: Final = 100


def brief(name: str) -> str:
    """What a caller sent, short enough for a message."""
    return name if len(name) <= ECHOED else f"{name[: ECHOED - 1]}…"


class RunnerError(Exception):
    """Root of everything this package raises on purpose."""


class InvalidDescriptor(RunnerError):
    """The descriptor is refused; `findings` holds all that is wrong with it, `warnings` what is merely odd."""

    def __init__(self, findings: Sequence[Finding], warnings: Sequence[Finding] = ()) -> None:
        self.findings = tuple(findings)
        self.warnings = tuple(warnings)
        count = len(self.findings)
        more = f" (and {count - 1} more)" if count > 1 else ""
        super().__init__(f"the descriptor is not valid: {self.findings[0]}{more}")


class InvalidRequest(RunnerError):
    """The call is refused; a finding's path is the field's name."""

    def __init__(self, *findings: Finding) -> None:
        self.findings = findings
        count = len(findings)
        more = f" (and {count - 1} more)" if count > 1 else ""
        super().__init__(f"{findings[0].path}: {findings[0].message}{more}")


class NotFound(RunnerError):
    """What was asked for does not exist."""

    kind = "thing"

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


class JobNotFound(NotFound):
    """No such job was accepted here, or it was pruned."""

    kind = "job"

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id, f"there is no job `{brief(job_id)}`; list jobs to see which there are")


class EndpointNotFound(NotFound):
    """No such AI endpoint is known, or its lease has ended."""

    kind = "endpoint"

    def __init__(self, name: str) -> None:
        super().__init__(name, f"there is no endpoint `{brief(name)}`; list endpoints to see which there are")


class RegistrationRefused(RunnerError):
    """An endpoint may not be registered: its group takes none, its name is another's, or there are too many."""


class JobNotEnded(RunnerError):
    """What was asked for needs a job that has ended."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"job `{brief(job_id)}` has not ended; watch it until it does, or cancel it")


class JobHasEnded(RunnerError):
    """What was asked for needs a job that has not ended."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"job `{brief(job_id)}` has ended; its .last record tells how")


class JobUnreadable(RunnerError):
    """The job's plan or events are damaged, or a newer version wrote them."""

    def __init__(self, job_id: str, why: str) -> None:
        self.job_id = job_id
        #: A sentence without its full stop.
        self.why = why
        super().__init__(
            f"job `{brief(job_id)}`: {why}; start the version that wrote them,"
            " or cancel it if it has not ended, and retry it whole or, if it is its plan, submit the descriptor anew"
        )


class AlreadyAnswered(RunnerError):
    """Somebody answered the task before; the first answer counts."""

    def __init__(self, job_id: str, task_id: str) -> None:
        self.job_id = job_id
        self.task_id = task_id
        super().__init__(
            f"task `{brief(task_id)}` of job `{brief(job_id)}` was answered before; watch the job to see how"
        )


class NothingToRetry(RunnerError):
    """Every task of the job succeeded."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"every task of job `{brief(job_id)}` succeeded; ask for the whole to run them all again")


class RecordNotFound(NotFound):
    """The job exists and has no record yet."""

    kind = "record"

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id, f"job `{brief(job_id)}` has no .last record yet; watch it until it ends")


class ArtifactNotFound(NotFound):
    """The job has no such artifact."""

    kind = "artifact"

    def __init__(self, job_id: str, artifact_id: str) -> None:
        super().__init__(
            artifact_id, f"job `{brief(job_id)}` has no artifact `{brief(artifact_id)}`; its .last record names them"
        )


class RequestIdReused(RunnerError):
    """The same request id came before with another body."""

    def __init__(self, request_id: str, job_id: str) -> None:
        self.request_id = request_id
        self.job_id = job_id
        super().__init__(
            f"request_id `{request_id}` was used for job `{job_id}` with another body; use a new one for new work"
        )


class QueueFull(RunnerError):
    """The queue holds as many waiting jobs as it may."""

    def __init__(self, queue: str, limit: int, retry_after: float) -> None:
        self.queue = queue
        self.limit = limit
        #: Seconds.
        self.retry_after = retry_after
        super().__init__(
            f"queue `{queue}` is full ({limit} jobs wait; setting `queues.{queue}.max_queued`); "
            f"try again in {retry_after:g} s"
        )


class Draining(RunnerError):
    """The daemon is shutting down."""

    def __init__(self) -> None:
        super().__init__("the daemon is shutting down; try again in a moment")


class LedgerUnavailable(RunnerError):
    """The store cannot be reached or written now. Nothing was changed; the same call may be made again."""


class LedgerFull(LedgerUnavailable):
    """The disk is full. Nothing was changed; work goes on by itself when there is room."""


class LedgerDamaged(RunnerError):
    """The store is corrupt, or is no ledger of ours."""


class LedgerHeld(RunnerError):
    """Another process holds the embedded ledger."""


class LeaseLost(RunnerError):
    """The job is another runner's now. The write was refused and the job must be dropped at once."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"the lease on job `{job_id}` was lost")


class InvalidRecord(RunnerError):
    """The bytes are no `.last` record; the message says where they stop being one."""


class SinkUnavailable(RunnerError):
    """A sink cannot take records now. Nothing half-written is left; the same records may be delivered again."""


class InvalidSettings(RunnerError):
    """All mistakes in the settings, told at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the settings are not valid:\n" + "\n".join(f"  - {problem}" for problem in problems))


class Turn(Protocol):
    """A place in somebody's queue, for who waits outside of it."""

    #: Seconds after its time at which who was not called comes all the same.
    patience: float

    def call(self, come: Callable[[], None]) -> None:
        """Call `come`, on the event loop, at most once, when it is this one's turn."""

    def leave(self) -> None:
        """Not wanted any more. Harmless after the call."""


class AttemptError(RunnerError):
    """An attempt failed. The message goes into events and records: a sentence, no secrets."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retryable: bool,
        retry_after: float | None = None,
        endpoint: str = "",
        model: str = "",
        usage: Usage | None = None,
    ) -> None:
        self.reason = reason
        self.message = message
        self.retryable = retryable
        #: Seconds the other side asked us to wait.
        self.retry_after = retry_after
        self.endpoint = endpoint
        self.model = model
        self.usage = usage
        #: False: the other side was never reached, so nothing was asked of it.
        self.connected = True
        super().__init__(f"{reason}: {message}")


class AttemptPutOff(AttemptError):
    """The attempt could not begin its call. The task waits until `until` and no attempt is consumed.

    With a `turn` it comes when it is called, be it sooner, or `turn.patience` seconds after `until`.
    """

    def __init__(
        self, wait_reason: WaitReason, message: str, *, until: Instant, endpoint: str = "", turn: Turn | None = None
    ) -> None:
        self.wait_reason = wait_reason
        self.until = until
        self.turn = turn
        super().__init__(wait_reason.name, message, retryable=True, endpoint=endpoint)


def first_cause(error: BaseException) -> BaseException:
    """The error from which the others followed, out of the groups that task groups make of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
