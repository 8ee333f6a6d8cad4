"""Pausing: who writes the event, and where a job stands once nobody holds it any more."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core.errors import JobHasEnded, JobNotFound
from runner.core.events import JobState
from runner.core.filters import Comparison
from runner.ports import Ledger
from tests.ledgers.jobs import (
    RUNNER,
    SECOND,
    T0,
    append,
    claimed,
    ending,
    found,
    ids,
    job,
    release,
    running,
    steering,
    submitted,
)

PAUSED = Comparison("state", "", "=", JobState.PAUSED)


async def paused(ledger: Ledger, **options: Any) -> str:
    """A job that was paused before anyone took it."""
    (accepted,) = await submitted(ledger, job(**options))
    await ledger.request_pause(accepted.id, framed=steering)
    return accepted.id


async def test_of_a_job_that_nobody_holds_the_ledger_writes_the_event(ledger: Ledger) -> None:
    (accepted,) = await submitted(ledger, job())
    steered = await ledger.request_pause(accepted.id, framed=steering)
    assert steered.frame == steering(2)
    assert (steered.job.state, steered.job.pause_requested, steered.job.last_sequence) == (JobState.PAUSED, True, 2)
    assert steered.job == await ledger.job(accepted.id)
    assert [frame.data for frame in await ledger.frames(accepted.id, after=1, max_bytes=100)] == [b"steered 2"]
    resumed = await ledger.request_resume(accepted.id, framed=steering)
    assert (resumed.job.state, resumed.job.pause_requested) == (JobState.QUEUED, False)
    changes = [(change.state, change.sequence) for change in await ledger.changes(after=0, limit=9)]
    assert changes == [(JobState.QUEUED, 1), (JobState.PAUSED, 2), (JobState.QUEUED, 3)]


async def test_a_paused_job_is_not_claimed_and_a_resumed_one_is(ledger: Ledger) -> None:
    name = await paused(ledger)
    assert await claimed(ledger) == []
    assert await found(ledger, PAUSED) == [name]
    assert await ledger.depths() == {("default", JobState.PAUSED): 1}
    assert await ledger.oldest_queued() == {}
    await ledger.request_resume(name, framed=steering)
    (claim,) = await claimed(ledger)
    assert (ids([claim]), claim.frames[-1].last, claim.summary.pause_requested) == ([name], 3, False)
    assert await ledger.depths() == {("default", JobState.RUNNING): 1}


async def test_the_holder_of_a_job_writes_its_events(ledger: Ledger) -> None:
    claim = await running(ledger)
    name = claim.summary.id
    steered = await ledger.request_pause(name, framed=steering)
    assert (steered.frame, steered.job.state, steered.job.pause_requested) == (None, JobState.RUNNING, True)
    await ledger.append(append(claim, 2, entered=JobState.PAUSED))
    # What was under way may finish: it is held still.
    await ledger.append(append(claim, 3))
    assert (await ledger.job(name)).state is JobState.PAUSED
    assert await ledger.renew(RUNNER, tokens={name: claim.token}, until=T0 + 99 * SECOND) == {name}
    assert (await ledger.request_resume(name, framed=steering)).frame is None
    await ledger.append(append(claim, 4, entered=JobState.RUNNING))
    assert (await ledger.job(name)).state is JobState.RUNNING
    assert await ledger.depths() == {("default", JobState.RUNNING): 1}


async def test_asking_again_changes_nothing(ledger: Ledger) -> None:
    name = await paused(ledger)
    again = await ledger.request_pause(name, framed=steering)
    assert (again.frame, again.job) == (None, await ledger.job(name))
    for _ in range(2):
        resumed = await ledger.request_resume(name, framed=steering)
    assert (resumed.frame, resumed.job.last_sequence) == (None, 3)


async def test_a_holder_that_lets_go_leaves_the_job_paused(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.request_pause(claim.summary.id, framed=steering)
    await ledger.append(append(claim, 2, entered=JobState.PAUSED))
    await ledger.append(append(claim, 3, release=True))
    assert (await ledger.job(claim.summary.id)).state is JobState.PAUSED
    assert await claimed(ledger) == []
    assert await ledger.renew(RUNNER, tokens={claim.summary.id: claim.token}, until=T0 + 99 * SECOND) == set()


async def test_a_job_resumed_while_its_holder_lets_go_is_claimable(ledger: Ledger) -> None:
    claim = await running(ledger)
    name = claim.summary.id
    await ledger.request_pause(name, framed=steering)
    await ledger.append(append(claim, 2, entered=JobState.PAUSED))
    assert (await ledger.request_resume(name, framed=steering)).frame is None
    await ledger.append(append(claim, 3, release=True))
    assert ids(await claimed(ledger)) == [name]


async def test_a_job_lost_while_it_was_paused_stays_paused(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.request_pause(claim.summary.id, framed=steering)
    await ledger.append(append(claim, 2, entered=JobState.PAUSED))
    assert await ledger.rescue(now=T0 + 15 * SECOND, limit=10) == 1
    assert (await ledger.job(claim.summary.id)).state is JobState.PAUSED
    assert await claimed(ledger) == []
    assert await ledger.depths() == {("default", JobState.PAUSED): 1}


async def test_a_job_lost_before_its_holder_heard_of_the_pause_is_claimed_with_the_wish(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.request_pause(claim.summary.id, framed=steering)
    await ledger.append(release(claim, 2))
    (again,) = await claimed(ledger)
    assert (again.summary.id, again.summary.pause_requested) == (claim.summary.id, True)


async def test_a_job_lost_before_its_holder_heard_can_be_paused_by_the_ledger_or_resumed(ledger: Ledger) -> None:
    claim = await running(ledger)
    name = claim.summary.id
    await ledger.request_pause(name, framed=steering)
    await ledger.append(release(claim, 2))
    assert (await ledger.request_resume(name, framed=steering)).frame is None
    assert (await ledger.request_pause(name, framed=steering)).frame == steering(3)
    assert (await ledger.job(name)).state is JobState.PAUSED


async def test_a_paused_job_is_taken_to_be_cancelled_or_when_its_deadline_has_passed(ledger: Ledger) -> None:
    cancelled = await paused(ledger)
    late = await paused(ledger, deadline=T0 + 5)
    assert await ledger.next_due(now=T0) == T0 + 5
    await ledger.request_cancel(cancelled, "enough")
    assert ids(await claimed(ledger, queues={"default": 0})) == [cancelled]
    (claim,) = await claimed(ledger, now=T0 + 5)
    assert claim.summary.id == late
    await ledger.append(ending(claim, 3, state=JobState.FAILED))
    assert await ledger.depths() == {("default", JobState.RUNNING): 1, ("default", JobState.FAILED): 1}


async def test_a_job_with_a_time_to_wait_for_waits_for_it_after_a_pause(ledger: Ledger) -> None:
    name = await paused(ledger, not_before=T0 + 9)
    assert await ledger.next_due(now=T0) is None
    assert await claimed(ledger, now=T0 + 10) == []
    await ledger.request_resume(name, framed=steering)
    assert await ledger.next_due(now=T0) == T0 + 9
    assert await claimed(ledger, now=T0 + 8) == []
    assert ids(await claimed(ledger, now=T0 + 9)) == [name]


async def test_a_paused_job_takes_no_place_in_its_queue(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.request_pause(claim.summary.id, framed=steering)
    await ledger.append(append(claim, 2, entered=JobState.PAUSED))
    await submitted(ledger, job(2))
    assert ids(await claimed(ledger, queues={"default": 1})) == ["job-000002"]


async def test_a_paused_job_can_end_while_it_is_held(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.request_pause(claim.summary.id, framed=steering)
    await ledger.append(append(claim, 2, entered=JobState.PAUSED))
    await ledger.append(ending(claim, 3))
    assert (await ledger.job(claim.summary.id)).state is JobState.SUCCEEDED
    for verb in (ledger.request_pause, ledger.request_resume):
        with pytest.raises(JobHasEnded):
            await verb(claim.summary.id, framed=steering)


async def test_a_job_that_does_not_exist_is_neither_paused_nor_resumed(ledger: Ledger) -> None:
    for verb in (ledger.request_pause, ledger.request_resume):
        with pytest.raises(JobNotFound):
            await verb("job-none", framed=steering)
