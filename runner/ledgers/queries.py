"""Reading jobs: one, a page of them, their documents, and what the queues look like."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from runner.core.errors import ArtifactNotFound, JobNotFound, RecordNotFound
from runner.core.events import Artifact, JobState
from runner.core.filters import ANY, And, Comparison, Filter, JobQuery, Not, Or
from runner.core.job import Body, JobSummary
from runner.core.plan import Instant, JobId
from runner.ledgers import tallies
from runner.ledgers.driver import Connection
from runner.ledgers.rows import SUMMARY, summary
from runner.ledgers.schema import ENDED, HELD, MORTAL, QUEUED, artifacts, bodies, descriptors, jobs, records

_JOB: Final = sa.bindparam("job", type_=sa.Text)
_NOW: Final = sa.bindparam("now", type_=sa.BigInteger)
_ONE: Final = sa.select(*SUMMARY).where(jobs.c.id == _JOB)
_EXISTS: Final = sa.select(jobs.c.id).where(jobs.c.id == _JOB)
_BODY: Final = (
    sa.select(descriptors.c.descriptor, descriptors.c.content_type, descriptors.c.plan, bodies.c.inputs)
    .join_from(bodies, descriptors)
    .where(bodies.c.job_id == _JOB)
)
_RECORD: Final = sa.select(records.c.record).where(records.c.job_id == _JOB)
_ARTIFACT: Final = sa.select(*(artifacts.c[name] for name in Artifact.__struct_fields__)).where(
    artifacts.c.job_id == _JOB, artifacts.c.id == sa.bindparam("artifact")
)
_CONTENT: Final = sa.select(
    sa.func.substr(artifacts.c.content, sa.bindparam("start"), sa.bindparam("size"), type_=sa.LargeBinary)
).where(artifacts.c.job_id == _JOB, artifacts.c.id == sa.bindparam("artifact"))
_OLDEST_OF_QUEUE: Final = (
    sa.select(jobs.c.created_at)
    .where(QUEUED, jobs.c.queue == sa.bindparam("queue"))
    .order_by(jobs.c.created_at)
    .limit(1)
)
_NEXT_HELD: Final = sa.select(sa.func.min(jobs.c.held_until)).where(HELD, jobs.c.held_until > _NOW)
_NEXT_DEADLINE: Final = sa.select(sa.func.min(jobs.c.deadline)).where(MORTAL, jobs.c.deadline > _NOW)


def job(connection: Connection, job_id: JobId) -> JobSummary:
    """Raises JobNotFound."""
    row = connection.execute(_ONE, {"job": job_id}).first()
    if row is None:
        raise JobNotFound(job_id)
    return summary(row)


def page(connection: Connection, query: JobQuery) -> list[JobSummary]:
    """Up to `query.limit` jobs by time of acceptance, then id."""
    statement = sa.select(*SUMMARY).limit(query.limit)
    if query.filter is not None:
        statement = statement.where(condition(query.filter))
    place = sa.tuple_(jobs.c.created_at, jobs.c.id)
    if query.after is not None:
        after = sa.tuple_(sa.literal(query.after[0], sa.BigInteger), sa.literal(query.after[1], sa.Text))
        statement = statement.where(place > after if query.ascending else place < after)
    order = (jobs.c.created_at, jobs.c.id) if query.ascending else (jobs.c.created_at.desc(), jobs.c.id.desc())
    return [summary(row) for row in connection.execute(statement.order_by(*order))]


def condition(restriction: Filter) -> sa.ColumnElement[bool]:
    """The filter as SQL, with the meaning of `core.filters.matches`: true or false, never NULL."""
    match restriction:
        case Comparison():
            return _comparison(restriction)
        case Not(operand):
            return sa.not_(condition(operand))
        case And(operands):
            return sa.and_(sa.true(), *map(condition, operands))
        case Or(operands):
            return sa.or_(sa.false(), *map(condition, operands))


def _comparison(comparison: Comparison) -> sa.ColumnElement[bool]:
    column = _label(comparison.key) if comparison.field == "labels" else jobs.c[comparison.field]
    optional = comparison.field in {"labels", "ended_at"}
    value = comparison.value
    compared: sa.ColumnElement[bool]
    match comparison.operator:
        case "=" if comparison.field == "state" and int(value) >= JobState.SUCCEEDED:
            # The second half says nothing new, but opens the index of ended jobs.
            return sa.and_(column == value, ENDED)
        case "=":
            compared = column == value
        case "!=":
            return column.is_distinct_from(value) if optional else column != value
        case ":" if comparison.field == "labels" and value == ANY:
            return column.is_not(None)
        case ":":
            # SQLite's lower() folds A–Z alone, as the core does.
            compared = sa.func.instr(sa.func.lower(column), sa.func.lower(str(value))) > 0
        case order:
            compared = column.op(order, is_comparison=True)(value)
    return sa.func.coalesce(compared, sa.false()) if optional else compared


def _label(key: str) -> sa.ColumnElement[Any]:
    """The value of a label, or NULL. As a table: a path could not name keys that hold quotes."""
    label = sa.func.json_each(jobs.c.labels).table_valued("key", "value").alias()
    return sa.select(label.c.value).where(label.c.key == key).correlate(jobs).scalar_subquery()


def body(connection: Connection, job_id: JobId) -> Body:
    """Raises JobNotFound."""
    row = connection.execute(_BODY, {"job": job_id}).first()
    if row is None:
        raise JobNotFound(job_id)
    return Body(*row)


def record(connection: Connection, job_id: JobId) -> bytes:
    """Raises JobNotFound, RecordNotFound."""
    found: bytes | None = connection.execute(_RECORD, {"job": job_id}).value()
    if found is not None:
        return found
    if connection.execute(_EXISTS, {"job": job_id}).first() is None:
        raise JobNotFound(job_id)
    raise RecordNotFound(job_id)


def artifact(connection: Connection, job_id: JobId, artifact_id: str) -> Artifact:
    """Raises ArtifactNotFound."""
    row = connection.execute(_ARTIFACT, {"job": job_id, "artifact": artifact_id}).first()
    if row is None:
        raise ArtifactNotFound(job_id, artifact_id)
    return Artifact(**dict(zip(Artifact.__struct_fields__, row, strict=True)))


def artifact_bytes(connection: Connection, job_id: JobId, artifact_id: str, offset: int, size: int) -> bytes:
    """Raises ArtifactNotFound."""
    place = {"job": job_id, "artifact": artifact_id, "start": offset + 1, "size": size}
    row = connection.execute(_CONTENT, place).first()
    if row is None:
        raise ArtifactNotFound(job_id, artifact_id)
    # SQLite's substr() of nothing is NULL.
    content: bytes | None = row[0]
    return content or b""


def oldest_queued(connection: Connection) -> dict[str, Instant]:
    """When the longest-waiting job of each queue was accepted."""
    oldest = {}
    for queue in tallies.queued(connection):
        created_at: Instant | None = connection.execute(_OLDEST_OF_QUEUE, {"queue": queue}).value()
        if created_at is not None:
            oldest[queue] = created_at
    return oldest


def next_due(connection: Connection, now: Instant) -> Instant | None:
    """The earliest `not_before` or deadline of a queued job after `now`."""
    times = [connection.execute(statement, {"now": now}).value() for statement in (_NEXT_HELD, _NEXT_DEADLINE)]
    return min((time for time in times if time is not None), default=None)
