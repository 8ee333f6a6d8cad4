from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.events import (
    Artifact,
    AttemptFailed,
    AttemptParked,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    Failure,
    FallbackKind,
    FallbackUsed,
    JobAccepted,
    JobCancelling,
    JobStarted,
    JobState,
    TaskCancelled,
    TaskFailed,
    TaskSkipped,
    TaskTimedOut,
    Usage,
    WaitReason,
)
from runner.core.interpreter import JobRun
from runner.core.job import JobSummary
from runner.core.last import compose, compose_unread, seal
from runner.core.plan import Mode, Plan, Priority, TaskPlan
from runner.core.record import (
    ArtifactType,
    DependencyType,
    FallbackRecord,
    GraphEdge,
    LastRecord,
    RecordStatus,
    ResultStatus,
    UsageRecord,
    Verdict,
    parse,
    verify,
)
from tests.reports import flows

#: 2026-01-01T00:00:00Z
START = 1_767_225_600_000_000
SECOND = 1_000_000


def plan_of(*tasks: TaskPlan, **more: Any) -> Plan:
    return Plan(alt_id="alt_0042", dialect="tasks", version="1.0", title="Özet", tasks=tasks, created_at=START, **more)


def task(name: str, *dependencies: str, **more: Any) -> TaskPlan:
    return TaskPlan(id=name, description=f"do {name}", kind="ai_prompt", dependencies=dependencies, **more)


def summary_of(plan: Plan, **more: Any) -> JobSummary:
    told: dict[str, Any] = {
        "id": "job1",
        "alt_id": plan.alt_id,
        "title": plan.title,
        "state": JobState.RUNNING,
        "priority": Priority.HIGH,
        "queue": "nightly",
        "labels": {"team": "blue"},
        "request_id": "",
        "created_at": START - 3 * SECOND,
        "started_at": START,
        "ended_at": None,
        "not_before": None,
        "deadline": None,
        "progress": 0.0,
        "last_sequence": 2,
        "error": None,
        "cancel_requested": False,
        "task_count": len(plan.tasks),
        "descriptor_sha256": "d" * 64,
    }
    return JobSummary(**(told | more))


