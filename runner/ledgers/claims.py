"""Claims, leases and cancellation: who may run a job, and until when.

A claim writes owner, expiry and a token that only grows; every later write of the job must name that token, so whoever
lost the lease is refused. A rescued or released job is QUEUED again and keeps its token until the next claim.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from runner.core.errors import JobNotFound
from runner.core.events import JobState
from runner.core.job import Claim, Frame, JobSummary
from runner.core.plan import JobId
from runner.ledgers import budgets, signals, tallies
from runner.ledgers.bulk import Bulk
from runner.ledgers.driver import Connection
from runner.ledgers.rows import FRAME, LEASE_ENDED, QUEUED_AGAIN, SUMMARY, WIDTH, among, portions, summary
from runner.ledgers.schema import (
    CANCELLING,
    CLAIMABLE,
    HELD,
    LEASED,
    MORTAL,
    bodies,
    descriptors,
    frames,
    jobs,
    number,
    runners,
)
from runner.ledgers.writes import Claiming, Renewal, Rescue, Wish

_UP_TO: Final = sa.bindparam("up_to", type_=sa.Integer)
_NOW: Final = sa.bindparam("now", type_=sa.BigInteger)

_DUE: Final = sa.select(jobs.c.id).where(HELD, jobs.c.held_until <= _NOW).order_by(jobs.c.held_until).limit(_UP_TO)
_UNHOLD: Final = sa.update(jobs).where(jobs.c.id.in_(_DUE)).values(held_until=None)
_CANCELLING: Final = sa.select(jobs.c.id, jobs.c.queue).where(CANCELLING).order_by(jobs.c.rank, jobs.c.id).limit(_UP_TO)
_OVERDUE: Final = (
    sa.select(jobs.c.id, jobs.c.queue)
    .where(MORTAL, jobs.c.deadline <= _NOW)
    .order_by(jobs.c.deadline, jobs.c.id)
    .limit(_UP_TO)
)
_FIRST_OF_QUEUE: Final = (
    sa.select(jobs.c.rank, jobs.c.id)
    .where(CLAIMABLE, jobs.c.queue == sa.bindparam("queue"))
    .order_by(jobs.c.rank, jobs.c.id)
    .limit(_UP_TO)
)
_CHOSEN: Final = (
    sa.select(*SUMMARY, jobs.c.lease_token, descriptors.c.plan, bodies.c.inputs, bodies.c.traceparent)
    .join_from(jobs, bodies, isouter=True)
    .join(descriptors, isouter=True)
    .where(among(jobs.c.id))
)
_FRAMES: Final = (
    sa.select(frames.c.job_id, *FRAME).where(among(frames.c.job_id)).order_by(frames.c.job_id, frames.c.first)
)
_SIZES: Final = (
    sa.select(frames.c.job_id, sa.func.sum(sa.func.length(frames.c.data)))
    .where(among(frames.c.job_id))
    .group_by(frames.c.job_id)
)
_TAKE: Final = Bulk(
    sa.update(jobs)
    .where(jobs.c.id == sa.bindparam("job"))
    .values(
        state=number(JobState.RUNNING),
        held_until=sa.null(),
        lease_owner=sa.bindparam("owner"),
        lease_token=sa.bindparam("token"),
        lease_expires_at=sa.bindparam("until"),
    )
)
_LEASES: Final = sa.select(jobs.c.id, jobs.c.lease_token).where(
    LEASED, jobs.c.lease_owner == sa.bindparam("owner"), among(jobs.c.id)
)
_EXTEND: Final = Bulk(
    sa.update(jobs).where(jobs.c.id == sa.bindparam("job")).values(lease_expires_at=sa.bindparam("until"))
)
_ALIVE: Final = (
    sa.update(runners).where(runners.c.id == sa.bindparam("runner")).values(alive_until=sa.bindparam("until"))
)
_EXPIRED: Final = (
    sa.select(jobs.c.queue, jobs.c.state, jobs.c.pause_requested, jobs.c.id)
    .where(LEASED, jobs.c.lease_expires_at <= _NOW)
    .order_by(jobs.c.lease_expires_at)
    .limit(_UP_TO)
)
_GIVE_BACK: Final = Bulk(sa.update(jobs).where(jobs.c.id == sa.bindparam("job")).values(**QUEUED_AGAIN))
_STAY_PAUSED: Final = Bulk(sa.update(jobs).where(jobs.c.id == sa.bindparam("job")).values(**LEASE_ENDED))
_OF_OTHERS: Final = sa.and_(LEASED, jobs.c.lease_owner != sa.bindparam("owner"))
_ORPHANS: Final = (
    sa.select(jobs.c.queue, jobs.c.state, jobs.c.pause_requested, sa.func.count())
    .where(_OF_OTHERS)
    .group_by(jobs.c.queue, jobs.c.state, jobs.c.pause_requested)
)
_ADOPT_PAUSED: Final = (
    sa.update(jobs)
    .where(_OF_OTHERS, jobs.c.state == number(JobState.PAUSED), jobs.c.pause_requested)
    .values(**LEASE_ENDED)
)
_ADOPT: Final = sa.update(jobs).where(_OF_OTHERS).values(**QUEUED_AGAIN)
_ONE: Final = sa.select(*SUMMARY).where(jobs.c.id == sa.bindparam("job"))
_WISH: Final = sa.update(jobs).where(jobs.c.id == sa.bindparam("job")).values(cancel_reason=sa.bindparam("reason"))


def claim(connection: Connection, writes: Sequence[Claiming]) -> list[list[Claim] | Exception]:
    """One after the other: each takes from what the one before left."""
    return [_claim(connection, write) for write in writes]


def _claim(connection: Connection, write: Claiming) -> list[Claim]:
    connection.execute(_UNHOLD, {"now": write.now, "up_to": max(10 * write.limit, 1000)})
    urgent = _urgent(connection, write)
    chosen = [*urgent, *_in_turn(connection, write, urgent)]
    if not chosen:
        return []
    found = _load(connection, _affordable(connection, chosen, write.max_bytes))
    claims = [each for each, _ in found]
    _TAKE.run(
        connection,
        [
            {"job": each.summary.id, "owner": write.runner_id, "token": each.token, "until": write.lease_until}
            for each in claims
        ],
    )
    tally = tallies.Tally()
    for each, left in found:
        tally.entered(each.summary.queue, JobState.RUNNING, left=left)
    tally.write(connection)
    return claims


def _urgent(connection: Connection, write: Claiming) -> dict[JobId, str]:
    """Jobs that only need to be ended, with their queues."""
    found: dict[JobId, str] = {}
    for statement in (_CANCELLING, _OVERDUE):
        for job_id, queue in connection.execute(statement, {"now": write.now, "up_to": write.limit}):
            if len(found) < write.limit:
                found[job_id] = queue
    return found


def _in_turn(connection: Connection, write: Claiming, urgent: Mapping[JobId, str]) -> list[JobId]:
    """The first of each queue that has room, merged by rank."""
    room = write.limit - len(urgent)
    if room <= 0:
        return []
    waiting = tallies.queued(connection)
    busy = Counter(tallies.running(connection) if write.queue_limits else {})
    busy.update(urgent.values())
    candidates: list[tuple[int, JobId]] = []
    for queue in waiting:
        limit = write.queue_limits.get(queue)
        free = room if limit is None else min(room, limit - busy[queue])
        if free > 0:
            # Urgent ones may stand at the head; they are passed over, not counted.
            rows = connection.execute(_FIRST_OF_QUEUE, {"queue": queue, "up_to": free + len(urgent)}).all()
            candidates += [(rank, job_id) for rank, job_id in rows if job_id not in urgent][:free]
    return [job_id for _, job_id in sorted(candidates)[:room]]


def _affordable(connection: Connection, chosen: Sequence[JobId], max_bytes: int) -> Sequence[JobId]:
    """The first of them, up to the one that brings their frames to `max_bytes`: nobody commits while they are read."""
    sizes: dict[JobId, int] = {}
    for portion in portions(chosen):
        sizes.update((job_id, size) for job_id, size in connection.execute(_SIZES, {"among": portion}))
    total = 0
    for place, job_id in enumerate(chosen, start=1):
        # One whose frames are gone is no reason to claim nothing: whoever takes it will say so.
        total += sizes.get(job_id, 0)
        if total >= max_bytes:
            return chosen[:place]
    return chosen


def _load(connection: Connection, chosen: Sequence[JobId]) -> list[tuple[Claim, JobState]]:
    """The claims, and the state that each job leaves by them."""
    loaded: dict[JobId, tuple[Claim, JobState]] = {}
    history = _histories(connection, chosen)
    answers = signals.of_jobs(connection, chosen)
    for portion in portions(chosen):
        for row in connection.execute(_CHOSEN, {"among": portion}).all():
            token, plan, inputs, traceparent = row[WIDTH:]
            job = summary((*row[:3], JobState.RUNNING.value, *row[4:]))
            claim = Claim(
                summary=job,
                token=token + 1,
                plan=plan or b"",
                inputs=inputs or b"",
                traceparent=traceparent or "",
                frames=tuple(history[job.id]),
                cancel_reason=row[16],
                signals=tuple(answers[job.id]),
            )
            loaded[job.id] = claim, JobState(row[3])
    return [loaded[job_id] for job_id in chosen]


def _histories(connection: Connection, chosen: Iterable[JobId]) -> dict[JobId, list[Frame]]:
    history: dict[JobId, list[Frame]] = defaultdict(list)
    for portion in portions(chosen):
        for job_id, first, last, terminal, data in connection.execute(_FRAMES, {"among": portion}).all():
            history[job_id].append(Frame(first, last, terminal, data))
    return history


def renew(connection: Connection, writes: Sequence[Renewal]) -> list[set[JobId] | Exception]:
    """Extend what is still the runner's."""
    return [_renew(connection, write) for write in writes]


