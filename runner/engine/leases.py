"""Keeps the leases of the jobs in this daemon's hands, and lets go of those it has lost."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from runner.core.errors import LedgerUnavailable
from runner.core.plan import JobId
from runner.engine.equipment import Equipment
from runner.engine.execution import Execution

MICROS = 1_000_000


async def keep_leases(equipment: Equipment, executions: Mapping[JobId, Execution]) -> None:
    """Renew every lease three times in its life, for as long as it runs.

    A lease that cannot be renewed because the ledger is away is not given up: every write names its token, so if
    another daemon did take the job, the ledger refuses ours.
    """
    while True:
        await anyio.sleep(equipment.settings.lease_seconds / 3)
        try:
            await renew_leases(equipment, executions)
        except LedgerUnavailable as error:
            equipment.observer.notice("renew_failed", error=str(error), jobs=len(executions))


async def renew_leases(equipment: Equipment, executions: Mapping[JobId, Execution]) -> None:
    """Renew every lease now, and drop the jobs that are somebody else's.

    Raises LedgerUnavailable: if none could be renewed.
    """
    tokens = {job_id: execution.token for job_id, execution in executions.items()}
    if not tokens:
        return
    until = equipment.clock.now() + round(equipment.settings.lease_seconds * MICROS)
    held = await equipment.ledger.renew(equipment.runner_id, tokens=tokens, until=until)
    for job_id in tokens.keys() - held:
        execution = executions.get(job_id)
        if execution is not None and execution.token == tokens[job_id]:
            equipment.observer.notice("lease_lost", job_id=job_id, token=execution.token)
            execution.drop()
