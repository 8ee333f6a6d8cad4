"""Metrics: what Prometheus scrapes parses, and no label grows without bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from runner import __version__
from runner.core.breaker import BreakerState
from runner.core.budgets import LabelBudget, Period
from runner.core.errors import LedgerUnavailable
from runner.core.events import (
    AttemptParked,
    AttemptStarted,
    AttemptSucceeded,
    Failure,
    FallbackKind,
    FallbackUsed,
    JobAccepted,
    JobStarted,
    JobState,
    JobSucceeded,
    TaskFailed,
    Usage,
    UsageAt,
    WaitReason,
)
from runner.core.fleet import BreakerView, EndpointHealth, EndpointSource, EndpointView
from runner.core.job import JobSummary
from runner.core.plan import Priority
from runner.telemetry.masking import Masking
from runner.telemetry.metrics import OTHER, Label, Metrics
from runner.telemetry.sampling import sample
from runner.telemetry.settings import MetricsSettings
from runner.telemetry.timeline import AttemptStretch, Run

Make = Any
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.fixture
def busy(ear: Make, summary: Make, history: Make) -> Metrics:
    """Metrics that have seen some of everything."""
    job = summary(queue='mail "odd"\n\\')
    done = AttemptSucceeded("fetch", attempt=1, usage=Usage(1, 2, 3, 5), endpoint="main", model="kücük")
    start = AttemptStarted("fetch", 1, "http_request")
    accepted = JobAccepted("Digest", 1, job.queue, Priority.LOW)
    ear.telemetry.committed(job, history(accepted, JobStarted("r", 1), start, done, JobSucceeded()))
    ear.telemetry.breaker("main", "small", "open", "closed")
    ear.telemetry.ledger_commit(size=12, seconds=0.002)
    ear.telemetry.watchers(+1)
    ear.telemetry.frames_sent(3, 900)
    ear.telemetry.notice("odd")
    metrics: Metrics = ear.metrics
    metrics.lag(0.001)
    metrics.depths({("default", 1): 5, ("default", 2): 1}, {"default": 10_000_000}, now=12_000_000)
    return metrics


def test_the_text_format_passes_the_official_parser(busy: Metrics) -> None:
    content, content_type = busy.exposition("text/plain; version=0.0.4")
    assert content_type.startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(content.decode())}
    assert {"alt_runner_jobs", "alt_runner_attempts", "alt_runner_ledger_commit_seconds"} <= names
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "python_gc_collections"} <= names


def test_openmetrics_passes_the_official_parser(busy: Metrics) -> None:
    content, content_type = busy.exposition(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in openmetrics_families(content.decode())}  # type: ignore[no-untyped-call]
    assert families["alt_runner_build"].samples[0].labels["version"] == __version__
    assert families["alt_runner_jobs_ended"].samples[0].labels["queue"] == 'mail "odd"\n\\'


def test_every_metric_of_ours_has_our_name_a_description_and_base_units(busy: Metrics) -> None:
    for family in busy.registry.collect():
        assert family.documentation, family.name
        assert family.name.startswith(("alt_runner_", "process_", "python_")), family.name
        assert not family.name.endswith(("_ms", "_milliseconds", "_kb")), family.name


def test_two_daemons_in_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.watchers(+1)
    assert one.registry.get_sample_value("alt_runner_watchers") == 1
    assert other.registry.get_sample_value("alt_runner_watchers") == 0


def test_values_of_a_label_beyond_its_limit_are_other() -> None:
    label = Label(2, Masking())
    assert [label(value) for value in "abcacd"] == ["a", "b", OTHER, "a", OTHER, OTHER]


def test_no_secret_becomes_a_label() -> None:
    metrics = Metrics(masking=Masking({"k": "hush-hush"}))
    metrics.breaker("hush-hush", "m hush-hush", "open")
    text = metrics.exposition("")[0].decode()
    assert "hush-hush" not in text
    assert 'model="m [secret k]"' in text


def test_a_thousand_kinds_of_task_are_a_handful_of_series(ear: Make, summary: Make, history: Make) -> None:
    for number in range(1000):
        start = AttemptStarted("fetch", 1, f"kind-{number}")
        done = AttemptSucceeded("fetch", attempt=1)
        job = summary(id=f"job-{number}", queue=f"queue-{number}")
        ear.telemetry.committed(job, history(JobStarted("r", 1), start, done, JobSucceeded(), first=2))
    text = ear.metrics.exposition("")[0].decode()
    assert text.count("alt_runner_attempts_total{") == 4
    assert text.count("alt_runner_jobs_ended_total{") == 4
    assert ear.value("alt_runner_attempts_total", handler=OTHER, outcome="succeeded") == 997


def test_a_queue_that_emptied_falls_to_zero(ear: Make) -> None:
    metrics = ear.metrics
    metrics.depths({("mail", JobState.QUEUED): 5}, {"mail": 1_000_000}, now=3_000_000)
    assert ear.value("alt_runner_jobs", queue="mail", state="queued") == 5
    assert ear.value("alt_runner_queue_oldest_seconds", queue="mail") == 2.0
    metrics.depths({}, {}, now=4_000_000)
    assert ear.value("alt_runner_jobs", queue="mail", state="queued") == 0
    assert ear.value("alt_runner_queue_oldest_seconds", queue="mail") == 0


def test_queues_beyond_the_limit_are_summed(ear: Make) -> None:
    depths = {(f"queue-{number}", int(JobState.QUEUED)): 2 for number in range(10)}
    ear.metrics.depths(depths, {}, now=0)
    assert ear.value("alt_runner_jobs", queue=OTHER, state="queued") == 14


class Ledger:
    """Answers what sampling asks, or not; ends the sampling after the third look."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self.scope = scope
        self.up: list[bool] = [True, False, True]

    async def depths(self) -> dict[tuple[str, int], int]:
        if not self.up:
            self.scope.cancel()
            await anyio.lowlevel.checkpoint()
        if not self.up.pop(0):
            raise LedgerUnavailable("away")
        return {("default", 1): 7}

    async def spent_tokens(self, budget: str, period: str) -> int:
        return 7

    async def set_aside(self) -> int:
        return 2

    async def oldest_queued(self) -> dict[str, int]:
        return {"default": 0}


