"""Makes the jobs of dead daemons claimable again. Runs all the time, on every replica."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from runner.core.errors import LedgerUnavailable
from runner.engine.equipment import Equipment

PAGE = 500


async def rescue_jobs(equipment: Equipment, *, rescued: Callable[[], None]) -> None:
    """Look for leases that ended, twice in a lease's life; page until nothing is left, then call `rescued`."""
    while True:
        await anyio.sleep(equipment.settings.lease_seconds / 2)
        try:
            while count := await equipment.ledger.rescue(now=equipment.clock.now(), limit=PAGE):
                equipment.observer.notice("jobs_rescued", count=count)
                rescued()
        except LedgerUnavailable as error:
            equipment.observer.notice("rescue_failed", error=str(error))
