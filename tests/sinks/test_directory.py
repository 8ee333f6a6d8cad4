from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import msgspec
import pytest

from runner.core.errors import SinkUnavailable
from runner.core.job import OutboxEntry
from runner.sinks.directory import DirectorySink, DirectorySinkSettings

pytestmark = pytest.mark.anyio
#: 2026-01-31T23:59:59.999999Z, on the last moment of a UTC day.
ENDED = 1_769_903_999_999_999


def entry(number: int, record: bytes = b'{"id": "x"}\n', ended_at: int = ENDED) -> OutboxEntry:
    return OutboxEntry(
        id=number,
        sink="directory",
        job_id=f"job{number}",
        execution_id=f"exe{number}",
        ended_at=ended_at,
        record=record,
        attempts=0,
    )


def sink_at(path: Path) -> DirectorySink:
    return DirectorySink(DirectorySinkSettings(path=str(path)))


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("count", [1, 3, 4, 50])
async def test_records_stand_whole_under_the_day_they_ended_on(tmp_path: Path, count: int) -> None:
    entries = [entry(number, record=b"%d" % number * 10_000) for number in range(count)]
    await sink_at(tmp_path).deliver(entries)
    assert files(tmp_path) == {f"2026/01/31/last_exe{each.id}.json": each.record for each in entries}
    assert sink_at(tmp_path).path_of(entries[0]) == tmp_path / "2026/01/31/last_exe0.json"


async def test_a_batch_may_span_days_and_midnight_is_utc(tmp_path: Path) -> None:
    await sink_at(tmp_path / "made" / "here").deliver([entry(1), entry(2, ended_at=ENDED + 1)])
    assert set(files(tmp_path)) == {
        "made/here/2026/01/31/last_exe1.json",
        "made/here/2026/02/01/last_exe2.json",
    }


async def test_delivering_again_changes_nothing(tmp_path: Path) -> None:
    sink = sink_at(tmp_path)
    await sink.deliver([entry(1), entry(2)])
    before = files(tmp_path)
    await sink.deliver([entry(2), entry(2), entry(1)])
    assert files(tmp_path) == before


async def test_no_records_are_no_work(tmp_path: Path) -> None:
    await sink_at(tmp_path).deliver([])
    assert files(tmp_path) == {}


async def test_daemons_and_deliveries_may_share_a_directory(tmp_path: Path) -> None:
    async with anyio.create_task_group() as group:
        for start in range(0, 60, 10):
            group.start_soon(sink_at(tmp_path).deliver, [entry(number) for number in range(start, start + 10)])
    assert len(files(tmp_path)) == 60


@pytest.mark.parametrize("count", [2, 20])
async def test_a_disk_without_room_is_told_and_leaves_nothing_torn(tmp_path: Path, count: int) -> None:
    """The kernel's limit on the size of a file stands in for a full disk: the write fails half-way."""
    sink = sink_at(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(SinkUnavailable, match=r"File too large.*they stay in the ledger"):
            await sink.deliver([*map(entry, range(1, count)), entry(count, record=b"x" * 100_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == {}
    await sink.deliver([entry(1), entry(2)])
    assert len(files(tmp_path)) == 2


async def test_a_path_that_is_no_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SinkUnavailable, match=r"records\.directory"):
        await sink_at(tmp_path / "taken").deliver([entry(1)])


async def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path: Path) -> None:
    """A real process is stopped with -9 while it delivers: it blocks on a FIFO in the place of its temporary file."""
    script = textwrap.dedent("""
        import os, sys, tempfile, threading
        import anyio
        from runner.core.job import OutboxEntry
        from runner.sinks.directory import DirectorySink, DirectorySinkSettings

        root = sys.argv[1]
        make = tempfile.mkdtemp
        def with_fifo(**place):
            staging = make(**place)
            os.mkfifo(f"{staging}/last_stuck.json")
            print("writing", flush=True)
            return staging
        tempfile.mkdtemp = with_fifo
        entry = OutboxEntry(
            id=1, sink="directory", job_id="j", execution_id="stuck", ended_at=0, record=b"x", attempts=0
        )
        anyio.run(DirectorySink(DirectorySinkSettings(path=root)).deliver, [entry])
    """)
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 -- nothing else runs
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        (left,) = (tmp_path / ".incoming").iterdir()
        process.send_signal(signal.SIGKILL)
    await sink_at(tmp_path).deliver([entry(1)])
    assert not left.exists()
    assert set(files(tmp_path)) == {"2026/01/31/last_exe1.json"}


async def test_what_a_living_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / ".incoming" / "other"
    other.mkdir(parents=True)
    (other / "last_theirs.json").write_bytes(b"half")
    descriptor = os.open(other, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        await sink_at(tmp_path).deliver([entry(1)])
        assert (other / "last_theirs.json").exists()
    finally:
        os.close(descriptor)
    await sink_at(tmp_path).deliver([entry(1)])
    assert not other.exists()


async def test_cancellation_waits_for_the_write_under_way(tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sink_at(tmp_path).deliver([msgspec.structs.replace(entry(number), id=number) for number in range(20)])
    assert len(files(tmp_path)) in (0, 20)
