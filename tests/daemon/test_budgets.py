"""Token budgets over a real daemon: the calls that a budget cannot take are not made, and kill -9 forgets nothing."""

from __future__ import annotations

import json
import signal
from typing import Any

import anyio
import pytest

from runner.client import Client
from runner.orchestrators.simulated import serve_simulated

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


def descriptor(*names: str, chained: bool = False, **parameters: Any) -> bytes:
    tasks = [
        {"id": name, "description": "say it", "parameters": parameters, "dependencies": list(names[: n and chained])}
        for n, name in enumerate(names)
    ]
    file = {"id": "a", "version": "1.0", "title": "t", "created_at": "2026-01-01T00:00:00Z", "tasks": tasks}
    return json.dumps(file).encode()


async def ended(client: Client, job_id: str) -> dict[str, Any]:
    """The record of a job, once it has one."""
    async for _ in client.watch(job_id):
        pass
    return dict(json.loads(await client.record(job_id)))


async def test_when_a_jobs_budget_is_reached_midway_no_further_call_is_made(launch: Any) -> None:
    prompt = "say something nice about the weather of today"
    async with (
        serve_simulated() as simulator,
        launch(
            **{
                "orchestrator.endpoints": [{"url": simulator.url, "protocol": "openai", "model": "simulated-small"}],
                "engine.max_concurrent_tasks": 1,
            }
        ) as daemon,
        Client(daemon.target) as client,
    ):
        submitted = await client.submit(descriptor(*"abcdefgh", prompt=prompt, max_tokens=20), token_budget=100)
        record = await ended(client, submitted.job.job_id)
        results = list(record["task_results"].values())
        made = [result for result in results if result["status"] == "completed"]
        assert 2 <= len(made) < len(results)
        for result in results[len(made) :]:
            assert result["error"].startswith("TOKEN_BUDGET_EXCEEDED: the job's token budget cannot take the call")
        assert simulator.calls.calls == len(made) == record["usage"]["calls"]
        assert record["usage"]["total_tokens"] <= 100
        (row,) = record["usage_by"]
        assert (row["endpoint"], row["model"], row["calls"]) == ("default", "simulated-small", len(made))


async def test_a_labels_budget_survives_a_kill_and_counts_what_was_used_once(
    launch: Any, orchestrator: Any, free_port: int
) -> None:
    """Of 11 tokens each call may take 4 and takes 3."""
    settings = {
        "grpc.port": free_port,
        "budgets": [{"label": "team", "value": "blue", "tokens": 11, "per": "ever"}],
        "log.level": "warning",
    }
    blue = {"team": "blue"}
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        first = await client.submit(descriptor("a", "b", chained=True, prompt="xyz", max_tokens=3), labels=blue)
        await ended(client, first.job.job_id)
        orchestrator.open = anyio.Event()
        second = await client.submit(descriptor("c", prompt="xyz", max_tokens=3), labels=blue)
        await orchestrator.reached(3)
        await daemon.end(signal.SIGKILL)
    orchestrator.open.set()
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        assert (await ended(client, second.job.job_id))["status"] == "success"
        third = await client.submit(descriptor("d", prompt="xyz", max_tokens=3), labels=blue)
        error = (await ended(client, third.job.job_id))["task_results"]["d"]["error"]
        assert "budget `team=blue/ever` cannot take the call: 9 of 11 tokens are used" in error
        other = await client.submit(descriptor("e", prompt="xyz", max_tokens=3), labels={"team": "red"})
        assert (await ended(client, other.job.job_id))["status"] == "success"
    assert orchestrator.calls.total() == 5, "the call that was under way is made again, and that of the third never"
