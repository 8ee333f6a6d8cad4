"""Claims work within capacity, and holds the executions of what it claimed."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import anyio.abc

from runner.core.errors import LedgerUnavailable, first_cause
from runner.core.job import Claim, JobSummary, Signal
from runner.core.plan import Instant, JobId
from runner.engine.bell import Bell
from runner.engine.equipment import Equipment
from runner.engine.execution import Execution
from runner.engine.settings import QueueSettings, queue_limits

#: Jobs taken by one claim: enough to make a commit worth its sync, few enough to leave some for other daemons.
CLAIM_BATCH = 100
#: Bytes of frames after which a claim takes no further job: all of them are in memory at once, and the ledger's writer
#: reads them while nobody can commit.
CLAIM_BYTES = 8 * 1024 * 1024
MICROS = 1_000_000
#: Seconds that commits under way have at the end of a drain's grace.
LAST_COMMITS = 3.0


class Dispatcher:
    """The loop that claims, and the jobs in this daemon's hands."""

    def __init__(self, equipment: Equipment, queues: Mapping[str, QueueSettings]) -> None:
        self._with = equipment
        self._queues = queues
        self._names = set(queues)
        self._bell = Bell()
        self._learned = False
        #: When the next queued job comes due, as far as is known; the ledger is asked at every poll.
        self._due: Instant | None = None
        self._draining = False
        self._claiming = False
        #: Jobs that the claim under way may find, or may have come too early for.
        self._hoped_for: set[JobId] = set()
        #: By job.
        self.executions: dict[JobId, Execution] = {}
        #: When, on the monotonic clock, the loop last proved that it is alive.
        self.ticked_at = anyio.current_time()
        self._drained = anyio.Event()

    def wake(self) -> None:
        """Look for work now: something was cancelled, finished or rescued."""
        self._bell.ring()

    def expect(self, queue: str, *, due: Instant | None) -> None:
        """There is a job that can be claimed now (None), or has to be looked at when it comes due."""
        self._names.add(queue)
        if due is None:
            self._bell.ring()
        elif self._due is None or due < self._due:
            self._due = due
            self._bell.ring()

    def accepted(self, job: JobSummary, *, due: Instant | None) -> None:
        """A job is durable that can be claimed now (None), or has to be looked at when it comes due."""
        if due is None and self._claiming:
            self._names.add(job.queue)
            self._hoped_for.add(job.id)
        else:
            self.expect(job.queue, due=due)

    def limit_queues(self, queues: Mapping[str, QueueSettings]) -> None:
        """Replace the limits of all queues."""
        self._queues = queues
        self._names.update(queues)
        self.wake()

    def cancel(self, job_id: JobId, reason: str) -> None:
        """Pass on a cancellation that is durable already."""
        execution = self.executions.get(job_id)
        if execution is not None:
            execution.cancel(reason)
        else:
            self.wake()

    def pause(self, job_id: JobId, *, requested: bool) -> None:
        """Pass on a pause, or its end, that is durable already; whoever takes the job later finds it in the ledger."""
        execution = self.executions.get(job_id)
        if execution is not None:
            execution.pause(requested=requested)

    async def run(self) -> None:
        """Claim and execute until drained. Cancelling it drops every job where it stands."""
        try:
            async with anyio.create_task_group() as jobs:
                while not self._draining:
                    self.ticked_at = anyio.current_time()
                    full = await self._learn_names() and await self._claim(jobs)
                    if not full:
                        await self._pause()
        finally:
            self._drained.set()

    def signal(self, job_id: JobId, signal: Signal) -> None:
        """Pass on an answer that is durable already; whoever takes the job later finds it in the ledger."""
        execution = self.executions.get(job_id)
        if execution is not None:
            execution.signal(signal)

    async def drain(self, *, grace: float) -> None:
        """Claim nothing more; return once every job has ended or was given back.

        Where the ledger is away, so that jobs cannot be given back, they are dropped a little after their grace: the
        next daemon takes them as after a crash. Handlers that do not end even then are not waited for.
        """
        self._draining = True
        self.wake()
        for execution in tuple(self.executions.values()):
            execution.drain(grace=grace)
        with anyio.move_on_after(grace + LAST_COMMITS):
            await self._drained.wait()
        for execution in tuple(self.executions.values()):
            self._with.observer.notice("job_dropped", job_id=execution.job_id, error="it could not be given back")
            execution.drop()
        with anyio.move_on_after(LAST_COMMITS):
            await self._drained.wait()

    async def _learn_names(self) -> bool:
        """Once, at the start: queues that hold jobs but stand in no settings have limits, too."""
        if not self._learned:
            try:
                self._names.update(queue for queue, _ in await self._with.ledger.depths())
            except LedgerUnavailable as error:
                self._with.observer.notice("claim_failed", error=str(error))
                return False
            self._due = await self._next_due()
            self._learned = True
        return True

    async def _claim(self, jobs: anyio.abc.TaskGroup) -> bool:
        """Take what there is room for. Answers whether there may be more."""
        room = self._room()
        if room <= 0:
            return False
        lent = self._with.children.lending.lent
        now = self._with.clock.now()
        self._claiming = True
        try:
            claims = await self._with.ledger.claim(
                self._with.runner_id,
                now=now,
                lease_until=now + round(self._with.settings.lease_seconds * MICROS),
                limit=room,
                max_bytes=CLAIM_BYTES,
                queue_limits={name: queue_limits(self._queues, name).concurrency + lent[name] for name in self._names},
            )
        except LedgerUnavailable as error:
            self._with.observer.notice("claim_failed", error=str(error))
            return False
        finally:
            self._claiming = False
            hoped_for, self._hoped_for = self._hoped_for, set()
        if not hoped_for.issubset(claim.summary.id for claim in claims):
            self.wake()
        for claim in claims:
            jobs.start_soon(self._execute, self._hold(claim), claim.summary)
        return len(claims) == room or sum(claim.size for claim in claims) >= CLAIM_BYTES

    def _room(self) -> int:
        """How many jobs may be taken now.

        Those that only wait lend their places. They are bounded, too; but where nothing else runs, the jobs that others
        wait for are let in all the same: they stand before everything that came after those.
        """
        settings, waiting = self._with.settings, self._with.children.lending.lent.total()
        busy = len(self.executions) - waiting
        room = settings.max_running_jobs - busy - max(0, waiting - settings.max_waiting_jobs)
        if room <= 0 and self._with.children.lending.parents and busy <= 0:
            return 1
        return min(CLAIM_BATCH, room)

    def _hold(self, claim: Claim) -> Execution:
        """Enter a job before anything else can happen: a cancellation that comes now must find it."""
        execution = Execution(claim, self._with)
        earlier = self.executions.get(claim.summary.id)
        if earlier is not None:
            # We lost its lease, did not notice yet, and were given the job again.
            earlier.drop()
        self.executions[execution.job_id] = execution
        if self._draining:
            execution.drain(grace=0)
        return execution

    async def _execute(self, execution: Execution, job: JobSummary) -> None:
        job_id, children = execution.job_id, self._with.children
        try:
            with children.held(job):
                await children.end_orphan(job)
                await execution.run()
            if execution.ended:
                await children.end_all(job_id)
                await self._with.job_ended(job_id)
            elif job.deadline is not None:
                # Let go of because it is paused: nothing else would look at it in time.
                self.expect(job.queue, due=job.deadline)
        except Exception as error:  # noqa: BLE001  one job that cannot be driven must not take the others with it
            # Its lease runs out and it is tried again; until then nobody else is hurt.
            cause = first_cause(error)
            self._with.observer.notice("job_dropped", job_id=job_id, error=f"{type(cause).__name__}: {cause}")
        finally:
            # Only its own entry: the job may have been claimed anew while this execution was still stopping.
            if self.executions.get(job_id) is execution:
                del self.executions[job_id]
            self.wake()

    async def _pause(self) -> None:
        """Wait for a wake-up, for the next job to come due, or for the poll."""
        patience = self._with.settings.poll_seconds
        if self._due is not None:
            patience = min(patience, (self._due - self._with.clock.now()) / MICROS)
        if not await self._bell.wait(patience):
            self._due = await self._next_due()

    async def _next_due(self) -> Instant | None:
        try:
            return await self._with.ledger.next_due(now=self._with.clock.now())
        except LedgerUnavailable:
            return None
