"""The journal: frames of events, appended under the fence of a lease, and read back by job or by state change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from runner.core.errors import JobNotFound, LeaseLost
from runner.core.events import JobState
from runner.core.job import Append, Change, Frame, StoredArtifact
from runner.core.plan import JobId
from runner.ledgers import budgets
from runner.ledgers.bulk import Bulk
from runner.ledgers.claims import without_holder
from runner.ledgers.driver import Connection
from runner.ledgers.rows import (
    FRAME,
    INSERT_FRAMES,
    LEASE_ENDED,
    MANY,
    QUEUED_AGAIN,
    SUMMARY,
    WIDTH,
    among,
    failure_text,
    frame_row,
    portions,
    summary,
)
from runner.ledgers.schema import CHANGED, artifacts, frames, jobs, number, outbox, records
from runner.ledgers.tallies import Tally
from runner.ledgers.writes import Appending

_FENCES: Final = sa.select(
    jobs.c.id,
    jobs.c.state,
    jobs.c.lease_token,
    jobs.c.queue,
    jobs.c.last_sequence,
    jobs.c.started_at,
    jobs.c.lease_owner.is_not(None),
    jobs.c.pause_requested,
).where(among(jobs.c.id))
_STORED: Final = sa.select(frames.c.data).where(
    frames.c.job_id == sa.bindparam("job"), frames.c.first == sa.bindparam("first")
)
_INSERT_ARTIFACTS: Final = Bulk(sa.insert(artifacts))
_INSERT_RECORDS: Final = Bulk(sa.insert(records))
_INSERT_OUTBOX: Final = Bulk(sa.insert(outbox), "sink", "job_id", "due_at", "attempts")
_MOVE: Final = sa.update(jobs).where(jobs.c.id == sa.bindparam("job"))
_ADVANCED: Final[dict[str, sa.BindParameter[Any]]] = {
    "progress": sa.bindparam("fraction"),
    "last_sequence": sa.bindparam("last"),
    "started_at": sa.bindparam("started"),
}
# Several statements, because SQLite rewrites the entries of every index that an UPDATE names a column of.
_ADVANCE: Final = Bulk(_MOVE.values(**_ADVANCED))
_ENTER: Final = Bulk(_MOVE.values(**_ADVANCED, state=sa.bindparam("entered")))
_RELEASE: Final = Bulk(_MOVE.values(**_ADVANCED, **QUEUED_AGAIN))
_RELEASE_PAUSED: Final = Bulk(_MOVE.values(**_ADVANCED, **LEASE_ENDED, state=number(JobState.PAUSED)))
_END: Final = Bulk(
    _MOVE.values(
        **_ADVANCED,
        **LEASE_ENDED,
        state=sa.bindparam("entered"),
        ended_at=sa.bindparam("ended"),
        error=sa.bindparam("failure"),
    )
)
_FRAMES_AFTER: Final = (
    sa.select(*FRAME)
    .where(
        frames.c.job_id == sa.bindparam("job"),
        # The frame that holds the next event may begin before it.
        frames.c.first
        >= sa.func.coalesce(
            sa.select(sa.func.max(frames.c.first))
            .where(frames.c.job_id == sa.bindparam("job"), frames.c.first <= sa.bindparam("next"))
            .scalar_subquery(),
            0,
        ),
        frames.c.last >= sa.bindparam("next"),
    )
    .order_by(frames.c.first)
    .limit(MANY)
)
_EXISTS: Final = sa.select(jobs.c.id).where(jobs.c.id == sa.bindparam("job"))
_CHANGES: Final = (
    sa.select(*SUMMARY, frames.c.cursor, frames.c.entered, frames.c.first, frames.c.last)
    .join_from(frames, jobs)
    .where(CHANGED, frames.c.cursor > sa.bindparam("after"))
    .order_by(frames.c.cursor)
    .limit(sa.bindparam("up_to", type_=sa.Integer))
)
_NEWEST: Final = sa.select(frames.c.cursor).where(CHANGED).order_by(frames.c.cursor.desc()).limit(1)


class _Standing(msgspec.Struct):
    """A job as the appends of this commit find and leave it."""

    state: JobState
    token: int
    queue: str
    last: int
    started_at: int | None
    held: bool
    pause_requested: bool
    #: Whether an append of this commit paused or resumed it.
    steered: bool = False


class _Sheet:
    """What a commit's appends write, gathered by statement."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.artifacts: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []
        self.outbox: list[dict[str, Any]] = []
        #: The last one of each job counts.
        self.moves: dict[JobId, tuple[Bulk, dict[str, Any]]] = {}
        self.tally = Tally()
        #: Appends that take of budgets, or end reservations.
        self.settling: list[Append] = []

    def enter(self, change: Append, standing: _Standing) -> None:
        """Note all that belongs to an append which passed the fence, and move the job's standing on."""
        self.frames.append(frame_row(change.job_id, change.frame, change.entered))
        self.artifacts += [_artifact_row(change.job_id, stored) for stored in change.artifacts]
        if change.spent or change.settled:
            self.settling.append(change)
        standing.last = change.frame.last
        standing.started_at = change.started_at if standing.started_at is None else standing.started_at
        move = {
            "job": change.job_id,
            "fraction": change.progress,
            "last": standing.last,
            "started": standing.started_at,
        }
        before = standing.state
        statement = _ADVANCE
        if change.ending is not None:
            statement = _END
            ending = change.ending
            standing.state, standing.held = ending.state, False
            move |= {
                "entered": ending.state.value,
                "ended": ending.ended_at,
                "failure": failure_text(ending.error),
            }
            self._end(change.job_id, standing, change)
        elif change.release:
            standing.state = without_holder(before, pause_requested=standing.pause_requested)
            standing.held = False
            statement = _RELEASE_PAUSED if standing.state is JobState.PAUSED else _RELEASE
        else:
            standing.state = before if change.entered is None else change.entered
            standing.steered |= standing.state is not before
            if standing.steered:
                statement = _ENTER
                move["entered"] = standing.state.value
        if standing.state is not before:
            self.tally.entered(standing.queue, standing.state, left=before)
        self.moves[change.job_id] = (statement, move)

    def _end(self, job_id: JobId, standing: _Standing, change: Append) -> None:
        ending = change.ending
        assert ending is not None  # noqa: S101  asked by the only caller
        self.records.append(
            {
                "job_id": job_id,
                "execution_id": ending.execution_id,
                "ended_at": ending.ended_at,
                "record": ending.record,
            }
        )
        self.outbox += [
            {"sink": sink, "job_id": job_id, "due_at": ending.ended_at, "attempts": 0} for sink in ending.sinks
        ]

    def write(self, connection: Connection) -> None:
        for statement in (_ADVANCE, _ENTER, _RELEASE, _RELEASE_PAUSED, _END):
            statement.run(connection, [row for chosen, row in self.moves.values() if chosen is statement])
        for insert, rows in (
            (INSERT_FRAMES, self.frames),
            (_INSERT_ARTIFACTS, self.artifacts),
            (_INSERT_RECORDS, self.records),
            (_INSERT_OUTBOX, self.outbox),
        ):
            insert.run(connection, rows)
        self.tally.write(connection)
        budgets.settle(connection, self.settling)


