from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from altrunner.v1 import job_pb2
from rich.console import Console, RenderableType

from runner.cli import sentences, tables
from runner.cli.live import job_rows
from runner.cli.view import FAILED_KEPT, TAIL, JobView
from runner.core import events
from runner.core.events import Event, JobState, TaskState
from runner.core.plan import Priority
from runner.frames import timestamp
from tests.reports.conftest import START
from tests.reports.flows import counting, ran, tickets, triage

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


def test_a_task_whose_first_attempt_was_not_seen_is_told_no_time() -> None:
    view = view_of(events.AttemptStarted("a", 2, "delay"), events.AttemptSucceeded("a", attempt=2, output=b"1"))
    assert (view.tasks["a"].started_at, view.tasks["a"].state) == (None, TaskState.SUCCEEDED)


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
                "a",
                attempt=1,
                reason=events.WaitReason.BREAKER_OPEN,
                until=(12 * 3600 + 3 * 60 + 20) * SECOND,
                endpoint="orchestrator-a",
                message="12 of 20 calls failed",
            ),
            "a: parked: orchestrator-a is open until 12:03:20 UTC: 12 of 20 calls failed",
        ),
        (
            events.AttemptParked(
                "a", attempt=1, reason=events.WaitReason.RATE_LIMITED, until=6 * SECOND, message="32 calls"
            ),
            "a: waits 2.0 s (no room): 32 calls",
        ),
        (events.TaskCancelled("b", attempt=0, reason="dependency `a` failed"), "b: cancelled: dependency `a` failed"),
        (events.TaskSkipped("b", "not taken"), "b: skipped: not taken"),
        (events.JobFailed(OOPS), "job failed after 2.0 s: task a: it said 500 [HTTP_STATUS]"),
    ],
)
def test_an_event_is_a_sentence(event: Event, sentence: str) -> None:
    happened: list[Event] = [ACCEPTED, STARTED, events.AttemptStarted("a", 1, "x"), event]
    assert sentences.told(events.Recorded(4, 4 * SECOND, event), view_of(*happened)) == sentence


def followed(count: int, *, fails: Callable[[str], bool] = lambda _: False) -> Iterator[tuple[JobView, str]]:
    """A view of a job with a loop, after each of its events, and the sentence for that."""
    view = JobView("j")
    view.expect([("fetch", "", "delay"), ("each_ticket", "", "for_each"), ("report", "", "delay")])
    _, happened = ran(triage(), tickets(count), fails=fails)
    for recorded in happened:
        view.apply(recorded)
        yield view, sentences.told(recorded, view)


def test_rounds_branches_and_calls_are_told_in_words() -> None:
    told = [sentence for _, sentence in followed(2)]
    for sentence in (
        "each_ticket: round 1 begins (ticket = id: T-1, severity: 2)",
        "each_ticket[1]/rate: calls score",
        "each_ticket[1]/urgent: takes the branch else",
        "each_ticket[1]/urgent: succeeded in 7 ms",
        "each_ticket: succeeded in 14 ms, 2 rounds",
    ):
        assert sentence in told


def test_a_job_with_loops_counts_all_its_tasks_and_never_falls_back() -> None:
    progress = [0.0]
    for view, _ in followed(20):
        progress.append(view.progress)
        assert view.ended <= view.total
    assert progress == sorted(progress)
    assert len({round(share, 3) for share in progress}) > 20
    assert (view.ended, view.total) == (103, 103)
    assert view.count(TaskState.SKIPPED) == 20
    assert sentences.ended(view).endswith(", 83 of 83 tasks")


def test_of_a_long_loop_only_what_is_under_way_and_some_failures_are_kept() -> None:
    most = 0
    for view, _ in followed(300, fails=lambda name: name.endswith("/weigh")):
        most = max(most, len(view.tasks))
    assert most <= FAILED_KEPT + 16 * 5 + 4
    flow = view.tasks["each_ticket"].flow
    assert flow is not None
    assert (flow.rounds, flow.begun, flow.done, flow.failed) == (300, 300, 300, 300)
    assert view.count(TaskState.FAILED) == 601
    assert view.ended == view.total


def test_a_loop_of_which_nobody_knows_the_end_counts_its_rounds() -> None:
    view = JobView("j")
    _, happened = ran(counting(3), {})
    for recorded in happened[:-3]:
        view.apply(recorded)
    flow = view.tasks["until"].flow
    assert flow is not None
    assert (flow.rounds, flow.begun, flow.progress) == (0, 3, 0.0)