class Story:
    """Tells a job's events, one second apart."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.run = JobRun(plan)
        self.now = START
        self.run.record(JobAccepted(plan.title, len(plan.tasks), "nightly", Priority.HIGH), time=START - 3 * SECOND)
        self.run.record(JobStarted("runner-1", 1), time=START)

    def tell(self, *events: Event) -> Story:
        for event in events:
            self.now += SECOND
            self.run.record(event, time=self.now)
        return self

    def end(self) -> LastRecord:
        self.run.settle(now=self.now, max_lost=3)
        return record_of(self.plan, self.run)


def record_of(plan: Plan, run: JobRun, **more: Any) -> LastRecord:
    return compose(
        summary_of(plan, **more), plan, run, record_id="rec1", execution_id="exe1", runner_id="runner-1", trace_id="t1"
    )


def at(second: int) -> datetime:
    return datetime.fromtimestamp(START // SECOND + second, UTC)


def succeeded(name: str, attempt: int = 1, output: bytes = b'{"text":"ok"}', **more: Any) -> AttemptSucceeded:
    return AttemptSucceeded(name, attempt=attempt, output=output, **more)


UNREACHABLE = Failure("HTTP_STATUS", "the endpoint answered 503")


# --------------------------------------------------------------------------------------------------------- composing


def unread(plan: Plan | None, reason: str | None = "enough", **more: Any) -> LastRecord:
    """The record of a job of which only the row, and perhaps the plan, could be read."""
    told = {"state": JobState.CANCELLED, "ended_at": START + 5 * SECOND, "error": Failure("REPLAY_FAILED", WHY)} | more
    summary = summary_of(Plan(alt_id="alt_1", dialect="tasks", version="1.0", title="Özet", tasks=(task("a"),)), **told)
    return compose_unread(
        summary,
        plan,
        why=WHY,
        reason=reason,
        record_id="rec1",
        execution_id="exe1",
        runner_id="runner-1",
        trace_id="t1",
    )


WHY = "alt-runner 1.0 cannot read its plan or events (ValueError: event 2 is of a kind that it does not know)"


def test_the_record_of_a_job_that_could_not_be_read_tells_what_its_row_tells() -> None:
    record = unread(None)
    assert verify(seal(record)) is Verdict.OK
    assert parse(seal(record)).job_id == "job1"
    assert (record.title, record.alt_file_id, record.status, record.success_rate) == ("Özet", "alt_1", "failure", 0)
    assert (record.start_time, record.end_time, record.queue_time_ms) == (at(0), at(5), 3_000)
    assert record.summary == f"Cancelled: enough. What became of its only task is not known: {WHY}."
    assert record.metadata == {
        "cancelled": True,
        "error": f"REPLAY_FAILED: {WHY}",
        "queue": "nightly",
        "labels": {"team": "blue"},
        "unread": WHY,
    }
    assert record.task_results == {}


def test_the_record_of_such_a_job_tells_of_its_plan_where_that_could_be_read() -> None:
    plan = Plan(
        alt_id="alt_1", dialect="tasks", version="1.0", title="Özet", tasks=(task("a"),),
        persona="expert", tags=("x",), metadata={"source": "manual"},
    )  # fmt: skip
    record = unread(plan)
    assert (record.persona, record.tags, record.metadata["alt_source"]) == ("expert", ("x",), "manual")


def test_the_record_of_such_a_job_whose_deadline_passed_says_so() -> None:
    error = Failure("DEADLINE_EXCEEDED", "the job's deadline passed, and nobody could go on with it")
    record = unread(None, None, state=JobState.FAILED, error=error, task_count=2)
    assert record.summary == f"{error.message}. What became of its 2 tasks is not known: {WHY}."
    assert "cancelled" not in record.metadata


def test_a_job_that_could_not_be_read_and_has_not_ended_has_no_record() -> None:
    with pytest.raises(ValueError, match="has not ended"):
        unread(None, state=JobState.QUEUED)


def test_a_task_that_succeeded_at_the_third_try_tells_all_its_attempts() -> None:
    plan = plan_of(task("ask", metadata={"confidence": 0.9}))
    parked = AttemptParked("ask", attempt=2, reason=WaitReason.BREAKER_OPEN, until=START, endpoint="ai-1")
    record = (
        Story(plan)
        .tell(
            AttemptStarted("ask", 1, "orchestrator"),
            AttemptFailed("ask", attempt=1, failure=UNREACHABLE, retry_at=START, endpoint="ai-1", usage=Usage(1)),
            AttemptStarted("ask", 2, "orchestrator"),
            parked,
            AttemptStarted("ask", 3, "orchestrator"),
            succeeded("ask", 3, endpoint="ai-2", model="m", usage=Usage(1, 10, 5, 15)),
        )
        .end()
    )
    ask = record.task_results["ask"]
    assert [(attempt.number, attempt.outcome, attempt.endpoint, attempt.tokens) for attempt in ask.attempts] == [
        (1, "failed", "ai-1", 0),
        (2, "parked", "ai-1", None),
        (3, "succeeded", "ai-2", 15),
    ]
    assert [attempt.error for attempt in ask.attempts] == ["HTTP_STATUS: the endpoint answered 503", None, None]
    assert (ask.attempts[0].started, ask.attempts[0].ended) == (at(1), at(2))
    assert (ask.status, ask.output, ask.error) == (ResultStatus.COMPLETED, {"text": "ok"}, None)
    assert (ask.start_time, ask.end_time, ask.duration_ms) == (at(1), at(6), 5_000)
    assert ask.usage == record.usage == Usage(2, 10, 5, 15)
    assert record.usage_by == (
        UsageRecord(endpoint="ai-2", model="m", calls=1, prompt_tokens=10, completion_tokens=5, total_tokens=15),
        UsageRecord(endpoint="ai-1", calls=1),
    )
    assert ask.metadata == {"alt_confidence": 0.9}


def test_an_attempt_tells_what_stood_in_for_its_first_choice() -> None:
    used = FallbackUsed(kind=FallbackKind.CACHED, position=2, instead_of="ai-1", failure=UNREACHABLE, age_seconds=61.5)
    story = Story(plan_of(task("ask"))).tell(
        AttemptStarted("ask", 1, "orchestrator"), succeeded("ask", endpoint="ai-1", model="m", fallback=used)
    )
    record = story.end()
    (attempt,) = record.task_results["ask"].attempts
    assert attempt.fallback == FallbackRecord(
        kind="cached",
        position=2,
        instead_of="ai-1",
        reason="HTTP_STATUS: the endpoint answered 503",
        age_seconds=61.5,
    )
    assert parse(seal(record)).task_results["ask"].attempts[0].fallback == attempt.fallback


def test_a_record_carries_what_the_job_was_and_how_it_went() -> None:
    plan = plan_of(
        task("a"),
        task("b", "a"),
        mode=Mode.DREAM,
        persona="technical_expert",
        tags=("x",),
        language="tr",
        token_budget=900,
        metadata={"source": "manual", "queue": "theirs"},
    )
    story = Story(plan).tell(
        AttemptStarted("a", 1, "delay"), succeeded("a"), AttemptStarted("b", 1, "delay"), succeeded("b")
    )
    record = story.end()
    assert (record.id, record.execution_id, record.job_id, record.alt_file_id) == ("rec1", "exe1", "job1", "alt_0042")
    assert (record.status, record.success_rate) == (RecordStatus.SUCCESS, 1.0)
    assert (record.start_time, record.end_time, record.execution_time_ms) == (at(0), at(4), 4_000)
    assert record.queue_time_ms == 3_000
    assert (record.mode, record.persona, record.priority, record.tags) == ("dream", "technical_expert", "high", ("x",))
    assert (record.runner_id, record.trace_id, record.descriptor_sha256) == ("runner-1", "t1", "d" * 64)
    assert record.metadata == {
        "alt_source": "manual",
        "alt_queue": "theirs",
        "queue": "nightly",
        "labels": {"team": "blue"},
        "token_budget": 900,
        "language": "tr",
    }
    assert record.execution_graph.edges == (GraphEdge("a", "b"),)
    assert record.summary == "All 2 tasks completed in 4.0 s."


def test_waiting_for_not_before_is_no_queueing() -> None:
    story = Story(plan_of(task("a"))).tell(AttemptStarted("a", 1, "delay"), succeeded("a"))
    story.end()
    assert record_of(story.plan, story.run, not_before=START - SECOND).queue_time_ms == 1_000
    assert record_of(story.plan, story.run, created_at=START + 9 * SECOND).queue_time_ms == 0


def test_a_failure_is_partial_while_something_completed_and_names_the_first() -> None:
    plan = plan_of(task("fetch"), task("digest", "fetch"), task("other"))
    record = (
        Story(plan)
        .tell(
            AttemptStarted("fetch", 1, "http_request"),
            TaskFailed("fetch", attempt=1, failure=UNREACHABLE),
            AttemptStarted("other", 1, "delay"),
            succeeded("other"),
        )
        .end()
    )
    assert (record.status, record.success_rate) == (RecordStatus.PARTIAL_SUCCESS, 1 / 3)
    assert record.summary == (
        "1 of 3 tasks completed in 4.0 s (1 failed, 1 cancelled). "
        "First failure in task `fetch`: the endpoint answered 503."
    )
    assert record.metadata["error"] == "HTTP_STATUS: the endpoint answered 503"
    digest = record.task_results["digest"]
    assert (digest.status, digest.error) == (ResultStatus.CANCELLED, "dependency `fetch` failed")
    assert (digest.start_time, digest.end_time, digest.duration_ms) == (at(4), at(4), 0)
    assert digest.attempts == ()


def test_a_cancelled_job_is_a_failure_that_says_so() -> None:
    plan = plan_of(task("a"), task("b"))
    record = (
        Story(plan)
        .tell(
            AttemptStarted("a", 1, "delay"),
            JobCancelling("changed my mind."),
            TaskCancelled("a", attempt=1, reason="job cancelled"),
        )
        .end()
    )
    assert (record.status, record.success_rate, record.metadata["cancelled"]) == (RecordStatus.FAILURE, 0.0, True)
    assert record.summary == "Cancelled: changed my mind. 0 of 2 tasks completed in 3.0 s (2 cancelled)."
    assert record.task_results["a"].attempts[0].outcome == "cancelled"


def test_a_timeout_is_told_as_one() -> None:
    timed_out = TaskTimedOut("a", attempt=1, failure=Failure("TIMED_OUT", "no answer within 30 s"))
    record = Story(plan_of(task("a"))).tell(AttemptStarted("a", 1, "delay"), timed_out).end()
    assert (record.status, record.task_results["a"].status) == (RecordStatus.FAILURE, ResultStatus.TIMEOUT)
    assert record.task_results["a"].attempts[0].outcome == "timed_out"
    assert record.task_results["a"].error == "TIMED_OUT: no answer within 30 s"


def test_a_skipped_task_is_cancelled_with_a_mark_and_was_not_to_run() -> None:
    story = Story(plan_of(task("a"), task("b"))).tell(
        TaskSkipped("b", "branch not taken"), AttemptStarted("a", 1, "delay"), succeeded("a")
    )
    record = story.end()
    skipped = record.task_results["b"]
    assert (skipped.status, skipped.metadata["skipped"], skipped.error) == ("cancelled", True, "branch not taken")
    assert (record.success_rate, record.summary) == (1.0, "The only task completed in 3.0 s (1 skipped).")


def test_artifacts_are_named_by_their_place_at_the_daemon() -> None:
    left = Artifact(
        id="art1",
        name="a.txt",
        artifact_type="text",
        task_id="a",
        mime_type="text/plain",
        size_bytes=3,
        sha256="s" * 64,
        created_at=START,
    )
    big = succeeded("a", output=b"", output_artifact_id="art1", artifacts=(left,))
    record = Story(plan_of(task("a"))).tell(AttemptStarted("a", 1, "delay"), big).end()
    (artifact,) = record.artifacts
    assert (artifact.path, artifact.artifact_type) == ("jobs/job1/artifacts/art1", ArtifactType.TEXT)
    assert artifact.metadata == {"sha256": "s" * 64}
    assert record.task_results["a"].output is None
    assert record.task_results["a"].metadata == {"output_artifact": "art1"}


def test_a_job_that_has_not_ended_has_no_record() -> None:
    with pytest.raises(ValueError, match="has not ended"):
        record_of(plan_of(task("a")), JobRun(plan_of(task("a"))))


def test_ten_thousand_tasks_make_a_record() -> None:
    names = [f"t{number}" for number in range(10_000)]
    plan = plan_of(*(task(name, *names[max(0, index - 1) : index]) for index, name in enumerate(names)))
    story = Story(plan)
    for name in names:
        story.tell(AttemptStarted(name, 1, "delay"), succeeded(name))
    data = seal(story.end())
    assert verify(data) is Verdict.OK
    assert len(parse(data).execution_graph.edges) == 9_999


# ------------------------------------------------------------------------------------------------------- properties

names = ["a", "b", "c", "d", "e"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def ended_jobs(draw: st.DrawFn) -> tuple[Plan, JobRun]:
    """A small plan whose tasks ended in drawn ways."""
    count = draw(st.integers(1, len(names)))
    tasks = [
        task(names[i], *draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else ()) for i in range(count)
    ]
    plan = plan_of(*tasks, metadata=draw(st.dictionaries(st.text(max_size=4), json_values, max_size=2)))
    story = Story(plan)
    while True:
        ready = next(iter(story.run.runnable(story.now)), None)
        if ready is None:
            break
        name, number = ready.plan.id, len(ready.attempts) + 1
        story.tell(AttemptStarted(name, number, "delay"))
        ways = [
            succeeded(name, number, output=msgspec.json.encode(draw(json_values)), usage=Usage(1, 2, 3, 5)),
            TaskFailed(name, attempt=number, failure=UNREACHABLE),
            TaskCancelled(name, attempt=number, reason="stopped"),
            AttemptFailed(name, attempt=number, failure=UNREACHABLE, retry_at=story.now),
        ]
        story.tell(draw(st.sampled_from(ways if number < 3 else ways[:3])))
        story.run.settle(now=story.now, max_lost=3)
    return plan, story.run


@given(ended_jobs())
@settings(max_examples=30)
def test_every_ended_job_has_a_sound_record_that_reads_back_as_it_was(job: tuple[Plan, JobRun]) -> None:
    plan, run = job
    record = record_of(plan, run)
    data = seal(record)
    assert verify(data) is Verdict.OK
    assert seal(parse(data)) == data
    assert list(record.task_results) == [task.id for task in plan.tasks]
    completed = sum(result.status is ResultStatus.COMPLETED for result in record.task_results.values())
    assert record.success_rate == completed / len(plan.tasks)
    assert (record.status is RecordStatus.SUCCESS) == (run.state is JobState.SUCCEEDED)
    nodes = {node.id for node in record.execution_graph.nodes}
    assert all({edge.source, edge.target} <= nodes for edge in record.execution_graph.edges)
    for result in record.task_results.values():
        assert result.start_time is not None
        assert result.end_time is not None
        assert record.start_time <= result.start_time <= result.end_time <= record.end_time
        assert all(attempt.outcome != "running" for attempt in result.attempts)


def example() -> bytes:
    done = succeeded("a", output=b'{"n": 1e16, "big": 123456789012345678901234567890, "text": "\xc3\xa7ay </script>"}')
    return seal(Story(plan_of(task("a"))).tell(AttemptStarted("a", 1, "delay"), done).end())


def leaves(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of the object's scalar values."""
    keys = content.items() if isinstance(content, dict) else enumerate(content)
    found: list[tuple[Any, Any]] = []
    for key, value in keys:
        found.extend(leaves(value) if isinstance(value, dict | list) else [(content, key)])
    return found


