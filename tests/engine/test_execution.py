"""One job on one engine: what runs when, what fails whom, and when it ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import anyio
import pytest

from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import (
    AttemptFailed,
    AttemptParked,
    AttemptStarted,
    AttemptSucceeded,
    Failure,
    JobCancelled,
    JobFailed,
    JobPartiallySucceeded,
    JobStarted,
    JobState,
    JobSucceeded,
    TaskCancelled,
    TaskFailed,
    TaskTimedOut,
    WaitReason,
)
from runner.core.retry import RetryPolicy
from runner.ports import Attempt, Outcome
from tests.engine.stage import SECOND, START, Script, Stage, forever, kinds, only, task, times

pytestmark = pytest.mark.timeout(30)


def failing(count: int, error: AttemptError, *, then: object = "done") -> Script:
    """Fail so many times, then succeed."""
    left = [count]

    async def script(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        if left[0]:
            left[0] -= 1
            raise error
        return Outcome(output=then)

    return script


async def test_tasks_start_together_as_soon_as_their_dependencies_have_ended() -> None:
    stage = Stage()

    async def slow(_: Attempt) -> Outcome:
        await anyio.sleep(100)
        return Outcome(output=1)

    stage.troupe.scripts = {"a": slow, "b": slow}
    async with stage.engine() as engine:
        history = await engine.run(task("a"), task("b"), task("c"), task("d", "a", "b"), task("e", "c"))
    assert isinstance(history[-1].event, JobSucceeded)
    assert stage.troupe.order[-1] == "d"
    assert stage.troupe.order[3] == "e"
    assert times(history, JobSucceeded) == [100.0]
    assert stage.troupe.most_on_stage == 3


async def test_failure_cancels_descendants_and_other_branches_go_on() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = failing(9, AttemptError("HTTP_STATUS", "404", retryable=False))
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b", "a"), task("c", "b"), task("x"), task("y", "x"))
        history = await engine.end(job_id)
        job = await engine.runner.job(job_id)
    assert job.state is JobState.PARTIALLY_SUCCEEDED
    assert job.error == Failure("HTTP_STATUS", "404", "a")
    assert {event.task_id for event in only(history, TaskCancelled)} == {"b", "c"}
    assert {event.task_id for event in only(history, AttemptSucceeded)} == {"x", "y"}
    assert "b" not in stage.troupe.order
    record = await stage.record(job_id)
    assert record["status"] == "partialsuccess"
    assert record["success_rate"] == pytest.approx(0.4)


async def test_fail_fast_cancels_everything_at_once() -> None:
    stage = Stage()
    stage.troupe.scripts = {
        "a": failing(9, AttemptError("X", "x", retryable=False)),
        "long": forever,
    }
    async with stage.engine(cancel_grace_seconds=2) as engine:
        history = await engine.run(task("a"), task("long"), task("later", "long"), fail_fast=True)
    assert only(history, JobFailed)[0].error == Failure("X", "x", "a")
    assert {event.task_id for event in only(history, TaskCancelled)} == {"long", "later"}
    assert times(history, JobFailed) == [2.0]


async def test_a_timeout_is_retried_and_at_last_ends_the_task() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = forever
    async with stage.engine() as engine:
        history = await engine.run(task("a", timeout_seconds=10, retry_count=1))
    assert times(history, AttemptStarted) == [0.0, 10.5]
    assert [event.failure.reason for event in only(history, AttemptFailed)] == ["TIMED_OUT"]
    assert [event.failure.reason for event in only(history, TaskTimedOut)] == ["TIMED_OUT"]
    assert times(history, JobFailed) == [20.5]


async def test_retries_back_off_for_hours_in_no_time() -> None:
    stage = Stage()
    stage.retry = RetryPolicy(base_seconds=60, multiplier=2, cap_seconds=7200)
    stage.chance = 0.999
    stage.troupe.scripts["a"] = failing(10, AttemptError("HTTP_STATUS", "503", retryable=True))
    async with stage.engine() as engine:
        history = await engine.run(task("a", retry_count=10))
    assert isinstance(history[-1].event, JobSucceeded)
    starts = times(history, AttemptStarted)
    assert [round(after - before) for before, after in itertools.pairwise(starts)] == [
        60, 120, 240, 480, 959, 1918, 3836, 7193, 7193, 7193
    ]  # fmt: skip
    assert [event.attempt for event in only(history, AttemptStarted)] == list(range(1, 12))


async def test_what_is_not_retryable_is_not_retried_and_retries_end() -> None:
    stage = Stage()
    stage.troupe.scripts = {
        "a": failing(9, AttemptError("BAD", "no", retryable=False)),
        "b": failing(9, AttemptError("BUSY", "later", retryable=True)),
    }
    async with stage.engine() as engine:
        history = await engine.run(task("a", retry_count=5), task("b", retry_count=2))
    assert kinds(history, of="a") == ["AttemptStarted", "TaskFailed"]
    assert kinds(history, of="b").count("AttemptStarted") == 3
    assert kinds(history, of="b")[-1] == "TaskFailed"


async def test_an_attempt_knows_how_many_may_follow() -> None:
    stage = Stage()
    left: dict[str, list[int]] = {"a": [], "b": []}

    async def note(attempt: Attempt) -> Outcome:
        left[attempt.task.id].append(attempt.retries_left)
        raise AttemptError("BUSY", "later", retryable=True)

    stage.troupe.scripts = {"a": note, "b": note}
    async with stage.engine(default_retries=1) as engine:
        await engine.run(task("a", retry_count=2), task("b"))
    assert left == {"a": [2, 1, 0], "b": [1, 0]}


async def test_retry_after_is_obeyed() -> None:
    stage = Stage()
    stage.chance = 0.0
    stage.troupe.scripts["a"] = failing(1, AttemptError("RATE", "429", retryable=True, retry_after=3600))
    async with stage.engine() as engine:
        history = await engine.run(task("a", retry_count=1))
    assert times(history, AttemptStarted) == [0.0, 3600.0]


@pytest.mark.parametrize("asked", [math.inf, math.nan, -5.0, 1e300])
async def test_a_retry_after_without_sense_harms_nobody(asked: float) -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = failing(1, AttemptError("RATE", "429", retryable=True, retry_after=asked))
    async with stage.engine() as engine:
        history = await engine.run(task("a", retry_count=1))
    assert isinstance(history[-1].event, JobSucceeded)


async def test_no_retry_is_planned_past_the_deadline() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = failing(9, AttemptError("RATE", "429", retryable=True, retry_after=3600))
    async with stage.engine() as engine:
        history = await engine.run(task("a", retry_count=5), deadline=START + 60 * SECOND)
    assert kinds(history, of="a") == ["AttemptStarted", "TaskFailed"]
    assert times(history, JobFailed) == [0.0]


async def test_parked_attempts_hold_no_slot_and_burn_no_attempt() -> None:
    stage = Stage()
    parked = 5

    async def park(attempt: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        if attempt.number <= parked:
            until = stage.clock.now() + 100 * SECOND
            raise AttemptPutOff(WaitReason.BREAKER_OPEN, "open", until=until, endpoint="e")
        return Outcome(output=1)

    async def slow(_: Attempt) -> Outcome:
        await anyio.sleep(50)
        return Outcome(output=1)

    stage.troupe.scripts = {"parked": park, "slow": slow}
    async with stage.engine(max_concurrent_tasks=1) as engine:
        history = await engine.run(task("parked", retry_count=0), task("slow"))
    assert isinstance(history[-1].event, JobSucceeded)
    assert len(only(history, AttemptParked)) == parked
    assert times(history, AttemptSucceeded) == [50.0, 500.0]


async def test_a_task_that_may_begin_at_once_and_never_does_makes_no_storm() -> None:
    """A handler that puts off until a time that has passed costs a few commits a second, not thousands."""
    stage = Stage()

    async def park(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        raise AttemptPutOff(WaitReason.BREAKER_OPEN, "open", until=0)

    stage.troupe.scripts["a"] = park
    async with stage.engine() as engine:
        history = await engine.run(task("a"), deadline=START + 10 * SECOND)
    assert only(history, JobFailed)[0].error.reason == "DEADLINE_EXCEEDED"
    assert len(only(history, AttemptParked)) <= 100


async def test_the_deadline_of_a_running_job_times_out_what_runs_and_cancels_the_rest() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = forever
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b", "a"), task("c"), deadline=START + 60 * SECOND)
        history = await engine.end(job_id)
        job = await engine.runner.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.reason == "DEADLINE_EXCEEDED"
    assert only(history, TaskTimedOut)[0].failure.reason == "DEADLINE_EXCEEDED"
    assert [event.task_id for event in only(history, TaskCancelled)] == ["b"]
    assert times(history, JobFailed) == [60.0]


async def test_a_clock_that_is_a_hair_behind_does_not_hide_the_deadline() -> None:
    """Attempts end by the monotonic clock, deadlines by the wall's: the two never agree to the microsecond."""
    stage = Stage()

    async def late(attempt: Attempt) -> Outcome:
        stage.clock.skew = -1000
        return await forever(attempt)

    stage.troupe.scripts["a"] = late
    async with stage.engine() as engine:
        history = await engine.run(task("a", retry_count=3), task("b", "a"), deadline=START + 60 * SECOND)
    assert only(history, TaskTimedOut)[0].failure.reason == "DEADLINE_EXCEEDED"
    assert only(history, JobFailed)[0].error.reason == "DEADLINE_EXCEEDED"


