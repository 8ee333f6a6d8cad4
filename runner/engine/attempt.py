"""One attempt of one task: exactly one outcome, whatever its handler does.

The one place that may catch Exception: a handler is other people's code.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import anyio
import msgspec

from runner.core import references
from runner.core.alt.dialect import JOB
from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import (
    AttemptOutput,
    AttemptProgressed,
    Event,
    Failure,
    FallbackUsed,
    Json,
    Usage,
    UsageAt,
    WaitReason,
)
from runner.core.job import Signal
from runner.core.plan import Instant, JobId, Plan, TaskPlan
from runner.core.record import ArtifactType
from runner.core.redaction import Redaction
from runner.core.usage import MAX_PLACES, gathered, named
from runner.engine.budgets import Budgets
from runner.ports import Attempt, Bulkhead, FileLeft, Handler, Outcome, Secrets

#: Characters of streamed text that may wait for a commit before `output` makes its handler wait.
MAX_UNCOMMITTED_TEXT: Final = 64 * 1024
#: Characters of text in one event, so that a response stays under 1 MiB.
MAX_PIECE: Final = 32 * 1024
#: Characters of a message in an event; the rest is cut off.
MAX_MESSAGE: Final = 4_000
#: No task waits longer: the year 2286, in microseconds.
LATEST: Final = 10**16
#: Counts are 64-bit on the wire.
MAX_COUNT: Final = 2**63 - 1
#: Of calls and tokens that one attempt may tell: those of a job, and of all that share a budget, are counts still.
MAX_CONSUMED: Final = 2**48
#: Characters of an endpoint's or model's name in `Usage.elsewhere`; the rest is cut off.
MAX_NAME: Final = 256


class Stopped(msgspec.Struct, frozen=True):
    """The attempt was told to stop, and did; with what its calls had consumed, as `AttemptError` tells it."""

    endpoint: str = ""
    model: str = ""
    usage: Usage | None = None


class Interrupted(msgspec.Struct, frozen=True):
    """The attempt was cut off without an outcome: its runner shuts down, and another one starts it anew."""


class Succeeded(msgspec.Struct, frozen=True):
    """The attempt gave its outcome, with every secret taken out of it."""

    outcome: Outcome
    #: The outcome's output as JSON.
    output: bytes


class Failed(msgspec.Struct, frozen=True):
    """The attempt failed or was put off, with every secret taken out of what it tells."""

    error: AttemptError
    message: str


Result = Succeeded | Failed | Stopped | Interrupted


class LiveAttempt(Attempt):
    """An attempt under way: what its handler sees of it, and what it has told since the last commit."""

    def __init__(
        self,
        *,
        job_id: JobId,
        plan: Plan,
        task: TaskPlan,
        number: int,
        failures: int,
        retries_left: int,
        timeout: float,
        ends_with_job: bool,
        signal: Signal | None,
        began: Instant,
        waited: float,
        secrets: Secrets,
        redaction: Redaction,
        budgets: Budgets,
        changed: Callable[[], None],
    ) -> None:
        self.job_id = job_id
        self.plan = plan
        self.task = task
        self.number = number
        self.failures = failures
        self.retries_left = retries_left
        self.parameters: dict[str, Any] = {}
        self.idempotency_key = f"{job_id}/{task.id}"
        self.traceparent = ""
        self.signal = signal
        self.began = began
        self.waited = waited
        #: Cancelling it stops the attempt at once; its deadline is the attempt's.
        self.scope = anyio.CancelScope(deadline=anyio.current_time() + timeout)
        self.stopped = False
        #: Whether it was the job's deadline that ended it.
        self.overdue = False
        self._interrupted = False
        self._ends_with_job = ends_with_job
        self._stopping = anyio.Event()
        self._secrets = secrets
        self._seen: dict[str, str] = {}
        #: The daemon's own secrets, with which handlers call, whether this attempt knows of them or not.
        self._daemons = redaction
        self._redaction = redaction.knowing({})
        self._budgets = budgets
        self._changed = changed
        self._progress: AttemptProgressed | None = None
        self._consumed: Usage | None = None
        self._text: list[str] = []
        self._waiting = 0
        self._offset = 0
        self._drained = anyio.Event()

    # What the handler calls.

    def remaining(self) -> float:
        return max(0.0, self.scope.deadline - anyio.current_time())

    def progress(
        self,
        fraction: float | None = None,
        *,
        completed: int | None = None,
        total: int | None = None,
        message: str = "",
    ) -> None:
        told = self._told(message)
        for count in (completed, total):
            _check_count(count)
        self._progress = AttemptProgressed(self.task.id, self.number, _share(fraction), completed, total, told)
        self._changed()

    async def output(self, text: str) -> None:
        self._say(self._redaction.feed(_sound(text)))
        while self._waiting > MAX_UNCOMMITTED_TEXT:
            await self._drained.wait()

    async def stop_requested(self) -> None:
        await self._stopping.wait()

    async def reserve_tokens(self, prompt: str, *, answer: int | None = None) -> None:
        if not isinstance(prompt, str):
            raise TypeError(f"a prompt is a str, not {type(prompt).__name__}")
        # A negative one would make room that is not there.
        _check_count(answer)
        await self._budgets.reserve(self.task.id, prompt, answer)

    def consumed(self, usage: Usage) -> None:
        self._check_usage(usage)
        self._consumed = usage

    def tokens_left(self) -> int | None:
        return self._budgets.left

    def redacted(self, value: Json) -> Json:
        return self._redaction.value(value)

    # What the engine calls.

    def stop(self, *, grace: float) -> None:
        """Ask the handler to stop; after `grace` seconds, cancel it."""
        if not self.stopped:
            self.stopped = True
            self._stopping.set()
            self.scope.deadline = min(self.scope.deadline, anyio.current_time() + grace)

    def interrupt(self) -> None:
        """Cancel the handler at once; unless it ends all the same, the attempt has no outcome."""
        self._interrupted = True
        self.scope.cancel()

    def drain(self) -> list[Event]:
        """What was told since the last call, coalesced: at most the newest progress, and text in few pieces."""
        events: list[Event] = []
        if self._text:
            text = "".join(self._text)
            for start in range(0, len(text), MAX_PIECE):
                piece = text[start : start + MAX_PIECE]
                events.append(AttemptOutput(self.task.id, self.number, self._offset, piece))
                self._offset += len(piece)
            self._text.clear()
            self._waiting = 0
            self._drained.set()
            self._drained = anyio.Event()
        if self._progress is not None:
            events.append(self._progress)
            self._progress = None
        return events

    async def run(self, handler: Handler, scope: Callable[[], Awaitable[references.Scope]]) -> Result:
        """Resolve the parameters, run the handler, and answer how it ended. Raises nothing but cancellation."""
        try:
            # Nobody holds what was reached once the parameters are there: it may be all that a loop gave.
            resolve = partial(self._resolve, await scope())
            with self.scope:
                resolve()
                del resolve
                outcome = await handler.run(self)
                self._say(self._redaction.flush())
                return self._succeeded(outcome)
        except AttemptError as error:
            return self._told_failure(error)
        # A task that calls sys.exit() or raises KeyboardInterrupt ends itself, not the daemon, at every restart. A real
        # Ctrl-C never gets here: the daemon receives its signal.
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  the boundary to other people's code, named in the module's docstring
            return self._broke(error)
        except anyio.get_cancelled_exc_class() as error:
            if anyio.current_effective_deadline() == -math.inf:
                raise
            # asyncio: it awaited something that others had cancelled. Nobody cancelled us, and the job must hear of it.
            return self._broke(error)
        return self._cut_off()

    def _resolve(self, reachable: references.Scope) -> None:
        self.parameters = references.resolve(self.task.parameters, self._watching_secrets(reachable))
        if self.task.input_from:
            outputs = {task_id: reachable.output(task_id) for task_id in self.task.input_from}
            self.parameters = {**self.parameters, "input": references.merged(outputs)}

    def _cut_off(self) -> Result:
        """What it means that the scope ended it."""
        if self._interrupted:
            return Interrupted()
        error = AttemptError("TIMED_OUT", "the attempt ran out of time", retryable=True)
        if self._consumed is not None:
            error.endpoint, error.model, error.usage = named(self._consumed)
        failed = self._failed(error)
        if self.stopped:
            return Stopped(error.endpoint, error.model, error.usage)
        self.overdue = self._ends_with_job
        return failed

    def _succeeded(self, outcome: Outcome) -> Result:
        try:
            output = msgspec.json.encode(self._redaction.value(msgspec.to_builtins(outcome.output)))
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError, RecursionError) as error:
            failure = AttemptError("BAD_OUTPUT", f"the output is not JSON: {error}", retryable=False)
            failure.endpoint, failure.model, failure.usage = outcome.endpoint, outcome.model, outcome.usage
            return self._failed(failure)
        clean = Outcome(
            files=tuple(map(self._clean_file, outcome.files)),
            usage=self._clean_usage(outcome),
            endpoint=self._told(outcome.endpoint),
            model=self._told(outcome.model),
            fallback=self._clean_fallback(outcome.fallback),
        )
        return Succeeded(clean, output)

    def _clean_file(self, left: FileLeft) -> FileLeft:
        if not isinstance(left.content, bytes):
            raise TypeError(f"the content of a file is bytes, not {type(left.content).__name__}")
        return FileLeft(
            self._told(left.name),
            self._redaction.data(left.content),
            self._told(left.mime_type),
            ArtifactType(left.artifact_type).value,
        )

    def _clean_fallback(self, used: FallbackUsed | None) -> FallbackUsed | None:
        if used is None:
            return None
        failure = Failure(self._told(used.failure.reason), self._told(used.failure.message))
        return msgspec.structs.replace(used, instead_of=self._told(used.instead_of), failure=failure)

    def _clean_usage(self, told: Outcome | AttemptError) -> Usage | None:
        usage = told.usage
        if usage is None:
            return None
        self._check_usage(usage)
        if not usage.elsewhere:
            return usage
        parts = tuple(
            msgspec.structs.replace(
                part, endpoint=self._told(part.endpoint)[:MAX_NAME], model=self._told(part.model)[:MAX_NAME]
            )
            for part in usage.elsewhere
        )
        return gathered(
            [(told.endpoint, told.model, msgspec.structs.replace(usage, elsewhere=parts))], told.endpoint, told.model
        )

    def _check_usage(self, usage: Usage) -> None:
        # A job may tell more, for all that it ran.
        _check_usage(usage, MAX_COUNT if self.task.kind == JOB else MAX_CONSUMED)

    def _broke(self, error: BaseException) -> Failed:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return self._failed(AttemptError("HANDLER_ERROR", text, retryable=False))

    def _told_failure(self, error: AttemptError) -> Failed:
        """A failure that the handler speaks of, if it can be understood."""
        try:
            if isinstance(error, AttemptPutOff):
                error.wait_reason, error.until = WaitReason(error.wait_reason), int(min(error.until, LATEST))
            return self._failed(error)
        except (TypeError, ValueError, OverflowError) as garbage:
            return self._broke(garbage)

    def _failed(self, error: AttemptError) -> Failed:
        """What the error tells is made fit to be stored, in place."""
        error.reason, error.endpoint, error.model = map(self._told, (error.reason, error.endpoint, error.model))
        try:
            error.usage = self._clean_usage(error)
        except (TypeError, ValueError):
            error.usage = None
        return Failed(error, self._told(error.message))

    def _told(self, text: str) -> str:
        """A text as it may stand in an event: without secrets, of bounded length, fit for UTF-8."""
        told = self._redaction.excerpt(_sound(text))
        if len(told) <= MAX_MESSAGE:
            return told
        return f"{told[:MAX_MESSAGE]}… ({len(told) - MAX_MESSAGE} more characters)"

    def _say(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._waiting += len(text)
            self._changed()

    def _watching_secrets(self, scope: references.Scope) -> references.Scope:
        """The scope, with this attempt's secrets, remembering each that is used."""

        def secret(name: str) -> str | None:
            value = self._secrets.get(name)
            if value is not None:
                self._seen[name] = value
                # At once: a later reference that fails must not tell an earlier one's value.
                self._redaction = self._daemons.knowing(self._seen)
            return value

        return msgspec.structs.replace(scope, secret=secret)


