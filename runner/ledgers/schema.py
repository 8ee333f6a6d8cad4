"""The tables. Times are microseconds since the epoch; states and priorities are the numbers of the wire.

`jobs` is slim because it is updated often; what is written once stands in `bodies`. Partial indexes keep the live part
of the table small, so that claiming costs the same beside a million finished jobs as beside none. A new
database is made from this file, an older one by the migrations; a test holds them equal.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from runner.core.events import JobState

NAMESPACE: Final = "default"

metadata: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: SQLite numbers rows by itself only where the column's type is INTEGER to the letter.
Serial: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _job_id(**options: Any) -> sa.Column[str]:
    return sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, **options)


jobs: Final = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("namespace", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("rank", sa.BigInteger, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    # The state a runner sees: QUEUED also means that the last runner died and the job waits for the next.
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("alt_id", sa.Text, nullable=False),
    # A JSON object of strings.
    sa.Column("labels", sa.Text, nullable=False),
    # Empty where the submitter gave none.
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("request_sha256", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("not_before", sa.BigInteger),
    # `not_before` until that time has come, then NULL: what is claimable stands in an index of its own.
    sa.Column("held_until", sa.BigInteger),
    sa.Column("deadline", sa.BigInteger),
    sa.Column("progress", sa.Float(53), nullable=False),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
    sa.Column("task_count", sa.Integer, nullable=False),
    # A Failure as JSON. Of a job that has not ended: why it is set aside, and not claimed but to be ended.
    sa.Column("error", sa.Text),
    # Not NULL: a cancellation was asked for.
    sa.Column("cancel_reason", sa.Text),
    # True from PauseJob to ResumeJob; the state follows when whoever holds the job has heard of it.
    sa.Column("pause_requested", sa.Boolean, nullable=False),
    sa.Column("lease_owner", sa.Text),
    # Grows with every claim and never falls.
    sa.Column("lease_token", sa.BigInteger, nullable=False),
    sa.Column("lease_expires_at", sa.BigInteger),
    sa.Column("descriptor_sha256", sa.Text, nullable=False),
    # Claims in vain since the ledger was opened: their runner could not read the plan or the events.
    sa.Column("replay_failures", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.CheckConstraint("state BETWEEN 1 AND 7", name="state_known"),
    sa.CheckConstraint("priority BETWEEN 1 AND 4", name="priority_known"),
    sa.CheckConstraint("progress BETWEEN 0 AND 1", name="progress_is_a_fraction"),
    sa.CheckConstraint("last_sequence >= 1", name="accepted_by_event_1"),
    sa.CheckConstraint("lease_token >= 0", name="token_grows"),
    sa.CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", name="owner_has_lease"),
    sa.CheckConstraint("state != 2 OR lease_owner IS NOT NULL", name="running_has_owner"),
    # What runs of a job that is paused may finish.
    sa.CheckConstraint("lease_owner IS NULL OR state IN (2, 3)", name="only_running_or_paused_has_owner"),
    sa.CheckConstraint("(state >= 4) = (ended_at IS NOT NULL)", name="ended_has_time"),
    sa.CheckConstraint("held_until IS NULL OR state = 1", name="only_queued_is_held"),
)


def number(state: JobState) -> sa.ColumnElement[int]:
    """A state as a literal of SQL."""
    return sa.literal_column(str(state.value), sa.SmallInteger)


#: Literals, not parameters: SQLite uses a partial index only where the statement repeats its condition to the letter.
QUEUED: Final = jobs.c.state == number(JobState.QUEUED)
LEASED: Final = jobs.c.lease_owner.is_not(None)
#: QUEUED, or PAUSED with nothing of it running: nobody writes its events but the ledger itself.
FREE: Final = sa.and_(jobs.c.lease_owner.is_(None), jobs.c.ended_at.is_(None))
CLAIMABLE: Final = sa.and_(QUEUED, jobs.c.held_until.is_(None), jobs.c.error.is_(None))
HELD: Final = sa.and_(QUEUED, jobs.c.held_until.is_not(None))
CANCELLING: Final = sa.and_(FREE, jobs.c.cancel_reason.is_not(None))
MORTAL: Final = sa.and_(FREE, jobs.c.deadline.is_not(None))
UNREAD: Final = sa.and_(jobs.c.replay_failures > sa.literal_column("0"), jobs.c.ended_at.is_(None))
ENDED: Final = jobs.c.state >= number(JobState.SUCCEEDED)
NAMED: Final = jobs.c.request_id != sa.literal_column("''")


def _index(
    name: str, *columns: sa.Column[Any], where: sa.ColumnElement[bool] | None = None, unique: bool = False
) -> None:
    sa.Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


_index("ix_jobs_created_at", jobs.c.created_at, jobs.c.id)
# Not over all states: SQLite would prefer it to the narrow indexes below, for they all say `state = 1`.
_index("ix_jobs_ended", jobs.c.state, jobs.c.created_at, jobs.c.id, where=ENDED)
_index("ix_jobs_claimable", jobs.c.queue, jobs.c.rank, jobs.c.id, where=CLAIMABLE)
_index("ix_jobs_waiting", jobs.c.queue, jobs.c.created_at, where=QUEUED)
_index("ix_jobs_held", jobs.c.held_until, where=HELD)
_index("ix_jobs_cancelling", jobs.c.rank, jobs.c.id, where=CANCELLING)
_index("ix_jobs_mortal", jobs.c.deadline, jobs.c.id, where=MORTAL)
# By their errors, which only those that are set aside have.
_index("ix_jobs_unread", jobs.c.error, where=UNREAD)
_index("ix_jobs_leases", jobs.c.lease_expires_at, where=LEASED)
_index("uq_jobs_request_id", jobs.c.namespace, jobs.c.request_id, where=NAMED, unique=True)

# Kept once for all jobs that are submitted with it: services send the same one again and again.
descriptors: Final = sa.Table(
    "descriptors",
    metadata,
    # SHA-256 of the rest.
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("descriptor", sa.LargeBinary, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    # What it came to, as MessagePack.
    sa.Column("plan", sa.LargeBinary, nullable=False),
)

bodies: Final = sa.Table(
    "bodies",
    metadata,
    _job_id(primary_key=True),
    sa.Column("descriptor_id", sa.LargeBinary, sa.ForeignKey("descriptors.id"), nullable=False),
    # A JSON object.
    sa.Column("inputs", sa.LargeBinary, nullable=False),
    sa.Column("traceparent", sa.Text, nullable=False),
)

frames: Final = sa.Table(
    "frames",
    metadata,
    # Grows with commit order over all jobs, and is not used again after pruning.
    sa.Column("cursor", Serial, primary_key=True, autoincrement=True),
    _job_id(),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("terminal", sa.Boolean, nullable=False),
    # The state that the job entered with this frame, if it did.
    sa.Column("entered", sa.SmallInteger),
    # The bytes of one WatchJobResponse.
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.CheckConstraint("1 <= first AND first <= last", name="events_in_order"),
    sa.UniqueConstraint("job_id", "first"),
    sqlite_autoincrement=True,
)

#: As with jobs: written as in the index.
CHANGED: Final = frames.c.entered.is_not(None)
_index("ix_frames_changes", frames.c.cursor, where=CHANGED)

records: Final = sa.Table(
    "records",
    metadata,
    _job_id(primary_key=True),
    sa.Column("execution_id", sa.Text, nullable=False),
    sa.Column("ended_at", sa.BigInteger, nullable=False),
    # The `.last`, the very bytes that sinks write.
    sa.Column("record", sa.LargeBinary, nullable=False),
)

artifacts: Final = sa.Table(
    "artifacts",
    metadata,
    _job_id(primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("artifact_type", sa.Text, nullable=False),
    sa.Column("task_id", sa.Text, nullable=False),
    sa.Column("mime_type", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

#: Answers of people to tasks; the first one counts.
signals: Final = sa.Table(
    "signals",
    metadata,
    _job_id(primary_key=True),
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("approved", sa.Boolean, nullable=False),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("sender", sa.Text, nullable=False),
    # A JSON value, or empty.
    sa.Column("data", sa.LargeBinary, nullable=False),
)

outbox: Final = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", Serial, primary_key=True, autoincrement=True),
    sa.Column("sink", sa.Text, nullable=False),
    _job_id(),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.UniqueConstraint("job_id", "sink"),
    sqlite_autoincrement=True,
)
_index("ix_outbox_due", outbox.c.sink, outbox.c.due_at, outbox.c.id)

#: Tokens used of the budgets of labels, by budget and period. What is spent is written with the events that tell it.
spent_tokens: Final = sa.Table(
    "spent_tokens",
    metadata,
    sa.Column("budget", sa.Text, primary_key=True),
    # The day (`2026-11-22`) or month (`2026-11`) in UTC; empty for one that lasts for ever.
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.CheckConstraint("tokens >= 0", name="spending_is_not_negative"),
)

#: Tokens that AI calls under way may take of these budgets. A row counts while its claim is the job's.
reserved_tokens: Final = sa.Table(
    "reserved_tokens",
    metadata,
    _job_id(primary_key=True),
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("budget", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("lease_token", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.CheckConstraint("tokens >= 0", name="reservations_are_not_negative"),
)
_index("ix_reserved_tokens_budget_period", reserved_tokens.c.budget, reserved_tokens.c.period)

#: What AI orchestrators answered, for tasks that fall back on it.
answers: Final = sa.Table(
    "answers",
    metadata,
    # A digest of what was asked.
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("given_at", sa.BigInteger, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    # Bytes of the output. It stands in the index, so that summing up reads no answer.
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("output", sa.LargeBinary, nullable=False),
    sa.CheckConstraint("size >= 0", name="sizes_are_not_negative"),
)
_index("ix_answers_given_at", answers.c.given_at, answers.c.key, answers.c.size)

runners: Final = sa.Table(
    "runners",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    # As far as its last renewal of leases reached; NULL before the first.
    sa.Column("alive_until", sa.BigInteger),
    # What a health check writes to prove that it can.
    sa.Column("proof", sa.LargeBinary),
)

#: Kept by differences in the commits that change states, so that depths cost the same at any size.
queue_counts: Final = sa.Table(
    "queue_counts",
    metadata,
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("state", sa.SmallInteger, primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.CheckConstraint("n >= 0", name="counts_are_not_negative"),
)
