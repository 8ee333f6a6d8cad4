"""Fallbacks of a real daemon, one after the other, while its orchestrators go down one by one."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, web

from runner.client import Client
from runner.core.events import Usage
from runner.core.record import FallbackRecord, TaskRecord, parse

pytestmark = pytest.mark.anyio


class Moody:
    """An orchestrator that speaks `altlas`, and is up or down."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = True
        self.calls = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.calls += 1
        if not self.up:
            return web.json_response({"error": "down"}, status=503)
        prompt = (await request.json())["prompt"]
        return web.json_response({"text": f"{self.name}: {prompt}", "model_used": "m", "tokens_used": 3})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Moody]:
        app = web.Application()
        app.router.add_post("/api/v1/generate", self.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


def descriptor(prompt: str) -> bytes:
    fallback: list[Any] = [{"endpoint": "second"}, {"cached": {"max_age_seconds": 600}}, {"value": "nobody"}]
    task = {
        "id": "ask",
        "description": "one call",
        "parameters": {"prompt": prompt, "fallback": fallback},
        "retry_count": 0,
    }
    file = {"id": "a", "version": "1.0", "title": "t", "created_at": "2026-01-01T00:00:00Z", "tasks": [task]}
    return json.dumps(file).encode()


async def asked(client: Client, prompt: str) -> TaskRecord:
    job = (await client.submit(descriptor(prompt))).job
    async for _ in client.watch(job.job_id):
        pass
    return parse(await client.record(job.job_id)).task_results["ask"]


def used(task: TaskRecord) -> tuple[str, str, str]:
    """The output's text, what stood in, and why."""
    fallback = task.attempts[-1].fallback or FallbackRecord(kind="")
    return task.output["text"], fallback.kind, fallback.reason.partition(":")[0]


async def test_the_second_endpoint_stands_in_then_an_earlier_answer_then_a_value_and_the_record_says_which(
    launch: Any,
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(Moody("first").serving())
        second = await stack.enter_async_context(Moody("second").serving())
        common = {"health_interval_seconds": 0}
        settings = {
            "orchestrator.endpoints": [
                {"name": "first", "url": first.url, **common},
                {"name": "second", "url": second.url, **common},
            ],
            "orchestrator.breaker.minimum_calls": 3,
            "orchestrator.breaker.open_seconds": 300,
        }
        async with launch(**settings) as daemon, Client(daemon.target) as client:
            assert used(await asked(client, "hello")) == ("first: hello", "", "")
            first.up = False
            assert used(await asked(client, "hello")) == ("second: hello", "endpoint", "HTTP_STATUS")
            assert used(await asked(client, "hello")) == ("second: hello", "endpoint", "HTTP_STATUS")
            assert first.calls == 3
            assert used(await asked(client, "hello")) == ("second: hello", "endpoint", "BREAKER_OPEN")
            assert first.calls == 3, "an open breaker lets no call through"
            second.up = False
            assert used(await asked(client, "hello")) == ("first: hello", "cached", "BREAKER_OPEN")
            assert used(await asked(client, "goodbye")) == ("nobody", "value", "BREAKER_OPEN")
            async with ClientSession(daemon.http) as session, session.get("/metrics") as response:
                metrics = await response.text()
            assert 'alt_runner_fallbacks_total{endpoint="first",kind="endpoint"} 3.0' in metrics
            assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
        async with launch(**settings) as daemon, Client(daemon.target) as client:
            task = await asked(client, "hello")
            assert used(task) == ("first: hello", "cached", "HTTP_STATUS"), "answers are kept through kill -9"
            assert (task.attempts[-1].endpoint, task.attempts[-1].model) == ("first", "m")
            assert task.usage == Usage(calls=2), "the calls that failed are told"
            assert await daemon.end(signal.SIGTERM) == 0
