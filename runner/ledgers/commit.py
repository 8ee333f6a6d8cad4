"""Group commit: whatever is pending goes into one transaction, and then everyone gets an answer.

A sync to disk costs as much as hundreds of rows, so one writer collects all changes that wait while the last commit was
under way. An idle ledger commits a change at once: there is no artificial delay. Latency is one commit; throughput is
the batch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from runner.core.errors import LedgerDamaged, LedgerUnavailable
from runner.ports import Observer

Write = TypeVar("Write")
Result = TypeVar("Result")

_CLOSED = "the ledger is closed; the daemon is shutting down"
_STOPPED = "the ledger stopped on an error of its own; restart the daemon and see its log"


class _Waiting(Generic[Write, Result]):
    """A write on its way, and the caller who waits for it."""

    __slots__ = ("answered", "gone", "outcome", "write")

    def __init__(self, write: Write) -> None:
        self.write = write
        self.answered = anyio.Event()
        self.outcome: Result | Exception = LedgerUnavailable(_STOPPED)
        self.gone = False

    def answer(self, outcome: Result | Exception) -> None:
        self.outcome = outcome
        self.answered.set()


class GroupCommit(Generic[Write, Result]):
    """One writer, many callers, on asyncio and on trio.

    `apply` commits a batch in one transaction and gives an outcome for each write, in order; an exception among them is
    raised to that caller alone. It runs in a worker thread, never twice at a time. If it raises LedgerUnavailable or
    LedgerDamaged, nothing was committed and every caller of the batch gets that. If it raises anything else, which is a
    fault of ours, everybody gets LedgerUnavailable and `running` ends with the fault.
    """

    def __init__(
        self,
        apply: Callable[[list[Write]], Sequence[Result | Exception]],
        *,
        max_batch: int,
        max_pending: int,
        observer: Observer,
        weigh: Callable[[Write], int] = lambda _: 1,
    ) -> None:
        self._apply = apply
        self._max_batch = max_batch
        self._max_pending = max_pending
        self._observer = observer
        self._weigh = weigh
        self._limiter = anyio.CapacityLimiter(1)
        self._arrivals: MemoryObjectSendStream[_Waiting[Write, Result]] | None = None
        self._failing = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Commit inside the context. What is pending at its end is committed first, also when it is cancelled."""
        arrivals, waiting = anyio.create_memory_object_stream[_Waiting[Write, Result]](self._max_pending)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve, waiting)
            self._arrivals = arrivals
            try:
                yield
            finally:
                self._arrivals = None
                arrivals.close()

    async def submit(self, write: Write) -> Result:
        """Commit a write; waits where `max_pending` others wait already.

        Raises LedgerUnavailable, LedgerDamaged: nothing of this write was committed.
        A caller that is cancelled leaves no trace if the commit had not begun; if it had, the write may be in or not.
        """
        if self._arrivals is None:
            raise LedgerUnavailable(_CLOSED)
        waiting: _Waiting[Write, Result] = _Waiting(write)
        try:
            await self._arrivals.send(waiting)
            await waiting.answered.wait()
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            raise LedgerUnavailable(_CLOSED) from None
        finally:
            waiting.gone = True
        if isinstance(waiting.outcome, Exception):
            raise waiting.outcome
        return waiting.outcome

    async def _serve(self, waiting: MemoryObjectReceiveStream[_Waiting[Write, Result]]) -> None:
        # Shielded: when the daemon is cancelled, those who clean up still commit; the end of the arrivals ends this.
        with anyio.CancelScope(shield=True), waiting:
            batch: deque[_Waiting[Write, Result]] = deque()
            try:
                async for first in waiting:
                    self._collect(first, waiting, batch)
                    if batch:
                        await self._commit(list(batch))
                    batch.clear()
            finally:
                self._abandon(batch, waiting)

    def _collect(
        self,
        first: _Waiting[Write, Result],
        waiting: MemoryObjectReceiveStream[_Waiting[Write, Result]],
        batch: deque[_Waiting[Write, Result]],
    ) -> None:
        weight, entry = 0, first
        while True:
            if not entry.gone:
                batch.append(entry)
                weight += self._weigh(entry.write)
            if weight >= self._max_batch:
                return
            try:
                entry = waiting.receive_nowait()
            except (anyio.WouldBlock, anyio.EndOfStream):
                return

    async def _commit(self, batch: list[_Waiting[Write, Result]]) -> None:
        writes = [entry.write for entry in batch]
        began = time.perf_counter()
        outcomes: Sequence[Result | Exception]
        try:
            outcomes = await anyio.to_thread.run_sync(self._apply, writes, limiter=self._limiter)
        except (LedgerUnavailable, LedgerDamaged) as error:
            # One exception each: raised by many tasks, one object would gather all their tracebacks.
            outcomes = [type(error)(*error.args) for _ in batch]
            self._tell_failure(error)
        else:
            self._observer.ledger_commit(size=sum(map(self._weigh, writes)), seconds=time.perf_counter() - began)
            self._tell_recovery()
        for entry, outcome in zip(batch, outcomes, strict=True):
            entry.answer(outcome)

    def _abandon(
        self,
        batch: deque[_Waiting[Write, Result]],
        waiting: MemoryObjectReceiveStream[_Waiting[Write, Result]],
    ) -> None:
        for entry in batch:
            entry.answered.set()
        while True:
            try:
                waiting.receive_nowait().answered.set()
            except (anyio.WouldBlock, anyio.EndOfStream):
                return

    def _tell_failure(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            self._observer.notice("ledger_failing", error=type(error).__name__, message=str(error))

    def _tell_recovery(self) -> None:
        if self._failing:
            self._failing = False
            self._observer.notice("ledger_recovered")