@given(st.data())
def test_whatever_is_changed_the_checksum_tells(data: st.DataObject) -> None:
    content = json.loads(example())
    container, key = data.draw(st.sampled_from(leaves(content)))
    container[key] = data.draw(json_values.filter(lambda value: json.dumps(value) != json.dumps(container[key])))
    if key != "checksum" or isinstance(container[key], str):
        assert verify(json.dumps(content).encode()) in (Verdict.MISMATCH, Verdict.NOT_A_RECORD)


def test_white_space_and_order_of_keys_do_not_matter() -> None:
    content = msgspec.json.decode(example())
    assert verify(msgspec.json.encode(dict(reversed(content.items())))) is Verdict.OK


def test_fields_of_a_later_version_are_covered_by_its_checksum() -> None:
    content = msgspec.json.decode(example())
    content["invented_later"] = {"b": [1, 2.5], "a": None}
    assert verify(msgspec.json.encode(content)) is Verdict.MISMATCH
    del content["checksum"]
    rest = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).replace("e+16", "e16")
    content["checksum"] = hashlib.sha256(rest.encode()).hexdigest()
    later = msgspec.json.encode(content)
    assert verify(later) is Verdict.OK
    assert parse(later).job_id == "job1"


def test_a_number_that_json_cannot_hold_becomes_null_and_not_a_broken_record() -> None:
    story = Story(plan_of(task("a"), metadata={"rate": float("nan")})).tell(
        AttemptStarted("a", 1, "delay"), succeeded("a")
    )
    data = seal(story.end())
    assert verify(data) is Verdict.OK
    assert parse(data).metadata["alt_rate"] is None


