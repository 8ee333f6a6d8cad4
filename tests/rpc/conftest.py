"""A real engine on a real SQLite ledger behind a real gRPC server, with handlers that tests steer."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import grpc.aio
import pytest
import uuid_utils
from altrunner.v1 import job_service_pb2_grpc

from runner.core.alt import DescriptorLimits
from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.retry import RetryPolicy
from runner.engine.bell import Bell
from runner.engine.broadcast import Broadcast
from runner.engine.equipment import Equipment
from runner.engine.journal import Journal
from runner.engine.runner import Runner
from runner.engine.settings import EngineSettings, QueueSettings
from runner.engine.slots import Slots
from runner.handlers.approval import Approval
from runner.ledgers.holder import Holder
from runner.ledgers.settings import LedgerSettings
from runner.ledgers.sql import SqlLedger
from runner.ports import Attempt, FileLeft, Fleet, Outcome, Quiet
from runner.rpc.server import Server, ServerOptions, listening
from tests.loops import GRPC_BACKEND
from tests.rpc.fleet import PlayedFleet


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return GRPC_BACKEND


@dataclass
class WallClock:
    #: Seconds.
    ahead: int = 0

    def now(self) -> int:
        return time.time_ns() // 1_000 + self.ahead * 1_000_000


class NoSecrets:
    def get(self, name: str) -> str | None:
        return None


@dataclass
class Stage:
    """A handler for every kind of task: `parameters.do` says what happens."""

    opened: anyio.Event = field(default_factory=anyio.Event)
    #: Set when a task is held.
    holding: anyio.Event = field(default_factory=anyio.Event)

    async def run(self, attempt: Attempt) -> Outcome:
        parameters = attempt.parameters
        match parameters.get("do", "answer"):
            case "hold":
                self.holding.set()
                await self.opened.wait()
            case "fail":
                raise AttemptError("ON_PURPOSE", "as the test asked", retryable=False)
            case "stream":
                for piece in parameters["pieces"]:
                    await attempt.output(piece)
            case "write":
                return Outcome(output="x" * parameters["size"])
            case "leave":
                return Outcome(files=(FileLeft("left.bin", b"x" * parameters["size"]),))
            case "usage":
                return Outcome(usage=Usage(1, 2, 3, 5), endpoint="main", model="m")
        return Outcome(output=parameters.get("answer"))


@dataclass
class Daemon:
    """What a test gets."""

    server: Server
    runner: Runner
    stage: Stage
    stub: Any
    target: str


Start = Callable[..., AbstractAsyncContextManager[Daemon]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a daemon over the test's directory; twice is a restart."""

    @asynccontextmanager
    async def starting(
        *,
        port: int = 0,
        heartbeat: float = 15.0,
        limits: DescriptorLimits | None = None,
        undefined: bool = True,
        ahead: int = 0,
        fleet: Fleet | None = None,
        **queues: QueueSettings,
    ) -> AsyncIterator[Daemon]:
        observer, clock, stage = Quiet(), WallClock(ahead), Stage()
        holder = Holder(str(uuid_utils.uuid7()), os.getpid(), "test", clock.now())
        ledger = SqlLedger(tmp_path / "ledger.db", holder=holder, observer=observer, settings=LedgerSettings())
        async with ledger.running():
            equipment = Equipment(
                runner_id=holder.runner_id,
                ledger=ledger,
                handlers={"orchestrator": stage, "approval": Approval()},
                observer=observer,
                clock=clock,
                secrets=NoSecrets(),
                settings=EngineSettings(
                    drain_grace_seconds=0, cancel_grace_seconds=0, allow_undefined_queues=undefined
                ),
                retry=RetryPolicy(),
                slots=Slots(64),
                broadcast=Broadcast(ledger, observer),
                journal=Journal(ledger, poll_seconds=1),
                chance=random.random,
                new_id=lambda: str(uuid_utils.uuid7()),
                sinks=dict[str, Bell](),
            )
            runner = Runner(equipment, queues=queues, descriptor_limits=limits or DescriptorLimits())
            options = ServerOptions(
                host="127.0.0.1",
                port=port,
                max_message_bytes=8 * 1024 * 1024,
                heartbeat_seconds=heartbeat,
                max_connection_age_seconds=0,
                max_connection_age_grace_seconds=0,
                reflection=True,
            )
            async with anyio.create_task_group() as loops:
                loops.start_soon(runner.run)
                async with listening(
                    runner, options, clock=clock, observer=observer, fleet=fleet or PlayedFleet()
                ) as server:
                    target = f"127.0.0.1:{server.port}"
                    async with grpc.aio.insecure_channel(target) as channel:
                        stub = job_service_pb2_grpc.JobServiceStub(channel)
                        yield Daemon(server, runner, stage, stub, target)
                loops.cancel_scope.cancel()

    return starting


@pytest.fixture
async def daemon(start: Start) -> AsyncIterator[Daemon]:
    async with start() as running:
        yield running
