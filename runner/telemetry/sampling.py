"""What nobody tells and has to be looked at: the event loop's lag, and the queues' depths."""

from __future__ import annotations

import anyio

from runner.core.errors import LedgerUnavailable
from runner.ports import Clock, Ledger
from runner.telemetry.metrics import Metrics


async def sample(metrics: Metrics, ledger: Ledger, clock: Clock, *, interval: float) -> None:
    """Measure every `interval` seconds until cancelled. A ledger that does not answer shows as `ledger_up` 0."""
    while True:
        due = anyio.current_time() + interval
        await anyio.sleep_until(due)
        metrics.lag(anyio.current_time() - due)
        try:
            depths, oldest = await ledger.depths(), await ledger.oldest_queued()
        except LedgerUnavailable:
            metrics.ledger_up(up=False)
        else:
            metrics.ledger_up(up=True)
            metrics.depths(depths, oldest, now=clock.now())
