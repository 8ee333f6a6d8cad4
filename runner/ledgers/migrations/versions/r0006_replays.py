"""Claims that could not be replayed are counted, and jobs set aside for it are not claimed."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("replay_failures", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.drop_index("ix_jobs_claimable", "jobs")
    claimable = "state = 1 AND held_until IS NULL AND error IS NULL"
    op.create_index("ix_jobs_claimable", "jobs", ["queue", "rank", "id"], **_where(claimable))
    op.create_index("ix_jobs_unread", "jobs", ["error"], **_where("replay_failures > 0 AND ended_at IS NULL"))


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}
