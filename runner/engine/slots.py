"""The worker pool's slots: how many attempts may run at a time, and whose turn it is.

Jobs stand in line, one place each, and get one slot a turn, so that a job of ten thousand tasks and a job of one
advance side by side. A step of priority is a head start of so many turns: urgent jobs go first, and nobody starves.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from runner.core.plan import Priority

#: Turns that one step of priority is worth.
HEAD_START = 1_000


class Place:
    """One job's place in the line."""

    def __init__(self, priority: Priority, wake: Callable[[], None]) -> None:
        self.priority = priority
        #: Called when a slot was granted.
        self.wake = wake
        self.granted = 0
        self.in_line = False


class Slots:
    """A fixed number of slots. All methods are synchronous and run on the event loop."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._turn = 0
        self._line: list[tuple[int, int, Place]] = []

    def resize(self, total: int) -> None:
        """Change the number of slots. Attempts under way keep theirs, so there may be too many for a while."""
        self.free += total - self.total
        self.total = total
        self._grant()

    def take(self, place: Place) -> bool:
        """Take a slot, or stand in line for one: then `place.wake` is called and `take` succeeds."""
        if place.granted:
            place.granted -= 1
            return True
        if self.free > 0 and not self._line:
            self.free -= 1
            return True
        if not place.in_line:
            place.in_line = True
            self._turn += 1
            heapq.heappush(self._line, (self._turn - HEAD_START * place.priority, self._turn, place))
            self._grant()
        return False

    def give_back(self) -> None:
        """Return a slot to whoever is next."""
        self.free += 1
        self._grant()

    def leave(self, place: Place) -> None:
        """Leave the line and return what was granted and not used."""
        if place.in_line:
            place.in_line = False
            self._line = [entry for entry in self._line if entry[2] is not place]
            heapq.heapify(self._line)
        self.free += place.granted
        place.granted = 0
        self._grant()

    def _grant(self) -> None:
        while self.free > 0 and self._line:
            _, _, place = heapq.heappop(self._line)
            place.in_line = False
            place.granted += 1
            self.free -= 1
            place.wake()
