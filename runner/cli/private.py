"""A daemon of this process's own, for as long as a command lasts: nothing else finds it, and nothing is left of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import msgspec

from runner import daemon
from runner.cli.exits import Unusable
from runner.core.errors import first_cause
from runner.core.secret import Secret
from runner.orchestrators.settings import EndpointSettings, without_certificates
from runner.orchestrators.simulated import serve_simulated
from runner.settings import RecordSettings, Settings

#: Bytes of a socket's path that every system takes.
_PATH: Final = 100


@asynccontextmanager
async def private_daemon(
    settings: Settings, directory: Path, *, simulate: bool, leave: Callable[[], None]
) -> AsyncIterator[str]:
    """A daemon inside the context, which keeps everything but the records in `directory`; gives its address.

    It is drained when the context is left, and all records of jobs that ended are written then. With `simulate` a
    simulated orchestrator stands for each endpoint of the settings. `leave` ends the process beside code that ignores
    its cancellation.

    Raises Unusable: if the directory's path is too long for a socket. Raises what `daemon.serve` raises.
    """
    socket = directory / "grpc"
    if len(bytes(socket)) > _PATH:
        raise Unusable(f"`{directory}` is too long a path for a socket; let TMPDIR name a shorter directory")
    embedded = daemon.Embedded(anyio.Event(), socket, leave)
    async with AsyncExitStack() as stack:
        held = _kept_in(directory, settings)
        if simulate:
            simulator = await stack.enter_async_context(serve_simulated())
            held = _answered_by(simulator.url, held)
        yield await stack.enter_async_context(_serving(held, embedded))


@asynccontextmanager
async def _serving(settings: Settings, embedded: daemon.Embedded) -> AsyncIterator[str]:
    ended = anyio.Event()

    async def serve(*, task_status: anyio.abc.TaskStatus[str]) -> None:
        try:
            await daemon.serve(settings, ready=lambda at: task_status.started(at.grpc), embedded=embedded)
        finally:
            ended.set()

    try:
        async with anyio.create_task_group() as group:
            address: str = await group.start(serve)
            try:
                yield address
            finally:
                embedded.stopping.set()
                with anyio.CancelScope(shield=True):
                    await ended.wait()
    except BaseExceptionGroup as errors:
        raise first_cause(errors) from errors


def _kept_in(directory: Path, settings: Settings) -> Settings:
    replaced = msgspec.structs.replace
    return replaced(
        settings,
        data_dir=str(directory),
        ledger=replaced(settings.ledger, url=""),
        records=RecordSettings(directory=str(settings.record_directory)),
        http=replaced(settings.http, enabled=False),
        # Nobody could mend a key meanwhile.
        orchestrator=replaced(settings.orchestrator, wait_for_operators=False),
    )


def _answered_by(url: str, settings: Settings) -> Settings:
    """No key is sent to what only simulates, and no certificate is shown to it."""
    replaced = msgspec.structs.replace
    orchestrator = without_certificates(settings.orchestrator)
    endpoints = orchestrator.endpoints or (EndpointSettings(url=url),)
    simulated = tuple(replaced(endpoint, url=url, api_key=Secret(), every_address=False) for endpoint in endpoints)
    return replaced(settings, orchestrator=replaced(orchestrator, endpoints=simulated))
