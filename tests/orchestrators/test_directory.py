"""The endpoints there are, by the names that tasks use, looked up from anywhere."""

from __future__ import annotations

import anyio.lowlevel
import anyio.to_thread
import pytest

from runner.orchestrators.endpoints import open_orchestrators
from runner.orchestrators.settings import EndpointSettings, OrchestratorSettings
from runner.ports import Quiet
from tests.orchestrators.stage import RunningClock


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("running", [True, False])
async def test_names_are_looked_up_where_there_is_no_event_loop(running: bool) -> None:
    """Large descriptors are checked in threads. Only a daemon that runs waits for servers that have yet to come."""
    pool = EndpointSettings(
        name="main", group="pool", url="http://127.0.0.1:1", takes_registrations=True, health_interval_seconds=0
    )
    opened = open_orchestrators(
        OrchestratorSettings(endpoints=(pool,)),
        clock=RunningClock(),
        observer=Quiet(),
        chance=lambda: 0.0,
        new_id=lambda: "lease",
        looked_after=running,
    )
    async with opened as fleet:
        await anyio.lowlevel.checkpoint()

        def found() -> list[bool]:
            return [name in fleet.directory for name in ("main", "pool", "new")]

        assert await anyio.to_thread.run_sync(found) == [True, True, running]
