"""An orchestrator behind circuit breakers, one for each model, and a bulkhead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import anyio

from runner.core.breaker import Breaker, BreakerPolicy, BreakerState, CallOutcome, Counts, OpenUntil, Permit
from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import WaitReason
from runner.core.secret import Secret
from runner.orchestrators.connection import UNAUTHORIZED
from runner.ports import Answer, Bulkhead, Clock, Observer, Orchestrator, Prompt

#: The model whose breaker is shared by all models beyond `max_models`: their names come from jobs, and never end.
OTHER_MODELS: Final = "*"

#: Waiters come back over this share of the time they wait, and at least over so many seconds, after the opening.
_SPREAD_SHARE: Final = 0.25
_SPREAD_SECONDS: Final = 1.0

#: Seconds after which a call that found no room is tried again, at least; chance makes it up to twice as many.
_NO_ROOM_SECONDS: Final = 5.0

#: Reasons that say something of the endpoint although no other attempt would help.
_FAULTS: Final = frozenset({"ANSWER_TOO_LARGE"})

#: Reasons that are given before anything was sent.
_NOT_CALLED: Final = frozenset({"INVALID_PARAMETERS"})

#: Seconds: a call that was cancelled this close to its time was cut by its time.
_CLOSE: Final = 0.05


class GuardedOrchestrator:
    """An Orchestrator that refuses calls which would fail anyway, and bounds how many are under way.

    Breakers are made when a model is first asked for. Observer.breaker hears every change of state.
    """

    def __init__(
        self,
        inner: Orchestrator,
        *,
        name: str,
        default_model: str,
        policy: BreakerPolicy,
        max_calls: int,
        max_models: int,
        clock: Clock,
        observer: Observer,
        chance: Callable[[], float],
        take_key: Callable[[Secret], None] = lambda _: None,
    ) -> None:
        self.name = name
        self._inner = inner
        self._default_model = default_model
        self._policy = policy
        #: The engine keeps to it, so that nobody comes in vain but those who learned late where they go.
        self.bulkhead = Bulkhead(f"orchestrator.endpoints[{name}]", max_calls)
        self._calls = 0
        self._max_models = max_models
        self._clock = clock
        self._observer = observer
        self._chance = chance
        self._take_key = take_key
        self._breakers: dict[str, Breaker] = {}

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        """Ask, if the breaker permits.

        Raises AttemptPutOff: BREAKER_OPEN, with the time to come back, another one for each waiter; RATE_LIMITED where
        as many calls as may be are under way: nobody queues behind calls that hang.
        Raises AttemptError: as the endpoint's protocol does.
        """
        began = anyio.current_time()
        model, breaker = self._breaker(prompt.model or self._default_model)
        permit = self._permit(model, breaker, began)
        if self._calls >= self.bulkhead.places:
            breaker.release(permit)
            raise self._no_room()
        self._calls += 1
        try:
            return await self._call(_Watch(prompt, on_text, began), model, breaker, permit)
        finally:
            self._calls -= 1

    async def health(self) -> None:
        await self._inner.health()

    def states(self) -> dict[str, tuple[BreakerState, Counts]]:
        """By model: the breaker's state, and what its next decision rests on."""
        now = anyio.current_time()
        return {model: (breaker.state, breaker.counts(now)) for model, breaker in self._breakers.items()}

    def force(self, state: BreakerState, models: Iterable[str] = ()) -> None:
        """Set the breakers of some models, or of all that exist, by hand. CLOSED is a reset."""
        for name in list(models) or list(self._breakers):
            model, breaker = self._breaker(name)
            previous = breaker.state
            breaker.force(state, anyio.current_time())
            self._tell(model, breaker, previous)

    def renew(self, key: Secret) -> None:
        """Call with this API key from now on. Breakers that are FORCED_OPEN, most often for a key, are reset."""
        self._take_key(key)
        refused = [model for model, breaker in self._breakers.items() if breaker.state is BreakerState.FORCED_OPEN]
        if refused:
            self.force(BreakerState.CLOSED, refused)

    def _breaker(self, model: str) -> tuple[str, Breaker]:
        if model not in self._breakers and len(self._breakers) >= self._max_models:
            model = OTHER_MODELS
        return model, self._breakers.setdefault(model, Breaker(self._policy))

    def _permit(self, model: str, breaker: Breaker, now: float) -> Permit:
        previous = breaker.state
        permit = breaker.permit(now)
        self._tell(model, breaker, previous)
        if isinstance(permit, OpenUntil):
            raise self._put_off(permit, now)
        return permit

    def _put_off(self, refusal: OpenUntil, now: float) -> AttemptPutOff:
        wait = max(0.0, refusal.until - now)
        # All waiters of an opening would come back in one instant, and all but the probes in vain.
        wait += max(_SPREAD_SECONDS, _SPREAD_SHARE * wait) * self._chance()
        until = self._clock.now() + round(wait * 1_000_000)
        message = f"the circuit breaker of orchestrator `{self.name}` is {refusal.state.value}"
        if refusal.state is BreakerState.FORCED_OPEN:
            message += (
                "; its API key was refused, or it was opened by hand: set a valid `api_key` and send the daemon SIGHUP"
            )
        return AttemptPutOff(WaitReason.BREAKER_OPEN, message, until=until, endpoint=self.name)

    def _no_room(self) -> AttemptPutOff:
        until = self._clock.now() + round(_NO_ROOM_SECONDS * (1 + self._chance()) * 1_000_000)
        message = (
            f"{self._calls} calls to orchestrator `{self.name}` are under way, as many as may be"
            f" (setting `{self.bulkhead.name}.max_connections`)"
        )
        return AttemptPutOff(WaitReason.RATE_LIMITED, message, until=until, endpoint=self.name)

    async def _call(self, watch: _Watch, model: str, breaker: Breaker, permit: Permit) -> Answer:
        outcome: CallOutcome | None = None
        retry_after: float | None = None
        try:
            answer = await self._inner.ask(watch.prompt, watch.on_text)
        except AttemptError as error:
            outcome, retry_after = outcome_of(error), error.retry_after
            raise
        else:
            outcome = CallOutcome.ANSWERED
            return answer
        finally:
            now = anyio.current_time()
            previous = breaker.state
            if outcome is None and watch.out_of_time(now):
                outcome = CallOutcome.FAILED
            if outcome is None:
                breaker.release(permit)
            else:
                seconds = watch.seconds(now)
                breaker.record(permit, outcome, seconds, now, chance=self._chance(), retry_after=retry_after)
            self._tell(model, breaker, previous)

    def _tell(self, model: str, breaker: Breaker, previous: BreakerState) -> None:
        if breaker.state is previous:
            return
        self._observer.breaker(self.name, model, breaker.state.value, previous.value)
        if breaker.state is BreakerState.FORCED_OPEN:
            self._observer.notice("breaker_forced_open", endpoint=self.name, model=model)


class _Watch:
    """Times one call: to its first text where it streams, else to its end."""

    def __init__(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]], began: float) -> None:
        self.prompt = prompt
        self._on_text = on_text
        self._began = began
        self._first_text: float | None = None

    async def on_text(self, text: str) -> None:
        if self._first_text is None:
            self._first_text = anyio.current_time()
        await self._on_text(text)

    def seconds(self, now: float) -> float:
        return (now if self._first_text is None else self._first_text) - self._began

    def out_of_time(self, now: float) -> bool:
        """The attempt's time was up. It ends by cancellation too, and yet it is the endpoint that took too long."""
        return now - self._began >= self.prompt.timeout - _CLOSE


def outcome_of(error: AttemptError) -> CallOutcome | None:
    """What an error says about the endpoint; None if it was not called."""
    if error.reason in _NOT_CALLED or isinstance(error, AttemptPutOff):
        return None
    if error.reason == UNAUTHORIZED:
        return CallOutcome.DENIED
    return CallOutcome.FAILED if error.retryable or error.reason in _FAULTS else CallOutcome.ANSWERED
