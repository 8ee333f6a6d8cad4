"""When to try again: exponential backoff with full jitter.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: full jitter spreads competing clients best.
A task's backoff is an event with a time in the ledger, not a loop in memory, so it survives kill -9.
"""

from __future__ import annotations

import msgspec

from runner.core.plan import Instant


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

        Never shorter than `retry_after`, which the other side asked for; jitter is added on top of it, so that
        those who were told the same time do not come back together.
        """
        # The exponent is capped: 2.0 ** 2000 is an OverflowError, and no cap is reached later than this.
        bound = min(self.cap_seconds, self.base_seconds * self.multiplier ** min(failures - 1, 64))
        jitter = bound * chance
        return jitter if retry_after is None else retry_after + min(jitter, 0.1 * retry_after + self.base_seconds)


def retry_at(
    policy: RetryPolicy,
    *,
    failures: int,
    retries: int,
    now: Instant,
    chance: float,
    retry_after: float | None = None,
    deadline: Instant | None = None,
) -> Instant | None:
    """When the next attempt is due, or None if none is left or it would come after the deadline."""
    if failures > retries:
        return None
    due = now + round(policy.delay(failures, chance=chance, retry_after=retry_after) * 1_000_000)
    return None if deadline is not None and due >= deadline else due
