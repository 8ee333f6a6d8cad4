"""A descriptor and its plan are kept once for all jobs that were submitted with them.

Each job had a copy, which was nine tenths of a ledger in which many had the same. Rows are moved by keys, some
hundred at a time, so that a large ledger does not have to fit into memory, and the file does not have to hold both.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
import sqlalchemy as sa
from alembic import op

revision: Final = "0007"
down_revision: Final = "0006"

#: Rows at a time.
_PORTION: Final = 500

_OLD: Final = sa.table(
    "bodies",
    *map(sa.column, ("job_id", "descriptor", "content_type", "plan", "inputs", "traceparent")),
)
_DESCRIPTORS: Final = sa.text(
    "INSERT INTO descriptors (id, descriptor, content_type, plan) VALUES (:id, :descriptor, :content_type, :plan)"
    " ON CONFLICT (id) DO NOTHING"
)
_BODIES: Final = sa.text(
    "INSERT INTO bodies_0007 (job_id, descriptor_id, inputs, traceparent) VALUES (:job_id, :id, :inputs, :traceparent)"
)


def upgrade() -> None:
    op.create_table(
        "descriptors",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("descriptor", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("plan", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_descriptors")),
    )
    op.create_table(
        "bodies_0007",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("descriptor_id", sa.LargeBinary(), nullable=False),
        sa.Column("inputs", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["descriptor_id"], ["descriptors.id"], name=op.f("fk_bodies_descriptor_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_bodies_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_bodies")),
    )
    _move(op.get_bind())
    op.drop_table("bodies")
    op.rename_table("bodies_0007", "bodies")


def _move(connection: sa.Connection) -> None:
    moved = ""
    while rows := connection.execute(
        sa.select(_OLD).where(_OLD.c.job_id > moved).order_by(_OLD.c.job_id).limit(_PORTION)
    ).all():
        made = [row._asdict() | {"id": _digest(row)} for row in rows]
        connection.execute(_DESCRIPTORS, made)
        connection.execute(_BODIES, made)
        moved = rows[-1].job_id
        # SQLite keeps in memory what one statement removes: dropping the table with them took as much as they did.
        connection.execute(sa.delete(_OLD).where(_OLD.c.job_id <= moved))


def _digest(row: sa.Row[tuple[object, ...]]) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode((row.descriptor, row.content_type, row.plan))).digest()
