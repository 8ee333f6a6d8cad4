"""What the ledger in memory offers to tests of the engine: failures on order, and engines that die."""

from __future__ import annotations

import pytest

from runner.core.errors import LedgerFull, LedgerUnavailable
from runner.core.events import JobState
from runner.ledgers.memory import MemoryLedger
from tests.ledgers.jobs import append, claimed, job, running, submitted


async def test_it_fails_as_often_as_told_and_changes_nothing() -> None:
    ledger = MemoryLedger()
    ledger.fail_with(LedgerFull("full"), times=2)
    for _ in range(2):
        with pytest.raises(LedgerFull):
            await ledger.submit([job()], max_queued={})
    assert await ledger.depths() == {}
    await submitted(ledger, job())


async def test_an_engine_may_die_on_it_and_another_go_on() -> None:
    ledger = MemoryLedger()
    async with ledger.running():
        claim = await running(ledger)
        ledger.freeze()
        with pytest.raises(LedgerUnavailable, match="frozen"):
            await ledger.append(append(claim, 2))
    ledger.thaw()
    async with ledger.running():
        assert await ledger.depths() == {("default", JobState.QUEUED): 1}
        (again,) = await claimed(ledger, runner="runner-2")
        assert (again.token, len(again.frames)) == (2, 1)
