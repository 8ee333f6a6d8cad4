"""The interpreter under a runner that dies after any event: properties over generated plans and generated luck."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import pytest
from hypothesis import given, settings

from runner.core.events import (
    AttemptFailed,
    AttemptProgressed,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    Failure,
    JobAccepted,
    JobCancelled,
    JobFailed,
    JobPartiallySucceeded,
    JobPaused,
    JobReleased,
    JobResumed,
    JobStarted,
    JobState,
    JobSucceeded,
    Recorded,
    TaskCancelled,
    TaskFailed,
    TaskReused,
    TaskState,
    TaskTimedOut,
)
from runner.core.interpreter import LOST_TOO_OFTEN, JobRun
from runner.core.plan import Instant, Plan, Priority
from runner.core.runs import DEADLINE_EXCEEDED, TaskRun
from tests.core.drama import MAX_LOST, SECOND, START, Driver, dramas, plan_of, task, view

TERMINAL: Final = (JobSucceeded, JobPartiallySucceeded, JobFailed, JobCancelled)
ENDS_A_TASK: Final = (AttemptSucceeded, TaskFailed, TaskTimedOut, TaskCancelled, TaskReused)


often = settings(max_examples=60, deadline=None)


def of_task(history: list[Recorded], *kinds: type[Event]) -> Iterator[tuple[int, str, Any]]:
    for place, entry in enumerate(history):
        if isinstance(entry.event, kinds):
            yield place, getattr(entry.event, "task_id", ""), entry.event


@often
@given(dramas)
def test_a_job_ends_once_and_its_end_is_the_last_event(driver: Driver) -> None:
    history = driver.play()
    assert [entry.sequence for entry in history] == list(range(1, len(history) + 1))
    assert [isinstance(entry.event, TERMINAL) for entry in history] == [False] * (len(history) - 1) + [True]
    assert driver.run.settle(now=driver.now, max_lost=MAX_LOST) == []
    assert list(driver.run.runnable(driver.now)) == []


@often
@given(dramas)
def test_at_the_end_every_task_has_ended_exactly_once(driver: Driver) -> None:
    history = driver.play()
    ended = Counter(name for _, name, _ in of_task(history, *ENDS_A_TASK))
    assert ended == Counter(planned.id for planned in driver.plan.tasks)
    assert all(entry.state.terminal and entry.ended_at is not None for entry in driver.run.tasks.values())
    assert all(attempt.ended_at is not None for entry in driver.run.tasks.values() for attempt in entry.attempts)


@often
@given(dramas)
def test_no_task_starts_before_its_dependencies_have_succeeded(driver: Driver) -> None:
    history = driver.play()
    dependencies = {planned.id: planned.dependencies for planned in driver.plan.tasks}
    succeeded = {name: place for place, name, _ in of_task(history, AttemptSucceeded, TaskReused)}
    for place, name, _ in of_task(history, AttemptStarted):
        assert all(succeeded.get(dependency, len(history)) < place for dependency in dependencies[name])


@often
@given(dramas)
def test_a_paused_job_starts_nothing_until_it_is_resumed_or_taken_to_be_ended(driver: Driver) -> None:
    paused = False
    for entry in driver.play():
        if isinstance(entry.event, JobPaused):
            paused = True
        elif isinstance(entry.event, JobResumed | JobStarted):
            paused = False
        assert not (paused and isinstance(entry.event, AttemptStarted))


def test_a_paused_job_lets_what_runs_finish_and_ends_with_it_if_nothing_is_left() -> None:
    run = JobRun(plan_of(task("a"), task("b")))
    for event in (
        JobAccepted("x", 2, "default", Priority.LOW),
        JobStarted("r", 1),
        AttemptStarted("a", 1, "fake"),
        AttemptStarted("b", 1, "fake"),
        AttemptFailed("b", attempt=1, failure=Failure("X", "x"), retry_at=START + SECOND),
        JobPaused(),
        AttemptSucceeded("a", attempt=1),
    ):
        run.record(event, time=START)
    assert run.settle(now=START, max_lost=MAX_LOST) == []
    # What waits is due, and is no reason to wake while nothing may start.
    assert run.next_wakeup(settled=START) is None
    assert list(run.runnable(START + 9 * SECOND)) == []
    run.record(JobResumed(held=True), time=START + 9 * SECOND)
    assert [ready.plan.id for ready in run.runnable(START + 9 * SECOND)] == ["b"]
    run.record(AttemptStarted("b", 2, "fake"), time=START)
    run.record(JobPaused(), time=START)
    run.record(AttemptSucceeded("b", attempt=2), time=START)
    assert [entry.event for entry in run.settle(now=START, max_lost=MAX_LOST)] == [JobSucceeded()]


def test_what_was_under_way_when_the_runner_of_a_paused_job_was_lost_runs_again_after_the_resume() -> None:
    run = JobRun(plan_of(task("a")))
    run.record(JobAccepted("x", 1, "default", Priority.LOW), time=START)
    for event in (JobStarted("r", 1), AttemptStarted("a", 1, "fake"), JobPaused(), JobResumed(), JobStarted("s", 2)):
        run.record(event, time=START)
    assert (run.tasks["a"].state, run.tasks["a"].lost) == (TaskState.PENDING, 1)
    assert [ready.plan.id for ready in run.runnable(START)] == ["a"]


@often
@given(dramas)
def test_a_finished_task_never_starts_again_whatever_crashes(driver: Driver) -> None:
    history = driver.play()
    ended: set[str] = set()
    for entry in history:
        if isinstance(entry.event, AttemptStarted):
            assert entry.event.task_id not in ended
        elif isinstance(entry.event, ENDS_A_TASK):
            ended.add(entry.event.task_id)


@often
@given(dramas)
def test_attempts_are_numbered_densely_and_parked_or_lost_ones_consume_none(driver: Driver) -> None:
    history = driver.play()
    for name, entry in driver.run.tasks.items():
        started = [event.attempt for _, other, event in of_task(history, AttemptStarted) if other == name]
        assert started == list(range(1, len(started) + 1))
        assert [attempt.number for attempt in entry.attempts] == started
        failed = [event for _, other, event in of_task(history, AttemptFailed) if other == name]
        assert entry.failures == len(failed) <= (entry.plan.retries or 0)


@often
@given(dramas)
def test_replaying_any_committed_prefix_gives_the_same_state(driver: Driver) -> None:
    history = driver.play()
    whole = JobRun(driver.plan, deadline=driver.deadline).replay(history)
    assert view(whole) == view(driver.run)
    cut = driver.luck.randint(1, len(history))
    early = JobRun(driver.plan, deadline=driver.deadline).replay(history[:cut])
    twice = JobRun(driver.plan, deadline=driver.deadline).replay(history[: cut // 2]).replay(history[cut // 2 : cut])
    assert view(early) == view(twice)


@often
@given(dramas)
def test_counts_add_up_after_every_event(driver: Driver) -> None:
    history = driver.play()
    run = JobRun(driver.plan, deadline=driver.deadline)
    for entry in history:
        run.apply(entry)
        states = Counter(one.state for one in run.tasks.values())
        assert run.counts == {state: states[state] for state in TaskState}
        assert set(run.running) == {name for name, one in run.tasks.items() if one.state is TaskState.RUNNING}
        assert all(one.unmet == 0 for one in run.tasks.values() if one.attempts)


@often
@given(dramas)
def test_progress_stays_within_bounds_and_falls_only_when_an_attempt_begins_anew(driver: Driver) -> None:
    history = driver.play()
    run = JobRun(driver.plan, deadline=driver.deadline)
    before = 0.0
    for entry in history:
        run.apply(entry)
        assert 0.0 <= run.progress <= 1.0
        if not isinstance(entry.event, AttemptStarted):
            assert run.progress >= before - 1e-9
        before = run.progress
    assert run.progress == pytest.approx(1.0)


@often
@given(dramas)
def test_the_final_state_follows_from_the_tasks(driver: Driver) -> None:
    history = driver.play()
    run = driver.run
    states = Counter(one.state for one in run.tasks.values())
    first = next((event for _, _, event in of_task(history, TaskFailed, TaskTimedOut)), None)
    if run.cancelling is not None:
        assert run.state is JobState.CANCELLED
    elif states.keys() == {TaskState.SUCCEEDED}:
        assert (run.state, run.error) == (JobState.SUCCEEDED, None)
    elif first is None:
        assert run.state is JobState.FAILED
        assert run.error is not None
        assert run.error.reason == DEADLINE_EXCEEDED
    elif run.error is not None and run.error.reason == DEADLINE_EXCEEDED:
        assert run.state is JobState.FAILED
        assert run.deadline is not None
    else:
        assert run.error == Failure(first.failure.reason, first.failure.message, first.task_id)
        partly = states[TaskState.SUCCEEDED] and not driver.plan.fail_fast
        assert run.state is (JobState.PARTIALLY_SUCCEEDED if partly else JobState.FAILED)


@often
@given(dramas)
def test_descendants_of_what_failed_are_cancelled_and_nothing_else_is(driver: Driver) -> None:
    driver.play()
    run = driver.run
    calm = run.cancelling is None and not driver.plan.fail_fast and driver.deadline is None
    for entry in run.tasks.values():
        states = {run.tasks[dependency].state for dependency in entry.plan.dependencies}
        if states - {TaskState.SUCCEEDED}:
            assert entry.state is TaskState.CANCELLED
            assert entry.attempts == []
        elif calm:
            assert entry.state is not TaskState.CANCELLED


def test_a_cancelled_task_says_which_dependency_failed() -> None:
    run = started(plan_of(task("fetch"), task("digest", "fetch"), task("send", "digest"), task("other")))
    run.record(AttemptStarted("fetch", 1, "fake"), time=START)
    run.record(TaskFailed("fetch", attempt=1, failure=Failure("HTTP_STATUS", "404")), time=START)
    reasons = {event.task_id: event.reason for _, _, event in of_task(settle(run), TaskCancelled)}
    assert reasons == {"digest": "dependency `fetch` failed", "send": "dependency `digest` was cancelled"}
    assert [ready.plan.id for ready in run.runnable(START)] == ["other"]


def test_urgent_tasks_come_first_and_equals_in_the_order_they_became_ready() -> None:
    run = started(
        plan_of(
            task("low", priority=Priority.LOW),
            task("first"),
            task("critical", priority=Priority.CRITICAL),
            task("second"),
            priority=Priority.HIGH,
        )
    )
    assert [ready.plan.id for ready in run.runnable(START)] == ["critical", "first", "second", "low"]


def test_a_waiting_task_is_runnable_when_its_time_has_come_and_not_before() -> None:
    run = started(plan_of(task("a", retries=1)))
    run.record(AttemptStarted("a", 1, "fake"), time=START)
    due = START + 5 * SECOND
    run.record(AttemptFailed("a", attempt=1, failure=Failure("X", "x"), retry_at=due), time=START)
    assert list(run.runnable(due - 1)) == []
    assert run.next_wakeup(settled=START) == due
    assert [ready.plan.id for ready in run.runnable(due)] == ["a"]
    assert run.next_wakeup(settled=START) is None


def test_a_deadline_that_was_settled_wakes_nobody_again() -> None:
    """Or a runner whose handler takes its time to stop would spin."""
    run = started(plan_of(task("a")), deadline=START + SECOND)
    run.record(AttemptStarted("a", 1, "fake"), time=START)
    assert run.next_wakeup(settled=START) == START + SECOND
    assert run.next_wakeup(settled=START + SECOND) is None


def test_a_deadline_that_cancelled_tasks_fails_the_job_even_if_the_clock_jumps_back() -> None:
    run = started(plan_of(task("a"), task("b", "a")), deadline=START + SECOND)
    run.record(AttemptStarted("a", 1, "fake"), time=START)
    settle(run, now=START + SECOND)
    run.record(AttemptSucceeded("a", attempt=1), time=START)
    settle(run, now=START)
    assert run.state is JobState.FAILED
    assert run.error is not None
    assert run.error.reason == DEADLINE_EXCEEDED


def test_a_task_that_kills_its_runners_ends_and_a_runner_that_shuts_down_in_order_is_not_held_against_it() -> None:
    run = started(plan_of(task("killer"), task("next", "killer")))
    for token in range(2, 2 + 2 * MAX_LOST):
        run.record(AttemptStarted("killer", token - 1, "fake"), time=START)
        if token % 2:
            run.record(JobReleased("r", "shutdown"), time=START)
        run.record(JobStarted("r", token), time=START)
        if token < 2 * MAX_LOST:
            assert settle(run) == []
    settle(run)
    failure = run.tasks["killer"].failure
    assert failure is not None
    assert failure.reason == LOST_TOO_OFTEN
    assert run.state is JobState.FAILED
    assert run.tasks["killer"].lost == MAX_LOST


def test_fail_fast_stops_what_has_not_begun_and_tells_why_what_runs_must_stop() -> None:
    run = started(plan_of(task("a"), task("b"), task("c"), fail_fast=True))
    for name in ("a", "b"):
        run.record(AttemptStarted(name, 1, "fake"), time=START)
    run.record(TaskFailed("a", attempt=1, failure=Failure("X", "x")), time=START)
    settle(run)
    assert run.stopping == "task `a` failed (fail_fast)"
    assert run.tasks["c"].state is TaskState.CANCELLED
    assert run.tasks["b"].state is TaskState.RUNNING
    assert not run.state or not run.state.terminal


@pytest.mark.parametrize(
    "event",
    [
        AttemptStarted("b", 1, "fake"),
        AttemptSucceeded("a", attempt=1),
        AttemptProgressed("a", 1, 0.5),
        JobAccepted("x", 1, "default", Priority.LOW),
    ],
)
def test_what_the_tables_do_not_know_is_refused_and_changes_nothing(event: Event) -> None:
    run = started(plan_of(task("a"), task("b")))
    run.record(AttemptStarted("b", 1, "fake"), time=START)
    run.record(AttemptSucceeded("b", attempt=1), time=START)
    before = copy.deepcopy(view(run))
    with pytest.raises(ValueError, match="cannot happen"):
        run.record(event, time=START)
    assert view(run) == before


def test_an_event_out_of_turn_is_refused() -> None:
    run = started(plan_of(task("a")))
    with pytest.raises(ValueError, match="does not follow"):
        run.apply(Recorded(run.sequence + 2, START, AttemptStarted("a", 1, "fake")))


def test_the_cost_of_a_job_is_linear_in_its_tasks() -> None:
    """Counted in looks at tasks, not in time: ten times the tasks are at most eleven times the looks."""

    class Counting(dict[str, TaskRun]):
        looks = 0

        def __getitem__(self, key: str) -> TaskRun:
            Counting.looks += 1
            return super().__getitem__(key)

        def items(self) -> Any:
            Counting.looks += len(self)
            return super().items()

    def looks(count: int) -> int:
        layers = [task(f"t{index}", *((f"t{index - 100}",) if index >= 100 else ())) for index in range(count)]
        run = started(plan_of(*layers))
        run.tasks = Counting(run.tasks)
        Counting.looks = 0
        while run.state is not JobState.SUCCEEDED:
            for ready in list(islice(run.runnable(START), 64)):
                run.record(AttemptStarted(ready.plan.id, 1, "fake"), time=START)
            for name in tuple(run.running):
                run.record(AttemptSucceeded(name, attempt=1), time=START)
            settle(run)
        return Counting.looks

    assert looks(5_000) <= 11 * looks(500)


def started(plan: Plan, *, deadline: Instant | None = None) -> JobRun:
    run = JobRun(plan, deadline=deadline)
    run.record(JobAccepted(plan.title, len(plan.tasks), "default", plan.priority), time=START)
    run.record(JobStarted("r", 1), time=START)
    return run


def settle(run: JobRun, *, now: Instant = START) -> list[Recorded]:
    return run.settle(now=now, max_lost=MAX_LOST)
