"""The Runner: all that gRPC, HTTP and the command line ever call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial

import anyio
import anyio.to_thread
import msgspec
from anyio.lowlevel import checkpoint

from runner import frames
from runner.core.alt import DescriptorLimits, Kinds
from runner.core.alt.parameters import NO_KINDS
from runner.core.errors import Draining, InvalidRequest, JobUnreadable, RunnerError
from runner.core.events import Artifact, Failure, JobEvent, JobPaused, JobResumed, JobState, Recorded
from runner.core.filters import Filter, JobQuery
from runner.core.findings import Finding
from runner.core.interpreter import JobRun
from runner.core.job import Frame, JobSummary, Signal, Steered, Submitted
from runner.core.plan import Instant, JobId
from runner.engine.again import Retry, prepare_retry
from runner.engine.broadcast import CaughtUp, Idle
from runner.engine.descriptors import Descriptors
from runner.engine.dispatcher import Dispatcher
from runner.engine.equipment import Equipment
from runner.engine.journal import ChangesPage
from runner.engine.leases import keep_leases
from runner.engine.outbox import Outbox
from runner.engine.replaying import REPLAY_FAILED, inputs_of, plan_of, reading
from runner.engine.rescuer import rescue_jobs
from runner.engine.settings import QueueSettings, queue_limits
from runner.engine.signals import signal_problems
from runner.engine.submission import Prepared, Submission, is_slow, prepare, repeated, request_id_problem
from runner.ports import Sink

#: Bytes of descriptors beyond which they are decoded in a thread, so that the event loop answers others meanwhile.
DECODE_IN_THREAD = 64 * 1024
#: Threads that decode at a time; they share one interpreter with the event loop, so more would only hold it up.
DECODERS = 2
MAX_REASON = 1_000
#: Seconds that sinks have at the end of a drain; what they did not take waits in the ledger.
LAST_DELIVERIES = 5.0


class Accepted(msgspec.Struct, frozen=True):
    """A submission that is durable."""

    job: JobSummary
    replayed: bool
    warnings: tuple[Finding, ...]


class Runner:
    """A running engine. Make it inside the event loop, then `run` it in a task group of the daemon's."""

    def __init__(
        self,
        equipment: Equipment,
        *,
        queues: Mapping[str, QueueSettings],
        descriptor_limits: DescriptorLimits,
        kinds: Kinds = NO_KINDS,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self._with = equipment
        self._queues = queues
        self.descriptors = Descriptors(
            descriptor_limits, kinds, remembered_bytes=equipment.settings.remembered_descriptor_bytes
        )
        self.dispatcher = Dispatcher(equipment, queues)
        equipment.children.bind(self, equipment)
        self._outboxes = [Outbox(equipment, sink) for sink in sinks]
        self._draining = False
        self._decoders = anyio.CapacityLimiter(DECODERS)

    async def run(self) -> None:
        """Run every background loop until cancelled."""
        async with anyio.create_task_group() as loops:
            loops.start_soon(self.dispatcher.run)
            loops.start_soon(keep_leases, self._with, self.dispatcher.executions)
            loops.start_soon(partial(rescue_jobs, self._with, self.dispatcher.executions, rescued=self.dispatcher.wake))
            for outbox in self._outboxes:
                loops.start_soon(outbox.run)

    async def drain(self) -> None:
        """Take nothing new; let running tasks finish in their grace time; give the rest back; deliver what is due.

        Watchers stay until the end, so that they see their jobs given back, and are then sent away with Draining.
        """
        self._draining = True
        await self.dispatcher.drain(grace=self._with.settings.drain_grace_seconds)
        self._with.broadcast.close()
        self._with.journal.close()
        with anyio.move_on_after(LAST_DELIVERIES):
            async with anyio.create_task_group() as deliveries:
                for outbox in self._outboxes:
                    deliveries.start_soon(outbox.deliver_due)

    def limit_queues(self, queues: Mapping[str, QueueSettings]) -> None:
        """Replace the limits of all queues; jobs that run already run on."""
        self._queues = queues
        self.dispatcher.limit_queues(queues)

    # ------------------------------------------------------------------------------------------------- submit

    async def validate(self, submission: Submission) -> tuple[Finding, ...]:
        """Decode and check without storing. Answers the warnings.

        Raises InvalidDescriptor, InvalidRequest: as `submit`.
        """
        return _sound(await self._prepare(msgspec.structs.replace(submission, request_id=""))).warnings

    async def submit(self, submission: Submission) -> Accepted:
        """Accept a job. It is durable when this returns.

        Raises InvalidDescriptor, InvalidRequest: if it is wrong; all that is.
        Raises RequestIdReused: if the request id came before with another body.
        Raises QueueFull, Draining, LedgerUnavailable: if it cannot be taken now.
        """
        if self._draining:
            raise Draining
        prepared = _sound(await self._prepare(submission))
        [result] = await self._commit([prepared])
        if isinstance(result, Exception):
            raise result
        return Accepted(result.job, result.replayed, prepared.warnings)

    async def submit_child(self, submission: Submission, *, family: Mapping[str, str], ahead_of: Instant) -> Submitted:
        """Accept a job that a task runs; `family` are further labels. Raises as `submit`.

        Its rank is `ahead_of`, if it is not lower by itself.
        """
        if self._draining:
            raise Draining
        prepared = _sound(await self._prepare(submission))
        summary = prepared.job.summary
        summary = msgspec.structs.replace(summary, labels={**summary.labels, **family})
        job = msgspec.structs.replace(prepared.job, summary=summary, rank=min(prepared.job.rank, ahead_of))
        [result] = await self._commit([msgspec.structs.replace(prepared, job=job)])
        if isinstance(result, Exception):
            raise result
        return result

    async def submit_batch(self, submissions: Sequence[Submission]) -> list[Accepted | Exception]:
        """Accept many jobs in one commit, each with a result or an error of its own, in order.

        Raises InvalidRequest: if there are too many.
        Raises Draining, LedgerUnavailable: if none can be taken now.
        """
        if self._draining:
            raise Draining
        if len(submissions) > self._with.settings.max_batch:
            message = f"at most {self._with.settings.max_batch} jobs in one batch (setting `engine.max_batch`)"
            raise InvalidRequest(Finding("TOO_MANY", "requests", message))
        prepared = await self._prepare_all(submissions)
        good = [entry for entry in prepared if isinstance(entry, Prepared)]
        committed = iter(await self._commit(good))
        return [entry if isinstance(entry, Exception) else _accepted(entry, next(committed)) for entry in prepared]

    async def _prepare_all(self, submissions: Sequence[Submission]) -> list[Prepared | RunnerError]:
        if sum(map(self._left_to_decode, submissions)) > DECODE_IN_THREAD:
            work = [self._preparation(submission) for submission in submissions]
            return await anyio.to_thread.run_sync(lambda: [prepared() for prepared in work], limiter=self._decoders)
        results: list[Prepared | RunnerError] = []
        for submission in submissions:
            if results:
                await checkpoint()
            results.append(await self._prepare(submission))
        return results

    async def _prepare(self, submission: Submission) -> Prepared | RunnerError:
        work = self._preparation(submission)
        if (size := self._left_to_decode(submission)) > DECODE_IN_THREAD or (size and is_slow(submission)):
            return await anyio.to_thread.run_sync(work, limiter=self._decoders)
        return work()

    def _left_to_decode(self, submission: Submission) -> int:
        """Bytes of its descriptor, if it is not remembered."""
        remembered = self.descriptors.remembers(submission.descriptor, submission.content_type)
        return 0 if remembered else len(submission.descriptor)

    def _preparation(self, submission: Submission) -> Callable[[], Prepared | RunnerError]:
        """What is left to do, on any thread."""
        job_id, now = self._with.new_id(), self._with.clock.now()
        descriptors, settings, queues = self.descriptors, self._with.settings, self._queues

        def prepared() -> Prepared | RunnerError:
            try:
                return prepare(
                    submission, job_id=job_id, now=now, descriptors=descriptors, settings=settings, queues=queues
                )
            except RunnerError as error:
                return repeated(submission, error, job_id=job_id, now=now, settings=settings) or error

        return prepared

    async def _commit(self, good: Sequence[Prepared]) -> list[Submitted | Exception]:
        if not good:
            return []
        jobs = [entry.job for entry in good]
        queues = {job.summary.queue for job in jobs}
        if any(entry.due is None for entry in good):
            # Before they are there: the claim shares their commit.
            self.dispatcher.wake()
        results = await self._with.ledger.submit(
            jobs, max_queued={queue: queue_limits(self._queues, queue).max_queued for queue in queues}
        )
        for entry, result in zip(good, results, strict=True):
            if isinstance(result, Submitted) and not result.replayed:
                self._with.observer.committed(result.job, entry.events, traceparent=entry.job.traceparent)
                self.dispatcher.accepted(result.job, due=entry.due)
        self._with.journal.wake()
        return results

    # --------------------------------------------------------------------------------------------------- steer

    async def signal(self, job_id: JobId, signal: Signal) -> JobSummary:
        """Answer a task that waits for approval; it is durable when this returns.

        Raises JobNotFound, JobHasEnded, JobUnreadable, InvalidRequest.
        Raises AlreadyAnswered: if somebody was faster.
        """
        plan = plan_of(job_id, (await self._with.ledger.body(job_id)).plan)
        run = (await self.job_run(job_id))[1] if plan.has_variables else None
        if problems := signal_problems(signal, plan, run):
            raise InvalidRequest(*problems)
        job = await self._with.ledger.signal(job_id, signal)
        self.dispatcher.signal(job_id, signal)
        return job

    async def retry(self, retry: Retry) -> Submitted:
        """Run a job that has ended once more, as a new job. It is durable when this returns.

        Raises JobNotFound, JobNotEnded, JobUnreadable, NothingToRetry, InvalidRequest.
        Raises RequestIdReused: if the request id came before for something else.
        Raises QueueFull, Draining, LedgerUnavailable: if it cannot be taken now.
        """
        if self._draining:
            raise Draining
        if problem := request_id_problem(retry.request_id):
            raise InvalidRequest(problem)
        body = await self._with.ledger.body(retry.job_id)
        if retry.whole:
            # Its events, which may be what cannot be read, say nothing to that.
            earlier, run = await self.job(retry.job_id), JobRun(plan_of(retry.job_id, body.plan))
        else:
            earlier, run = await self.job_run(retry.job_id)
        prepared = prepare_retry(
            retry,
            earlier,
            body,
            run,
            job_id=self._with.new_id(),
            now=self._with.clock.now(),
            settings=self._with.settings,
        )
        [result] = await self._commit([prepared])
        if isinstance(result, Exception):
            raise result
        return result

    async def cancel(self, job_id: JobId, reason: str) -> JobSummary:
        """Ask for a cancellation; it is durable when this returns, and fulfilled soon after.

        Harmless to repeat; a job that has ended stays as it is.

        Raises JobNotFound, InvalidRequest, LedgerUnavailable.
        """
        if len(reason) > MAX_REASON:
            raise InvalidRequest(Finding("TOO_LONG", "reason", f"at most {MAX_REASON} characters"))
        job = await self._with.ledger.request_cancel(job_id, reason)
        if not job.state.terminal:
            self.dispatcher.cancel(job_id, reason)
        return job

    async def pause(self, job_id: JobId) -> JobSummary:
        """Ask for a pause; it is durable when this returns, and fulfilled soon after. Harmless to repeat.

        Raises JobNotFound, JobHasEnded, LedgerUnavailable.
        """
        return await self._steer(job_id, self._with.ledger.request_pause, JobPaused())

    async def resume(self, job_id: JobId) -> JobSummary:
        """Let a paused job go on. As `pause`."""
        job = await self._steer(job_id, self._with.ledger.request_resume, JobResumed(held=False))
        if job.state is JobState.QUEUED:
            held = job.not_before is not None and job.not_before > self._with.clock.now()
            self.dispatcher.expect(job.queue, due=job.not_before if held else None)
        return job

    async def _steer(self, job_id: JobId, verb: Callable[..., Awaitable[Steered]], event: JobEvent) -> JobSummary:
        now = self._with.clock.now()
        # A caller who gives up must not keep from watchers what is committed.
        with anyio.CancelScope(shield=True):
            steered = await verb(job_id, framed=lambda number: frames.encode([Recorded(number, now, event)]))
            if steered.frame is None:
                self.dispatcher.pause(job_id, requested=steered.job.pause_requested)
            else:
                self._with.broadcast.publish(job_id, steered.frame)
                self._with.observer.committed(steered.job, frames.decode([steered.frame]), traceparent="")
                self._with.journal.wake()
        return steered.job

    # --------------------------------------------------------------------------------------------------- watch

    def watch(
        self, job_id: JobId, *, after: int = 0, heartbeat: float
    ) -> AsyncGenerator[Frame | CaughtUp | Idle, None]:
        """See `Broadcast.follow`."""
        return self._with.broadcast.follow(job_id, after=after, heartbeat=heartbeat)

    def watch_jobs(
        self, filter_: Filter | None, *, after: int | None, heartbeat: float
    ) -> AsyncGenerator[ChangesPage, None]:
        """See `Journal.follow`."""
        return self._with.journal.follow(filter_, after=after, heartbeat=heartbeat)

    # ---------------------------------------------------------------------------------------------------- read

    async def job(self, job_id: JobId) -> JobSummary:
        """Raises JobNotFound."""
        return await self._with.ledger.job(job_id)

    async def job_run(self, job_id: JobId) -> tuple[JobSummary, JobRun]:
        """A job with the state of all its tasks, as of one moment.

        Raises JobNotFound, JobUnreadable.
        """
        body = await self._with.ledger.body(job_id)
        plan, inputs = plan_of(job_id, body.plan), inputs_of(job_id, body.inputs)
        summary = await self._with.ledger.job(job_id)
        run = JobRun(plan, deadline=summary.deadline, job_id=job_id, inputs=inputs)
        while (before := run.sequence) < summary.last_sequence:
            page = await self._with.ledger.frames(job_id, after=before, max_bytes=4 * 1024 * 1024)
            with reading(job_id):
                for frame in page:
                    run.replay(entry for entry in frames.decode([frame]) if entry.sequence <= summary.last_sequence)
                if run.sequence == before:
                    raise ValueError(f"event {before + 1} is missing")
        return summary, run

    async def job_shown(self, job_id: JobId) -> tuple[JobSummary, JobRun | None]:
        """The same, for who can do without the tasks: None where they cannot be read, and the job's error says why.

        Raises JobNotFound.
        """
        try:
            return await self.job_run(job_id)
        except JobUnreadable as error:
            job = await self._with.ledger.job(job_id)
            why = Failure(REPLAY_FAILED, error.why) if job.error is None else job.error
            return msgspec.structs.replace(job, error=why), None

    async def jobs(self, query: JobQuery) -> list[JobSummary]:
        """A page of jobs."""
        return await self._with.ledger.jobs(query)

    async def record(self, job_id: JobId) -> bytes:
        """The `.last`. Raises JobNotFound, RecordNotFound."""
        return await self._with.ledger.record(job_id)

    async def artifact(self, job_id: JobId, artifact_id: str) -> Artifact:
        """Raises JobNotFound, ArtifactNotFound."""
        return await self._with.ledger.artifact(job_id, artifact_id)

    async def artifact_bytes(self, job_id: JobId, artifact_id: str, *, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; none past the end."""
        return await self._with.ledger.artifact_bytes(job_id, artifact_id, offset=offset, size=size)


def _sound(prepared: Prepared | RunnerError) -> Prepared:
    if isinstance(prepared, RunnerError):
        raise prepared
    return prepared


def _accepted(prepared: Prepared, result: Submitted | Exception) -> Accepted | Exception:
    return result if isinstance(result, Exception) else Accepted(result.job, result.replayed, prepared.warnings)
