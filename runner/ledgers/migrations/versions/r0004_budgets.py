"""Token budgets of labels: what is used of them, and what calls under way may take."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0004"
down_revision: Final = "0003"


def upgrade() -> None:
    op.create_table(
        "spent_tokens",
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("tokens >= 0", name=op.f("ck_spent_tokens_spending_is_not_negative")),
        sa.PrimaryKeyConstraint("budget", "period", name=op.f("pk_spent_tokens")),
    )
    op.create_table(
        "reserved_tokens",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("tokens >= 0", name=op.f("ck_reserved_tokens_reservations_are_not_negative")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_reserved_tokens_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "task_id", "budget", "period", name=op.f("pk_reserved_tokens")),
    )
    op.create_index("ix_reserved_tokens_budget_period", "reserved_tokens", ["budget", "period"])
