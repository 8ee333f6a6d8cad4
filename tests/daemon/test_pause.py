"""Pauses through kill -9: of a job that is paused, and of one whose attempts are to finish first."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from typing import Any, Final

import anyio
import pytest
from altrunner.v1 import job_pb2

from runner.client import Client

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

CHAIN: Final = json.dumps(
    {
        "id": "a",
        "version": "1.0",
        "title": "t",
        "created_at": "2026-01-01T00:00:00Z",
        "tasks": [
            {"id": "first", "description": "one call"},
            {"id": "second", "description": "another", "dependencies": ["first"]},
        ],
    }
).encode()


async def reached(client: Client, job_id: str, kind: str, *, after: int = 0) -> int:
    async for event in client.watch(job_id, after=after):
        if event.WhichOneof("event") == kind:
            return event.sequence
    raise AssertionError(f"the job ended without {kind}")


async def state(client: Client, job_id: str) -> int:
    return (await client.get(job_id)).state


@pytest.fixture
def settings(free_port: int) -> Mapping[str, Any]:
    return {"grpc.port": free_port, "log.level": "warning"}


async def test_a_paused_job_stays_paused_through_kills_and_finished_tasks_do_not_run_again(
    launch: Any, orchestrator: Any, settings: Mapping[str, Any]
) -> None:
    orchestrator.open = anyio.Event()
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        job_id = (await client.submit(CHAIN)).job.job_id
        await orchestrator.reached(1)
        assert (await client.pause(job_id)).pause_requested
        paused = await reached(client, job_id, "job_paused")
        orchestrator.open.set()
        await reached(client, job_id, "job_released", after=paused)
        await daemon.end(signal.SIGKILL)
    for _ in range(2):
        async with launch(**settings) as daemon, Client(daemon.target) as client:
            assert await state(client, job_id) == job_pb2.JOB_STATE_PAUSED
            # Whoever comes after it is run: the daemon works, and passes the paused one over.
            other = (await client.submit(CHAIN)).job.job_id
            await reached(client, other, "job_succeeded")
            assert await state(client, job_id) == job_pb2.JOB_STATE_PAUSED
            await daemon.end(signal.SIGKILL)
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        assert not (await client.resume(job_id)).pause_requested
        kinds = [event.WhichOneof("event") async for event in client.watch(job_id)]
    assert kinds == [
        "job_accepted", "job_started", "attempt_started", "job_paused", "attempt_succeeded", "job_released",
        "job_resumed", "job_started", "attempt_started", "attempt_succeeded", "job_succeeded",
    ]  # fmt: skip
    assert [orchestrator.calls[f"{job_id}/{task}"] for task in ("first", "second")] == [1, 1]


async def test_a_daemon_killed_while_it_lets_attempts_finish_leaves_the_job_paused_and_nothing_lost(
    launch: Any, orchestrator: Any, settings: Mapping[str, Any]
) -> None:
    orchestrator.open = anyio.Event()
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        job_id = (await client.submit(CHAIN)).job.job_id
        await orchestrator.reached(1)
        await client.pause(job_id)
        await reached(client, job_id, "job_paused")
        await daemon.end(signal.SIGKILL)
    orchestrator.open.set()
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        assert await state(client, job_id) == job_pb2.JOB_STATE_PAUSED
        assert orchestrator.calls[f"{job_id}/first"] == 1
        await client.resume(job_id)
        await reached(client, job_id, "job_succeeded")
    # What was under way ran once more, under the same key.
    assert [orchestrator.calls[f"{job_id}/{task}"] for task in ("first", "second")] == [2, 1]


async def test_a_wish_is_kept_by_the_moment_it_is_answered(
    launch: Any, orchestrator: Any, settings: Mapping[str, Any]
) -> None:
    """Killed the moment the pause is durable, whether its holder had heard of it or not; then that of the resume."""
    orchestrator.open = anyio.Event()
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        job_id = (await client.submit(CHAIN)).job.job_id
        await orchestrator.reached(1)
        await client.pause(job_id)
        await daemon.end(signal.SIGKILL)
    orchestrator.open.set()
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        await reached(client, job_id, "job_paused")
        assert (await client.get(job_id)).pause_requested
        assert orchestrator.calls[f"{job_id}/first"] == 1
        await client.resume(job_id)
        await daemon.end(signal.SIGKILL)
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        await reached(client, job_id, "job_succeeded")
        record = json.loads(await client.record(job_id))
    assert record["status"] == "success"


async def test_a_paused_job_can_be_cancelled_after_a_kill_and_leaves_its_record(
    launch: Any, orchestrator: Any, settings: Mapping[str, Any]
) -> None:
    orchestrator.open = anyio.Event()
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        job_id = (await client.submit(CHAIN)).job.job_id
        await orchestrator.reached(1)
        await client.pause(job_id)
        await reached(client, job_id, "job_paused")
        await daemon.end(signal.SIGKILL)
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        await client.cancel(job_id, reason="enough")
        await reached(client, job_id, "job_cancelled")
        record = json.loads(await client.record(job_id))
    assert (record["status"], record["job_id"]) == ("failure", job_id)
    orchestrator.open.set()
