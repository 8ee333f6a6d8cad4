"""Control flow in traces, metrics and logs."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from runner.core.events import JobReleased, Recorded
from runner.telemetry.settings import TraceSettings
from runner.telemetry.timeline import Timeline
from runner.telemetry.traces import Traces
from tests.reports.flows import ran, tickets, triage

Make = Any
BAD = "each_ticket[1]/rate/weigh"


def story(count: int) -> list[Recorded]:
    return ran(triage(), tickets(count), fails=BAD.__eq__)[1]


def by_name(spans: list[ReadableSpan]) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans if not span.name.startswith("attempt")}


async def test_tasks_stand_under_the_control_task_that_runs_them(ear: Make, summary: Make) -> None:
    ear.telemetry.committed(summary(), story(2))
    spans = by_name(await ear.spans())
    chain = ["job", "task each_ticket", "task each_ticket[0]/urgent", "task each_ticket[0]/urgent/file"]
    for above, below in itertools.pairwise(chain):
        parent = spans[below].parent
        assert parent is not None
        assert parent.span_id == spans[above].context.span_id
        assert (spans[above].start_time or 0) <= (spans[below].start_time or 0)
        assert (spans[above].end_time or 0) >= (spans[below].end_time or 0)
    assert spans["task each_ticket"].status.is_ok is False
    assert spans["job"].attributes is not None
    assert spans["job"].attributes["alt_runner.job.spans_left_out"] == 0


async def test_a_long_loop_does_not_flood_a_trace(ear: Make, summary: Make) -> None:
    traces, timeline = Traces(TraceSettings(max_job_spans=50), exporter=ear.kept), Timeline()
    for stretch in timeline.follow(summary(), story(100)):
        traces.ended(stretch)
    await traces.aclose()
    spans = ear.kept.spans
    assert len(spans) == 52
    ids = {span.context.span_id for span in spans}
    orphans = [span for span in spans if span.parent is not None and span.parent.span_id not in ids]
    # What was under way at the bound may have lost its call or condition, but never its loop.
    assert len(orphans) <= 32
    assert {"job", "task each_ticket"} <= {span.name for span in spans}
    job = by_name(spans)["job"]
    assert job.attributes is not None
    assert job.attributes["alt_runner.job.spans_left_out"] == told(100) - 50


def told(rounds: int) -> int:
    """Attempts and tasks of a story that end."""
    events = Counter(type(each.event).__name__ for each in story(rounds))
    attempts = events["AttemptSucceeded"] + 1
    ends = ("AttemptSucceeded", "TaskFailed", "TaskCancelled", "TaskSkipped", "ControlSucceeded")
    return attempts + sum(events[end] for end in ends)


def test_the_timeline_keeps_only_what_is_under_way(summary: Make) -> None:
    timeline = Timeline()
    stretches = 0
    for recorded in story(60):
        stretches += sum(1 for _ in timeline.follow(summary(), [recorded]))
    assert stretches == told(60) + 1
    assert len(timeline) == 0


def test_a_loop_of_a_job_that_is_given_back_ends_with_the_run(summary: Make) -> None:
    timeline = Timeline()
    events = story(3)
    middle = next(place for place, each in enumerate(events) if getattr(each.event, "task_id", "").endswith("/weigh"))
    given_back = Recorded(middle + 2, events[middle].time, JobReleased("runner-7f", "shutdown"))
    stretches = list(timeline.follow(summary(), [*events[: middle + 1], given_back]))
    lost = {getattr(stretch, "task_id", "") for stretch in stretches[1:]}
    assert {"each_ticket", "each_ticket[0]/rate", "each_ticket[0]/rate/weigh"} <= lost


def test_metrics_count_instances_as_tasks(ear: Make, summary: Make) -> None:
    events = story(5)
    ear.telemetry.committed(summary(), events)
    counted = {
        state: ear.value("alt_runner_tasks_ended_total", state=state)
        for state in ("succeeded", "failed", "skipped", "cancelled")
    }
    # The file's three; of each round a call with a task and a condition with two.
    assert sum(value or 0 for value in counted.values()) == 3 + 5 * 5 - 2
    assert counted["failed"] == 3
    assert counted["skipped"] == 4
    assert ear.value("alt_runner_attempts_running", handler="delay") == 0


def test_log_lines_carry_the_ids_of_instances(ear: Make, summary: Make) -> None:
    ear.telemetry.committed(summary(), story(2))
    lines = ear.lines
    begun = [line for line in lines if line["event"] == "body_started"]
    assert {"task": "each_ticket", "body": "round", "round": 1, "rounds": 2, "name": "ticket"}.items() <= begun[
        1
    ].items()
    assert "T-1" not in str(begun), "what a job is about is its owner's"
    failed = [line["task"] for line in lines if line["event"] == "task_failed"]
    assert failed == [BAD, "each_ticket[1]/rate", "each_ticket"]
    assert any(line["event"] == "control_succeeded" and line["task"] == "each_ticket[0]/urgent" for line in lines)
