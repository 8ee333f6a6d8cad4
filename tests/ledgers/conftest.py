from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from runner.ledgers.holder import Holder
from runner.ledgers.memory import MemoryLedger
from runner.ledgers.settings import LedgerSettings
from runner.ledgers.sql import SqlLedger
from runner.ports import Ledger, Observer, Quiet
from tests.ledgers.jobs import RUNNER, T0


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
    """An empty ledger, made once: to make one for every test would cost more than the tests."""
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


@pytest.fixture
async def ledger(anyio_backend: str, database: Path) -> AsyncIterator[Ledger]:
    """Each ledger in turn, on the backend where it is mostly used: what holds for one must hold for all."""
    opened: Ledger = open_sql(database) if anyio_backend == "asyncio" else MemoryLedger()
    async with opened.running():
        yield opened
