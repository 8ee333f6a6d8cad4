"""Claims work within capacity, and holds the executions of what it claimed."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import anyio.abc

from runner.core.errors import LedgerUnavailable
from runner.core.job import Claim
from runner.core.plan import Instant, JobId
from runner.engine.bell import Bell
from runner.engine.equipment import Equipment
from runner.engine.execution import Execution
from runner.engine.settings import QueueSettings, queue_limits

#: Jobs taken by one claim: enough to make a commit worth its sync, few enough to leave some for other daemons.
CLAIM_BATCH = 100
MICROS = 1_000_000


class Dispatcher:
    """The loop that claims, and the jobs in this daemon's hands."""

    def __init__(self, equipment: Equipment, queues: Mapping[str, QueueSettings]) -> None:
        self._with = equipment
        self._queues = queues
        self._names = set(queues)
        self._bell = Bell()
        self._draining = False
        #: By job.
        self.executions: dict[JobId, Execution] = {}
        #: When, on the monotonic clock, the loop last proved that it is alive.
        self.ticked_at = anyio.current_time()
        self._drained = anyio.Event()

    def wake(self, *, queue: str | None = None) -> None:
        """Look for work now: something was submitted, cancelled or finished."""
        if queue is not None:
            self._names.add(queue)
        self._bell.ring()

    def cancel(self, job_id: JobId, reason: str) -> None:
        """Pass on a cancellation that is durable already."""
        execution = self.executions.get(job_id)
        if execution is not None:
            execution.cancel(reason)
        else:
            self.wake()

    async def run(self) -> None:
        """Claim and execute until drained. Cancelling it drops every job where it stands."""
        self._names.update(queue for queue, _ in await self._with.ledger.depths())
        async with anyio.create_task_group() as jobs:
            while not self._draining:
                self.ticked_at = anyio.current_time()
                full = await self._claim(jobs)
                if not full:
                    await self._pause()
        self._drained.set()

    async def drain(self, *, grace: float) -> None:
        """Claim nothing more; return once every job has ended or was given back."""
        self._draining = True
        self.wake()
        for execution in tuple(self.executions.values()):
            execution.drain(grace=grace)
        await self._drained.wait()

    async def _claim(self, jobs: anyio.abc.TaskGroup) -> bool:
        """Take what there is room for. Answers whether there may be more."""
        room = min(CLAIM_BATCH, self._with.settings.max_running_jobs - len(self.executions))
        if room <= 0:
            return False
        now = self._with.clock.now()
        try:
            claims = await self._with.ledger.claim(
                self._with.runner_id,
                now=now,
                lease_until=now + round(self._with.settings.lease_seconds * MICROS),
                limit=room,
                queue_limits={name: queue_limits(self._queues, name).concurrency for name in self._names},
            )
        except LedgerUnavailable as error:
            self._with.observer.notice("claim_failed", error=str(error))
            return False
        for claim in claims:
            jobs.start_soon(self._execute, claim)
        return len(claims) == room

    async def _execute(self, claim: Claim) -> None:
        job_id = claim.summary.id
        try:
            execution = Execution(claim, self._with)
            self.executions[job_id] = execution
            if self._draining:
                execution.drain(grace=0)
            await execution.run()
        except Exception as error:  # noqa: BLE001  one job that cannot be driven must not take the others with it
            # Its lease runs out and it is tried again; until then nobody else is hurt.
            self._with.observer.notice("job_dropped", job_id=job_id, error=f"{type(error).__name__}: {error}")
        finally:
            self.executions.pop(job_id, None)
            self.wake()

    async def _pause(self) -> None:
        """Wait for a wake-up, for the next job to come due, or for the poll."""
        patience = self._with.settings.poll_seconds
        due = await self._next_due()
        if due is not None:
            patience = min(patience, max(0.0, (due - self._with.clock.now()) / MICROS))
        await self._bell.wait(patience)

    async def _next_due(self) -> Instant | None:
        if self._bell.rung:
            return None
        try:
            return await self._with.ledger.next_due(now=self._with.clock.now())
        except LedgerUnavailable:
            return None
