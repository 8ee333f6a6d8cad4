"""Claims: by rank, within limits, fenced by tokens, taken back when a lease ends."""

from __future__ import annotations

import anyio
import pytest

from runner.core.errors import AlreadyAnswered, JobHasEnded, JobNotFound, LeaseLost
from runner.core.events import JobState
from runner.core.job import Claim, Signal
from runner.ports import Ledger
from tests.ledgers.jobs import SECOND, T0, append, claimed, ending, ids, job, release, running, submitted


async def test_a_claim_carries_all_that_running_needs(ledger: Ledger) -> None:
    new = job(labels={"team": "blue"}, deadline=T0 + SECOND)
    await submitted(ledger, new)
    (claim,) = await claimed(ledger)
    assert claim.summary == await ledger.job(new.summary.id)
    assert claim.summary.state is JobState.RUNNING
    assert claim.summary.started_at is None
    assert (claim.plan, claim.inputs, claim.traceparent) == (new.plan, new.inputs, new.traceparent)
    assert claim.frames == new.frames
    assert claim.token == 1
    assert claim.cancel_reason is None


async def test_a_claimed_job_is_claimed_once(ledger: Ledger) -> None:
    await submitted(ledger, job())
    assert len(await claimed(ledger)) == 1
    assert await claimed(ledger, now=T0 + 999 * SECOND) == []


async def test_concurrent_claims_share_the_jobs_out(ledger: Ledger) -> None:
    await submitted(ledger, *(job() for _ in range(20)))
    taken: list[Claim] = []

    async def claim() -> None:
        taken.extend(await claimed(ledger, 3))

    async with anyio.create_task_group() as tasks:
        for _ in range(7):
            tasks.start_soon(claim)
    assert len(taken) == 20
    assert len(set(ids(taken))) == 20


async def test_the_lowest_rank_is_first_over_all_queues(ledger: Ledger) -> None:
    await submitted(
        ledger,
        job(1, rank=30, queue="a"),
        job(2, rank=10, queue="b"),
        job(3, rank=20, queue="a"),
        job(4, rank=-5, queue="c"),
    )
    assert ids(await claimed(ledger, 3)) == ["job-000004", "job-000002", "job-000003"]
    assert ids(await claimed(ledger, 3)) == ["job-000001"]


async def test_jobs_of_one_rank_are_taken_by_id(ledger: Ledger) -> None:
    await submitted(ledger, job(3), job(1), job(2))
    assert ids(await claimed(ledger)) == ["job-000001", "job-000002", "job-000003"]


async def test_an_old_job_of_low_priority_goes_before_a_fresh_urgent_one(ledger: Ledger) -> None:
    """Rank is the time of acceptance less a head start, so waiting makes up for priority."""
    head_start = 120 * SECOND
    await submitted(ledger, job(1, rank=200 * SECOND - head_start), job(2, rank=70 * SECOND))
    assert ids(await claimed(ledger)) == ["job-000002", "job-000001"]


async def test_a_queue_runs_no_more_than_its_limit(ledger: Ledger) -> None:
    await submitted(ledger, *(job(queue="a", rank=n) for n in range(5)), job(99, queue="b", rank=99))
    first = await claimed(ledger, queues={"a": 2})
    assert [claim.summary.queue for claim in first] == ["a", "a", "b"]
    assert await claimed(ledger, queues={"a": 2}) == []
    await ledger.append(ending(first[0], 2))
    assert len(await claimed(ledger, queues={"a": 2})) == 1
    assert len(await claimed(ledger)) == 2


async def test_a_limit_of_zero_stops_a_queue(ledger: Ledger) -> None:
    await submitted(ledger, job())
    assert await claimed(ledger, queues={"default": 0}) == []
    assert await claimed(ledger, 0) == []


async def test_a_job_is_held_until_its_time(ledger: Ledger) -> None:
    await submitted(ledger, job(1, not_before=T0 + SECOND, rank=-9), job(2))
    assert ids(await claimed(ledger)) == ["job-000002"]
    assert await claimed(ledger, now=T0 + SECOND - 1) == []
    assert ids(await claimed(ledger, now=T0 + SECOND)) == ["job-000001"]


