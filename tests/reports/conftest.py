"""A record with everything that a report must be able to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import pytest

from runner.core.events import (
    Artifact,
    AttemptFailed,
    AttemptParked,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    Failure,
    JobAccepted,
    JobStarted,
    JobState,
    TaskFailed,
    TaskSkipped,
    TaskTimedOut,
    Usage,
    WaitReason,
)
from runner.core.interpreter import JobRun
from runner.core.job import JobSummary
from runner.core.last import compose
from runner.core.plan import Plan, Priority, TaskPlan
from runner.core.record import LastRecord

#: 2026-03-02T06:00:00Z
START: Final = 1_772_431_200_000_000
HOSTILE: Final = "</pre><script>alert('x')</script><img src=http://127.0.0.1/x onerror=alert(1)>\x1b[2J\u202e"


def task(name: str, kind: str, description: str, *dependencies: str, **parameters: Any) -> TaskPlan:
    return TaskPlan(id=name, kind=kind, description=description, dependencies=dependencies, parameters=parameters)


PLAN: Final = Plan(
    alt_id="alt_0042",
    dialect="tasks",
    version="1.0",
    title="Haftalık özet: open tickets of the week",
    created_at=START,
    persona="technical_expert",
    tags=("digest", "haftalık"),
    metadata={"source": "manual"},
    tasks=(
        task("fetch_tickets", "http_request", "Fetch the open tickets"),
        task("fetch_calendar", "http_request", "Fetch this week's calendar"),
        task("fetch_metrics", "http_request", "Fetch the metrics of production"),
        task("triage", "ai_prompt", "Sort the tickets by urgency", "fetch_tickets"),
        task("summarise_urgent", "ai_prompt", "Summarise what is urgent", "triage"),
        task("summarise_rest", "ai_prompt", "Summarise the rest", "triage"),
        task("translate", "ai_prompt", "Özetleri Türkçeye çevir", "summarise_urgent", "summarise_rest"),
        task("plan_week", "ai_prompt", "Propose a plan for the week", "summarise_urgent", "fetch_calendar"),
        task("detect_anomalies", "ai_prompt", "Look for what is odd in the metrics", "fetch_metrics"),
        task("explain_anomalies", "ai_prompt", "Explain what is odd", "detect_anomalies"),
        task("draw_chart", "python", "Draw the metrics", "fetch_metrics"),
        task("escalate", "http_request", "Page someone, if it is bad", "triage"),
        task("assemble", "data_processing", "Put everything together", "translate", "plan_week", "fetch_tickets"),
        task("send", "http_request", "Send the digest", "assemble", "draw_chart"),
    ),
)

UNREACHABLE: Final = Failure("HTTP_STATUS", "the endpoint answered 503 Service Unavailable")
GARBAGE: Final = Failure("BAD_ANSWER", f"the answer is not JSON: {HOSTILE}")
TIMED_OUT: Final = Failure("TIMED_OUT", "no answer within 12 s")
CHART: Final = Artifact(
    id="art-1",
    name="metrics.png",
    artifact_type="image",
    task_id="draw_chart",
    mime_type="image/png",
    size_bytes=48_213,
    sha256="ab" * 32,
    created_at=START + 9_000_000,
)


def ask(tokens: int, text: str) -> dict[str, Any]:
    usage = Usage(calls=1, prompt_tokens=tokens, completion_tokens=tokens // 4, total_tokens=tokens + tokens // 4)
    return {"output": msgspec.json.encode({"text": text}), "usage": usage, "endpoint": "main", "model": "small-1"}


#: Milliseconds after the start, and what happened then.
TOLD: Final[tuple[tuple[int, Event], ...]] = (
    (4, AttemptStarted("fetch_tickets", 1, "http_request")),
    (5, AttemptStarted("fetch_calendar", 1, "http_request")),
    (6, AttemptStarted("fetch_metrics", 1, "http_request")),
    (420, AttemptSucceeded("fetch_calendar", attempt=1, output=b'{"status":200,"body":[{"day":"Pzt","n":3}]}')),
    (640, AttemptFailed("fetch_tickets", attempt=1, failure=UNREACHABLE, retry_at=START + 1_400_000)),
    (900, AttemptSucceeded("fetch_metrics", attempt=1, output=b'{"status":200,"body":{"p50":12.5,"p99":340}}')),
    (902, AttemptStarted("detect_anomalies", 1, "orchestrator")),
    (903, AttemptStarted("draw_chart", 1, "python")),
    (1_400, AttemptStarted("fetch_tickets", 2, "http_request")),
    (2_100, AttemptSucceeded("fetch_tickets", attempt=2, output=b'{"status":200,"body":["T-1","T-2"]}')),
    (2_110, AttemptStarted("triage", 1, "orchestrator")),
    (4_100, AttemptSucceeded("draw_chart", attempt=1, output=b'{"chart":"metrics.png"}', artifacts=(CHART,))),
    (5_300, AttemptSucceeded("triage", attempt=1, **ask(1_240, "T-1 is urgent; T-2 can wait."))),
    (5_301, TaskSkipped("escalate", "nothing is bad enough")),
    (5_310, AttemptStarted("summarise_urgent", 1, "orchestrator")),
    (5_312, AttemptStarted("summarise_rest", 1, "orchestrator")),
    (
        5_330,
        AttemptParked(
            "summarise_rest", attempt=1, reason=WaitReason.BREAKER_OPEN, until=START + 7_000_000, endpoint="main"
        ),
    ),
    (6_900, AttemptFailed("detect_anomalies", attempt=1, failure=GARBAGE, retry_at=START + 7_800_000)),
    (7_000, AttemptStarted("summarise_rest", 2, "orchestrator")),
    (7_800, AttemptStarted("detect_anomalies", 2, "orchestrator")),
    (9_900, AttemptSucceeded("summarise_urgent", attempt=1, **ask(860, "Acil olan tek şey T-1. " * 40))),
    (9_910, AttemptStarted("plan_week", 1, "orchestrator")),
    (10_400, AttemptSucceeded("summarise_rest", attempt=2, **ask(2_310, HOSTILE))),
    (10_410, AttemptStarted("translate", 1, "orchestrator")),
    (12_100, TaskFailed("detect_anomalies", attempt=2, failure=GARBAGE, endpoint="main", model="small-1")),
    (13_200, AttemptSucceeded("translate", attempt=1, **ask(1_900, "Bu hafta: çözülmesi gereken bir acil kayıt var."))),
    (21_910, TaskTimedOut("plan_week", attempt=1, failure=TIMED_OUT, endpoint="main", model="small-1")),
)


def summary_of(plan: Plan) -> JobSummary:
    return JobSummary(
        id="0198a7c2-7b1e-7c11-9f0a-1f6f4b2a7c11",
        alt_id=plan.alt_id,
        title=plan.title,
        state=JobState.RUNNING,
        priority=Priority.HIGH,
        queue="default",
        labels={"team": "blue"},
        request_id="",
        created_at=START - 812_000,
        started_at=START,
        ended_at=None,
        not_before=None,
        deadline=None,
        progress=0.0,
        last_sequence=0,
        error=None,
        cancel_requested=False,
        task_count=len(plan.tasks),
        descriptor_sha256="9f" * 32,
    )


def recorded(plan: Plan, told: tuple[tuple[int, Event], ...]) -> LastRecord:
    run = JobRun(plan)
    run.record(JobAccepted(plan.title, len(plan.tasks), "default", Priority.HIGH), time=START - 812_000)
    run.record(JobStarted("runner-7f", 1), time=START)
    now = START
    for milliseconds, event in told:
        now = START + milliseconds * 1_000
        run.record(event, time=now)
        run.settle(now=now, max_lost=3)
    return compose(
        summary_of(plan),
        plan,
        run,
        record_id="0198a7c2-aaaa-7c11-9f0a-1f6f4b2a7c11",
        execution_id="0198a7c2-bbbb-7c11-9f0a-1f6f4b2a7c11",
        runner_id="runner-7f",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )


def fan(count: int) -> LastRecord:
    """One task, `count` that wait for it, and one that waits for all of these."""
    leaves = [f"part_{number}" for number in range(count)]
    tasks = (
        task("split", "delay", "Split"),
        *(task(leaf, "delay", "One part", "split") for leaf in leaves),
        task("join", "delay", "Join", *leaves),
    )
    told: list[tuple[int, Event]] = []
    for order, name in enumerate(("split", *leaves, "join")):
        told.append((order * 10, AttemptStarted(name, 1, "delay")))
        told.append((order * 10 + 9, AttemptSucceeded(name, attempt=1, output=b"1")))
    return recorded(
        Plan(alt_id="fan", dialect="tasks", version="1.0", title="Fan", tasks=tasks, created_at=0), tuple(told)
    )


@pytest.fixture(scope="session")
def digest() -> LastRecord:
    """A digest that went half well: retries, a parked attempt, a time-out, a skipped task, Turkish, hostile output."""
    return recorded(PLAN, TOLD)


@pytest.fixture(scope="session")
def large() -> LastRecord:
    """More tasks than a page shows one by one."""
    return fan(1_200)


@pytest.fixture(scope="session")
def empty(digest: LastRecord) -> LastRecord:
    """What an old or odd runner may have left: no tasks, no graph, nothing of ours."""
    changes: Mapping[str, Any] = {"task_results": {}, "artifacts": (), "usage": None, "queue_time_ms": None}
    bare = msgspec.structs.replace(digest, **changes)
    return msgspec.structs.replace(bare, execution_graph=type(digest.execution_graph)(), summary=None, job_id="")