def bulkhead_of(handler: Handler, task: TaskPlan) -> Bulkhead | None:
    """The bulkhead that a handler names for a task. One that cannot say so has none; its attempt tells why."""
    asked = getattr(handler, "bulkhead", None)
    if asked is None:
        return None
    try:
        named: Bulkhead | None = asked(task)
    except Exception:  # noqa: BLE001  the boundary to other people's code, named in the module's docstring
        return None
    return named if isinstance(named, Bulkhead) and named.places > 0 else None


def _sound(text: str) -> str:
    """Half of a surrogate pair, which JSON may hold and UTF-8 may not, becomes a question mark."""
    if not isinstance(text, str):
        raise TypeError(f"a text is a str, not {type(text).__name__}")
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()


def _share(fraction: float | None) -> float | None:
    """A fraction as a float from 0 to 1; what lies beyond is brought to the nearer end."""
    if fraction is None:
        return None
    if not isinstance(fraction, int | float) or fraction != fraction:  # noqa: PLR0124  only NaN differs from itself, and isnan fails on large integers
        raise TypeError(f"a fraction is a number from 0 to 1, not {fraction!r:.50}")
    return float(min(max(fraction, 0), 1))


def _check_count(count: int | None, most: int = MAX_COUNT) -> None:
    if count is not None and (type(count) is not int or not 0 <= count <= most):
        raise ValueError(f"a count is a whole number from 0 to {most}")


def _check_counts(usage: Usage | UsageAt, kind: type[Usage | UsageAt], most: int) -> None:
    if not isinstance(usage, kind):
        raise TypeError(f"what was consumed is a {kind.__name__}, not {type(usage).__name__}")
    for count in (usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.total_tokens):
        if count is None:
            raise ValueError("a count is a number")
        _check_count(count, most)


def _check_usage(usage: Usage, most: int) -> None:
    """Raises ValueError, TypeError: if it is none, or its parts are no parts of it, or are more than are told."""
    _check_counts(usage, Usage, most)
    parts = usage.elsewhere
    if parts == ():
        return
    if not isinstance(parts, tuple) or len(parts) > MAX_PLACES:
        raise ValueError(f"the parts of a usage are a tuple of at most {MAX_PLACES}")
    for part in parts:
        _check_counts(part, UsageAt, most)
        if not (isinstance(part.endpoint, str) and isinstance(part.model, str)):
            raise TypeError("the names of an endpoint and a model are texts")
    for name in ("calls", "prompt_tokens", "completion_tokens", "total_tokens"):
        if sum(getattr(part, name) for part in parts) > getattr(usage, name):
            raise ValueError(f"the parts of a usage have more `{name}` than the whole")
