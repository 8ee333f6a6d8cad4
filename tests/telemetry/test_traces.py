"""Spans: from the submitter's trace context through job, task and attempt to a collector."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from runner.core.events import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    Failure,
    JobAccepted,
    JobReleased,
    JobStarted,
    JobSucceeded,
    TaskFailed,
    Usage,
    UsageAt,
)
from runner.core.plan import Priority
from runner.core.secret import Secret
from runner.telemetry.masking import Masking
from runner.telemetry.settings import TraceSettings
from runner.telemetry.timeline import Timeline
from runner.telemetry.traces import Traces, parse_traceparent

SUBMITTED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SUBMITTED[:-2] + "00"
ACCEPTED = JobAccepted("Weekly digest", 2, "default", Priority.HIGH)
Make = Any


class Collector:
    """A real OTLP/HTTP receiver on 127.0.0.1 that keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], ExportTraceServiceRequest]] = []
        kept = self.requests

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                kept.append((self.path, dict(self.headers), ExportTraceServiceRequest.FromString(body)))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def spans(self) -> dict[str, Span]:
        return {
            span.name: span
            for _, _, request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    collector.thread.start()
    yield collector
    collector.server.shutdown()
    collector.thread.join()
    collector.server.server_close()


def attributes(span: Span) -> dict[str, Any]:
    values = {}
    for pair in span.attributes:
        values[pair.key] = getattr(pair.value, str(pair.value.WhichOneof("value")))
    return values


async def test_spans_arrive_at_a_collector_under_the_submitters_span(
    collector: Collector, summary: Make, history: Make
) -> None:
    settings = TraceSettings(otlp_endpoint=collector.address, headers={"x-tenant": Secret("team")})
    traces, timeline = Traces(settings, runner_id="runner-1"), Timeline()
    usage = Usage(2, 5, 7, 15, (UsageAt("spare", "small", 1, total_tokens=3),))
    done = AttemptSucceeded("fetch", attempt=2, usage=usage, endpoint="main", model="small")
    story = history(
        ACCEPTED,
        JobStarted("runner-1", 1),
        AttemptStarted("fetch", 1, "orchestrator"),
        AttemptFailed("fetch", attempt=1, failure=Failure("HTTP_STATUS", "it said 503"), retry_at=0),
        AttemptStarted("fetch", 2, "orchestrator"),
        done,
        JobSucceeded(),
    )
    outgoing = ""
    for recorded in story:
        if recorded.event == done:
            outgoing = traces.attempt_context(timeline.run(summary()), "fetch", 2)
        for stretch in timeline.follow(summary(), [recorded], traceparent=SUBMITTED):
            traces.ended(stretch)
    await traces.aclose()

    path, headers, request = collector.requests[0]
    assert path == "/v1/traces"
    assert headers["x-tenant"] == "team"
    told = {pair.key: pair.value.string_value for pair in request.resource_spans[0].resource.attributes}
    assert told["service.name"] == "alt-runner"
    assert told["service.instance.id"] == "runner-1"

    spans = collector.spans
    job, task, attempt = spans["job"], spans["task fetch"], spans["attempt orchestrator"]
    assert {span.trace_id.hex() for span in spans.values()} == {"0af7651916cd43dd8448eb211c80319c"}
    assert job.parent_span_id.hex() == "b7ad6b7169203331"
    assert task.parent_span_id == job.span_id
    assert attempt.parent_span_id == task.span_id
    assert outgoing == f"00-{attempt.trace_id.hex()}-{attempt.span_id.hex()}-01"
    assert job.start_time_unix_nano == story[0].time * 1000
    assert job.end_time_unix_nano == story[-1].time * 1000
    assert attempt.start_time_unix_nano == story[4].time * 1000
    assert attributes(attempt)["gen_ai.usage.output_tokens"] == 7
    assert attributes(attempt)["alt_runner.elsewhere.calls"] == 1
    assert attributes(attempt)["alt_runner.elsewhere.tokens"] == 3
    assert attributes(job)["alt_runner.job.state"] == "succeeded"
    assert not job.links
    [failed] = [
        span
        for _, _, sent in collector.requests
        for span in sent.resource_spans[0].scope_spans[0].spans
        if span.status.code == Status.STATUS_CODE_ERROR
    ]
    assert failed.status.message == "HTTP_STATUS: it said 503"


async def test_a_job_without_a_trace_gets_one_of_its_own(ear: Make, summary: Make, history: Make) -> None:
    ear.telemetry.committed(summary(), history(ACCEPTED, JobStarted("runner-1", 1), JobSucceeded()))
    [job] = await ear.spans()
    assert job.parent is None
    assert job.context.trace_id != 0


async def test_a_daemon_that_takes_over_continues_the_trace_and_links_to_the_run_before(
    ear: Make, summary: Make, history: Make
) -> None:
    """Two timelines that share nothing stand for two daemons; the first was killed."""
    first, second = Timeline(), Timeline()
    begun = history(ACCEPTED, JobStarted("runner-1", 1), AttemptStarted("fetch", 1, "delay"))
    assert not list(first.follow(summary(), begun, traceparent=SUBMITTED))
    before = ear.traces.attempt_context(first.run(summary()), "fetch", 1)
    rest = history(JobStarted("runner-2", 2), AttemptStarted("fetch", 1, "delay"), JobSucceeded(), first=4)
    after = ""
    for recorded in rest:
        for stretch in second.follow(summary(), [recorded], traceparent=SUBMITTED):
            ear.traces.ended(stretch)
        after = after or ear.traces.attempt_context(second.run(summary()), "fetch", 1)
    [job] = await ear.spans()
    assert job.attributes["alt_runner.job.resumed"] is True
    assert job.start_time == rest[0].time * 1000
    assert f"{job.context.trace_id:032x}" == SUBMITTED[3:35]
    [link] = job.links
    assert link.context.trace_id == job.context.trace_id
    assert link.context.span_id != job.context.span_id
    assert before[:35] == after[:35]
    assert before != after


async def test_what_was_under_way_when_a_job_is_given_back_ends_as_lost(
    ear: Make, summary: Make, history: Make
) -> None:
    story = [ACCEPTED, JobStarted("runner-1", 1), AttemptStarted("fetch", 1, "delay"), JobReleased("runner-1", "drain")]
    ear.telemetry.committed(summary(), history(*story))
    spans = {span.name: span for span in await ear.spans()}
    assert spans["attempt delay"].status.status_code is StatusCode.ERROR
    assert spans["attempt delay"].attributes["alt_runner.outcome"] == "lost"
    assert spans["job"].attributes["alt_runner.job.state"] == "released"


async def test_the_submitters_context_may_come_as_late_as_the_first_attempt(
    ear: Make, summary: Make, history: Make, task: Make
) -> None:
    story = history(ACCEPTED, JobStarted("runner-1", 1), JobSucceeded())
    ear.telemetry.committed(summary(), story[:2])
    with ear.telemetry.attempt(summary(), task, 1, traceparent=SUBMITTED) as context:
        assert context.startswith(SUBMITTED[:36])
    ear.telemetry.committed(summary(), story[2:])
    [job] = await ear.spans()
    assert f"{job.parent.span_id:016x}" == SUBMITTED[36:52]


async def test_the_submitter_decides_whether_its_trace_is_sampled(ear: Make, summary: Make, history: Make) -> None:
    story = history(ACCEPTED, JobStarted("runner-1", 1), JobSucceeded())
    ear.telemetry.committed(summary(), story, traceparent=UNSAMPLED)
    assert await ear.spans() == []


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.3, 200, 400), (1.0, 1000, 1000)])
def test_a_share_of_the_other_jobs_is_sampled_and_every_daemon_agrees_on_which(
    summary: Make, ratio: float, least: int, most: int
) -> None:
    one, other = (Traces(TraceSettings(sample_ratio=ratio), exporter=Deaf()) for _ in range(2))
    runs = [Timeline().run(summary(id=f"job-{number}")) for number in range(1000)]
    contexts = [one.attempt_context(run, "fetch", 1) for run in runs]
    assert least <= sum(context.endswith("-01") for context in contexts) <= most
    assert contexts == [other.attempt_context(run, "fetch", 1) for run in runs]
    for traces in (one, other):
        anyio.run(traces.aclose)


