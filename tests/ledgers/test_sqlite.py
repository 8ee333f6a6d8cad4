"""What holds for the SQLite ledger alone: one holder, told faults, isolation within a commit, and its own indexes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from runner.core.errors import (
    InvalidSettings,
    JobNotFound,
    LedgerDamaged,
    LedgerFull,
    LedgerHeld,
    LedgerUnavailable,
    QueueFull,
)
from runner.core.events import JobState
from runner.core.job import Append, Frame, NewJob, Submitted
from runner.ledgers.holder import Holder
from runner.ledgers.settings import LedgerSettings
from runner.ledgers.sql import SqlLedger
from runner.ports import Ledger
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import RUNNER, SECOND, T0, Ear, append, claimed, ending, ids, job, running, submitted

# ------------------------------------------------------------------------------------------------------- opening


async def test_everything_is_there_after_reopening(database: Path) -> None:
    async with open_sql(database).running():
        pass
    first = open_sql(database)
    async with first.running():
        claim = await running(first, request_id="r-1", labels={"a": "b"})
        await first.append(ending(claim, 2, 5))
        before = (await first.job(claim.summary.id), await first.changes(after=0, limit=9), await first.depths())
    second = open_sql(database)
    async with second.running():
        name = claim.summary.id
        assert (await second.job(name), await second.changes(after=0, limit=9), await second.depths()) == before
        assert await second.record(name) == f"record of {name}".encode()
        assert len(await second.due("directory", now=T0 + SECOND, limit=9, max_bytes=1 << 30)) == 1


async def test_a_descriptor_is_kept_once_for_all_jobs_that_are_submitted_with_it(database: Path) -> None:
    """In one commit, in a later one, and by the next daemon. With another priority its plan is another."""

    def planned(plan: bytes) -> NewJob:
        return msgspec.structs.replace(job(), plan=plan)

    ledger = open_sql(database)
    async with ledger.running():
        first = await submitted(ledger, planned(b"low"), planned(b"high"), planned(b"low"))
        first += await submitted(ledger, planned(b"low"))
        assert [(await ledger.body(each.id)).plan for each in first] == [b"low", b"high", b"low", b"low"]
    again = open_sql(database)
    async with again.running():
        await submitted(again, planned(b"low"), planned(b"high"))
    with closing(sqlite3.connect(database)) as kept:
        assert kept.execute("SELECT count(*) FROM bodies").fetchone() == (6,)
        assert kept.execute("SELECT count(*) FROM descriptors").fetchone() == (2,)


@pytest.mark.parametrize("part", ["descriptor", "content_type", "plan"])
async def test_a_descriptor_that_is_damaged_is_mended_by_the_next_job_that_is_submitted_with_it(
    database: Path, part: str
) -> None:
    """Else every job that is accepted with it from then on could not run; those of before can be read again."""
    ledger = open_sql(database)
    async with ledger.running():
        (before,) = await submitted(ledger, msgspec.structs.replace(job(), plan=b"low"))
        whole = await ledger.body(before.id)
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute(f"UPDATE descriptors SET {part} = CAST('damaged' AS BLOB)")  # noqa: S608  a test's own words
        assert await ledger.body(before.id) != whole
        (after,) = await submitted(ledger, msgspec.structs.replace(job(), plan=b"low"))
        assert [await ledger.body(each.id) for each in (before, after)] == [whole, whole]


async def test_jobs_of_dead_runners_are_claimable_at_once(database: Path) -> None:
    first = open_sql(database, runner="runner-1")
    async with first.running():
        claim = await running(first, queue="reports")
        await first.append(append(claim, 2, entered=JobState.RUNNING, started_at=T0))
    ear = Ear()
    second = open_sql(database, runner="runner-2", observer=ear)
    async with second.running():
        assert ear.notices == ["jobs_adopted"]
        assert await second.depths() == {("reports", JobState.QUEUED): 1}
        (again,) = await claimed(second, runner="runner-2")
        assert (again.token, len(again.frames)) == (2, 2)


async def test_a_second_daemon_is_told_who_holds_the_ledger(database: Path) -> None:
    async with open_sql(database).running():
        with pytest.raises(LedgerHeld, match=r"process 4711 on `here`.*2025-06-15 15:06:40.*data_dir"):
            async with open_sql(database, runner="runner-2").running():
                pass
    async with open_sql(database, runner="runner-2").running():
        pass


async def test_the_ledger_is_made_where_it_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deeper" / "ledger.db"
    ledger = SqlLedger(
        f"sqlite:///{path}", holder=Holder(RUNNER, 1, "here", T0), observer=Ear(), settings=LedgerSettings()
    )
    async with ledger.running():
        await submitted(ledger, job())
    assert path.exists()


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1/x", "sqlite://", "sqlite:///:memory:"])
def test_an_address_that_is_no_sqlite_file_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettings, match=r"ledger\.url"):
        SqlLedger(url, holder=Holder(RUNNER, 1, "here", T0), observer=Ear(), settings=LedgerSettings())


async def test_a_file_in_the_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable, match="data_dir"):
        async with open_sql(tmp_path / "file" / "ledger.db").running():
            pass


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"These are my notes. " * 500)
    with pytest.raises(LedgerDamaged, match=r"no SQLite database.*ledger\.url"):
        async with open_sql(path).running():
            pass
    assert path.read_bytes().startswith(b"These are my notes.")


def _tear(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


async def test_a_torn_file_is_told(database: Path) -> None:
    _tear(database)
    with pytest.raises(LedgerDamaged, match="restore"):
        async with open_sql(database).running():
            pass


async def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name)")
    other.close()
    with pytest.raises(LedgerDamaged, match="recipes"):
        async with open_sql(path).running():
            pass


async def test_a_locked_database_is_unavailable_and_works_once_it_is_free(database: Path) -> None:
    ledger = SqlLedger(
        database,
        holder=Holder(RUNNER, 1, "here", T0),
        observer=Ear(),
        settings=LedgerSettings(busy_timeout_seconds=0.01),
    )
    async with ledger.running():
        other = sqlite3.connect(database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="another process"):
            await ledger.submit([job()], max_queued={})
        with pytest.raises(LedgerUnavailable):
            await ledger.check()
        assert await ledger.depths() == {}
        other.execute("COMMIT")
        other.close()
        await submitted(ledger, job())
        await ledger.check()


# ----------------------------------------------------------------------------------------------------- full disks


async def test_a_full_ledger_says_so_loses_nothing_and_goes_on_with_more_room(database: Path) -> None:
    ledger = SqlLedger(
        database,
        holder=Holder(RUNNER, 1, "here", T0),
        observer=Ear(),
        settings=LedgerSettings(max_file_bytes=256 * 1024),
    )
    accepted: list[str] = []

    async def fill() -> None:
        for _ in range(999):
            accepted.extend(summary.id for summary in await submitted(ledger, job(title="x" * 999)))

    async with ledger.running():
        with pytest.raises(LedgerFull, match=r"make room.*ledger\.db"):
            await fill()
        with pytest.raises(LedgerFull):
            await ledger.check()
        assert accepted
        assert len(await ledger.changes(after=0, limit=999)) == len(accepted)
        assert sum((await ledger.depths()).values()) == len(accepted)
    ledger = open_sql(database)
    async with ledger.running():
        await ledger.check()
        assert sorted(ids(await claimed(ledger, 999))) == sorted(accepted)


_LIMITED = """
import resource, sys
import anyio
from pathlib import Path
from runner.core.errors import LedgerUnavailable
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import job, submitted

