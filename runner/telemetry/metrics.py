"""Prometheus metrics of one daemon, in a registry of its own. Every label has a bounded number of values."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from runner import __version__
from runner.core.alt.dialect import JOB
from runner.core.breaker import BreakerState
from runner.core.events import AttemptStarted, JobAccepted, JobStarted, JobState, Recorded, TaskState, Usage
from runner.core.fleet import BreakerView, EndpointHealth, EndpointView
from runner.core.job import JobSummary, Share
from runner.core.plan import Instant
from runner.core.usage import by_place
from runner.telemetry.masking import Masking
from runner.telemetry.settings import MetricsSettings
from runner.telemetry.timeline import AttemptStretch, RunStretch, Stretch, TaskStretch

#: Stands for all values of a label beyond `metrics.max_label_values`.
OTHER: Final = "other"

_STATES: Final = {state: state.name.lower() for state in JobState}
_TASK_STATES: Final = {state: state.name.lower() for state in TaskState}
_MICROSECONDS: Final = 1_000_000
_WAIT_BUCKETS: Final = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)
_WORK_BUCKETS: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_COMMIT_BUCKETS: Final = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_SIZE_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Label:
    """The values of one label: the first `limit` that come, masked, and `other` for all that come later."""

    def __init__(self, limit: int, masking: Masking) -> None:
        self._limit = limit
        self._masking = masking
        self._seen: dict[str, str] = {}

    def __call__(self, value: str) -> str:
        shown = self._seen.get(value)
        if shown is None:
            if len(self._seen) >= self._limit:
                return OTHER
            shown = self._seen[value] = self._masking.text(value)
        return shown


Metric = TypeVar("Metric", Counter, Gauge, Histogram)


class Series(dict[tuple[str, ...], Metric]):
    """The series of a metric by the values of its labels. `labels()` checks and locks each time; this is a look-up."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric: Metric = metric

    def __missing__(self, values: tuple[str, ...]) -> Metric:
        series: Metric = self.metric.labels(*values)
        self[values] = series
        return series


