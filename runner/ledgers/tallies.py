"""Jobs by queue and state, kept by differences inside the commits that change states."""

from __future__ import annotations

from collections import Counter
from typing import Final

import sqlalchemy as sa

from runner.core.events import JobState
from runner.ledgers.bulk import Bulk
from runner.ledgers.driver import Connection
from runner.ledgers.schema import queue_counts

_QUEUED: Final = sa.select(queue_counts.c.queue, queue_counts.c.n).where(
    queue_counts.c.state == JobState.QUEUED.value, queue_counts.c.n > 0
)
_RUNNING: Final = sa.select(queue_counts.c.queue, queue_counts.c.n).where(
    queue_counts.c.state == JobState.RUNNING.value, queue_counts.c.n > 0
)
_ALL: Final = sa.select(queue_counts.c.queue, queue_counts.c.state, queue_counts.c.n).where(queue_counts.c.n > 0)
_RAISE: Final = Bulk(
    sa.text(
        "INSERT INTO queue_counts (queue, state, n) VALUES (:queue, :state, :difference)"
        " ON CONFLICT (queue, state) DO UPDATE SET n = queue_counts.n + excluded.n"
    )
)
_LOWER: Final = Bulk(sa.text("UPDATE queue_counts SET n = n + :difference WHERE queue = :queue AND state = :state"))


class Tally:
    """The differences that a commit makes."""

    def __init__(self) -> None:
        self._differences: Counter[tuple[str, JobState]] = Counter()

    def entered(self, queue: str, state: JobState, *, left: JobState | None, jobs: int = 1) -> None:
        """Jobs of a queue entered a state, and left another unless they are new."""
        self._differences[queue, state] += jobs
        if left is not None:
            self._differences[queue, left] -= jobs

    def write(self, connection: Connection) -> None:
        """Add the differences to the counts. In order of their keys: two writers that meet do not deadlock."""
        # Falling counts apart: a row that would be inserted below zero fails its check before it can conflict.
        for statement, sign in ((_RAISE, 1), (_LOWER, -1)):
            rows = [
                {"queue": queue, "state": state.value, "difference": difference}
                for (queue, state), difference in sorted(self._differences.items())
                if difference * sign > 0
            ]
            statement.run(connection, rows)


def queued(connection: Connection) -> dict[str, int]:
    """Jobs that wait, by queue."""
    return dict(connection.execute(_QUEUED).all())


def running(connection: Connection) -> dict[str, int]:
    """Jobs that run, by queue."""
    return dict(connection.execute(_RUNNING).all())


def depths(connection: Connection) -> dict[tuple[str, int], int]:
    """Jobs by queue and state."""
    return {(queue, state): n for queue, state, n in connection.execute(_ALL)}
