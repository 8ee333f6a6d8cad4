"""The retry budget: repetitions are a share of the calls, so that they cannot make an outage worse.

Source: "Handling Overload", Site Reliability Engineering, 2016; Finagle's RetryBudget, gRPC's retry throttling (A6).
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, Final

from msgspec import Meta, Struct

#: The last calls that were made, of whatever kind: as long as few of them failed, there is no outage to make worse.
_LAST: Final = 20

#: Parts of the window; the oldest is forgotten as a whole.
_PARTS: Final = 20


class RetryBudgetPolicy(Struct, frozen=True, kw_only=True):
    """How many repetitions an endpoint gets: they must not make an outage worse."""

    #: Repetitions for each first call that was made.
    share: Annotated[float, Meta(ge=0, le=100)] = 0.2
    #: Repetitions a second that are always allowed, so that a quiet endpoint gets its retries.
    per_second: Annotated[float, Meta(ge=0)] = 1.0
    #: Seconds over which calls are counted.
    window_seconds: Annotated[float, Meta(gt=0)] = 10.0


class RetryBudget:
    """The repetitions of one endpoint. Every `now` is in monotonic seconds and must not decrease.

    Whenever one is taken while more than `share` of the last 20 calls failed, those of the last `window_seconds`,
    itself included, are at most `share` times the first calls of that time and `per_second` times its length, or one: a
    quiet endpoint must not keep a task waiting for ever. Parts of
    the window at its border count against the caller, so up to a twentieth less may pass. While fewer fail, nothing
    is held back: what waited through an outage comes when it has ended.
    """

    def __init__(self, policy: RetryBudgetPolicy) -> None:
        self._policy = policy
        self._width = policy.window_seconds / _PARTS
        self._always = policy.per_second * policy.window_seconds
        #: Oldest first.
        self._parts: deque[_Part] = deque()
        self._first = 0
        self._repeated = 0
        #: Whether each of the last calls failed.
        self._last: deque[bool] = deque(maxlen=_LAST)

    def ended(self, *, failed: bool) -> None:
        """A call was made, of whatever kind."""
        self._last.append(failed)

    def called(self, now: float) -> None:
        """A first call is made."""
        self._part(now).first += 1
        self._first += 1

    def permits(self, now: float) -> bool:
        """May a call be repeated?"""
        self._forget(now)
        return self._well() or self._fits(self._first, self._repeated)

    def take(self, now: float) -> bool:
        """A call is repeated, if it may be; a repetition that is refused does not count."""
        if not self.permits(now):
            return False
        self._part(now).repeated += 1
        self._repeated += 1
        return True

    def again_at(self, now: float) -> float:
        """When it is worth asking again: as soon as enough is forgotten, first calls coming or not. After `now`."""
        self._forget(now)
        repeated = self._repeated
        for part in self._parts:
            repeated -= part.repeated
            first = sum(later.first for later in self._parts if later.number > part.number + 1)
            if self._fits(first, repeated):
                # A hundredth beyond the border, which a division might round to this side of it.
                return (part.number + _PARTS + 1.01) * self._width
        return now + self._policy.window_seconds

    def _well(self) -> bool:
        return len(self._last) == _LAST and sum(self._last) <= self._policy.share * _LAST

    def _fits(self, first: int, repeated: int) -> bool:
        return repeated + 1 <= max(self._policy.share * first + self._always, 1)

    def _part(self, now: float) -> _Part:
        self._forget(now)
        number = int(now // self._width)
        if not self._parts or self._parts[-1].number != number:
            self._parts.append(_Part(number))
        return self._parts[-1]

    def _forget(self, now: float) -> None:
        """Of the part at the border, first calls are forgotten already, and repetitions not yet."""
        border = int(now // self._width) - _PARTS
        while self._parts and self._parts[0].number <= border:
            oldest = self._parts[0]
            self._first -= oldest.first
            oldest.first = 0
            if oldest.number == border:
                return
            self._repeated -= oldest.repeated
            self._parts.popleft()


class _Part:
    """What was counted in one part of the window."""

    __slots__ = ("first", "number", "repeated")

    def __init__(self, number: int) -> None:
        self.number = number
        self.first = 0
        self.repeated = 0