def test_without_a_collector_the_submitters_context_is_passed_on_as_it_came(summary: Make) -> None:
    """A span of ours that is never exported would be a missing parent in the submitter's trace."""
    traces = Traces(TraceSettings())
    assert not traces.exporting
    assert traces.attempt_context(Timeline().run(summary(), traceparent=SUBMITTED), "fetch", 1) == SUBMITTED
    assert traces.attempt_context(Timeline().run(summary(), traceparent="nonsense"), "fetch", 1) == ""
    assert traces.attempt_context(Timeline().run(summary()), "fetch", 1) == ""


async def test_no_secret_reaches_a_span(ear: Make, summary: Make, history: Make) -> None:
    kept = ear.kept
    traces = Traces(TraceSettings(), masking=Masking({"k": "hush-hush"}), exporter=kept)
    failed = TaskFailed("fetch", attempt=1, failure=Failure("HTTP_STATUS", "hush-hush at http://me:pass@host"))
    told = AttemptSucceeded("ask", attempt=1, model="hush-hush", endpoint="hush-hush")
    asked = (AttemptStarted("ask", 1, "hush-hush"), told)
    story = history(ACCEPTED, JobStarted("runner-1", 1), *asked, AttemptStarted("fetch", 1, "delay"), failed)
    for stretch in Timeline().follow(summary(), story):
        traces.ended(stretch)
    await traces.aclose()
    text = "".join(span.to_json() for span in kept.spans)
    assert len(kept.spans) == 4
    assert "hush-hush" not in text
    assert "pass@" not in text


class Deaf(SpanExporter):
    """Hangs until it is shut down, as a collector that does not answer."""

    def __init__(self) -> None:
        self.freed = threading.Event()

    def export(self, _spans: Any) -> SpanExportResult:
        self.freed.wait()
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.freed.set()


async def test_a_collector_that_hangs_does_not_hold_the_shutdown(summary: Make, history: Make) -> None:
    exporter = Deaf()
    traces = Traces(TraceSettings(), exporter=exporter)
    for stretch in Timeline().follow(summary(), history(ACCEPTED, JobStarted("runner-1", 1), JobSucceeded())):
        traces.ended(stretch)
    with anyio.fail_after(5):
        await traces.aclose(timeout=0.05)
    assert exporter.freed.is_set()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
    ],
)
def test_a_trace_context_that_is_not_valid_is_ignored(header: str) -> None:
    assert parse_traceparent(header) is None


def test_a_later_version_of_the_trace_context_is_understood() -> None:
    parent = parse_traceparent("01" + SUBMITTED[2:] + "-more")
    assert parent is not None
    assert parent.sampled


def test_a_timeline_never_follows_more_jobs_than_it_may(summary: Make, history: Make) -> None:
    timeline = Timeline(max_runs=3)
    for number in range(10):
        list(timeline.follow(summary(id=f"job-{number}"), history(ACCEPTED, JobStarted("runner-1", 1))))
    assert len(timeline) == 3
