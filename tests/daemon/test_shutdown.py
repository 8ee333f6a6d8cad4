"""SIGTERM during load loses nothing and exits 0; start-up problems are sentences."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest

from runner.client import Client, ClientError

pytestmark = pytest.mark.anyio

PROMPT = (
    b'{"id": "a", "version": "1.0", "title": "t", "created_at": "2026-01-01T00:00:00Z",'
    b' "tasks": [{"id": "ask", "description": "one call", "parameters": {"prompt": "p"}}]}'
)


async def submit_for_ever(client: Client) -> None:
    while True:
        await client.submit(PROMPT, request_id="the same")


async def test_sigterm_during_load_loses_nothing_and_exits_0(launch: Any, orchestrator: Any, free_port: int) -> None:
    """Every job whose submission was answered ends once, across the restart; running tasks had their grace."""
    accepted: list[str] = []
    settings = {"grpc.port": free_port, "engine.drain_grace_seconds": 5, "log.level": "warning"}

    async def submit_until_refused(client: Client) -> None:
        try:
            while True:
                accepted.append((await client.submit(PROMPT)).job.job_id)
        except ClientError:
            return

    async with launch(**settings) as daemon, anyio.create_task_group() as load:
        async with Client(daemon.target, patience=0.2) as client, anyio.create_task_group() as submitters:
            for _ in range(8):
                submitters.start_soon(submit_until_refused, client)
            await orchestrator.reached(100)
            code = await daemon.end(signal.SIGTERM)
        load.cancel_scope.cancel()
    assert code == 0
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        for job_id in accepted:
            kinds = [event.WhichOneof("event") async for event in client.watch(job_id)]
            assert kinds.count("job_succeeded") == 1
        assert len(accepted) >= 100
        # The grace time was enough for every task that ran: none was run twice.
        assert set(orchestrator.calls.values()) == {1}


async def test_what_outlasts_the_grace_time_is_given_back_and_run_again(launch: Any, orchestrator: Any) -> None:
    orchestrator.open = anyio.Event()
    async with launch(**{"engine.drain_grace_seconds": 0}) as daemon, Client(daemon.target) as client:
        job_id = (await client.submit(PROMPT)).job.job_id
        await orchestrator.reached(1)
        assert await daemon.end(signal.SIGTERM) == 0
    orchestrator.open.set()
    async with launch() as daemon, Client(daemon.target) as client:
        kinds = [event.WhichOneof("event") async for event in client.watch(job_id)]
    assert kinds.count("job_released") == 1
    assert kinds[-1] == "job_succeeded"
    assert orchestrator.calls[f"{job_id}/ask"] == 2


async def test_a_watch_goes_on_through_a_restart(launch: Any, orchestrator: Any, free_port: int) -> None:
    """The client reconnects and resumes by itself: 1..n, once each."""
    orchestrator.open = anyio.Event()
    notices: list[str] = []
    kinds: dict[int, str | None] = {}
    ended = anyio.Event()

    async def watch(client: Client, job_id: str) -> None:
        async for event in client.watch(job_id, on_notice=notices.append):
            assert event.sequence == len(kinds) + 1
            kinds[event.sequence] = event.WhichOneof("event")
        ended.set()

    async with Client(f"127.0.0.1:{free_port}") as client, anyio.create_task_group() as tasks:
        async with launch(**{"grpc.port": free_port}) as first:
            job_id = (await client.submit(PROMPT)).job.job_id
            tasks.start_soon(watch, client, job_id)
            await orchestrator.reached(1)
            await first.end(signal.SIGKILL)
        orchestrator.open.set()
        async with launch(**{"grpc.port": free_port}):
            with anyio.fail_after(30):
                await ended.wait()
    assert list(kinds.values())[-1] == "job_succeeded"
    assert any("connection lost" in notice for notice in notices)
    assert "connected again" in notices


async def test_a_second_daemon_on_the_same_file_is_refused_and_told_who_holds_it(launch: Any) -> None:
    async with launch() as daemon:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with launch():
                pass
        (failed,) = caught.value.exceptions
        assert "LedgerHeld" in str(failed)
        assert f"process {daemon.process.pid}" in str(failed)


async def test_a_draining_daemon_takes_nothing_new(launch: Any, orchestrator: Any) -> None:
    orchestrator.open = anyio.Event()
    async with launch(**{"engine.drain_grace_seconds": 30}) as daemon:
        async with Client(daemon.target, patience=0) as client:
            await client.submit(PROMPT)
            await orchestrator.reached(1)
            daemon.process.send_signal(signal.SIGTERM)
            with anyio.fail_after(10), pytest.raises(ClientError, match="shutting down"):
                await submit_for_ever(client)
        orchestrator.open.set()
        assert await daemon.ended() == 0


DEAF = """
import asyncio

async def deaf(started):
    open(started, "w").close()
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""

CALL_DEAF = """{"id": "a", "version": "1.0", "title": "t", "created_at": "2026-01-01T00:00:00Z", "tasks": [
    {"id": "call", "description": "a function that ignores its cancellation", "timeout_seconds": %s,
     "parameters": {"task_type": "python", "function": "deaf_of_tests:deaf", "arguments": {"started": "%s"}}}]}"""


@pytest.fixture
def deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings that let jobs call a function that ignores its cancellation."""
    (tmp_path / "deaf_of_tests.py").write_text(DEAF)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return {
        "python.allow": ["deaf_of_tests"],
        "python.cancel_grace_seconds": 0.1,
        "engine.drain_grace_seconds": 0,
        "log.level": "warning",
    }


async def test_a_function_that_ignores_its_cancellation_holds_up_neither_its_job_nor_the_end(
    launch: Any, deaf: dict[str, Any], tmp_path: Path
) -> None:
    async with launch(**deaf) as daemon, Client(daemon.target) as client:
        late = CALL_DEAF % (0.5, tmp_path / "late")
        job_id = (await client.submit(late.encode())).job.job_id
        with anyio.fail_after(20):
            kinds = [event.WhichOneof("event") async for event in client.watch(job_id)]
        assert "task_timed_out" in kinds
        held = CALL_DEAF % (600, tmp_path / "held")
        job_id = (await client.submit(held.encode())).job.job_id
        with anyio.fail_after(20):
            while not await anyio.Path(tmp_path / "held").exists():
                await anyio.lowlevel.checkpoint()
            assert await daemon.end(signal.SIGTERM) == 0
    assert "function_abandoned" in "".join(daemon.log)
    async with launch(**deaf) as daemon, Client(daemon.target) as client:
        with anyio.fail_after(20):
            async for event in client.watch(job_id):
                if event.WhichOneof("event") == "job_released":
                    break
