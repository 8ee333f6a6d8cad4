"""Token budgets of labels: reserved before a call, spent in the commit that tells what it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import sqlalchemy as sa

from runner.core.budgets import Fit, fit
from runner.core.errors import LeaseLost
from runner.core.job import Append, Reservation, Shortfall
from runner.ledgers.bulk import Bulk
from runner.ledgers.driver import Connection
from runner.ledgers.schema import jobs, reserved_tokens, spent_tokens
from runner.ledgers.writes import Reserving

_PLACE: Final = {"budget": sa.bindparam("budget", type_=sa.Text), "period": sa.bindparam("period", type_=sa.Text)}
_HELD: Final = sa.select(jobs.c.id).where(
    jobs.c.id == sa.bindparam("job"), jobs.c.lease_token == sa.bindparam("token"), jobs.c.lease_owner.is_not(None)
)
_SPENT: Final = sa.select(spent_tokens.c.tokens).where(
    spent_tokens.c.budget == _PLACE["budget"], spent_tokens.c.period == _PLACE["period"]
)
#: What an earlier claim reserved is not under way any more: its runner is dead, or gave the job back.
_RESERVED: Final = (
    sa.select(sa.func.coalesce(sa.func.sum(reserved_tokens.c.tokens), 0))
    .join_from(reserved_tokens, jobs)
    .where(
        reserved_tokens.c.budget == _PLACE["budget"],
        reserved_tokens.c.period == _PLACE["period"],
        jobs.c.lease_owner.is_not(None),
        jobs.c.lease_token == reserved_tokens.c.lease_token,
    )
)
_RESERVE: Final = Bulk(
    sa.text(
        "INSERT INTO reserved_tokens (job_id, task_id, budget, period, lease_token, tokens)"
        " VALUES (:job, :task, :budget, :period, :token, :tokens)"
        " ON CONFLICT (job_id, task_id, budget, period) DO UPDATE SET lease_token = excluded.lease_token, tokens ="
        " excluded.tokens"
        " + CASE WHEN reserved_tokens.lease_token = excluded.lease_token THEN reserved_tokens.tokens ELSE 0 END"
    )
)
_SPEND: Final = Bulk(
    sa.text(
        "INSERT INTO spent_tokens (budget, period, tokens) VALUES (:budget, :period, :tokens)"
        " ON CONFLICT (budget, period) DO UPDATE SET tokens = spent_tokens.tokens + excluded.tokens"
    )
)
_SETTLE: Final = Bulk(
    sa.delete(reserved_tokens).where(
        reserved_tokens.c.job_id == sa.bindparam("job"), reserved_tokens.c.task_id == sa.bindparam("task")
    )
)
#: When the ledger is opened, and nobody holds a job.
_CLEAR: Final = sa.delete(reserved_tokens)


def reserve(connection: Connection, writes: Sequence[Reserving]) -> list[Shortfall | Exception | None]:
    """One after the other: each finds what the one before took."""
    return [_reserve(connection, write.reservation) for write in writes]


def _reserve(connection: Connection, asked: Reservation) -> Shortfall | Exception | None:
    if connection.execute(_HELD, {"job": asked.job_id, "token": asked.token}).first() is None:
        return LeaseLost(asked.job_id)
    for share in asked.shares:
        place = {"budget": share.budget, "period": share.period}
        used = spent(connection, share.budget, share.period)
        reserved = int(connection.execute(_RESERVED, place).value())
        if fit(limit=share.limit, used=used, reserved=reserved, tokens=asked.tokens) is not Fit.NOW:
            return Shortfall(share, used, reserved)
    task = {"job": asked.job_id, "task": asked.task_id, "token": asked.token, "tokens": asked.tokens}
    _RESERVE.run(connection, [{**task, "budget": share.budget, "period": share.period} for share in asked.shares])
    return None


def settle(connection: Connection, changes: Iterable[Append]) -> None:
    """What the attempts took comes in place of what they had reserved."""
    spendings: Counter[tuple[str, str]] = Counter()
    settled: list[dict[str, str]] = []
    for change in changes:
        settled += [{"job": change.job_id, "task": task} for task in change.settled]
        for spending in change.spent:
            spendings[spending.budget, spending.period] += spending.tokens
    _SETTLE.run(connection, settled)
    # In order of their keys: two writers that meet do not deadlock.
    _SPEND.run(
        connection,
        [
            {"budget": budget, "period": period, "tokens": tokens}
            for (budget, period), tokens in sorted(spendings.items())
        ],
    )


def clear(connection: Connection) -> None:
    """Nothing is under way: nobody holds any job."""
    connection.execute(_CLEAR)


def spent(connection: Connection, budget: str, period: str) -> int:
    """What was used of a budget in a period."""
    return int(connection.execute(_SPENT, {"budget": budget, "period": period}).value() or 0)
