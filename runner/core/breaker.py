"""The circuit breaker: when calls to an endpoint are refused at once, because they would fail anyway.

resilience4j's semantics over a window of time. Time comes in as monotonic seconds, chance as a number, decisions go
out; nothing here waits. A caller asks `permit`, makes its call, and settles the permit with `record` or `release`.

    CLOSED ──rate reached──▶ OPEN ──time passed, next permit──▶ HALF_OPEN ──probes' rate──▶ CLOSED or OPEN (longer)

FORCED_OPEN, DISABLED and METRICS_ONLY are left by hand only, with `force`.
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta, Struct

Rate = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class BreakerState(enum.StrEnum):
    """Whether calls may pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    #: Refuses until reset: by hand, or because the endpoint denied our key.
    FORCED_OPEN = "forced_open"
    #: Permits everything and counts nothing.
    DISABLED = "disabled"
    #: Permits everything and counts.
    METRICS_ONLY = "metrics_only"


class CallOutcome(enum.Enum):
    """What a call says about its endpoint."""

    #: It answered, be it to refuse this one request (4xx).
    ANSWERED = enum.auto()
    #: Connection errors, time-outs, 5xx, 408, 429, answers that break the protocol.
    FAILED = enum.auto()
    #: 401, 403: the key is wrong, not the network.
    DENIED = enum.auto()


class BreakerPolicy(Struct, frozen=True, kw_only=True):
    """When a breaker opens, and for how long."""

    #: Seconds over which calls are counted.
    window_seconds: Seconds = 60.0
    #: Parts of the window; the oldest is forgotten as a whole.
    buckets: Count = 12
    #: Calls in the window below which nothing is decided.
    minimum_calls: Count = 10
    #: Share of calls that fail, to open.
    failure_rate: Rate = 0.5
    #: Share of calls that are slow, to open.
    slow_rate: Rate = 0.8
    #: Seconds beyond which a call is slow; of a streamed answer, to its first text.
    slow_seconds: Seconds = 30.0
    #: Seconds the first opening lasts; each further one in a row lasts twice as long.
    open_seconds: Seconds = 15.0
    #: Seconds no opening lasts longer than, unless the endpoint asked for more.
    open_cap_seconds: Seconds = 300.0
    #: Share by which chance may shorten an opening, so that the breakers of many daemons do not probe together.
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.2
    #: Seconds beyond which a `Retry-After` is not believed.
    retry_after_cap_seconds: Seconds = 3600.0
    #: Calls that probe an endpoint after an opening; their rates decide.
    probes: Count = 3
    #: Seconds to wait for the decision of probes under way before asking again.
    probe_wait_seconds: Seconds = 2.0

    def open_for(self, openings: int, chance: float) -> float:
        """Seconds of an opening that follows `openings` others without a recovery between. `chance` is in [0, 1)."""
        longest = min(self.open_cap_seconds, self.open_seconds * 2.0 ** min(openings, 64))
        return longest * (1.0 - self.jitter * chance)


class Permit(Struct, frozen=True):
    """Leave to make one call."""

    #: Of the breaker's state when it was given. Results of an earlier generation do not count in a later one.
    generation: int
    #: Which probe it is, from 1; 0 for an ordinary call.
    probe: int = 0


class OpenUntil(Struct, frozen=True):
    """No leave. It is worth asking again at `until`, monotonic seconds."""

    until: float
    state: BreakerState


class Counts(Struct, frozen=True):
    """Calls in the window, or of the probes so far."""

    calls: int = 0
    failed: int = 0
    slow: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.calls + other.calls, self.failed + other.failed, self.slow + other.slow)


