from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from runner.ledgers.holder import Holder
from runner.ledgers.memory import MemoryLedger
from runner.ledgers.settings import LedgerSettings
from runner.ledgers.sql import SqlLedger
from runner.ports import Ledger, Observer, Quiet
from tests.ledgers.jobs import RUNNER, T0

#: Opens a ledger on a file of its own.
Opener = Callable[..., SqlLedger]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_sql(path: Path, *, runner: str = RUNNER, observer: Observer | None = None, max_batch: int = 2000) -> SqlLedger:
    return SqlLedger(
        path,
        holder=Holder(runner, pid=4711, host="here", started=T0),
        observer=observer or Quiet(),
        settings=LedgerSettings(max_batch=max_batch),
    )


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger, made once: loading Alembic for every test would cost more than the tests."""
    path = tmp_path_factory.mktemp("migrated") / "ledger.db"

    async def make() -> None:
        async with open_sql(path).running():
            pass

    anyio.run(make)
    return path


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Path:
    """A file with an empty ledger."""
    return Path(shutil.copy(migrated, tmp_path / "ledger.db"))


@pytest.fixture(params=["sqlite", "memory"])
async def ledger(request: pytest.FixtureRequest, database: Path) -> AsyncIterator[Ledger]:
    """Each ledger in turn: what holds for one must hold for all."""
    opened: Ledger = open_sql(database) if request.param == "sqlite" else MemoryLedger()
    async with opened.running():
        yield opened
