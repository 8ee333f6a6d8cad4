"""Jobs that nobody can replay: tried a few times, then set aside, and ended when somebody asks for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runner.core.errors import LeaseLost
from runner.core.events import JobState
from runner.core.filters import JobQuery
from runner.core.job import Claim
from runner.ledgers.memory import MemoryLedger
from runner.ports import Ledger
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import (
    SECOND,
    T0,
    UNREAD,
    Ear,
    append,
    claimed,
    ending,
    ids,
    job,
    release,
    running,
    steering,
    submitted,
    unread,
)


async def aside(ledger: Ledger, **options: object) -> Claim:
    """A job that is set aside, and its last claim."""
    claim = await running(ledger, **options)
    assert await ledger.set_back(unread(claim, max_failures=1))
    return claim


async def test_a_job_that_could_not_be_replayed_waits_for_its_next_try(ledger: Ledger) -> None:
    claim = await running(ledger)
    assert not await ledger.set_back(unread(claim, retry_at=T0 + 15 * SECOND))
    stands = await ledger.job(claim.summary.id)
    assert (stands.state, stands.error) == (JobState.QUEUED, None)
    assert await ledger.next_due(now=T0) == T0 + 15 * SECOND
    assert await claimed(ledger, now=T0 + 14 * SECOND) == []
    (again,) = await claimed(ledger, now=T0 + 15 * SECOND)
    assert (again.summary.id, again.token, again.frames) == (claim.summary.id, claim.token + 1, claim.frames)


async def test_after_so_many_tries_it_is_set_aside_and_says_why(ledger: Ledger) -> None:
    claim = await running(ledger)
    for _ in range(2):
        assert not await ledger.set_back(unread(claim))
        assert await ledger.set_aside() == 0
        (claim,) = await claimed(ledger)
    assert await ledger.set_back(unread(claim))
    assert await ledger.set_aside() == 1
    stands = await ledger.job(claim.summary.id)
    assert (stands.state, stands.error) == (JobState.QUEUED, UNREAD)
    assert await ledger.depths() == {("default", JobState.QUEUED.value): 1}
    assert await ledger.next_due(now=T0) is None
    assert await ledger.rescue(now=T0 + 9999 * SECOND, limit=10) == 0
    assert await claimed(ledger, now=T0 + 9999 * SECOND) == []


async def test_other_jobs_of_its_queue_are_claimed_past_it(ledger: Ledger) -> None:
    await aside(ledger)
    await submitted(ledger, job(7, rank=5))
    assert ids(await claimed(ledger, 1, queues={"default": 1})) == ["job-000007"]


async def test_one_that_is_cancelled_is_claimed_to_be_ended(ledger: Ledger) -> None:
    first = await aside(ledger)
    await ledger.request_cancel(first.summary.id, "enough")
    (claim,) = await claimed(ledger)
    assert (claim.summary.id, claim.cancel_reason) == (first.summary.id, "enough")
    await ledger.append(ending(claim, 2, state=JobState.CANCELLED, error=UNREAD))
    assert await ledger.set_aside() == 0
    ended = await ledger.job(claim.summary.id)
    assert (ended.state, ended.error) == (JobState.CANCELLED, UNREAD)


async def test_one_whose_deadline_passes_is_claimed_to_be_ended(ledger: Ledger) -> None:
    first = await aside(ledger, deadline=T0 + SECOND)
    assert await ledger.next_due(now=T0) == T0 + SECOND
    assert await claimed(ledger, now=T0) == []
    assert ids(await claimed(ledger, now=T0 + SECOND)) == [first.summary.id]


async def test_pausing_and_resuming_one_does_not_let_it_go_on(ledger: Ledger) -> None:
    first = await aside(ledger)
    paused = (await ledger.request_pause(first.summary.id, framed=steering)).job
    assert (paused.state, paused.error) == (JobState.PAUSED, UNREAD)
    assert await ledger.set_aside() == 1
    await ledger.request_resume(first.summary.id, framed=steering)
    assert await claimed(ledger) == []


async def test_who_lost_the_lease_sets_nothing_back(ledger: Ledger) -> None:
    late = await running(ledger)
    assert await ledger.rescue(now=T0 + 99 * SECOND, limit=10) == 1
    with pytest.raises(LeaseLost):
        await ledger.set_back(unread(late, max_failures=1))
    (claim,) = await claimed(ledger)
    with pytest.raises(LeaseLost):
        await ledger.set_back(unread(late, max_failures=1))
    await ledger.append(append(claim, 2))
    await ledger.append(release(claim, 3))
    with pytest.raises(LeaseLost):
        await ledger.set_back(unread(claim, max_failures=1))
    assert await ledger.set_aside() == 0


async def test_a_ledger_that_is_opened_anew_has_them_tried_again_from_the_beginning(
    anyio_backend: str, database: Path
) -> None:
    """Perhaps by a version that can read them."""
    ear = Ear()
    memory = MemoryLedger()

    def opened(runner: str) -> Ledger:
        return open_sql(database, runner=runner, observer=ear) if anyio_backend == "asyncio" else memory

    ledger = opened("runner-1")
    async with ledger.running():
        await submitted(ledger, job(1), job(2), job(3), job(4))
        first, second, third, fourth = await claimed(ledger)
        await ledger.set_back(unread(first, max_failures=1))
        await ledger.set_back(unread(second, max_failures=1))
        await ledger.request_pause("job-000002", framed=steering)
        await ledger.set_back(unread(third, retry_at=T0 + 15 * SECOND))
        await ledger.set_back(unread(fourth, max_failures=1))
        await ledger.request_cancel("job-000004", "")
        (fourth,) = await claimed(ledger)
        await ledger.append(ending(fourth, 2, state=JobState.CANCELLED, error=UNREAD))
    assert "jobs_tried_again" not in ear.notices
    ledger = opened("runner-2")
    async with ledger.running():
        assert await ledger.set_aside() == 0
        assert {stands.id: stands.error for stands in await ledger.jobs(JobQuery())} == {
            "job-000001": None,
            "job-000002": None,
            "job-000003": None,
            "job-000004": UNREAD,
        }
        claims = await claimed(ledger)
        assert ids(claims) == ["job-000001", "job-000003"]
        assert not await ledger.set_back(unread(claims[0], max_failures=2))
    assert ear.notices == (["jobs_tried_again"] if anyio_backend == "asyncio" else [])


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_job_whose_rows_are_gone_is_claimed_like_any_other(database: Path) -> None:
    """Were it not, nobody would say so, or no other would be claimed."""
    ledger = open_sql(database)
    async with ledger.running():
        await submitted(ledger, job(1), job(2, rank=1))
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for table in ("frames", "bodies"):
            connection.execute(f"DELETE FROM {table} WHERE job_id = 'job-000001'")  # noqa: S608  a name of ours
    async with ledger.running():
        gone, there = await claimed(ledger)
        assert (gone.summary.id, gone.plan, gone.inputs, gone.traceparent, gone.frames) == (
            "job-000001",
            b"",
            b"",
            "",
            (),
        )
        assert there.frames != ()


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_what_is_set_aside_is_not_among_what_claims_look_at(database: Path) -> None:
    ledger = open_sql(database)
    async with ledger.running():
        await aside(ledger)
        await submitted(ledger, job())
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT count(*) FROM jobs INDEXED BY ix_jobs_claimable WHERE state = 1"
                                  " AND held_until IS NULL AND error IS NULL").fetchone()  # fmt: skip
    assert rows == (1,)
