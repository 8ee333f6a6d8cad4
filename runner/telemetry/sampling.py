"""What nobody tells and has to be looked at: the event loop's lag, AI endpoints, queues' depths, what budgets used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from runner.core.budgets import LabelBudget
from runner.core.errors import LedgerUnavailable
from runner.ports import Clock, Fleet, Ledger
from runner.telemetry.metrics import Metrics


async def sample(
    metrics: Metrics,
    ledger: Ledger,
    clock: Clock,
    *,
    interval: float,
    fleet: Fleet | None = None,
    budgets: Callable[[], Sequence[LabelBudget]] = tuple,
) -> None:
    """Measure every `interval` seconds until cancelled. A ledger that does not answer shows as `ledger_up` 0."""
    while True:
        due = anyio.current_time() + interval
        await anyio.sleep_until(due)
        metrics.lag(anyio.current_time() - due)
        if fleet is not None:
            metrics.fleet(fleet.endpoints(), fleet.breakers())
        try:
            depths, oldest = await ledger.depths(), await ledger.oldest_queued()
            aside = await ledger.set_aside()
            shares = [budget.share(clock.now()) for budget in budgets()]
            used = [await ledger.spent_tokens(share.budget, share.period) for share in shares]
        except LedgerUnavailable:
            metrics.ledger_up(up=False)
        else:
            metrics.ledger_up(up=True)
            metrics.depths(depths, oldest, now=clock.now())
            metrics.set_aside(aside)
            metrics.budgets(list(zip(shares, used, strict=True)))
