"""A process that serves a played fleet by the AdminService, for tests of commands."""

from __future__ import annotations

import asyncio
import json
import signal
import time

import grpc
import grpc.aio
from msgspec.structs import replace

from runner.core.breaker import BreakerState
from runner.core.fleet import EndpointHealth
from runner.ports import Quiet
from runner.rpc.admin import AdminServicer
from runner.rpc.server import ADMIN_SERVICE, admin_methods
from tests.rpc.fleet import SECOND, PlayedFleet, breaker, endpoint


class WallClock:
    def now(self) -> int:
        return time.time_ns() // 1_000


def fleet() -> PlayedFleet:
    """One is sick, one well, one answers no health check, and one has never been called."""
    now = WallClock().now()
    opened = replace(
        breaker("sick", "large", BreakerState.OPEN, calls=20, failed=12, slow=3, waiting=7),
        since=now - 60 * SECOND,
        open_until=now + 3_600 * SECOND,
        reason="12 of 20 calls failed",
    )
    poor = replace(
        endpoint("mute", "other", calls=3, unreached=41),
        health=EndpointHealth.UNHEALTHY,
        health_error="it does not answer in time",
    )
    return PlayedFleet(
        endpoint("sick", waiting=7),
        endpoint("well", calls=2, warmth=0.4, models=("large", "small")),
        poor,
        endpoint("new", "other"),
        opened,
        breaker("well", "large", calls=31),
        breaker("well", "\x1b[2Jevil"),
        breaker("mute"),
    )


async def serve() -> None:
    played = fleet()
    played.seconds = 0.3
    server = grpc.aio.server()
    servicer = AdminServicer(played, WallClock(), heartbeat=15.0)
    methods = admin_methods(servicer, Quiet())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ADMIN_SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(json.dumps({"grpc": f"127.0.0.1:{port}"}), flush=True)  # noqa: T201  the test waits for it
    await stop.wait()
    servicer.close()
    await server.stop(1)


def main() -> None:
    asyncio.run(serve())
