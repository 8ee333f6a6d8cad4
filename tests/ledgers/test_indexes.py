"""With a million jobs a statement that reads the whole table stops the daemon: each hot one uses its own index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from runner.core.events import JobState
from runner.core.filters import Comparison
from runner.ledgers import answers, claims, journal, outbox, queries, replays, submissions
from runner.ledgers.schema import jobs
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import job, submitted


def _reading() -> Iterator[tuple[str, Any]]:
    for module in (answers, claims, journal, outbox, queries, replays, submissions):
        for name, statement in vars(module).items():
            if isinstance(statement, (sa.Select, sa.Update)):
                yield f"{module.__name__}.{name}", statement


def _plan(database: Path, statement: Any) -> list[str]:
    sql = str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))
    with closing(sqlite3.connect(database)) as connection:
        names = dict.fromkeys(statement.compile(dialect=sqlite.dialect(paramstyle="named")).params, 1) | {"among": "[]"}
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", names)]


@pytest.fixture
async def filled(database: Path) -> Path:
    ledger = open_sql(database)
    async with ledger.running():
        await submitted(ledger, *(job() for _ in range(50)))
    return database


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_no_statement_reads_a_whole_table(filled: Path) -> None:
    for name, statement in _reading():
        for step in _plan(filled, statement):
            # A virtual table is the list of ids that was given.
            narrow = "USING" in step or "VIRTUAL TABLE" in step or not step.startswith("SCAN")
            assert narrow, (name, step)
            # These two indexes hold every job of their kind: reading one from end to end is no better.
            assert not step.startswith(
                ("SCAN jobs USING INDEX ix_jobs_created_at", "SCAN jobs USING INDEX ix_jobs_waiting")
            ), (
                name,
                step,
            )


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("_CANCELLING", "ix_jobs_cancelling"),
        ("_OVERDUE", "ix_jobs_mortal"),
        ("_UNHOLD", "ix_jobs_held"),
        ("_FIRST_OF_QUEUE", "ix_jobs_claimable"),
        ("_EXPIRED", "ix_jobs_leases"),
    ],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_each_look_for_work_has_an_index_of_its_own(filled: Path, statement: str, index: str) -> None:
    assert any(index in step for step in _plan(filled, getattr(claims, statement)))


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_jobs_that_are_set_aside_are_counted_without_reading_the_others(filled: Path) -> None:
    (step,) = _plan(filled, replays._ASIDE)
    assert step == "SEARCH jobs USING INDEX ix_jobs_unread (error>?)"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_failed_jobs_are_found_without_reading_the_others(filled: Path) -> None:
    failed = sa.select(jobs.c.id).where(queries.condition(Comparison("state", "", "=", JobState.FAILED)))
    (step,) = _plan(filled, failed.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(50))
    assert "ix_jobs_ended" in step