# ------------------------------------------------------------------------------------- the runner service's records


class OldResult(msgspec.Struct, kw_only=True):
    """The runner service's TaskResult, with the same fields required."""

    task_id: str
    execution_id: str
    status: ResultStatus
    start_time: datetime
    end_time: datetime | None = None
    duration_ms: int | None = None
    output: Any = None
    error: str | None = None
    metadata: dict[str, Any] | None = None


class OldArtifact(msgspec.Struct, kw_only=True):
    """The runner service's Artifact."""

    id: str
    name: str
    artifact_type: ArtifactType
    task_id: str
    path: str
    created_at: datetime
    size_bytes: int | None = None


class OldNode(msgspec.Struct, kw_only=True):
    """The runner service's ExecutionNode."""

    id: str
    task_id: str
    status: ResultStatus
    start_time: datetime


class OldGraph(msgspec.Struct, kw_only=True):
    """The runner service's ExecutionGraph."""

    nodes: list[OldNode]
    edges: list[GraphEdge]


class OldReader(msgspec.Struct, kw_only=True):
    """The runner service's LastFile, with the same fields required."""

    id: str
    execution_id: str
    alt_file_id: str
    title: str
    mode: Mode
    persona: str | None = None
    status: RecordStatus
    success_rate: float
    execution_time_ms: int
    start_time: datetime
    end_time: datetime
    task_results: dict[str, OldResult]
    artifacts: list[OldArtifact] | None = None
    metadata: dict[str, Any] | None = None
    tags: list[str] | None = None
    priority: str | None = None
    execution_graph: OldGraph | None = None
    summary: str | None = None
    version: str