async def test_an_overdue_job_is_taken_first_whatever_the_limits(ledger: Ledger) -> None:
    await submitted(
        ledger,
        job(1, rank=-9),
        job(2, deadline=T0 + SECOND, not_before=T0 + 9 * SECOND, rank=9),
        job(3, deadline=T0 + 5 * SECOND, rank=8),
    )
    assert ids(await claimed(ledger, 1, now=T0 + SECOND, queues={"default": 0})) == ["job-000002"]
    assert await claimed(ledger, now=T0 + SECOND, queues={"default": 0}) == []


async def test_a_cancelled_job_is_taken_first_and_tells_why(ledger: Ledger) -> None:
    await submitted(ledger, job(1, rank=-9), job(2, rank=9, not_before=T0 + SECOND))
    summary = await ledger.request_cancel("job-000002", "no longer needed")
    assert summary.cancel_requested
    assert summary.state is JobState.QUEUED
    (claim,) = await claimed(ledger, 1, queues={"default": 0})
    assert claim.summary.id == "job-000002"
    assert claim.summary.cancel_requested
    assert claim.cancel_reason == "no longer needed"


async def test_urgent_jobs_count_against_their_queues_limit(ledger: Ledger) -> None:
    await submitted(ledger, job(1), job(2), job(3))
    await ledger.request_cancel("job-000003", "")
    assert ids(await claimed(ledger, queues={"default": 2})) == ["job-000003", "job-000001"]


async def test_the_first_reason_for_a_cancellation_stays(ledger: Ledger) -> None:
    await submitted(ledger, job(1))
    await ledger.request_cancel("job-000001", "first")
    assert (await ledger.request_cancel("job-000001", "second")).cancel_requested
    assert (await claimed(ledger))[0].cancel_reason == "first"


