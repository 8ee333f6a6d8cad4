"""When to try again: exponential backoff with full jitter.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: full jitter spreads competing clients best.
A task's backoff is an event with a time in the ledger, not a loop in memory, so it survives kill -9.
"""

from __future__ import annotations

from typing import Final

import msgspec

from runner.core.plan import Instant

#: Seconds that the other side may make a task wait: whoever asks for more is taken to have meant a day.
LONGEST_RETRY_AFTER: Final = 86_400.0


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait between attempts of a task. Seconds."""

    #: Upper bound of the first wait.
    base_seconds: float = 0.5
    #: Growth of the upper bound from wait to wait.
    multiplier: float = 2.0
    #: Upper bound of every wait, except where the other side asks for more.
    cap_seconds: float = 60.0

    def delay(self, failures: int, *, chance: float, retry_after: float | None = None) -> float:
        """Seconds to wait after the `failures`-th failure (from 1). `chance` is uniform in [0, 1).

        Never shorter than `retry_after`, which the other side asked for, as far as a day; jitter is added on top of
        it, so that those who were told the same time do not come back together. What is no time is not obeyed.
        """
        jitter = self._bound(failures) * chance
        # The comparison is false for NaN, too: headers of other people's servers hold anything.
        if retry_after is None or not retry_after >= 0:
            return jitter
        asked = min(retry_after, LONGEST_RETRY_AFTER)
        return asked + min(jitter, 0.1 * asked + self.base_seconds)

    def _bound(self, failures: int) -> float:
        try:
            return min(self.cap_seconds, self.base_seconds * self.multiplier ** (failures - 1))
        except OverflowError:
            return self.cap_seconds


def retry_at(
    policy: RetryPolicy,
    *,
    failures: int,
    retries: int,
    now: Instant,
    chance: float,
    every: float | None = None,
    retry_after: float | None = None,
    deadline: Instant | None = None,
) -> Instant | None:
    """When the next attempt is due, or None if none is left or it would come after the deadline.

    `every` is the task's own wait, in seconds, instead of the policy's; what the other side asks for counts if longer.
    """
    if failures > retries:
        return None
    if every is not None:
        policy = RetryPolicy(base_seconds=0.0)
    wait = policy.delay(failures, chance=chance, retry_after=retry_after)
    due = now + round(max(wait, every or 0.0) * 1_000_000)
    return None if deadline is not None and due >= deadline else due
