"""Appends: fenced, atomic with all that belongs to them, and readable from any place."""

from __future__ import annotations

import anyio
import pytest

from runner.core.errors import ArtifactNotFound, JobNotFound, LeaseLost, RecordNotFound
from runner.core.events import Failure, JobState
from runner.core.job import Append
from runner.ports import Ledger
from tests.ledgers.jobs import (
    SECOND,
    T0,
    append,
    artifact,
    claimed,
    ending,
    job,
    release,
    running,
    submitted,
)


async def test_an_append_moves_the_job_on(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.append(append(claim, 2, 4, progress=0.25, started_at=T0 + 7, entered=JobState.RUNNING))
    await ledger.append(append(claim, 5, progress=0.5, started_at=T0 + 9))
    now = await ledger.job(claim.summary.id)
    assert (now.state, now.progress, now.last_sequence, now.started_at) == (JobState.RUNNING, 0.5, 5, T0 + 7)
    assert [(frame.first, frame.last) for frame in await ledger.frames(now.id, after=0, max_bytes=999)] == [
        (1, 1),
        (2, 4),
        (5, 5),
    ]


async def test_an_ending_is_one_commit_with_record_and_outbox(ledger: Ledger) -> None:
    claim = await running(ledger)
    error = Failure("HTTP_STATUS", "the server answered 503", "fetch")
    await ledger.append(ending(claim, 2, 6, state=JobState.FAILED, error=error, sinks=("directory", "nats")))
    ended = await ledger.job(claim.summary.id)
    assert (ended.state, ended.error, ended.ended_at) == (JobState.FAILED, error, T0 + SECOND)
    assert await ledger.record(ended.id) == f"record of {ended.id}".encode()
    assert (await ledger.frames(ended.id, after=1, max_bytes=999))[-1].terminal
    for sink in ("directory", "nats"):
        (entry,) = await ledger.due(sink, now=T0 + SECOND, limit=10, max_bytes=1 << 30)
        assert (entry.sink, entry.job_id, entry.attempts, entry.ended_at) == (sink, ended.id, 0, T0 + SECOND)
        assert (entry.execution_id, entry.record) == (f"execution of {ended.id}", f"record of {ended.id}".encode())


async def test_nothing_follows_an_ending(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.append(ending(claim, 2))
    for change in (append(claim, 3), ending(claim, 3), release(claim, 3)):
        with pytest.raises(LeaseLost):
            await ledger.append(change)
    assert len(await ledger.frames(claim.summary.id, after=0, max_bytes=999)) == 2


async def test_an_unknown_job_and_a_wrong_token_are_refused(ledger: Ledger) -> None:
    claim = await running(ledger)
    for job_id, token in (("nowhere", 1), (claim.summary.id, 0), (claim.summary.id, 2)):
        frame = append(claim, 2).frame
        with pytest.raises(LeaseLost):
            await ledger.append(Append(job_id=job_id, token=token, frame=frame, progress=0))
    assert (await ledger.job(claim.summary.id)).last_sequence == 1


async def test_a_frame_out_of_sequence_is_refused(ledger: Ledger) -> None:
    claim = await running(ledger)
    for first in (1, 3):
        with pytest.raises(LeaseLost):
            await ledger.append(append(claim, first))
    await ledger.append(append(claim, 2))


async def test_repeating_an_append_is_harmless(ledger: Ledger) -> None:
    """A caller that did not learn of a commit makes the same call again."""
    claim = await running(ledger)
    for change in (append(claim, 2), ending(claim, 3)):
        await ledger.append(change)
        await ledger.append(change)
    assert len(await ledger.frames(claim.summary.id, after=0, max_bytes=999)) == 3
    assert len(await ledger.due("directory", now=T0 + SECOND, limit=10, max_bytes=1 << 30)) == 1
    assert await ledger.depths() == {("default", JobState.SUCCEEDED): 1}


async def test_a_different_frame_in_the_same_place_is_refused(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.append(append(claim, 2))
    with pytest.raises(LeaseLost):
        await ledger.append(append(claim, 2, data=b"another history"))


async def test_concurrent_appends_do_not_disturb_each_other(ledger: Ledger) -> None:
    await submitted(ledger, *(job() for _ in range(30)))
    claims = await claimed(ledger, 30)
    refused: list[str] = []

    async def finish(number: int) -> None:
        claim = claims[number]
        change = ending(claim, 2 if number % 3 else 9)
        try:
            await ledger.append(change)
        except LeaseLost as lost:
            refused.append(lost.job_id)

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(finish, number)
    assert sorted(refused) == sorted(claims[number].summary.id for number in range(0, 30, 3))
    assert await ledger.depths() == {("default", JobState.SUCCEEDED): 20, ("default", JobState.RUNNING): 10}


async def test_frames_are_read_from_any_event_on(ledger: Ledger) -> None:
    claim = await running(ledger)
    for first, last in ((2, 4), (5, 5), (6, 9)):
        await ledger.append(append(claim, first, last))

    async def firsts(after: int, max_bytes: int = 9999) -> list[int]:
        return [frame.first for frame in await ledger.frames(claim.summary.id, after=after, max_bytes=max_bytes)]

    assert [await firsts(after) for after in (0, 1, 2, 3, 4, 5, 8, 9, 99)] == [
        [1, 2, 5, 6],
        [2, 5, 6],
        [2, 5, 6],
        [2, 5, 6],
        [5, 6],
        [6],
        [6],
        [],
        [],
    ]
    assert await firsts(0, max_bytes=1) == [1]
    assert await firsts(0, max_bytes=len(b"accepted" + b"events 2-4")) == [1, 2]


async def test_a_long_history_is_read_by_pages(ledger: Ledger) -> None:
    claim = await running(ledger)
    for first in range(2, 502):
        await ledger.append(append(claim, first))
    seen, reads = 0, 0
    while frames := await ledger.frames(claim.summary.id, after=seen, max_bytes=1 << 20):
        assert [frame.first for frame in frames] == list(range(seen + 1, frames[-1].last + 1))
        seen, reads = frames[-1].last, reads + 1
    assert seen == 501
    assert reads < 5


async def test_artifacts_are_read_whole_and_in_pieces(ledger: Ledger) -> None:
    claim = await running(ledger)
    stored, empty = artifact("a1", b"0123456789"), artifact("a2", b"")
    await ledger.append(append(claim, 2, artifacts=(stored, empty)))
    name = claim.summary.id
    assert await ledger.artifact(name, "a1") == stored.artifact
    assert await ledger.artifact_bytes(name, "a1", offset=0, size=99) == b"0123456789"
    assert await ledger.artifact_bytes(name, "a1", offset=3, size=4) == b"3456"
    assert await ledger.artifact_bytes(name, "a1", offset=10, size=4) == b""
    assert await ledger.artifact_bytes(name, "a2", offset=0, size=4) == b""


async def test_what_does_not_exist_is_told_by_kind(ledger: Ledger) -> None:
    claim = await running(ledger)
    with pytest.raises(RecordNotFound):
        await ledger.record(claim.summary.id)
    for job_id in (claim.summary.id, "nowhere"):
        with pytest.raises(ArtifactNotFound):
            await ledger.artifact(job_id, "a1")
        with pytest.raises(ArtifactNotFound):
            await ledger.artifact_bytes(job_id, "a1", offset=0, size=1)
    with pytest.raises(JobNotFound):
        await ledger.job("nowhere")
    with pytest.raises(JobNotFound):
        await ledger.body("nowhere")
    with pytest.raises(JobNotFound):
        await ledger.frames("nowhere", after=0, max_bytes=1)
    with pytest.raises(JobNotFound):
        await ledger.record("nowhere")


async def test_the_outbox_gives_what_is_due_until_it_is_delivered(ledger: Ledger) -> None:
    await submitted(ledger, *(job(n) for n in range(4)))
    for number, claim in enumerate(await claimed(ledger)):
        await ledger.append(ending(claim, 2, ended_at=T0 + number))
    assert await ledger.due("nats", now=T0 + 9, limit=10, max_bytes=1 << 30) == []
    assert [entry.job_id for entry in await ledger.due("directory", now=T0 + 1, limit=10, max_bytes=1 << 30)] == [
        "job-000000",
        "job-000001",
    ]
    entries = await ledger.due("directory", now=T0 + 9, limit=3, max_bytes=1 << 30)
    assert [entry.ended_at for entry in entries] == [T0, T0 + 1, T0 + 2]
    await ledger.delivered([entries[1].id, 999_999])
    await ledger.put_off([entries[0].id, 999_999], until=T0 + SECOND)
    await ledger.delivered([])
    await ledger.put_off([], until=T0)
    assert [entry.ended_at for entry in await ledger.due("directory", now=T0 + 9, limit=10, max_bytes=1 << 30)] == [
        T0 + 2,
        T0 + 3,
    ]
    later = await ledger.due("directory", now=T0 + SECOND, limit=10, max_bytes=1 << 30)
    assert [(entry.ended_at, entry.attempts) for entry in later] == [(T0 + 2, 0), (T0 + 3, 0), (T0, 1)]


async def test_the_journal_tells_each_state_that_a_job_entered(ledger: Ledger) -> None:
    assert await ledger.newest_cursor() == 0
    first = await running(ledger)
    await ledger.append(append(first, 2, 3, entered=JobState.RUNNING, started_at=T0))
    await ledger.append(append(first, 4))
    await ledger.append(release(first, 5, 6))
    (second,) = await claimed(ledger)
    await ledger.append(ending(second, 7, 9, state=JobState.PARTIALLY_SUCCEEDED))
    changes = await ledger.changes(after=0, limit=99)
    assert [(change.state, change.sequence) for change in changes] == [
        (JobState.QUEUED, 1),
        (JobState.RUNNING, 2),
        (JobState.QUEUED, 6),
        (JobState.PARTIALLY_SUCCEEDED, 9),
    ]
    assert {change.job.state for change in changes} == {JobState.PARTIALLY_SUCCEEDED}
    cursors = [change.cursor for change in changes]
    assert cursors == sorted(set(cursors))
    assert await ledger.newest_cursor() == cursors[-1]
    assert await ledger.changes(after=cursors[1], limit=1) == changes[2:3]
    assert await ledger.changes(after=cursors[-1], limit=9) == []


async def test_the_store_can_be_proved(ledger: Ledger) -> None:
    await ledger.check()
    await ledger.check()


async def test_records_that_are_due_come_up_to_the_one_that_fills_the_page(ledger: Ledger) -> None:
    await submitted(ledger, *(job(number, rank=number) for number in range(1, 4)))
    for claim in await claimed(ledger):
        await ledger.append(ending(claim, 2))
    size = len(b"record of job-000001")
    found = [await ledger.due("directory", now=T0 + SECOND, limit=9, max_bytes=most) for most in (1, size + 1, 99)]
    assert [len(entries) for entries in found] == [1, 2, 3]
