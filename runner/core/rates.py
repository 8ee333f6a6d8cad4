"""Requests and tokens a minute: when the next call may be made, so that the endpoint need not refuse it.

Both bounds are continuous, by the generic cell rate algorithm (ITU-T I.371, annex A): each remembers one time, at
which all that was taken has been paid for. No bucket empties at a full minute, and no herd waits for one. A tenth of
a minute's worth may come at once.
"""

from __future__ import annotations

import enum
from typing import Final

from msgspec import Struct

#: Seconds' worth of a rate that may come at once.
_BURST_SECONDS: Final = 6.0


class RateBound(enum.StrEnum):
    """What holds a call up; the first two are called like their settings."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    #: The endpoint asked for a pause.
    RETRY_AFTER = "Retry-After"


class Taken(Struct, frozen=True):
    """Leave to make one call."""

    #: What was taken for it.
    tokens: float


class Wait(Struct, frozen=True):
    """No leave, and nothing was taken. At `until`, monotonic seconds, it passes if nobody took anything meanwhile."""

    until: float
    bound: RateBound


class RateLimit:
    """The rates of one endpoint, in calls and tokens a minute; 0 is no bound. Every `now` must not decrease.

    In no minute there are more calls than its rate and the burst: a tenth of the rate, at least one. Tokens pass as
    soon as the burst is not used up, however many they are, and what a call takes beyond that is owed: the calls after
    it wait longer. So large calls and small ones wait for the same thing, and none starves beside the others.
    """

    def __init__(self, *, requests_per_minute: float = 0.0, tokens_per_minute: float = 0.0) -> None:
        self._requests = _Flow(requests_per_minute, whole=1.0) if requests_per_minute else None
        self._tokens = _Flow(tokens_per_minute) if tokens_per_minute else None
        self._paused_until = 0.0

    def take(self, tokens_estimated: float, now: float) -> Taken | Wait:
        """May a call be made, that costs so many tokens? Either all is taken, or nothing."""
        refused = self.wait(now)
        if refused is not None:
            return refused
        if self._requests:
            self._requests.take(1.0, now)
        if self._tokens:
            self._tokens.take(tokens_estimated, now)
        return Taken(tokens_estimated)

    def wait(self, now: float) -> Wait | None:
        """What would hold a call up now, if anything."""
        until, bound = self._paused_until, RateBound.RETRY_AFTER
        if self._requests and (free_at := self._requests.free_at) > until:
            until, bound = free_at, RateBound.REQUESTS
        if self._tokens and (free_at := self._tokens.free_at) > until:
            until, bound = free_at, RateBound.TOKENS
        return Wait(until, bound) if until > now else None

    def correct(self, taken: Taken, tokens_used: float, now: float) -> None:
        """Tell once what a call did use, be it more or less than was taken for it; 0 if it was not answered.

        What was taken too much comes back as far as it has not come back by time; the call itself stays counted.
        """
        if self._tokens:
            self._tokens.take(tokens_used - taken.tokens, now)

    def paused_until(self, until: float) -> None:
        """The endpoint asked for a pause. It is never shortened."""
        self._paused_until = max(self._paused_until, until)

    def owed(self, now: float) -> float:
        """Tokens that were taken and are not paid for yet; beyond a tenth of the rate, calls wait."""
        return self._tokens.owed(now) if self._tokens else 0.0


class _Flow:
    """One rate. `whole` is the least that a call takes: so much must be there when it comes."""

    def __init__(self, per_minute: float, whole: float = 0.0) -> None:
        self._cost = 60.0 / per_minute
        self._allowance = max(0.0, _BURST_SECONDS - whole * self._cost)
        #: When all that was taken is paid for.
        self._paid_at = 0.0

    @property
    def free_at(self) -> float:
        return self._paid_at - self._allowance

    def take(self, amount: float, now: float) -> None:
        since = max(now, self._paid_at)
        self._paid_at = since + amount * self._cost

    def owed(self, now: float) -> float:
        return max(0.0, self._paid_at - now) / self._cost