@given(ended_jobs())
@settings(max_examples=15)
def test_the_runner_service_s_reader_can_read_ours(job: tuple[Plan, JobRun]) -> None:
    data = seal(record_of(*job))
    read = msgspec.json.decode(data, type=OldReader)
    assert set(read.task_results) == set(job[1].tasks)
    assert read.priority == "high"


def test_control_tasks_and_instances_say_how_they_belong_together() -> None:
    record = flows.recorded(flows.triage(), flows.tickets(3))
    told = {name: result.metadata for name, result in record.task_results.items()}
    assert told["fetch"] == {}
    assert told["each_ticket"] == {"control": "for_each", "variable": "ticket", "rounds": 3}
    of_round = {"body_of": "each_ticket", "body": "round", "round": 2, "value": {"id": "T-2", "severity": 3}}
    assert told["each_ticket[2]/rate"] == {"control": "function_call", "function": "score"} | of_round
    assert told["each_ticket[2]/urgent"] == {"control": "condition", "branch": "if"} | of_round
    assert told["each_ticket[2]/rate/weigh"] == {"body_of": "each_ticket[2]/rate", "body": "call"}
    assert told["each_ticket[2]/urgent/page"] == {"body_of": "each_ticket[2]/urgent", "body": "if"}
    assert told["each_ticket[2]/urgent/file"] == {
        "skipped": True,
        "body_of": "each_ticket[2]/urgent",
        "body": "else",
    }
    assert told["each_ticket[0]/urgent"]["branch"] == "else"
    assert (record.success_rate, record.summary) == (1.0, "All 15 tasks completed in 28 ms (3 skipped).")