class Clock:
    def now(self) -> int:
        return 4_000_000


async def test_sampling_goes_on_when_the_ledger_is_away(ear: Make) -> None:
    with anyio.CancelScope() as scope:
        ledger: Any = Ledger(scope)
        await sample(ear.metrics, ledger, Clock(), interval=0.001)
    assert ear.value("alt_runner_jobs", queue="default", state="queued") == 7
    assert ear.value("alt_runner_jobs_set_aside") == 2
    assert ear.value("alt_runner_ledger_up") == 1
    assert ear.value("alt_runner_event_loop_lag_seconds_count") == 4


def test_the_documentation_names_every_metric(busy: Metrics) -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    for family in busy.registry.collect():
        if family.name.startswith("alt_runner_"):
            shown = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            assert f"`{shown}`" in text, shown


def test_calls_and_tokens_are_counted_by_endpoint_and_model_whatever_became_of_them(
    ear: Make, summary: Make, history: Make
) -> None:
    start = AttemptStarted("ask", 1, "orchestrator")
    failure = Failure("TRUNCATED", "the answer broke off")
    failed = TaskFailed("ask", attempt=1, failure=failure, usage=Usage(1, 7, 2, 9), endpoint="main", model="m")
    done = AttemptSucceeded("sum", attempt=1, usage=Usage(2, 0, 0, 40), endpoint="main", model="m")
    more = history(JobStarted("r", 1), start, failed, AttemptStarted("sum", 1, "orchestrator"), done, first=2)
    ear.telemetry.committed(summary(labels={"team": "blue"}), more)
    main = {"endpoint": "main", "model": "m"}
    assert ear.value("alt_runner_model_calls_total", **main) == 3
    kinds = ("prompt", "completion", "unknown")
    assert [ear.value("alt_runner_model_tokens_total", **main, kind=kind) for kind in kinds] == [7, 2, 40]
    assert "alt_runner_label_tokens_total{" not in ear.metrics.exposition("")[0].decode(), "no label is asked for"


