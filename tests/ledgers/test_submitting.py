"""Submission: durable once answered, harmless to repeat, bounded, and each job with an answer of its own."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from runner.core.errors import ArtifactNotFound, JobNotFound, QueueFull, RequestIdReused
from runner.core.events import JobState
from runner.core.job import Body, Frame, Inheritance, Submitted
from runner.core.plan import Priority
from runner.ports import Ledger
from tests.ledgers.jobs import SECOND, T0, append, artifact, claimed, ending, ids, job, running, submitted


async def test_an_accepted_job_is_told_as_it_was_submitted(ledger: Ledger) -> None:
    new = job(
        title="Haftalık özet — ığüşöç",
        priority=Priority.CRITICAL,
        queue="reports",
        labels={"team": "mavi", 'odd "key"': ""},
        request_id="r-1",
        not_before=T0 + SECOND,
        deadline=T0 + 2 * SECOND,
    )
    (accepted,) = await submitted(ledger, new)
    assert accepted == new.summary
    assert await ledger.job(new.summary.id) == new.summary
    assert await ledger.body(new.summary.id) == Body(new.descriptor, new.content_type, new.plan, new.inputs)
    assert await ledger.frames(new.summary.id, after=0, max_bytes=100) == list(new.frames)


async def test_repeating_a_submission_gives_the_job_as_it_is_now(ledger: Ledger) -> None:
    claim = await running(ledger, request_id="r-1")
    await ledger.append(ending(claim, 2))
    (answer,) = await ledger.submit([job(request_id="r-1")], max_queued={})
    assert isinstance(answer, Submitted)
    assert answer.replayed
    assert answer.job == await ledger.job(claim.summary.id)
    assert answer.job.state is JobState.SUCCEEDED
    assert await claimed(ledger) == []


async def test_a_request_id_with_another_body_is_refused_and_names_the_first_job(ledger: Ledger) -> None:
    (first,) = await submitted(ledger, job(request_id="r-1"))
    (answer,) = await ledger.submit([job(request_id="r-1", body=b"other")], max_queued={})
    assert isinstance(answer, RequestIdReused)
    assert answer.job_id == first.id


async def test_what_must_not_be_accepted_is_refused_unless_it_repeats(ledger: Ledger) -> None:
    (first,) = await submitted(ledger, job(request_id="r-1"))
    refusal = QueueFull("default", 1, 1.0)
    late, clash, fresh = (
        msgspec.structs.replace(new, refusal=refusal)
        for new in (job(request_id="r-1"), job(request_id="r-1", body=b"other"), job(request_id="r-2"))
    )
    answers = await ledger.submit([late, clash, fresh], max_queued={})
    assert answers[0] == Submitted(first, replayed=True)
    assert isinstance(answers[1], RequestIdReused)
    assert answers[2] is refusal
    with pytest.raises(JobNotFound):
        await ledger.job(fresh.summary.id)


async def test_repetitions_within_one_submission_are_told_apart(ledger: Ledger) -> None:
    first, second = job(request_id="r-1"), job(request_id="r-1")
    clash, other = job(request_id="r-1", body=b"other"), job()
    answers = await ledger.submit([first, second, clash, other], max_queued={})
    assert answers[0] == Submitted(first.summary, replayed=False)
    assert answers[1] == Submitted(first.summary, replayed=True)
    assert isinstance(answers[2], RequestIdReused)
    assert answers[3] == Submitted(other.summary, replayed=False)
    with pytest.raises(JobNotFound):
        await ledger.job(second.summary.id)


async def test_concurrent_submissions_of_one_request_id_make_one_job(ledger: Ledger) -> None:
    answers: list[Submitted | Exception] = []

    async def submit() -> None:
        answers.extend(await ledger.submit([job(request_id="r-1")], max_queued={}))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(submit)
    assert sorted(isinstance(answer, Submitted) and answer.replayed for answer in answers) == [False] + [True] * 19
    assert len({answer.job.id for answer in answers if isinstance(answer, Submitted)}) == 1
    assert len(await claimed(ledger)) == 1


async def test_jobs_without_a_request_id_are_never_the_same(ledger: Ledger) -> None:
    assert len(await submitted(ledger, job(), job(), job())) == 3


async def test_a_full_queue_refuses_what_is_too_much_and_nothing_else(ledger: Ledger) -> None:
    answers = await ledger.submit(
        [job(), job(), job(), job(queue="other"), job(queue="unbounded")], max_queued={"default": 2, "other": 1}
    )
    assert [isinstance(answer, Submitted) for answer in answers] == [True, True, False, True, True]
    refused = answers[2]
    assert isinstance(refused, QueueFull)
    assert (refused.queue, refused.limit) == ("default", 2)
    assert refused.retry_after > 0
    assert await ledger.depths() == {("default", 1): 2, ("other", 1): 1, ("unbounded", 1): 1}


async def test_only_waiting_jobs_fill_a_queue(ledger: Ledger) -> None:
    await running(ledger)
    await submitted(ledger, job(), max_queued={"default": 1})
    (refused,) = await ledger.submit([job()], max_queued={"default": 1})
    assert isinstance(refused, QueueFull)


async def test_a_repetition_is_answered_even_where_the_queue_is_full(ledger: Ledger) -> None:
    await submitted(ledger, job(request_id="r-1"))
    (answer,) = await ledger.submit([job(request_id="r-1")], max_queued={"default": 1})
    assert isinstance(answer, Submitted)
    assert answer.replayed


async def test_a_thousand_jobs_are_one_submission(ledger: Ledger) -> None:
    await submitted(ledger, *(job(request_id=f"r-{n}") for n in range(1000)))
    answers = await ledger.submit([job(request_id=f"r-{n}") for n in range(1000)], max_queued={})
    assert all(isinstance(answer, Submitted) and answer.replayed for answer in answers)
    assert await ledger.depths() == {("default", JobState.QUEUED): 1000}


async def test_an_empty_submission_has_an_empty_answer(ledger: Ledger) -> None:
    assert await ledger.submit([], max_queued={"default": 1}) == []


async def test_depths_follow_a_job_through_its_states(ledger: Ledger) -> None:
    await submitted(ledger, job(queue="a"), job(queue="a"), job(queue="b"))
    claims = await claimed(ledger)
    assert await ledger.depths() == {("a", JobState.RUNNING): 2, ("b", JobState.RUNNING): 1}
    of_a = [claim for claim in claims if claim.summary.queue == "a"]
    await ledger.append(ending(of_a[0], 2, state=JobState.FAILED))
    await ledger.append(append(of_a[1], 2))
    assert await ledger.depths() == {
        ("a", JobState.RUNNING): 1,
        ("a", JobState.FAILED): 1,
        ("b", JobState.RUNNING): 1,
    }


async def test_the_longest_waiting_job_of_each_queue_is_known(ledger: Ledger) -> None:
    await submitted(
        ledger,
        job(created_at=T0 + 3, queue="a", rank=1),
        job(created_at=T0 + 2, queue="a", rank=2),
        job(created_at=T0 + 1, queue="b", not_before=T0 + SECOND),
    )
    assert await ledger.oldest_queued() == {"a": T0 + 2, "b": T0 + 1}
    assert ids(await claimed(ledger))
    assert await ledger.oldest_queued() == {"b": T0 + 1}


async def test_a_new_job_has_all_its_frames_and_the_artifacts_that_it_inherits(ledger: Ledger) -> None:
    """They are copied in the commit that accepts it, and belong to both."""
    earlier = await running(ledger)
    await ledger.append(append(earlier, 2, artifacts=(artifact("a1", b"one"), artifact("a2", b"two"), artifact("a3"))))
    await ledger.append(ending(earlier, 3))
    frames = (Frame(1, 2, terminal=False, data=b"first"), Frame(3, 3, terminal=False, data=b"second"))
    new = msgspec.structs.replace(
        job(last_sequence=3), frames=frames, inherits=Inheritance(earlier.summary.id, ("a1", "a2"))
    )
    [accepted] = await submitted(ledger, new)
    assert (await ledger.job(accepted.id)).last_sequence == 3
    assert await ledger.frames(accepted.id, after=0, max_bytes=999) == list(frames)
    assert [change.sequence for change in await ledger.changes(after=0, limit=99) if change.job.id == accepted.id] == [
        2
    ]
    for job_id in (accepted.id, earlier.summary.id):
        assert await ledger.artifact_bytes(job_id, "a2", offset=0, size=99) == b"two"
    with pytest.raises(ArtifactNotFound):
        await ledger.artifact(accepted.id, "a3")
    [claim] = await claimed(ledger)
    assert claim.frames == frames
    await ledger.append(append(claim, 4))
