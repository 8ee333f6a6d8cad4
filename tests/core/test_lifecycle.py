"""The tables of transitions: what can never be in them, whatever is added."""

from __future__ import annotations

from runner.core.events import (
    AttemptSucceeded,
    ControlSucceeded,
    JobEvent,
    JobResumed,
    JobState,
    TaskEvent,
    TaskReused,
    TaskState,
)
from runner.core.lifecycle import IN_HAND, JOB_TRANSITIONS, TASK_TRANSITIONS, job_after


def test_nothing_leads_out_of_a_terminal_state() -> None:
    assert not [state for state, _ in JOB_TRANSITIONS if state is not None and state.terminal]
    assert not [state for state, _ in TASK_TRANSITIONS if state.terminal]


def test_every_event_can_happen() -> None:
    assert {event for _, event in JOB_TRANSITIONS} == set(JobEvent.__subclasses__())
    assert {event for _, event in TASK_TRANSITIONS if issubclass(event, TaskEvent)} == set(TaskEvent.__subclasses__())


def test_every_state_is_reached_and_every_open_one_can_be_left() -> None:
    assert set(JOB_TRANSITIONS.values()) == set(JobState)
    assert set(TASK_TRANSITIONS.values()) == set(TaskState)
    assert {state for state, _ in JOB_TRANSITIONS} == {None, JobState.QUEUED, *IN_HAND}
    assert {state for state, _ in TASK_TRANSITIONS} == {TaskState.PENDING, TaskState.RUNNING, TaskState.WAITING}


def test_a_job_ends_only_while_a_runner_holds_it() -> None:
    """So that its end is written under a lease."""
    assert {before for (before, _), after in JOB_TRANSITIONS.items() if after.terminal} == IN_HAND


def test_a_job_goes_back_to_where_it_is_held_or_waits() -> None:
    assert job_after(JobState.PAUSED, JobResumed(held=True)) is JobState.RUNNING
    assert job_after(JobState.PAUSED, JobResumed(held=False)) is JobState.QUEUED
    assert job_after(JobState.QUEUED, JobResumed(held=True)) is None


def test_a_task_succeeds_only_out_of_an_attempt_here_or_in_the_job_that_is_retried_or_out_of_its_bodies() -> None:
    ways = {(state, kind) for (state, kind), after in TASK_TRANSITIONS.items() if after is TaskState.SUCCEEDED}
    assert ways == {(TaskState.RUNNING, AttemptSucceeded), (TaskState.PENDING, TaskReused)} | {
        (TaskState.PENDING, ControlSucceeded),
        (TaskState.RUNNING, ControlSucceeded),
    }