class Breaker:
    """A circuit breaker's state. Every method takes `now`, which must not decrease."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self._state = BreakerState.CLOSED
        self._generation = 0
        self._openings = 0
        self._open_until = 0.0
        self._asked_until = 0.0
        self._window = _Window(policy)
        self._probes: set[int] = set()
        self._probed, self._last_probe = Counts(), 0

    @property
    def state(self) -> BreakerState:
        """OPEN until the first permit after its time, not until the time itself."""
        return self._state

    def counts(self, now: float) -> Counts:
        """Calls that the next decision rests on."""
        return self._probed if self._state is BreakerState.HALF_OPEN else self._window.counts(now)

    def permit(self, now: float) -> Permit | OpenUntil:
        """May a call be made? Whoever gets a Permit must settle it, or a probe's place stays taken."""
        if self._state is BreakerState.OPEN and now >= self._open_until:
            self._enter(BreakerState.HALF_OPEN)
        if self._state is BreakerState.OPEN:
            return OpenUntil(self._open_until, self._state)
        if self._state is BreakerState.FORCED_OPEN:
            return OpenUntil(now + self.policy.open_cap_seconds, self._state)
        if self._state is BreakerState.HALF_OPEN:
            return self._probe(now)
        return Permit(self._generation)

    def record(
        self,
        permit: Permit,
        outcome: CallOutcome,
        duration: float,
        now: float,
        *,
        chance: float,
        retry_after: float | None = None,
    ) -> None:
        """Settle a permit with what came of its call. `duration` and `retry_after` are seconds, `chance` in [0, 1).

        A second settling, and one of an earlier generation, counts for nothing; but a `Retry-After` that arrives
        while the breaker is open still prolongs the opening.
        """
        if retry_after is not None and outcome is CallOutcome.FAILED:
            self._asked(now + min(retry_after, self.policy.retry_after_cap_seconds))
        if permit.generation != self._generation or self._state is BreakerState.DISABLED:
            return
        failed = outcome is not CallOutcome.ANSWERED
        call = Counts(1, int(failed), int(duration > self.policy.slow_seconds))
        if self._state is BreakerState.HALF_OPEN:
            if permit.probe not in self._probes:
                return
            self._probes.discard(permit.probe)
            self._probed += call
        else:
            self._window.add(now, call)
        if self._state is BreakerState.METRICS_ONLY:
            return
        if outcome is CallOutcome.DENIED:
            self._enter(BreakerState.FORCED_OPEN)
        elif self._state is BreakerState.HALF_OPEN:
            self._decide_probes(now, chance)
        elif (seen := self._window.counts(now)).calls >= self.policy.minimum_calls and self._too_many(seen, seen.calls):
            self._open(now, chance)

    def release(self, permit: Permit) -> None:
        """Settle a permit whose call says nothing: it was not made, or we cancelled it."""
        if permit.generation == self._generation:
            self._probes.discard(permit.probe)

    def force(self, state: BreakerState, now: float) -> None:
        """Set a state by hand; what was counted is forgotten. OPEN lasts as long as a first opening, unjittered."""
        self._openings = 0
        if state is BreakerState.OPEN:
            self._open(now, chance=0.0)
        else:
            self._enter(state)

    def _probe(self, now: float) -> Permit | OpenUntil:
        if len(self._probes) + self._probed.calls >= self.policy.probes:
            return OpenUntil(now + self.policy.probe_wait_seconds, self._state)
        self._last_probe += 1
        self._probes.add(self._last_probe)
        return Permit(self._generation, self._last_probe)

    def _decide_probes(self, now: float, chance: float) -> None:
        """Decide as soon as the probes that are missing could not change the decision."""
        allowed, seen = self.policy.probes, self._probed
        missing = allowed - seen.calls
        if self._too_many(seen, allowed):
            self._openings += 1
            self._open(now, chance)
        elif not self._too_many(seen + Counts(missing, missing, missing), allowed):
            self._enter(BreakerState.CLOSED)

    def _too_many(self, seen: Counts, calls: int) -> bool:
        return seen.failed / calls >= self.policy.failure_rate or seen.slow / calls >= self.policy.slow_rate

    def _open(self, now: float, chance: float) -> None:
        self._enter(BreakerState.OPEN)
        self._open_until = max(now + self.policy.open_for(self._openings, chance), self._asked_until)

    def _asked(self, until: float) -> None:
        self._asked_until = max(self._asked_until, until)
        if self._state is BreakerState.OPEN:
            self._open_until = max(self._open_until, until)

    def _enter(self, state: BreakerState) -> None:
        if state is BreakerState.CLOSED:
            self._openings, self._asked_until = 0, 0.0
        self._state = state
        self._generation += 1
        self._window = _Window(self.policy)
        self._probes.clear()
        self._probed = Counts()


class _Window:
    """Counts of the last `window_seconds`, in buckets that are reused in a ring."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._width = policy.window_seconds / policy.buckets
        self._size = policy.buckets
        #: By bucket number modulo size: the number, and its counts.
        self._ring: dict[int, tuple[int, Counts]] = {}

    def add(self, now: float, call: Counts) -> None:
        number = int(now // self._width)
        held, counts = self._ring.get(number % self._size, (number, Counts()))
        self._ring[number % self._size] = (number, counts + call if held == number else call)

    def counts(self, now: float) -> Counts:
        oldest = int(now // self._width) - self._size + 1
        live = [counts for number, counts in self._ring.values() if number >= oldest]
        return Counts(sum(c.calls for c in live), sum(c.failed for c in live), sum(c.slow for c in live))