def test_what_was_consumed_elsewhere_is_counted_there_and_for_labels_once(summary: Make) -> None:
    metrics = Metrics(MetricsSettings(usage_labels=("team",)))
    parts = (UsageAt("main", "l", 1, total_tokens=4), UsageAt("spare", "m", 2, 7, 2, 9))
    asked = _asked(summary(labels={"team": "blue"}), Usage(4, 8, 4, 16, parts))
    metrics.ended(msgspec.structs.replace(asked, endpoint="main", model="m"))
    text = metrics.exposition("")[0].decode()
    calls = {
        (sample.labels["endpoint"], sample.labels["model"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "alt_runner_model_calls_total"
    }
    assert calls == {("main", "m"): 1, ("main", "l"): 1, ("spare", "m"): 2}
    value = metrics.registry.get_sample_value
    assert value("alt_runner_label_calls_total", {"label": "team", "value": "blue"}) == 4
    kinds = {"prompt": 8, "completion": 4, "unknown": 4}
    for kind, tokens in kinds.items():
        assert value("alt_runner_label_tokens_total", {"label": "team", "value": "blue", "kind": kind}) == tokens
    told = {"endpoint": "main", "model": "m", "kind": "completion"}
    assert value("alt_runner_model_tokens_total", told) == 2


def test_labels_that_are_asked_for_count_usage_by_a_bounded_number_of_values(summary: Make) -> None:
    metrics = Metrics(MetricsSettings(usage_labels=("team", "project"), max_label_values=2))
    for number, team in enumerate(["blue", "red", "green", "grey", "blue"]):
        job = summary(id=f"job-{number}", labels={"team": team, "user": f"u{number}"})
        metrics.ended(_asked(job, Usage(1, 2, 3, 5)))
    text = metrics.exposition(OPENMETRICS)[0].decode()
    families = {family.name: family for family in openmetrics_families(text)}  # type: ignore[no-untyped-call]
    calls = {
        (sample.labels["label"], sample.labels["value"]): sample.value
        for sample in families["alt_runner_label_calls"].samples
        if sample.name.endswith("_total")
    }
    assert calls == {("team", "blue"): 2, ("team", "red"): 1, ("team", OTHER): 2}
    told = {"label": "team", "value": "blue", "kind": "completion"}
    assert metrics.registry.get_sample_value("alt_runner_label_tokens_total", told) == 6


def test_what_stood_in_is_counted_for_the_endpoint_that_did_not_answer(summary: Make) -> None:
    metrics = Metrics()
    used = FallbackUsed(kind=FallbackKind.VALUE, position=1, instead_of="main", failure=Failure("BREAKER_OPEN", "open"))
    metrics.ended(msgspec.structs.replace(_asked(summary(), Usage()), fallback=used))
    labels = {"endpoint": "main", "kind": "value"}
    assert metrics.registry.get_sample_value("alt_runner_fallbacks_total", labels) == 1


def _asked(job: JobSummary, usage: Usage) -> AttemptStretch:
    run = Run(job=job, lease_token=1, resumed=False, began=0, traceparent="")
    return AttemptStretch(
        run=run, task_id="ask", attempt=1, handler="orchestrator", began=0, ended=1, outcome="failed", usage=usage
    )


def test_what_a_child_job_used_is_counted_by_its_own_attempts_alone(summary: Make) -> None:
    metrics = Metrics(MetricsSettings())
    metrics.ended(msgspec.structs.replace(_asked(summary(), Usage(1, 2, 3, 5)), handler="job"))
    assert "alt_runner_model_tokens_total{" not in metrics.exposition("")[0].decode()


async def test_what_is_used_of_budgets_is_shown_in_the_current_period_and_not_beyond(ear: Make) -> None:
    budget = LabelBudget(label="team", value="blue", tokens=100, per=Period.EVER)
    with anyio.CancelScope() as scope:
        ledger: Any = Ledger(scope)
        await sample(ear.metrics, ledger, Clock(), interval=0.001, budgets=lambda: [budget])
    told = {
        kind: ear.value("alt_runner_budget_tokens", budget="team=blue/ever", kind=kind) for kind in ("limit", "used")
    }
    assert told == {"limit": 100, "used": 7}
    ear.metrics.budgets([])
    assert ear.value("alt_runner_budget_tokens", budget="team=blue/ever", kind="used") is None


def endpoint(name: str, **more: Any) -> EndpointView:
    told: dict[str, Any] = {"group": "gpu", "url": "http://h", "protocol": "openai"}
    told |= {"source": EndpointSource.REGISTERED, "health": EndpointHealth.HEALTHY}
    return EndpointView(name=name, **(told | more))


class FleetOf:
    """A Fleet, as far as sampling asks it."""

    def endpoints(self) -> list[EndpointView]:
        return [endpoint("gpu-1", calls=3, max_calls=32, waiting=7, weight=2.0, warmth=0.5)]

    def breakers(self) -> list[BreakerView]:
        return [BreakerView(endpoint="gpu-1", model="m", state=BreakerState.CLOSED, since=0)]


async def test_sampling_tells_how_each_endpoint_and_breaker_stands(ear: Make) -> None:
    with anyio.CancelScope() as scope:
        ledger: Any = Ledger(scope)
        fleet: Any = FleetOf()
        await sample(ear.metrics, ledger, Clock(), interval=0.001, fleet=fleet)
    names = ("unhealthy", "draining", "calls", "max_calls", "waiting_tasks", "weight")
    shown = [ear.value(f"alt_runner_endpoint_{name}", group="gpu", endpoint="gpu-1") for name in names]
    assert shown == [0, 0, 3, 32, 7, 1]
    assert ear.value("alt_runner_breaker_state", endpoint="gpu-1", model="m", state="closed") == 1


def test_an_endpoint_that_is_no_more_leaves_no_alert_behind() -> None:
    metrics = Metrics(MetricsSettings())
    metrics.breaker("gpu-1", "m", "open")
    metrics.fleet([endpoint("gpu-1", health=EndpointHealth.UNHEALTHY, hedges=2)], [])
    metrics.fleet([], [])
    told = metrics.exposition("")[0].decode()
    assert "alt_runner_breaker_state{" not in told
    assert "alt_runner_endpoint_unhealthy{" not in told
    assert 'alt_runner_endpoint_hedges_total{endpoint="gpu-1",group="gpu"} 2.0' in told


def test_what_endpoints_counted_goes_on_when_one_is_registered_anew(ear: Make) -> None:
    for hedges, held_back, unreached in ((2, 1, 0), (5, 1, 3), (1, 0, 3), (1, 4, 2)):
        ear.metrics.fleet([endpoint("gpu-1", hedges=hedges, held_back=held_back, unreached=unreached)], [])
    labels = {"group": "gpu", "endpoint": "gpu-1"}
    assert ear.value("alt_runner_endpoint_hedges_total", **labels) == 6
    assert ear.value("alt_runner_endpoint_retries_held_back_total", **labels) == 5
    assert ear.value("alt_runner_endpoint_unreached_total", **labels) == 5


def test_endpoints_beyond_the_label_s_limit_are_summed_up(ear: Make) -> None:
    ear.metrics.fleet([endpoint(f"gpu-{number}", calls=1) for number in range(5)], [])
    assert ear.value("alt_runner_endpoint_calls", group="gpu", endpoint=OTHER) == 2


def test_attempts_at_an_endpoint_are_measured_by_outcome_and_those_that_were_parked_by_reason(
    ear: Make, summary: Make, history: Make
) -> None:
    start = AttemptStarted("ask", 1, "ai_prompt")
    parked = AttemptParked("ask", attempt=1, reason=WaitReason.BREAKER_OPEN, until=0, endpoint="main")
    failed = TaskFailed("ask", attempt=1, failure=Failure("HTTP_STATUS", "no"), endpoint="main", model="m")
    ear.telemetry.committed(summary(), history(JobStarted("r", 1), start, parked, start, failed, first=2))
    assert ear.value("alt_runner_attempts_parked_total", endpoint="main", reason="breaker_open") == 1
    measured = "alt_runner_model_attempt_duration_seconds_count"
    assert ear.value(measured, endpoint="main", outcome="failed") == 1
    assert ear.value(measured, endpoint="main", outcome="parked") is None