class Metrics:
    """What the daemon counts and measures. Names start with `alt_runner_`, in base units."""

    def __init__(self, settings: MetricsSettings | None = None, *, masking: Masking | None = None) -> None:
        settings = settings or MetricsSettings()
        self.registry: Final = CollectorRegistry(auto_describe=True)
        label = partial(Label, settings.max_label_values, masking or Masking())
        self._queue, self._handler = label(), label()
        self._group, self._endpoint, self._model, self._notice = label(), label(), label(), label()
        #: Of the settings, so there are as many as somebody wrote.
        self._budget = Label(sys.maxsize, masking or Masking())
        #: The values of each label of jobs by which usage is counted.
        self._values: Final = {key: label() for key in settings.usage_labels}
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Info("alt_runner_build", "Version of the daemon and of Python.", registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version()})
        self._declare_jobs()
        self._declare_attempts()
        self._declare_models()
        self._declare_usage()
        self._declare_endpoints()
        self._declare_ledger()
        self._declare_daemon()

    def _declare_jobs(self) -> None:
        registry = self.registry
        self._jobs = Gauge("alt_runner_jobs", "Jobs in the ledger.", ["queue", "state"], registry=registry)
        self._set_aside = Gauge(
            "alt_runner_jobs_set_aside",
            "Jobs that this version cannot read: they wait for another, or to be cancelled.",
            registry=registry,
        )
        self._oldest = Gauge(
            "alt_runner_queue_oldest_seconds", "Age of the longest-waiting job.", ["queue"], registry=registry
        )
        self._accepted = Series(
            Counter("alt_runner_jobs_accepted", "Jobs accepted here.", ["queue"], registry=registry)
        )
        self._ended = Series(
            Counter("alt_runner_jobs_ended", "Jobs that ended here.", ["queue", "state"], registry=registry)
        )
        self._released = Counter(
            "alt_runner_jobs_released", "Runs that ended without the job: given back or lost.", registry=registry
        )
        self._wait = Series(
            Histogram(
                "alt_runner_queue_wait_seconds",
                "Time from a job's acceptance, or from its not_before, to its first start.",
                ["queue"],
                buckets=_WAIT_BUCKETS,
                registry=registry,
            )
        )
        self._job_seconds = Series(
            Histogram(
                "alt_runner_job_duration_seconds",
                "Time from acceptance to the terminal event.",
                ["state"],
                buckets=_WORK_BUCKETS,
                registry=registry,
            )
        )

    def _declare_attempts(self) -> None:
        registry = self.registry
        self._tasks = Series(Counter("alt_runner_tasks_ended", "Tasks that ended here.", ["state"], registry=registry))
        self._running = Series(
            Gauge("alt_runner_attempts_running", "Attempts under way.", ["handler"], registry=registry)
        )
        self._attempts = Series(
            Counter("alt_runner_attempts", "Attempts that ended.", ["handler", "outcome"], registry=registry)
        )
        self._attempt_seconds = Series(
            Histogram(
                "alt_runner_attempt_duration_seconds",
                "Duration of attempts.",
                ["handler", "outcome"],
                buckets=_WORK_BUCKETS,
                registry=registry,
            )
        )

    def _declare_models(self) -> None:
        registry = self.registry
        self._model_attempts = Series(
            Histogram(
                "alt_runner_model_attempt_duration_seconds",
                "Duration of attempts at an AI endpoint, without those that were parked.",
                ["endpoint", "outcome"],
                buckets=_WORK_BUCKETS,
                registry=registry,
            )
        )
        self._parked = Counter(
            "alt_runner_attempts_parked",
            "Attempts that could not begin their call: breaker_open, rate_limited, out_of_service, ….",
            ["endpoint", "reason"],
            registry=registry,
        )
        self._fallbacks = Counter(
            "alt_runner_fallbacks",
            "Tasks for which something stood in for this endpoint, by kind: endpoint, cached or value.",
            ["endpoint", "kind"],
            registry=registry,
        )

    def _declare_usage(self) -> None:
        registry = self.registry
        self._calls = Series(
            Counter("alt_runner_model_calls", "Calls to AI models.", ["endpoint", "model"], registry=registry)
        )
        self._tokens = Series(
            Counter(
                "alt_runner_model_tokens",
                "Tokens that AI models counted, by kind: prompt, completion, or unknown where only their sum was told.",
                ["endpoint", "model", "kind"],
                registry=registry,
            )
        )
        self._label_calls = Series(
            Counter(
                "alt_runner_label_calls",
                "Calls to AI models for jobs with a label of metrics.usage_labels.",
                ["label", "value"],
                registry=registry,
            )
        )
        self._label_tokens = Series(
            Counter(
                "alt_runner_label_tokens",
                "Tokens of those calls, by kind.",
                ["label", "value", "kind"],
                registry=registry,
            )
        )
        self._budgets = Gauge(
            "alt_runner_budget_tokens",
            "Tokens of a label's budget in its current period, by kind: limit or used.",
            ["budget", "kind"],
            registry=registry,
        )

    def _declare_endpoints(self) -> None:
        registry = self.registry
        self._breaker = Gauge(
            "alt_runner_breaker_state",
            "1 for the state the circuit breaker is in.",
            ["endpoint", "model", "state"],
            registry=registry,
        )
        self._transitions = Counter(
            "alt_runner_breaker_transitions",
            "Changes of a circuit breaker's state.",
            ["endpoint", "model", "state"],
            registry=registry,
        )
        gauge = partial(Gauge, labelnames=["group", "endpoint"], registry=registry)
        self._endpoints = {
            "unhealthy": gauge("alt_runner_endpoint_unhealthy", "1 if its health checks fail."),
            "draining": gauge("alt_runner_endpoint_draining", "1 if it gets no new calls."),
            "calls": gauge("alt_runner_endpoint_calls", "Calls under way."),
            "max_calls": gauge("alt_runner_endpoint_max_calls", "Calls that may be under way."),
            "waiting": gauge("alt_runner_endpoint_waiting_tasks", "Tasks that wait for it."),
            "weight": gauge("alt_runner_endpoint_weight", "Its weight, less while it is warmed up."),
        }
        counter = partial(Counter, labelnames=["group", "endpoint"], registry=registry)
        self._hedges = counter("alt_runner_endpoint_hedges", "Second calls for one that took long elsewhere.")
        self._held_back = counter(
            "alt_runner_endpoint_retries_held_back", "Repetitions, hedges among them, that its retry budget held back."
        )
        self._unreached = counter("alt_runner_endpoint_unreached", "Tries to call it that never reached it.")
        #: By endpoint, what its hedges, repetitions held back and tries that never reached it were the last time.
        self._counted: dict[str, tuple[int, int, int]] = {}

    def _declare_ledger(self) -> None:
        self._commit_seconds = Histogram(
            "alt_runner_ledger_commit_seconds",
            "Duration of a group commit, synced to disk.",
            buckets=_COMMIT_BUCKETS,
            registry=self.registry,
        )
        self._commit_size = Histogram(
            "alt_runner_ledger_commit_size",
            "Changes in one group commit.",
            buckets=_SIZE_BUCKETS,
            registry=self.registry,
        )
        self._ledger_up = Gauge(
            "alt_runner_ledger_up", "1 if the ledger answered the last time it was asked.", registry=self.registry
        )

    def _declare_daemon(self) -> None:
        registry = self.registry
        self._watchers = Gauge("alt_runner_watchers", "Watches that are open.", registry=registry)
        self._frames = Counter("alt_runner_frames_sent", "Frames handed to watchers.", registry=registry)
        self._frame_bytes = Counter("alt_runner_frames_sent_bytes", "Bytes of those frames.", registry=registry)
        self._lag = Histogram(
            "alt_runner_event_loop_lag_seconds",
            "How much later than asked for a sleep of the event loop ended.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self._notices = Counter("alt_runner_notices", "Notices to operators.", ["event"], registry=registry)
        self._lines_dropped = Counter(
            "alt_runner_log_lines_dropped", "Lines of the log that could not be written.", registry=registry
        )

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format that an Accept header asks for (OpenMetrics or Prometheus text), and its name."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def begun(self, job: JobSummary, recorded: Recorded) -> None:
        """Count what an event begins."""
        event = recorded.event
        if isinstance(event, JobAccepted):
            self._accepted[self._queue(event.queue),].inc()
        elif isinstance(event, JobStarted) and event.lease_token == 1:  # the first claim
            claimable = max(job.created_at, job.not_before or 0)
            self._wait[self._queue(job.queue),].observe(_seconds(claimable, recorded.time))
        elif isinstance(event, AttemptStarted):
            self._running[self._handler(event.handler),].inc()

    def ended(self, stretch: Stretch) -> None:
        """Count what ended."""
        match stretch:
            case AttemptStretch():
                self._attempt_ended(stretch)
            case TaskStretch(state=state) if state.terminal:
                self._tasks[_TASK_STATES[state],].inc()
            case RunStretch(state=None):
                self._released.inc()
            case RunStretch(run=run, state=JobState() as state):
                self._ended[self._queue(run.job.queue), _STATES[state]].inc()
                self._job_seconds[_STATES[state],].observe(_seconds(run.job.created_at, stretch.ended))

    def _attempt_ended(self, stretch: AttemptStretch) -> None:
        handler = self._handler(stretch.handler)
        self._running[handler,].dec()
        self._attempts[handler, stretch.outcome].inc()
        self._attempt_seconds[handler, stretch.outcome].observe(_seconds(stretch.began, stretch.ended))
        # A child job's attempts were counted themselves.
        if stretch.usage is not None and stretch.handler != JOB:
            self._used(stretch.usage, stretch)
        if stretch.fallback is not None:
            instead_of = self._endpoint(stretch.fallback.instead_of)
            self._fallbacks.labels(instead_of, stretch.fallback.kind.name.lower()).inc()
        if stretch.wait is not None:
            self._parked.labels(self._endpoint(stretch.endpoint), stretch.wait.name.lower()).inc()
        elif stretch.endpoint and stretch.handler != JOB:
            series = self._model_attempts[self._endpoint(stretch.endpoint), stretch.outcome]
            series.observe(_seconds(stretch.began, stretch.ended))

    def _used(self, usage: Usage, stretch: AttemptStretch) -> None:
        """Count what an attempt consumed, whatever became of it, where it was consumed."""
        labels = stretch.run.job.labels
        owners = [(key, self._values[key](labels[key])) for key in self._values if key in labels]
        for (endpoint, model), part in by_place(usage, stretch.endpoint, stretch.model).items():
            self._used_at((self._endpoint(endpoint), self._model(model)), part, owners)

    def _used_at(self, model: tuple[str, str], usage: Usage, owners: Sequence[tuple[str, str]]) -> None:
        self._calls[model].inc(usage.calls)
        for owner in owners:
            self._label_calls[owner].inc(usage.calls)
        known = usage.prompt_tokens + usage.completion_tokens
        kinds = {
            "prompt": usage.prompt_tokens,
            "completion": usage.completion_tokens,
            "unknown": max(0, usage.total_tokens - known),
        }
        for kind, tokens in kinds.items():
            if tokens or kind != "unknown":
                self._tokens[*model, kind].inc(tokens)
                for owner in owners:
                    self._label_tokens[*owner, kind].inc(tokens)

    def breaker(self, endpoint: str, model: str, state: str) -> None:
        labels = (self._endpoint(endpoint), self._model(model))
        for known in BreakerState:
            self._breaker.labels(*labels, known.value).set(known == state)
        self._transitions.labels(*labels, state).inc()

    def fleet(self, endpoints: Sequence[EndpointView], breakers: Sequence[BreakerView]) -> None:
        """Set the gauges of endpoints and breakers to what there is; those that are no more have none."""
        for gauge in (*self._endpoints.values(), self._breaker):
            gauge.clear()
        for view in endpoints:
            self._endpoint_stands(view)
        self._counted = {view.name: (view.hedges, view.held_back, view.unreached) for view in endpoints}
        for breaker in breakers:
            labels = (self._endpoint(breaker.endpoint), self._model(breaker.model))
            for known in BreakerState:
                # Of several that are told as `other`, one is enough.
                series = self._breaker.labels(*labels, known.value)
                if known is breaker.state:
                    series.set(1)

    def _endpoint_stands(self, view: EndpointView) -> None:
        labels = (self._group(view.group), self._endpoint(view.name))
        stands = {
            "unhealthy": view.health is EndpointHealth.UNHEALTHY,
            "draining": view.draining,
            "calls": view.calls,
            "max_calls": view.max_calls,
            "waiting": view.waiting,
            "weight": view.weight * view.warmth,
        }
        for name, value in stands.items():
            # Added: several may be told as `other`.
            self._endpoints[name].labels(*labels).inc(value)
        hedges, held_back, unreached = self._counted.get(view.name, (0, 0, 0))
        self._hedges.labels(*labels).inc(_more(view.hedges, hedges))
        self._held_back.labels(*labels).inc(_more(view.held_back, held_back))
        self._unreached.labels(*labels).inc(_more(view.unreached, unreached))

    def ledger_commit(self, *, size: int, seconds: float) -> None:
        self._commit_seconds.observe(seconds)
        self._commit_size.observe(size)

    def watchers(self, change: int) -> None:
        self._watchers.inc(change)

    def frames_sent(self, count: int, size: int) -> None:
        self._frames.inc(count)
        self._frame_bytes.inc(size)

    def notice(self, event: str) -> None:
        self._notices.labels(self._notice(event)).inc()

    def log_line_dropped(self) -> None:
        self._lines_dropped.inc()

    def lag(self, seconds: float) -> None:
        self._lag.observe(max(0.0, seconds))

    def ledger_up(self, *, up: bool) -> None:
        self._ledger_up.set(up)

    def set_aside(self, jobs: int) -> None:
        self._set_aside.set(jobs)

    def budgets(self, used: Sequence[tuple[Share, int]]) -> None:
        """Set the gauges of budgets; one that is no more has none."""
        self._budgets.clear()
        for share, tokens in used:
            self._budgets.labels(self._budget(share.budget), "limit").set(share.limit)
            self._budgets.labels(self._budget(share.budget), "used").set(tokens)

    def depths(self, depths: Mapping[tuple[str, int], int], oldest: Mapping[str, Instant], *, now: Instant) -> None:
        """Set the gauges of queues to what the ledger says; a queue it no longer names is at 0."""
        sums: dict[tuple[str, str], int] = {}
        for (queue, state), count in depths.items():
            key = (self._queue(queue), JobState(state).name.lower())
            sums[key] = sums.get(key, 0) + count
        for labels in _known_labels(self._jobs):
            sums.setdefault((labels[0], labels[1]), 0)
        for key, count in sums.items():
            self._jobs.labels(*key).set(count)
        ages = {labels[0]: 0.0 for labels in _known_labels(self._oldest)}
        for queue, since in oldest.items():
            ages[self._queue(queue)] = max(ages.get(self._queue(queue), 0.0), _seconds(since, now))
        for queue, age in ages.items():
            self._oldest.labels(queue).set(age)


def _known_labels(gauge: Gauge) -> Sequence[tuple[str, ...]]:
    """The label values that a gauge has shown so far, in the order of its label names."""
    return [tuple(sample.labels.values()) for metric in gauge.collect() for sample in metric.samples]


def _more(count: int, before: int) -> int:
    """How much was counted since. What was registered anew counts from the beginning."""
    return count - before if count >= before else count


def _seconds(began: Instant, ended: Instant) -> float:
    return max(0, ended - began) / _MICROSECONDS
