"""Migrations: from any earlier version to the tables that a new database has, once, and never backwards."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

import runner.ledgers
from runner.core.errors import LedgerDamaged
from runner.core.events import JobState
from runner.core.filters import JobQuery
from runner.core.job import Body
from runner.ledgers.migration import HEAD, bring_up_to_date
from runner.ledgers.schema import metadata
from runner.ports import Quiet
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import T0, Ear, claimed, job, steering, submitted


def _definitions(path: Path) -> dict[str, list[str]]:
    """Each table and index with the parts of its SQL; the order of constraints, and where lines end, says nothing."""
    database = sqlite3.connect(path)
    rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    # A table that was made anew under another name stands in quotes.
    found = {name: sorted(filter(None, re.split(r",\s*|\s*\n\s*", sql.replace('"', "")))) for name, sql in rows}
    database.close()
    return found


def test_the_migrations_make_the_tables_that_a_new_database_has(migrated: Path, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(_at(path, HEAD)) as old, closing(sqlite3.connect(migrated)) as new:
        assert _definitions(path) == _definitions(migrated)
        for table in [*metadata.tables, "alembic_version"]:
            columns = f"SELECT name, type, [notnull], dflt_value, pk FROM pragma_table_info('{table}')"  # noqa: S608  a name of ours
            assert old.execute(columns).fetchall() == new.execute(columns).fetchall()
        revision = "SELECT version_num FROM alembic_version"
        assert old.execute(revision).fetchall() == new.execute(revision).fetchall() == [(HEAD,)]


def test_there_is_one_newest_revision_and_the_code_knows_it() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(runner.ledgers.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


@pytest.mark.parametrize("revision", [None, "0001"])
def test_a_migration_that_does_not_end_leaves_what_was_there(tmp_path: Path, revision: str | None) -> None:
    """Migrations run in one transaction: a crash in their midst leaves an empty file, or the earlier schema, not half
    of one.
    """
    path = tmp_path / "ledger.db"
    if revision is not None:
        _at(path, revision).close()
    before = _definitions(path)
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"isolation_level": None})
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        bring_up_to_date(connection, str(path))
        assert "answers" in sa.inspect(connection).get_table_names()
        connection.exec_driver_sql("ROLLBACK")
    engine.dispose()
    assert _definitions(path) == before
    assert (before == {}) == (revision is None)


def _at(path: Path, revision: str) -> sqlite3.Connection:
    """A database as an earlier version made it."""
    config = Config()
    config.set_main_option("script_location", str(Path(runner.ledgers.__file__).parent / "migrations"))
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"isolation_level": None})
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.exec_driver_sql("COMMIT")
    engine.dispose()
    return sqlite3.connect(path, isolation_level=None)


_OLD_JOB: Final = {
    "namespace": "default", "queue": "default", "rank": T0, "priority": 2, "title": "Weekly digest", "alt_id": "alt",
    "labels": '{"team":"blue"}', "request_sha256": b"sha", "created_at": T0, "progress": 0.5, "last_sequence": 2,
    "task_count": 2, "lease_token": 3, "descriptor_sha256": "ab" * 32,
}  # fmt: skip


def _insert(database: sqlite3.Connection, table: str, **values: object) -> None:
    marks = ", ".join("?" * len(values))
    database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", list(values.values()))  # noqa: S608  a test's own words


async def test_a_ledger_of_before_the_first_release_is_left_alone_and_said_to_be_in_the_way(tmp_path: Path) -> None:
    """Its revision is that of a later one, and the states of its jobs have other numbers: 3 was SUCCEEDED."""
    path = tmp_path / "ledger.db"
    old = _at(path, "0001")
    old.execute("PRAGMA ignore_check_constraints = ON")
    _insert(old, "jobs", id="a", request_id="a", **_OLD_JOB, state=3, ended_at=T0)
    old.close()
    before = _definitions(path)
    with pytest.raises(LedgerDamaged, match=r"from schema `0001` to .*; move it away together with its `-wal`"):
        async with open_sql(path).running():
            pass
    assert _definitions(path) == before


async def test_jobs_of_before_there_were_pauses_are_all_there_with_what_belongs_to_them(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old = _at(path, "0002")
    lease = {"lease_owner": "runner-0", "lease_expires_at": T0}
    states: dict[str, dict[str, object]] = {
        "waits": {"state": 1, "held_until": T0 + 5, "not_before": T0 + 5},
        "runs": {"state": 2, "started_at": T0, "cancel_reason": "enough", **lease},
        "ended": {"state": 4, "ended_at": T0 + 9},
    }
    for name, values in states.items():
        _insert(old, "jobs", id=name, request_id=name, **_OLD_JOB, **values)
        _insert(old, "bodies", job_id=name, descriptor=b"{}", content_type="", plan=b"p", inputs=b"", traceparent="")
        _insert(old, "frames", job_id=name, first=1, last=2, terminal=0, entered=1, data=name.encode())
        _insert(old, "queue_counts", queue="default", state=values["state"], n=1)
    _insert(old, "signals", job_id="waits", task_id="t", approved=1, comment="", sender="", data=b"")
    old.close()

    ledger = open_sql(path)
    async with ledger.running():
        assert {found.id: found.state.name for found in await ledger.jobs(JobQuery())} == {
            "waits": "QUEUED",
            "runs": "QUEUED",
            "ended": "SUCCEEDED",
        }
        assert not any(found.pause_requested for found in await ledger.jobs(JobQuery()))
        assert [frame.data for frame in await ledger.frames("ended", after=0, max_bytes=100)] == [b"ended"]
        assert (await ledger.request_pause("waits", framed=steering)).job.state is JobState.PAUSED
        assert (await ledger.body("waits")).plan == b"p"
        (claim,) = await claimed(ledger)
        assert (claim.summary.id, claim.token, claim.cancel_reason) == ("runs", 4, "enough")
    with closing(sqlite3.connect(path)) as new:
        assert new.execute("PRAGMA foreign_key_check").fetchall() == []
        assert new.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        new.execute("PRAGMA foreign_keys = ON")
        new.execute("DELETE FROM jobs WHERE id = 'waits'")
        assert new.execute("SELECT count(*) FROM signals").fetchone() == (0,)


async def test_descriptors_of_before_they_were_kept_once_are_and_belong_to_the_jobs_to_which_they_did(
    tmp_path: Path,
) -> None:
    """More jobs than are copied at a time; what differs in one part alone is another descriptor."""
    path = tmp_path / "ledger.db"
    kinds = [(b"{}", "", b"p"), (b"{}", "", b"q"), (b"{}", "application/json", b"p"), (b"[]", "", b"p")]
    old = _at(path, "0006")
    old.execute("BEGIN")
    for number in range(1_101):
        name, (descriptor, content_type, plan) = f"job-{number:04d}", kinds[number % len(kinds)]
        _insert(old, "jobs", id=name, request_id=name, **_OLD_JOB, pause_requested=0, state=4, ended_at=T0)
        body = {"descriptor": descriptor, "content_type": content_type, "plan": plan, "inputs": name.encode()}
        _insert(old, "bodies", job_id=name, **body, traceparent="")
    old.execute("COMMIT")
    old.close()

    ear = Ear()
    ledger = open_sql(path, observer=ear)
    async with ledger.running():
        assert ear.notices == ["ledger_migrating"]
        for number in (0, 1, 2, 3, 499, 500, 501, 1_100):
            name = f"job-{number:04d}"
            assert await ledger.body(name) == Body(*kinds[number % len(kinds)], name.encode())
    with closing(sqlite3.connect(path)) as new:
        assert new.execute("SELECT count(*) FROM descriptors").fetchone() == (len(kinds),)
        assert new.execute("SELECT count(*) FROM bodies").fetchone() == (1_101,)
        assert new.execute("PRAGMA foreign_key_check").fetchall() == []


async def test_descriptors_are_moved_without_room_for_all_of_them_twice(tmp_path: Path) -> None:
    """What is moved is removed at once: neither the file, nor memory while the old table is dropped, grows by it."""
    path = tmp_path / "ledger.db"
    old = _at(path, "0006")
    old.execute("BEGIN")
    for number in range(2_000):
        name = f"job-{number:04d}"
        _insert(old, "jobs", id=name, request_id=name, **_OLD_JOB, pause_requested=0, state=4, ended_at=T0)
        body = {"descriptor": name.encode() * 1_000, "content_type": "", "plan": b"p", "inputs": b""}
        _insert(old, "bodies", job_id=name, **body, traceparent="")
    old.execute("COMMIT")
    (before,) = old.execute("PRAGMA page_count").fetchone()
    old.close()

    async with open_sql(path).running():
        pass
    with closing(sqlite3.connect(path)) as new:
        assert new.execute("PRAGMA page_count").fetchone()[0] < 1.5 * before
        assert new.execute("SELECT count(*) FROM descriptors").fetchone() == (2_000,)


def test_a_table_is_not_made_anew_where_that_would_delete_what_refers_to_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    _at(path, "0002").close()
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"isolation_level": None})
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(RuntimeError, match="foreign keys are on"):
            bring_up_to_date(connection, str(path))
        connection.exec_driver_sql("ROLLBACK")
    engine.dispose()


def test_ctrl_c_while_a_ledger_is_migrated_waits_for_its_thread(tmp_path: Path) -> None:
    """It cancels past all shields; what was closed under the thread's hands ended the process with a fault."""
    path = tmp_path / "ledger.db"
    _at(path, "0006").close()
    over: list[str] = []

    async def opened() -> None:
        async with open_sql(path, observer=Slow()).running():
            pass

    async def play() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(opened())
        Slow.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert over == ["ledger_migrating"]

    class Slow(Quiet):
        cancel: ClassVar[Callable[[], object]]

        def notice(self, event: str, **_: Any) -> None:
            Slow.cancel()
            threading.Event().wait(0.3)
            over.append(event)

    asyncio.run(play())


async def test_a_ledger_of_a_newer_version_is_not_touched(database: Path) -> None:
    newer = sqlite3.connect(database)
    newer.execute("UPDATE alembic_version SET version_num = '0999'")
    newer.commit()
    newer.close()
    with pytest.raises(LedgerDamaged, match=r"newer alt-runner.*install"):
        async with open_sql(database).running():
            pass


async def test_opening_again_migrates_nothing(database: Path) -> None:
    before = _definitions(database)
    async with open_sql(database).running():
        pass
    ledger = open_sql(database)
    async with ledger.running():
        await submitted(ledger, job())
    assert _definitions(database) == before