async def main():
    path = Path(sys.argv[1])
    ledger = open_sql(path)
    async with ledger.running():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        accepted = 0
        try:
            while accepted < 5000:
                await submitted(ledger, job(title="x" * 999))
                accepted += 1
        except LedgerUnavailable:
            pass
        assert 0 < accepted < 5000, accepted
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await submitted(ledger, job())
        await ledger.check()
        assert sum((await ledger.depths()).values()) == accepted + 1

anyio.run(main)
"""


def test_writing_goes_on_by_itself_once_the_system_allows_it(database: Path) -> None:
    """The operating system refuses to let the files grow, in the midst of commits, and then allows it again."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(database)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------- isolation within a commit


async def _together(ledger: SqlLedger, database: Path, *calls: Any) -> list[Any]:
    """Make calls that wait while a commit is held up, so that the next carries them all, in order. Their outcomes."""
    outcomes: list[Any] = [None] * len(calls)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def call(place: int, begun: anyio.Event, previous: anyio.Event) -> None:
        await previous.wait()
        begun.set()
        try:
            outcomes[place] = await calls[place]()
        except Exception as error:  # noqa: BLE001  the test looks at whatever came
            outcomes[place] = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ledger.check)
        await anyio.wait_all_tasks_blocked()
        turns = [anyio.Event() for _ in range(len(calls) + 1)]
        for place in range(len(calls)):
            tasks.start_soon(call, place, turns[place + 1], turns[place])
        turns[0].set()
        await turns[-1].wait()
        await anyio.wait_all_tasks_blocked()
        other.execute("COMMIT")
    other.close()
    return outcomes


