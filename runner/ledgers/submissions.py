"""Accepting jobs: all submissions of a commit together, each with its own answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa

from runner.core.events import JobState
from runner.core.job import Inheritance, JobSummary, NewJob, Submitted
from runner.core.plan import JobId
from runner.ledgers import tallies
from runner.ledgers.admission import Admission
from runner.ledgers.bulk import Bulk
from runner.ledgers.driver import Connection
from runner.ledgers.rows import (
    ACCEPTED,
    INSERT_FRAMES,
    JOB,
    SUMMARY,
    WIDTH,
    among,
    body_row,
    descriptor_row,
    frame_row,
    job_row,
    portions,
    summary,
)
from runner.ledgers.schema import NAMED, NAMESPACE, artifacts, bodies, jobs
from runner.ledgers.writes import Intake

#: Its bytes, its content type, and the plan that they came to.
_Descriptor = tuple[bytes, str, bytes]

_INSERT_JOBS: Final = Bulk(sa.insert(jobs).values(ACCEPTED), *JOB)
#: A row that is no more what its id says is damaged: left as it is, jobs that are accepted with it could never run.
_INSERT_DESCRIPTORS: Final = Bulk(
    sa.text(
        "INSERT INTO descriptors (id, descriptor, content_type, plan) VALUES (:id, :descriptor, :content_type, :plan)"
        " ON CONFLICT (id) DO UPDATE SET descriptor = excluded.descriptor, content_type = excluded.content_type,"
        " plan = excluded.plan WHERE descriptors.plan <> excluded.plan OR descriptors.descriptor <> excluded.descriptor"
        " OR descriptors.content_type <> excluded.content_type"
    )
)
_INSERT_BODIES: Final = Bulk(sa.insert(bodies))
_JOB: Final = sa.bindparam("job", type_=sa.Text)
_EARLIER: Final = sa.bindparam("earlier", type_=sa.Text)
_INHERIT: Final = sa.insert(artifacts).from_select(
    [column.name for column in artifacts.c],
    sa.select(*(_JOB if column.name == "job_id" else column for column in artifacts.c)).where(
        artifacts.c.job_id == _EARLIER, among(artifacts.c.id)
    ),
)
_BY_REQUEST_ID: Final = sa.select(*SUMMARY, jobs.c.request_sha256).where(
    jobs.c.namespace == NAMESPACE, NAMED, among(jobs.c.request_id)
)


def accept(connection: Connection, writes: Sequence[Intake]) -> list[list[Submitted | Exception] | Exception]:
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
    descriptors = _insert_descriptors(connection, accepted)
    _INSERT_BODIES.run(connection, [body_row(new, descriptors[_descriptor(new)]) for new in accepted])
    INSERT_FRAMES.run(connection, [row for new in accepted for row in _frame_rows(new)])
    for new in accepted:
        if new.inherits is not None:
            _inherit(connection, new.summary.id, new.inherits)
    tally = tallies.Tally()
    for new in accepted:
        tally.entered(new.summary.queue, JobState.QUEUED, left=None)
    tally.write(connection)


def _insert_descriptors(connection: Connection, accepted: Sequence[NewJob]) -> dict[_Descriptor, bytes]:
    """Write those that are not there or are damaged; answers the ids of all."""
    rows = {descriptor: descriptor_row(*descriptor) for descriptor in map(_descriptor, accepted)}
    # In order: two writers that meet do not deadlock.
    _INSERT_DESCRIPTORS.run(connection, sorted(rows.values(), key=itemgetter("id")))
    return {descriptor: row["id"] for descriptor, row in rows.items()}


def _descriptor(new: NewJob) -> _Descriptor:
    return new.descriptor, new.content_type, new.plan


def _frame_rows(new: NewJob) -> list[dict[str, Any]]:
    """The first of them is the one with which it became QUEUED."""
    first, *rest = new.frames
    return [
        frame_row(new.summary.id, first, JobState.QUEUED),
        *(frame_row(new.summary.id, frame, None) for frame in rest),
    ]


def _inherit(connection: Connection, job_id: JobId, inherited: Inheritance) -> None:
    for portion in portions(inherited.artifact_ids):
        connection.execute(_INHERIT, {"job": job_id, "earlier": inherited.job_id, "among": portion})
