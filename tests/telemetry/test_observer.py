"""One vocabulary: every event reaches logs, metrics and traces, and nothing is kept of what ended."""

from __future__ import annotations

import typing
from typing import Any

import pytest

from runner.core import events
from runner.core.events import (
    AttemptFailed,
    AttemptParked,
    AttemptStarted,
    AttemptSucceeded,
    Failure,
    JobAccepted,
    JobCancelled,
    JobEvent,
    JobReleased,
    JobStarted,
    JobState,
    JobSucceeded,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    Usage,
    WaitReason,
)
from runner.core.plan import Priority
from runner.ports import Observer
from runner.telemetry.observer import LOGGED, Telemetry

ACCEPTED = JobAccepted("Weekly digest", 2, "default", Priority.HIGH)
STARTED = JobStarted("runner-1", 1)
FAILURE = Failure("HTTP_STATUS", "it said 500, key hush-hush", "fetch")
Make = Any


def test_telemetry_is_an_observer(ear: Make) -> None:
    observer: Observer = ear.telemetry
    assert isinstance(observer, Telemetry)


def test_every_event_of_the_vocabulary_has_a_level_and_a_name() -> None:
    assert set(LOGGED) == {*JobEvent.__subclasses__(), *TaskEvent.__subclasses__()}
    assert len({name for _, name in LOGGED.values()}) == len(LOGGED)


@pytest.mark.parametrize("kind", LOGGED, ids=lambda kind: kind.__name__)
def test_every_event_can_be_told_wherever_the_story_begins(ear: Make, kind: Any, summary: Make, history: Make) -> None:
    """A daemon may see any event first: it took the job over."""
    values: dict[Any, Any] = {
        str: "word",
        int: 1,
        bytes: b"{}",
        bool: True,
        Failure: FAILURE,
        WaitReason: WaitReason.BREAKER_OPEN,
        Priority: Priority.LOW,
    }
    hints = typing.get_type_hints(kind)
    event = kind(**{name: values[hint] for name, hint in hints.items() if hint in values})
    ear.telemetry.committed(summary(), history(event, first=7))
    assert ear.lines[0]["event"] == LOGGED[kind][1]
    assert len(ear.timeline) <= (kind is JobStarted)


def test_a_log_line_carries_job_task_attempt_and_trace(ear: Make, summary: Make, history: Make) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    failed = AttemptFailed("fetch", attempt=1, failure=FAILURE, retry_at=5)
    ear.telemetry.committed(
        summary(), history(ACCEPTED, STARTED, AttemptStarted("fetch", 1, "http_request"), failed), traceparent=trace
    )
    line = ear.lines[-1]
    assert line["event"] == "attempt_failed"
    assert line["level"] == "warning"
    assert (line["job_id"], line["task"], line["attempt"]) == ("job-1", "fetch", 1)
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert line["reason"] == "HTTP_STATUS"
    assert line["timestamp"].endswith("Z")


def test_neither_outputs_nor_secrets_are_logged(ear: Make, summary: Make, history: Make) -> None:
    done = AttemptSucceeded("fetch", attempt=1, output=b'"a private letter"', usage=Usage(1, 2, 3, 5))
    piece = events.AttemptOutput("fetch", 1, 0, "Dear private")
    failed = TaskFailed("digest", attempt=1, failure=FAILURE)
    ear.telemetry.committed(summary(), history(ACCEPTED, STARTED, piece, done, failed))
    text = ear.stream.getvalue()
    assert "private" not in text
    assert "hush-hush" not in text
    assert ear.lines[2]["text_size"] == 12
    assert ear.lines[3]["prompt_tokens"] == 2


def test_a_log_line_tells_what_stood_in_for_what_and_why(ear: Make, summary: Make, history: Make) -> None:
    used = events.FallbackUsed(kind=events.FallbackKind.CACHED, position=1, instead_of="main", failure=FAILURE)
    done = AttemptSucceeded("fetch", attempt=1, endpoint="main", fallback=used)
    ear.telemetry.committed(summary(), history(ACCEPTED, STARTED, done))
    line = ear.lines[-1]
    assert (line["fallback"], line["instead_of"], line["reason"]) == ("cached", "main", FAILURE.reason)


def test_inside_an_attempt_everyones_log_lines_carry_its_ids(
    ear: Make, summary: Make, history: Make, task: Make
) -> None:
    ear.telemetry.committed(summary(), history(ACCEPTED, STARTED))
    with ear.telemetry.attempt(summary(), task, 2, traceparent="") as context:
        ear.telemetry.notice("called")
    ear.telemetry.notice("outside")
    inside, outside = ear.lines[-2:]
    assert (inside["job_id"], inside["task"], inside["attempt"]) == ("job-1", "fetch", 2)
    assert context == f"00-{inside['trace_id']}-{inside['span_id']}-01"
    assert "job_id" not in outside


def test_notices_get_a_level_by_how_they_sound_unless_told(ear: Make) -> None:
    ear.telemetry.notice("jobs_rescued", count=2)
    ear.telemetry.notice("claim_failed")
    ear.telemetry.notice("odd", error="why")
    ear.telemetry.notice("quiet", level="debug")
    ear.telemetry.notice("bad", level="error")
    assert [line["level"] for line in ear.lines] == ["info", "warning", "warning", "debug", "error"]
    assert ear.value("alt_runner_notices_total", event="jobs_rescued") == 1