async def test_writes_that_are_refused_do_not_disturb_their_commit(database: Path) -> None:
    ear = Ear()
    ledger = open_sql(database, observer=ear)
    async with ledger.running():
        claim = await running(ledger)
        ear.commits.clear()
        fine, too_much = job(), job()
        outcomes = await _together(
            ledger,
            database,
            lambda: ledger.append(append(claim, 9)),
            lambda: ledger.submit([fine], max_queued={"default": 1}),
            lambda: ledger.submit([too_much], max_queued={"default": 1}),
            lambda: ledger.append(append(claim, 2)),
            lambda: ledger.request_cancel("nowhere", ""),
            lambda: ledger.submit([job(title="\ud800")], max_queued={}),
            lambda: ledger.submit([job(created_at=1 << 70)], max_queued={}),
        )
        assert [type(outcome).__name__ for outcome in outcomes] == [
            "LeaseLost",
            "list",
            "list",
            "NoneType",
            "JobNotFound",
            "UnicodeEncodeError",
            "OverflowError",
        ]
        assert isinstance(outcomes[1][0], Submitted)
        assert isinstance(outcomes[2][0], QueueFull)
        assert await ledger.depths() == {("default", JobState.QUEUED): 1, ("default", JobState.RUNNING): 1}
        assert (await ledger.job(claim.summary.id)).last_sequence == 2


async def test_appends_of_one_job_in_one_commit_apply_in_order(database: Path) -> None:
    ear = Ear()
    ledger = open_sql(database, observer=ear)
    async with ledger.running():
        claim = await running(ledger)
        ear.commits.clear()
        changes: Sequence[Append] = [
            append(claim, 2, 3, progress=0.1, started_at=T0, entered=JobState.RUNNING),
            append(claim, 4, progress=0.2),
            append(claim, 4, data=b"another history"),
            ending(claim, 5),
            append(claim, 6),
        ]
        outcomes = await _together(
            ledger, database, *(lambda change=change: ledger.append(change) for change in changes)
        )
        assert [type(outcome).__name__ for outcome in outcomes] == ["NoneType"] * 2 + ["LeaseLost", "NoneType"] + [
            "LeaseLost"
        ]
        now = await ledger.job(claim.summary.id)
        assert (now.state, now.progress, now.last_sequence, now.started_at) == (JobState.SUCCEEDED, 1.0, 5, T0)
        assert max(ear.commits) >= len(changes)


async def test_what_is_rescued_in_a_commit_is_claimed_in_the_same(database: Path) -> None:
    ledger = open_sql(database)
    async with ledger.running():
        claim = await running(ledger)
        late = T0 + 99 * SECOND
        outcomes = await _together(
            ledger,
            database,
            lambda: claimed(ledger, now=late, lease=late + SECOND),
            lambda: ledger.rescue(now=late, limit=9),
            lambda: ledger.append(append(claim, 2)),
        )
        assert outcomes[1:] == [1, None]
        assert [(again.token, len(again.frames)) for again in outcomes[0]] == [(2, 2)]


async def test_a_broken_invariant_is_refused_by_the_schema(database: Path) -> None:
    ledger = open_sql(database)
    async with ledger.running():
        claim = await running(ledger)
        with pytest.raises(Exception, match="progress_is_a_fraction"):
            await ledger.append(append(claim, 2, progress=1.5))
        await ledger.append(append(claim, 2))


# ------------------------------------------------------------------------------------------------------- readers


async def test_readers_see_whole_commits_while_the_writer_writes(database: Path) -> None:
    ledger = open_sql(database)
    async with ledger.running():
        claim = await running(ledger)
        done = anyio.Event()
        reads = 0

        async def read() -> None:
            nonlocal reads
            while not done.is_set():
                frames = await ledger.frames(claim.summary.id, after=0, max_bytes=1 << 20)
                assert [frame.first for frame in frames] == list(range(1, len(frames) + 1))
                assert (await ledger.job(claim.summary.id)).last_sequence >= frames[-1].last
                reads += 1

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read)
            for sequence in range(2, 102):
                await ledger.append(append(claim, sequence))
            done.set()
        assert reads > 3


async def test_a_closed_ledger_says_so(database: Path) -> None:
    ledger: Ledger = open_sql(database)
    with pytest.raises(LedgerUnavailable, match="shutting down"):
        await ledger.job("nowhere")
    async with ledger.running():
        with pytest.raises(JobNotFound):
            await ledger.job("nowhere")
    with pytest.raises(LedgerUnavailable, match="shutting down"):
        await ledger.submit([job()], max_queued={})


async def test_large_frames_are_stored_as_they_are(database: Path) -> None:
    ledger = open_sql(database)
    async with ledger.running():
        claim = await running(ledger)
        data = bytes(range(256)) * 4096
        await ledger.append(msgspec.structs.replace(append(claim, 2), frame=Frame(2, 2, terminal=False, data=data)))
        (frame,) = await ledger.frames(claim.summary.id, after=1, max_bytes=1)
        assert frame.data == data
