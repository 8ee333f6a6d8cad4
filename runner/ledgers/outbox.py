"""The outbox: records that sinks have not confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from runner.core.job import OutboxEntry
from runner.core.plan import Instant
from runner.ledgers.bulk import Bulk
from runner.ledgers.driver import Connection
from runner.ledgers.schema import outbox, records
from runner.ledgers.writes import Delivery, Postponement

_DUE: Final = (
    sa.select(
        outbox.c.id,
        outbox.c.sink,
        outbox.c.job_id,
        records.c.execution_id,
        records.c.ended_at,
        records.c.record,
        outbox.c.attempts,
    )
    .join_from(outbox, records, outbox.c.job_id == records.c.job_id)
    .where(outbox.c.sink == sa.bindparam("sink"), outbox.c.due_at <= sa.bindparam("now"))
    .order_by(outbox.c.due_at, outbox.c.id)
    .limit(sa.bindparam("up_to", type_=sa.Integer))
)
_DELIVERED: Final = Bulk(sa.delete(outbox).where(outbox.c.id == sa.bindparam("entry")))
_PUT_OFF: Final = Bulk(
    sa.update(outbox)
    .where(outbox.c.id == sa.bindparam("entry"))
    .values(due_at=sa.bindparam("until"), attempts=outbox.c.attempts + sa.literal_column("1"))
)


def due(connection: Connection, sink: str, now: Instant, limit: int, max_bytes: int) -> list[OutboxEntry]:
    """What is due, longest due first."""
    found: list[OutboxEntry] = []
    size = 0
    rows = connection.execute(_DUE, {"sink": sink, "now": now, "up_to": limit})
    for entry, name, job_id, execution_id, ended_at, record, attempts in rows:
        found.append(
            OutboxEntry(
                id=entry,
                sink=name,
                job_id=job_id,
                execution_id=execution_id,
                ended_at=ended_at,
                record=record,
                attempts=attempts,
            )
        )
        size += len(record)
        if size >= max_bytes:
            break
    rows.close()
    return found


def deliver(connection: Connection, writes: Sequence[Delivery]) -> list[Exception | None]:
    """Take entries out."""
    rows = [{"entry": entry} for write in writes for entry in write.entries]
    _DELIVERED.run(connection, rows)
    return [None for _ in writes]


def put_off(connection: Connection, writes: Sequence[Postponement]) -> list[Exception | None]:
    """Let entries wait."""
    rows = [{"entry": entry, "until": write.until} for write in writes for entry in write.entries]
    _PUT_OFF.run(connection, rows)
    return [None for _ in writes]
