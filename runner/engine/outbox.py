"""Delivers `.last` records to a sink, at least once, for as long as it takes."""

from __future__ import annotations

from typing import Final

import anyio

from runner.core.errors import LedgerUnavailable, SinkUnavailable
from runner.core.job import OutboxEntry
from runner.core.retry import RetryPolicy
from runner.engine.equipment import Equipment
from runner.ports import Sink

MICROS: Final = 1_000_000
#: Records of one delivery, and bytes of them after which it takes in no further one.
PAGE: Final = 200
PAGE_BYTES: Final = 16 * 1024 * 1024
PATIENCE: Final = RetryPolicy(base_seconds=1, cap_seconds=60)


class Outbox:
    """The loop of one sink."""

    def __init__(self, equipment: Equipment, sink: Sink) -> None:
        self._with = equipment
        self._sink = sink
        self._bell = equipment.sinks[sink.name]
        self._delivering = anyio.Lock()

    async def run(self) -> None:
        """Deliver whatever is due, oldest first, until cancelled."""
        while True:
            if not await self._deliver_page():
                await self._bell.wait(self._with.settings.poll_seconds)

    async def deliver_due(self) -> None:
        """Deliver what is due now. What cannot be delivered or looked up stays for later."""
        while await self._deliver_page():
            pass

    async def _deliver_page(self) -> bool:
        """One page. Answers whether there may be another."""
        # One at a time: at the end of a drain the loop may be delivering the same page.
        async with self._delivering:
            try:
                return await self._deliver()
            except LedgerUnavailable as error:
                self._with.observer.notice("outbox_failed", sink=self._sink.name, error=str(error))
                return False

    async def _deliver(self) -> bool:
        now = self._with.clock.now()
        due = await self._with.ledger.due(self._sink.name, now=now, limit=PAGE, max_bytes=PAGE_BYTES)
        if not due:
            return False
        ids = [entry.id for entry in due]
        try:
            await self._sink.deliver(due)
        except SinkUnavailable as error:
            until = self._with.clock.now() + round(self._delay(due) * MICROS)
            await self._with.ledger.put_off(ids, until=until)
            self._with.observer.notice("sink_failed", sink=self._sink.name, error=str(error), records=len(ids))
        else:
            await self._with.ledger.delivered(ids)
        return len(due) == PAGE or sum(len(entry.record) for entry in due) >= PAGE_BYTES

    def _delay(self, due: list[OutboxEntry]) -> float:
        return PATIENCE.delay(min(entry.attempts for entry in due) + 1, chance=0.5 + self._with.chance() / 2)