async def test_cancelling_an_ended_job_is_harmless(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.append(ending(claim, 2))
    before = await ledger.job(claim.summary.id)
    assert await ledger.request_cancel(claim.summary.id, "late") == before
    assert await ledger.job(claim.summary.id) == before


async def test_cancelling_what_does_not_exist_is_told(ledger: Ledger) -> None:
    with pytest.raises(JobNotFound, match="nowhere"):
        await ledger.request_cancel("nowhere", "")


async def test_a_lease_that_ended_gives_the_job_to_the_next_runner(ledger: Ledger) -> None:
    first = await running(ledger)
    await ledger.append(append(first, 2, started_at=T0 + 5, entered=JobState.RUNNING))
    assert await ledger.rescue(now=T0 + 15 * SECOND - 1, limit=10) == 0
    assert await ledger.rescue(now=T0 + 15 * SECOND, limit=10) == 1
    waiting = await ledger.job(first.summary.id)
    assert (waiting.state, waiting.started_at, waiting.last_sequence) == (JobState.QUEUED, T0 + 5, 2)
    (second,) = await claimed(ledger, runner="runner-2")
    assert second.token == first.token + 1
    assert [frame.first for frame in second.frames] == [1, 2]
    with pytest.raises(LeaseLost):
        await ledger.append(append(first, 3))
    await ledger.append(append(second, 3))


async def test_a_rescued_job_refuses_its_old_runner_before_anyone_takes_it(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.rescue(now=T0 + 99 * SECOND, limit=10)
    with pytest.raises(LeaseLost):
        await ledger.append(append(claim, 2))


async def test_rescue_goes_by_pages(ledger: Ledger) -> None:
    await submitted(ledger, *(job() for _ in range(5)))
    await claimed(ledger)
    assert [await ledger.rescue(now=T0 + 99 * SECOND, limit=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_a_renewed_lease_is_kept(ledger: Ledger) -> None:
    claim = await running(ledger)
    tokens = {claim.summary.id: claim.token, "nowhere": 1}
    assert await ledger.renew("runner-1", tokens=tokens, until=T0 + 30 * SECOND) == {claim.summary.id}
    assert await ledger.rescue(now=T0 + 20 * SECOND, limit=10) == 0
    await ledger.append(append(claim, 2))


async def test_a_lease_is_renewed_by_its_owner_with_its_token_alone(ledger: Ledger) -> None:
    claim = await running(ledger)
    until, name = T0 + 30 * SECOND, claim.summary.id
    assert await ledger.renew("runner-2", tokens={name: claim.token}, until=until) == set()
    assert await ledger.renew("runner-1", tokens={name: claim.token + 1}, until=until) == set()
    assert await ledger.renew("runner-1", tokens={}, until=until) == set()
    await ledger.rescue(now=T0 + 20 * SECOND, limit=10)
    assert await ledger.renew("runner-1", tokens={name: claim.token}, until=until) == set()


async def test_a_released_job_is_claimable_at_once(ledger: Ledger) -> None:
    first = await running(ledger)
    await ledger.append(release(first, 2, 3))
    assert (await ledger.job(first.summary.id)).state is JobState.QUEUED
    with pytest.raises(LeaseLost):
        await ledger.append(append(first, 4))
    (second,) = await claimed(ledger, runner="runner-2")
    assert second.token == 2
    assert second.frames[-1].last == 3


async def test_the_next_time_to_look_is_the_earliest_in_the_future(ledger: Ledger) -> None:
    assert await ledger.next_due(now=T0) is None
    await submitted(
        ledger,
        job(not_before=T0 + 5 * SECOND, deadline=T0 + 50 * SECOND),
        job(deadline=T0 + 9 * SECOND),
        job(deadline=T0 - SECOND),
    )
    assert await ledger.next_due(now=T0) == T0 + 5 * SECOND
    assert await ledger.next_due(now=T0 + 5 * SECOND) == T0 + 9 * SECOND
    assert await ledger.next_due(now=T0 + 9 * SECOND) == T0 + 50 * SECOND
    await claimed(ledger, now=T0 + 9 * SECOND)
    assert await ledger.next_due(now=T0) is None


async def test_a_job_taken_before_its_time_is_held_again_when_it_comes_back(ledger: Ledger) -> None:
    await submitted(ledger, job(not_before=T0 + 9 * SECOND, deadline=T0 + SECOND))
    await claimed(ledger, now=T0 + SECOND)
    await ledger.rescue(now=T0 + 99 * SECOND, limit=10)
    assert await ledger.next_due(now=T0 + 2 * SECOND) == T0 + 9 * SECOND


async def test_a_claim_ends_with_the_job_whose_frames_fill_it(ledger: Ledger) -> None:
    await submitted(ledger, *(job(number, rank=number) for number in range(1, 6)))
    size = len(job().frames[0].data)
    assert ids(await claimed(ledger, max_bytes=2 * size)) == ["job-000001", "job-000002"]
    assert ids(await claimed(ledger, max_bytes=2 * size + 1)) == ["job-000003", "job-000004", "job-000005"]


async def test_a_job_with_a_long_history_is_claimed_alone_but_claimed(ledger: Ledger) -> None:
    await submitted(ledger, job(1), job(2))
    (first, _) = await claimed(ledger)
    await ledger.append(append(first, 2, data=b"x" * 10_000))
    await ledger.append(release(first, 3))
    assert [claim.size for claim in await claimed(ledger, max_bytes=10)] == [10_000 + len(job().frames[0].data) + 10]


async def test_answers_are_kept_once_and_come_with_the_claim(ledger: Ledger) -> None:
    one, other = job(), job()
    await submitted(ledger, one, other)
    yes = Signal("ask", approved=True, comment="olur — ığ", sender="a", data=b"[1]")
    assert (await ledger.signal(one.summary.id, yes)).id == one.summary.id
    with pytest.raises(AlreadyAnswered):
        await ledger.signal(one.summary.id, Signal("ask", approved=False))
    second = Signal("later", approved=False)
    await ledger.signal(one.summary.id, second)
    claims = {claim.summary.id: claim for claim in await claimed(ledger)}
    assert claims[one.summary.id].signals == (yes, second)
    assert claims[other.summary.id].signals == ()
    await ledger.append(ending(claims[other.summary.id], 2))
    with pytest.raises(JobHasEnded):
        await ledger.signal(other.summary.id, yes)
    with pytest.raises(JobNotFound):
        await ledger.signal("nowhere", yes)
