"""What `doctor` looks at over the network: ports, a daemon that may be there, orchestrators and their clocks."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from runner.cli.checks import Check, fail, ok, warn
from runner.core.errors import AttemptError, InvalidSettings

if TYPE_CHECKING:
    import aiohttp

    from runner.orchestrators.settings import EndpointSettings, OrchestratorSettings
    from runner.settings import Settings

_SECONDS: Final = 3.0
_SKEW_SECONDS: Final = 60.0

#: What to do about an endpoint, by the reason why it did not answer.
_UNREACHED: Final = "start it, or correct `orchestrator.endpoints` ({0.url})"
_ADVICE: Final = {
    "UNAUTHORIZED": "set `orchestrator.endpoints[{0.name}].api_key`",
    "CERTIFICATE_REFUSED": "correct `tls_ca_file`, `tls_certificate_file` or `tls_key_file` of"
    " `orchestrator.endpoints[{0.name}]`, or its certificate",
}


async def network(settings: Settings, server: str | None) -> list[Check]:
    """All checks over the network. `server` is a daemon that should be there; else there may be one, or room for it."""
    checks = [await grpc_port(server or f"{settings.grpc.host}:{settings.grpc.port}", expected=server is not None)]
    if settings.http.enabled and server is None:
        checks.append(await http_port(settings.http.host, settings.http.port))
    return checks + await orchestrators(settings)


async def grpc_port(target: str, *, expected: bool) -> Check:
    """Whether a daemon answers and works; or, if none is expected, whether the port is free for one."""
    host, _, port = target.rpartition(":")
    name = "gRPC port"
    if port == "0":
        return ok(name, "any free port will be taken")
    if not await _taken(host, int(port)):
        if expected:
            return fail(name, f"nothing answers at {target}", "start a daemon: alt-runner serve")
        return _free(name, host, int(port), "grpc.port")
    return await _daemon(name, target)


async def _daemon(name: str, target: str) -> Check:
    import grpc
    import grpc.aio
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            why = error.details() or error.code().name
            return fail(name, f"what listens at {target} is no daemon: {why}", "stop it, or set `grpc.port`")
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return ok(name, f"a daemon answers at {target} and takes jobs")
    return fail(name, f"a daemon answers at {target} and is not ready", "see its log, and /readyz on its HTTP port")


async def http_port(host: str, port: int) -> Check:
    """Whether the HTTP port is a daemon's that is ready, or free."""
    name = "HTTP port"
    if port == 0:
        return ok(name, "any free port will be taken")
    if not await _taken(host, port):
        return _free(name, host, port, "http.port")
    import aiohttp
    import msgspec

    url = f"http://{host}:{port}/readyz"
    try:
        async with _session() as session, session.get(url) as response:
            content = msgspec.json.decode(await response.content.read(64 * 1024))
            failed = [f"{one['name']}: {one['detail']}" for one in content["checks"] if not one["ok"]]
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, KeyError, TypeError):
        return fail(name, f"what listens at {host}:{port} is no daemon", "stop it, or set `http.port`")
    if failed:
        return fail(name, f"the daemon is not ready: {'; '.join(failed)}", "do what it says; see its log")
    return ok(name, f"the daemon's {url} says that it is ready")


async def _taken(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _free(name: str, host: str, port: int, setting: str) -> Check:
    bare = host.strip("[]")
    try:
        with socket.create_server((bare, port), family=socket.AF_INET6 if ":" in bare else socket.AF_INET):
            return ok(name, f"{host}:{port} is free")
    except OSError as error:
        return fail(name, f"cannot listen on {host}:{port}: {error.strerror or error}", f"set `{setting}`")


# ------------------------------------------------------------------------------------------------------ orchestrators


async def orchestrators(settings: Settings) -> list[Check]:
    """Whether every endpoint can be called and answers, and agrees with us about the time."""
    endpoints = settings.orchestrator.endpoints
    if not endpoints:
        advice = "set `orchestrator.endpoints`; to try things out: alt-runner simulate-orchestrator"
        return [warn("orchestrator", "none is configured: tasks for an AI will fail", advice)]
    return [check for endpoint in endpoints for check in await _orchestrator(settings.orchestrator, endpoint)]


async def _orchestrator(settings: OrchestratorSettings, endpoint: EndpointSettings) -> list[Check]:
    """By itself: one whose certificates cannot be read leaves the others theirs."""
    from runner.daemon import SystemClock
    from runner.orchestrators.endpoints import open_orchestrators
    from runner.ports import Quiet

    name = f"orchestrator {endpoint.name}"
    # A name with several addresses is asked at one of them.
    alone = msgspec.structs.replace(endpoint, every_address=False)
    try:
        async with open_orchestrators(
            msgspec.structs.replace(settings, endpoints=(alone,)),
            clock=SystemClock(),
            observer=Quiet(),
            chance=random.random,
            new_id=str,
            looked_after=False,
        ) as fleet:
            await fleet.directory[endpoint.name].health()
    except InvalidSettings as error:
        return [fail(name, problem, "correct it; the daemon does not start with it") for problem in error.problems]
    except AttemptError as error:
        return [fail(name, error.message, _ADVICE.get(error.reason, _UNREACHED).format(endpoint))]
    return [ok(name, f"{endpoint.url} answers, as {endpoint.protocol.value}"), *await _clock_of(name, endpoint.url)]


async def _clock_of(name: str, url: str) -> list[Check]:
    """A check if the endpoint tells its time and it is far from ours."""
    import aiohttp

    try:
        async with _session() as session, session.head(url) as response:
            theirs = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return []
    ahead = time.time() - theirs
    if abs(ahead) <= _SKEW_SECONDS:
        return []
    told = f"our clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of {name}"
    return [warn("clock", told, "set both by NTP: deadlines and traces will mislead")]


def _session() -> aiohttp.ClientSession:
    import aiohttp

    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS))