async def test_a_handler_that_stops_slowly_at_the_deadline_is_waited_for_without_spinning() -> None:
    stage = Stage()

    async def stubborn(attempt: Attempt) -> Outcome:
        try:
            return await forever(attempt)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(30)

    stage.troupe.scripts["a"] = stubborn
    async with stage.engine() as engine:
        history = await engine.run(task("a"), deadline=START + 60 * SECOND)
    assert times(history, JobFailed) == [90.0]


async def test_a_job_whose_deadline_passes_in_the_queue_fails_without_running() -> None:
    stage = Stage()
    stage.troupe.scripts["hog"] = forever
    async with stage.engine(max_running_jobs=1) as engine:
        hog = await engine.submit(task("hog"), deadline=START + 500 * SECOND)
        late = await engine.submit(task("a"), task("b", "a"), deadline=START + 100 * SECOND)
        history = await engine.end(late)
        await engine.end(hog)
    assert only(history, JobFailed)[0].error.reason == "DEADLINE_EXCEEDED"
    assert kinds(history) == ["JobAccepted", "JobStarted", "TaskCancelled", "TaskCancelled", "JobFailed"]
    assert "a" not in stage.troupe.order
    assert (await stage.record(late))["status"] == "failure"


async def test_a_queued_deadline_is_kept_to_the_second_when_there_is_room() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(
            task("a"), not_before=START + 3600 * SECOND, deadline=START + 3601 * SECOND, queue="later"
        )
        history = await engine.end(job_id)
    assert times(history, JobStarted) == [3600.0]
    assert isinstance(history[-1].event, JobSucceeded)


