"""The HTTP port: a real server on 127.0.0.1 in the test's own event loop."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder

from runner.core.errors import InvalidSettings, LedgerUnavailable
from runner.web.app import create_app
from runner.web.readiness import Check, NotReady, Probe, Probes, Readiness, disk_room, recent
from runner.web.server import serve_http
from runner.web.settings import HttpSettings

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvicorn runs on asyncio alone

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Get = Callable[..., Awaitable[tuple[int, dict[str, str], Any]]]


async def ready() -> list[Check]:
    return [Check("ledger", ok=True, detail="written")]


def exposition(accept: str) -> tuple[bytes, str]:
    registry = CollectorRegistry()
    Counter("alt_runner_things", "Things.", registry=registry).inc()
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


@asynccontextmanager
async def serving(readiness: Readiness = ready, **settings: Any) -> AsyncIterator[tuple[Get, int]]:
    app = create_app(exposition=exposition, readiness=readiness)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serve_http(HttpSettings(port=0, **settings), app))
        client = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))

        async def get(path: str, **headers: str) -> tuple[int, dict[str, str], Any]:
            async with client.get(path, headers=headers) as answer:
                body = await (answer.json() if answer.content_type == "application/json" else answer.text())
                return answer.status, {name.lower(): value for name, value in answer.headers.items()}, body

        yield get, port


async def test_port_0_takes_a_free_port_and_tells_which() -> None:
    async with serving() as (get, port):
        assert port > 0
        status, _, body = await get("/healthz")
        assert (status, body) == (200, {"status": "alive"})


async def test_the_index_says_what_there_is() -> None:
    async with serving() as (get, _):
        status, headers, body = await get("/")
        assert status == 200
        assert body["service"] == "alt-runner"
        assert "server" not in headers
        for path in body["links"].values():
            assert (await get(path))[0] == 200


async def test_metrics_come_in_the_format_that_is_asked_for() -> None:
    async with serving() as (get, _):
        status, headers, body = await get("/metrics", accept="text/plain")
        assert status == 200
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "alt_runner_things_total 1.0" in body
        _, headers, body = await get("/metrics", accept=OPENMETRICS)
        assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert body.endswith("# EOF\n")


async def test_ready_is_200_with_every_check() -> None:
    async with serving() as (get, _):
        status, headers, body = await get("/readyz")
        assert status == 200
        assert headers["cache-control"] == "no-store"
        assert body == {"status": "ready", "checks": [{"name": "ledger", "ok": True, "detail": "written"}]}


async def told(detail: str) -> str:
    return detail


async def ledger_away() -> str:
    raise LedgerUnavailable("the ledger cannot be written: database is locked")


async def draining() -> str:
    raise NotReady("the daemon is shutting down")


async def silent() -> str:
    await anyio.sleep_forever()
    return ""


async def test_one_check_that_fails_is_503_and_the_others_are_still_told(tmp_path: Path) -> None:
    probes: dict[str, Probe] = {
        "fine": lambda: told("all is well"),
        "ledger": ledger_away,
        "draining": draining,
        "silent": silent,
        "claims": recent("the claim loop", lambda: anyio.current_time() - 99, 10.0),
        "disk": disk_room(tmp_path, 2**62),
        "gone": disk_room(tmp_path / "gone", 1),
    }
    async with serving(Probes(probes, timeout=0.1)) as (get, _):
        status, _, body = await get("/readyz")
    assert status == 503
    assert body["status"] == "not_ready"
    assert [check["name"] for check in body["checks"]] == list(probes)
    details = {check["name"]: check["detail"] for check in body["checks"] if not check["ok"]}
    assert set(details) == set(probes) - {"fine"}
    assert details["ledger"] == "the ledger cannot be written: database is locked"
    assert "`http.check_timeout_seconds`" in details["silent"]
    assert "the claim loop has been silent for 99.0 s" in details["claims"]
    assert "`health.min_free_bytes`" in details["disk"]


async def test_checks_that_hold_are_ready(tmp_path: Path) -> None:
    probes = Probes(
        {"disk": disk_room(tmp_path, 1), "claims": recent("the claim loop", anyio.current_time, 10.0)}, timeout=5.0
    )
    assert all(check.ok for check in await probes())


async def test_what_does_not_exist_is_a_json_404_and_what_breaks_a_logged_500_without_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> list[Check]:
        raise ValueError("a private matter")

    async with serving(broken) as (get, _):
        status, _, body = await get("/nothing")
        assert status == 404
        assert body["detail"] == "Not Found"
        status, _, body = await get("/readyz", accept="text/html")
        assert status == 500
        assert "private" not in str(body)
        [logged] = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert "a private matter" in str(logged.exc_info)
        assert (await get("/healthz"))[0] == 200


async def test_no_documentation_pages_are_served() -> None:
    async with serving() as (get, _):
        for path in ["/schema", "/schema/swagger", "/schema/openapi.json"]:
            assert (await get(path))[0] == 404


async def test_a_port_that_is_taken_is_told_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSettings, match=rf"`http.port`: cannot listen on 127.0.0.1:{port}"):
            async with serve_http(HttpSettings(port=port), create_app(exposition=exposition, readiness=ready)):
                pass


async def test_signals_stay_the_daemons_and_loggers_keep_their_handlers() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    handlers = [logging.getLogger(name).handlers[:] for name in ("", "uvicorn", "uvicorn.error", "litestar")]
    async with serving():
        assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        assert handlers == [logging.getLogger(name).handlers for name in ("", "uvicorn", "uvicorn.error", "litestar")]


async def test_cancellation_closes_the_port_even_with_a_request_under_way() -> None:
    asked = anyio.Event()

    async def slow() -> list[Check]:
        asked.set()
        await anyio.sleep_forever()
        return []

    opened: list[int] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            async def serve() -> None:
                async with serving(slow, shutdown_grace_seconds=0) as (get, port):
                    opened.append(port)
                    await get("/readyz")

            tasks.start_soon(serve)
            await asked.wait()
            tasks.cancel_scope.cancel()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", opened[0])):
        pass


async def test_an_error_inside_closes_the_port_and_is_told_as_it_is() -> None:
    opened: list[int] = []
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with serving() as (_, port):
            opened.append(port)
            raise ValueError("mine")
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", opened[0])):
        pass
