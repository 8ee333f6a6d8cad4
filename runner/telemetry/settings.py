"""What an operator may set about logs, metrics and traces."""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta, Struct

from runner.core.secret import Secret


class LogLevel(enum.StrEnum):
    """How much is told. Read in any case; `warn` is `warning`."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @classmethod
    def _missing_(cls, value: object) -> LogLevel | None:
        word = str(value).lower()
        return cls.WARNING if word == "warn" else cls._value2member_map_.get(word)  # type: ignore[return-value]


class LogFormat(enum.StrEnum):
    """How a log line looks."""

    #: `text` on a terminal, `json` otherwise.
    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogSettings(Struct, frozen=True, kw_only=True):
    """Logs, on standard error."""

    #: The least level that is written.
    level: LogLevel = LogLevel.INFO
    #: `text` is coloured, for people; `auto` is text on a terminal and json elsewhere.
    format: LogFormat = LogFormat.AUTO


class MetricsSettings(Struct, frozen=True, kw_only=True):
    """Prometheus metrics."""

    #: Distinct values of one label (queue, handler, endpoint, model); later ones are counted as `other`.
    max_label_values: Annotated[int, Meta(ge=1)] = 50
    #: Labels of jobs by whose values AI calls and tokens are counted: `["team"]`.
    usage_labels: tuple[str, ...] = ()
    #: Seconds between two measurements of the event loop's lag and of the queues' depths.
    sample_seconds: Annotated[float, Meta(gt=0)] = 1.0


class TraceSettings(Struct, frozen=True, kw_only=True):
    """OpenTelemetry traces."""

    #: Where spans go: an OTLP/HTTP collector such as `http://127.0.0.1:4318`; empty: nowhere.
    otlp_endpoint: str = ""
    #: Headers for the collector, such as an authorisation.
    headers: dict[str, Secret] = {}
    #: `service.name` of the spans.
    service_name: str = "alt-runner"
    #: Share of the jobs without a `traceparent` that are traced, 0–1; a `traceparent` brings its own decision.
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    #: Seconds for one export; then its spans are dropped.
    timeout_seconds: Annotated[float, Meta(gt=0)] = 10.0
    #: Finished spans that may wait for export; beyond that they are dropped.
    max_queued_spans: Annotated[int, Meta(ge=1)] = 2048
    #: Spans of one run of a job. Beyond that only the job itself and the file's own control tasks have one.
    max_job_spans: Annotated[int, Meta(ge=1)] = 10_000
