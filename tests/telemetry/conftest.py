"""A job, its events, and a telemetry that writes where a test can read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anyio
import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from runner.core.events import Event, JobState, Recorded
from runner.core.job import JobSummary
from runner.core.plan import Priority, TaskPlan
from runner.telemetry.logs import Logs
from runner.telemetry.masking import Masking
from runner.telemetry.metrics import Metrics
from runner.telemetry.observer import Telemetry
from runner.telemetry.settings import LogFormat, LogLevel, LogSettings, MetricsSettings, TraceSettings
from runner.telemetry.timeline import Timeline
from runner.telemetry.traces import Traces

SECOND = 1_000_000
#: When the job of the tests was accepted.
START = 1_760_000_000 * SECOND


def make_summary(**changes: Any) -> JobSummary:
    job = JobSummary(
        id="job-1",
        alt_id="alt-1",
        title="Weekly digest",
        state=JobState.RUNNING,
        priority=Priority.HIGH,
        queue="default",
        labels={},
        request_id="r",
        created_at=START,
        started_at=None,
        ended_at=None,
        not_before=None,
        deadline=None,
        progress=0.0,
        last_sequence=1,
        error=None,
        cancel_requested=False,
        task_count=2,
        descriptor_sha256="",
    )
    return msgspec.structs.replace(job, **changes)


def make_history(*events: Event, first: int = 1) -> list[Recorded]:
    """The events, one a second from the job's acceptance."""
    return [Recorded(first + place, START + (first + place - 1) * SECOND, event) for place, event in enumerate(events)]


class Kept(SpanExporter):
    """Keeps spans in a list."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


class Ear:
    """A whole telemetry, and what came out of it."""

    def __init__(self, level: LogLevel = LogLevel.DEBUG) -> None:
        self.stream = io.StringIO()
        self.kept = Kept()
        self.metrics = Metrics(MetricsSettings(max_label_values=3))
        self.timeline = Timeline()
        self.logs = Logs(LogSettings(level=level, format=LogFormat.JSON), Masking({"k": "hush-hush"}), self.stream)
        self.traces = Traces(TraceSettings(), exporter=self.kept)
        self.telemetry = Telemetry(self.logs, self.metrics, self.traces, timeline=self.timeline)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    async def spans(self) -> list[ReadableSpan]:
        await self.traces.aclose()
        return self.kept.spans


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    yield ear
    anyio.run(ear.traces.aclose)


@pytest.fixture
def summary() -> Callable[..., JobSummary]:
    return make_summary


@pytest.fixture
def history() -> Callable[..., list[Recorded]]:
    return make_history


@pytest.fixture
def task() -> TaskPlan:
    return TaskPlan(id="fetch", description="Fetch it", kind="http_request")
