"""Makes the jobs of dead daemons claimable again. Runs all the time, on every replica."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio

from runner.core.errors import LedgerUnavailable
from runner.core.plan import JobId
from runner.engine.equipment import Equipment
from runner.engine.execution import Execution
from runner.engine.leases import renew_leases

PAGE = 500


async def rescue_jobs(
    equipment: Equipment, executions: Mapping[JobId, Execution], *, rescued: Callable[[], None]
) -> None:
    """Look for leases that ended, twice in a lease's life; page until nothing is left, then call `rescued`."""
    while True:
        await anyio.sleep(equipment.settings.lease_seconds / 2)
        try:
            # Our own first: when the ledger was away for longer than a lease, they have ended as well, and we would
            # take our jobs from ourselves, with the results that we held for them.
            await renew_leases(equipment, executions)
            while count := await equipment.ledger.rescue(now=equipment.clock.now(), limit=PAGE):
                equipment.observer.notice("jobs_rescued", count=count)
                rescued()
        except LedgerUnavailable as error:
            equipment.observer.notice("rescue_failed", error=str(error))