def test_edges_lead_from_a_control_task_to_the_first_ones_of_its_bodies() -> None:
    record = flows.recorded(flows.triage(), flows.tickets(1))
    edges = {(edge.source, edge.target): edge.dependency_type for edge in record.execution_graph.edges}
    required, conditional = DependencyType.REQUIRED, DependencyType.CONDITIONAL
    assert edges == {
        ("fetch", "each_ticket"): required,
        ("each_ticket", "report"): required,
        ("each_ticket", "each_ticket[0]/rate"): conditional,
        ("each_ticket[0]/rate", "each_ticket[0]/rate/weigh"): conditional,
        ("each_ticket[0]/rate", "each_ticket[0]/urgent"): required,
        ("each_ticket[0]/urgent", "each_ticket[0]/urgent/page"): conditional,
        ("each_ticket[0]/urgent", "each_ticket[0]/urgent/file"): conditional,
    }
    nodes = {node.id for node in record.execution_graph.nodes}
    assert nodes == set(record.task_results) >= {name for edge in edges for name in edge}


def test_a_while_tells_its_rounds_and_what_did_not_begin_tells_none() -> None:
    told = flows.recorded(flows.counting(2), {}).task_results
    assert told["until"].metadata == {"control": "while", "variable": "round", "rounds": 2}
    assert told["until[1]/again"].metadata == {"body_of": "until", "body": "round", "round": 1}
    none = flows.recorded(flows.triage(), flows.tickets(1), fails=lambda name: name == "fetch").task_results
    assert none["each_ticket"].metadata == {"control": "for_each", "variable": "ticket", "rounds": 0}
    assert list(none) == ["fetch", "each_ticket", "report"]


def test_a_value_that_is_long_is_not_repeated_in_every_task() -> None:
    long = {"tickets": [{"id": "x" * 1_000, "severity": 1}]}
    assert "value" not in flows.recorded(flows.triage(), long).task_results["each_ticket[0]/rate"].metadata
