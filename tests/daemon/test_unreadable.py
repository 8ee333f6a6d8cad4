"""A job whose row is damaged: the daemon sets it aside, says so everywhere, runs the others, and ends it when asked."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
import pytest
from altrunner.v1 import job_pb2

from runner.client import CallRefused, Client
from runner.core.record import Verdict, parse, verify

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

CHAIN: Final = json.dumps(
    {
        "id": "alt_0042",
        "version": "1.0",
        "title": "Weekly digest",
        "created_at": "2026-01-01T00:00:00Z",
        "tasks": [
            {"id": "first", "description": "one call"},
            {"id": "second", "description": "another", "dependencies": ["first"]},
        ],
    }
).encode()
DAMAGED: Final = "UPDATE frames SET data = x'ff' WHERE job_id = :job AND first > 1"
COPIES: Final = "CREATE TABLE copies AS SELECT cursor, data FROM frames WHERE job_id = :job"
MENDED: Final = (
    "UPDATE frames SET data = (SELECT data FROM copies WHERE copies.cursor = frames.cursor) WHERE job_id = :job"
)


@pytest.fixture
def settings(free_port: int) -> Mapping[str, Any]:
    return {
        "grpc.port": free_port,
        "engine.lease_seconds": 2,
        "engine.poll_seconds": 0.1,
        "metrics.sample_seconds": 0.1,
    }


async def told(daemon: Any, event: str, job_id: str) -> dict[str, Any]:
    """The line of the log that says this of the job."""
    with anyio.fail_after(30):
        while True:
            for line in daemon.log:
                if event in line and job_id in line:
                    return dict(json.loads(line))
            await daemon.more_log()


async def shown(daemon: Any, metric: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{daemon.http}/metrics") as answer:
        (line,) = [line for line in (await answer.text()).splitlines() if line.startswith(f"{metric} ")]
    return float(line.split()[1])


async def interrupted(launch: Any, orchestrator: Any, settings: Mapping[str, Any]) -> str:
    """A job whose daemon was killed while its first task ran."""
    orchestrator.open = anyio.Event()
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        job_id: str = (await client.submit(CHAIN, labels={"team": "blue"})).job.job_id
        await orchestrator.reached(1)
        await daemon.end(signal.SIGKILL)
    orchestrator.open.set()
    return job_id


def change(tmp_path: Path, job_id: str, *statements: str) -> None:
    """Run statements on the ledger of a daemon that is not there."""
    with closing(sqlite3.connect(tmp_path / "var" / "ledger.db", isolation_level=None)) as ledger:
        for statement in statements:
            ledger.execute(statement, {"job": job_id})


async def test_a_job_with_damaged_events_is_set_aside_told_of_and_ended_by_hand(
    launch: Any, orchestrator: Any, settings: Mapping[str, Any], tmp_path: Path
) -> None:
    job_id = await interrupted(launch, orchestrator, settings)
    change(tmp_path, job_id, DAMAGED)
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        other = (await client.submit(CHAIN)).job.job_id
        assert [event.WhichOneof("event") async for event in client.watch(other)][-1] == "job_succeeded"
        line = await told(daemon, "job_set_aside", job_id)
        assert line["level"] == "error"
        assert "is damaged" in line["error"]
        assert line["error"].endswith("start the version that wrote them, or cancel the job")
        assert sum("job_replay_failed" in line for line in daemon.log) == 2
        for full in (False, True):
            job = await client.get(job_id, full=full)
            assert (job.state, job.error.reason, len(job.tasks)) == (job_pb2.JOB_STATE_QUEUED, "REPLAY_FAILED", 0)
        with anyio.fail_after(10):
            while await shown(daemon, "alt_runner_jobs_set_aside") != 1:
                await anyio.lowlevel.checkpoint()

        await client.cancel(job_id, reason="its row is damaged")
        kinds = [event.WhichOneof("event") async for event in client.watch(job_id, after=job.last_sequence)]
        assert kinds == ["job_started", "job_cancelling", "job_cancelled"]
        ended = await client.get(job_id, full=True)
        assert (ended.state, ended.error.reason) == (job_pb2.JOB_STATE_CANCELLED, "REPLAY_FAILED")
        record = await client.record(job_id)
        with pytest.raises(CallRefused, match="cannot read its plan or events"):
            await client.retry(job_id)
        assert await daemon.end(signal.SIGTERM) == 0
    assert verify(record) is Verdict.OK
    last = parse(record)
    assert (last.job_id, last.title, last.status, dict(last.task_results)) == (job_id, "Weekly digest", "failure", {})
    assert last.summary is not None
    assert last.summary.startswith("Cancelled: its row is damaged. What became of its 2 tasks is not known: alt-runner")
    assert last.metadata["labels"] == {"team": "blue"}
    (copy,) = [path for path in (tmp_path / "var" / "last").rglob("last_*.json") if job_id in path.read_text()]
    assert copy.read_bytes() == record


async def test_a_row_that_is_mended_goes_on_from_where_it_stood(
    launch: Any, orchestrator: Any, settings: Mapping[str, Any], tmp_path: Path
) -> None:
    """So does one that the version after this can read: every start has those that are set aside tried again."""
    job_id = await interrupted(launch, orchestrator, settings)
    change(tmp_path, job_id, COPIES, DAMAGED)
    hasty = {**settings, "engine.max_replay_failures": 1}
    async with launch(**hasty) as daemon:
        await told(daemon, "job_set_aside", job_id)
        await daemon.end(signal.SIGKILL)
    change(tmp_path, job_id, MENDED, "DROP TABLE copies")
    async with launch(**settings) as daemon, Client(daemon.target) as client:
        kinds = [event.WhichOneof("event") async for event in client.watch(job_id)]
        assert any("jobs_tried_again" in line for line in daemon.log)
        assert await daemon.end(signal.SIGTERM) == 0
    assert kinds == [
        "job_accepted", "job_started", "attempt_started",
        "job_started", "attempt_started", "attempt_succeeded", "attempt_started", "attempt_succeeded", "job_succeeded",
    ]  # fmt: skip
    assert orchestrator.calls[f"{job_id}/second"] == 1