def test_control_tasks_are_not_lost_with_a_runner_and_instances_are() -> None:
    _, happened = ran(triage(), tickets(1))
    began = next(place for place, each in enumerate(happened) if getattr(each.event, "task_id", "").endswith("/weigh"))
    view = view_of(*(each.event for each in happened[: began + 1]), events.JobReleased("r1", "shutdown"))
    assert view.tasks["each_ticket"].state is TaskState.RUNNING
    assert view.tasks["each_ticket[0]/rate/weigh"].state is TaskState.PENDING


def test_what_will_not_run_again_once_its_body_begins_is_told_and_not_counted_before() -> None:
    view = JobView("j")
    view.expect([("each", "", "for_each")])
    reused = events.TaskReused("each[0]/a", job_id="earlier")
    view.apply(events.Recorded(1, 0, events.JobAccepted("x", 1, "default", Priority.HIGH)))
    view.apply(events.Recorded(2, 0, reused))
    assert sentences.told(events.Recorded(2, 0, reused), view) == "each[0]/a: reused from job earlier"
    assert view.total == 1
    view.apply(events.Recorded(3, 0, STARTED))
    view.apply(events.Recorded(4, 0, events.BodyStarted("each", body="round", task_count=1, rounds=1)))
    view.apply(events.Recorded(5, 0, reused))
    assert (view.ended, view.total) == (1, 2)


def test_a_watch_that_begins_in_the_middle_of_a_loop_shows_what_it_can() -> None:
    _, happened = ran(triage(), tickets(40))
    for begin in range(0, len(happened), 37):
        view = JobView("j")
        view.expect([("fetch", "", "delay"), ("each_ticket", "", "for_each"), ("report", "", "delay")])
        view.task_count = view.own_count = 3
        for recorded in happened[begin:]:
            view.apply(recorded)
            assert sentences.told(recorded, view)
        assert view.state is JobState.SUCCEEDED
        assert len(view.tasks) <= 4


def test_the_live_view_has_a_line_for_a_loop_and_for_what_runs_in_it() -> None:
    console = Console(width=110, color_system=None)
    views = followed(300, fails=lambda name: "[1]/rate" in name)
    view = next(view for view, _ in views if view.ended > 600)
    with console.capture() as captured:
        for row in job_rows(view, START + 5_000_000, 20, 110):
            console.print(row)
    lines = captured.get().splitlines()
    assert len(lines) <= 20
    assert any(re.search(r"● each_ticket .* \d+/300 rounds, 1 failed", line) for line in lines)
    assert any(re.search(r"^ +[●✗] \[\d+\]/(rate|urgent)", line) for line in lines)
    assert any("more tasks" in line for line in lines)


def test_tasks_of_a_job_stand_below_what_runs_them() -> None:
    names = ["a", "a[0]/b", "c/d", "a[0]/b/x", "a[1]/b"]
    kinds = {"a": "for_each", "a[0]/b": "condition"}
    succeeded = job_pb2.TASK_STATE_SUCCEEDED
    tasks = [job_pb2.Task(task_id=name, task_type=kinds.get(name, "delay"), state=succeeded) for name in names]
    job = job_pb2.Job(tasks=tasks)
    console = Console(width=110, color_system=None)
    with console.capture() as captured:
        console.print(tables.tasks(job))
    shown = [re.split(r"(?<=\S) +", line)[0] for line in captured.get().splitlines()[1:]]
    assert shown == ["a", "  [0]/b", "    x", "  [1]/b", "c/d"]


def told(*renderables: RenderableType) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        for each in renderables:
            console.print(each)
    return captured.get()


def test_a_task_that_asks_shows_its_question_and_what_answers_it_and_a_reused_one_where_it_ran() -> None:
    asking, reused = job_pb2.TASK_STATE_WAITING, job_pb2.TASK_STATE_SUCCEEDED
    tasks = [
        job_pb2.Task(task_id="each", task_type="for_each", state=job_pb2.TASK_STATE_RUNNING),
        job_pb2.Task(
            task_id="each[5]/ask",
            task_type="approval",
            state=asking,
            wait_reason=job_pb2.WAIT_REASON_AWAITING_APPROVAL,
            wait_message="Ship it?",
        ),
        job_pb2.Task(task_id="a", task_type="delay", state=reused, reused_from="j1"),
    ]
    shown = told(tables.tasks(job_pb2.Job(job_id="j2", tasks=tasks)))
    assert "Ship it? (alt-runner approve j2 'each[5]/ask', or reject)" in shown
    assert re.search(r"^a .* reused from job j1", shown, re.MULTILINE)


