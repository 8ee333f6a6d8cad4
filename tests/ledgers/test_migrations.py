"""Migrations: from nothing to the tables that the code expects, once, and never backwards."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

import runner.ledgers
from runner.core.errors import LedgerDamaged
from runner.ledgers.migration import HEAD, bring_up_to_date
from runner.ledgers.schema import metadata
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import job, submitted


def _definitions(path: Path) -> dict[str, list[str]]:
    """Each table and index with the parts of its SQL; the order of constraints says nothing."""
    database = sqlite3.connect(path)
    rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'")
    found = {name: sorted(line.strip(" ,\t") for line in sql.splitlines()) for name, sql in rows}
    database.close()
    return found


def test_the_migrations_make_the_tables_that_the_code_expects(migrated: Path, tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'expected.db'}")
    metadata.create_all(engine)
    engine.dispose()
    assert _definitions(migrated) == _definitions(tmp_path / "expected.db")


def test_there_is_one_newest_revision_and_the_code_knows_it() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(runner.ledgers.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_a_migration_that_does_not_end_leaves_nothing(tmp_path: Path) -> None:
    """Migrations run in one transaction: a crash in their midst leaves an empty file, not half a schema."""
    path = tmp_path / "ledger.db"
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"isolation_level": None})
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        bring_up_to_date(connection, str(path))
        assert "jobs" in sa.inspect(connection).get_table_names()
        connection.exec_driver_sql("ROLLBACK")
    engine.dispose()
    assert _definitions(path) == {}


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
