"""Accepting jobs: all submissions of a commit together, each with its own answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from runner.core.errors import QueueFull, RequestIdReused
from runner.core.events import JobState
from runner.core.job import JobSummary, NewJob, Submitted
from runner.ledgers import tallies
from runner.ledgers.bulk import Bulk
from runner.ledgers.rows import INSERT_FRAMES, SUMMARY, WIDTH, among, body_row, frame_row, job_row, portions, summary
from runner.ledgers.schema import NAMED, NAMESPACE, bodies, jobs
from runner.ledgers.writes import Submission

#: Seconds after which it is worth submitting to a full queue again.
RETRY_AFTER: Final = 1.0

_INSERT_JOBS: Final = Bulk(sa.insert(jobs))
_INSERT_BODIES: Final = Bulk(sa.insert(bodies))
_BY_REQUEST_ID: Final = sa.select(*SUMMARY, jobs.c.request_sha256).where(
    jobs.c.namespace == NAMESPACE, NAMED, among(jobs.c.request_id)
)


class Admission:
    """Decides, job by job in order of arrival, who is accepted; writes nothing."""

    def __init__(self, known: Mapping[str, tuple[JobSummary, bytes]], queued: Mapping[str, int]) -> None:
        #: Request ids that are taken: whose they are, and the hash of the request.
        self._known = dict(known)
        self._queued = dict(queued)
        self.accepted: list[NewJob] = []

    def decide(self, new: NewJob, max_queued: Mapping[str, int]) -> Submitted | Exception:
        job = new.summary
        if job.request_id and job.request_id in self._known:
            earlier, digest = self._known[job.request_id]
            if digest == new.request_sha256:
                return Submitted(earlier, replayed=True)
            return RequestIdReused(job.request_id, earlier.id)
        limit = max_queued.get(job.queue)
        waiting = self._queued.get(job.queue, 0)
        if limit is not None and waiting >= limit:
            return QueueFull(job.queue, limit, RETRY_AFTER)
        self._queued[job.queue] = waiting + 1
        if job.request_id:
            self._known[job.request_id] = (job, new.request_sha256)
        self.accepted.append(new)
        return Submitted(job, replayed=False)


def accept(connection: Connection, writes: Sequence[Submission]) -> list[list[Submitted | Exception] | Exception]:
    """Check all against what is stored and against each other, then write those accepted."""
    request_ids = {new.summary.request_id for write in writes for new in write.jobs} - {""}
    limited = any(write.max_queued for write in writes)
    admission = Admission(
        _known(connection, request_ids) if request_ids else {},
        tallies.queued(connection) if limited else {},
    )
    answers: list[list[Submitted | Exception] | Exception] = [
        [admission.decide(new, write.max_queued) for new in write.jobs] for write in writes
    ]
    if admission.accepted:
        _insert(connection, admission.accepted)
    return answers


def _known(connection: Connection, request_ids: Iterable[str]) -> dict[str, tuple[JobSummary, bytes]]:
    known = {}
    for portion in portions(request_ids):
        for row in connection.execute(_BY_REQUEST_ID, {"among": portion}).all():
            job = summary(row)
            known[job.request_id] = (job, row[WIDTH])
    return known


def _insert(connection: Connection, accepted: Sequence[NewJob]) -> None:
    _INSERT_JOBS.run(connection, [job_row(new) for new in accepted])
    _INSERT_BODIES.run(connection, [body_row(new) for new in accepted])
    INSERT_FRAMES.run(connection, [frame_row(new.summary.id, new.frame, JobState.QUEUED) for new in accepted])
    tally = tallies.Tally()
    for new in accepted:
        tally.entered(new.summary.queue, JobState.QUEUED, left=None)
    tally.write(connection)
