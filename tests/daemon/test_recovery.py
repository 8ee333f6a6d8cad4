"""Promises 1 to 5 under kill -9: a real process, killed at random moments, while jobs run and watchers watch."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import anyio
import pytest
from altrunner.v1 import event_pb2, job_service_pb2

from runner.client import Client
from runner.core.record import Verdict, verify

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

JOBS = 2_000
KILLS = 5
WATCHED = 200


def descriptor(index: int) -> bytes:
    """Three tasks: two side by side, one after both."""
    tasks = [
        {"id": "left", "description": "one", "parameters": {"prompt": "l"}},
        {"id": "right", "description": "two", "parameters": {"prompt": "r"}},
        {
            "id": "both",
            "description": "three",
            "dependencies": ["left", "right"],
            "parameters": {"prompt": "${tasks.left.output.text} ${tasks.right.output.text}"},
        },
    ]
    made = {"id": f"alt_{index}", "version": "1.0", "title": f"Job {index}", "created_at": "2026-01-01T00:00:00Z"}
    return json.dumps(made | {"tasks": tasks}).encode()


async def submit_all(client: Client, count: int) -> list[str]:
    """Every job under a request id of its own, submitted twice: the second time must change nothing."""
    requests = [
        job_service_pb2.SubmitJobRequest(descriptor=descriptor(index), request_id=f"request-{index}")
        for index in range(count)
    ]
    ids: list[str] = []
    for start in range(0, count, 500):
        first = await client.submit_batch(requests[start : start + 500])
        again = await client.submit_batch(requests[start : start + 500])
        assert [result.accepted.job.job_id for result in first] == [result.accepted.job.job_id for result in again]
        assert all(result.accepted.replayed for result in again)
        ids += [result.accepted.job.job_id for result in first]
    return ids


async def watch_to_the_end(client: Client, job_id: str, seen: dict[str, list[event_pb2.JobEvent]]) -> None:
    async for event in client.watch(job_id):
        seen[job_id].append(event)


async def test_two_thousand_jobs_survive_five_kills(
    launch: Any, orchestrator: Any, free_port: int, tmp_path: Path
) -> None:
    """2,000 records, none twice, no finished task run again, every watcher saw 1..n."""
    chance = random.Random(2026)  # noqa: S311  repeatable, not secret
    live: dict[str, list[event_pb2.JobEvent]] = defaultdict(list)
    settings = {"grpc.port": free_port, "engine.max_concurrent_tasks": 256, "log.level": "warning"}
    async with Client(f"127.0.0.1:{free_port}", patience=None) as client, anyio.create_task_group() as watchers:
        async with launch(**settings) as daemon:
            ids = await submit_all(client, JOBS)
            for job_id in chance.sample(ids, WATCHED):
                watchers.start_soon(watch_to_the_end, client, job_id, live)
            await daemon.end(signal.SIGKILL)
        for kill in range(1, KILLS):
            async with launch(**settings) as daemon:
                share = JOBS * 3 * kill // (KILLS + 1)
                await orchestrator.reached(share + chance.randrange(JOBS // 4))
                await daemon.end(signal.SIGKILL)
        async with launch(**settings) as daemon:
            after: dict[str, list[event_pb2.JobEvent]] = defaultdict(list)
            with anyio.fail_after(150):
                for job_id in ids:
                    await watch_to_the_end(client, job_id, after)
            assert await daemon.end(signal.SIGTERM) == 0

    assert len(live) == WATCHED
    for job_id, events in live.items():
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert events == after[job_id]
    for job_id, events in after.items():
        check_history(job_id, events, orchestrator.calls)
    check_records(tmp_path / "var" / "last", ids)


def check_history(job_id: str, events: list[event_pb2.JobEvent], calls: Counter[str]) -> None:
    """One end, no start after success, and no more calls than attempts."""
    kinds = [event.WhichOneof("event") for event in events]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert kinds.count("job_succeeded") == 1
    assert kinds[-1] == "job_succeeded"
    starts: Counter[str] = Counter()
    finished: set[str] = set()
    for event in events:
        if event.HasField("attempt_started"):
            assert event.attempt_started.task_id not in finished
            starts[event.attempt_started.task_id] += 1
        if event.HasField("attempt_succeeded"):
            finished.add(event.attempt_succeeded.task_id)
    assert finished == {"left", "right", "both"}
    for task, count in starts.items():
        assert 1 <= calls[f"{job_id}/{task}"] <= count


def check_records(directory: Path, ids: list[str]) -> None:
    """One whole record for each job."""
    paths = list(directory.rglob("last_*.json"))
    assert Counter(json.loads(path.read_bytes())["job_id"] for path in paths) == Counter(ids)
    assert all(verify(path.read_bytes()) is Verdict.OK for path in paths)
