"""One attempt of one task: exactly one outcome, whatever its handler does.

The one place that may catch Exception: a handler is other people's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import msgspec

from runner.core import references
from runner.core.errors import AttemptError
from runner.core.events import AttemptOutput, AttemptProgressed, Event
from runner.core.plan import JobId, Plan, TaskPlan
from runner.core.redaction import Redaction
from runner.ports import Attempt, Handler, Outcome, Secrets

#: Characters of streamed text that may wait for a commit before `output` makes its handler wait.
MAX_UNCOMMITTED_TEXT = 64 * 1024


class Stopped(msgspec.Struct, frozen=True):
    """The attempt was told to stop, and did."""


class Succeeded(msgspec.Struct, frozen=True):
    """The attempt gave its outcome, with every secret taken out of it."""

    outcome: Outcome
    #: The outcome's output as JSON.
    output: bytes


class Failed(msgspec.Struct, frozen=True):
    """The attempt failed or was put off, with every secret taken out of the message."""

    error: AttemptError
    message: str


Result = Succeeded | Failed | Stopped


class LiveAttempt(Attempt):
    """An attempt under way: what its handler sees of it, and what it has told since the last commit."""

    def __init__(
        self,
        *,
        job_id: JobId,
        plan: Plan,
        task: TaskPlan,
        number: int,
        timeout: float,
        secrets: Secrets,
        changed: Callable[[], None],
    ) -> None:
        self.job_id = job_id
        self.plan = plan
        self.task = task
        self.number = number
        self.parameters: dict[str, Any] = {}
        self.idempotency_key = f"{job_id}/{task.id}"
        self.traceparent = ""
        #: Cancelling it stops the attempt at once; its deadline is the attempt's.
        self.scope = anyio.CancelScope(deadline=anyio.current_time() + timeout)
        self.stopped = False
        self._stopping = anyio.Event()
        self._secrets = secrets
        self._seen: dict[str, str] = {}
        self._redaction = Redaction({})
        self._changed = changed
        self._progress: AttemptProgressed | None = None
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
        told = self._redaction.text(message)
        self._progress = AttemptProgressed(self.task.id, self.number, fraction, completed, total, told)
        self._changed()

    async def output(self, text: str) -> None:
        self._say(self._redaction.feed(text))
        while self._waiting > MAX_UNCOMMITTED_TEXT:
            await self._drained.wait()

    async def stop_requested(self) -> None:
        await self._stopping.wait()

    # What the engine calls.

    def stop(self, *, grace: float) -> None:
        """Ask the handler to stop; after `grace` seconds, cancel it."""
        if not self.stopped:
            self.stopped = True
            self._stopping.set()
            self.scope.deadline = min(self.scope.deadline, anyio.current_time() + grace)

    def drain(self) -> list[Event]:
        """What was told since the last call, coalesced: at most the newest progress and one piece of text."""
        events: list[Event] = []
        if self._text:
            text = "".join(self._text)
            events.append(AttemptOutput(self.task.id, self.number, self._offset, text))
            self._offset += len(text)
            self._text.clear()
            self._waiting = 0
            self._drained.set()
            self._drained = anyio.Event()
        if self._progress is not None:
            events.append(self._progress)
            self._progress = None
        return events

    @property
    def has_news(self) -> bool:
        return bool(self._text) or self._progress is not None

    async def run(self, handler: Handler, scope: references.Scope) -> Result:
        """Resolve the parameters, run the handler, and answer how it ended. Raises nothing but cancellation."""
        try:
            with self.scope:
                self.parameters = references.resolve(self.task.parameters, self._watching_secrets(scope))
                self._redaction = Redaction(self._seen)
                outcome = await handler.run(self)
                self._say(self._redaction.flush())
                return self._succeeded(outcome)
        except AttemptError as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001  the boundary to other people's code, named in the module's docstring
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return self._failed(AttemptError("HANDLER_ERROR", text, retryable=False))
        if self.stopped:
            return Stopped()
        return self._failed(AttemptError("TIMED_OUT", "the attempt ran out of time", retryable=True))

    def _succeeded(self, outcome: Outcome) -> Result:
        try:
            output = msgspec.json.encode(self._redaction.value(msgspec.to_builtins(outcome.output)))
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            return self._failed(AttemptError("BAD_OUTPUT", f"the output is not JSON: {error}", retryable=False))
        files = tuple(
            msgspec.structs.replace(left, content=self._redaction.data(left.content)) for left in outcome.files
        )
        return Succeeded(msgspec.structs.replace(outcome, output=None, files=files), output)

    def _failed(self, error: AttemptError) -> Failed:
        return Failed(error, self._redaction.text(error.message))

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
                self._redaction = Redaction(self._seen)
            return value

        return references.Scope(output=scope.output, inputs=scope.inputs, job_id=scope.job_id, secret=secret)


def no_secret(name: str) -> str | None:
    """For scopes that are completed by the attempt."""
    raise KeyError(name)


def scope_for(job_id: JobId, inputs: Mapping[str, Any], output: Callable[[str], Any]) -> references.Scope:
    """What a task's references may reach, short of secrets, which only the attempt resolves."""
    return references.Scope(output=output, inputs=inputs, job_id=job_id, secret=no_secret)
