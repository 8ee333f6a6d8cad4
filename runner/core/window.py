"""The calls of late: what a circuit breaker's rates are reckoned from."""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Window(Protocol):
    """How many calls it holds, and how many of them failed and were slow. True until time passes: see `forget`."""

    calls: int
    failed: int
    slow: int

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """A call ended. `now` must not decrease."""

    def forget(self, now: float) -> None:
        """Let go of what is too old."""


class TimeWindow:
    """The calls of the last so many seconds, in parts; the oldest part is forgotten as a whole."""

    def __init__(self, seconds: float, parts: int) -> None:
        self.calls = self.failed = self.slow = 0
        self._width = seconds / parts
        self._size = parts
        #: Oldest first.
        self._parts: deque[_Part] = deque()

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        self.forget(now)
        number = int(now // self._width)
        if not self._parts or self._parts[-1].number != number:
            self._parts.append(_Part(number))
        for counted in (self._parts[-1], self):
            counted.calls += 1
            counted.failed += failed
            counted.slow += slow

    def forget(self, now: float) -> None:
        oldest = int(now // self._width) - self._size + 1
        while self._parts and self._parts[0].number < oldest:
            gone = self._parts.popleft()
            self.calls -= gone.calls
            self.failed -= gone.failed
            self.slow -= gone.slow


class CallWindow:
    """The last so many calls, exact, however long ago they were."""

    def __init__(self, size: int) -> None:
        self.calls = self.failed = self.slow = 0
        self._size = size
        #: Whether each failed and was slow; oldest first.
        self._recent: deque[tuple[bool, bool]] = deque()

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        if self.calls == self._size:
            oldest_failed, oldest_slow = self._recent.popleft()
            self.failed -= oldest_failed
            self.slow -= oldest_slow
        else:
            self.calls += 1
        self._recent.append((failed, slow))
        self.failed += failed
        self.slow += slow

    def forget(self, now: float) -> None:
        """Time makes no call older."""


class _Part:
    """What was counted in one part of a TimeWindow."""

    __slots__ = ("calls", "failed", "number", "slow")

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = self.failed = self.slow = 0
