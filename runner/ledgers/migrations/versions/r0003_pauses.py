"""Jobs can be PAUSED, and are held while what runs of them finishes.

SQLite cannot change the checks of a table, so it is made anew, in the way that sqlite.org/lang_altertable.html tells
in its section 7.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"

_KEPT: Final = (
    "id, namespace, queue, rank, priority, state, title, alt_id, labels, request_id, request_sha256, created_at,"
    " started_at, ended_at, not_before, held_until, deadline, progress, last_sequence, task_count, error,"
    " cancel_reason, lease_owner, lease_token, lease_expires_at, descriptor_sha256"
)


def upgrade() -> None:
    if op.get_bind().exec_driver_sql("PRAGMA foreign_keys").scalar():
        raise RuntimeError("foreign keys are on: dropping the old table would delete all that belongs to its jobs")
    _jobs("jobs_0003")
    op.execute(f"INSERT INTO jobs_0003 ({_KEPT}, pause_requested) SELECT {_KEPT}, 0 FROM jobs")  # noqa: S608  constants
    op.drop_table("jobs")
    op.rename_table("jobs_0003", "jobs")
    _indexes()


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def _jobs(name: str) -> None:
    op.create_table(
        name,
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
        sa.Column("pause_requested", sa.Boolean(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("descriptor_sha256", sa.Text(), nullable=False),
        *_checks(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )


def _checks() -> list[sa.CheckConstraint]:
    checks = {
        "owner_has_lease": "(lease_owner IS NULL) = (lease_expires_at IS NULL)",
        "running_has_owner": "state != 2 OR lease_owner IS NOT NULL",
        "only_running_or_paused_has_owner": "lease_owner IS NULL OR state IN (2, 3)",
        "ended_has_time": "(state >= 4) = (ended_at IS NOT NULL)",
        "only_queued_is_held": "held_until IS NULL OR state = 1",
        "accepted_by_event_1": "last_sequence >= 1",
        "token_grows": "lease_token >= 0",
        "priority_known": "priority BETWEEN 1 AND 4",
        "progress_is_a_fraction": "progress BETWEEN 0 AND 1",
        "state_known": "state BETWEEN 1 AND 7",
    }
    return [sa.CheckConstraint(condition, name=op.f(f"ck_jobs_{name}")) for name, condition in checks.items()]


def _indexes() -> None:
    free = "lease_owner IS NULL AND ended_at IS NULL"
    op.create_index("ix_jobs_cancelling", "jobs", ["rank", "id"], **_where(f"{free} AND cancel_reason IS NOT NULL"))
    op.create_index("ix_jobs_claimable", "jobs", ["queue", "rank", "id"], **_where("state = 1 AND held_until IS NULL"))
    op.create_index("ix_jobs_created_at", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_held", "jobs", ["held_until"], **_where("state = 1 AND held_until IS NOT NULL"))
    op.create_index("ix_jobs_leases", "jobs", ["lease_expires_at"], **_where("lease_owner IS NOT NULL"))
    op.create_index("ix_jobs_mortal", "jobs", ["deadline", "id"], **_where(f"{free} AND deadline IS NOT NULL"))
    op.create_index("ix_jobs_ended", "jobs", ["state", "created_at", "id"], **_where("state >= 4"))
    op.create_index("ix_jobs_waiting", "jobs", ["queue", "created_at"], **_where("state = 1"))
    op.create_index(
        "uq_jobs_request_id", "jobs", ["namespace", "request_id"], unique=True, **_where("request_id != ''")
    )
