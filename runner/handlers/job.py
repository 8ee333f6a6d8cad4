"""Task kind `job`: runs a job of its own, and waits for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import anyio
import msgspec

from runner.core.alt import ParameterProblem
from runner.core.child import ChildEnd, ChildJob
from runner.core.errors import AttemptError
from runner.core.events import JobState, Json
from runner.core.plan import JobId, Priority
from runner.core.references import Root, find
from runner.handlers.parameters import invalid, read
from runner.ports import Attempt, Jobs, Outcome

CHILD_FAILED: Final = "CHILD_FAILED"
CHILD_CANCELLED: Final = "CHILD_CANCELLED"
#: Labels that begin so are the runner's.
RESERVED: Final = "alt-runner/"
#: Why a child was cancelled, where it was its task that did it.
STOPPED: Final = "the task that runs it was stopped"
#: Seconds that cancelling a child may take; after that it ends with its parent.
_PATIENCE: Final = 30.0


class JobParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, and what its failure means."""

    #: A descriptor of any dialect; `${…}` inside of it is its own. Or one reference that brings one, as object or text.
    descriptor: dict[str, Any] | str
    #: What `${inputs.NAME}` in the descriptor stands for; may hold references, but no secrets.
    inputs: dict[str, Any] = {}
    #: Instead of the queue of this job.
    queue: str = ""
    #: Instead of what the descriptor says.
    priority: Literal["low", "medium", "high", "critical"] | None = None
    #: Of the new job; names that begin with `alt-runner/` are the runner's.
    labels: dict[str, str] = {}
    #: What it means if the job does not succeed: `fail` fails the task; `continue` makes it an output like any other.
    on_failure: Literal["fail", "continue"] = "fail"


class RunJob:
    """A Handler; its output is `{"job_id", "state", "error", "outputs", "large_outputs"}`.

    The job outlives this attempt, and the daemon: an attempt that was lost is followed by one that finds the same job;
    after one that failed there is a new job.
    """

    #: It only waits: the tasks of its job take slots.
    needs_slot: Final = False
    parameters: Final = JobParameters

    def __init__(self, jobs: Jobs | None) -> None:
        self._jobs = jobs

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        labels = parameters.get("labels")
        for name in labels if isinstance(labels, dict) else ():
            if name.startswith(RESERVED):
                yield ParameterProblem(name="labels", message=f"Labels that begin with `{RESERVED}` are the runner's.")

    async def run(self, attempt: Attempt) -> Outcome:
        """Submit the job and wait for its end.

        Raises AttemptError: CHILD_FAILED, which another attempt may mend; CHILD_CANCELLED if somebody did that;
        INVALID_PARAMETERS; else as `Jobs.submit` and `Jobs.wait`.
        Raises AttemptPutOff: as these do.
        """
        if self._jobs is None:
            raise AttemptError("NO_JOBS", "there is nothing here that runs jobs", retryable=False)
        asked = read(attempt.parameters, JobParameters)
        _check(attempt, asked)
        job = await self._jobs.submit(_child(attempt, asked))
        attempt.progress(message=f"runs job {job}")
        end = await _ended(self._jobs, attempt, job)
        # Our own doing in an attempt whose outcome was lost: no end of the job's own that could be gone on from.
        if end.reason == STOPPED or (end.state is not JobState.SUCCEEDED and asked.on_failure == "fail"):
            raise _failure(job, end)
        return Outcome(output=_output(job, end), usage=end.usage)


def _check(attempt: Attempt, asked: JobParameters) -> None:
    for name, value in attempt.task.parameters.items():
        if any(found.root is Root.SECRETS for found in find(value)):
            raise invalid(name, "refers to a secret, which would be stored; refer to it inside of the descriptor")
    if any(name.startswith(RESERVED) for name in asked.labels):
        raise invalid("labels", f"holds a name that begins with `{RESERVED}`; those are the runner's")


def _child(attempt: Attempt, asked: JobParameters) -> ChildJob:
    is_text = isinstance(asked.descriptor, str)
    left = attempt.tokens_left()
    return ChildJob(
        parent=attempt.job_id,
        request_id=_request_id(attempt),
        descriptor=asked.descriptor.encode() if isinstance(asked.descriptor, str) else _json(asked.descriptor),
        content_type="" if is_text else "application/json",
        inputs=_json(asked.inputs) if asked.inputs else b"",
        queue=asked.queue,
        priority=None if asked.priority is None else Priority[asked.priority.upper()],
        labels=asked.labels,
        # One token lets no call through, and what calls nothing may run.
        token_budget=None if left is None else max(1, left),
        traceparent=attempt.traceparent,
    )


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _request_id(attempt: Attempt) -> str:
    """The same until the attempt has failed: a lost one must find its job, a retry must not."""
    told = f"{attempt.idempotency_key}\0{attempt.failures}"
    return f"{RESERVED}{hashlib.sha256(told.encode()).hexdigest()}"


async def _ended(jobs: Jobs, attempt: Attempt, job: JobId) -> ChildEnd:
    try:
        return await jobs.wait(
            job,
            parent=attempt.job_id,
            on_progress=lambda fraction: attempt.progress(fraction, message=f"runs job {job}"),
        )
    except anyio.get_cancelled_exc_class():
        # With time left it is the daemon that goes, and whoever takes the task up finds the job.
        if attempt.remaining() <= 0:
            with anyio.move_on_after(_PATIENCE, shield=True):
                await jobs.cancel(job, STOPPED)
        raise


def _failure(job: JobId, end: ChildEnd) -> AttemptError:
    if end.state is JobState.CANCELLED:
        why = f": {end.reason}" if end.reason else ""
        message = f"job {job} was cancelled{why}"
        return AttemptError(CHILD_CANCELLED, message, retryable=end.reason == STOPPED, usage=end.usage)
    how = "succeeded in part only" if end.state is JobState.PARTIALLY_SUCCEEDED else "failed"
    why = ""
    if end.error is not None:
        where = f" (task `{end.error.task_id}`)" if end.error.task_id else ""
        why = f": {end.error.reason}: {end.error.message}{where}"
    return AttemptError(CHILD_FAILED, f"job {job} {how}{why}", retryable=True, usage=end.usage)


def _output(job: JobId, end: ChildEnd) -> Json:
    return {
        "job_id": job,
        "state": end.state.name.lower(),
        "error": None if end.error is None else msgspec.structs.asdict(end.error),
        "outputs": dict(end.outputs),
        "large_outputs": {
            task: {"artifact_id": artifact.id, "size_bytes": artifact.size_bytes, "sha256": artifact.sha256}
            for task, artifact in end.large_outputs.items()
        },
    }
