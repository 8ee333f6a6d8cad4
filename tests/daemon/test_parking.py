"""Tasks that wait for a circuit breaker: in the ledger, without consuming an attempt."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest
from altrunner.v1 import event_pb2, job_pb2
from altrunner.v1.job_service_pb2 import SubmitJobRequest

from runner.client import Client
from runner.core.breaker import BreakerState
from runner.orchestrators.simulated import Simulator, serve_simulated
from runner.orchestrators.simulation import Behaviour

pytestmark = pytest.mark.anyio

SICK = Behaviour(error_rate=1.0)


def descriptor(*tasks: str) -> bytes:
    file = {
        "id": "a",
        "version": "1.0",
        "title": "t",
        "created_at": "2026-01-01T00:00:00Z",
        "tasks": [
            {"id": name, "description": "one call", "parameters": {"prompt": name}, "retry_count": 0} for name in tasks
        ],
    }
    return json.dumps(file).encode()


async def open_breaker(client: Client) -> None:
    """By a call that fails."""
    job_id = (await client.submit(descriptor("opens"))).job.job_id
    async for _ in client.watch(job_id):
        pass


async def parked(client: Client, job_id: str) -> event_pb2.AttemptParked:
    """Wait until a task of the job is parked."""
    async for event in client.watch(job_id):
        if event.HasField("attempt_parked"):
            return event.attempt_parked
    raise AssertionError("it ended without being parked")


async def succeeds(client: Client, job_id: str) -> job_pb2.Job:
    async for _ in client.watch(job_id):
        pass
    job = await client.get(job_id)
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    return job


def settings(simulator: Simulator, **endpoint: Any) -> dict[str, Any]:
    return {
        "orchestrator.endpoints": [{"name": "main", "url": simulator.url, "health_interval_seconds": 0} | endpoint],
        "orchestrator.breaker.minimum_calls": 1,
        "orchestrator.breaker.jitter": 0,
    }


async def test_a_parked_task_stays_parked_through_kill_nine_and_loses_no_attempt(launch: Any) -> None:
    async with serve_simulated() as simulator:
        chosen = settings(simulator) | {"orchestrator.breaker.open_seconds": 4}
        simulator.behave(SICK)
        async with launch(**chosen) as daemon, Client(daemon.target) as client:
            await open_breaker(client)
            job_id = (await client.submit(descriptor("waits"))).job.job_id
            until = (await parked(client, job_id)).until_time.ToMicroseconds() / 1e6
            await daemon.end(signal.SIGKILL)
        simulator.behave(Behaviour())
        calls = simulator.calls.calls
        async with launch(**chosen) as daemon, Client(daemon.target) as client:
            # A new daemon's breakers are closed, and yet the task waits for its time.
            assert simulator.calls.calls == calls
            await succeeds(client, job_id)
            assert time.time() >= until
    assert simulator.calls.calls == calls + 1


async def test_a_task_that_is_parked_goes_on_when_its_breaker_is_reset(launch: Any) -> None:
    async with serve_simulated() as simulator:
        chosen = settings(simulator) | {"orchestrator.breaker.open_seconds": 300}
        simulator.behave(SICK)
        async with launch(**chosen) as daemon, Client(daemon.target) as client:
            await open_breaker(client)
            job_id = (await client.submit(descriptor("a", "b", "c"))).job.job_id
            assert (await parked(client, job_id)).endpoint == "main"
            simulator.behave(Behaviour())
            await client.set_breaker("main", BreakerState.CLOSED)
            await succeeds(client, job_id)


async def test_a_daemon_full_of_parked_jobs_shuts_down_at_once_and_all_of_them_go_on(launch: Any) -> None:
    async with serve_simulated() as simulator:
        chosen = settings(simulator) | {"orchestrator.breaker.open_seconds": 3}
        simulator.behave(SICK)
        async with launch(**chosen) as daemon, Client(daemon.target) as client:
            await open_breaker(client)
            submitted = [SubmitJobRequest(descriptor=descriptor("a")) for _ in range(100)]
            jobs = [result.accepted.job.job_id for result in await client.submit_batch(submitted)]
            await parked(client, jobs[-1])
            began = time.monotonic()
            assert await daemon.end(signal.SIGTERM) == 0
            assert time.monotonic() - began < 10
        simulator.behave(Behaviour())
        async with launch(**chosen) as daemon, Client(daemon.target) as client:
            for job_id in jobs:
                await succeeds(client, job_id)


async def test_hundreds_of_parked_tasks_are_called_a_few_at_a_time(launch: Any) -> None:
    """No herd: while the endpoint is probed it gets three calls, and then what it may have while it is warmed up."""
    async with serve_simulated() as simulator:
        chosen = settings(simulator, max_connections=50, warm_up_seconds=2.0) | {
            "orchestrator.breaker.open_seconds": 3,
            "engine.max_concurrent_tasks": 400,
        }
        simulator.behave(SICK)
        async with launch(**chosen) as daemon, Client(daemon.target) as client:
            await open_breaker(client)
            job_id = (await client.submit(descriptor(*(f"t{number}" for number in range(400))))).job.job_id
            await parked(client, job_id)
            simulator.behave(Behaviour(latency_ms=20))
            simulator.calls.clear()
            await succeeds(client, job_id)
            assert simulator.calls.calls == 400
            assert simulator.calls.most_under_way <= 50
            parks = [event async for event in client.watch(job_id) if event.HasField("attempt_parked")]
            # Each was parked when it came first; hardly anybody came in vain after that.
            assert len(parks) <= 600
