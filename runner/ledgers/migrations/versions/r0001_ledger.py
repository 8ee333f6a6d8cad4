"""The ledger as it began: jobs, frames of events, records, artifacts, the outbox, runners and counts."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

_SERIAL: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _jobs()
    _bodies()
    _frames()
    _records()
    _artifacts()
    _outbox()
    _runners()
    _queue_counts()


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("alt_id", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("not_before", sa.BigInteger(), nullable=True),
        sa.Column("held_until", sa.BigInteger(), nullable=True),
        sa.Column("deadline", sa.BigInteger(), nullable=True),
        sa.Column("progress", sa.Float(precision=53), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("task_count", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("cancel_reason", sa.Text(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("descriptor_sha256", sa.Text(), nullable=False),
        sa.CheckConstraint("(state = 2) = (lease_expires_at IS NOT NULL)", name=op.f("ck_jobs_running_has_lease")),
        sa.CheckConstraint("(state = 2) = (lease_owner IS NOT NULL)", name=op.f("ck_jobs_running_has_owner")),
        sa.CheckConstraint("(state >= 4) = (ended_at IS NOT NULL)", name=op.f("ck_jobs_ended_has_time")),
        sa.CheckConstraint("held_until IS NULL OR state = 1", name=op.f("ck_jobs_only_queued_is_held")),
        sa.CheckConstraint("last_sequence >= 1", name=op.f("ck_jobs_accepted_by_event_1")),
        sa.CheckConstraint("lease_token >= 0", name=op.f("ck_jobs_token_grows")),
        sa.CheckConstraint("priority BETWEEN 1 AND 4", name=op.f("ck_jobs_priority_known")),
        sa.CheckConstraint("progress BETWEEN 0 AND 1", name=op.f("ck_jobs_progress_is_a_fraction")),
        sa.CheckConstraint("state IN (1, 2, 4, 5, 6, 7)", name=op.f("ck_jobs_state_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_cancelling", "jobs", ["rank", "id"], **_where("state = 1 AND cancel_reason IS NOT NULL"))
    op.create_index("ix_jobs_claimable", "jobs", ["queue", "rank", "id"], **_where("state = 1 AND held_until IS NULL"))
    op.create_index("ix_jobs_created_at", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_held", "jobs", ["held_until"], **_where("state = 1 AND held_until IS NOT NULL"))
    op.create_index("ix_jobs_leases", "jobs", ["lease_expires_at"], **_where("state = 2"))
    op.create_index("ix_jobs_mortal", "jobs", ["deadline", "id"], **_where("state = 1 AND deadline IS NOT NULL"))
    op.create_index("ix_jobs_ended", "jobs", ["state", "created_at", "id"], **_where("state >= 4"))
    op.create_index("ix_jobs_waiting", "jobs", ["queue", "created_at"], **_where("state = 1"))
    op.create_index(
        "uq_jobs_request_id", "jobs", ["namespace", "request_id"], unique=True, **_where("request_id != ''")
    )


def _bodies() -> None:
    op.create_table(
        "bodies",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("descriptor", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("plan", sa.LargeBinary(), nullable=False),
        sa.Column("inputs", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_bodies_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_bodies")),
    )


def _frames() -> None:
    op.create_table(
        "frames",
        sa.Column("cursor", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("terminal", sa.Boolean(), nullable=False),
        sa.Column("entered", sa.SmallInteger(), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("1 <= first AND first <= last", name=op.f("ck_frames_events_in_order")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_frames_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("cursor", name=op.f("pk_frames")),
        sa.UniqueConstraint("job_id", "first", name=op.f("uq_frames_job_id_first")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_frames_changes", "frames", ["cursor"], **_where("entered IS NOT NULL"))


def _records() -> None:
    op.create_table(
        "records",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_records_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_records")),
    )


def _artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("artifact_type", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("mime_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_artifacts_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "id", name=op.f("pk_artifacts")),
    )


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("sink", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_outbox_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("job_id", "sink", name=op.f("uq_outbox_job_id_sink")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_due", "outbox", ["sink", "due_at", "id"])


def _runners() -> None:
    op.create_table(
        "runners",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("alive_until", sa.BigInteger(), nullable=True),
        sa.Column("proof", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runners")),
    )


def _queue_counts() -> None:
    op.create_table(
        "queue_counts",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("n >= 0", name=op.f("ck_queue_counts_counts_are_not_negative")),
        sa.PrimaryKeyConstraint("queue", "state", name=op.f("pk_queue_counts")),
    )
