"""OpenTelemetry spans: the job under the submitter's span, tasks under the job, attempts under their task.

Tasks in the bodies of a control task stand under that.

Spans are made from committed events when something ends, with the events' times, so a span never tells of what a crash
took back. Their ids are hashes of what they stand for (job, fencing token, task, attempt). So an attempt's trace
context is known before its span is, a daemon that takes a job over continues its trace and links to the run before,
and nothing has to be kept or stored for it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import msgspec
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from runner import __version__
from runner.core.events import Failure, JobState, TaskState, Usage
from runner.core.plan import TaskId
from runner.core.record import tokens_of
from runner.core.usage import by_place
from runner.telemetry.masking import Masking
from runner.telemetry.settings import TraceSettings
from runner.telemetry.timeline import LOST, AttemptStretch, Run, RunStretch, Stretch, TaskStretch

#: W3C Trace Context, section 3.2: version, trace id, parent id, flags. Later versions may append fields.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)

_SCOPE: Final = InstrumentationScope("alt_runner", __version__)
_BATCH: Final = 512
_DELAY_MILLISECONDS: Final = 1000.0

Attribute = str | bool | int | float
Attributes = Mapping[str, Attribute]


class Parent(msgspec.Struct, frozen=True):
    """What a `traceparent` says."""

    trace_id: int
    span_id: int
    sampled: bool


def parse_traceparent(header: str) -> Parent | None:
    """The submitter's trace context, or None if the header is empty or not valid."""
    match = _TRACEPARENT.fullmatch(header.strip().lower()) if header else None
    if match is None:
        return None
    trace_id, span_id, flags, _ = match.groups()
    return Parent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & 1))


class Traces:
    """Makes spans and hands them to an exporter in a thread of its own. Without an exporter it only passes ids on."""

    def __init__(
        self,
        settings: TraceSettings,
        *,
        runner_id: str = "",
        masking: Masking | None = None,
        exporter: SpanExporter | None = None,
    ) -> None:
        self._ratio = settings.sample_ratio
        self._max_job_spans = settings.max_job_spans
        self._masking = masking or Masking()
        self._resource = Resource.create(
            {
                "service.name": settings.service_name,
                "service.version": __version__,
                **({"service.instance.id": runner_id} if runner_id else {}),
            }
        )
        self._exporter = _otlp(settings) if exporter is None else exporter
        self._processor = None if self._exporter is None else _batching(self._exporter, settings.max_queued_spans)

    @property
    def exporting(self) -> bool:
        return self._processor is not None

    async def aclose(self, *, timeout: float = 5.0) -> None:  # noqa: ASYNC109  the way out is an export cut short
        """Export what is left, at most for `timeout` seconds."""
        if self._processor is None or self._exporter is None:
            return
        with anyio.move_on_after(timeout, shield=True) as scope:
            await anyio.to_thread.run_sync(self._processor.shutdown, abandon_on_cancel=True)
        if scope.cancelled_caught:
            # Wakes the thread from its pause between two tries; it would keep the process for half a minute.
            self._exporter.shutdown()

    def trace_id(self, run: Run) -> str:
        """32 hexadecimal digits, or empty where the job belongs to no trace."""
        parent = parse_traceparent(run.traceparent)
        if parent is None and not self.exporting:
            return ""
        return f"{_trace_id(run, parent):032x}"

    def attempt_context(self, run: Run, task_id: TaskId, attempt: int) -> str:
        """The `traceparent` that an attempt sends along. Without an exporter it is the submitter's own."""
        if not self.exporting:
            return run.traceparent if parse_traceparent(run.traceparent) else ""
        context = self._context(run, task_id, str(attempt))
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def ended(self, stretch: Stretch) -> None:
        """Export the span of something that ended, if its trace is sampled and the job has not had too many."""
        if self._processor is None or self._too_many(stretch):
            return
        match stretch:
            case AttemptStretch():
                span = self._attempt_span(stretch)
            case TaskStretch():
                span = self._task_span(stretch)
            case RunStretch():
                span = self._run_span(stretch)
        self._processor.on_end(span)

    def _too_many(self, stretch: Stretch) -> bool:
        if isinstance(stretch, RunStretch) or stretch.number <= self._max_job_spans:
            return False
        # A loop ends after what it ran, and those spans name it as their parent.
        return not (isinstance(stretch, TaskStretch) and stretch.control and not stretch.parent)

    def _context(self, run: Run, *place: str) -> SpanContext:
        parent = parse_traceparent(run.traceparent)
        trace_id = _trace_id(run, parent)
        # As TraceIdRatioBased does: every daemon decides the same for the same trace.
        sampled = parent.sampled if parent else (trace_id & (2**64 - 1)) < round(self._ratio * 2**64)
        flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        return SpanContext(trace_id, _span_id(run.job.id, run.lease_token, *place), is_remote=False, trace_flags=flags)

    def _attempt_span(self, stretch: AttemptStretch) -> ReadableSpan:
        run, task = stretch.run, stretch.task_id
        attributes: dict[str, str | bool | int | float] = {
            "alt_runner.job.id": run.job.id,
            "alt_runner.task.id": task,
            "alt_runner.attempt": stretch.attempt,
            "alt_runner.handler": stretch.handler,
            "alt_runner.outcome": stretch.outcome,
        }
        if stretch.endpoint:
            attributes["alt_runner.endpoint"] = stretch.endpoint
        if stretch.model:
            attributes["gen_ai.response.model"] = stretch.model
        if stretch.fallback is not None:
            attributes["alt_runner.fallback"] = stretch.fallback.kind.name.lower()
        if stretch.usage is not None:
            attributes |= _used(stretch.usage, stretch.endpoint, stretch.model)
        return self._span(
            f"attempt {stretch.handler}",
            stretch,
            context=self._context(run, task, str(stretch.attempt)),
            parent=self._context(run, task),
            attributes=attributes,
            status=self._status(stretch.failure, failed=stretch.outcome in {"failed", "timed_out", LOST}),
        )

    def _task_span(self, stretch: TaskStretch) -> ReadableSpan:
        state = stretch.state.name.lower() if stretch.state.terminal else LOST
        return self._span(
            f"task {stretch.task_id}",
            stretch,
            context=self._context(stretch.run, stretch.task_id),
            parent=self._context(stretch.run, *([stretch.parent] if stretch.parent else [])),
            attributes={
                "alt_runner.job.id": stretch.run.job.id,
                "alt_runner.task.id": stretch.task_id,
                "alt_runner.task.state": state,
            },
            status=self._status(stretch.failure, failed=stretch.state in {TaskState.FAILED, TaskState.TIMED_OUT}),
        )

    def _run_span(self, stretch: RunStretch) -> ReadableSpan:
        run, job = stretch.run, stretch.run.job
        context, parent = self._context(run), parse_traceparent(run.traceparent)
        links = []
        if run.resumed and run.lease_token > 1:
            before = msgspec.structs.replace(run, lease_token=run.lease_token - 1)
            links = [Link(self._context(before), {"alt_runner.link": "the run before"})]
        return self._span(
            "job",
            stretch,
            context=context,
            parent=SpanContext(parent.trace_id, parent.span_id, is_remote=True) if parent else None,
            attributes={
                "alt_runner.job.id": job.id,
                "alt_runner.job.alt_id": job.alt_id,
                "alt_runner.job.queue": job.queue,
                "alt_runner.job.priority": job.priority.name.lower(),
                "alt_runner.job.tasks": job.task_count,
                "alt_runner.job.state": stretch.state.name.lower() if stretch.state else "released",
                "alt_runner.job.resumed": run.resumed,
                "alt_runner.job.run": run.lease_token,
                "alt_runner.job.spans_left_out": max(0, stretch.stretches - self._max_job_spans),
            },
            status=self._status(stretch.failure, failed=stretch.state is JobState.FAILED),
            kind=SpanKind.CONSUMER,
            links=links,
        )

    def _status(self, failure: Failure | None, *, failed: bool) -> Status:
        if not failed:
            return Status(StatusCode.UNSET)
        text = f"{failure.reason}: {failure.message}" if failure else LOST
        return Status(StatusCode.ERROR, self._masking.text(text))

    def _shown(self, value: Attribute) -> Attribute:
        return self._masking.text(value) if isinstance(value, str) else value

    def _span(
        self,
        name: str,
        stretch: Stretch,
        *,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Attributes,
        status: Status,
        kind: SpanKind = SpanKind.INTERNAL,
        links: list[Link] | None = None,
    ) -> ReadableSpan:
        began = stretch.run.began if isinstance(stretch, RunStretch) else stretch.began
        return ReadableSpan(
            name=self._masking.text(name),
            context=context,
            parent=parent,
            resource=self._resource,
            attributes={key: self._shown(value) for key, value in attributes.items()},
            links=links or (),
            kind=kind,
            status=status,
            start_time=began * 1000,
            end_time=max(began, stretch.ended) * 1000,
            instrumentation_scope=_SCOPE,
        )