async def test_cancelling_a_queued_job_ends_it_without_running_anything() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b"), not_before=START + 3600 * SECOND)
        await engine.runner.cancel(job_id, "not needed")
        history = await engine.end(job_id)
    assert only(history, JobCancelled)[0].reason == "not needed"
    assert times(history, JobCancelled) == [0.0]
    assert not stage.troupe.order


async def test_a_cancelled_task_that_ends_within_its_grace_keeps_what_it_did() -> None:
    stage = Stage()

    async def quick(_: Attempt) -> Outcome:
        await anyio.sleep(12)
        return Outcome(output="in time")

    stage.troupe.scripts = {"quick": quick, "endless": forever}
    async with stage.engine(cancel_grace_seconds=5) as engine:
        job_id = await engine.submit(task("quick"), task("endless"), task("next", "quick"))
        await anyio.sleep(10)
        await engine.runner.cancel(job_id, "")
        await engine.runner.cancel(job_id, "twice is harmless")
        history = await engine.end(job_id)
        assert (await engine.runner.cancel(job_id, "too late")).state is JobState.CANCELLED
    assert [event.task_id for event in only(history, AttemptSucceeded)] == ["quick"]
    assert {event.task_id: event.attempt for event in only(history, TaskCancelled)} == {"endless": 1, "next": 0}
    assert times(history, JobCancelled) == [15.0]
    assert len(only(history, JobCancelled)) == 1


