"""A hold ends with its process, tells faults of the disk, and finds out when its files are taken away."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.errors import LedgerFull, LedgerHeld, LedgerUnavailable
from runner.ledgers.holder import Holder, held
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import job, submitted

ME = Holder("runner-1", pid=4711, host="here", started=0)


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "ledger.db.lock").symlink_to("/dev/full")
    with pytest.raises(LedgerFull, match=r"ledger\.db\.lock` cannot be written: its disk is full"):
        held(tmp_path / "ledger.db", ME).__enter__()


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.db.lock").mkdir()
    with pytest.raises(LedgerUnavailable, match="cannot be written"):
        held(tmp_path / "ledger.db", ME).__enter__()


def test_the_lock_says_who_holds_it_and_nobody_afterwards(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    (tmp_path / "ledger.db.lock").write_bytes(b"x" * 2_000)
    with held(database, ME), pytest.raises(LedgerHeld, match="process 4711 on `here`"), held(database, ME):
        pass
    assert (tmp_path / "ledger.db.lock").read_bytes() == b""


def test_a_hold_notices_that_its_lock_was_removed_or_replaced(tmp_path: Path) -> None:
    database, lock = tmp_path / "ledger.db", tmp_path / "ledger.db.lock"
    with held(database, ME) as hold:
        hold.verify()
        lock.unlink()
        with pytest.raises(LedgerUnavailable, match="was removed or replaced"):
            hold.verify()
        with held(database, ME) as other:
            other.verify()
            with pytest.raises(LedgerUnavailable, match="was removed or replaced"):
                hold.verify()


@pytest.mark.parametrize("name", ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"])
async def test_nothing_is_accepted_into_a_ledger_whose_file_is_gone_until_it_is_back(database: Path, name: str) -> None:
    ledger, file, elsewhere = open_sql(database), database.with_name(name), database.with_name("elsewhere")
    async with ledger.running():
        await submitted(ledger, job(1))
        file.rename(elsewhere)
        with pytest.raises(LedgerUnavailable, match=f"{name}`.*restart|replaced.*{name}`"):
            await submitted(ledger, job(2))
        with pytest.raises(LedgerUnavailable, match=f"{name}`.*restart|replaced.*{name}`"):
            await ledger.check()
        file.touch()
        with pytest.raises(LedgerUnavailable, match="was removed or replaced"):
            await submitted(ledger, job(3))
        elsewhere.rename(file)
        await submitted(ledger, job(4))
    async with open_sql(database).running():
        pass
