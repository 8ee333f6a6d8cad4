"""The daemon's own secrets, when the one who was called with them tells them again."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from runner.client import Client

pytestmark = pytest.mark.anyio

KEY = 'the "key" of\\these tests'
PROMPT = (
    b'{"id": "a", "version": "1.0", "title": "t", "created_at": "2026-01-01T00:00:00Z",'
    b' "tasks": [{"id": "ask", "description": "one call", "parameters": {"prompt": "hello"}}]}'
)


async def echo(request: web.Request) -> web.Response:
    told = request.headers["Authorization"]
    return web.json_response({"text": f"called with {told}", "model_used": told, "tokens_used": 3})


@pytest.fixture
async def echoing() -> AsyncIterator[str]:
    """The address of an orchestrator that answers with the key that it was called with."""
    app = web.Application()
    app.router.add_post("/api/v1/generate", echo)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_an_endpoint_s_key_that_it_echoes_is_nowhere(launch: Any, echoing: str, tmp_path: Path) -> None:
    chosen = {"log.level": "debug", "orchestrator.endpoints": [{"url": echoing, "api_key": KEY}]}
    async with launch(**chosen) as daemon:
        async with Client(daemon.target) as client:
            job = (await client.submit(PROMPT)).job
            events = [event async for event in client.watch(job.job_id)]
            record = await client.record(job.job_id)
        async with aiohttp.ClientSession(daemon.http) as session, session.get("/metrics") as response:
            metrics = await response.text()
        assert await daemon.end(signal.SIGTERM) == 0
    assert "[secret orchestrator.endpoints.0.api_key]" in record.decode()
    told = [repr(events).encode(), record, metrics.encode(), "".join(daemon.log).encode()]
    told += [path.read_bytes() for path in (tmp_path / "var").rglob("*") if path.is_file()]
    assert not any(b"these tests" in content for content in told)