async def test_a_handler_that_does_not_listen_is_stopped_at_once_and_one_that_does_stops_by_itself() -> None:
    stage = Stage()
    stage.troupe.scripts["deaf"] = forever

    async def polite(attempt: Attempt) -> Outcome:
        await attempt.stop_requested()
        await anyio.sleep(3)
        return Outcome(output="tidied up")

    stage.troupe.scripts["polite"] = polite
    async with stage.engine(cancel_grace_seconds=5) as engine:
        job_id = await engine.submit(task("polite"))
        await anyio.sleep(10)
        await engine.runner.cancel(job_id, "")
        history = await engine.end(job_id)
        assert times(history, JobCancelled) == [13.0]
        assert only(history, AttemptSucceeded)[0].output == b'"tidied up"'
        stage.troupe.stops_when_asked = False
        job_id = await engine.submit(task("deaf"))
        await anyio.sleep(7)
        await engine.runner.cancel(job_id, "")
        assert times(await engine.end(job_id), JobCancelled) == [20.0]


async def test_a_handler_that_ignores_its_cancellation_ends_the_job_when_it_ends_itself() -> None:
    stage = Stage()

    async def deaf(_: Attempt) -> Outcome:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(100)
        return Outcome(output="too late")

    stage.troupe.scripts["deaf"] = deaf
    async with stage.engine(cancel_grace_seconds=5) as engine:
        job_id = await engine.submit(task("deaf"))
        await anyio.sleep(10)
        await engine.runner.cancel(job_id, "now")
        history = await engine.end(job_id)
    assert times(history, JobCancelled) == [100.0]


async def test_a_cancellation_while_the_job_is_being_claimed_is_not_lost() -> None:
    """Asked for between the claim's commit and the first look at the job."""
    for delay in range(12):
        stage = Stage()
        stage.troupe.scripts["a"] = forever
        async with stage.engine() as engine:
            job_id = await engine.submit(task("a"))
            for _ in range(delay):
                await anyio.lowlevel.checkpoint()
            await engine.runner.cancel(job_id, "now")
            history = await engine.end(job_id)
        assert isinstance(history[-1].event, JobCancelled)


async def test_a_job_of_many_tasks_ends_and_its_record_tells_all() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        count = 3_000
        job_id = await engine.submit(*(task(f"t{index}") for index in range(count)))
        history = await engine.end(job_id)
    assert len(only(history, AttemptSucceeded)) == count
    assert set(stage.troupe.calls.values()) == {1}
    assert len((await stage.record(job_id))["task_results"]) == count


async def test_the_first_failure_is_the_job_s_and_all_failed_is_failed() -> None:
    stage = Stage()
    stage.troupe.scripts = {
        "a": failing(1, AttemptError("LATER", "second", retryable=False)),
        "b": failing(1, AttemptError("FIRST", "first", retryable=False)),
    }

    async def slow(_: Attempt) -> Outcome:
        await anyio.sleep(5)
        raise AttemptError("LATER", "second", retryable=False)

    stage.troupe.scripts["a"] = slow
    async with stage.engine() as engine:
        history = await engine.run(task("a"), task("b"))
    assert not only(history, JobPartiallySucceeded)
    assert only(history, JobFailed)[0].error == Failure("FIRST", "first", "b")
    assert len(only(history, TaskFailed)) == 2


class Queue:
    """Somebody's queue: who waits in it, and who is still wanted there."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.waiting: list[Place] = []

    def place(self) -> Place:
        self.waiting.append(Place(self))
        return self.waiting[-1]


class Place:
    """A Turn."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.patience = queue.patience
        self.come: Callable[[], None] = lambda: None

    def call(self, come: Callable[[], None]) -> None:
        self.come = come

    def leave(self) -> None:
        self._queue.waiting.remove(self)