def test_a_job_counts_all_its_tasks_or_says_that_it_knows_those_of_the_file_only() -> None:
    counts = job_pb2.TaskCounts(total=23, succeeded=20, skipped=2, waiting=1)
    running, medium = job_pb2.JOB_STATE_RUNNING, job_pb2.PRIORITY_MEDIUM
    job = job_pb2.Job(job_id="j", state=running, priority=medium, task_count=3, progress=0.9)
    assert re.search("^tasks +3 in the file; --tasks shows and counts all", told(tables.facts(job)), re.MULTILINE)
    job.task_counts.CopyFrom(counts)
    assert re.search("^tasks +23 so far: 20 succeeded, 2 skipped, 1 waiting *$", told(tables.facts(job)), re.MULTILINE)


def test_a_job_that_is_set_aside_says_so_and_why() -> None:
    why = job_pb2.Failure(reason="REPLAY_FAILED", message="nobody can read it")
    job = job_pb2.Job(job_id="j", state=job_pb2.JOB_STATE_QUEUED, priority=job_pb2.PRIORITY_MEDIUM, error=why)
    assert re.search("^state +○ queued, set aside *$", told(tables.facts(job)), re.MULTILINE)
    assert re.search(r"^error +nobody can read it \[REPLAY_FAILED\] *$", told(tables.facts(job)), re.MULTILINE)
    assert "what became of them cannot be read" in told(tables.facts(job))
    assert "queued, set aside" in told(tables.jobs([job]))
    job.cancel_requested = True
    assert "queued, cancelling" in told(tables.facts(job))
    job.state = job_pb2.JOB_STATE_CANCELLED
    assert "set aside" not in told(tables.facts(job))


def test_nobody_is_told_to_approve_what_no_other_command_can_reach() -> None:
    parked = events.AttemptParked(
        "each[5]/ask", attempt=1, reason=events.WaitReason.AWAITING_APPROVAL, until=6 * SECOND, message="Ship it?"
    )
    recorded = events.Recorded(1, SECOND, parked)
    sentence = "each[5]/ask: asks for approval: Ship it?"
    assert sentences.told(recorded, JobView("j", reachable=False)) == sentence
    assert sentences.told(recorded, JobView("j")) == f"{sentence} (alt-runner approve j 'each[5]/ask', or reject)"


def test_what_stood_in_for_a_first_choice_is_told_with_the_reason() -> None:
    why = events.Failure("BREAKER_OPEN", "the circuit breaker of `a` is open")
    used = events.FallbackUsed(kind=events.FallbackKind.ENDPOINT, position=1, instead_of="a", failure=why)
    done = events.AttemptSucceeded("t", attempt=1, endpoint="b", model="small", fallback=used)
    happened: list[Event] = [ACCEPTED, STARTED, events.AttemptStarted("t", 1, "ai_prompt"), done]
    told = sentences.told(events.Recorded(4, 4 * SECOND, done), view_of(*happened))
    assert told.endswith("; b · small stood in for a: the circuit breaker of `a` is open [BREAKER_OPEN]")


def test_a_parked_task_says_on_the_terminal_and_in_its_table_until_when_and_for_whom() -> None:
    until = (12 * 3600 + 3 * 60 + 20) * SECOND
    parked = events.AttemptParked(
        "a", attempt=1, reason=events.WaitReason.BREAKER_OPEN, until=until, endpoint="orchestrator-a", message="slow"
    )
    view = view_of(ACCEPTED, STARTED, events.AttemptStarted("a", 1, "x"), parked)
    drawn = told(*job_rows(view, until - 14 * SECOND, 10, 150))
    assert "again in 14.0 s  parked: orchestrator-a is open until 12:03:20 UTC: slow" in drawn
    task = job_pb2.Task(
        task_id="a",
        state=job_pb2.TASK_STATE_WAITING,
        wait_reason=job_pb2.WAIT_REASON_BREAKER_OPEN,
        wait_message="slow",
        waiting_until=timestamp(until),
    )
    shown = told(tables.tasks(job_pb2.Job(job_id="j", tasks=[task])))
    assert "parked until 12:03:20 UTC: slow" in shown