def append(connection: Connection, writes: Sequence[Appending]) -> list[Exception | None]:
    """Check each against its fence, in order of arrival, then write those that passed."""
    standings = _standings(connection, {write.append.job_id for write in writes})
    sheet = _Sheet()
    answers: list[Exception | None] = []
    entered: dict[tuple[JobId, int], bytes] = {}
    for write in writes:
        change = write.append
        standing = standings.get(change.job_id)
        if standing is None or standing.token != change.token:
            answers.append(LeaseLost(change.job_id))
        elif standing.held and change.frame.first == standing.last + 1:
            sheet.enter(change, standing)
            entered[change.job_id, change.frame.first] = change.frame.data
            answers.append(None)
        elif _is_stored(connection, change, entered):
            # The caller did not learn that the first try was committed.
            answers.append(None)
        else:
            answers.append(LeaseLost(change.job_id))
    sheet.write(connection)
    return answers


def _standings(connection: Connection, job_ids: Iterable[JobId]) -> dict[JobId, _Standing]:
    found = {}
    for portion in portions(job_ids):
        for job_id, state, token, queue, last, started_at, *flags in connection.execute(
            _FENCES, {"among": portion}
        ).all():
            found[job_id] = _Standing(JobState(state), token, queue, last, started_at, *map(bool, flags))
    return found


def _is_stored(connection: Connection, change: Append, entered: dict[tuple[JobId, int], bytes]) -> bool:
    place = (change.job_id, change.frame.first)
    if place in entered:
        return entered[place] == change.frame.data
    stored: bytes | None = connection.execute(_STORED, {"job": change.job_id, "first": change.frame.first}).value()
    return stored == change.frame.data


def _artifact_row(job_id: JobId, stored: StoredArtifact) -> dict[str, Any]:
    return msgspec.structs.asdict(stored.artifact) | {"job_id": job_id, "content": stored.content}


# ------------------------------------------------------------------------------------------------------- reading


def frames_after(connection: Connection, job_id: JobId, after: int, max_bytes: int) -> list[Frame]:
    """The frames that hold events after `after`. Raises JobNotFound."""
    found: list[Frame] = []
    size = 0
    with closing(connection.execute(_FRAMES_AFTER, {"job": job_id, "next": after + 1})) as rows:
        for first, last, terminal, data in rows:
            size += len(data)
            if found and size > max_bytes:
                break
            found.append(Frame(first, last, terminal, data))
    if not found and connection.execute(_EXISTS, {"job": job_id}).first() is None:
        raise JobNotFound(job_id)
    return found


def changes_after(connection: Connection, after: int, limit: int) -> list[Change]:
    """Entries of the global journal. A job enters RUNNING with a frame's first event, other states with its last."""
    found = []
    for row in connection.execute(_CHANGES, {"after": after, "up_to": limit}).all():
        cursor, entered, first, last = row[WIDTH:]
        state = JobState(entered)
        found.append(Change(cursor, summary(row), state, first if state is JobState.RUNNING else last))
    return found


def newest_cursor(connection: Connection) -> int:
    """The cursor of the newest change."""
    newest: int | None = connection.execute(_NEWEST).value()
    return newest or 0
