"""Answers of people to tasks: kept at once, so that none is lost while its job waits for a runner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from runner.core.errors import AlreadyAnswered, JobHasEnded, JobNotFound
from runner.core.job import JobSummary, Signal
from runner.core.plan import JobId
from runner.ledgers.driver import Connection
from runner.ledgers.rows import SUMMARY, among, portions, summary
from runner.ledgers.schema import jobs, signals
from runner.ledgers.writes import Answering

_JOB: Final = sa.bindparam("job", type_=sa.Text)
_ONE: Final = sa.select(*SUMMARY).where(jobs.c.id == _JOB)
_ANSWERED: Final = sa.select(signals.c.task_id).where(
    signals.c.job_id == _JOB, signals.c.task_id == sa.bindparam("task")
)
_INSERT: Final = sa.insert(signals)
_OF_JOBS: Final = (
    sa.select(signals.c.job_id, *(signals.c[name] for name in Signal.__struct_fields__))
    .where(among(signals.c.job_id))
    .order_by(signals.c.job_id, signals.c.task_id)
)


def answer(connection: Connection, writes: Sequence[Answering]) -> list[JobSummary | Exception]:
    """One after the other: of two answers in one commit, too, the first counts."""
    return [_answer(connection, write) for write in writes]


def _answer(connection: Connection, write: Answering) -> JobSummary | Exception:
    row = connection.execute(_ONE, {"job": write.job_id}).first()
    if row is None:
        return JobNotFound(write.job_id)
    job = summary(row)
    if job.state.terminal:
        return JobHasEnded(write.job_id)
    if connection.execute(_ANSWERED, {"job": write.job_id, "task": write.signal.task_id}).first() is not None:
        return AlreadyAnswered(write.job_id, write.signal.task_id)
    connection.execute(_INSERT, {"job_id": write.job_id, **msgspec.structs.asdict(write.signal)})
    return job


def of_jobs(connection: Connection, chosen: Iterable[JobId]) -> Mapping[JobId, list[Signal]]:
    """All answers to tasks of these jobs; an empty list where there is none."""
    found: defaultdict[JobId, list[Signal]] = defaultdict(list)
    for portion in portions(chosen):
        for job_id, task_id, approved, *rest in connection.execute(_OF_JOBS, {"among": portion}):
            found[job_id].append(Signal(task_id, bool(approved), *rest))
    return found
