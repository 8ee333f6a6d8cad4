"""One call to an endpoint, from the leave to make it to what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from runner.core.breaker import CallOutcome, Permit
from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import Usage
from runner.core.prompt import Answer, Prompt
from runner.core.rates import Taken
from runner.core.usage import Place
from runner.orchestrators.asking import ANSWER_NOT_JSON
from runner.orchestrators.connection import UNAUTHORIZED
from runner.outgoing import CERTIFICATE_REFUSED

if TYPE_CHECKING:
    from runner.orchestrators.breakers import Guard
    from runner.orchestrators.endpoint import Endpoint

#: Reasons that say something of the endpoint although no other attempt would help.
_FAULTS: Final = frozenset({"ANSWER_TOO_LARGE", CERTIFICATE_REFUSED})

#: Reasons that say nothing against the endpoint although another attempt may help: it did answer.
_ANSWERS: Final = frozenset({ANSWER_NOT_JSON})

#: Reasons that are given before anything was sent.
_NOT_CALLED: Final = frozenset({"INVALID_PARAMETERS"})

_ONE_CALL: Final = Usage(calls=1)

#: Seconds: a call that was cancelled this close to its time was cut by its time.
_CLOSE: Final = 0.05


class Call:
    """Leave to make one call, once. Whoever has it makes it or gives it up, or its place stays taken."""

    def __init__(
        self, endpoint: Endpoint, prompt: Prompt, *, guard: Guard, permit: Permit, taken: Taken, began: float
    ) -> None:
        self.endpoint = endpoint
        self.prompt = prompt
        self.guard = guard
        self.permit = permit
        self.taken = taken
        self._began = began
        self._first_text: float | None = None
        self._on_text: Callable[[str], Awaitable[None]]
        self._over = False
        #: Whether it was begun.
        self.made = False
        #: False: there was no connection, so nothing was asked of its endpoint.
        self.reached = True
        #: What it consumed, once it is over, as far as anybody knows; None: nothing.
        self.usage: Usage | None = None
        #: Until it tells: of a call that was cut off, it is known that it was made.
        self._so_far = _ONE_CALL
        self._place: Place | None = None

    @property
    def place(self) -> Place:
        """The endpoint and the model that it went to, as the endpoint names it where that is known."""
        return self._place or (self.endpoint.name, self.prompt.model or self.endpoint.settings.model)

    def _use(self, usage: Usage) -> None:
        self._so_far = usage

    async def make(self, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        """Make it. Raises AttemptError: as the endpoint's protocol does."""
        self._over = self.made = True
        self._on_text = on_text
        outcome: CallOutcome | None = None
        retry_after: float | None = None
        tokens: int | None = None
        try:
            watched = msgspec.structs.replace(self.prompt, used=self._use)
            answer = await self.endpoint.speaker.ask(watched, self._hear)
        except AttemptError as error:
            outcome, retry_after = outcome_of(error), error.retry_after
            error.endpoint, error.model = self._place = (
                error.endpoint or self.endpoint.name,
                error.model or self.place[1],
            )
            self.usage, self.reached = error.usage, error.connected
            if outcome is CallOutcome.FAILED:
                self.guard.last_failure = error.reason
            tokens = 0 if error.usage is None else error.usage.total_tokens
            raise
        except anyio.get_cancelled_exc_class():
            self.usage = self._so_far
            raise
        else:
            outcome = CallOutcome.ANSWERED
            tokens = answer.usage.total_tokens or None
            self.usage, self._place = answer.usage, (answer.endpoint, answer.model)
            return answer
        finally:
            now = self.endpoint.time()
            if outcome is None and self._out_of_time(now):
                outcome, self.guard.last_failure = CallOutcome.FAILED, "TIMED_OUT"
                self.reached = self._so_far.calls > 0
            self.endpoint.ended(
                self, outcome, seconds=self._seconds(now), now=now, tokens=tokens, retry_after=retry_after
            )

    @property
    def heard(self) -> bool:
        """Whether it gave any text."""
        return self._first_text is not None

    def give_up(self) -> None:
        """It is not made. Harmless if it was."""
        if not self._over:
            self._over = True
            self.endpoint.ended(self, None, seconds=0.0, now=self.endpoint.time(), tokens=0, retry_after=None)

    async def _hear(self, text: str) -> None:
        if self._first_text is None:
            self._first_text = self.endpoint.time()
        await self._on_text(text)

    def _seconds(self, now: float) -> float:
        """To its first text where it streams, else to its end."""
        return (now if self._first_text is None else self._first_text) - self._began

    def _out_of_time(self, now: float) -> bool:
        """The attempt's time was up. It ends by cancellation too, and yet it is the endpoint that took too long."""
        return now - self._began >= self.prompt.timeout - _CLOSE


def outcome_of(error: AttemptError) -> CallOutcome | None:
    """What an error says about the endpoint; None if it was not called."""
    if error.reason in _NOT_CALLED or isinstance(error, AttemptPutOff):
        return None
    if error.reason == UNAUTHORIZED:
        return CallOutcome.DENIED
    failed = error.retryable and error.reason not in _ANSWERS
    return CallOutcome.FAILED if failed or error.reason in _FAULTS else CallOutcome.ANSWERED