def test_a_breaker_that_opens_is_a_warning_and_a_metric(ear: Make) -> None:
    ear.telemetry.breaker("main", "small", "open", "closed", reason="12 of 20 calls failed")
    ear.telemetry.breaker("main", "small", "half_open", "open")
    ear.telemetry.breaker("main", "small", "closed", "half_open")
    assert [line["level"] for line in ear.lines] == ["warning", "warning", "info"]
    assert [line.get("reason") for line in ear.lines] == ["12 of 20 calls failed", None, None]
    labels = {"endpoint": "main", "model": "small"}
    assert ear.value("alt_runner_breaker_state", **labels, state="closed") == 1
    assert ear.value("alt_runner_breaker_state", **labels, state="open") == 0
    assert ear.value("alt_runner_breaker_transitions_total", **labels, state="open") == 1


def test_attempts_are_counted_by_handler_and_outcome_with_their_durations(
    ear: Make, summary: Make, history: Make
) -> None:
    start = AttemptStarted("fetch", 1, "http_request")
    parked = AttemptParked("fetch", attempt=2, reason=WaitReason.BREAKER_OPEN, until=0)
    timed_out = events.TaskTimedOut("fetch", attempt=3, failure=Failure("TIMED_OUT", "late"))
    ear.telemetry.committed(
        summary(),
        history(
            ACCEPTED, STARTED,
            start, AttemptFailed("fetch", attempt=1, failure=FAILURE, retry_at=0),
            AttemptStarted("fetch", 2, "http_request"), parked,
            AttemptStarted("fetch", 3, "http_request"), timed_out,
        ),
    )  # fmt: skip
    for outcome in ["failed", "parked", "timed_out"]:
        labels = {"handler": "http_request", "outcome": outcome}
        assert ear.value("alt_runner_attempts_total", **labels) == 1
        assert ear.value("alt_runner_attempt_duration_seconds_sum", **labels) == 1.0
    assert ear.value("alt_runner_attempts_running", handler="http_request") == 0
    assert ear.value("alt_runner_tasks_ended_total", state="timed_out") == 1


def test_a_job_is_counted_with_its_wait_and_its_duration(ear: Make, summary: Make, history: Make) -> None:
    ear.telemetry.committed(summary(), history(ACCEPTED))
    ear.telemetry.committed(summary(), history(STARTED, JobSucceeded(), first=2))
    assert ear.value("alt_runner_jobs_accepted_total", queue="default") == 1
    assert ear.value("alt_runner_queue_wait_seconds_sum", queue="default") == 1.0
    assert ear.value("alt_runner_jobs_ended_total", queue="default", state="succeeded") == 1
    assert ear.value("alt_runner_job_duration_seconds_sum", state="succeeded") == 2.0


def test_a_job_taken_over_does_not_count_its_wait_again(ear: Make, summary: Make, history: Make) -> None:
    ear.telemetry.committed(summary(), history(JobStarted("runner-2", 2), first=9))
    assert ear.value("alt_runner_queue_wait_seconds_count", queue="default") is None


@pytest.mark.parametrize(
    "ending",
    [JobSucceeded(), JobCancelled("wish"), JobReleased("runner-1", "drain"), events.JobFailed(FAILURE)],
    ids=lambda ending: type(ending).__name__,
)
def test_nothing_is_kept_of_a_job_that_ended_or_was_given_back(
    ear: Make, summary: Make, history: Make, ending: JobEvent
) -> None:
    story = history(ACCEPTED, STARTED, AttemptStarted("fetch", 1, "delay"), ending)
    ear.telemetry.committed(summary(), story[:3])
    assert len(ear.timeline) == 1
    ear.telemetry.committed(summary(), story[3:])
    assert len(ear.timeline) == 0


def test_a_released_job_loses_its_attempts(ear: Make, summary: Make, history: Make) -> None:
    story = history(ACCEPTED, STARTED, AttemptStarted("fetch", 1, "delay"), JobReleased("runner-1", "drain"))
    ear.telemetry.committed(summary(), story)
    assert ear.value("alt_runner_attempts_total", handler="delay", outcome="lost") == 1
    assert ear.value("alt_runner_attempts_running", handler="delay") == 0
    assert ear.value("alt_runner_jobs_released_total") == 1


@pytest.mark.parametrize("notice", ["lease_lost", "job_dropped"])
def test_nothing_is_kept_of_a_job_whose_lease_was_lost(ear: Make, summary: Make, history: Make, notice: str) -> None:
    ear.telemetry.committed(summary(), history(ACCEPTED, STARTED, AttemptStarted("fetch", 1, "delay")))
    ear.telemetry.notice(notice, job_id="job-1")
    assert len(ear.timeline) == 0
    assert ear.value("alt_runner_attempts_running", handler="delay") == 0


def test_a_job_cancelled_before_it_ran_leaves_no_attempt(ear: Make, summary: Make, history: Make) -> None:
    story = history(ACCEPTED, STARTED, TaskCancelled("fetch", attempt=0, reason="wish"), JobCancelled("wish"))
    ear.telemetry.committed(summary(state=JobState.CANCELLED), story)
    assert ear.value("alt_runner_tasks_ended_total", state="cancelled") == 1
    assert ear.value("alt_runner_jobs_ended_total", queue="default", state="cancelled") == 1
    assert "alt_runner_attempts_total{" not in ear.metrics.exposition("")[0].decode()