def _renew(connection: Connection, write: Renewal) -> set[JobId]:
    held: set[JobId] = set()
    for portion in portions(write.tokens):
        rows = connection.execute(_LEASES, {"owner": write.runner_id, "among": portion})
        held.update(job_id for job_id, token in rows if token == write.tokens[job_id])
    if held:
        _EXTEND.run(connection, [{"job": job_id, "until": write.until} for job_id in sorted(held)])
    connection.execute(_ALIVE, {"runner": write.runner_id, "until": write.until})
    return held


def rescue(connection: Connection, writes: Sequence[Rescue]) -> list[int | Exception]:
    """Take jobs away from runners that did not renew in time."""
    return [_rescue(connection, write) for write in writes]


def _rescue(connection: Connection, write: Rescue) -> int:
    expired = connection.execute(_EXPIRED, {"now": write.now, "up_to": write.limit}).all()
    tally = tallies.Tally()
    chosen: dict[JobState, list[dict[str, Any]]] = {JobState.QUEUED: [], JobState.PAUSED: []}
    for queue, state, pause_requested, job_id in expired:
        after = without_holder(JobState(state), pause_requested=bool(pause_requested))
        chosen[after].append({"job": job_id})
        tally.entered(queue, after, left=JobState(state))
    _GIVE_BACK.run(connection, chosen[JobState.QUEUED])
    _STAY_PAUSED.run(connection, chosen[JobState.PAUSED])
    tally.write(connection)
    return len(expired)


