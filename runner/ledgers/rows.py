"""Rows to values and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec
import sqlalchemy as sa

from runner.core.events import Failure, JobState
from runner.core.job import Frame, JobSummary, NewJob
from runner.core.plan import JobId, Priority
from runner.ledgers.bulk import Bulk
from runner.ledgers.schema import NAMESPACE, frames, jobs, number

Item = TypeVar("Item")

#: Parameters in one statement: far below SQLite's 32,766 and PostgreSQL's 65,535.
MANY: Final = 500

#: The columns of a JobSummary, in the order that `summary` unpacks.
SUMMARY: Final = (
    jobs.c.id,
    jobs.c.alt_id,
    jobs.c.title,
    jobs.c.state,
    jobs.c.priority,
    jobs.c.queue,
    jobs.c.labels,
    jobs.c.request_id,
    jobs.c.created_at,
    jobs.c.started_at,
    jobs.c.ended_at,
    jobs.c.not_before,
    jobs.c.deadline,
    jobs.c.progress,
    jobs.c.last_sequence,
    jobs.c.error,
    jobs.c.cancel_reason,
    jobs.c.task_count,
    jobs.c.descriptor_sha256,
    jobs.c.pause_requested,
)
WIDTH: Final = len(SUMMARY)

#: The columns of a Frame, in order.
FRAME: Final = (frames.c.first, frames.c.last, frames.c.terminal, frames.c.data)
INSERT_FRAMES: Final = Bulk(sa.insert(frames), "job_id", "first", "last", "terminal", "entered", "data")

#: What an UPDATE sets where a job waits for a runner again; one that was taken before its time is held again.
LEASE_ENDED: Final = {"lease_owner": sa.null(), "lease_expires_at": sa.null()}
QUEUED_AGAIN: Final = {"state": number(JobState.QUEUED), "held_until": jobs.c.not_before, **LEASE_ENDED}

_STATES: Final = {state.value: state for state in JobState}
_PRIORITIES: Final = {priority.value: priority for priority in Priority}
_labels: Final = msgspec.json.Decoder(dict[str, str])
_failure: Final = msgspec.json.Decoder(Failure)


def summary(row: Sequence[Any]) -> JobSummary:
    """The JobSummary of a row that begins with the columns of SUMMARY."""
    return JobSummary(
        id=row[0],
        alt_id=row[1],
        title=row[2],
        state=_STATES[row[3]],
        priority=_PRIORITIES[row[4]],
        queue=row[5],
        labels={} if row[6] == "{}" else _labels.decode(row[6]),
        request_id=row[7],
        created_at=row[8],
        started_at=row[9],
        ended_at=row[10],
        not_before=row[11],
        deadline=row[12],
        progress=row[13],
        last_sequence=row[14],
        error=None if row[15] is None else _failure.decode(row[15]),
        cancel_requested=row[16] is not None,
        task_count=row[17],
        descriptor_sha256=row[18],
        pause_requested=bool(row[19]),
    )


#: The columns of `job_row`. Few, as Python binds each value of each row while it holds its lock.
JOB: Final = (
    "id",
    "queue",
    "rank",
    "priority",
    "title",
    "alt_id",
    "labels",
    "request_id",
    "request_sha256",
    "created_at",
    "not_before",
    "held_until",
    "deadline",
    "progress",
    "last_sequence",
    "task_count",
    "descriptor_sha256",
)
#: Those that are the same for every submission, as literals. What stands in neither is NULL.
ACCEPTED: Final = {
    "namespace": sa.literal_column(f"'{NAMESPACE}'"),
    "state": number(JobState.QUEUED),
    "pause_requested": sa.false(),
    "lease_token": sa.literal_column("0"),
}


def job_row(new: NewJob) -> dict[str, Any]:
    """A submission as a row of `jobs`."""
    job = new.summary
    return {
        "id": job.id,
        "queue": job.queue,
        "rank": new.rank,
        "priority": job.priority.value,
        "title": job.title,
        "alt_id": job.alt_id,
        "labels": msgspec.json.encode(job.labels).decode() if job.labels else "{}",
        "request_id": job.request_id,
        "request_sha256": new.request_sha256,
        "created_at": job.created_at,
        "not_before": job.not_before,
        "held_until": job.not_before,
        "deadline": job.deadline,
        "progress": job.progress,
        "last_sequence": new.frames[-1].last,
        "task_count": job.task_count,
        "descriptor_sha256": job.descriptor_sha256,
    }


def descriptor_row(descriptor: bytes, content_type: str, plan: bytes) -> dict[str, Any]:
    """A descriptor as a row of `descriptors`."""
    digest = hashlib.sha256(msgspec.msgpack.encode((descriptor, content_type, plan))).digest()
    return {"id": digest, "descriptor": descriptor, "content_type": content_type, "plan": plan}


def body_row(new: NewJob, descriptor_id: bytes) -> dict[str, Any]:
    """A submission as a row of `bodies`."""
    return {
        "job_id": new.summary.id,
        "descriptor_id": descriptor_id,
        "inputs": new.inputs,
        "traceparent": new.traceparent,
    }


def frame_row(job_id: JobId, frame: Frame, entered: JobState | None) -> dict[str, Any]:
    """A frame as a row of `frames`."""
    return {
        "job_id": job_id,
        "first": frame.first,
        "last": frame.last,
        "terminal": frame.terminal,
        "entered": None if entered is None else entered.value,
        "data": frame.data,
    }


def failure_text(error: Failure | None) -> str | None:
    """An error as it stands in `jobs`."""
    return None if error is None else msgspec.json.encode(error).decode()


def portions(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Items in lists of up to MANY."""
    whole = list(items)
    for start in range(0, len(whole), MANY):
        yield whole[start : start + MANY]


def among(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """`column` is one of the list given as parameter `among`: one statement whatever the list's length."""
    return column.in_(sa.select(sa.func.json_each(sa.bindparam("among")).table_valued("value").c.value))
