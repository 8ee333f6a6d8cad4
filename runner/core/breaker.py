"""The circuit breaker: when calls to an endpoint are refused at once, because they would fail anyway.

resilience4j's semantics (2.x), over the calls of a time or the last so many. Time comes in as monotonic seconds, chance
as a number, decisions go out; nothing here waits. A caller asks `permit`, makes its call, and settles the permit with
`record` or `release`.

    CLOSED ──rate reached──▶ OPEN ──time passed, next permit──▶ HALF_OPEN ──probes' rate──▶ CLOSED or OPEN (longer)
                              └────────── `probe_early` ──────────▲

FORCED_OPEN, DISABLED and METRICS_ONLY are left by hand only, with `force`.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

from msgspec import Meta, Struct, structs

from runner.core.window import CallWindow, TimeWindow, Window

Rate = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]

#: Times `probes`: unsettled ones that are remembered, so that their results count when they come late.
_PROBES_KEPT: Final = 4


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


class WindowKind(enum.StrEnum):
    """Which calls are counted."""

    #: Those of the last `window_seconds`.
    TIME = "time"
    #: The last `window_calls`.
    CALLS = "calls"


class BreakerPolicy(Struct, frozen=True, kw_only=True):
    """When a breaker opens, and for how long."""

    #: Which calls are counted: `time`, those of the last `window_seconds`; `calls`, the last `window_calls`.
    window: WindowKind = WindowKind.TIME
    #: Seconds over which calls are counted.
    window_seconds: Seconds = 60.0
    #: Parts of that time; the oldest is forgotten as a whole.
    buckets: Count = 12
    #: Calls that are counted where `window` is `calls`.
    window_calls: Annotated[int, Meta(ge=1, le=100_000)] = 100
    #: Calls in the window below which nothing is decided; `window_calls` where that is less.
    minimum_calls: Count = 10
    #: Calls in a row that fail, to open whatever else is in the window: a minute of answers must not outvote an outage
    #: that has just begun. 0: only the rates decide.
    consecutive_failures: Annotated[int, Meta(ge=0)] = 10
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
    #: Seconds of an opening in which no health check is believed, doubled like the opening itself; after them, one that
    #: succeeds lets calls probe before the opening's time.
    rest_seconds: Annotated[float, Meta(ge=0)] = 5.0
    #: Share by which chance may shorten an opening, so that the breakers of many daemons do not probe together.
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.2
    #: Seconds beyond which a `Retry-After` is not believed.
    retry_after_cap_seconds: Seconds = 3600.0
    #: Calls that probe an endpoint after an opening; their rates decide.
    probes: Count = 3
    #: Seconds to wait for the decision of probes under way before asking again.
    probe_wait_seconds: Seconds = 2.0
    #: Seconds after which a probe that did not end keeps no other from probing.
    half_open_seconds: Seconds = 60.0

    def open_for(self, openings: int, chance: float) -> float:
        """Seconds of an opening that follows `openings` others without a recovery between. `chance` is in [0, 1)."""
        return self._doubled(self.open_seconds, openings) * (1.0 - self.jitter * chance)

    def rest_for(self, openings: int) -> float:
        """Seconds of such an opening that no health check ends."""
        return self._doubled(self.rest_seconds, openings)

    def _doubled(self, seconds: float, times: int) -> float:
        return min(self.open_cap_seconds, seconds * 2.0 ** min(times, 64))

    def new_window(self) -> Window:
        """Nothing seen yet."""
        if self.window is WindowKind.CALLS:
            return CallWindow(self.window_calls)
        return TimeWindow(self.window_seconds, self.buckets)

    def enough(self, calls: int) -> bool:
        """Whether so many calls in the window suffice to decide."""
        return calls >= self.minimum_calls or (self.window is WindowKind.CALLS and calls == self.window_calls)


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


class OpenReason(enum.StrEnum):
    """Why a breaker opened."""

    FAILURE_RATE = "failure_rate"
    CONSECUTIVE_FAILURES = "consecutive_failures"
    #: The failures were too few, but too many calls were slow.
    SLOW_RATE = "slow_rate"
    #: The endpoint refused our key.
    DENIED = "denied"
    BY_HAND = "by_hand"


class Opening(Struct, frozen=True):
    """Why a breaker opened, for those who ask."""

    reason: OpenReason
    #: What the decision rested on: calls in the window, or probes.
    counts: Counts
    #: The end of the pause, monotonic seconds, that the endpoint asked for by `Retry-After`; None if it asked for none.
    asked_until: float | None = None


class Breaker:
    """A circuit breaker's state. Every method takes `now`, which must not decrease."""

    def __init__(self, policy: BreakerPolicy, now: float = 0.0) -> None:
        self.policy = policy
        #: When it entered its state, monotonic seconds.
        self.since = now
        #: Why it opened last; None unless it is open in some way, or half open after that.
        self.opened_by: Opening | None = None
        self._state = BreakerState.CLOSED
        self._generation = 0
        self._openings = 0
        self._open_until = 0.0
        self._asked_until = 0.0
        self._window = policy.new_window()
        self._failed_in_a_row = 0
        #: Those that are not settled, and when they began; oldest first.
        self._probes: dict[int, float] = {}
        self._probed, self._last_probe = Counts(), 0

    @property
    def state(self) -> BreakerState:
        """OPEN until the first permit after its time, not until the time itself."""
        return self._state

    @property
    def open_until(self) -> float | None:
        """When an OPEN breaker may probe, monotonic seconds; None in any other state, FORCED_OPEN too."""
        return self._open_until if self._state is BreakerState.OPEN else None

    def counts(self, now: float) -> Counts:
        """Calls that the next decision rests on."""
        if self._state is BreakerState.HALF_OPEN:
            return self._probed
        self._window.forget(now)
        return self._in_window()

    def permit(self, now: float) -> Permit | OpenUntil:
        """May a call be made? Whoever gets a Permit must settle it, or a probe's place stays taken."""
        if self._state is BreakerState.OPEN and now >= self._open_until:
            self._enter(BreakerState.HALF_OPEN, now)
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

        One of an earlier generation counts for nothing, nor does a second settling of a probe; but a `Retry-After` that
        arrives while the breaker is open still prolongs the opening.
        """
        if retry_after is not None and outcome is CallOutcome.FAILED:
            self._asked(now + min(retry_after, self.policy.retry_after_cap_seconds))
        if permit.generation != self._generation or self._state is BreakerState.DISABLED:
            return
        failed, slow = outcome is not CallOutcome.ANSWERED, duration > self.policy.slow_seconds
        if self._state is BreakerState.HALF_OPEN:
            if self._probes.pop(permit.probe, None) is None:
                return
            self._probed += Counts(1, int(failed), int(slow))
        else:
            self._window.add(now, failed=failed, slow=slow)
            self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        if self._state is BreakerState.METRICS_ONLY:
            return
        if outcome is CallOutcome.DENIED:
            counts = self.counts(now)
            self._enter(BreakerState.FORCED_OPEN, now)
            self.opened_by = Opening(OpenReason.DENIED, counts)
        elif self._state is BreakerState.HALF_OPEN:
            self._decide_probes(now, chance)
        elif reason := self._verdict(failed=failed, slow=slow):
            self._open(reason, self._in_window(), now, chance)

    def release(self, permit: Permit) -> None:
        """Settle a permit whose call says nothing: it was not made, or we cancelled it."""
        if permit.generation == self._generation:
            self._probes.pop(permit.probe, None)

    def probe_early(self, now: float) -> bool:
        """A health check succeeded: an OPEN breaker goes to HALF_OPEN before its time. Answers whether it did.

        Not as long as the opening rests, never before a time that the endpoint asked for, and not out of an opening
        by hand.
        """
        by_hand = self.opened_by is not None and self.opened_by.reason is OpenReason.BY_HAND
        rested = now >= max(self.since + self.policy.rest_for(self._openings), self._asked_until)
        if self._state is not BreakerState.OPEN or by_hand or not rested:
            return False
        self._enter(BreakerState.HALF_OPEN, now)
        return True

    def force(self, state: BreakerState, now: float) -> None:
        """Set a state by hand; what was counted is forgotten. OPEN lasts as long as a first opening, unjittered."""
        counts = self.counts(now)
        self._openings = 0
        if state is BreakerState.OPEN:
            self._open(OpenReason.BY_HAND, counts, now, chance=0.0)
            return
        self._enter(state, now)
        if state is BreakerState.FORCED_OPEN:
            self.opened_by = Opening(OpenReason.BY_HAND, counts)

    def _probe(self, now: float) -> Permit | OpenUntil:
        # Whoever lost its permit must not keep the breaker half open for ever. Yet a result that comes late counts: of
        # an endpoint that hangs, time-outs are all that is heard.
        begun_after = now - self.policy.half_open_seconds
        taken = sum(begun > begun_after for begun in self._probes.values())
        if taken + self._probed.calls >= self.policy.probes:
            return OpenUntil(now + self.policy.probe_wait_seconds, self._state)
        while len(self._probes) >= _PROBES_KEPT * self.policy.probes:
            del self._probes[next(iter(self._probes))]
        self._last_probe += 1
        self._probes[self._last_probe] = now
        return Permit(self._generation, self._last_probe)

    def _decide_probes(self, now: float, chance: float) -> None:
        """Decide as soon as the probes that are missing could not change the decision."""
        allowed, seen = self.policy.probes, self._probed
        missing = allowed - seen.calls
        if reason := self._too_many(seen.failed, seen.slow, allowed):
            self._openings += 1
            self._open(reason, seen, now, chance)
        elif not self._too_many(seen.failed + missing, seen.slow + missing, allowed):
            self._enter(BreakerState.CLOSED, now)

    def _verdict(self, *, failed: bool, slow: bool) -> OpenReason | None:
        """Whether a call that ended so is one too many. An answer in time never opens: it speaks for the endpoint."""
        reason = None
        if self.policy.enough(calls := self._window.calls):
            reason = self._too_many(self._window.failed if failed else 0, self._window.slow if slow else 0, calls)
        most = self.policy.consecutive_failures
        if reason is None and most and self._failed_in_a_row >= most:
            return OpenReason.CONSECUTIVE_FAILURES
        return reason

    def _too_many(self, failed: int, slow: int, calls: int) -> OpenReason | None:
        if failed / calls >= self.policy.failure_rate:
            return OpenReason.FAILURE_RATE
        return OpenReason.SLOW_RATE if slow / calls >= self.policy.slow_rate else None

    def _in_window(self) -> Counts:
        return Counts(self._window.calls, self._window.failed, self._window.slow)

    def _open(self, reason: OpenReason, counts: Counts, now: float, chance: float) -> None:
        self._enter(BreakerState.OPEN, now)
        self._open_until = max(now + self.policy.open_for(self._openings, chance), self._asked_until)
        self.opened_by = Opening(reason, counts, self._asked_until if self._asked_until > now else None)

    def _asked(self, until: float) -> None:
        self._asked_until = max(self._asked_until, until)
        if self._state is BreakerState.OPEN and self.opened_by is not None:
            self._open_until = max(self._open_until, until)
            self.opened_by = structs.replace(self.opened_by, asked_until=self._asked_until)

    def _enter(self, state: BreakerState, now: float) -> None:
        if state is BreakerState.CLOSED:
            self._openings, self._asked_until = 0, 0.0
        if state is not BreakerState.HALF_OPEN:
            self.opened_by = None
        self._state = state
        self.since = now
        self._generation += 1
        self._window = self.policy.new_window()
        self._failed_in_a_row = 0
        self._probes.clear()
        self._probed = Counts()
