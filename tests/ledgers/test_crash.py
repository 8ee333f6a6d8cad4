"""Promises 1 and 3 against kill -9: what was acknowledged is there, and nothing ended twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner.core.events import JobState
from runner.core.filters import Comparison
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import T0, found


def _run_and_kill(database: Path, first: int, lines: int) -> list[str]:
    """What a process acknowledged before it was killed, in the midst of commits, after so many lines."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.ledgers.busy_process", str(database), str(first)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    assert "" not in said, "the process ended by itself"
    # The last line may have been cut in two by the kill.
    return [line.strip() for line in said if line.endswith("\n")]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_what_was_acknowledged_survives_kill_9(database: Path) -> None:
    said: list[str] = []
    for life, lines in enumerate((40, 150, 77)):
        said += _run_and_kill(database, 1 + life * 100_000, lines)
    accepted = {line.split()[1] for line in said if line.startswith("accepted")}
    ended = [line.split()[1] for line in said if line.startswith("ended")]
    assert len(ended) == len(set(ended))
    assert accepted
    assert ended
    ledger = open_sql(database)
    async with ledger.running():
        stored = set(await found(ledger, limit=1_000_000))
        assert accepted <= stored
        finished = await found(ledger, Comparison("state", "", "=", JobState.SUCCEEDED), limit=1_000_000)
        assert set(ended) <= set(finished)
        # One record, one entry of the outbox, one terminal frame for each; and counts that agree with the rows.
        entries = await ledger.due("directory", now=T0, limit=10**6, max_bytes=1 << 30)
        assert sorted(entry.job_id for entry in entries) == sorted(finished)
        for name in finished:
            frames = await ledger.frames(name, after=0, max_bytes=1 << 20)
            assert [frame.terminal for frame in frames] == [False, True]
            assert await ledger.record(name)
        assert await ledger.depths() == {
            key: n
            for key, n in {
                ("default", JobState.SUCCEEDED): len(finished),
                ("default", JobState.QUEUED): len(stored) - len(finished),
            }.items()
            if n
        }
