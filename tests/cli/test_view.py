from __future__ import annotations

import pytest

from runner.cli import sentences
from runner.cli.view import TAIL, JobView
from runner.core import events
from runner.core.events import Event, JobState, TaskState
from runner.core.plan import Priority

SECOND = 1_000_000
ACCEPTED = events.JobAccepted("Digest", 2, "default", Priority.HIGH)
STARTED = events.JobStarted("r1", 1)
OOPS = events.Failure("HTTP_STATUS", "it said 500", "a")


def view_of(*happened: Event) -> JobView:
    view = JobView("j")
    for number, event in enumerate(happened, start=1):
        view.apply(events.Recorded(number, number * SECOND, event))
    return view


def test_a_job_is_followed_from_acceptance_to_its_end() -> None:
    view = view_of(ACCEPTED)
    assert (view.state, view.title, view.task_count, view.progress) == (JobState.QUEUED, "Digest", 2, 0.0)
    view = view_of(ACCEPTED, STARTED, events.AttemptStarted("a", 1, "delay"))
    assert (view.state, view.tasks["a"].state) == (JobState.RUNNING, TaskState.RUNNING)
    view = view_of(ACCEPTED, STARTED, events.AttemptStarted("a", 1, "x"), events.AttemptSucceeded("a", attempt=1))
    assert view.progress == pytest.approx(0.5)
    view = view_of(ACCEPTED, STARTED, events.JobSucceeded())
    assert (view.state, view.started_at, view.ended_at) == (JobState.SUCCEEDED, 2 * SECOND, 3 * SECOND)


def test_a_job_that_is_released_waits_again_and_what_ran_is_lost() -> None:
    view = view_of(ACCEPTED, STARTED, events.AttemptStarted("a", 1, "x"), events.JobReleased("r1", "shutdown"))
    assert (view.state, view.tasks["a"].state) == (JobState.QUEUED, TaskState.PENDING)
    assert "another will take it" in sentences.told(events.Recorded(4, 0, events.JobReleased("r1", "shutdown")), view)


def test_a_job_is_paused_let_go_of_and_goes_on_where_it_is() -> None:
    begun: list[Event] = [ACCEPTED, STARTED, events.AttemptStarted("a", 1, "x"), events.JobPaused()]
    view = view_of(*begun)
    assert (view.state, view.tasks["a"].state) == (JobState.PAUSED, TaskState.RUNNING)
    assert view_of(*begun, events.JobResumed(held=True)).state is JobState.RUNNING
    let_go = events.JobReleased("r1", "paused")
    view = view_of(*begun, events.AttemptSucceeded("a", attempt=1), let_go)
    assert view.state is JobState.PAUSED
    assert sentences.told(events.Recorded(6, 0, let_go), view).endswith("it waits to be resumed")
    assert view_of(*begun, let_go, events.JobResumed(held=False)).state is JobState.QUEUED
    assert view_of(*begun, events.JobCancelling("x")).state is JobState.PAUSED


def test_text_of_an_earlier_attempt_is_void() -> None:
    started: list[Event] = [
        ACCEPTED,
        STARTED,
        events.AttemptStarted("a", 1, "x"),
        events.AttemptOutput("a", 1, 0, "old"),
    ]
    failed = events.AttemptFailed("a", attempt=1, failure=OOPS, retry_at=9 * SECOND)
    view = view_of(*started, failed)
    assert (view.tasks["a"].state, view.tasks["a"].trouble) == (TaskState.WAITING, "it said 500")
    view = view_of(*started, failed, events.AttemptStarted("a", 2, "x"), events.AttemptOutput("a", 2, 0, "new"))
    assert (view.tasks["a"].text, view.tasks["a"].trouble, view.tasks["a"].attempt) == ("new", "", 2)


def test_only_the_end_of_long_texts_is_kept() -> None:
    text = events.AttemptOutput("a", 1, 0, "x" * TAIL * 3 + "end")
    view = view_of(ACCEPTED, STARTED, events.AttemptStarted("a", 1, "x"), text)
    assert len(view.tasks["a"].text) == TAIL
    assert view.tasks["a"].text.endswith("end")


def test_events_after_a_gap_change_what_they_can() -> None:
    view = view_of(events.TaskFailed("a", attempt=3, failure=OOPS), events.JobFailed(OOPS))
    assert (view.state, view.tasks["a"].state) == (JobState.FAILED, TaskState.FAILED)
    assert sentences.ended(view).startswith("✗ j")


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (events.JobCancelling("enough"), "cancelling: enough"),
        (events.JobPaused(), "paused; nothing new starts (alt-runner resume j)"),
        (events.AttemptProgressed("a", 1, 0.42, 21, 50, "reading"), "a: progress 42 %, 21 of 50: reading"),
        (events.AttemptProgressed("a", 1, message="thinking"), "a: progress thinking"),
        (
            events.AttemptFailed("a", attempt=1, failure=OOPS, retry_at=5 * SECOND),
            "a: attempt 1 failed: task a: it said 500 [HTTP_STATUS]; next in 1.0 s",
        ),
        (
            events.AttemptParked(
                "a", attempt=1, reason=events.WaitReason.BREAKER_OPEN, until=6 * SECOND, message="open"
            ),
            "a: waits 2.0 s (circuit breaker open): open",
        ),
        (events.TaskCancelled("b", attempt=0, reason="dependency `a` failed"), "b: cancelled: dependency `a` failed"),
        (events.TaskSkipped("b", "not taken"), "b: skipped: not taken"),
        (events.JobFailed(OOPS), "job failed after 2.0 s: task a: it said 500 [HTTP_STATUS]"),
    ],
)
def test_an_event_is_a_sentence(event: Event, sentence: str) -> None:
    happened: list[Event] = [ACCEPTED, STARTED, events.AttemptStarted("a", 1, "x"), event]
    assert sentences.told(events.Recorded(4, 4 * SECOND, event), view_of(*happened)) == sentence
