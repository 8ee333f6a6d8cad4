"""What people answer, and what they ask to be run again, through kill -9."""

from __future__ import annotations

import json
import signal
from typing import Any

import anyio
import pytest

from runner.client import Client

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


def descriptor(*tasks: dict[str, Any]) -> bytes:
    base = {"id": "a", "version": "1.0", "title": "t", "created_at": "2026-01-01T00:00:00Z"}
    return json.dumps(base | {"tasks": tasks}).encode()


ASKING = descriptor(
    {"id": "call", "description": "one call"},
    {"id": "ask", "description": "Send it?", "dependencies": ["call"], "parameters": {"task_type": "approval"}},
    {"id": "send", "description": "another call", "dependencies": ["ask"]},
)


async def reached(client: Client, job_id: str, kind: str) -> None:
    async for event in client.watch(job_id):
        if event.WhichOneof("event") == kind:
            return


async def test_an_answer_that_was_taken_survives_a_kill_and_nothing_runs_twice(
    launch: Any, orchestrator: Any, free_port: int
) -> None:
    """Killed while it waits, and again the moment the answer is durable."""
    settings = {"grpc.port": free_port, "log.level": "warning"}
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        job_id = (await client.submit(ASKING)).job.job_id
        await reached(client, job_id, "attempt_parked")
        await daemon.end(signal.SIGKILL)
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        await client.signal(job_id, "ask", approved=True, sender="a")
        await daemon.end(signal.SIGKILL)
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        kinds = [event.WhichOneof("event") async for event in client.watch(job_id)]
    assert kinds[-1] == "job_succeeded"
    assert kinds.count("task_signalled") == 1
    assert orchestrator.calls[f"{job_id}/call"] == 1


async def test_a_retry_that_was_accepted_survives_a_kill_with_the_outputs_that_it_reuses(
    launch: Any, orchestrator: Any, free_port: int
) -> None:
    settings = {"grpc.port": free_port, "log.level": "warning"}
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        first = (await client.submit(ASKING)).job.job_id
        await reached(client, first, "attempt_parked")
        await client.cancel(first)
        async for _ in client.watch(first):
            pass
        made = (await client.retry(first, request_id="once")).job.job_id
        await daemon.end(signal.SIGKILL)
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        again = await client.retry(first, request_id="once")
        assert (again.job.job_id, again.replayed) == (made, True)
        await client.signal(made, "ask", approved=True)
        with anyio.fail_after(60):
            kinds = [event.WhichOneof("event") async for event in client.watch(made)]
        record = json.loads(await client.record(made))
    assert kinds[:2] == ["job_accepted", "task_reused"]
    assert kinds[-1] == "job_succeeded"
    assert record["task_results"]["call"]["output"] is not None
    assert orchestrator.calls[f"{made}/call"] == 0