def without_holder(state: JobState, *, pause_requested: bool) -> JobState:
    """Where a job stands once nobody holds it any more.

    One that was RUNNING and is to be paused is QUEUED: whoever takes it next says so in its events, and starts nothing.
    """
    return JobState.PAUSED if state is JobState.PAUSED and pause_requested else JobState.QUEUED


def adopt(connection: Connection, runner_id: str) -> int:
    """Take the jobs of all other runners from them: where the ledger is held alone, those are dead."""
    tally, orphans = tallies.Tally(), 0
    for queue, state, pause_requested, n in connection.execute(_ORPHANS, {"owner": runner_id}):
        after = without_holder(JobState(state), pause_requested=bool(pause_requested))
        tally.entered(queue, after, left=JobState(state), jobs=n)
        orphans += n
    if orphans:
        connection.execute(_ADOPT_PAUSED, {"owner": runner_id})
        connection.execute(_ADOPT, {"owner": runner_id})
        tally.write(connection)
    budgets.clear(connection)
    return orphans


def wish(connection: Connection, writes: Sequence[Wish]) -> list[JobSummary | Exception]:
    """Note that cancellations are asked for; the first reason stays."""
    return [_wish(connection, write) for write in writes]


def _wish(connection: Connection, write: Wish) -> JobSummary | Exception:
    row: Sequence[Any] | None = connection.execute(_ONE, {"job": write.job_id}).first()
    if row is None:
        return JobNotFound(write.job_id)
    job = summary(row)
    if job.state.terminal or job.cancel_requested:
        return job
    connection.execute(_WISH, {"job": write.job_id, "reason": write.reason})
    return summary((*row[:16], write.reason, *row[17:]))
