"""How long calls take: the quantile beyond which one is hedged."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Final

#: Calls that are remembered.
_KEPT: Final = 512
#: Calls below which nothing is said.
_FEWEST: Final = 20


class Latency:
    """The durations of the last 512 calls, exact. A call more costs a search and a move within 4 kB."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """A call was answered."""
        if len(self._recent) == _KEPT:
            oldest = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._recent.append(seconds)
        insort(self._sorted, seconds)

    def quantile(self, q: float) -> float | None:
        """Seconds within which the share `q`, 0 to 1, of the calls was answered; None under 20 calls."""
        if len(self._sorted) < _FEWEST:
            return None
        return self._sorted[max(0, math.ceil(q * len(self._sorted)) - 1)]
