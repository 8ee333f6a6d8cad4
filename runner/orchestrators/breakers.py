"""The circuit breakers of one endpoint, one for each model, and whom their changes are told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final

import anyio

from runner.core.breaker import Breaker, BreakerState, CallOutcome, OpenReason, OpenUntil, Permit
from runner.core.fleet import BreakerView
from runner.orchestrators.surroundings import Surroundings

#: The model whose breaker is shared by all models beyond `max_models`: their names come from jobs, and never end.
OTHER_MODELS: Final = "*"

MICROS: Final = 1_000_000


class Guard:
    """One model's breaker."""

    __slots__ = ("breaker", "last_failure", "model")

    def __init__(self, model: str, breaker: Breaker) -> None:
        self.model = model
        self.breaker = breaker
        #: The reason of the last call that failed, such as CONNECTION_FAILED. Its message may quote what jobs asked.
        self.last_failure = ""

    @property
    def denied(self) -> bool:
        """Whether it is FORCED_OPEN because a key was refused."""
        forced, opening = self.breaker.state is BreakerState.FORCED_OPEN, self.breaker.opened_by
        return forced and opening is not None and opening.reason is OpenReason.DENIED

    @property
    def _last(self) -> str:
        return f" (the last: {self.last_failure})" if self.last_failure else ""

    @property
    def why(self) -> str:
        """Why it is open, or nothing."""
        opening = self.breaker.opened_by
        if opening is None:
            return ""
        counts = opening.counts
        match opening.reason:
            case OpenReason.FAILURE_RATE:
                why = f"{counts.failed} of {counts.calls} calls failed{self._last}"
            case OpenReason.CONSECUTIVE_FAILURES:
                why = f"the last calls failed, one after the other{self._last}"
            case OpenReason.SLOW_RATE:
                why = f"{counts.slow} of {counts.calls} calls were slow"
            case OpenReason.DENIED:
                why = "its API key was refused"
            case OpenReason.BY_HAND:
                why = "by hand"
        return why if opening.asked_until is None else f"{why}, and it asked for a pause"


class Breakers:
    """Made when a model is first asked for. Observer.breaker hears every change of state, and `stir` is called."""

    def __init__(
        self, endpoint: str, max_models: int, surroundings: Surroundings, *, recovered: Callable[[float], None]
    ) -> None:
        self._endpoint = endpoint
        self._max_models = max_models
        self._with = surroundings
        #: Told when probes closed a breaker, with the monotonic time.
        self._recovered = recovered
        self._guards: dict[str, Guard] = {}

    def guard(self, model: str) -> Guard:
        if model not in self._guards and len(self._guards) >= self._max_models:
            model = OTHER_MODELS
        guard = self._guards.get(model)
        if guard is None:
            guard = self._guards[model] = Guard(model, Breaker(self._with.settings.breaker, anyio.current_time()))
        return guard

    def shut(self, model: str, now: float) -> bool:
        """Whether a model's breaker refuses every call now; one that may probe does not."""
        breaker = self.guard(model).breaker
        until = breaker.open_until
        return breaker.state is BreakerState.FORCED_OPEN or (until is not None and now < until)

    def permit(self, guard: Guard, now: float) -> Permit | OpenUntil:
        """As Breaker.permit."""
        previous = guard.breaker.state
        permit = guard.breaker.permit(now)
        self._tell(guard, previous, now)
        return permit

    def settle(
        self,
        guard: Guard,
        permit: Permit,
        outcome: CallOutcome | None,
        seconds: float,
        now: float,
        *,
        retry_after: float | None,
    ) -> None:
        """Tell what came of a call that took so many `seconds`. `outcome` None: it says nothing of the endpoint."""
        previous = guard.breaker.state
        if outcome is None:
            guard.breaker.release(permit)
        else:
            chance = self._with.chance()
            guard.breaker.record(permit, outcome, seconds, now, chance=chance, retry_after=retry_after)
        self._tell(guard, previous, now)

    def force(self, models: Collection[str], state: BreakerState, now: float) -> None:
        """Set the breakers of some models, or of all that exist, by hand. CLOSED is a reset."""
        for model in models or list(self._guards):
            guard = self.guard(model)
            previous = guard.breaker.state
            guard.breaker.force(state, now)
            self._tell(guard, previous, now)

    def reset_denied(self, now: float) -> None:
        """Reset those that are FORCED_OPEN because a key was refused; what was forced by hand stays."""
        denied = [model for model, guard in self._guards.items() if guard.denied]
        if denied:
            self.force(denied, BreakerState.CLOSED, now)

    def probe_early(self, now: float) -> bool:
        """The endpoint answers its health checks again: probe what is open. Answers whether none is still too young."""
        for guard in self._guards.values():
            previous = guard.breaker.state
            guard.breaker.probe_early(now)
            self._tell(guard, previous, now)
        return not any(guard.breaker.state is BreakerState.OPEN for guard in self._guards.values())

    def views(self, now: float, waiting: Callable[[str], int]) -> Iterator[BreakerView]:
        """As operators see them, by model. `waiting` tells how many wait for a model."""
        for model, guard in sorted(self._guards.items()):
            counts, until = guard.breaker.counts(now), guard.breaker.open_until
            wall = self._with.clock.now()
            yield BreakerView(
                endpoint=self._endpoint,
                model=model,
                state=guard.breaker.state,
                since=wall - round((now - guard.breaker.since) * MICROS),
                open_until=None if until is None else wall + round((until - now) * MICROS),
                reason=guard.why,
                calls=counts.calls,
                failed=counts.failed,
                slow=counts.slow,
                waiting=waiting(model),
            )

    def _tell(self, guard: Guard, previous: BreakerState, now: float) -> None:
        state = guard.breaker.state
        if state is previous:
            return
        if state is BreakerState.CLOSED and previous is BreakerState.HALF_OPEN:
            self._recovered(now)
        self._with.observer.breaker(self._endpoint, guard.model, state.value, previous.value, reason=guard.why)
        if state is BreakerState.FORCED_OPEN:
            self._with.observer.notice("breaker_forced_open", endpoint=self._endpoint, model=guard.model)
        self._with.changed()
        self._with.stir(now)
