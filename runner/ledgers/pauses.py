"""Pausing jobs and letting them go on: wishes to whoever holds a job, and what the ledger does where nobody does.

A held job's events are its holder's alone to write, so the wish is noted and the holder told. Nobody but the ledger can
write those of a job that waits, and a claim only for that would show the job as RUNNING: so the event is appended here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from runner.core.errors import JobHasEnded, JobNotFound
from runner.core.events import JobState
from runner.core.job import JobSummary, Steered
from runner.ledgers.driver import Connection
from runner.ledgers.rows import INSERT_FRAMES, QUEUED_AGAIN, SUMMARY, WIDTH, frame_row, summary
from runner.ledgers.schema import jobs, number
from runner.ledgers.tallies import Tally
from runner.ledgers.writes import Pausing

_ONE: Final = sa.select(*SUMMARY, jobs.c.lease_owner).where(jobs.c.id == sa.bindparam("job"))
_THIS: Final = sa.update(jobs).where(jobs.c.id == sa.bindparam("job"))
_WISH: Final = _THIS.values(pause_requested=sa.bindparam("wanted"))
_ADVANCED: Final[dict[str, Any]] = {
    "pause_requested": sa.bindparam("wanted"),
    "last_sequence": sa.bindparam("last"),
}
_PAUSE: Final = _THIS.values(**_ADVANCED, state=number(JobState.PAUSED), held_until=sa.null())
_RESUME: Final = _THIS.values(**_ADVANCED, **QUEUED_AGAIN)


def steer(connection: Connection, writes: Sequence[Pausing]) -> list[Steered | Exception]:
    """One after the other: the last wish counts."""
    return [_steer(connection, write) for write in writes]


def _steer(connection: Connection, write: Pausing) -> Steered | Exception:
    row = connection.execute(_ONE, {"job": write.job_id}).first()
    if row is None:
        return JobNotFound(write.job_id)
    job, held = summary(row), row[WIDTH] is not None
    if job.state.terminal:
        return JobHasEnded(write.job_id)
    if not held and (job.state is JobState.PAUSED) is not write.paused:
        return _enter(connection, write, job)
    if job.pause_requested is not write.paused:
        connection.execute(_WISH, {"job": write.job_id, "wanted": write.paused})
    return Steered(msgspec.structs.replace(job, pause_requested=write.paused))


def _enter(connection: Connection, write: Pausing, job: JobSummary) -> Steered:
    state = JobState.PAUSED if write.paused else JobState.QUEUED
    frame = write.framed(job.last_sequence + 1)
    statement = _PAUSE if write.paused else _RESUME
    connection.execute(statement, {"job": job.id, "wanted": write.paused, "last": frame.last})
    INSERT_FRAMES.run(connection, [frame_row(job.id, frame, state)])
    tally = Tally()
    tally.entered(job.queue, state, left=job.state)
    tally.write(connection)
    steered = msgspec.structs.replace(job, state=state, pause_requested=write.paused, last_sequence=frame.last)
    return Steered(steered, frame)
