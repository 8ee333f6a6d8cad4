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
from functools import partial
from typing import Final, Generic, TypeVar

import anyio
import anyio.lowlevel

from runner.core.errors import LedgerDamaged, LedgerUnavailable, RunnerError
from runner.engine.bell import Bell
from runner.ledgers.lanes import Lane
from runner.ports import Observer

Write = TypeVar("Write")
Result = TypeVar("Result")

#: Seconds that a commit waits for more writes at most, and under load.
LINGER: Final = 0.015
LINGER_UNDER_LOAD: Final = 0.025
#: Looks without a new write after which a commit begins: one after each turn of the event loop, or after each pause.
QUIET_LOOKS: Final = 3
#: Seconds between two looks under load.
PAUSE: Final = 0.004
#: Writes in the last commit that mean load.
MANY: Final = 4
#: The event loop is busy if it takes this share of a pause, 0–1.
BUSY: Final = 0.5
#: The outcome of a write whose caller went away before the commit.
_GONE = LedgerUnavailable("the caller went away")
_CLOSED = "the ledger is closed; the daemon is shutting down"
_STOPPED = "the ledger stopped on an error of its own; restart the daemon and see its log"

#: Seconds without a failed commit after which the ledger has recovered; patient writers try again more often.
CALM_SECONDS: Final = 10.0


class _Batch(Generic[Write, Result]):
    """Writes that will share a commit. One event answers all their callers: an event for each costs more than a row."""

    __slots__ = ("answered", "begun", "outcomes", "weight", "writes")

    def __init__(self) -> None:
        #: None where the caller went away before the commit began.
        self.writes: list[Write | None] = []
        self.weight = 0
        self.begun = False
        self.answered = anyio.Event()
        self.outcomes: Sequence[Result | Exception] = ()

    def answer(self, outcomes: Sequence[Result | Exception]) -> None:
        self.outcomes = outcomes
        self.answered.set()

    def refuse(self, error: RunnerError) -> None:
        """The same for everyone, but one exception each: one object would gather all their tracebacks."""
        self.answer([type(error)(*error.args) for _ in self.writes])


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
        calm_seconds: float = CALM_SECONDS,
    ) -> None:
        self._apply = apply
        self._max_batch = max_batch
        self._max_pending = max_pending
        self._observer = observer
        self._weigh = weigh
        self._lane = Lane()
        #: Batches that wait, oldest first; only the last of them still grows.
        self._batches: deque[_Batch[Write, Result]] = deque()
        self._bell = Bell()
        #: Writes in the last commit.
        self._carried = 0
        self._open = False
        self._failing = False
        self._failed_at = 0.0
        self._calm_seconds = calm_seconds

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Commit inside the context. What is pending at its end is committed first, also when it is cancelled."""
        self._open = True
        with self._lane.open("ledger-writer"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._serve)
                try:
                    yield
                finally:
                    self._open = False
                    self._bell.ring()

    async def submit(self, write: Write) -> Result:
        """Commit a write; waits where `max_pending` others wait already.

        Raises LedgerUnavailable, LedgerDamaged: nothing of this write was committed.
        A caller that is cancelled leaves no trace if the commit had not begun; if it had, the write may be in or not.
        """
        while self._open and sum(batch.weight for batch in self._batches) >= self._max_pending:
            await self._batches[0].answered.wait()
        if not self._open:
            raise LedgerUnavailable(_CLOSED)
        batch = self._filling()
        place = len(batch.writes)
        batch.writes.append(write)
        batch.weight += self._weigh(write)
        self._bell.ring()
        try:
            await batch.answered.wait()
        finally:
            if not batch.begun:
                batch.writes[place] = None
        outcome = batch.outcomes[place]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _filling(self) -> _Batch[Write, Result]:
        if not self._batches or self._batches[-1].weight >= self._max_batch:
            self._batches.append(_Batch())
        return self._batches[-1]

    async def _serve(self) -> None:
        # Shielded: when the daemon is cancelled, those who clean up still commit; the end of the context ends this.
        with anyio.CancelScope(shield=True):
            try:
                while self._open or self._batches:
                    if self._batches:
                        await self._gather(self._batches[0])
                        await self._commit(self._batches.popleft())
                    else:
                        await self._bell.wait()
            finally:
                self._open = False
                for batch in self._batches:
                    batch.refuse(LedgerUnavailable(_STOPPED))
                self._batches.clear()

    async def _gather(self, batch: _Batch[Write, Result]) -> None:
        """Let those join who are on their way.

        A lone write waits for a few empty turns of the loop, some microseconds. Under load a commit waits while the
        loop is busy, for the next writes are what it is busy with: the fewer commits, the less of the disk's time, and
        of Python's lock, goes to each write. Once everybody waits for the commit the loop is idle, and it begins.
        """
        rest, linger = (PAUSE, LINGER_UNDER_LOAD) if self._carried >= MANY else (0, LINGER)
        until = time.perf_counter() + linger
        quiet = 0
        while quiet < QUIET_LOOKS and batch.weight < self._max_batch and (now := time.perf_counter()) < until:
            before, used = batch.weight, time.thread_time()
            await anyio.sleep(rest)
            if rest and time.thread_time() - used < BUSY * (time.perf_counter() - now):
                return
            quiet = quiet + 1 if batch.weight == before else 0

    async def _commit(self, batch: _Batch[Write, Result]) -> None:
        batch.begun = True
        places = [place for place, write in enumerate(batch.writes) if write is not None]
        writes = [write for write in batch.writes if write is not None]
        self._carried = len(writes)
        if not writes:
            return
        began = time.perf_counter()
        try:
            outcomes = await self._lane.run(partial(self._apply, writes))
        except (LedgerUnavailable, LedgerDamaged) as error:
            batch.refuse(error)
            self._tell_failure(error)
        except BaseException:
            batch.refuse(LedgerUnavailable(_STOPPED))
            raise
        else:
            self._observer.ledger_commit(size=sum(map(self._weigh, writes)), seconds=time.perf_counter() - began)
            self._tell_recovery()
            if len(places) == len(batch.writes):
                batch.answer(outcomes)
            else:
                answers = dict(zip(places, outcomes, strict=True))
                batch.answer([answers.get(place, _GONE) for place in range(len(batch.writes))])

    def _tell_failure(self, error: Exception) -> None:
        self._failed_at = time.monotonic()
        if not self._failing:
            self._failing = True
            self._observer.notice("ledger_failing", error=type(error).__name__, message=str(error))

    def _tell_recovery(self) -> None:
        # On a full disk what is small still fits, again and again: that is no recovery while the rest fails.
        if self._failing and time.monotonic() - self._failed_at >= self._calm_seconds:
            self._failing = False
            self._observer.notice("ledger_recovered")