def _otlp(settings: TraceSettings) -> SpanExporter | None:
    if not settings.otlp_endpoint:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    address = settings.otlp_endpoint.rstrip("/")
    path = urlsplit(address).path
    return OTLPSpanExporter(
        endpoint=address if path else f"{address}/v1/traces",
        headers={name: value.reveal() for name, value in settings.headers.items()},
        timeout=settings.timeout_seconds,
    )


def _batching(exporter: SpanExporter, bound: int) -> BatchSpanProcessor:
    return BatchSpanProcessor(
        exporter,
        max_queue_size=bound,
        schedule_delay_millis=_DELAY_MILLISECONDS,
        max_export_batch_size=min(_BATCH, bound),
    )


def _used(usage: Usage, endpoint: str, model: str) -> dict[str, str | bool | int | float]:
    """The tokens of the model that the span names, and what was consumed beside it."""
    places = by_place(usage, endpoint, model)
    own = places.pop((endpoint, model), None)
    told: dict[str, str | bool | int | float] = {}
    if own is not None:
        told["gen_ai.usage.input_tokens"] = own.prompt_tokens
        told["gen_ai.usage.output_tokens"] = own.completion_tokens
    if places:
        told["alt_runner.elsewhere.calls"] = sum(part.calls for part in places.values())
        told["alt_runner.elsewhere.tokens"] = sum(map(tokens_of, places.values()))
    return told


def _trace_id(run: Run, parent: Parent | None) -> int:
    return parent.trace_id if parent else _hashed(16, run.job.id)


def _span_id(*place: str | int) -> int:
    return _hashed(8, *place)


def _hashed(size: int, *place: str | int) -> int:
    text = "\x00".join(map(str, place)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=size).digest()) or 1
