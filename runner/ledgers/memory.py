"""The ledger's contract in memory: for tests of all that stands on a ledger, on any clock.

Nothing survives the process. It uses no threads, so it works under trio's automatic clock. A test can make it fail,
and can let an engine die on it: `freeze`, drop the engine, `thaw`, and start another one on the same ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
from anyio.lowlevel import checkpoint

from runner.core.answers import AnswerCachePolicy, KeptAnswer
from runner.core.budgets import Fit, fit
from runner.core.errors import (
    AlreadyAnswered,
    ArtifactNotFound,
    JobHasEnded,
    JobNotFound,
    LeaseLost,
    LedgerUnavailable,
    RecordNotFound,
)
from runner.core.events import Artifact, JobState
from runner.core.filters import JobQuery, matches
from runner.core.job import (
    Append,
    Body,
    Change,
    Claim,
    Frame,
    JobSummary,
    NewJob,
    OutboxEntry,
    ReplayFailure,
    Reservation,
    Shortfall,
    Signal,
    Steered,
    StoredArtifact,
    Submitted,
)
from runner.core.plan import Instant, JobId, TaskId
from runner.ledgers.admission import Admission
from runner.ledgers.answers import AnswersInMemory


class _Job:
    """A job and all that belongs to it."""

    def __init__(self, new: NewJob) -> None:
        self.new = new
        self.summary = new.summary
        self.frames = list(new.frames)
        self.token = 0
        self.owner: str | None = None
        self.lease_until: Instant = 0
        #: When it may be claimed, where that is not `not_before`.
        self.held_until: Instant | None = None
        self.replay_failures = 0
        self.cancel_reason: str | None = None
        self.record: bytes | None = None
        self.artifacts: dict[str, StoredArtifact] = {}
        self.signals: dict[str, Signal] = {}
        #: Tokens by task, of one claim: by budget and period.
        self.reserved: dict[TaskId, Counter[tuple[str, str]]] = {}

    def change(self, **fields: object) -> None:
        self.summary = msgspec.structs.replace(self.summary, **fields)

    def give_back(self) -> None:
        self.owner = None
        stays = self.summary.state is JobState.PAUSED and self.summary.pause_requested
        self.change(state=JobState.PAUSED if stays else JobState.QUEUED)

    def forgive(self) -> None:
        if not self.summary.state.terminal and self.replay_failures:
            self.replay_failures, self.held_until = 0, None
            self.change(error=None)

    @property
    def aside(self) -> bool:
        """Whether it is claimed only to be ended."""
        return self.summary.error is not None and not self.summary.state.terminal

    @property
    def due(self) -> Instant | None:
        return self.summary.not_before if self.held_until is None else self.held_until

    @property
    def place(self) -> tuple[Instant, JobId]:
        return self.new.rank, self.summary.id


class _Waiting(msgspec.Struct):
    """An entry of the outbox, and when it is due."""

    entry: OutboxEntry
    due_at: Instant


class MemoryLedger:
    """A Ledger that forgets. Its verbs are atomic because they do not wait, save before they begin."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, _Job] = {}
        self._requests: dict[str, _Job] = {}
        self._changes: list[tuple[_Job, JobState, int]] = []
        self._outbox: dict[int, _Waiting] = {}
        #: Tokens by budget and period.
        self._spent: Counter[tuple[str, str]] = Counter()
        self._entries = 0
        self._answers = AnswersInMemory()
        self._failures: list[Exception] = []
        self._frozen = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Running jobs become claimable: whoever ran them is gone. So do those that were set aside."""
        await checkpoint()
        for job in self._jobs.values():
            if job.owner is not None:
                job.give_back()
            job.forgive()
        yield

    # ---------------------------------------------------------------------------------------------- for tests

    def fail_with(self, error: Exception, times: int = 1) -> None:
        """Let the next calls, of any verb, raise `error` and change nothing."""
        self._failures += [error] * times

    def freeze(self) -> None:
        """Refuse every call with LedgerUnavailable, as if the engine on it had died: nothing more comes in."""
        self._frozen = True

    def thaw(self) -> None:
        """Work again."""
        self._frozen = False

    def damage(self, job_id: JobId, *, plan: bytes | None = None, newest: bytes | None = None) -> None:
        """Put other bytes in the place of a job's plan, or of its newest frame."""
        job = self._get(job_id)
        if plan is not None:
            job.new = msgspec.structs.replace(job.new, plan=plan)
        if newest is not None:
            job.frames[-1] = msgspec.structs.replace(job.frames[-1], data=newest)

    async def _begin(self) -> None:
        await checkpoint()
        if self._frozen:
            raise LedgerUnavailable("the ledger is frozen; thaw it")
        if self._failures:
            raise self._failures.pop(0)

    def _get(self, job_id: JobId) -> _Job:
        if job_id not in self._jobs:
            raise JobNotFound(job_id)
        return self._jobs[job_id]

    def _in(self, state: JobState) -> list[_Job]:
        return [job for job in self._jobs.values() if job.summary.state is state]

    # ------------------------------------------------------------------------------------------------- writing

    async def submit(self, jobs: Sequence[NewJob], *, max_queued: Mapping[str, int]) -> list[Submitted | Exception]:
        await self._begin()
        repeated = [job for new in jobs if (job := self._requests.get(new.summary.request_id)) is not None]
        admission = Admission(
            {job.summary.request_id: (job.summary, job.new.request_sha256) for job in repeated},
            Counter(job.summary.queue for job in self._in(JobState.QUEUED)) if max_queued else {},
        )
        answers = [admission.decide(new, max_queued) for new in jobs]
        for new in admission.accepted:
            job = self._jobs[new.summary.id] = _Job(new)
            if new.summary.request_id:
                self._requests[new.summary.request_id] = job
            if new.inherits is not None:
                earlier = self._get(new.inherits.job_id).artifacts
                job.artifacts.update({name: earlier[name] for name in new.inherits.artifact_ids})
            self._changes.append((job, JobState.QUEUED, new.frames[0].last))
        return answers

    async def claim(
        self,
        runner_id: str,
        *,
        now: Instant,
        lease_until: Instant,
        limit: int,
        max_bytes: int,
        queue_limits: Mapping[str, int],
    ) -> list[Claim]:
        await self._begin()
        busy = Counter(job.summary.queue for job in self._in(JobState.RUNNING))
        claims: list[Claim] = []
        for job in self._choose(now, limit, queue_limits, busy):
            claims.append(self._take(job, runner_id, lease_until))
            if sum(claim.size for claim in claims) >= max_bytes:
                break
        return claims

    def _choose(self, now: Instant, limit: int, queue_limits: Mapping[str, int], busy: Counter[str]) -> Iterable[_Job]:
        queued = self._in(JobState.QUEUED)
        free = [job for job in (*queued, *self._in(JobState.PAUSED)) if job.owner is None]
        cancelling = sorted((job for job in free if job.cancel_reason is not None), key=lambda job: job.place)
        overdue = sorted(
            (job for job in free if job.cancel_reason is None and _is_past(job.summary.deadline, now)),
            key=lambda job: (job.summary.deadline, job.summary.id),
        )
        chosen = [*cancelling, *overdue][:limit]
        busy.update(job.summary.queue for job in chosen)
        urgent = {job.summary.id for job in chosen}
        for job in sorted(queued, key=lambda job: job.place):
            bound = queue_limits.get(job.summary.queue)
            held = job.aside or (job.due is not None and job.due > now)
            full = bound is not None and busy[job.summary.queue] >= bound
            if len(chosen) < limit and not held and not full and job.summary.id not in urgent:
                busy[job.summary.queue] += 1
                chosen.append(job)
        return chosen

    def _take(self, job: _Job, runner_id: str, lease_until: Instant) -> Claim:
        job.token += 1
        job.reserved.clear()
        job.owner, job.lease_until, job.held_until = runner_id, lease_until, None
        job.change(state=JobState.RUNNING)
        return Claim(
            summary=job.summary,
            token=job.token,
            plan=job.new.plan,
            inputs=job.new.inputs,
            traceparent=job.new.traceparent,
            frames=tuple(job.frames),
            cancel_reason=job.cancel_reason,
            signals=tuple(job.signals[task] for task in sorted(job.signals)),
        )

    async def append(self, change: Append) -> None:
        await self._begin()
        job = self._jobs.get(change.job_id)
        if job is None or job.token != change.token:
            raise LeaseLost(change.job_id)
        if job.owner is not None and change.frame.first == job.summary.last_sequence + 1:
            self._append(job, change)
        elif not any(frame.first == change.frame.first and frame.data == change.frame.data for frame in job.frames):
            raise LeaseLost(change.job_id)

    async def set_back(self, failure: ReplayFailure) -> bool:
        await self._begin()
        job = self._jobs.get(failure.job_id)
        if job is None or job.token != failure.token or job.owner is None:
            raise LeaseLost(failure.job_id)
        job.owner = None
        job.replay_failures += 1
        aside = job.replay_failures >= failure.max_failures
        job.held_until = None if aside else failure.retry_at
        job.change(state=JobState.QUEUED, error=failure.error if aside else None)
        return aside

    def _append(self, job: _Job, change: Append) -> None:
        frame, ending = change.frame, change.ending
        job.frames.append(frame)
        job.artifacts.update({stored.artifact.id: stored for stored in change.artifacts})
        for task_id in change.settled:
            job.reserved.pop(task_id, None)
        for spending in change.spent:
            self._spent[spending.budget, spending.period] += spending.tokens
        started_at = change.started_at if job.summary.started_at is None else job.summary.started_at
        job.change(progress=change.progress, last_sequence=frame.last, started_at=started_at)
        if ending is not None:
            job.owner, job.record = None, ending.record
            job.change(state=ending.state, error=ending.error, ended_at=ending.ended_at)
            for sink in ending.sinks:
                self._post(sink, change.job_id, ending.execution_id, ending.ended_at, ending.record)
        elif change.release:
            job.give_back()
        elif change.entered is not None:
            job.change(state=change.entered)
        if change.entered is not None:
            sequence = frame.first if change.entered is JobState.RUNNING else frame.last
            self._changes.append((job, change.entered, sequence))

    def _post(self, sink: str, job_id: JobId, execution_id: str, ended_at: Instant, record: bytes) -> None:
        self._entries += 1
        entry = OutboxEntry(
            id=self._entries,
            sink=sink,
            job_id=job_id,
            execution_id=execution_id,
            ended_at=ended_at,
            record=record,
            attempts=0,
        )
        self._outbox[entry.id] = _Waiting(entry, ended_at)

    async def reserve_tokens(self, reservation: Reservation) -> Shortfall | None:
        await self._begin()
        job = self._jobs.get(reservation.job_id)
        if job is None or job.owner is None or job.token != reservation.token:
            raise LeaseLost(reservation.job_id)
        for share in reservation.shares:
            place = (share.budget, share.period)
            held = [other for other in self._jobs.values() if other.owner is not None]
            reserved = sum(tokens[place] for other in held for tokens in other.reserved.values())
            used = self._spent[place]
            if fit(limit=share.limit, used=used, reserved=reserved, tokens=reservation.tokens) is not Fit.NOW:
                return Shortfall(share, used, reserved)
        taken = job.reserved.setdefault(reservation.task_id, Counter())
        taken.update({(share.budget, share.period): reservation.tokens for share in reservation.shares})
        return None

    async def renew(self, runner_id: str, *, tokens: Mapping[JobId, int], until: Instant) -> set[JobId]:
        await self._begin()
        held = set()
        for job_id, token in tokens.items():
            job = self._jobs.get(job_id)
            if job is not None and job.owner == runner_id and job.token == token:
                job.lease_until = until
                held.add(job_id)
        return held

    async def rescue(self, *, now: Instant, limit: int) -> int:
        await self._begin()
        expired = [job for job in self._jobs.values() if job.owner is not None and job.lease_until <= now]
        expired.sort(key=lambda job: job.lease_until)
        for job in expired[:limit]:
            job.give_back()
        return len(expired[:limit])

    async def request_cancel(self, job_id: JobId, reason: str) -> JobSummary:
        await self._begin()
        job = self._get(job_id)
        if not job.summary.state.terminal and job.cancel_reason is None:
            job.cancel_reason = reason
            job.change(cancel_requested=True)
        return job.summary

    async def signal(self, job_id: JobId, signal: Signal) -> JobSummary:
        await self._begin()
        job = self._get(job_id)
        if job.summary.state.terminal:
            raise JobHasEnded(job_id)
        if signal.task_id in job.signals:
            raise AlreadyAnswered(job_id, signal.task_id)
        job.signals[signal.task_id] = signal
        return job.summary

    async def request_pause(self, job_id: JobId, *, framed: Callable[[int], Frame]) -> Steered:
        return await self._steer(job_id, JobState.PAUSED, framed)

    async def request_resume(self, job_id: JobId, *, framed: Callable[[int], Frame]) -> Steered:
        return await self._steer(job_id, JobState.QUEUED, framed)

    async def _steer(self, job_id: JobId, goal: JobState, framed: Callable[[int], Frame]) -> Steered:
        await self._begin()
        job = self._get(job_id)
        if job.summary.state.terminal:
            raise JobHasEnded(job_id)
        job.change(pause_requested=goal is JobState.PAUSED)
        if job.owner is not None or job.summary.state is goal:
            return Steered(job.summary)
        frame = framed(job.summary.last_sequence + 1)
        job.frames.append(frame)
        job.held_until = None
        job.change(state=goal, last_sequence=frame.last)
        self._changes.append((job, goal, frame.last))
        return Steered(job.summary, frame)

    async def delivered(self, entries: Collection[int]) -> None:
        await self._begin()
        for entry in entries:
            self._outbox.pop(entry, None)

    async def put_off(self, entries: Collection[int], *, until: Instant) -> None:
        await self._begin()
        for waiting in [self._outbox[entry] for entry in entries if entry in self._outbox]:
            waiting.entry = msgspec.structs.replace(waiting.entry, attempts=waiting.entry.attempts + 1)
            waiting.due_at = until

    async def check(self) -> None:
        await self._begin()

    # ------------------------------------------------------------------------------------------------- reading

    async def job(self, job_id: JobId) -> JobSummary:
        await self._begin()
        return self._get(job_id).summary

    async def jobs(self, query: JobQuery) -> list[JobSummary]:
        await self._begin()
        found = [
            job.summary for job in self._jobs.values() if query.filter is None or matches(query.filter, job.summary)
        ]
        place: Callable[[JobSummary], tuple[Instant, JobId]] = lambda job: (job.created_at, job.id)  # noqa: E731  typed
        found.sort(key=place, reverse=not query.ascending)
        after = query.after
        if after is not None:
            found = [job for job in found if (place(job) > after if query.ascending else place(job) < after)]
        return found[: query.limit]

    async def body(self, job_id: JobId) -> Body:
        await self._begin()
        new = self._get(job_id).new
        return Body(new.descriptor, new.content_type, new.plan, new.inputs)

    async def frames(self, job_id: JobId, *, after: int, max_bytes: int) -> list[Frame]:
        await self._begin()
        found: list[Frame] = []
        size = 0
        for frame in self._get(job_id).frames:
            if frame.last > after:
                size += len(frame.data)
                if found and size > max_bytes:
                    break
                found.append(frame)
        return found

    async def changes(self, *, after: int, limit: int) -> list[Change]:
        await self._begin()
        entries = enumerate(self._changes[after : after + limit], start=after + 1)
        return [Change(cursor, job.summary, state, sequence) for cursor, (job, state, sequence) in entries]

    async def newest_cursor(self) -> int:
        await self._begin()
        return len(self._changes)

    async def record(self, job_id: JobId) -> bytes:
        await self._begin()
        record = self._get(job_id).record
        if record is None:
            raise RecordNotFound(job_id)
        return record

    async def artifact(self, job_id: JobId, artifact_id: str) -> Artifact:
        await self._begin()
        return self._stored(job_id, artifact_id).artifact

    async def artifact_bytes(self, job_id: JobId, artifact_id: str, *, offset: int, size: int) -> bytes:
        await self._begin()
        return self._stored(job_id, artifact_id).content[offset : offset + size]

    def _stored(self, job_id: JobId, artifact_id: str) -> StoredArtifact:
        job = self._jobs.get(job_id)
        if job is None or artifact_id not in job.artifacts:
            raise ArtifactNotFound(job_id, artifact_id)
        return job.artifacts[artifact_id]

    async def spent_tokens(self, budget: str, period: str) -> int:
        await self._begin()
        return self._spent[budget, period]

    async def depths(self) -> dict[tuple[str, int], int]:
        await self._begin()
        return dict(Counter((job.summary.queue, job.summary.state.value) for job in self._jobs.values()))

    async def set_aside(self) -> int:
        await self._begin()
        return sum(job.aside for job in self._jobs.values())

    async def oldest_queued(self) -> dict[str, Instant]:
        await self._begin()
        oldest: dict[str, Instant] = {}
        for job in self._in(JobState.QUEUED):
            created_at = job.summary.created_at
            oldest[job.summary.queue] = min(created_at, oldest.get(job.summary.queue, created_at))
        return oldest

    async def due(self, sink: str, *, now: Instant, limit: int, max_bytes: int) -> list[OutboxEntry]:
        await self._begin()
        waiting = [entry for entry in self._outbox.values() if entry.entry.sink == sink and entry.due_at <= now]
        waiting.sort(key=lambda waiting: (waiting.due_at, waiting.entry.id))
        found: list[OutboxEntry] = []
        for each in waiting[:limit]:
            found.append(each.entry)
            if sum(len(entry.record) for entry in found) >= max_bytes:
                break
        return found

    async def keep_answer(self, key: bytes, answer: KeptAnswer, *, policy: AnswerCachePolicy) -> None:
        await self._begin()
        self._answers.keep(key, answer, policy)

    async def answer(self, key: bytes, *, since: Instant) -> KeptAnswer | None:
        await self._begin()
        return self._answers.answer(key, since)

    async def next_due(self, *, now: Instant) -> Instant | None:
        await self._begin()
        free = [job for state in (JobState.QUEUED, JobState.PAUSED) for job in self._in(state) if job.owner is None]
        starts = [job.due for job in free if job.summary.state is JobState.QUEUED]
        times = [*starts, *(job.summary.deadline for job in free)]
        return min((time for time in times if time is not None and time > now), default=None)


def _is_past(time: Instant | None, now: Instant) -> bool:
    return time is not None and time <= now
