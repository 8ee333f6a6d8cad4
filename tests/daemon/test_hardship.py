"""A daemon whose process is stopped for longer than its lease, and one whose ledger is full."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runner.client import CallRefused, Client
from runner.core.record import Verdict, verify

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


def descriptor(text: str = "one call") -> bytes:
    asks = [{"id": f"ask{n}", "description": "call", "parameters": {"prompt": text, "max_tokens": 9}} for n in range(3)]
    wait = {"id": "wait", "description": "wait", "parameters": {"task_type": "delay", "seconds": 0.3}}
    made = {"id": "alt", "version": "1.0", "title": "Hard", "created_at": "2026-01-01T00:00:00Z"}
    return json.dumps(made | {"tasks": [*asks, wait]}).encode()


async def kinds_of(client: Client, job_id: str) -> list[str | None]:
    """Watch to the end: 1..n, once each."""
    events = [event async for event in client.watch(job_id)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [event.WhichOneof("event") for event in events]


async def test_a_daemon_that_was_stopped_for_longer_than_its_lease_goes_on(
    launch: Any, orchestrator: Any, tmp_path: Path
) -> None:
    """Nobody else can have taken its jobs: the file is locked. Nothing is lost, nothing runs twice."""
    orchestrator.open = anyio.Event()
    leases = {"engine.lease_seconds": 1, "engine.poll_seconds": 0.2}
    async with launch(**leases) as daemon, Client(daemon.target) as client:
        ids = [(await client.submit(descriptor())).job.job_id for _ in range(4)]
        await orchestrator.reached(12)
        daemon.process.send_signal(signal.SIGSTOP)
        # Time itself is the point: three leases pass.
        await anyio.sleep(3)
        orchestrator.open.set()
        daemon.process.send_signal(signal.SIGCONT)
        with anyio.fail_after(30):
            for job_id in ids:
                kinds = await kinds_of(client, job_id)
                assert kinds[-1] == "job_succeeded"
                counted = Counter(kinds)
                assert (counted["attempt_started"], counted["attempt_succeeded"]) == (4, 4)
        assert await daemon.end(signal.SIGTERM) == 0
    assert set(orchestrator.calls.values()) == {1}
    records = list((tmp_path / "var" / "last").rglob("last_*.json"))
    assert Counter(json.loads(path.read_bytes())["job_id"] for path in records) == Counter(ids)
    assert all(verify(path.read_bytes()) is Verdict.OK for path in records)


async def submit_for_ever(client: Client, accepted: list[str], size: int) -> None:
    while True:
        accepted.append((await client.submit(descriptor("x" * size))).job.job_id)


async def serving(target: str) -> bool:
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_a_full_ledger_refuses_what_it_cannot_keep_and_loses_nothing(launch: Any, tmp_path: Path) -> None:
    """Full: DISK_FULL and not ready, told once. With a larger limit everything that was accepted is there and ends."""
    accepted: list[str] = []
    async with launch(**{"ledger.max_file_bytes": 512 * 1024}) as daemon, Client(daemon.target, patience=0) as client:
        # Where a large job has no room, a small one may have.
        for size in (20_000, 100):
            with anyio.fail_after(60), pytest.raises(CallRefused) as caught:
                await submit_for_ever(client, accepted, size)
            assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "DISK_FULL")
        with anyio.fail_after(30):
            async with grpc.aio.insecure_channel(daemon.target) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                async for answer in stub.Watch(health_pb2.HealthCheckRequest()):
                    if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                        break
        # It stays so, and says so once, however often reads and empty claims succeed meanwhile.
        await anyio.sleep(3)
        assert not await serving(daemon.target)
        told = "".join(daemon.log)
        assert told.count('"ledger_failing"') == 1
        assert told.count('"ledger_recovered"') == 0
        await daemon.end(signal.SIGKILL)
    assert accepted
    async with launch() as daemon, Client(daemon.target) as client:
        with anyio.fail_after(60):
            for job_id in accepted:
                assert (await kinds_of(client, job_id))[-1] == "job_succeeded"
        assert await serving(daemon.target)
        assert await daemon.end(signal.SIGTERM) == 0
    records = list((tmp_path / "var" / "last").rglob("last_*.json"))
    assert Counter(json.loads(path.read_bytes())["job_id"] for path in records) == Counter(accepted)


async def test_an_orchestrator_that_hangs_holds_up_its_own_tasks_only(launch: Any, orchestrator: Any) -> None:
    """Seventy prompts hang, more than there are slots; another job's task starts at once, and their log stays small."""
    orchestrator.open = anyio.Event()
    asks = [{"id": f"a{n}", "description": "call", "parameters": {"prompt": "p"}} for n in range(70)]
    looked = {"task_type": "data_processing", "expression": "[0]", "input": [1]}
    call = {"id": "look", "description": "look", "parameters": looked}
    made = {"version": "1.0", "title": "Hard", "created_at": "2026-01-01T00:00:00Z"}
    async with launch() as daemon, Client(daemon.target) as client:
        stuck = (await client.submit(json.dumps(made | {"id": "sick", "tasks": asks}).encode())).job.job_id
        await orchestrator.reached(32)
        with anyio.fail_after(10):
            healthy = (await client.submit(json.dumps(made | {"id": "well", "tasks": [call]}).encode())).job.job_id
            assert "attempt_started" in await kinds_of(client, healthy)
        assert (await client.get(stuck)).last_sequence == 2 + 32
        orchestrator.open.set()
        with anyio.fail_after(20):
            assert (await kinds_of(client, stuck))[-1] == "job_succeeded"
    assert set(orchestrator.calls.values()) == {1}