async def _park(stage: Stage, queue: Queue, attempt: Attempt) -> Outcome:
    await anyio.lowlevel.checkpoint()
    if attempt.number > 1:
        return Outcome(output=1)
    until = stage.clock.now() + 100 * SECOND
    raise AttemptPutOff(WaitReason.BREAKER_OPEN, "open", until=until, endpoint="e", turn=queue.place())


async def test_a_parked_task_comes_as_soon_as_it_is_called() -> None:
    stage, queue = Stage(), Queue(patience=30)
    stage.troupe.scripts["a"] = partial(_park, stage, queue)
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await anyio.sleep(7)
        queue.waiting[0].come()
        history = await engine.end(job_id)
    assert times(history, AttemptSucceeded) == [7.0]


async def test_a_parked_task_that_nobody_calls_comes_when_its_patience_ends_and_leaves_the_queue() -> None:
    stage, queue = Stage(), Queue(patience=30)
    stage.troupe.scripts["a"] = partial(_park, stage, queue)
    async with stage.engine() as engine:
        history = await engine.run(task("a"))
    assert times(history, AttemptSucceeded) == [130.0]
    assert queue.waiting == []


async def test_a_cancelled_job_leaves_the_queues_in_which_its_tasks_wait() -> None:
    stage, queue = Stage(), Queue(patience=30)
    stage.troupe.scripts["a"] = partial(_park, stage, queue)
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await anyio.sleep(7)
        await engine.runner.cancel(job_id, "enough")
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobCancelled)
    assert queue.waiting == []


async def test_jobs_that_only_wait_lend_their_places() -> None:
    stage, queue = Stage(), Queue(patience=30)
    stage.troupe.scripts["a"] = partial(_park, stage, queue)
    async with stage.engine(max_running_jobs=2) as engine:
        parked = [await engine.submit(task("a")) for _ in range(5)]
        await anyio.sleep(1)
        assert len(queue.waiting) == 5
        other = await engine.run(task("b"))
        assert times(other, AttemptSucceeded) == [1.0]
        for place in tuple(queue.waiting):
            place.come()
        for job_id in parked:
            assert times(await engine.end(job_id), AttemptSucceeded) == [1.0]


async def test_no_more_jobs_wait_beside_the_running_ones_than_may() -> None:
    stage, queue = Stage(), Queue(patience=30)
    stage.troupe.scripts["a"] = partial(_park, stage, queue)
    async with stage.engine(max_running_jobs=2, max_waiting_jobs=3) as engine:
        for _ in range(10):
            await engine.submit(task("a"))
        await anyio.sleep(1)
        assert len(queue.waiting) == 5


async def test_a_deadline_ends_a_parked_task_and_frees_its_place_in_line() -> None:
    stage, queue = Stage(), Queue(patience=30)
    stage.troupe.scripts["a"] = partial(_park, stage, queue)
    async with stage.engine() as engine:
        history = await engine.run(task("a"), deadline=START + 20 * SECOND)
    assert times(history, JobFailed) == [20.0]
    assert queue.waiting == []


async def test_a_task_that_is_called_while_its_job_is_cancelled_does_not_start() -> None:
    stage, queue = Stage(), Queue(patience=30)
    stage.troupe.scripts["a"] = partial(_park, stage, queue)
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await anyio.sleep(7)
        await engine.runner.cancel(job_id, "enough")
        for place in tuple(queue.waiting):
            place.come()
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobCancelled)
    assert len(only(history, AttemptStarted)) == 1


async def test_a_task_that_is_called_while_its_job_is_paused_starts_when_it_goes_on() -> None:
    """By its time, if nobody calls it again: the job was given back, and the call is forgotten."""
    stage, queue = Stage(), Queue(patience=30)
    stage.troupe.scripts["a"] = partial(_park, stage, queue)
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await anyio.sleep(7)
        await engine.runner.pause(job_id)
        for place in tuple(queue.waiting):
            place.come()
        await anyio.sleep(10)
        await engine.runner.resume(job_id)
        history = await engine.end(job_id)
    assert times(history, AttemptSucceeded) == [100.0]
