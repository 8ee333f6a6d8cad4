"""Jobs that tasks run, through kill -9: one child, one end each, and nothing done twice that was done once."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest

from runner.client import Client

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


def file(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"id": "a", "version": "1.0", "title": "t", "created_at": "2026-01-01T00:00:00Z", "tasks": list(tasks)}


def running(descriptor: dict[str, Any]) -> dict[str, Any]:
    return {"id": "run", "description": "d", "parameters": {"task_type": "job", "descriptor": descriptor}}


CHILD = file(
    {"id": "first", "description": "one call"},
    {"id": "second", "description": "another call", "dependencies": ["first"]},
)
PARENT = json.dumps(
    file(
        running(CHILD),
        {
            "id": "then",
            "description": "a third",
            "dependencies": ["run"],
            "parameters": {"prompt": "${tasks.run.output.outputs.second.text}"},
        },
    )
).encode()


async def ends(client: Client) -> dict[str, list[str]]:
    """Of every job, the kinds of its events."""
    listed = await client.list()
    return {
        job.job_id: [str(event.WhichOneof("event")) async for event in client.watch(job.job_id)] for job in listed.jobs
    }


def records(directory: Path) -> list[Any]:
    return [json.loads(path.read_bytes()) for path in directory.glob("**/last_*.json")]


async def test_a_kill_while_the_child_runs_leaves_one_child_and_one_end_of_each(
    launch: Any, orchestrator: Any, free_port: int, tmp_path: Path
) -> None:
    settings = {"grpc.port": free_port, "log.level": "warning"}
    orchestrator.open = anyio.Event()
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        parent = (await client.submit(PARENT)).job.job_id
        await orchestrator.reached(1)
        await daemon.end(signal.SIGKILL)
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        # The first call once more; its answer lets the second one begin.
        await orchestrator.reached(2)
        orchestrator.open.set()
        await orchestrator.reached(4)
        found = await ends(client)
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        assert await ends(client) == found
        assert await daemon.end(signal.SIGTERM) == 0
    [child] = found.keys() - {parent}
    assert [kinds[-1] for kinds in found.values()] == ["job_succeeded"] * 2
    assert [kinds.count("job_succeeded") for kinds in found.values()] == [1, 1]
    assert sorted(orchestrator.calls.items()) == sorted(
        [(f"{child}/first", 2), (f"{child}/second", 1), (f"{parent}/then", 1)]
    )
    written = records(tmp_path / "var" / "last")
    assert sorted(record["job_id"] for record in written) == sorted([child, parent])
    [record] = [record for record in written if record["job_id"] == parent]
    assert record["task_results"]["run"]["output"]["job_id"] == child
    assert len({record["trace_id"] for record in written}) == 1


async def test_a_cancellation_and_a_kill_end_the_whole_family(launch: Any, orchestrator: Any, free_port: int) -> None:
    """Killed the moment the wish is durable: whatever had heard of it by then."""
    settings = {"grpc.port": free_port, "log.level": "warning"}
    orchestrator.open = anyio.Event()
    family = json.dumps(file(running(file(running(CHILD))))).encode()
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        parent = (await client.submit(family)).job.job_id
        await orchestrator.reached(1)
        await client.cancel(parent)
        await daemon.end(signal.SIGKILL)
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        with anyio.fail_after(30):
            found = await ends(client)
    assert [kinds[-1] for kinds in found.values()] == ["job_cancelled"] * 3
    assert orchestrator.calls.total() <= 2


async def test_children_run_where_only_one_job_may(launch: Any, orchestrator: Any) -> None:
    settings = {"log.level": "warning", "engine.max_running_jobs": 1, "engine.max_waiting_jobs": 1}
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        for _ in range(5):
            await client.submit(PARENT)
        with anyio.fail_after(60):
            found = await ends(client)
            while len(found) < 10:
                found = await ends(client)
    assert [kinds[-1] for kinds in found.values()] == ["job_succeeded"] * 10
    assert set(orchestrator.calls.values()) == {1}
