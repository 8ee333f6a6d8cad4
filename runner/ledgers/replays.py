"""Jobs that their runners cannot replay: counted, set aside, and tried again when the ledger is opened anew.

A job that is set aside is a QUEUED one with an error. The index of what is claimable leaves it out, so that claims cost
the same however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from runner.core.errors import LeaseLost
from runner.core.events import JobState
from runner.ledgers.driver import Connection
from runner.ledgers.rows import LEASE_ENDED, QUEUED_AGAIN, failure_text
from runner.ledgers.schema import LEASED, QUEUED, UNREAD, jobs, number
from runner.ledgers.tallies import Tally
from runner.ledgers.writes import SettingBack

_HELD: Final = sa.select(jobs.c.state, jobs.c.queue, jobs.c.replay_failures).where(
    jobs.c.id == sa.bindparam("job"), jobs.c.lease_token == sa.bindparam("token"), LEASED
)
_THIS: Final = sa.update(jobs).where(jobs.c.id == sa.bindparam("job"))
_COUNTED: Final[dict[str, Any]] = {"replay_failures": sa.bindparam("failures")}
_PUT_OFF: Final = _THIS.values(
    **_COUNTED, **LEASE_ENDED, state=number(JobState.QUEUED), held_until=sa.bindparam("until"), error=sa.null()
)
_SET_ASIDE: Final = _THIS.values(**_COUNTED, **QUEUED_AGAIN, error=sa.bindparam("failure"))
_ASIDE: Final = sa.select(sa.func.count()).where(UNREAD, jobs.c.error.is_not(None))
_FORGIVE: Final = (
    sa.update(jobs)
    .where(UNREAD)
    .values(
        replay_failures=sa.literal_column("0"),
        error=sa.null(),
        held_until=sa.case((QUEUED, jobs.c.not_before), else_=sa.null()),
    )
)


def set_back(connection: Connection, writes: Sequence[SettingBack]) -> list[bool | Exception]:
    """One after the other."""
    return [_set_back(connection, write) for write in writes]


def _set_back(connection: Connection, write: SettingBack) -> bool | Exception:
    failure = write.failure
    row = connection.execute(_HELD, {"job": failure.job_id, "token": failure.token}).first()
    if row is None:
        return LeaseLost(failure.job_id)
    state, queue, failures = row
    aside: bool = failures + 1 >= failure.max_failures
    counted = {"job": failure.job_id, "failures": failures + 1}
    if aside:
        connection.execute(_SET_ASIDE, counted | {"failure": failure_text(failure.error)})
    else:
        connection.execute(_PUT_OFF, counted | {"until": failure.retry_at})
    tally = Tally()
    tally.entered(queue, JobState.QUEUED, left=JobState(state))
    tally.write(connection)
    return aside


def set_aside(connection: Connection) -> int:
    """Jobs that are set aside."""
    count: int = connection.execute(_ASIDE).value()
    return count


def forgive(connection: Connection) -> int:
    """All may be tried again, at once. Answers how many were set aside."""
    aside = set_aside(connection)
    connection.execute(_FORGIVE)
    return aside
